#include "jpeg_output.h"

#include <jerror.h>

_Noreturn void augd_leave_jpeg(j_common_ptr jpeg) {
    AugdJpegErrors *self = (AugdJpegErrors *)jpeg->err;
    char text[JMSG_LENGTH_MAX];
    self->errors.format_message(jpeg, text);
    snprintf(self->message, AUGD_MESSAGE_BYTES, "%s%s", self->prefix, text);
    longjmp(self->on_error, 1);
}

static void start_output(j_compress_ptr jpeg) { (void)jpeg; }

static boolean on_full(j_compress_ptr jpeg) {
    ERREXIT(jpeg, JERR_BUFFER_SIZE);
    return FALSE; /* not reached: the error handler leaves */
}

static void finish_output(j_compress_ptr jpeg) { (void)jpeg; }

struct jpeg_destination_mgr augd_jpeg_output(uint8_t *out, size_t size) {
    return (struct jpeg_destination_mgr){.next_output_byte = out,
                                         .free_in_buffer = size,
                                         .init_destination = start_output,
                                         .empty_output_buffer = on_full,
                                         .term_destination = finish_output};
}
