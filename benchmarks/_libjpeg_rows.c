/* Nothing but the entropy decoding of libjpeg-turbo: the MCU rows of a JPEG down to `rows`, dropped.
 *
 * Built and called by `_libjpeg_rows.py`. No pixel is made: lines are skipped, which still takes every
 * coefficient out of the scan. */
#include <setjmp.h>
#include <stdio.h>

#include <jpeglib.h>

typedef struct {
    struct jpeg_error_mgr errors; /* first: libjpeg's callbacks get a pointer to it */
    jmp_buf on_error;
} Errors;

static void on_error(j_common_ptr jpeg) { longjmp(((Errors *)jpeg->err)->on_error, 1); }

static void on_message(j_common_ptr jpeg, int level) { (void)jpeg, (void)level; }

/* Returns 1, or 0 where libjpeg fails. `rows` is 1..height; lines are dropped, and one is left. */
int skip_rows(const unsigned char *data, unsigned long size, unsigned rows) {
    struct jpeg_decompress_struct jpeg;
    Errors errors;
    jpeg.err = jpeg_std_error(&errors.errors);
    errors.errors.error_exit = on_error;
    errors.errors.emit_message = on_message;
    if (setjmp(errors.on_error)) {
        jpeg_destroy_decompress(&jpeg);
        return 0;
    }
    jpeg_create_decompress(&jpeg);
    jpeg_mem_src(&jpeg, data, size);
    jpeg_read_header(&jpeg, TRUE);
    jpeg_start_decompress(&jpeg);
    /* All of them would be skipped by reading none. */
    jpeg_skip_scanlines(&jpeg, rows < jpeg.image_height ? rows : jpeg.image_height - 1);
    jpeg_destroy_decompress(&jpeg);
    return 1;
}
