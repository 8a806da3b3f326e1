/* Restart markers put into a JPEG, without loss: its coefficients are read and written again.
 *
 * Quantised coefficients, their tables and all blocks of applications stay; Huffman tables are made
 * for the image, and several scans become one. Used when a set is packed, never for a batch.
 * Every warning of libjpeg is an error: such an image is better left as it is.
 */
#include "jpeg_output.h"

#include <string.h>

#include <jerror.h>

static void on_message(j_common_ptr jpeg, int level) {
    if (level < 0) augd_leave_jpeg(jpeg);
}

static bool starts_with(jpeg_saved_marker_ptr marker, const char *name, unsigned length) {
    return marker->data_length >= length && memcmp(marker->data, name, length) == 0;
}

/* Copy EXIF, profiles, comments and so on, but for what libjpeg has written itself. */
static void copy_markers(j_decompress_ptr from, j_compress_ptr to) {
    for (jpeg_saved_marker_ptr marker = from->marker_list; marker; marker = marker->next) {
        const bool is_jfif = marker->marker == JPEG_APP0 && starts_with(marker, "JFIF", 5);
        const bool is_adobe = marker->marker == JPEG_APP0 + 14 && starts_with(marker, "Adobe", 5);
        if ((is_jfif && to->write_JFIF_header) || (is_adobe && to->write_Adobe_marker)) continue;
        jpeg_write_marker(to, marker->marker, marker->data, marker->data_length);
    }
}

size_t augd_transcode(Jpeg source, int restart_interval, uint8_t *out, size_t size,
                      char message[AUGD_MESSAGE_BYTES]) {
    enum { MARKER_BYTES = 0xFFFF };
    struct jpeg_decompress_struct from;
    struct jpeg_compress_struct to;
    struct jpeg_destination_mgr output = augd_jpeg_output(out, size);
    AugdJpegErrors errors = {.prefix = "", .message = message};
    volatile bool is_done = false; /* set between setjmp and longjmp */
    memset(&from, 0, sizeof from); /* what was not created can be destroyed */
    memset(&to, 0, sizeof to);
    from.err = to.err = jpeg_std_error(&errors.errors);
    errors.errors.error_exit = augd_leave_jpeg;
    errors.errors.emit_message = on_message;
    if (setjmp(errors.on_error) == 0) {
        jpeg_create_decompress(&from);
        if (size == 0) ERREXIT(&from, JERR_BUFFER_SIZE); /* a byte is written before space is checked */
        jpeg_create_compress(&to);
        jpeg_mem_src(&from, source.data, (unsigned long)source.size);
        jpeg_save_markers(&from, JPEG_COM, MARKER_BYTES);
        for (int number = 0; number < 16; number++)
            jpeg_save_markers(&from, JPEG_APP0 + number, MARKER_BYTES);
        jpeg_read_header(&from, TRUE);
        if (from.image_width == (JDIMENSION)source.width &&
            from.image_height == (JDIMENSION)source.height) {
            jvirt_barray_ptr *coefficients = jpeg_read_coefficients(&from);
            jpeg_copy_critical_parameters(&from, &to);
            to.optimize_coding = TRUE;
            to.restart_interval = (unsigned)restart_interval;
            to.dest = &output;
            jpeg_write_coefficients(&to, coefficients);
            copy_markers(&from, &to);
            jpeg_finish_compress(&to);
            jpeg_finish_decompress(&from);
            is_done = true;
        } else {
            snprintf(message, AUGD_MESSAGE_BYTES, "decoded to another size: expected %dx%d, got %ux%u",
                     source.width, source.height, from.image_width, from.image_height);
        }
    }
    jpeg_destroy_compress(&to);
    jpeg_destroy_decompress(&from);
    return is_done ? size - output.free_in_buffer : 0;
}
