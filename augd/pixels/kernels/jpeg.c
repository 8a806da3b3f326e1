/* Regions of JPEGs, by libjpeg-turbo.
 *
 * Rows above the region are entropy-decoded and dropped, columns beside it get no IDCT, and what
 * lies below is never read. One pixel more on each side keeps the smooth upsampling of chroma
 * as it is in the whole image. A warning of libjpeg's that means broken data is an error.
 *
 * Of an image with known restart segments, libjpeg gets a smaller image: the header gets the size of the
 * segments that were read, and the entropy decoder of huffman.c finds them where they lie.
 */
#include "buffer.h"
#include "resize.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#if AUGD_OWN_ENTROPY
#include "huffman.h"
#else
#include <jpeglib.h>
#endif
#include <jerror.h>

#ifndef LIBJPEG_TURBO_VERSION_NUMBER
#error "augd needs libjpeg-turbo: jpeg_skip_scanlines and jpeg_crop_scanline"
#endif

#if JPEG_LIB_VERSION >= 70
#define MIN_DCT_SCALED_SIZE min_DCT_h_scaled_size
#else
#define MIN_DCT_SCALED_SIZE min_DCT_scaled_size
#endif

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

enum {
    LINES_AT_ONCE = 16,
    LEAST_WIDTH = 8, /* of what is decoded: narrower chroma would be upsampled in another way */
};

typedef struct {
    struct jpeg_decompress_struct jpeg; /* first: libjpeg's callbacks get a pointer to it */
    struct jpeg_error_mgr errors;
    jmp_buf on_error;
    char *message;
    bool is_in_scan;
#if AUGD_OWN_ENTROPY
    AugdEntropy entropy;
#endif
} Decoder;

/* One for each thread, so that tables are kept from image to image. */
static _Thread_local Decoder decoder;

static _Noreturn void leave(j_common_ptr jpeg, const char *kind) {
    Decoder *self = (Decoder *)jpeg;
    char text[JMSG_LENGTH_MAX];
    self->errors.format_message(jpeg, text);
    snprintf(self->message, AUGD_MESSAGE_BYTES, "%s: %s", kind, text);
    longjmp(self->on_error, 1);
}

static void on_error(j_common_ptr jpeg) { leave(jpeg, "does not decode"); }

#if AUGD_OWN_ENTROPY
static _Noreturn void on_broken_scan(j_decompress_ptr jpeg, const char *message) {
    Decoder *self = (Decoder *)jpeg;
    snprintf(self->message, AUGD_MESSAGE_BYTES, "broken scan: Corrupt JPEG data: %s", message);
    longjmp(self->on_error, 1);
}
#endif

/* Bytes that libjpeg skipped before a marker are harmless in the header, and after the last scan. */
static bool is_lost_data(const Decoder *self) {
    if (!self->is_in_scan) return false;
    bool is_at_the_end = self->errors.msg_parm.i[1] == JPEG_EOI;
    return !is_at_the_end || self->jpeg.restart_interval != 0;
}

static void on_message(j_common_ptr jpeg, int level) {
    Decoder *self = (Decoder *)jpeg;
    if (level >= 0) return; /* traces */
    switch (self->errors.msg_code) {
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_BOGUS_PROGRESSION:
    case JWRN_MUST_RESYNC:
    case JWRN_JPEG_EOF:
        leave(jpeg, "broken scan");
    case JWRN_EXTRANEOUS_DATA:
        if (is_lost_data(self)) leave(jpeg, "broken scan");
    }
}

static void say_nothing(j_common_ptr jpeg) { (void)jpeg; }

/* Read the header and check it against what the caller found there. */
static bool open_jpeg(Decoder *self, Jpeg source) {
    j_decompress_ptr jpeg = &self->jpeg;
    jpeg_create_decompress(jpeg);
    jpeg_mem_src(jpeg, source.data, (unsigned long)source.size);
    jpeg_read_header(jpeg, TRUE);
    if (jpeg->image_width == (JDIMENSION)source.width &&
        jpeg->image_height == (JDIMENSION)source.height)
        return true;
    snprintf(self->message, AUGD_MESSAGE_BYTES,
             "decoded to another size: expected %dx%d, got %ux%u", source.width, source.height,
             jpeg->image_width, jpeg->image_height);
    return false;
}

