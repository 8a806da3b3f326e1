/* The Python side of the kernels: arguments checked, the GIL released, errors raised.
 *
 * CPython's limited API of 3.11, so that one build serves all later versions.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "kernels.h"

#include <sys/stat.h>
#include <unistd.h>

enum { VERSION = 4 }; /* as augd/pixels/native.py expects it */

static PyObject *decode_error;
static bool is_avx2_used;

bool augd_use_avx2(void) { return is_avx2_used; }

static bool has_avx2(void) {
#if AUGD_HAS_AVX2_CODE
    return __builtin_cpu_supports("avx2");
#else
    return false;
#endif
}

static bool take_ints(PyObject *const *args, int *out, int count) {
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

static bool take_doubles(PyObject *const *args, double *out, int count) {
    for (int number = 0; number < count; number++) {
        out[number] = PyFloat_AsDouble(args[number]);
        if (out[number] == -1.0 && PyErr_Occurred()) return false;
    }
    return true;
}

static bool has_count(const char *name, Py_ssize_t found, Py_ssize_t expected) {
    if (found == expected) return true;
    PyErr_Format(PyExc_TypeError, "%s: expected %zd arguments, got %zd", name, expected, found);
    return false;
}

/* Borrow (h, w, 3) uint8 with dense pixels; rows may lie apart unless they are to be written. */
static bool take_pixels(PyObject *from, Py_buffer *view, bool is_written) {
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

static bool take_bytes(PyObject *from, Py_buffer *view) {
    return PyObject_GetBuffer(from, view, PyBUF_SIMPLE) == 0;
}

/* The arguments that say what is decoded of which JPEG, after its bytes and `out`. */
enum { WIDTH, HEIGHT, X, Y, SCALE, NUM_DECODING };

enum { SIDE_MAX = 65535 }; /* of any JPEG */

/* Of the region that is scaled, only what taps touch must be in the picture, which jpeg.c looks at. */
static bool is_near(const int *given, int width, int height) {
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

static bool is_region(const int *given, int width, int height) {
    if (given[SCALE] >= 1 && given[SCALE] <= 8 && given[WIDTH] <= SIDE_MAX &&
        given[HEIGHT] <= SIDE_MAX && width >= 1 && height >= 1 && given[X] >= 0 && given[Y] >= 0 &&
        given[X] <= given[WIDTH] - width && given[Y] <= given[HEIGHT] - height)
        return true;
    PyErr_Format(PyExc_ValueError,
                 "region: expected a part of the picture, and scale 1..8, got %dx%d at (%d, %d) of "
                 "%dx%d at 1/%d",
                 width, height, given[X], given[Y], given[WIDTH], given[HEIGHT], given[SCALE]);
    return false;
}

/* Those that say how it is scaled: see Scaling. */
enum { SCALED_WIDTH, SCALED_HEIGHT, WINDOW_X, WINDOW_Y, MIRROR, LINEAR, NUM_SCALING };

static bool take_scaling(const int *given, const Py_buffer *out, Scaling *scaling) {
    const Region window = {given[WINDOW_X], given[WINDOW_Y], (int)out->shape[1],
                           (int)out->shape[0]};
    *scaling = (Scaling){given[SCALED_WIDTH], given[SCALED_HEIGHT], window, given[MIRROR] != 0,
                         given[LINEAR] ? AUGD_LINEAR : AUGD_ANTIALIAS};
    if (window.x >= 0 && window.y >= 0 && given[SCALED_WIDTH] - window.x >= window.width &&
        given[SCALED_HEIGHT] - window.y >= window.height)
        return true;
    PyErr_SetString(PyExc_ValueError, "window: expected a part of the scaled picture");
    return false;
}

/* Borrow the bytes of a JPEG, and the array to write to. */
static bool take_jpeg(PyObject *const *args, Py_buffer *data, Py_buffer *out) {
    if (!take_bytes(args[0], data)) return false;
    if (take_pixels(args[1], out, true)) return true;
    PyBuffer_Release(data);
    return false;
}

static PyObject *answer(bool is_done, const char *message) {
    if (is_done) return Py_NewRef(Py_None);
    PyErr_SetString(decode_error, message);
    return NULL;
}

static PyObject *decode_jpeg(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    int given[NUM_DECODING];
    char message[AUGD_MESSAGE_BYTES];
    Py_buffer data, out;
    if (!has_count("decode_jpeg", count, 2 + NUM_DECODING) ||
        !take_ints(args + 2, given, NUM_DECODING) || !take_jpeg(args, &data, &out))
        return NULL;
    PyObject *result = NULL;
    const Region region = {given[X], given[Y], (int)out.shape[1], (int)out.shape[0]};
    if (is_region(given, region.width, region.height)) {
        const Jpeg jpeg = {data.buf, (size_t)data.len, given[WIDTH], given[HEIGHT]};
        bool is_done;
        Py_BEGIN_ALLOW_THREADS
        is_done = augd_decode_region(jpeg, given[SCALE], region, out.buf, message);
        Py_END_ALLOW_THREADS
        result = answer(is_done, message);
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
    if (!has_count("render_jpeg", count, 2 + NUM_INTS) || !take_ints(args + 2, given, NUM_INTS) ||
        !take_jpeg(args, &data, &out))
        return NULL;
    PyObject *result = NULL;
    const Region region = {given[X], given[Y], given[REGION_WIDTH], given[REGION_HEIGHT]};
    if (is_near(given, region.width, region.height) &&
        take_scaling(given + FIRST_OF_SCALING, &out, &scaling)) {
        const Jpeg jpeg = {data.buf, (size_t)data.len, given[WIDTH], given[HEIGHT]};
        bool is_done;
        Py_BEGIN_ALLOW_THREADS
        is_done = augd_render_region(jpeg, given[SCALE], region, scaling, out.buf, message);
        Py_END_ALLOW_THREADS
        result = answer(is_done, message);
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&out);
    return result;
}

static PyObject *skip_jpeg(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    enum { ROWS = HEIGHT + 1, NUM_INTS };
    int given[NUM_INTS];
    char message[AUGD_MESSAGE_BYTES];
    Py_buffer data;
    if (!has_count("skip_jpeg", count, 1 + NUM_INTS) || !take_ints(args + 1, given, NUM_INTS))
        return NULL;
    if (given[ROWS] < 1 || given[ROWS] > given[HEIGHT]) {
        PyErr_Format(PyExc_ValueError, "rows: expected 1..%d, got %d", given[HEIGHT], given[ROWS]);
        return NULL;
    }
    if (!take_bytes(args[0], &data)) return NULL;
    const Jpeg jpeg = {data.buf, (size_t)data.len, given[WIDTH], given[HEIGHT]};
    bool is_done;
    Py_BEGIN_ALLOW_THREADS
    is_done = augd_skip_rows(jpeg, given[ROWS], message);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&data);
    return answer(is_done, message);
}

static PyObject *transcode_jpeg(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    enum { INTERVAL = HEIGHT + 1, NUM_INTS, INTERVAL_MAX = 65535 };
    int given[NUM_INTS];
    char message[AUGD_MESSAGE_BYTES];
    Py_buffer data, out;
    if (!has_count("transcode_jpeg", count, 2 + NUM_INTS) || !take_ints(args + 2, given, NUM_INTS))
        return NULL;
    if (given[INTERVAL] < 0 || given[INTERVAL] > INTERVAL_MAX) {
        PyErr_Format(PyExc_ValueError, "interval: expected 0..%d, got %d", INTERVAL_MAX,
                     given[INTERVAL]);
        return NULL;
    }
    if (!take_bytes(args[0], &data)) return NULL;
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
    PyErr_SetString(decode_error, message);
    return NULL;
}

/* Borrow the lengths of segments: uint16, of which there must be `count`. */
static bool take_lengths(PyObject *from, Py_buffer *view, Py_ssize_t count) {
    if (PyObject_GetBuffer(from, view, PyBUF_C_CONTIGUOUS) < 0) return false;
    if (view->itemsize == sizeof(uint16_t) && view->len / view->itemsize == count &&
        (uintptr_t)view->buf % sizeof(uint16_t) == 0)
        return true;
    PyBuffer_Release(view);
    PyErr_Format(PyExc_ValueError, "lengths: expected uint16 (%zd,)", count);
    return false;
}

/* How segments lie, and which of them: see Segments and Region. */
enum { COLUMNS, ROWS, LEFT, TOP, NUM_COLUMNS, NUM_ROWS, NUM_CELLS };

static bool take_cells(PyObject *const *args, int *given) {
    enum { SIDE_MAX = 8192 }; /* of a JPEG, in blocks */
    if (!take_ints(args, given, NUM_CELLS)) return false;
    if (given[COLUMNS] <= SIDE_MAX && given[ROWS] <= SIDE_MAX && given[LEFT] >= 0 &&
        given[TOP] >= 0 && given[NUM_COLUMNS] >= 1 && given[NUM_ROWS] >= 1 &&
        given[NUM_COLUMNS] <= given[COLUMNS] - given[LEFT] &&
        given[NUM_ROWS] <= given[ROWS] - given[TOP])
        return true;
    PyErr_SetString(PyExc_ValueError, "cells: expected a part of the segments");
    return false;
}

static PyObject *measure_segments(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    int given[NUM_CELLS];
    Py_buffer lengths;
    if (!has_count("measure_segments", count, 1 + NUM_CELLS) || !take_cells(args + 1, given) ||
        !take_lengths(args[0], &lengths, (Py_ssize_t)given[COLUMNS] * given[ROWS]))
        return NULL;
    const Segments all = {lengths.buf, given[COLUMNS], given[ROWS]};
    const size_t columns = (size_t)all.columns, left = (size_t)given[LEFT], top = (size_t)given[TOP];
    const size_t first = top * columns + left, width = (size_t)given[NUM_COLUMNS];
    const size_t last_row = top + (size_t)given[NUM_ROWS] - 1;
    const size_t before = augd_segment_bytes(all.lengths, 0, first);
    const size_t span = augd_segment_bytes(all.lengths, first, last_row * columns + left + width);
    size_t kept = 0;
    for (size_t row = top; row <= last_row; row++)
        kept += augd_segment_bytes(all.lengths, row * columns + left, row * columns + left + width);
    PyBuffer_Release(&lengths);
    return Py_BuildValue("nnn", (Py_ssize_t)before, (Py_ssize_t)span, (Py_ssize_t)kept);
}

/* A file as the index has it, which is not written to while it is read. */
typedef struct {
    int fd;
    int64_t size, mtime_ns;
} Known;

static bool is_unchanged(const Known *file) {
    struct stat found;
    if (fstat(file->fd, &found) != 0 || !S_ISREG(found.st_mode) || found.st_size != file->size)
        return false;
    const uint64_t seconds = (uint64_t)found.st_mtim.tv_sec;
    return seconds * 1000000000 + (uint64_t)found.st_mtim.tv_nsec == (uint64_t)file->mtime_ns;
}

static bool read_all(int fd, char *to, size_t size, int64_t offset) {
    while (size > 0) {
        const ssize_t count = pread(fd, to, size, (off_t)offset);
        if (count <= 0) return false;
        to += count;
        size -= (size_t)count;
        offset += count;
    }
    return true;
}

/* One call, as reading shares the interpreter with decoding. Whatever is not as it should be is no:
 * who reads without kernels finds out what. */
static PyObject *read_cut(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    enum { LENGTHS, FIRST_CELL, FD = FIRST_CELL + NUM_CELLS, HEAD, OFFSET, SIZE, FILE_SIZE, MTIME, NUM_ARGS };
    enum { LARGEST = 1 << 30 };
    int given[NUM_CELLS], fd_and_head[2];
    long long places[NUM_ARGS - OFFSET];
    Py_buffer lengths;
    if (!has_count("read_cut", count, NUM_ARGS) || !take_cells(args + FIRST_CELL, given) ||
        !take_ints(args + FD, fd_and_head, 2))
        return NULL;
    for (int number = OFFSET; number < NUM_ARGS; number++) {
        places[number - OFFSET] = PyLong_AsLongLong(args[number]);
        if (places[number - OFFSET] == -1 && PyErr_Occurred()) return NULL;
    }
    const long long offset = places[0], size = places[SIZE - OFFSET];
    const Known file = {fd_and_head[0], places[FILE_SIZE - OFFSET], places[MTIME - OFFSET]};
    const int head = fd_and_head[1];
    if (head < 0 || offset < 0 || size < 0 || size > LARGEST || offset > INT64_MAX - size)
        return Py_NewRef(Py_None);
    if (!take_lengths(args[LENGTHS], &lengths, (Py_ssize_t)given[COLUMNS] * given[ROWS])) return NULL;
    const size_t columns = (size_t)given[COLUMNS], width = (size_t)given[NUM_COLUMNS];
    const size_t first = (size_t)given[TOP] * columns + (size_t)given[LEFT];
    const size_t end = first + ((size_t)given[NUM_ROWS] - 1) * columns + width;
    const size_t before = augd_segment_bytes(lengths.buf, 0, first);
    const size_t body = augd_segment_bytes(lengths.buf, first, end);
    PyBuffer_Release(&lengths);
    if ((size_t)head + before + body > (size_t)size) return Py_NewRef(Py_None);
    PyObject *read = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)((size_t)head + body));
    if (!read) return NULL;
    char *to = PyByteArray_AsString(read);
    bool is_done;
    Py_BEGIN_ALLOW_THREADS
    is_done = is_unchanged(&file) && read_all(file.fd, to, (size_t)head, offset) &&
              read_all(file.fd, to + head, body, offset + head + (int64_t)before) &&
              is_unchanged(&file);
    Py_END_ALLOW_THREADS
    if (is_done) return read;
    Py_DECREF(read);
    return Py_NewRef(Py_None);
}

static PyObject *cut_segments(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    enum { START = 3 + NUM_CELLS, NUM_ARGS };
    int given[NUM_CELLS], start;
    Py_buffer lengths, body, out;
    if (!has_count("cut_segments", count, NUM_ARGS) || !take_cells(args + 3, given) ||
        !take_ints(args + START, &start, 1) ||
        !take_lengths(args[0], &lengths, (Py_ssize_t)given[COLUMNS] * given[ROWS]))
        return NULL;
    if (!take_bytes(args[1], &body)) {
        PyBuffer_Release(&lengths);
        return NULL;
    }
    if (PyObject_GetBuffer(args[2], &out, PyBUF_WRITABLE) < 0) {
        PyBuffer_Release(&body);
        PyBuffer_Release(&lengths);
        return NULL;
    }
    const Segments all = {lengths.buf, given[COLUMNS], given[ROWS]};
    const Region kept = {given[LEFT], given[TOP], given[NUM_COLUMNS], given[NUM_ROWS]};
    const bool fits = start >= 0 && start <= out.len;
    const bool is_done = fits && augd_cut_segments(all, kept, body.buf, (size_t)body.len,
                                                   (uint8_t *)out.buf + start,
                                                   (size_t)(out.len - start));
    PyBuffer_Release(&out);
    PyBuffer_Release(&body);
    PyBuffer_Release(&lengths);
    return PyBool_FromLong(is_done);
}

/* How a photo is cut and what of it is there, then the region: see Cut. */
enum {
    HEAD_SIZE = NUM_CELLS, PHOTO_WIDTH, PHOTO_HEIGHT, MCU_WIDTH, MCU_HEIGHT, CUT_INTERVAL, NUM_CUT
};

static bool take_cut(const int *given, Py_ssize_t size, Cut *cut) {
    if (given[HEAD_SIZE] >= 0 && given[HEAD_SIZE] <= size && given[PHOTO_WIDTH] >= 1 &&
        given[PHOTO_HEIGHT] >= 1 && given[PHOTO_WIDTH] <= SIDE_MAX &&
        given[PHOTO_HEIGHT] <= SIDE_MAX && given[MCU_WIDTH] >= 8 && given[MCU_HEIGHT] >= 8 &&
        given[MCU_WIDTH] <= 32 && given[MCU_HEIGHT] <= 32 && given[CUT_INTERVAL] >= 1 &&
        given[CUT_INTERVAL] <= 8192 && given[COLUMNS] * given[CUT_INTERVAL] <= 8192) {
        cut->head_size = (size_t)given[HEAD_SIZE];
        cut->body = cut->head + cut->head_size;
        cut->body_size = (size_t)size - cut->head_size;
        cut->width = given[PHOTO_WIDTH];
        cut->height = given[PHOTO_HEIGHT];
        cut->mcu_width = given[MCU_WIDTH];
        cut->mcu_height = given[MCU_HEIGHT];
        cut->interval = given[CUT_INTERVAL];
        cut->all.columns = given[COLUMNS];
        cut->all.rows = given[ROWS];
        cut->kept = (Region){given[LEFT], given[TOP], given[NUM_COLUMNS], given[NUM_ROWS]};
        return true;
    }
    PyErr_SetString(PyExc_ValueError, "cut: expected a photo, its MCUs, and its head in the bytes");
    return false;
}

/* decode_cut and render_cut: the latter has the sides of a region, and how it is scaled, behind. */
static PyObject *make_of_cut(const char *name, PyObject *const *args, Py_ssize_t count, bool is_scaled) {
    enum { LENGTHS = 2, FIRST_INT, MOST_INTS = NUM_CUT + 5 + NUM_SCALING };
    enum { CUT_X = NUM_CUT, CUT_Y, CUT_SCALE, CUT_REGION_WIDTH, CUT_REGION_HEIGHT, CUT_SCALING };
    int given[MOST_INTS];
    const int num_ints = is_scaled ? MOST_INTS : CUT_REGION_WIDTH;
    char message[AUGD_MESSAGE_BYTES];
    Py_buffer data, out, lengths;
    Cut cut;
    if (!has_count(name, count, FIRST_INT + num_ints) || !take_cells(args + FIRST_INT, given) ||
        !take_ints(args + FIRST_INT, given, num_ints) ||
        PyObject_GetBuffer(args[0], &data, PyBUF_WRITABLE) < 0)
        return NULL;
    PyObject *result = NULL;
    if (!take_pixels(args[1], &out, true)) goto release_data;
    if (!take_lengths(args[LENGTHS], &lengths, (Py_ssize_t)given[COLUMNS] * given[ROWS]))
        goto release_out;
    cut.head = data.buf;
    cut.all.lengths = lengths.buf;
    Region region = {given[CUT_X], given[CUT_Y], (int)out.shape[1], (int)out.shape[0]};
    Scaling scaling;
    if (is_scaled) {
        region.width = given[CUT_REGION_WIDTH];
        region.height = given[CUT_REGION_HEIGHT];
    }
    const int near[NUM_DECODING] = {1, 1, region.x, region.y, given[CUT_SCALE]};
    if (take_cut(given, data.len, &cut) && is_near(near, region.width, region.height) &&
        (!is_scaled || take_scaling(given + CUT_SCALING, &out, &scaling))) {
        bool is_done;
        Py_BEGIN_ALLOW_THREADS
        is_done = is_scaled
                      ? augd_render_cut(&cut, given[CUT_SCALE], region, scaling, out.buf, message)
                      : augd_decode_cut(&cut, given[CUT_SCALE], region, out.buf, message);
        Py_END_ALLOW_THREADS
        result = answer(is_done, message);
    }
    PyBuffer_Release(&lengths);
release_out:
    PyBuffer_Release(&out);
release_data:
    PyBuffer_Release(&data);
    return result;
}

static PyObject *decode_cut(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    return make_of_cut("decode_cut", args, count, false);
}

static PyObject *render_cut(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    return make_of_cut("render_cut", args, count, true);
}

static PyObject *resize(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    int given[NUM_SCALING];
    Py_buffer source, out;
    Scaling scaling;
    if (!has_count("resize", count, 2 + NUM_SCALING) || !take_ints(args + 2, given, NUM_SCALING) ||
        !take_pixels(args[0], &source, false))
        return NULL;
    if (!take_pixels(args[1], &out, true)) {
        PyBuffer_Release(&source);
        return NULL;
    }
    PyObject *result = NULL;
    if (take_scaling(given, &out, &scaling)) {
        const Picture picture = {source.buf, (int)source.shape[1], (int)source.shape[0],
                                 source.strides[0]};
        bool is_done;
        Py_BEGIN_ALLOW_THREADS
        is_done = augd_resize(picture, scaling, out.buf);
        Py_END_ALLOW_THREADS
        result = is_done ? Py_NewRef(Py_None) : PyErr_NoMemory();
    }
    PyBuffer_Release(&source);
    PyBuffer_Release(&out);
    return result;
}

/* Borrow a dense array of these item bytes: an array that says of each of `count` rows so many. */
static bool take_array(PyObject *from, Py_buffer *view, Py_ssize_t itemsize, Py_ssize_t count) {
    if (PyObject_GetBuffer(from, view, PyBUF_CONTIG_RO) < 0) return false;
    if (view->itemsize == itemsize && view->len == itemsize * count) return true;
    PyErr_Format(PyExc_ValueError, "expected %zd dense items of %zd bytes, got %zd bytes", count,
                 itemsize, view->len);
    PyBuffer_Release(view);
    return false;
}

/* Where a row comes from and what is made of it; the arrays are dense, one row after the other. */
typedef struct {
    const int64_t *offset;
    const int32_t *size, *crop, *scaled, *window;
    const uint8_t *mirror;
} Rows;

static bool resize_row(const Py_buffer *cache, const Rows *rows, Py_ssize_t row, Filter filter,
                       const Py_buffer *out, bool *is_inside) {
    const int64_t offset = rows->offset[row];
    const int32_t *size = rows->size + 2 * row, *crop = rows->crop + 4 * row;
    const int32_t *scaled = rows->scaled + 2 * row, *window = rows->window + 2 * row;
    const int width = (int)out->shape[2], height = (int)out->shape[1];
    *is_inside = size[0] > 0 && size[1] > 0 && size[0] < 1 << 20 && size[1] < 1 << 20 &&
                 offset >= 0 &&
                 (int64_t)size[0] * size[1] * AUGD_CHANNELS <= (int64_t)cache->len - offset &&
                 crop[0] >= 0 && crop[1] >= 0 && crop[2] > 0 && crop[3] > 0 &&
                 crop[2] <= size[0] - crop[0] && crop[3] <= size[1] - crop[1] && window[0] >= 0 &&
                 window[1] >= 0 && width <= scaled[0] - window[0] &&
                 height <= scaled[1] - window[1];
    if (!*is_inside) return false;
    const ptrdiff_t stride = (ptrdiff_t)size[0] * AUGD_CHANNELS;
    const uint8_t *first = (const uint8_t *)cache->buf + offset + crop[1] * stride +
                           (ptrdiff_t)crop[0] * AUGD_CHANNELS;
    const Picture picture = {first, crop[2], crop[3], stride};
    const Scaling scaling = {scaled[0], scaled[1], {window[0], window[1], width, height},
                             rows->mirror[row] != 0, filter};
    return augd_resize(picture, scaling, (uint8_t *)out->buf + row * height * width * AUGD_CHANNELS);
}

static PyObject *resize_rows(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    enum { CACHE, OUT, OFFSET, SIZE, CROP, SCALED, WINDOW, MIRROR_OF, IS_LINEAR, NUM_ARGS };
    enum { FIRST_ARRAY = OFFSET, NUM_ARRAYS = IS_LINEAR - OFFSET };
    static const Py_ssize_t itemsizes[NUM_ARRAYS] = {8, 4, 4, 4, 4, 1};
    static const Py_ssize_t items[NUM_ARRAYS] = {1, 2, 4, 2, 2, 1};
    Py_buffer cache, out, arrays[NUM_ARRAYS];
    if (!has_count("resize_rows", count, NUM_ARGS) || !take_bytes(args[CACHE], &cache)) return NULL;
    PyObject *result = NULL;
    if (PyObject_GetBuffer(args[OUT], &out, PyBUF_CONTIG) < 0) goto release_cache;
    if (out.ndim != 4 || out.itemsize != 1 || out.shape[3] != AUGD_CHANNELS || out.shape[1] < 1 ||
        out.shape[2] < 1 || out.shape[1] >= 1 << 20 || out.shape[2] >= 1 << 20) {
        PyErr_SetString(PyExc_ValueError, "out: expected uint8 (rows, h, w, 3)");
        goto release_out;
    }
    const Py_ssize_t num_rows = out.shape[0];
    int taken = 0;
    for (; taken < NUM_ARRAYS; taken++)
        if (!take_array(args[FIRST_ARRAY + taken], &arrays[taken], itemsizes[taken],
                        items[taken] * num_rows))
            goto release_arrays;
    const int is_linear = PyObject_IsTrue(args[IS_LINEAR]);
    if (is_linear < 0) goto release_arrays;
    const Rows rows = {arrays[0].buf, arrays[1].buf, arrays[2].buf,
                       arrays[3].buf, arrays[4].buf, arrays[5].buf};
    bool is_done = true, is_inside = true;
    Py_ssize_t row = 0;
    Py_BEGIN_ALLOW_THREADS
    for (; is_done && row < num_rows; row++)
        is_done = resize_row(&cache, &rows, row, is_linear ? AUGD_LINEAR : AUGD_ANTIALIAS, &out,
                             &is_inside);
    Py_END_ALLOW_THREADS
    if (is_done)
        result = Py_NewRef(Py_None);
    else if (is_inside)
        PyErr_NoMemory();
    else
        PyErr_Format(PyExc_ValueError,
                     "row %zd: expected a picture in the cache, a crop of it and a window of that",
                     row - 1);
release_arrays:
    while (taken > 0) PyBuffer_Release(&arrays[--taken]);
release_out:
    PyBuffer_Release(&out);
release_cache:
    PyBuffer_Release(&cache);
    return result;
}

static PyObject *halve(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    Py_buffer source, out;
    if (!has_count("halve", count, 2) || !take_pixels(args[0], &source, false)) return NULL;
    if (!take_pixels(args[1], &out, true)) {
        PyBuffer_Release(&source);
        return NULL;
    }
    PyObject *result = NULL;
    const Py_ssize_t height = (source.shape[0] + 1) / 2, width = (source.shape[1] + 1) / 2;
    if (out.shape[0] == height && out.shape[1] == width) {
        const Picture picture = {source.buf, (int)source.shape[1], (int)source.shape[0],
                                 source.strides[0]};
        Py_BEGIN_ALLOW_THREADS
        augd_halve(picture, out.buf);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    } else {
        PyErr_Format(PyExc_ValueError, "out: expected (%zd, %zd, 3), got (%zd, %zd, 3)", height,
                     width, out.shape[0], out.shape[1]);
    }
    PyBuffer_Release(&source);
    PyBuffer_Release(&out);
    return result;
}

/* Borrow a dense array of float32; none for None. */
static bool take_floats(PyObject *from, Py_buffer *view, Py_ssize_t count) {
    view->obj = NULL;
    view->buf = NULL;
    if (from == Py_None) return true;
    if (!take_array(from, view, sizeof(float), count)) return false;
    if ((uintptr_t)view->buf % sizeof(float) == 0) return true;
    PyBuffer_Release(view);
    PyErr_SetString(PyExc_ValueError, "expected float32 at addresses that are multiples of 4");
    return false;
}

static bool take_fill(const int *given, Bending *bending) {
    enum { LEVEL_MAX = 255 };
    const int *levels = given + 1;
    for (int of = 0; of < AUGD_CHANNELS; of++) {
        if (levels[of] < 0 || levels[of] > LEVEL_MAX || given[0] < 0 || given[0] >= AUGD_NUM_FILLS) {
            PyErr_Format(PyExc_ValueError,
                         "fill: expected 0..%d and levels of 0..%d, got %d and (%d, %d, %d)",
                         AUGD_NUM_FILLS - 1, LEVEL_MAX, given[0], levels[0], levels[1], levels[2]);
            return false;
        }
        bending->fill_value[of] = (uint8_t)levels[of];
    }
    bending->fill = (Fill)given[0];
    return true;
}

static PyObject *bend(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    enum { NUM_PLACES = 4 + 2 + 2, NUM_FILL = 1 + AUGD_CHANNELS };
    enum { SOURCE, OUT, PLACES, FILL = PLACES + NUM_PLACES, GRID = FILL + NUM_FILL };
    enum { LENS = GRID + 1, FIELD, FIELD_SCALE, NUM_ARGS };
    double places[NUM_PLACES];
    int fill[NUM_FILL];
    Bending bending;
    Py_buffer source, out, grid, field;
    if (!has_count("bend", count, NUM_ARGS) || !take_doubles(args + PLACES, places, NUM_PLACES) ||
        !take_ints(args + FILL, fill, NUM_FILL) || !take_doubles(args + LENS, &bending.lens, 1) ||
        !take_doubles(args + FIELD_SCALE, &bending.field_scale, 1) || !take_fill(fill, &bending) ||
        !take_pixels(args[SOURCE], &source, false))
        return NULL;
    PyObject *result = NULL;
    if (!take_pixels(args[OUT], &out, true)) goto release_source;
    bending.height = (int)out.shape[0];
    bending.width = (int)out.shape[1];
    for (int axis = 0; axis < 2; axis++) {
        bending.steps[axis][0] = places[2 * axis];
        bending.steps[axis][1] = places[2 * axis + 1];
        bending.centre[axis] = places[4 + axis];
        bending.whole[axis] = places[6 + axis];
    }
    const Py_ssize_t num_pixels = out.shape[0] * out.shape[1];
    if (!take_floats(args[GRID], &grid, num_pixels)) goto release_out;
    if (!take_floats(args[FIELD], &field, 2 * num_pixels)) goto release_grid;
    bending.grid = grid.buf;
    bending.field = field.buf;
    const Picture picture = {source.buf, (int)source.shape[1], (int)source.shape[0],
                             source.strides[0]};
    bool is_done;
    Py_BEGIN_ALLOW_THREADS
    is_done = augd_bend(picture, &bending, out.buf);
    Py_END_ALLOW_THREADS
    result = is_done ? Py_NewRef(Py_None) : PyErr_NoMemory();
    PyBuffer_Release(&field);
release_grid:
    PyBuffer_Release(&grid);
release_out:
    PyBuffer_Release(&out);
release_source:
    PyBuffer_Release(&source);
    return result;
}

static PyObject *tint(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    enum { NUM_ENTRIES = 12, NUM_OF_PIVOT = 9, MEANLESS = 1 + NUM_ENTRIES };
    double matrix[3][4], pivot[3][3];
    const bool has_pivot = count == MEANLESS + NUM_OF_PIVOT;
    Py_buffer row;
    if ((!has_pivot && !has_count("tint", count, MEANLESS)) ||
        !take_doubles(args + 1, matrix[0], NUM_ENTRIES) ||
        (has_pivot && !take_doubles(args + MEANLESS, pivot[0], NUM_OF_PIVOT)) ||
        !take_pixels(args[0], &row, true))
        return NULL;
    const size_t num_pixels = (size_t)(row.shape[0] * row.shape[1]);
    bool is_done;
    Py_BEGIN_ALLOW_THREADS
    if (has_pivot) augd_add_mean(row.buf, num_pixels, pivot, matrix);
    is_done = augd_tint(row.buf, num_pixels, matrix);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&row);
    return PyBool_FromLong(is_done);
}

