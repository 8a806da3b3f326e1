/* The Python side of programs, and of boxes of noise. */
#include "arguments.h"
#include "program.h"

/* Borrow the dense arrays of a chunk's programs and find one row's. */
typedef struct {
    Py_buffer kinds, values, matrices, tables;
} Chunk;

static void release_chunk(Chunk *chunk) {
    PyBuffer_Release(&chunk->kinds);
    PyBuffer_Release(&chunk->values);
    PyBuffer_Release(&chunk->matrices);
    PyBuffer_Release(&chunk->tables);
}

/* Borrow a dense array of `ndim` axes, of which the last one may be given. */
static bool take_dense(PyObject *from, Py_buffer *view, int ndim, Py_ssize_t itemsize, Py_ssize_t last) {
    if (PyObject_GetBuffer(from, view, PyBUF_CONTIG_RO) < 0) return false;
    if (view->ndim == ndim && view->itemsize == itemsize &&
        (last < 0 || view->shape[ndim - 1] == last) && (uintptr_t)view->buf % (size_t)itemsize == 0)
        return true;
    PyErr_Format(PyExc_ValueError, "expected a dense array of %d axes of items of %zd bytes", ndim,
                 itemsize);
    PyBuffer_Release(view);
    return false;
}

static bool take_chunk(PyObject *const *args, Chunk *chunk) {
    *chunk = (Chunk){0};
    if (take_dense(args[0], &chunk->kinds, 2, 1, -1) &&
        take_dense(args[1], &chunk->values, 3, sizeof(double), AUGD_VALUES) &&
        take_dense(args[2], &chunk->matrices, 3, sizeof(double), AUGD_MATRIX_ENTRIES) &&
        take_dense(args[3], &chunk->tables, 3, 1, AUGD_LEVELS)) {
        const Py_ssize_t rows = chunk->kinds.shape[0], steps = chunk->kinds.shape[1];
        if (chunk->values.shape[0] == rows && chunk->values.shape[1] == steps &&
            chunk->matrices.shape[0] == rows && chunk->tables.shape[0] == rows &&
            steps < INT16_MAX && chunk->matrices.shape[1] < INT16_MAX &&
            chunk->tables.shape[1] < INT16_MAX)
            return true;
        PyErr_SetString(PyExc_ValueError, "expected arrays of equal numbers of rows and steps");
    }
    release_chunk(chunk);
    return false;
}

static bool find_program(const Chunk *chunk, int row, int first, AugdProgram *program) {
    const Py_ssize_t steps = chunk->kinds.shape[1], matrices = chunk->matrices.shape[1];
    const Py_ssize_t tables = chunk->tables.shape[1];
    if (row < 0 || row >= chunk->kinds.shape[0] || first < 0 || first > steps) {
        PyErr_Format(PyExc_ValueError, "expected one of %zd rows and %zd steps, got %d and %d",
                     chunk->kinds.shape[0], steps, row, first);
        return false;
    }
    *program = (AugdProgram){
        (const uint8_t *)chunk->kinds.buf + row * steps,
        (const double *)chunk->values.buf + row * steps * AUGD_VALUES,
        (const double *)chunk->matrices.buf + row * matrices * AUGD_MATRIX_ENTRIES,
        (const uint8_t *)chunk->tables.buf + row * tables * AUGD_LEVELS,
        (int)steps, (int)matrices, (int)tables,
    };
    return true;
}

static bool take_normals(PyObject *from, Py_buffer *view) {
    enum { NUM_NORMALS = 1 << 16 };
    return augd_take_array(from, view, sizeof(int16_t), NUM_NORMALS);
}

/* Borrow what a program works on and with. */
static bool take_memory(PyObject *from, Py_buffer *view, const Py_buffer *row) {
    const size_t needed = augd_scratch_bytes((int)row->shape[1], (int)row->shape[0]);
    if (PyObject_GetBuffer(from, view, PyBUF_CONTIG) < 0) return false;
    if ((size_t)view->len >= needed && (uintptr_t)view->buf % sizeof(int16_t) == 0) return true;
    PyErr_Format(PyExc_ValueError, "scratch: expected %zu bytes at an even address, got %zd", needed,
                 view->len);
    PyBuffer_Release(view);
    return false;
}

/* The result of a run: how many steps are done. */
static PyObject *run_row(const Py_buffer *row, const AugdProgram *program, int first, void *memory,
                         const int16_t *normals, int number) {
    char message[AUGD_MESSAGE_BYTES];
    const AugdRow pixels = {row->buf, (int)row->shape[1], (int)row->shape[0]};
    const AugdScratch scratch = augd_divide_scratch(memory, pixels.width, pixels.height);
    int done;
    Py_BEGIN_ALLOW_THREADS
    done = augd_run_program(pixels, program, first, &scratch, normals, message);
    Py_END_ALLOW_THREADS
    if (!message[0]) return PyLong_FromLong(done);
    return PyErr_Format(PyExc_ValueError, "row %d, step %d: %s", number, done, message);
}

