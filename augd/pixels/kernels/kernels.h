/* The native kernels of augd: what a producer does per pixel, without Python.
 *
 * Stands below `augd/pixels/native.py`, which alone calls it. Everything here is deterministic: whole
 * numbers, or doubles of which only + - * / are used (build with -ffp-contract=off), so that SIMD
 * and portable code give the same bytes. Only module.c, arguments.c and python_*.c know Python. Between calls
 * each thread keeps its buffers and the lookups of the last Huffman tables, until the process ends.
 *
 * Pixels are RGB uint8, (height, width, 3), rows `stride` bytes apart.
 */
#ifndef AUGD_KERNELS_H
#define AUGD_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AUGD_CHANNELS 3
#define AUGD_MESSAGE_BYTES 256

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define AUGD_HAS_AVX2_CODE 1
#define AUGD_AVX2 __attribute__((target("avx2")))
#else
#define AUGD_HAS_AVX2_CODE 0
#endif

/* Whether huffman.c is built: it plugs into libjpeg-turbo's jpegint.h, which not every system ships. */
#ifndef AUGD_OWN_ENTROPY
#if defined(__has_include)
#if __has_include(<jpegint.h>)
#define AUGD_OWN_ENTROPY 1
#endif
#endif
#endif
#ifndef AUGD_OWN_ENTROPY
#define AUGD_OWN_ENTROPY 0
#endif

typedef struct {
    int x, y, width, height;
} Region;

typedef struct {
    const uint8_t *data;
    int width, height;
    ptrdiff_t stride;
} Image;

/* What the caller knows of a JPEG from its header, to be found true. */
typedef struct {
    const uint8_t *data;
    size_t size;
    int width, height;
} Jpeg;

/* How an image becomes a row: scaled to a size, of which a window is made, turned left to right or
 * upside down if wanted. */
typedef enum { AUGD_ANTIALIAS, AUGD_LINEAR, AUGD_BICUBIC, AUGD_NUM_FILTERS } Filter;
typedef struct {
    int scaled_width, scaled_height;
    Region window;
    bool mirror, flip;
    Filter filter;
} Scaling;

/* jpeg.c: decode `region`, in pixels of the image scaled by 1 / scale, into `out`.
 *
 * Equals decoding all of it, cropped. Returns false with a text in `message` when libjpeg fails or
 * when it warns of broken data among what is needed for the region. */
bool augd_decode_region(Jpeg jpeg, int scale, Region region, uint8_t *out,
                        char message[AUGD_MESSAGE_BYTES]);

/* Decode a region and scale it, a few lines at a time: the region as such never exists. Equals
 * augd_decode_region, then augd_resize. Where the JPEG is a part of an image, the region may reach
 * beyond it, if nothing is needed of what lies there. */
bool augd_render_region(Jpeg jpeg, int scale, Region region, Scaling scaling, uint8_t *out,
                        char message[AUGD_MESSAGE_BYTES]);

/* transcode.c: write the JPEG's coefficients again, with a restart marker after every
 * `restart_interval` MCUs. Returns how many bytes were written to `out`, which holds `size`; 0, with
 * a text in `message`, when libjpeg fails or warns, or when they are more. */
size_t augd_transcode(Jpeg jpeg, int restart_interval, uint8_t *out, size_t size,
                      char message[AUGD_MESSAGE_BYTES]);

/* The lengths of an image's restart segments, row by row, each with the marker behind it. */
typedef struct {
    const uint16_t *lengths;
    int columns, rows;
} Segments;

/* segments.c: how many bytes the segments from `first` to before `end` take. */
size_t augd_segment_bytes(const uint16_t *lengths, size_t first, size_t end);

/* Copy a rectangle of segments from `body`, which reaches from its first to the end of its last one,
 * and number their markers anew. Returns false when a marker is not where the lengths say, or when
 * they don't take all of `body` and `out`. */
bool augd_cut_segments(Segments all, Region kept, const uint8_t *body, size_t body_size, uint8_t *out,
                       size_t out_size);

