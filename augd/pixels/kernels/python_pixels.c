/* The Python side of pixels: resampling, colours, sums. See python_jpeg.c. */
#include "arguments.h"

static PyObject *resize(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    int given[NUM_SCALING];
    Py_buffer source, out;
    Scaling scaling;
    if (!augd_has_count("resize", count, 2 + NUM_SCALING) || !augd_take_ints(args + 2, given, NUM_SCALING) ||
        !augd_take_pixels(args[0], &source, false))
        return NULL;
    if (!augd_take_pixels(args[1], &out, true)) {
        PyBuffer_Release(&source);
        return NULL;
    }
    PyObject *result = NULL;
    if (augd_take_scaling(given, &out, &scaling)) {
        const Image image = {source.buf, (int)source.shape[1], (int)source.shape[0],
                                 source.strides[0]};
        bool is_done;
        Py_BEGIN_ALLOW_THREADS
        is_done = augd_resize(image, scaling, out.buf);
        Py_END_ALLOW_THREADS
        result = is_done ? Py_NewRef(Py_None) : PyErr_NoMemory();
    }
    PyBuffer_Release(&source);
    PyBuffer_Release(&out);
    return result;
}

/* Where a row comes from and what is made of it; the arrays are dense, one row after the other. */
typedef struct {
    const int64_t *offset;
    const int32_t *size, *crop, *scaled, *window;
    const uint8_t *flips, *filter;
} Rows;

static bool resize_row(const Py_buffer *cache, const Rows *rows, Py_ssize_t row,
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
                 window[1] >= 0 && rows->filter[row] < AUGD_NUM_FILTERS &&
                 width <= scaled[0] - window[0] &&
                 height <= scaled[1] - window[1];
    if (!*is_inside) return false;
    const ptrdiff_t stride = (ptrdiff_t)size[0] * AUGD_CHANNELS;
    const uint8_t *first = (const uint8_t *)cache->buf + offset + crop[1] * stride +
                           (ptrdiff_t)crop[0] * AUGD_CHANNELS;
    const Image image = {first, crop[2], crop[3], stride};
    const Scaling scaling = {scaled[0], scaled[1], {window[0], window[1], width, height},
                             (rows->flips[row] & MIRRORED) != 0,
                             (rows->flips[row] & UPSIDE_DOWN) != 0, (Filter)rows->filter[row]};
    return augd_resize(image, scaling, (uint8_t *)out->buf + row * height * width * AUGD_CHANNELS);
}

