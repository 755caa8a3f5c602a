/* Raising exceptions in a program's threads: handing one over, and having it come out of
 * the very call that was ended early for it.
 *
 * PyThreadState_SetAsyncExc() takes a class and instantiates it where it raises. What it
 * is given here is always `_Deliver`, whose constructor gives out the instance that is
 * due in that thread at that moment: what a signal handler raised, or Cancelled with its
 * reason.
 *
 * A blocking call that is ended early fails with ECANCELED, and the OSError would reach
 * the program's `except` clauses before the asynchronous exception is looked at. So a
 * RAISE callback (sys.monitoring, PEP 669) is set for as long as such a call is on its
 * way out: it sees the OSError where it enters Python, and raises what is due in its
 * place. From 3.15 on PyErr_CheckSignals() does that (cpython#145178), and the callback
 * is not used. */
#define _GNU_SOURCE
#include <errno.h>

#include "interp.h"
#include "module.h"

#define VERSION_3_15 0x030F0000

/* ---- what is due ---------------------------------------------------------------- */

static void disarm(subhost_interp *interp, struct thread *self)
{
    if (!self->armed)
        return;
    self->armed = false;
    struct module_state *state = interp->module;
    if (--state->armed > 0)
        return;
    PyObject *outer = PyErr_GetRaisedException();
    PyObject *monitoring = PySys_GetObject("monitoring"); /* borrowed */
    if (monitoring) {
        Py_XDECREF(PyObject_CallMethod(monitoring, "set_events", "ii", state->tool, 0));
        PyErr_Clear();
        Py_XDECREF(PyObject_CallMethod(monitoring, "free_tool_id", "i", state->tool));
    }
    PyErr_SetRaisedException(outer); /* clears whatever failed in here */
}

/* The exception instance that is due in the calling thread: a new reference, or NULL with
 * an exception set. Nothing is due afterwards. */
static PyObject *take_due(subhost_interp *interp, struct thread *self)
{
    PyObject *exception = self->deferred;
    self->deferred = NULL;
    if (!exception) {
        exception = subhost__module_cancelled(interp);
        int64_t none = 0, now = subhost__now();
        atomic_compare_exchange_strong(&interp->cancel.delivered_at, &none, now);
        self->raised++;
        NOTE(interp, CANCELLED_RAISED,
             TRAIL_NUMBER(AFTER, now - interp->cancel.requested_at));
    }
    atomic_store(&self->raise_pending, false);
    disarm(interp, self);
    return exception;
}

static PyObject *deliver_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)args, (void)kwargs;
    PyObject *module = PyType_GetModule(type);
    struct module_state *state = module ? PyModule_GetState(module) : NULL;
    struct thread *self = subhost__thread_self();
    if (!state || !state->interp || !self || self->interp != state->interp)
        return PyObject_CallNoArgs(PyExc_KeyboardInterrupt);
    if (atomic_load(&state->interp->state) == INTERP_QUARANTINED && !self->is_attendant &&
        !self->is_visitor) { /* that one is raised out of its callback */
        PyEval_SaveThread(); /* others may be waiting for a shared GIL */
        subhost__thread_park();
    }
    return take_due(state->interp, self);
}

static PyType_Slot deliver_slots[] = {
    {Py_tp_new, deliver_new},
    {0, NULL},
};
static PyType_Spec deliver_spec = {
    .name = "subhost._Deliver",
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = deliver_slots,
};

PyObject *subhost__deliver_type(PyObject *module)
{
    PyObject *bases = PyTuple_Pack(1, PyExc_BaseException);
    PyObject *type =
        bases ? PyType_FromModuleAndSpec(module, &deliver_spec, bases) : NULL;
    Py_XDECREF(bases);
    return type;
}

/* ---- handing over --------------------------------------------------------------- */

void subhost__raise_in(subhost_interp *interp, struct thread *thread, PyObject *exception)
{
    if (!thread || !interp->module) {
        Py_XDECREF(exception);
        return;
    }
    if (exception) {
        /* The first one wins; it is what the program would have seen first. */
        if (thread->deferred)
            Py_DECREF(exception);
        else
            thread->deferred = exception;
    } else if (thread->shield_depth > 0) {
        thread->shield_withheld = true;
        return;
    }
    atomic_store(&thread->raise_pending, true);
    if (thread->sealed > 0)
        return; /* when it is unsealed */
    if (PyThreadState_SetAsyncExc((unsigned long)thread->handle,
                                  interp->module->deliver) == 0) {
        Py_CLEAR(thread->deferred);
        atomic_store(&thread->raise_pending, false); /* it has ended meanwhile */
    }
}

int subhost__raise_now(subhost_interp *interp, struct thread *self)
{
    if (!self || self->interp != interp || !atomic_load(&self->raise_pending) ||
        !interp->module || self->sealed > 0)
        return 0;
    PyThreadState_SetAsyncExc((unsigned long)self->handle, NULL);
    PyObject *exception = take_due(interp, self);
    if (exception)
        PyErr_SetRaisedException(exception);
    return -1;
}

