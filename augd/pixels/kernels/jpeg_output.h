/* What writes a JPEG into the caller's memory: libjpeg's errors as a jump, and bytes that do not grow. */
#ifndef AUGD_JPEG_OUTPUT_H
#define AUGD_JPEG_OUTPUT_H

#include "kernels.h"

#include <setjmp.h>
#include <stdio.h>

#include <jpeglib.h>

typedef struct {
    struct jpeg_error_mgr errors; /* first: libjpeg's callbacks get a pointer to it */
    jmp_buf on_error;
    const char *prefix; /* of the message */
    char *message;
} AugdJpegErrors;

/* Write libjpeg's text into the message, and jump to `on_error`. */
_Noreturn void augd_leave_jpeg(j_common_ptr jpeg);

/* A destination of `size` bytes at `out`; more are an error. */
struct jpeg_destination_mgr augd_jpeg_output(uint8_t *out, size_t size);

#endif
