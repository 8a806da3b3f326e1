/* JPEG noise: a row is encoded and decoded again, by libjpeg-turbo, in memory that is there.
 *
 * 4:2:0 with standard tables, the accurate integer transforms, as of every image that is decoded. What
 * libjpeg allocates for it is its own.
 */
#include "program.h"

#include <setjmp.h>
#include <stdio.h>

#include <jpeglib.h>

#include <jerror.h>

typedef struct {
    struct jpeg_error_mgr errors; /* first: libjpeg's callbacks get a pointer to it */
    jmp_buf on_error;
    char *message;
} Errors;

static _Noreturn void on_error(j_common_ptr jpeg) {
    Errors *self = (Errors *)jpeg->err;
    char text[JMSG_LENGTH_MAX];
    self->errors.format_message(jpeg, text);
    snprintf(self->message, AUGD_MESSAGE_BYTES, "jpeg: %s", text);
    longjmp(self->on_error, 1);
}

static void start_output(j_compress_ptr jpeg) { (void)jpeg; }

static boolean on_full(j_compress_ptr jpeg) {
    ERREXIT(jpeg, JERR_BUFFER_SIZE);
    return FALSE; /* not reached: the error handler leaves */
}

static void finish_output(j_compress_ptr jpeg) { (void)jpeg; }

static void write_lines(j_compress_ptr jpeg, AugdRow row) {
    const size_t stride = (size_t)row.width * AUGD_CHANNELS;
    while (jpeg->next_scanline < jpeg->image_height) {
        JSAMPROW line = row.pixels + jpeg->next_scanline * stride;
        jpeg_write_scanlines(jpeg, &line, 1);
    }
}

/* Encode into `out`. Returns how many bytes it takes; 0, with a text in `message`, when it fails. */
static size_t encode(AugdRow row, int quality, uint8_t *out, size_t size,
                     char message[AUGD_MESSAGE_BYTES]) {
    struct jpeg_compress_struct jpeg = {0};
    struct jpeg_destination_mgr output = {.next_output_byte = out,
                                          .free_in_buffer = size,
                                          .init_destination = start_output,
                                          .empty_output_buffer = on_full,
                                          .term_destination = finish_output};
    Errors errors = {.message = message};
    volatile bool is_done = false; /* set between setjmp and longjmp */
    jpeg.err = jpeg_std_error(&errors.errors);
    errors.errors.error_exit = on_error;
    if (setjmp(errors.on_error) == 0) {
        jpeg_create_compress(&jpeg);
        jpeg.dest = &output;
        jpeg.image_width = (JDIMENSION)row.width;
        jpeg.image_height = (JDIMENSION)row.height;
        jpeg.input_components = AUGD_CHANNELS;
        jpeg.in_color_space = JCS_RGB;
        jpeg_set_defaults(&jpeg);
        jpeg_set_quality(&jpeg, quality, TRUE);
        jpeg.dct_method = JDCT_ISLOW;
        jpeg_start_compress(&jpeg, TRUE);
        write_lines(&jpeg, row);
        jpeg_finish_compress(&jpeg);
        is_done = true;
    }
    jpeg_destroy_compress(&jpeg);
    return is_done ? size - output.free_in_buffer : 0;
}

bool augd_recompress(AugdRow row, int quality, const AugdScratch *scratch,
                     char message[AUGD_MESSAGE_BYTES]) {
    const size_t size = encode(row, quality, scratch->copy, scratch->copy_bytes, message);
    const Jpeg jpeg = {scratch->copy, size, row.width, row.height};
    const Region whole = {0, 0, row.width, row.height};
    return size && augd_decode_region(jpeg, 1, whole, row.pixels, message);
}
