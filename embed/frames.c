/* The frames and handled exceptions of this interpreter's threads.
 *
 * sys._current_frames() and sys._current_exceptions() walk the threads of ALL interpreters
 * (CPython's Python/pystate.c, _PyThread_CurrentFrames()) and take references to objects
 * that another GIL guards: with interpreters at work at the same time that corrupts memory
 * (3.13.0: within ten rounds). In a hosted interpreter these stand in for them, and tell of
 * its own threads only. */
#define _GNU_SOURCE
#include "interp.h"
#include "module.h"

typedef PyObject *(*describe_thread)(
    PyThreadState *tstate); /* new reference; NULL: skip */

/* {ident: describe(thread)}. Thread states of an interpreter go with its GIL held, new ones
 * come in front, and `describe` runs no Python code. */
static PyObject *describe_threads(PyObject *module, describe_thread describe)
{
    struct module_state *state = PyModule_GetState(module);
    PyObject *dict = PyDict_New();
    PyThreadState *tstate = state->interp && state->interp->py == PyInterpreterState_Get()
                                ? subhost__thread_first_state(state->interp)
                                : PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    for (; dict && tstate; tstate = PyThreadState_Next(tstate)) {
        PyObject *value = describe(tstate);
        if (!value)
            continue;
        PyObject *ident = PyLong_FromUnsignedLong(tstate->thread_id);
        if (!ident || PyDict_SetItem(dict, ident, value) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(ident);
        Py_DECREF(value);
    }
    return dict;
}

static PyObject *frame_of(PyThreadState *tstate)
{
    return (PyObject *)PyThreadState_GetFrame(tstate);
}

/* The topmost exception that is being handled. `exc_info` is a field of the public struct,
 * and what sys._current_exceptions() looks at. */
static PyObject *exception_of(PyThreadState *tstate)
{
    const _PyErr_StackItem *item = tstate->exc_info;
    while (item && (!item->exc_value || item->exc_value == Py_None))
        item = item->previous_item;
    return Py_NewRef(item ? item->exc_value : Py_None);
}

PyObject *subhost__current_frames(PyObject *module, PyObject *ignored)
{
    (void)ignored;
    return describe_threads(module, frame_of);
}

PyObject *subhost__current_exceptions(PyObject *module, PyObject *ignored)
{
    (void)ignored;
    return describe_threads(module, exception_of);
}
