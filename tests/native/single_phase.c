/* An extension module of the old kind: single-phase initialisation. CPython refuses it
 * in every interpreter that checks, which includes all that have a GIL of their own. */
#include <Python.h>

#include <stdlib.h>

static PyObject *answer(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromLong(42);
}

static PyMethodDef methods[] = {
    {"answer", answer, METH_NOARGS, "Return 42."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "single_phase",
    .m_size = -1, /* global state: cannot be in two interpreters */
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit_single_phase(void);

PyMODINIT_FUNC PyInit_single_phase(void)
{
    const char *needed = getenv("SINGLE_PHASE_NEEDS"); /* a module; NULL: none */
    PyObject *module = needed ? PyImport_ImportModule(needed) : NULL;
    if (needed && !module)
        return NULL;
    Py_XDECREF(module);
    return PyModule_Create(&definition);
}
