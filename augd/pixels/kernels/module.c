/* The extension module: its functions, its constants, its exception. */
#include "arguments.h"

enum { VERSION = 8 }; /* as augd/pixels/native.py expects it */

static PyObject *use_simd(PyObject *module, PyObject *wanted) {
    (void)module;
    int is_wanted = PyObject_IsTrue(wanted);
    if (is_wanted < 0) return NULL;
    return PyBool_FromLong(augd_allow_avx2(is_wanted));
}

PyDoc_STRVAR(use_simd_doc,
"use_simd(wanted, /)\n--\n\nUse vector instructions if wanted and there; says whether they are.");

static PyMethodDef methods[] = {
    {"use_simd", use_simd, METH_O, use_simd_doc},
    {NULL, NULL, 0, NULL},
};

static int start_module(PyObject *module) {
    augd_allow_avx2(true);
    augd_decode_error = PyErr_NewExceptionWithDoc("augd.pixels._kernels.DecodeError",
                                                  "A JPEG does not decode; the text says why.",
                                                  NULL, NULL);
    if (!augd_decode_error || PyModule_AddFunctions(module, augd_jpeg_methods) < 0 ||
        PyModule_AddFunctions(module, augd_segment_methods) < 0 ||
        PyModule_AddFunctions(module, augd_pixel_methods) < 0 ||
        PyModule_AddFunctions(module, augd_program_methods) < 0 ||
        PyModule_AddObjectRef(module, "DecodeError", augd_decode_error) < 0 ||
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
