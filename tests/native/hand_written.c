/* What a bound function is compared with: pow() of an extension module written by hand. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>

static PyObject *hand_pow(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    if (n != 2) {
        PyErr_SetString(PyExc_TypeError, "pow() takes 2 arguments");
        return NULL;
    }
    double x = PyFloat_AsDouble(args[0]);
    double y = x == -1.0 && PyErr_Occurred() ? 0 : PyFloat_AsDouble(args[1]);
    return PyErr_Occurred() ? NULL : PyFloat_FromDouble(pow(x, y));
}

static PyMethodDef methods[] = {
    {"pow", (PyCFunction)(void (*)(void))hand_pow, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};
static PyModuleDef_Slot slots[] = {
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
    {0, NULL},
};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "hand_written",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit_hand_written(void);
PyMODINIT_FUNC PyInit_hand_written(void) { return PyModuleDef_Init(&definition); }
