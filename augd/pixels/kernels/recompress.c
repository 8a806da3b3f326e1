/* JPEG noise: a row is encoded and decoded again, by libjpeg-turbo, in memory that is there.
 *
 * 4:2:0 with standard tables, the accurate integer transforms, as of every image that is decoded. What
 * libjpeg allocates for it is its own.
 */
#include "jpeg_output.h"
#include "program.h"

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
    struct jpeg_destination_mgr output = augd_jpeg_output(out, size);
    AugdJpegErrors errors = {.prefix = "jpeg: ", .message = message};
    volatile bool is_done = false; /* set between setjmp and longjmp */
    jpeg.err = jpeg_std_error(&errors.errors);
    errors.errors.error_exit = augd_leave_jpeg;
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