static PyObject *sums(PyObject *module, PyObject *given) {
    (void)module;
    uint64_t found[AUGD_CHANNELS];
    Py_buffer row;
    if (!take_pixels(given, &row, true)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    augd_sum(row.buf, (size_t)(row.shape[0] * row.shape[1]), found);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&row);
    return Py_BuildValue("KKK", (unsigned long long)found[0], (unsigned long long)found[1],
                         (unsigned long long)found[2]);
}

static PyObject *use_simd(PyObject *module, PyObject *wanted) {
    (void)module;
    int is_wanted = PyObject_IsTrue(wanted);
    if (is_wanted < 0) return NULL;
    is_avx2_used = is_wanted && has_avx2();
    return PyBool_FromLong(is_avx2_used);
}

PyDoc_STRVAR(decode_jpeg_doc,
"decode_jpeg(data, out, width, height, x, y, scale, /)\n--\n\n"
"Decode the region of out's size at (x, y), in pixels of the picture scaled by 1 / scale.\n\n"
"`width` and `height` are what the header was found to say. Raises DecodeError.");
PyDoc_STRVAR(render_jpeg_doc,
"render_jpeg(data, out, width, height, x, y, scale, region_width, region_height,\n"
"            scaled_width, scaled_height, window_x, window_y, mirror, linear, /)\n--\n\n"
"Decode a region and resize it, as decode_jpeg and resize do, without keeping the region.");
PyDoc_STRVAR(skip_jpeg_doc,
"skip_jpeg(data, width, height, rows, /)\n--\n\n"
"Entropy-decode the first rows by libjpeg alone and drop them: a yardstick for benchmarks.");
PyDoc_STRVAR(transcode_jpeg_doc,
"transcode_jpeg(data, out, width, height, interval, /)\n--\n\n"
"Write a JPEG's coefficients again, with a restart marker after every `interval` MCUs.\n\n"
"Returns how many bytes of `out` were written. Raises DecodeError, also when out is too small.");
PyDoc_STRVAR(measure_segments_doc,
"measure_segments(lengths, columns, rows, left, top, num_columns, num_rows, /)\n--\n\n"
"Sum the lengths before a rectangle of segments, from its first to its last, and inside it.");
PyDoc_STRVAR(read_cut_doc,
"read_cut(lengths, columns, rows, left, top, num_columns, num_rows, fd, head_size, offset, size,\n"
"         file_size, file_mtime_ns, /)\n--\n\n"
"Read the head of a photo, which lies at `offset` of a file, and the segments from its first to its last\n"
"that are kept. None: they reach beyond its size, the file changed, or cannot be read.");
PyDoc_STRVAR(cut_segments_doc,
"cut_segments(lengths, body, out, columns, rows, left, top, num_columns, num_rows, start, /)\n--\n\n"
"Copy a rectangle of segments to out[start:]. False: they are not where the lengths say.");
PyDoc_STRVAR(decode_cut_doc,
"decode_cut(data, out, lengths, columns, rows, left, top, num_columns, num_rows, head_size, width,\n"
"           height, mcu_width, mcu_height, interval, x, y, scale, /)\n--\n\n"
"As decode_jpeg, of a photo whose head and kept segments lie in data, one behind the other.");
PyDoc_STRVAR(render_cut_doc,
"render_cut(data, out, lengths, columns, rows, left, top, num_columns, num_rows, head_size, width,\n"
"           height, mcu_width, mcu_height, interval, x, y, scale, region_width, region_height,\n"
"           scaled_width, scaled_height, window_x, window_y, mirror, linear, /)\n--\n\n"
"As render_jpeg, of such a photo.");
PyDoc_STRVAR(resize_doc,
"resize(source, out, scaled_width, scaled_height, window_x, window_y, mirror, linear, /)\n--\n\n"
"Scale source and write the window of out's size at (x, y), antialiased unless linear.");
PyDoc_STRVAR(resize_rows_doc,
"resize_rows(cache, out, offset, size, crop, scaled, window, mirror, linear, /)\n--\n\n"
"As resize, for the rows of `out`, each from a crop of the picture at its offset of the cache.\n\n"
"`offset` int64 (n,); int32: `size` (n, 2), `crop` (n, 4), `scaled` and `window` (n, 2); bytes: `mirror`.");
PyDoc_STRVAR(halve_doc,
"halve(source, out, /)\n--\n\n"
"Make means of 2x2 pixels, halves up; an odd side's last pixels count twice.");
PyDoc_STRVAR(bend_doc,
"bend(source, out, xx, xy, yx, yy, x, y, whole_x, whole_y, fill, red, green, blue, grid, lens,\n"
"     field, scale, /)\n--\n\n"
"Make a row by bilinear samples of source, each at a place of its own.\n\n"
"The row's middle is read at (whole_x + x, whole_y + y). `fill` is the place of a fill among reflect,\n"
"constant, nearest, wrap. `grid` is float32 (h, w), `field` float32 (2, h, w), or None.");
PyDoc_STRVAR(tint_doc,
"tint(row, rr, rg, rb, r, gr, gg, gb, g, br, bg, bb, b, *pivot)\n--\n\n"
"Recolour a row in place by a 3x4 matrix, rounded to 1/1024. False: an entry is too large for it.\n\n"
"With the nine numbers of a pivot, a 3x3 matrix, its product with the row's mean is added first.");
PyDoc_STRVAR(sums_doc,
"sums(row, /)\n--\n\n"
"Sum each channel of a row.");
PyDoc_STRVAR(use_simd_doc,
"use_simd(wanted, /)\n--\n\nUse vector instructions if wanted and there; says whether they are.");

