/* What the Python sides of the kernels share: taking arguments and raising errors.
 *
 * A function that returns false has set an exception and holds nothing. CPython's limited API of
 * 3.11, so that one build serves all later versions.
 */
#ifndef AUGD_ARGUMENTS_H
#define AUGD_ARGUMENTS_H

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "kernels.h"

/* _kernels.DecodeError, made when the module is loaded. */
extern PyObject *augd_decode_error;

bool augd_has_count(const char *name, Py_ssize_t found, Py_ssize_t expected);
bool augd_take_ints(PyObject *const *args, int *out, int count);
bool augd_take_doubles(PyObject *const *args, double *out, int count);

/* Borrow (h, w, 3) uint8 with dense pixels; rows may lie apart unless they are to be written. */
bool augd_take_pixels(PyObject *from, Py_buffer *view, bool is_written);
bool augd_take_bytes(PyObject *from, Py_buffer *view);

/* Borrow a dense array of `count` items of `itemsize` bytes. */
bool augd_take_array(PyObject *from, Py_buffer *view, Py_ssize_t itemsize, Py_ssize_t count);

/* The arguments of a decode, after the bytes of the JPEG and `out`. */
enum { WIDTH, HEIGHT, X, Y, SCALE, NUM_DECODING };

enum { SIDE_MAX = 65535 }; /* of any JPEG */

/* Check the place and the scale of a region that is scaled. */
bool augd_is_near(const int *given, int width, int height);

/* The arguments of a scaling: see Scaling. */
enum { SCALED_WIDTH, SCALED_HEIGHT, WINDOW_X, WINDOW_Y, FLIPS, FILTER, NUM_SCALING };

/* The bits of FLIPS. */
enum { MIRRORED = 1, UPSIDE_DOWN = 2 };

bool augd_take_scaling(const int *given, const Py_buffer *out, Scaling *scaling);

/* Return None, or raise DecodeError with the message. */
PyObject *augd_answer(bool is_done, const char *message);

/* The functions of the module, by what they work on. */
extern PyMethodDef augd_jpeg_methods[], augd_segment_methods[], augd_pixel_methods[],
    augd_program_methods[];

#endif