/* An image with restart segments: the table of an index, and those of its bytes that were read. Nothing
 * of it is trusted. */
typedef struct {
    uint8_t *head; /* up to the scan's data; written to, and put back */
    size_t head_size;
    const uint8_t *body; /* from the first of the segments that are kept to the end of the last one */
    size_t body_size;
    int width, height, mcu_width, mcu_height, interval;
    Segments all;
    Region kept; /* in segments and rows of them */
} Cut;

/* jpeg.c: as augd_decode_region and augd_render_region, from the segments that are kept. The region is
 * one of the image, scaled by 1 / scale. Returns false where augd_has_own_entropy_decoder does. */
bool augd_decode_cut(const Cut *cut, int scale, Region region, uint8_t *out,
                     char message[AUGD_MESSAGE_BYTES]);
bool augd_render_cut(const Cut *cut, int scale, Region region, Scaling scaling, uint8_t *out,
                     char message[AUGD_MESSAGE_BYTES]);

/* Whether huffman.c is built in and used, and the version of libjpeg-turbo's headers. */
bool augd_has_own_entropy_decoder(void);
const char *augd_libjpeg_version(void);

/* resize.c: scale an image. Returns false when memory is short. */
bool augd_resize(Image source, Scaling scaling, uint8_t *out);

/* halve.c: halve an image; `out` has its sides halved, rounded up. */
void augd_halve(Image source, uint8_t *out);

/* How places outside a region are filled, as augd/pixels/warp.py counts them. */
typedef enum { AUGD_REFLECT, AUGD_CONSTANT, AUGD_NEAREST, AUGD_WRAP, AUGD_NUM_FILLS } Fill;

/* Where each pixel of a row is read: `steps` times its way from the row's middle, which is at `whole`
 * plus `centre`, x and y in pixels of the region, whose middles have whole numbers. A lens and a field
 * move it first: see augd/pixels/warp.py, which says what is rounded when. */
typedef struct {
    int width, height; /* of the row */
    double steps[2][2], centre[2], whole[2];
    const float *grid; /* (height, width), how far a lens of 1 moves each pixel; NULL without one */
    double lens;
    const float *field; /* (2, height, width), times `field_scale`; NULL without one */
    double field_scale;
    bool is_bicubic;
    Fill fill;
    uint8_t fill_value[AUGD_CHANNELS];
    int limits[2][2]; /* of x and y: places, in 1/256 px, from the first to before the second are inside */
} Warp;

/* warp.c: make a row by bilinear or bicubic samples. Pixels whose place is outside the limits are the fill's value.
 * Whatever the numbers are, nothing is read outside the source. Returns false when memory is short. */
bool augd_warp(Image source, const Warp *warp, uint8_t *out);

/* Set those pixels of a row to the fill's value again. Returns false when memory is short. */
bool augd_refill(const Warp *warp, uint8_t *out);

/* colour_matrix.c: recolour pixels in place by a 3x4 matrix on (R, G, B, 1), rounded as
 * augd/pixels/colour_matrix.py says. Returns false, with nothing done, when an entry is too large for whole numbers of 1/1024. */
bool augd_apply_colour(uint8_t *pixels, size_t num_pixels, const double matrix[3][4]);

/* Add a 3x3 matrix on the mean of the pixels to the last column of `matrix`, as augd/pixels/colour_matrix.py
 * does, bit for bit. */
void augd_add_mean(const uint8_t *pixels, size_t num_pixels, const double pivot[3][3],
                   double matrix[3][4]);

/* Sum each channel. */
void augd_sum(const uint8_t *pixels, size_t num_pixels, uint64_t sums[3]);

/* cpu.c: whether AVX2 is used. It is not until it is allowed. */
bool augd_use_avx2(void);

/* Use AVX2 if `is_allowed` and the processor has it; return whether it is used. Not for several threads
 * at a time: the module calls it when it is loaded, tests call it to compare both. */
bool augd_allow_avx2(bool is_allowed);

#endif
