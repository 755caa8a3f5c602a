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

static bool is_in_file(PyFrameObject *frame, const char *file)
{
    PyObject *code = (PyObject *)PyFrame_GetCode(frame);
    PyObject *name = PyObject_GetAttrString(code, "co_filename");
    bool is = name && PyUnicode_CompareWithASCIIString(name, file) == 0;
    Py_XDECREF(name);
    Py_DECREF(code);
    PyErr_Clear();
    return is;
}

/* Where the program was interrupted, when it is the prelude that runs. */
static PyFrameObject *program_frame(PyThreadState *tstate)
{
    PyFrameObject *frame = PyThreadState_GetFrame(tstate);
    while (frame && is_in_file(frame, "<subhost.prelude>")) {
        PyFrameObject *back = PyFrame_GetBack(frame);
        Py_DECREF(frame);
        frame = back;
    }
    return frame;
}

bool subhost__frames_at_import_lock(subhost_interp *interp, unsigned long ident)
{
    bool found = false;
    PyThreadState *tstate = subhost__thread_first_state(interp);
    for (; tstate && !found; tstate = PyThreadState_Next(tstate)) {
        PyFrameObject *frame = tstate->thread_id == ident ? program_frame(tstate) : NULL;
        found = frame && is_in_file(frame, "<frozen importlib._bootstrap>");
        Py_XDECREF(frame);
    }
    return found;
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