static PyObject *resize_rows(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    enum { CACHE, OUT, OFFSET, SIZE, CROP, SCALED, WINDOW, FLIPS_OF, FILTER_OF, NUM_ARGS };
    enum { FIRST_ARRAY = OFFSET, NUM_ARRAYS = NUM_ARGS - OFFSET };
    static const Py_ssize_t itemsizes[NUM_ARRAYS] = {8, 4, 4, 4, 4, 1, 1};
    static const Py_ssize_t items[NUM_ARRAYS] = {1, 2, 4, 2, 2, 1, 1};
    Py_buffer cache, out, arrays[NUM_ARRAYS];
    if (!augd_has_count("resize_rows", count, NUM_ARGS) || !augd_take_bytes(args[CACHE], &cache)) return NULL;
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
        if (!augd_take_array(args[FIRST_ARRAY + taken], &arrays[taken], itemsizes[taken],
                        items[taken] * num_rows))
            goto release_arrays;
    const Rows rows = {arrays[0].buf, arrays[1].buf, arrays[2].buf, arrays[3].buf,
                       arrays[4].buf, arrays[5].buf, arrays[6].buf};
    bool is_done = true, is_inside = true;
    Py_ssize_t row = 0;
    Py_BEGIN_ALLOW_THREADS
    for (; is_done && row < num_rows; row++)
        is_done = resize_row(&cache, &rows, row, &out,
                             &is_inside);
    Py_END_ALLOW_THREADS
    if (is_done)
        result = Py_NewRef(Py_None);
    else if (is_inside)
        PyErr_NoMemory();
    else
        PyErr_Format(PyExc_ValueError,
                     "row %zd: expected an image in the cache, a crop of it and a window of that",
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
    if (!augd_has_count("halve", count, 2) || !augd_take_pixels(args[0], &source, false)) return NULL;
    if (!augd_take_pixels(args[1], &out, true)) {
        PyBuffer_Release(&source);
        return NULL;
    }
    PyObject *result = NULL;
    const Py_ssize_t height = (source.shape[0] + 1) / 2, width = (source.shape[1] + 1) / 2;
    if (out.shape[0] == height && out.shape[1] == width) {
        const Image image = {source.buf, (int)source.shape[1], (int)source.shape[0],
                                 source.strides[0]};
        Py_BEGIN_ALLOW_THREADS
        augd_halve(image, out.buf);
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
    if (!augd_take_array(from, view, sizeof(float), count)) return false;
    if ((uintptr_t)view->buf % sizeof(float) == 0) return true;
    PyBuffer_Release(view);
    PyErr_SetString(PyExc_ValueError, "expected float32 at addresses that are multiples of 4");
    return false;
}

static bool take_fill(const int *given, Warp *warp) {
    enum { LEVEL_MAX = 255 };
    const int *levels = given + 1;
    for (int of = 0; of < AUGD_CHANNELS; of++) {
        if (levels[of] < 0 || levels[of] > LEVEL_MAX || given[0] < 0 || given[0] >= AUGD_NUM_FILLS) {
            PyErr_Format(PyExc_ValueError,
                         "fill: expected 0..%d and levels of 0..%d, got %d and (%d, %d, %d)",
                         AUGD_NUM_FILLS - 1, LEVEL_MAX, given[0], levels[0], levels[1], levels[2]);
            return false;
        }
        warp->fill_value[of] = (uint8_t)levels[of];
    }
    warp->fill = (Fill)given[0];
    return true;
}

/* A warp, and what it borrows: the row, and the displacements of a lens and a field. */
typedef struct {
    Warp warp;
    Py_buffer out, grid, field;
} Warping;

/* The arguments of a warp, behind the source. */
enum { NUM_PLACES = 4 + 2 + 2, NUM_FILL = 1 + AUGD_CHANNELS, NUM_LIMITS = 4 };
enum { WARPED, PLACES, FILL = PLACES + NUM_PLACES, GRID = FILL + NUM_FILL };
enum { LENS = GRID + 1, FIELD, FIELD_SCALE, LIMITS, BICUBIC = LIMITS + NUM_LIMITS, NUM_WARPING };

static void release_warping(Warping *given) {
    PyBuffer_Release(&given->field);
    PyBuffer_Release(&given->grid);
    PyBuffer_Release(&given->out);
}

static bool take_numbers(PyObject *const *args, Warp *warp) {
    double places[NUM_PLACES];
    int fill[NUM_FILL], limits[NUM_LIMITS], is_bicubic;
    if (!augd_take_doubles(args + PLACES, places, NUM_PLACES) ||
        !augd_take_ints(args + FILL, fill, NUM_FILL) || !augd_take_doubles(args + LENS, &warp->lens, 1) ||
        !augd_take_doubles(args + FIELD_SCALE, &warp->field_scale, 1) ||
        !augd_take_ints(args + LIMITS, limits, NUM_LIMITS) ||
        !augd_take_ints(args + BICUBIC, &is_bicubic, 1) || !take_fill(fill, warp))
        return false;
    warp->is_bicubic = is_bicubic != 0;
    for (int axis = 0; axis < 2; axis++) {
        warp->steps[axis][0] = places[2 * axis];
        warp->steps[axis][1] = places[2 * axis + 1];
        warp->centre[axis] = places[4 + axis];
        warp->whole[axis] = places[6 + axis];
        warp->limits[axis][0] = limits[2 * axis];
        warp->limits[axis][1] = limits[2 * axis + 1];
    }
    return true;
}

static bool take_warping(PyObject *const *args, Warping *given) {
    Warp *warp = &given->warp;
    if (!take_numbers(args, warp) || !augd_take_pixels(args[WARPED], &given->out, true)) return false;
    warp->height = (int)given->out.shape[0];
    warp->width = (int)given->out.shape[1];
    const Py_ssize_t num_pixels = given->out.shape[0] * given->out.shape[1];
    if (!take_floats(args[GRID], &given->grid, num_pixels)) goto release_out;
    if (!take_floats(args[FIELD], &given->field, 2 * num_pixels)) goto release_grid;
    warp->grid = given->grid.buf;
    warp->field = given->field.buf;
    return true;
release_grid:
    PyBuffer_Release(&given->grid);
release_out:
    PyBuffer_Release(&given->out);
    return false;
}

static PyObject *warp_image(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    Warping given;
    Py_buffer source;
    if (!augd_has_count("warp", count, 1 + NUM_WARPING) || !augd_take_pixels(args[0], &source, false))
        return NULL;
    if (!take_warping(args + 1, &given)) {
        PyBuffer_Release(&source);
        return NULL;
    }
    const Image image = {source.buf, (int)source.shape[1], (int)source.shape[0],
                             source.strides[0]};
    bool is_done;
    Py_BEGIN_ALLOW_THREADS
    is_done = augd_warp(image, &given.warp, given.out.buf);
    Py_END_ALLOW_THREADS
    release_warping(&given);
    PyBuffer_Release(&source);
    return is_done ? Py_NewRef(Py_None) : PyErr_NoMemory();
}

static PyObject *refill(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    Warping given;
    if (!augd_has_count("refill", count, NUM_WARPING) || !take_warping(args, &given)) return NULL;
    bool is_done;
    Py_BEGIN_ALLOW_THREADS
    is_done = augd_refill(&given.warp, given.out.buf);
    Py_END_ALLOW_THREADS
    release_warping(&given);
    return is_done ? Py_NewRef(Py_None) : PyErr_NoMemory();
}

static PyObject *apply_colour(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    enum { NUM_ENTRIES = 12, NUM_OF_PIVOT = 9, MEANLESS = 1 + NUM_ENTRIES };
    double matrix[3][4], pivot[3][3];
    const bool has_pivot = count == MEANLESS + NUM_OF_PIVOT;
    Py_buffer row;
    if ((!has_pivot && !augd_has_count("apply_colour", count, MEANLESS)) ||
        !augd_take_doubles(args + 1, matrix[0], NUM_ENTRIES) ||
        (has_pivot && !augd_take_doubles(args + MEANLESS, pivot[0], NUM_OF_PIVOT)) ||
        !augd_take_pixels(args[0], &row, true))
        return NULL;
    const size_t num_pixels = (size_t)(row.shape[0] * row.shape[1]);
    bool is_done;
    Py_BEGIN_ALLOW_THREADS
    if (has_pivot) augd_add_mean(row.buf, num_pixels, pivot, matrix);
    is_done = augd_apply_colour(row.buf, num_pixels, matrix);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&row);
    return PyBool_FromLong(is_done);
}

static PyObject *sums(PyObject *module, PyObject *given) {
    (void)module;
    uint64_t found[AUGD_CHANNELS];
    Py_buffer row;
    if (!augd_take_pixels(given, &row, true)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    augd_sum(row.buf, (size_t)(row.shape[0] * row.shape[1]), found);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&row);
    return Py_BuildValue("KKK", (unsigned long long)found[0], (unsigned long long)found[1],
                         (unsigned long long)found[2]);
}

PyDoc_STRVAR(resize_doc,
"resize(source, out, scaled_width, scaled_height, window_x, window_y, flips, filter, /)\n--\n\n"
"Scale source and write the window of out's size at (x, y).\n\n"
"`flips` is 1 for left to right, 2 for upside down, or their sum; `filter` is the place of a filter\n"
"among antialias, linear and bicubic.");
PyDoc_STRVAR(resize_rows_doc,
"resize_rows(cache, out, offset, size, crop, scaled, window, flips, filter, /)\n--\n\n"
"As resize, for the rows of `out`, each from a crop of the image at its offset of the cache.\n\n"
"`offset` int64 (n,); int32: `size` (n, 2), `crop` (n, 4), `scaled` and `window` (n, 2); bytes: `flips`, `filter`.");
PyDoc_STRVAR(halve_doc,
"halve(source, out, /)\n--\n\n"
"Make means of 2x2 pixels, halves up; an odd side's last pixels count twice.");
PyDoc_STRVAR(warp_doc,
"warp(source, out, xx, xy, yx, yy, x, y, whole_x, whole_y, fill, red, green, blue, grid, lens,\n"
"     field, scale, low_x, end_x, low_y, end_y, bicubic, /)\n--\n\n"
"Make a row by bilinear samples of source, or bicubic ones, each at a place of its own.\n\n"
"The row's middle is read at (whole_x + x, whole_y + y). `fill` is the place of a fill among reflect,\n"
"constant, nearest, wrap. `grid` is float32 (h, w), `field` float32 (2, h, w), or None. Places outside\n"
"the limits, in 1/256 px of the source, are the fill's colour.");
PyDoc_STRVAR(refill_doc,
"refill(out, ..., /)\n--\n\n"
"Set the pixels of a finished row to the fill's colour that `warp` made so. Arguments as there.");
PyDoc_STRVAR(apply_colour_doc,
"apply_colour(row, rr, rg, rb, r, gr, gg, gb, g, br, bg, bb, b, *pivot)\n--\n\n"
"Recolour a row in place by a 3x4 matrix, rounded to 1/1024. False: an entry is too large for it.\n\n"
"With the nine numbers of a pivot, a 3x3 matrix, its product with the row's mean is added first.");
PyDoc_STRVAR(sums_doc,
"sums(row, /)\n--\n\n"
"Sum each channel of a row.");

PyMethodDef augd_pixel_methods[] = {
    {"resize", (PyCFunction)(void (*)(void))resize, METH_FASTCALL, resize_doc},
    {"resize_rows", (PyCFunction)(void (*)(void))resize_rows, METH_FASTCALL, resize_rows_doc},
    {"halve", (PyCFunction)(void (*)(void))halve, METH_FASTCALL, halve_doc},
    {"warp", (PyCFunction)(void (*)(void))warp_image, METH_FASTCALL, warp_doc},
    {"refill", (PyCFunction)(void (*)(void))refill, METH_FASTCALL, refill_doc},
    {"apply_colour", (PyCFunction)(void (*)(void))apply_colour, METH_FASTCALL, apply_colour_doc},
    {"sums", sums, METH_O, sums_doc},
    {NULL, NULL, 0, NULL},
};