static PyObject *run_program(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    enum { ROW, CHUNK, SCRATCH = CHUNK + 4, NORMALS, NUMBER, FIRST, NUM_ARGS };
    int places[2];
    Chunk chunk;
    AugdProgram program;
    Py_buffer row, scratch, normals;
    if (!augd_has_count("run_program", count, NUM_ARGS) || !augd_take_ints(args + NUMBER, places, 2) ||
        !augd_take_pixels(args[ROW], &row, true))
        return NULL;
    PyObject *result = NULL;
    if (!take_chunk(args + CHUNK, &chunk)) goto release_row;
    if (!take_memory(args[SCRATCH], &scratch, &row)) goto release_chunk;
    if (!take_normals(args[NORMALS], &normals)) goto release_scratch;
    if (find_program(&chunk, places[0], places[1], &program))
        result = run_row(&row, &program, places[1], scratch.buf, normals.buf, places[0]);
    PyBuffer_Release(&normals);
release_scratch:
    PyBuffer_Release(&scratch);
release_chunk:
    release_chunk(&chunk);
release_row:
    PyBuffer_Release(&row);
    return result;
}

static PyObject *program_scratch(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    int sides[2];
    if (!augd_has_count("program_scratch", count, 2) || !augd_take_ints(args, sides, 2)) return NULL;
    if (sides[0] > 0 && sides[1] > 0 && sides[0] < 1 << 20 && sides[1] < 1 << 20)
        return PyLong_FromSize_t(augd_scratch_bytes(sides[1], sides[0]));
    return PyErr_Format(PyExc_ValueError, "expected sides of 1 to 1048575, got %d and %d", sides[0],
                        sides[1]);
}

static bool take_word(PyObject *from, uint32_t *out) {
    const unsigned long long value = PyLong_AsUnsignedLongLong(from);
    if (PyErr_Occurred()) return false;
    *out = (uint32_t)value;
    if (value <= UINT32_MAX) return true;
    PyErr_SetString(PyExc_OverflowError, "expected a word of 32 bits");
    return false;
}

static bool is_noise(const double *mean, const double *std) {
    enum { LEVEL_MAX = 255 };
    for (int of = 0; of < AUGD_CHANNELS; of++)
        if (!(mean[of] >= 0 && mean[of] <= LEVEL_MAX && std[of] >= 0 && std[of] <= LEVEL_MAX)) {
            PyErr_SetString(PyExc_ValueError, "expected means and deviations of 0 to 255 levels");
            return false;
        }
    return true;
}

static PyObject *fill_noise(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    enum { ROW, NORMALS, BOX, KEY = BOX + 4, MEAN = KEY + 3, STD = MEAN + 3, NUM_ARGS = STD + 3 };
    int box[4];
    double mean[AUGD_CHANNELS], std[AUGD_CHANNELS];
    AugdNoise noise;
    Py_buffer row, normals;
    if (!augd_has_count("fill_noise", count, NUM_ARGS) || !augd_take_ints(args + BOX, box, 4) ||
        !take_word(args[KEY], &noise.key[0]) || !take_word(args[KEY + 1], &noise.key[1]) ||
        !take_word(args[KEY + 2], &noise.stream) ||
        !augd_take_doubles(args + MEAN, mean, AUGD_CHANNELS) ||
        !augd_take_doubles(args + STD, std, AUGD_CHANNELS) || !is_noise(mean, std) ||
        !augd_take_pixels(args[ROW], &row, true))
        return NULL;
    PyObject *result = NULL;
    if (!take_normals(args[NORMALS], &normals)) goto release_row;
    noise.normals = normals.buf;
    const int x = box[0], y = box[1], width = box[2], height = box[3];
    if (x >= 0 && y >= 0 && width >= 0 && height >= 0 && x <= row.shape[1] - width &&
        y <= row.shape[0] - height) {
        const ptrdiff_t stride = row.shape[1] * AUGD_CHANNELS;
        uint8_t *first = (uint8_t *)row.buf + y * stride + (ptrdiff_t)x * AUGD_CHANNELS;
        Py_BEGIN_ALLOW_THREADS
        augd_fill_noise(first, stride, width, height, mean, std, noise);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    } else {
        PyErr_Format(PyExc_ValueError, "box: expected a part of %zdx%zd, got %dx%d at (%d, %d)",
                     row.shape[1], row.shape[0], width, height, x, y);
    }
    PyBuffer_Release(&normals);
release_row:
    PyBuffer_Release(&row);
    return result;
}

PyDoc_STRVAR(run_program_doc,
"run_program(row, kinds, values, matrices, tables, scratch, normals, number, first, /)\n--\n\n"
"Run the program of a chunk's row `number` from step `first` on, in place.\n\n"
"Returns how many of its steps are done: all, or those before a matrix that apply_colour rejects.");
PyDoc_STRVAR(program_scratch_doc,
"program_scratch(height, width, /)\n--\n\n"
"Return how many bytes of scratch memory the programs of such rows take.");
PyDoc_STRVAR(fill_noise_doc,
"fill_noise(row, normals, x, y, width, height, key_low, key_high, stream, red, green, blue,\n"
"           red_std, green_std, blue_std, /)\n--\n\n"
"Fill a box of a row with normal noise about a colour.");

PyMethodDef augd_program_methods[] = {
    {"run_program", (PyCFunction)(void (*)(void))run_program, METH_FASTCALL, run_program_doc},
    {"program_scratch", (PyCFunction)(void (*)(void))program_scratch, METH_FASTCALL,
     program_scratch_doc},
    {"fill_noise", (PyCFunction)(void (*)(void))fill_noise, METH_FASTCALL, fill_noise_doc},
    {NULL, NULL, 0, NULL},
};