/* Upsampling by other factors is rare enough to be done for whole images. */
static bool has_usual_sampling(j_decompress_ptr jpeg) {
    const jpeg_component_info *luma = jpeg->comp_info;
    if (luma->h_samp_factor > 2 || luma->v_samp_factor > 2) return false;
    for (int number = 1; number < jpeg->num_components; number++)
        if (luma[number].h_samp_factor != 1 || luma[number].v_samp_factor != 1) return false;
    return true;
}

/* A progressive image whose last scans are missing has its blocks smoothed by their neighbours,
 * two to each side. libjpeg says so by coefficients that it doesn't know exactly. */
static bool is_smoothed(j_decompress_ptr jpeg) {
    enum { NUM_LOOKED_AT = 10 };
    if (!jpeg->progressive_mode || !jpeg->coef_bits) return false;
    for (int component = 0; component < jpeg->num_components; component++)
        for (int place = 0; place < NUM_LOOKED_AT; place++)
            if (jpeg->coef_bits[component][place] != 0) return true;
    return false;
}

static void start(Decoder *self, int scale, const Cut *cut) {
    j_decompress_ptr jpeg = &self->jpeg;
    jpeg->out_color_space = JCS_RGB;
    jpeg->dct_method = JDCT_ISLOW;
    jpeg->do_fancy_upsampling = TRUE;
    jpeg->scale_num = 1;
    jpeg->scale_denom = (unsigned)scale;
    self->is_in_scan = true;
    jpeg_start_decompress(jpeg);
#if AUGD_OWN_ENTROPY
    if (cut) {
        const Region kept = cut->kept;
        const size_t first = (size_t)kept.y * (size_t)cut->all.columns + (size_t)kept.x;
        const size_t in_between = (size_t)(kept.height - 1) * (size_t)cut->all.columns;
        const AugdSegments segments = {
            .next = cut->body,
            .end = cut->body + cut->body_size,
            .lengths = cut->all.lengths,
            .columns = cut->all.columns,
            .interval = cut->interval,
            .left = kept.x,
            .right = kept.x + kept.width,
            .place = first,
            .end_place = first + in_between + (size_t)kept.width,
            .num_places = (size_t)cut->all.columns * (size_t)cut->all.rows,
        };
        augd_take_over(jpeg, &self->entropy, &segments, on_broken_scan);
    } else if (!jpeg->arith_code && !jpeg->progressive_mode && !jpeg_has_multiple_scans(jpeg)) {
        augd_take_over(jpeg, &self->entropy, NULL, on_broken_scan);
    }
#else
    (void)cut;
#endif
}

/* Leave out the columns beside [left, left + width), which are widened to whole MCUs. */
static void crop_columns(Decoder *self, JDIMENSION *left, JDIMENSION *width) {
    j_decompress_ptr jpeg = &self->jpeg;
    jpeg_crop_scanline(jpeg, left, width);
#if AUGD_OWN_ENTROPY
    /* As jpeg_crop_scanline counts MCUs, which it alone keeps. */
    JDIMENSION mcu_width = (JDIMENSION)jpeg->MIN_DCT_SCALED_SIZE;
    if (jpeg->num_components > 1) mcu_width *= (JDIMENSION)jpeg->max_h_samp_factor;
    augd_want_columns(&self->entropy, (int)(*left / mcu_width),
                      (int)((*left + *width + mcu_width - 1) / mcu_width));
#endif
}

/* Leave out what lies beside and above `region`. Returns where it begins in the lines to come. */
static size_t crop(Decoder *self, Region region) {
    j_decompress_ptr jpeg = &self->jpeg;
    if (!has_usual_sampling(jpeg) || is_smoothed(jpeg)) return (size_t)region.x * AUGD_CHANNELS;
    const int most = (int)jpeg->output_width;
    int first = region.x - 1, end = region.x + region.width + 1;
    if (first > most - LEAST_WIDTH) first = most - LEAST_WIDTH;
    if (first < 0) first = 0;
    if (end < first + LEAST_WIDTH) end = first + LEAST_WIDTH;
    if (end > most) end = most;
    JDIMENSION left = (JDIMENSION)first, width = (JDIMENSION)(end - first);
    if (width < jpeg->output_width) crop_columns(self, &left, &width);
    if (region.y > 0) jpeg_skip_scanlines(jpeg, (JDIMENSION)region.y);
    return ((size_t)region.x - left) * AUGD_CHANNELS;
}