static PyMethodDef methods[] = {
    {"decode_jpeg", (PyCFunction)(void (*)(void))decode_jpeg, METH_FASTCALL, decode_jpeg_doc},
    {"render_jpeg", (PyCFunction)(void (*)(void))render_jpeg, METH_FASTCALL, render_jpeg_doc},
    {"skip_jpeg", (PyCFunction)(void (*)(void))skip_jpeg, METH_FASTCALL, skip_jpeg_doc},
    {"transcode_jpeg", (PyCFunction)(void (*)(void))transcode_jpeg, METH_FASTCALL, transcode_jpeg_doc},
    {"measure_segments", (PyCFunction)(void (*)(void))measure_segments, METH_FASTCALL,
     measure_segments_doc},
    {"read_cut", (PyCFunction)(void (*)(void))read_cut, METH_FASTCALL, read_cut_doc},
    {"cut_segments", (PyCFunction)(void (*)(void))cut_segments, METH_FASTCALL, cut_segments_doc},
    {"decode_cut", (PyCFunction)(void (*)(void))decode_cut, METH_FASTCALL, decode_cut_doc},
    {"render_cut", (PyCFunction)(void (*)(void))render_cut, METH_FASTCALL, render_cut_doc},
    {"resize", (PyCFunction)(void (*)(void))resize, METH_FASTCALL, resize_doc},
    {"resize_rows", (PyCFunction)(void (*)(void))resize_rows, METH_FASTCALL, resize_rows_doc},
    {"halve", (PyCFunction)(void (*)(void))halve, METH_FASTCALL, halve_doc},
    {"bend", (PyCFunction)(void (*)(void))bend, METH_FASTCALL, bend_doc},
    {"tint", (PyCFunction)(void (*)(void))tint, METH_FASTCALL, tint_doc},
    {"sums", sums, METH_O, sums_doc},
    {"use_simd", use_simd, METH_O, use_simd_doc},
    {NULL, NULL, 0, NULL},
};

static int start_module(PyObject *module) {
    is_avx2_used = has_avx2();
    decode_error = PyErr_NewExceptionWithDoc("augd.pixels._kernels.DecodeError",
                                             "A JPEG does not decode; the text says why.",
                                             NULL, NULL);
    if (!decode_error || PyModule_AddObjectRef(module, "DecodeError", decode_error) < 0 ||
        PyModule_AddIntConstant(module, "VERSION", VERSION) < 0 ||
        PyModule_AddStringConstant(module, "LIBJPEG_TURBO", augd_libjpeg_version()) < 0 ||
        PyModule_AddIntConstant(module, "HAS_OWN_ENTROPY_DECODER",
                                augd_has_own_entropy_decoder()) < 0)
        return -1;
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, start_module},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_kernels", .m_methods = methods, .m_slots = slots,
    .m_doc = "Native kernels: regions of JPEGs, resampling, colours. See kernels/kernels.h.",
};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModuleDef_Init(&definition); }
