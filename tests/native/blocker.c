/* C calls that no one can interrupt: they sleep by the system call itself, and go back to
 * it after each signal. */
#include <Python.h>

#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void block(double seconds)
{
    struct timespec left = {.tv_sec = (time_t)seconds};
    left.tv_nsec = (long)((seconds - (double)left.tv_sec) * 1e9);
    while (syscall(SYS_nanosleep, &left, &left) != 0 && errno == EINTR) {
    }
}

static PyObject *hold_gil(PyObject *module, PyObject *argument)
{
    double seconds = PyFloat_AsDouble(argument);
    (void)module;
    if (seconds < 0) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    block(seconds);
    Py_RETURN_NONE;
}

static PyObject *block_without_gil(PyObject *module, PyObject *argument)
{
    double seconds = PyFloat_AsDouble(argument);
    (void)module;
    if (seconds < 0) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    Py_BEGIN_ALLOW_THREADS block(seconds);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"hold_gil", hold_gil, METH_O, "Block for so many seconds and keep the GIL."},
    {"block_without_gil", block_without_gil, METH_O, "The same without the GIL."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "blocker", .m_size = 0,
    .m_methods = methods,  .m_slots = slots,
};

PyMODINIT_FUNC PyInit_blocker(void);

PyMODINIT_FUNC PyInit_blocker(void) { return PyModuleDef_Init(&definition); }
