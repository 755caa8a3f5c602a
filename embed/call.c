/* One call of a Python function with values, in the interpreter that makes it. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "module.h"
#include "pool.h"
#include "value_python.h"

/* What a runner says of a program that is not there, or that cannot be run. */
#define STATUS_NOT_FOUND 127
#define STATUS_CANNOT_RUN 126
#define STATUS_KILLED 137

static char *copy_text(PyObject *text)
{
    const char *utf8 = NULL;
    PyObject *bytes =
        text ? PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace") : NULL;
    if (bytes)
        utf8 = PyBytes_AsString(bytes);
    char *copy = utf8 ? strdup(utf8) : NULL;
    Py_XDECREF(bytes);
    PyErr_Clear();
    return copy;
}

/* Takes the exception over. Nothing is raised in this thread meanwhile: the description of
 * what a call raised must not get lost in a cancel. */
static void describe(subhost_interp *interp, PyObject *exception,
                     struct call_failure *failure)
{
    struct thread *self = subhost__thread_self();
    subhost__raise_seal(self);
    PyObject *is_exit =
        subhost__prelude_call(interp, "is_process_exit", "(O)", exception);
    if (is_exit == Py_True) {
        failure->kind = SUBHOST_KILLED;
        failure->status = STATUS_KILLED;
    }
    Py_XDECREF(is_exit);
    PyErr_Clear();
    PyObject *function = subhost__nursery_get(interp, "describe_exception");
    PyObject *pair = function ? PyObject_CallOneArg(function, exception) : NULL;
    if (pair && PyTuple_Check(pair) && PyTuple_GET_SIZE(pair) == 2) {
        failure->detail = copy_text(PyTuple_GET_ITEM(pair, 0));
        failure->traceback = copy_text(PyTuple_GET_ITEM(pair, 1));
    }
    PyErr_Clear();
    Py_XDECREF(pair);
    Py_XDECREF(function);
    Py_DECREF(exception);
    subhost__raise_unseal(interp, self);
    if (!failure->detail)
        failure->detail = strdup("an exception that cannot be described");
}

static bool call(subhost_interp *interp, PyObject *function,
                 struct exposed_value *exposed, bool plain, struct subhost_value *result,
                 struct call_failure *failure)
{
    PyObject *argument = subhost__value_to_object(interp, exposed);
    subhost__value_unexpose(exposed);
    PyObject *object = argument ? PyObject_CallOneArg(function, argument) : NULL;
    failure->code = argument ? CALL_RAISED : CALL_BAD_ARGUMENT;
    Py_XDECREF(argument);
    /* A blocking call that was ended early, and no bytecode behind it that would notice. */
    if (object && subhost__raise_now(interp, subhost__thread_self()) < 0)
        Py_CLEAR(object);
    int code = object ? subhost__value_from_object(interp, result, object, plain) : -1;
    Py_XDECREF(object);
    if (code == 0)
        return true;
    failure->kind = SUBHOST_RAISED;
    failure->status = 1;
    describe(interp, PyErr_GetRaisedException(), failure);
    return false;
}

bool subhost__call_function(subhost_interp *interp, PyObject *function,
                            struct exposed_value *exposed, bool plain,
                            struct subhost_value *result, struct call_failure *failure)
{
    subhost_value_clear(result);
    if (exposed->size == 0) {
        subhost_value_add_none(result);
        return true;
    }
    /* What it has on_cancel() call ends with it; what its module had stays. */
    PyObject *callbacks =
        Py_XNewRef(PyDict_GetItemString(interp->module->prelude, "_callbacks"));
    Py_ssize_t before = callbacks ? PyList_GET_SIZE(callbacks) : 0;
    bool ok = call(interp, function, exposed, plain, result, failure);
    if (callbacks && PyList_GET_SIZE(callbacks) > before &&
        PyList_SetSlice(callbacks, before, PY_SSIZE_T_MAX, NULL) < 0)
        PyErr_Clear();
    Py_XDECREF(callbacks);
    return ok;
}

void subhost__call_no_memory(struct call_failure *failure)
{
    failure->kind = SUBHOST_RAISED;
    failure->status = 1;
    failure->code = CALL_RAISED;
    failure->detail = strdup("MemoryError");
}

/* Walks "a.b" from the module on. */
static PyObject *find(PyObject *module, const char *name)
{
    PyObject *found = Py_NewRef(module);
    char *copy = strdup(name), *rest = copy, *part;
    if (!copy) {
        Py_DECREF(found);
        return PyErr_NoMemory();
    }
    while (found && (part = strsep(&rest, ".")))
        Py_SETREF(found, PyObject_GetAttrString(found, part));
    free(copy);
    return found;
}

/* The module itself is not there, and not one that it imports. */
static bool is_not_found(PyObject *exception, const char *module)
{
    if (!PyErr_GivenExceptionMatches(exception, PyExc_ModuleNotFoundError))
        return false;
    PyObject *name = PyObject_GetAttrString(exception, "name");
    const char *utf8 = name && PyUnicode_Check(name) ? PyUnicode_AsUTF8(name) : NULL;
    size_t n = utf8 ? strlen(utf8) : 0;
    bool is =
        utf8 && strncmp(module, utf8, n) == 0 && (module[n] == '\0' || module[n] == '.');
    Py_XDECREF(name);
    PyErr_Clear();
    return is;
}

PyObject *subhost__call_import(subhost_interp *interp, const char *module,
                               const char *name, struct call_failure *failure)
{
    PyObject *imported = PyImport_ImportModule(module);
    PyObject *function = imported ? find(imported, name) : NULL;
    bool missing = imported && !function;
    Py_XDECREF(imported);
    if (function && !PyCallable_Check(function)) {
        PyErr_Format(PyExc_TypeError, "%s:%s is not callable, but %R", module, name,
                     (PyObject *)Py_TYPE(function));
        Py_CLEAR(function);
    }
    if (function)
        return function;
    PyObject *exception = PyErr_GetRaisedException();
    failure->kind = SUBHOST_FAILED;
    failure->status =
        (missing && PyErr_GivenExceptionMatches(exception, PyExc_AttributeError)) ||
                is_not_found(exception, module)
            ? STATUS_NOT_FOUND
            : STATUS_CANNOT_RUN;
    describe(interp, exception, failure);
    return NULL;
}

/* Best effort: without it the collector does more, and nothing else. */
static void tell_collector(const char *method)
{
    PyObject *gc = PyImport_ImportModule("gc");
    PyObject *done = gc ? PyObject_CallMethod(gc, method, NULL) : NULL;
    Py_XDECREF(done);
    Py_XDECREF(gc);
    PyErr_Clear();
}

void subhost__call_keep(void) { tell_collector("freeze"); }

/* What is frozen when an interpreter ends would not be freed. */
void subhost__call_let_go(void) { tell_collector("unfreeze"); }

int subhost__call_prepare(subhost_interp *interp, const char *path0,
                          bool stdout_to_stderr)
{
    PyObject *contained =
        subhost__prelude_call(interp, "contain", "(i)", (int)interp->is_main);
    Py_XDECREF(contained);
    if (!contained)
        return -1;
    if (path0 && subhost__program_path0(path0) < 0)
        return -1;
    PyObject *stream = PySys_GetObject("stderr");
    if (stdout_to_stderr && stream)
        return PySys_SetObject("stdout", stream);
    return 0;
}