/* Read at most `count` lines, the first of them `top` of the image; returns how many. Those above
 * it are read and forgotten. */
static int read_lines(Decoder *self, int top, uint8_t *lines, size_t stride, int count) {
    j_decompress_ptr jpeg = &self->jpeg;
    JSAMPROW rows[LINES_AT_ONCE];
    for (int row = 0; row < LINES_AT_ONCE; row++) rows[row] = lines;
    while ((int)jpeg->output_scanline < top) {
        int above = top - (int)jpeg->output_scanline;
        jpeg_read_scanlines(jpeg, rows, (JDIMENSION)(above < LINES_AT_ONCE ? above : LINES_AT_ONCE));
    }
    int wanted = count < LINES_AT_ONCE ? count : LINES_AT_ONCE;
    for (int row = 0; row < wanted; row++) rows[row] = lines + (size_t)row * stride;
    return (int)jpeg_read_scanlines(jpeg, rows, (JDIMENSION)wanted);
}

static _Thread_local AugdBuffer kept_lines;

static uint8_t *keep_lines(Decoder *self, size_t size) {
    uint8_t *lines = augd_grow_buffer(&kept_lines, size);
    if (!lines) ERREXIT1(&self->jpeg, JERR_OUT_OF_MEMORY, 0);
    return lines;
}

static void copy_region(Decoder *self, Region region, uint8_t *out) {
    const size_t row_bytes = (size_t)region.width * AUGD_CHANNELS;
    const size_t offset = crop(self, region);
    const size_t stride = (size_t)self->jpeg.output_width * AUGD_CHANNELS;
    uint8_t *lines = keep_lines(self, stride * LINES_AT_ONCE);
    for (int done = 0; done < region.height;) {
        int num_read = read_lines(self, region.y + done, lines, stride, region.height - done);
        for (int line = 0; line < num_read; line++, done++, out += row_bytes)
            memcpy(out, lines + (size_t)line * stride + offset, row_bytes);
    }
}

/* Scale the lines as they come. Those that taps still need move up when room is short. */
static void scale_region(Decoder *self, Region needed, const AugdScaler *scaler, uint8_t *out) {
    const size_t offset = crop(self, needed);
    const size_t stride = (size_t)self->jpeg.output_width * AUGD_CHANNELS;
    const int most = needed.height + LINES_AT_ONCE, enough = 2 * scaler->down.num_taps + 2 * LINES_AT_ONCE;
    const int capacity = enough < most ? enough : most;
    uint8_t *lines = keep_lines(self, stride * (size_t)capacity);
    int first = 0, end = 0; /* of the needed lines: those that are there */
    for (int y = 0; y < scaler->down.num_outputs; y++) {
        int from = scaler->down.first[y], until = from + scaler->down.num_taps;
        if (until > needed.height) until = needed.height;
        if (from > end) first = end = from; /* no tap touches the lines between */
        while (end < until) {
            if (end + LINES_AT_ONCE > first + capacity) {
                memmove(lines, lines + (size_t)(from - first) * stride, (size_t)(end - from) * stride);
                first = from;
            }
            end += read_lines(self, needed.y + end, lines + (size_t)(end - first) * stride, stride,
                              needed.height - end);
        }
        augd_scale_row(scaler, y, lines + (size_t)(from - first) * stride + offset,
                       (ptrdiff_t)stride, needed.height - from, out);
    }
}

static void prepare(Decoder *self, char *message) {
    self->message = message;
    self->is_in_scan = false;
    self->jpeg.err = jpeg_std_error(&self->errors);
    self->errors.error_exit = on_error;
    self->errors.emit_message = on_message;
    self->errors.output_message = say_nothing;
}

