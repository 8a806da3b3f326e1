/* The Python side of images with restart segments: see python_jpeg.c. */
#include "arguments.h"

#include <sys/stat.h>
#include <unistd.h>

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
    if (!augd_take_ints(args, given, NUM_CELLS)) return false;
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
    if (!augd_has_count("measure_segments", count, 1 + NUM_CELLS) || !take_cells(args + 1, given) ||
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

/* One call, as reading shares the interpreter with decoding. Returns None for
 * anything unexpected: the reader without kernels finds out what. */
static PyObject *read_cut(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    enum { LENGTHS, FIRST_CELL, FD = FIRST_CELL + NUM_CELLS, HEAD, OFFSET, SIZE, FILE_SIZE, MTIME, NUM_ARGS };
    enum { LARGEST = 1 << 30 };
    int given[NUM_CELLS], fd_and_head[2];
    long long places[NUM_ARGS - OFFSET];
    Py_buffer lengths;
    if (!augd_has_count("read_cut", count, NUM_ARGS) || !take_cells(args + FIRST_CELL, given) ||
        !augd_take_ints(args + FD, fd_and_head, 2))
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
    if (!augd_has_count("cut_segments", count, NUM_ARGS) || !take_cells(args + 3, given) ||
        !augd_take_ints(args + START, &start, 1) ||
        !take_lengths(args[0], &lengths, (Py_ssize_t)given[COLUMNS] * given[ROWS]))
        return NULL;
    if (!augd_take_bytes(args[1], &body)) {
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

/* The segments of an image, which of them were read, then the region: see Cut. */
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
    PyErr_SetString(PyExc_ValueError, "cut: expected an image, its MCUs, and its head in the bytes");
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
    if (!augd_has_count(name, count, FIRST_INT + num_ints) || !take_cells(args + FIRST_INT, given) ||
        !augd_take_ints(args + FIRST_INT, given, num_ints) ||
        PyObject_GetBuffer(args[0], &data, PyBUF_WRITABLE) < 0)
        return NULL;
    PyObject *result = NULL;
    if (!augd_take_pixels(args[1], &out, true)) goto release_data;
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
    if (take_cut(given, data.len, &cut) && augd_is_near(near, region.width, region.height) &&
        (!is_scaled || augd_take_scaling(given + CUT_SCALING, &out, &scaling))) {
        bool is_done;
        Py_BEGIN_ALLOW_THREADS
        is_done = is_scaled
                      ? augd_render_cut(&cut, given[CUT_SCALE], region, scaling, out.buf, message)
                      : augd_decode_cut(&cut, given[CUT_SCALE], region, out.buf, message);
        Py_END_ALLOW_THREADS
        result = augd_answer(is_done, message);
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

PyDoc_STRVAR(measure_segments_doc,
"measure_segments(lengths, columns, rows, left, top, num_columns, num_rows, /)\n--\n\n"
"Sum the lengths before a rectangle of segments, from its first to its last, and inside it.");
PyDoc_STRVAR(read_cut_doc,
"read_cut(lengths, columns, rows, left, top, num_columns, num_rows, fd, head_size, offset, size,\n"
"         file_size, file_mtime_ns, /)\n--\n\n"
"Read the head of an image, which lies at `offset` of a file, and the segments from its first to its last\n"
"that are kept. None: they reach beyond its size, the file changed, or cannot be read.");
PyDoc_STRVAR(cut_segments_doc,
"cut_segments(lengths, body, out, columns, rows, left, top, num_columns, num_rows, start, /)\n--\n\n"
"Copy a rectangle of segments to out[start:]. False: they are not where the lengths say.");
PyDoc_STRVAR(decode_cut_doc,
"decode_cut(data, out, lengths, columns, rows, left, top, num_columns, num_rows, head_size, width,\n"
"           height, mcu_width, mcu_height, interval, x, y, scale, /)\n--\n\n"
"As decode_jpeg, of an image whose head and kept segments lie in data, one behind the other.");
PyDoc_STRVAR(render_cut_doc,
"render_cut(data, out, lengths, columns, rows, left, top, num_columns, num_rows, head_size, width,\n"
"           height, mcu_width, mcu_height, interval, x, y, scale, region_width, region_height,\n"
"           scaled_width, scaled_height, window_x, window_y, flips, filter, /)\n--\n\n"
"As render_jpeg, of such an image.");

PyMethodDef augd_segment_methods[] = {
    {"measure_segments", (PyCFunction)(void (*)(void))measure_segments, METH_FASTCALL, measure_segments_doc},
    {"read_cut", (PyCFunction)(void (*)(void))read_cut, METH_FASTCALL, read_cut_doc},
    {"cut_segments", (PyCFunction)(void (*)(void))cut_segments, METH_FASTCALL, cut_segments_doc},
    {"decode_cut", (PyCFunction)(void (*)(void))decode_cut, METH_FASTCALL, decode_cut_doc},
    {"render_cut", (PyCFunction)(void (*)(void))render_cut, METH_FASTCALL, render_cut_doc},
    {NULL, NULL, 0, NULL},
};
