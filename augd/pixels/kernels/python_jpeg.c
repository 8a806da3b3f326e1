/* The Python side of whole JPEGs: arguments checked, the GIL released, errors raised. */
#include "arguments.h"

static bool is_region(const int *given, int width, int height) {
    if (given[SCALE] >= 1 && given[SCALE] <= 8 && given[WIDTH] <= SIDE_MAX &&
        given[HEIGHT] <= SIDE_MAX && width >= 1 && height >= 1 && given[X] >= 0 && given[Y] >= 0 &&
        given[X] <= given[WIDTH] - width && given[Y] <= given[HEIGHT] - height)
        return true;
    PyErr_Format(PyExc_ValueError,
                 "region: expected a part of the image, and scale 1..8, got %dx%d at (%d, %d) of "
                 "%dx%d at 1/%d",
                 width, height, given[X], given[Y], given[WIDTH], given[HEIGHT], given[SCALE]);
    return false;
}

/* Borrow the bytes of a JPEG, and the array to write to. */
static bool take_jpeg(PyObject *const *args, Py_buffer *data, Py_buffer *out) {
    if (!augd_take_bytes(args[0], data)) return false;
    if (augd_take_pixels(args[1], out, true)) return true;
    PyBuffer_Release(data);
    return false;
}

static PyObject *decode_jpeg(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    int given[NUM_DECODING];
    char message[AUGD_MESSAGE_BYTES];
    Py_buffer data, out;
    if (!augd_has_count("decode_jpeg", count, 2 + NUM_DECODING) ||
        !augd_take_ints(args + 2, given, NUM_DECODING) || !take_jpeg(args, &data, &out))
        return NULL;
    PyObject *result = NULL;
    const Region region = {given[X], given[Y], (int)out.shape[1], (int)out.shape[0]};
    if (is_region(given, region.width, region.height)) {
        const Jpeg jpeg = {data.buf, (size_t)data.len, given[WIDTH], given[HEIGHT]};
        bool is_done;
        Py_BEGIN_ALLOW_THREADS
        is_done = augd_decode_region(jpeg, given[SCALE], region, out.buf, message);
        Py_END_ALLOW_THREADS
        result = augd_answer(is_done, message);
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&out);
    return result;
}

static PyObject *render_jpeg(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    enum { REGION_WIDTH = NUM_DECODING, REGION_HEIGHT, FIRST_OF_SCALING };
    enum { NUM_INTS = FIRST_OF_SCALING + NUM_SCALING };
    int given[NUM_INTS];
    char message[AUGD_MESSAGE_BYTES];
    Py_buffer data, out;
    Scaling scaling;
    if (!augd_has_count("render_jpeg", count, 2 + NUM_INTS) || !augd_take_ints(args + 2, given, NUM_INTS) ||
        !take_jpeg(args, &data, &out))
        return NULL;
    PyObject *result = NULL;
    const Region region = {given[X], given[Y], given[REGION_WIDTH], given[REGION_HEIGHT]};
    if (augd_is_near(given, region.width, region.height) &&
        augd_take_scaling(given + FIRST_OF_SCALING, &out, &scaling)) {
        const Jpeg jpeg = {data.buf, (size_t)data.len, given[WIDTH], given[HEIGHT]};
        bool is_done;
        Py_BEGIN_ALLOW_THREADS
        is_done = augd_render_region(jpeg, given[SCALE], region, scaling, out.buf, message);
        Py_END_ALLOW_THREADS
        result = augd_answer(is_done, message);
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&out);
    return result;
}

static PyObject *transcode_jpeg(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    enum { INTERVAL = HEIGHT + 1, NUM_INTS, INTERVAL_MAX = 65535 };
    int given[NUM_INTS];
    char message[AUGD_MESSAGE_BYTES];
    Py_buffer data, out;
    if (!augd_has_count("transcode_jpeg", count, 2 + NUM_INTS) || !augd_take_ints(args + 2, given, NUM_INTS))
        return NULL;
    if (given[INTERVAL] < 0 || given[INTERVAL] > INTERVAL_MAX) {
        PyErr_Format(PyExc_ValueError, "interval: expected 0..%d, got %d", INTERVAL_MAX,
                     given[INTERVAL]);
        return NULL;
    }
    if (!augd_take_bytes(args[0], &data)) return NULL;
    if (PyObject_GetBuffer(args[1], &out, PyBUF_WRITABLE) < 0) {
        PyBuffer_Release(&data);
        return NULL;
    }
    const Jpeg jpeg = {data.buf, (size_t)data.len, given[WIDTH], given[HEIGHT]};
    size_t size;
    Py_BEGIN_ALLOW_THREADS
    size = augd_transcode(jpeg, given[INTERVAL], out.buf, (size_t)out.len, message);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&data);
    PyBuffer_Release(&out);
    if (size > 0) return PyLong_FromSize_t(size);
    PyErr_SetString(augd_decode_error, message);
    return NULL;
}

PyDoc_STRVAR(decode_jpeg_doc,
"decode_jpeg(data, out, width, height, x, y, scale, /)\n--\n\n"
"Decode the region of out's size at (x, y), in pixels of the image scaled by 1 / scale.\n\n"
"`width` and `height` are what the header was found to say. Raises DecodeError.");
PyDoc_STRVAR(render_jpeg_doc,
"render_jpeg(data, out, width, height, x, y, scale, region_width, region_height,\n"
"            scaled_width, scaled_height, window_x, window_y, flips, filter, /)\n--\n\n"
"Decode a region and resize it, as decode_jpeg and resize do, without keeping the region.");
PyDoc_STRVAR(transcode_jpeg_doc,
"transcode_jpeg(data, out, width, height, interval, /)\n--\n\n"
"Write a JPEG's coefficients again, with a restart marker after every `interval` MCUs.\n\n"
"Returns how many bytes of `out` were written. Raises DecodeError, also when out is too small.");

PyMethodDef augd_jpeg_methods[] = {
    {"decode_jpeg", (PyCFunction)(void (*)(void))decode_jpeg, METH_FASTCALL, decode_jpeg_doc},
    {"render_jpeg", (PyCFunction)(void (*)(void))render_jpeg, METH_FASTCALL, render_jpeg_doc},
    {"transcode_jpeg", (PyCFunction)(void (*)(void))transcode_jpeg, METH_FASTCALL, transcode_jpeg_doc},
    {NULL, NULL, 0, NULL},
};
