/* An extension module whose init function imports, as many do for the datetime C API. CPython
 * calls that function in the main interpreter, whichever interpreter the import is in. */
#include <Python.h>

#include <stdlib.h>

static char seen[256];

static PyObject *answer(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyUnicode_FromString(seen);
}

static PyMethodDef methods[] = {
    {"answer", answer, METH_NOARGS, "Return what the init function saw."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "imports_at_init", .m_size = 0, .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit_imports_at_init(void);

PyMODINIT_FUNC PyInit_imports_at_init(void)
{
    PyObject *dict = PyDict_New();
    const char *source = getenv("IMPORTS_AT_INIT"); /* is to set `seen` to a str */
    PyObject *done =
        dict && source ? PyRun_String(source, Py_file_input, dict, dict) : NULL;
    PyObject *text = done ? PyDict_GetItemString(dict, "seen") : NULL; /* borrowed */
    if (text)
        snprintf(seen, sizeof seen, "%s", PyUnicode_AsUTF8(text));
    Py_XDECREF(done);
    Py_XDECREF(dict);
    PyErr_Clear(); /* an exception of the main interpreter's: not for the other one */
    return PyModuleDef_Init(&definition);
}