#if AUGD_OWN_ENTROPY
/* Find the size in a JPEG's header that ends with that of its scan; NULL where it is no plain one. */
static __attribute__((noinline)) uint8_t *find_size(uint8_t *head, size_t size) {
    enum { SOF0 = 0xC0, SOF1, SOI = 0xD8, SOS = 0xDA, DNL = 0xDC, FRAME_BYTES = 8, PRECISION = 4 };
    uint8_t *frame = NULL;
    if (size < 2 || head[0] != 0xFF || head[1] != SOI) return NULL;
    for (size_t at = 2; size - at >= 4 && head[at] == 0xFF;) {
        const size_t length = (size_t)head[at + 2] << 8 | head[at + 3];
        const int marker = head[at + 1];
        if (length < 2 || length + 2 > size - at) return NULL;
        if (marker == SOF0 || marker == SOF1) {
            if (frame || length < FRAME_BYTES) return NULL;
            frame = head + at + PRECISION + 1;
        } else if (marker == SOS) {
            return at + 2 + length == size ? frame : NULL;
        } else if (marker < SOF0 || marker == DNL || (marker >= JPEG_RST0 && marker <= SOI) ||
                   marker == JPEG_EOI) {
            return NULL;
        }
        at += 2 + length;
    }
    return NULL;
}

static void write_size(uint8_t *at, int width, int height) {
    const uint8_t bytes[] = {(uint8_t)(height >> 8), (uint8_t)height, (uint8_t)(width >> 8),
                             (uint8_t)width};
    memcpy(at, bytes, sizeof bytes);
}

static bool has_size(const uint8_t *at, int width, int height) {
    return (at[0] << 8 | at[1]) == height && (at[2] << 8 | at[3]) == width;
}

/* Read a header that was told the size of a part, and check that it is the one of the index. */
static bool open_cut(Decoder *self, const Cut *cut, int width, int height) {
    const Jpeg source = {cut->head, cut->head_size, width, height};
    if (!open_jpeg(self, source)) return false;
    j_decompress_ptr jpeg = &self->jpeg;
    const bool is_one = jpeg->num_components == 1;
    const int mcu_width = is_one ? DCTSIZE : jpeg->max_h_samp_factor * DCTSIZE;
    const int mcu_height = is_one ? DCTSIZE : jpeg->max_v_samp_factor * DCTSIZE;
    if (!jpeg->progressive_mode && !jpeg->arith_code && !jpeg_has_multiple_scans(jpeg) &&
        jpeg->src->bytes_in_buffer == 0 && mcu_width == cut->mcu_width &&
        mcu_height == cut->mcu_height && jpeg->restart_interval == (unsigned)cut->interval &&
        (width + mcu_width - 1) / mcu_width == cut->kept.width * cut->interval &&
        (height + mcu_height - 1) / mcu_height == cut->kept.height)
        return true;
    snprintf(self->message, AUGD_MESSAGE_BYTES, "its header is not the one that was indexed");
    return false;
}
#endif

/* Begin; false, with a message, when the region is not in the image. */
static bool begin_at(Decoder *self, int scale, Region region, const Cut *cut) {
    start(self, scale, cut);
    if (region.x >= 0 && region.y >= 0 &&
        region.x + region.width <= (int)self->jpeg.output_width &&
        region.y + region.height <= (int)self->jpeg.output_height)
        return true;
    snprintf(self->message, AUGD_MESSAGE_BYTES, "region: expected a part of %ux%u",
             self->jpeg.output_width, self->jpeg.output_height);
    return false;
}

static bool begin(Decoder *self, Jpeg source, int scale, Region region) {
    return open_jpeg(self, source) && begin_at(self, scale, region, NULL);
}

bool augd_decode_region(Jpeg source, int scale, Region region, uint8_t *out,
                        char message[AUGD_MESSAGE_BYTES]) {
    Decoder *self = &decoder;
    volatile bool is_done = false; /* set between setjmp and longjmp */
    prepare(self, message);
    if (setjmp(self->on_error) == 0 && begin(self, source, scale, region)) {
        copy_region(self, region, out);
        is_done = true;
    }
    jpeg_destroy_decompress(&self->jpeg);
    return is_done;
}

