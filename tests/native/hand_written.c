/* What a bound function is compared with: pow() of an extension module written by hand. And
 * what no callback can do without: the handing over of the GIL, a call with a new int. */
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

static PyObject *hand_over(PyObject *module, PyObject *times)
{
    (void)module;
    for (long i = PyLong_AsLong(times); i > 0; i--) {
        PyThreadState *tstate = PyEval_SaveThread();
        PyEval_RestoreThread(tstate);
    }
    return PyErr_Occurred() ? NULL : PyLong_FromLong(0);
}

static PyObject *call(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    long times = n == 2 ? PyLong_AsLong(args[1]) : -1;
    for (long i = 0; i < times && !PyErr_Occurred(); i++) {
        PyObject *arguments[] = {NULL, PyLong_FromLong(i)};
        Py_XDECREF(PyObject_Vectorcall(args[0], arguments + 1,
                                       1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL));
        Py_XDECREF(arguments[1]);
    }
    return PyErr_Occurred() ? NULL : PyLong_FromLong(0);
}

static PyMethodDef methods[] = {
    {"pow", (PyCFunction)(void (*)(void))hand_pow, METH_FASTCALL, NULL},
    {"hand_over", hand_over, METH_O, NULL},
    {"call", (PyCFunction)(void (*)(void))call, METH_FASTCALL, NULL},
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
