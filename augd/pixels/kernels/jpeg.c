/* Regions of JPEGs, by libjpeg-turbo.
 *
 * Rows above the region are entropy-decoded and dropped, columns beside it get no IDCT, and what
 * lies below is never looked at. One MCU more on each side keeps the smooth upsampling of chroma
 * as it is in the whole picture. A warning of libjpeg's that means broken data is an error.
 */
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

enum { LINES_AT_ONCE = 16 };

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

/* One for each thread, so that tables are kept from picture to picture. */
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
_Noreturn void augd_broken_scan(j_decompress_ptr jpeg, const char *message) {
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

/* Upsampling by other factors is rare enough to be done for whole pictures. */
static bool has_usual_sampling(j_decompress_ptr jpeg) {
    const jpeg_component_info *luma = jpeg->comp_info;
    if (luma->h_samp_factor > 2 || luma->v_samp_factor > 2) return false;
    for (int number = 1; number < jpeg->num_components; number++)
        if (luma[number].h_samp_factor != 1 || luma[number].v_samp_factor != 1) return false;
    return true;
}

/* A progressive picture whose last scans are missing has its blocks smoothed by their neighbours,
 * two to each side. libjpeg says so by coefficients that it doesn't know exactly. */
static bool is_smoothed(j_decompress_ptr jpeg) {
    enum { NUM_LOOKED_AT = 10 };
    if (!jpeg->progressive_mode || !jpeg->coef_bits) return false;
    for (int component = 0; component < jpeg->num_components; component++)
        for (int place = 0; place < NUM_LOOKED_AT; place++)
            if (jpeg->coef_bits[component][place] != 0) return true;
    return false;
}

static void start(Decoder *self, int scale) {
    j_decompress_ptr jpeg = &self->jpeg;
    jpeg->out_color_space = JCS_RGB;
    jpeg->dct_method = JDCT_ISLOW;
    jpeg->do_fancy_upsampling = TRUE;
    jpeg->scale_num = 1;
    jpeg->scale_denom = (unsigned)scale;
    self->is_in_scan = true;
    jpeg_start_decompress(jpeg);
#if AUGD_OWN_ENTROPY
    if (!jpeg->arith_code && !jpeg->progressive_mode && !jpeg_has_multiple_scans(jpeg))
        augd_take_over(jpeg, &self->entropy);
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
    const int margin = jpeg->max_h_samp_factor * DCTSIZE, end = region.x + region.width + margin;
    JDIMENSION left = region.x > margin ? (JDIMENSION)(region.x - margin) : 0;
    JDIMENSION width = (JDIMENSION)end < jpeg->output_width ? (JDIMENSION)end : jpeg->output_width;
    width -= left;
    if (width < jpeg->output_width) crop_columns(self, &left, &width);
    if (region.y > 0) jpeg_skip_scanlines(jpeg, (JDIMENSION)region.y);
    return ((size_t)region.x - left) * AUGD_CHANNELS;
}

/* Read at most `count` lines, the first of them `top` of the picture; returns how many. Those above
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

static _Thread_local AugdKept kept_lines;

static uint8_t *keep_lines(Decoder *self, size_t size) {
    uint8_t *lines = augd_keep(&kept_lines, size);
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
        out += scaler->across.num_outputs * AUGD_CHANNELS;
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

/* Read the header and begin; false, with a message, when the region is not in the picture. */
static bool begin(Decoder *self, Jpeg source, int scale, Region region) {
    if (!open_jpeg(self, source)) return false;
    start(self, scale);
    if (region.x >= 0 && region.y >= 0 &&
        region.x + region.width <= (int)self->jpeg.output_width &&
        region.y + region.height <= (int)self->jpeg.output_height)
        return true;
    snprintf(self->message, AUGD_MESSAGE_BYTES, "region: expected a part of %ux%u",
             self->jpeg.output_width, self->jpeg.output_height);
    return false;
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
    const Region needed = {region.x + scaler.needed.x, region.y + scaler.needed.y,
                           scaler.needed.width, scaler.needed.height};
    if (setjmp(self->on_error) == 0 && begin(self, source, scale, needed)) {
        scale_region(self, needed, &scaler, out);
        is_done = true;
    }
    jpeg_destroy_decompress(&self->jpeg);
    return is_done;
}

bool augd_skip_rows(Jpeg source, int rows, char message[AUGD_MESSAGE_BYTES]) {
    Decoder *self = &decoder;
    volatile bool is_done = false; /* set between setjmp and longjmp */
    prepare(self, message);
    if (setjmp(self->on_error) == 0 && open_jpeg(self, source)) {
        self->is_in_scan = true;
        jpeg_start_decompress(&self->jpeg);
        /* All of them would be skipped by reading none. */
        jpeg_skip_scanlines(&self->jpeg, (JDIMENSION)(rows < source.height ? rows : rows - 1));
        is_done = true;
    }
    jpeg_destroy_decompress(&self->jpeg);
    return is_done;
}

bool augd_has_own_entropy_decoder(void) { return AUGD_OWN_ENTROPY; }

const char *augd_libjpeg_version(void) { return TEXT(LIBJPEG_TURBO_VERSION); }