static Region needed_of(const AugdScaler *scaler, Region region) {
    return (Region){region.x + scaler->needed.x, region.y + scaler->needed.y, scaler->needed.width,
                    scaler->needed.height};
}

bool augd_render_region(Jpeg source, int scale, Region region, Scaling scaling, uint8_t *out,
                        char message[AUGD_MESSAGE_BYTES]) {
    Decoder *self = &decoder;
    AugdScaler scaler;
    volatile bool is_done = false; /* set between setjmp and longjmp */
    prepare(self, message);
    if (!augd_prepare_scaler(&scaler, region.width, region.height, scaling)) {
        snprintf(message, AUGD_MESSAGE_BYTES, "out of memory");
        return false;
    }
    const Region needed = needed_of(&scaler, region);
    if (setjmp(self->on_error) == 0 && begin(self, source, scale, needed)) {
        scale_region(self, needed, &scaler, out);
        is_done = true;
    }
    jpeg_destroy_decompress(&self->jpeg);
    return is_done;
}

#if AUGD_OWN_ENTROPY
/* Decode a region of a part whose header says its own size already. */
static bool decode_part(const Cut *cut, int width, int height, int scale, Region inside,
                        const AugdScaler *scaler, uint8_t *out, char *message) {
    Decoder *self = &decoder;
    volatile bool is_done = false; /* set between setjmp and longjmp */
    prepare(self, message);
    if (setjmp(self->on_error) == 0 && open_cut(self, cut, width, height) &&
        begin_at(self, scale, inside, cut)) {
        if (scaler)
            scale_region(self, inside, scaler, out);
        else
            copy_region(self, inside, out);
        is_done = true;
    }
    jpeg_destroy_decompress(&self->jpeg);
    return is_done;
}
#endif

/* Decode a region of a cut image, or scale it where there is a scaler. */
static bool make_cut(const Cut *cut, int scale, Region region, const AugdScaler *scaler, uint8_t *out,
                     char *message) {
#if AUGD_OWN_ENTROPY
    const int x = cut->kept.x * cut->interval * cut->mcu_width, y = cut->kept.y * cut->mcu_height;
    const int right = x + cut->kept.width * cut->interval * cut->mcu_width;
    const int bottom = y + cut->kept.height * cut->mcu_height;
    const int width = (right < cut->width ? right : cut->width) - x;
    const int height = (bottom < cut->height ? bottom : cut->height) - y;
    const Region inside = {region.x - x / scale, region.y - y / scale, region.width, region.height};
    uint8_t *const size = find_size(cut->head, cut->head_size);
    if (!size || !has_size(size, cut->width, cut->height) || width <= 0 || height <= 0) {
        snprintf(message, AUGD_MESSAGE_BYTES, "its header is not the one that was indexed");
        return false;
    }
    write_size(size, width, height);
    const bool is_done = decode_part(cut, width, height, scale, inside, scaler, out, message);
    write_size(size, cut->width, cut->height);
    return is_done;
#else
    (void)cut, (void)scale, (void)region, (void)scaler, (void)out;
    snprintf(message, AUGD_MESSAGE_BYTES, "built without an entropy decoder that finds segments");
    return false;
#endif
}

bool augd_decode_cut(const Cut *cut, int scale, Region region, uint8_t *out,
                     char message[AUGD_MESSAGE_BYTES]) {
    return make_cut(cut, scale, region, NULL, out, message);
}

bool augd_render_cut(const Cut *cut, int scale, Region region, Scaling scaling, uint8_t *out,
                     char message[AUGD_MESSAGE_BYTES]) {
    AugdScaler scaler;
    if (!augd_prepare_scaler(&scaler, region.width, region.height, scaling)) {
        snprintf(message, AUGD_MESSAGE_BYTES, "out of memory");
        return false;
    }
    return make_cut(cut, scale, needed_of(&scaler, region), &scaler, out, message);
}

bool augd_has_own_entropy_decoder(void) { return AUGD_OWN_ENTROPY; }

const char *augd_libjpeg_version(void) { return TEXT(LIBJPEG_TURBO_VERSION); }