void subhost__raise_park_all(subhost_interp *interp)
{
    if (!interp->module || !interp->py)
        return;
    atomic_store(&interp->parked, true);
    PyThreadState *tstate = subhost__thread_first_state(interp);
    for (; tstate; tstate = PyThreadState_Next(tstate)) {
        struct thread *thread = subhost__thread_find(interp, tstate->thread_id);
        if (thread && thread->is_visitor) {
            if (!atomic_load(&thread->raise_pending))
                subhost__raise_in(interp, thread, NULL);
        } else if (thread && !thread->is_attendant) {
            PyThreadState_SetAsyncExc(tstate->thread_id, interp->module->deliver);
        }
    }
}

void subhost__raise_seal(struct thread *self)
{
    if (self && self->sealed++ == 0 && atomic_load(&self->raise_pending))
        PyThreadState_SetAsyncExc((unsigned long)self->handle, NULL);
}

void subhost__raise_unseal(subhost_interp *interp, struct thread *self)
{
    if (self && --self->sealed == 0 && atomic_load(&self->raise_pending) &&
        interp->module)
        PyThreadState_SetAsyncExc((unsigned long)self->handle, interp->module->deliver);
}

void subhost__raise_forget(subhost_interp *interp, struct thread *self)
{
    PyThreadState_SetAsyncExc((unsigned long)self->handle, NULL);
    Py_CLEAR(self->deferred);
    atomic_store(&self->raise_pending, false);
    if (interp->module)
        disarm(interp, self);
}

/* ---- out of the call that was ended early --------------------------------------- */

/* What CPython makes of a call that failed with ECANCELED. */
static bool is_early_end(PyObject *exception)
{
    /* input() on a terminal knows errors only as the end of the file. */
    if (PyErr_GivenExceptionMatches(exception, PyExc_EOFError))
        return true;
    if (!PyErr_GivenExceptionMatches(exception, PyExc_OSError))
        return false;
    PyObject *number = PyObject_GetAttrString(exception, "errno");
    bool is = number && PyLong_Check(number) && PyLong_AsLong(number) == ECANCELED;
    Py_XDECREF(number);
    PyErr_Clear();
    return is;
}

/* sys.monitoring's RAISE event: callback(code, offset, exception). Raising in here raises
 * in place of the exception. */
static PyObject *on_raise(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    struct module_state *state = PyModule_GetState(module);
    struct thread *self = subhost__thread_self();
    if (n != 3 || !state->interp || !self || !self->armed ||
        self->interp != state->interp || !atomic_load(&self->raise_pending) ||
        !is_early_end(args[2]))
        Py_RETURN_NONE;
    PyThreadState_SetAsyncExc((unsigned long)self->handle, NULL);
    PyObject *exception = take_due(state->interp, self);
    if (!exception)
        return NULL;
    /* As if it had been raised there from the first. */
    PyObject *traceback = PyException_GetTraceback(args[2]);
    if (traceback)
        PyException_SetTraceback(exception, traceback);
    Py_XDECREF(traceback);
    PyException_SetContext(exception, PyException_GetContext(args[2]));
    PyErr_SetRaisedException(exception);
    return NULL;
}

static PyMethodDef on_raise_def = {"on_raise", (PyCFunction)(void (*)(void))on_raise,
                                   METH_FASTCALL, NULL};

/* Tool ids that PEP 669 leaves free; a program may have taken some. */
static int take_tool_id(PyObject *monitoring)
{
    static const int ids[] = {4, 3, 1, 2, 0};
    for (size_t i = 0; i < ARRAY_LENGTH(ids); i++) {
        PyObject *result =
            PyObject_CallMethod(monitoring, "use_tool_id", "is", ids[i], "subhost");
        PyErr_Clear();
        if (result) {
            Py_DECREF(result);
            return ids[i];
        }
    }
    return -1;
}

static int listen(struct module_state *state, PyObject *monitoring)
{
    state->tool = take_tool_id(monitoring);
    PyObject *events = PyObject_GetAttrString(monitoring, "events");
    PyObject *raise = events ? PyObject_GetAttrString(events, "RAISE") : NULL;
    PyObject *callback = PyCFunction_New(&on_raise_def, state->module);
    PyObject *old = NULL, *set = NULL;
    if (state->tool >= 0 && raise && callback) {
        old = PyObject_CallMethod(monitoring, "register_callback", "iOO", state->tool,
                                  raise, callback);
        set =
            old ? PyObject_CallMethod(monitoring, "set_events", "iO", state->tool, raise)
                : NULL;
    }
    int result = set ? 0 : -1;
    Py_XDECREF(set);
    Py_XDECREF(old);
    Py_XDECREF(callback);
    Py_XDECREF(raise);
    Py_XDECREF(events);
    return result;
}

void subhost__raise_arm(subhost_interp *interp, struct thread *self)
{
    struct module_state *state = interp->module;
    if (Py_Version >= VERSION_3_15 || self->armed || !state)
        return;
    PyObject *monitoring = PySys_GetObject("monitoring"); /* borrowed */
    /* The callback must not be interrupted on its way in. */
    PyThreadState_SetAsyncExc((unsigned long)self->handle, NULL);
    if (state->armed == 0 && (!monitoring || listen(state, monitoring) < 0))
        PyErr_Clear(); /* then the OSError is seen first, and the exception over it */
    state->armed++;
    self->armed = true;
    PyThreadState_SetAsyncExc((unsigned long)self->handle, state->deliver);
}
