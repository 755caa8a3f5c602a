/* Multi-phase initialisation, but silent about interpreters: without the slot
 * Py_mod_multiple_interpreters CPython takes it for "shared GIL only". */
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

/* An empty table; what makes it multi-phase is the call of PyModuleDef_Init. */
static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "multi_phase_no_slot",
    .m_size = 0,           .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit_multi_phase_no_slot(void);

PyMODINIT_FUNC PyInit_multi_phase_no_slot(void) { return PyModuleDef_Init(&definition); }
