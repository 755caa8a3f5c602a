/* Multi-phase initialisation with the claim that a GIL of its own is fine, and no shared
 * state that would make it a lie. */
#include <Python.h>

static PyObject *answer(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromLong(42);
}

static PyMethodDef methods[] = {
    {"answer", answer, METH_NOARGS, "Return 42."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "own_gil_ready", .m_size = 0,
    .m_methods = methods,  .m_slots = slots,
};

PyMODINIT_FUNC PyInit_own_gil_ready(void);

PyMODINIT_FUNC PyInit_own_gil_ready(void) { return PyModuleDef_Init(&definition); }
