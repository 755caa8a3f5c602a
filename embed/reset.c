/* Pools with `reset`: python/reset.py, which puts an interpreter back after each call. */
#define _GNU_SOURCE
#include "module.h"
#include "pool.h"
#include "prelude_reset.h"

#include <marshal.h> /* after Python.h */

static PyObject *reset_code(void)
{
    if (PyImport_GetMagicNumber() == PRELUDE_RESET_MAGIC)
        return PyMarshal_ReadObjectFromString((const char *)prelude_reset_code,
                                              (Py_ssize_t)sizeof prelude_reset_code);
    return Py_CompileString(prelude_reset_source, "<subhost.reset>", Py_file_input);
}

int subhost__reset_prepare(subhost_interp *interp)
{
    struct module_state *state = interp->module;
    PyObject *dict = PyDict_New(), *code = reset_code(), *result = NULL;
    PyObject *builtins = PyDict_Copy(PyEval_GetBuiltins());
    if (dict && code && builtins &&
        PyDict_SetItemString(dict, "_prelude", state->prelude) == 0 &&
        PyDict_SetItemString(dict, "__builtins__", builtins) == 0)
        result = PyEval_EvalCode(code, dict, dict);
    if (result)
        Py_XSETREF(state->restore, Py_XNewRef(PyDict_GetItemString(dict, "restore")));
    Py_XDECREF(result);
    Py_XDECREF(builtins);
    Py_XDECREF(code);
    Py_XDECREF(dict);
    return result ? 0 : -1;
}

bool subhost__reset(subhost_interp *interp)
{
    if (!interp->module->restore)
        return false;
    /* It ends objects of the program's, whose finalizers may take long: this can be cancelled. */
    PyObject *done = PyObject_CallNoArgs(interp->module->restore);
    if (!done)
        PyErr_Clear();
    Py_XDECREF(done);
    return done;
}

PyObject *subhost__reset_enter(void)
{
    PyObject *context = PyContext_CopyCurrent();
    if (context && PyContext_Enter(context) < 0)
        Py_CLEAR(context);
    return context;
}

void subhost__reset_leave(PyObject *context)
{
    PyObject *exception = PyErr_GetRaisedException();
    if (context && PyContext_Exit(context) < 0)
        PyErr_Clear();
    Py_XDECREF(context);
    PyErr_SetRaisedException(exception);
}
