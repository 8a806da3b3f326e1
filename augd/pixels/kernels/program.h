/* The steps of a row's program: what augd/plan/program.py lists, in place on a row.
 *
 * program.c runs them in their order. Each rounds once, halves up, and clips to 0..255. All but JPEG
 * are whole numbers, or doubles in a fixed order, so that augd/pixels/program.py gives equal bytes.
 */
#ifndef AUGD_PROGRAM_H
#define AUGD_PROGRAM_H

#include "kernels.h"

enum { AUGD_LEVELS = 256, AUGD_VALUES = 4, AUGD_MATRIX_ENTRIES = 21, AUGD_RADIUS_MAX = 256 };

typedef struct {
    uint8_t *pixels;
    int width, height;
} AugdRow;

/* What steps write to beside the row. `copy` holds a row, or a JPEG of one. */
typedef struct {
    uint8_t *copy;
    size_t copy_bytes;
    int16_t *line; /* a row's line, with AUGD_RADIUS_MAX pixels on both sides */
} AugdScratch;

size_t augd_scratch_bytes(int width, int height);

/* Divide scratch memory, whose address is a multiple of that of an int16_t. */
AugdScratch augd_divide_scratch(void *memory, int width, int height);

/* The program of one row. */
typedef struct {
    const uint8_t *kinds;
    const double *values;   /* AUGD_VALUES of each step */
    const double *matrices; /* AUGD_MATRIX_ENTRIES each: A | b row by row, then C */
    const uint8_t *tables;  /* AUGD_LEVELS each */
    int num_steps, num_matrices, num_tables;
} AugdProgram;

/* program.c: run the steps from `first` on. Returns how many steps are done then, of all: fewer than
 * there are if the next one is a matrix that augd_apply_colour rejects; or, with a text in `message`,
 * if its values are out of range or libjpeg fails. `normals` are for augd_add_noise. */
int augd_run_program(AugdRow row, const AugdProgram *program, int first, const AugdScratch *scratch,
                     const int16_t *normals, char message[AUGD_MESSAGE_BYTES]);

/* tables.c: y = table[x] in all channels; y = tables[channel][x]. */
void augd_look_up(AugdRow row, const uint8_t table[AUGD_LEVELS]);
void augd_equalize(AugdRow row);
void augd_stretch_contrast(AugdRow row);

/* sharpness.c: y = d + factor (x - d), where d is smoothed; for factors up to AUGD_FACTOR_MAX. */
enum { AUGD_FACTOR_MAX = 64 };
void augd_sharpen(AugdRow row, double factor, const AugdScratch *scratch);

/* blur.c: convolve with a Gaussian, reflected at the edges; for radii up to AUGD_RADIUS_MAX. */
void augd_blur(AugdRow row, double sigma, int radius, const AugdScratch *scratch);

/* noise.c: the numbers of a key and a stream: see augd/pixels/noise.py. `normals` are the quantiles of
 * 65,536 equal parts, in steps of 1/4096. */
typedef struct {
    uint32_t key[2], stream;
    const int16_t *normals;
} AugdNoise;

/* Add numbers of a standard deviation up to 255 levels to each byte of a row. */
void augd_add_noise(AugdRow row, double std, AugdNoise noise);

/* Fill a box of an image: mean plus std times a number, in levels, for each pixel and channel. */
void augd_fill_noise(uint8_t *first, ptrdiff_t stride, int width, int height, const double mean[3],
                     const double std[3], AugdNoise noise);

/* recompress.c: encode as a JPEG of a quality of 1 to 100, 4:2:0, and decode. */
bool augd_recompress(AugdRow row, int quality, const AugdScratch *scratch,
                     char message[AUGD_MESSAGE_BYTES]);

#endif
