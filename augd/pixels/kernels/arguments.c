/* Arguments from Python: checked and borrowed. */
#include "arguments.h"

PyObject *augd_decode_error;

bool augd_take_ints(PyObject *const *args, int *out, int count) {
    for (int number = 0; number < count; number++) {
        long value = PyLong_AsLong(args[number]);
        if (value == -1 && PyErr_Occurred()) return false;
        if (value < INT32_MIN || value > INT32_MAX) {
            PyErr_SetString(PyExc_OverflowError, "expected a number of 32 bits");
            return false;
        }
        out[number] = (int)value;
    }
    return true;
}

bool augd_take_doubles(PyObject *const *args, double *out, int count) {
    for (int number = 0; number < count; number++) {
        out[number] = PyFloat_AsDouble(args[number]);
        if (out[number] == -1.0 && PyErr_Occurred()) return false;
    }
    return true;
}

bool augd_has_count(const char *name, Py_ssize_t found, Py_ssize_t expected) {
    if (found == expected) return true;
    PyErr_Format(PyExc_TypeError, "%s: expected %zd arguments, got %zd", name, expected, found);
    return false;
}

/* Borrow (h, w, 3) uint8 with dense pixels; rows may lie apart unless they are to be written. */
bool augd_take_pixels(PyObject *from, Py_buffer *view, bool is_written) {
    if (PyObject_GetBuffer(from, view, is_written ? PyBUF_CONTIG : PyBUF_STRIDED_RO) < 0)
        return false;
    if (view->ndim == 3 && view->itemsize == 1 && view->shape[2] == AUGD_CHANNELS &&
        view->shape[0] > 0 && view->shape[1] > 0 && view->shape[0] < 1 << 20 &&
        view->shape[1] < 1 << 20 &&
        (is_written || (view->strides[2] == 1 && view->strides[1] == AUGD_CHANNELS)))
        return true;
    PyBuffer_Release(view);
    PyErr_Format(PyExc_ValueError, "%s: expected uint8 (h, w, 3) with dense pixels",
                 is_written ? "out" : "source");
    return false;
}

bool augd_take_bytes(PyObject *from, Py_buffer *view) {
    return PyObject_GetBuffer(from, view, PyBUF_SIMPLE) == 0;
}

bool augd_take_array(PyObject *from, Py_buffer *view, Py_ssize_t itemsize, Py_ssize_t count) {
    if (PyObject_GetBuffer(from, view, PyBUF_CONTIG_RO) < 0) return false;
    if (view->itemsize == itemsize && view->len == itemsize * count) return true;
    PyErr_Format(PyExc_ValueError, "expected %zd dense items of %zd bytes, got %zd bytes", count,
                 itemsize, view->len);
    PyBuffer_Release(view);
    return false;
}

/* Of a region that is scaled, only the pixels under taps must be in the image: jpeg.c checks that. */
bool augd_is_near(const int *given, int width, int height) {
    if (given[SCALE] >= 1 && given[SCALE] <= 8 && given[WIDTH] <= SIDE_MAX &&
        given[HEIGHT] <= SIDE_MAX && width >= 1 && height >= 1 && width <= SIDE_MAX &&
        height <= SIDE_MAX && given[X] >= -SIDE_MAX && given[Y] >= -SIDE_MAX &&
        given[X] <= SIDE_MAX && given[Y] <= SIDE_MAX)
        return true;
    PyErr_Format(PyExc_ValueError,
                 "region: expected sides and places up to 65535, and scale 1..8, got %dx%d at "
                 "(%d, %d) at 1/%d",
                 width, height, given[X], given[Y], given[SCALE]);
    return false;
}

bool augd_take_scaling(const int *given, const Py_buffer *out, Scaling *scaling) {
    const Region window = {given[WINDOW_X], given[WINDOW_Y], (int)out->shape[1],
                           (int)out->shape[0]};
    if (given[FILTER] < 0 || given[FILTER] >= AUGD_NUM_FILTERS) {
        PyErr_Format(PyExc_ValueError, "filter: expected 0..%d, got %d", AUGD_NUM_FILTERS - 1,
                     given[FILTER]);
        return false;
    }
    *scaling = (Scaling){given[SCALED_WIDTH], given[SCALED_HEIGHT], window,
                         (given[FLIPS] & MIRRORED) != 0, (given[FLIPS] & UPSIDE_DOWN) != 0,
                         (Filter)given[FILTER]};
    if (window.x >= 0 && window.y >= 0 && given[SCALED_WIDTH] - window.x >= window.width &&
        given[SCALED_HEIGHT] - window.y >= window.height)
        return true;
    PyErr_SetString(PyExc_ValueError, "window: expected a part of the scaled image");
    return false;
}

PyObject *augd_answer(bool is_done, const char *message) {
    if (is_done) return Py_NewRef(Py_None);
    PyErr_SetString(augd_decode_error, message);
    return NULL;
}
