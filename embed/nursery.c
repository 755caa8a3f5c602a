/* open_nursery(): its part in C. What users see is in python/nursery.py, which runs when a
 * program first asks for it, and in each interpreter that runs a call.
 *
 * A wait for tasks is a semaphore on the waiter's stack, in a list of the nursery, posted
 * by each terminal event: no polling, no descriptors, and a cancel of the waiting task ends
 * it like any interruptible call. */
#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buffer.h"
#include "module.h"
#include "policing.h"

#include <marshal.h> /* after Python.h */
#include "prelude_nursery.h"

struct waiter {
    struct waiter *next;
    sem_t sem;
};

void subhost__nursery_ref(struct nursery *nursery)
{
    atomic_fetch_add(&nursery->refs, 1);
}

void subhost__nursery_unref(struct nursery *nursery)
{
    if (nursery && atomic_fetch_sub(&nursery->refs, 1) == 1)
        free(nursery);
}

void subhost__nursery_wake(struct nursery *nursery)
{
    for (struct waiter *waiter = nursery->waiters; waiter; waiter = waiter->next)
        sem_post(&waiter->sem);
}

/* ---- waiting -------------------------------------------------------------------- */

/* `task` has ended; NULL: all of the nursery have. */
static bool has_ended(subhost_host *host, const struct nursery *nursery,
                      const subhost_task *task)
{
    pthread_mutex_lock(&host->lock);
    bool ended = task ? task->ended : nursery->live == 0;
    pthread_mutex_unlock(&host->lock);
    return ended;
}

static void unlink_waiter(struct nursery *nursery, const struct waiter *waiter)
{
    for (struct waiter **at = &nursery->waiters; *at; at = &(*at)->next) {
        if (*at == waiter) {
            *at = waiter->next;
            return;
        }
    }
}

/* 0, ETIMEDOUT, or EINTR when an exception is to be raised here. Without a deadline it
 * relies on each task's terminal event, which is certain. No GIL held. */
static int wait_for(subhost_host *host, struct nursery *nursery, const subhost_task *task,
                    int64_t deadline)
{
    struct waiter self = {0};
    int result = 0;
    sem_init(&self.sem, 0, 0);
    pthread_mutex_lock(&host->lock);
    self.next = nursery->waiters;
    nursery->waiters = &self;
    pthread_mutex_unlock(&host->lock);
    while (!result && !has_ended(host, nursery, task))
        result = subhost__interruptible_wait(&self.sem, deadline, true);
    pthread_mutex_lock(&host->lock);
    unlink_waiter(nursery, &self);
    pthread_mutex_unlock(&host->lock);
    sem_destroy(&self.sem); /* who posts does it under the lock */
    return result;
}

/* The exception that is due in this thread, sealed or not: a new reference. */
static PyObject *take_due(subhost_interp *interp, struct thread *self)
{
    unsigned sealed = self->sealed;
    self->sealed = 0;
    int raised = subhost__raise_now(interp, self);
    self->sealed = sealed;
    return raised < 0 ? PyErr_GetRaisedException() : NULL;
}

/* ---- subhost._Nursery, the base of the class in Python -------------------------- */

typedef struct {
    PyObject_HEAD struct nursery *nursery;
    subhost_interp *interp; /* that of the module; a reference */
} NurseryObject;

static PyObject *nursery_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)args, (void)kwargs;
    struct thread *thread = subhost__thread_self();
    if (!thread) {
        PyErr_SetString(PyExc_RuntimeError, "this thread is not hosted by subhost");
        return NULL;
    }
    NurseryObject *self = (NurseryObject *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->nursery = calloc(1, sizeof *self->nursery);
    if (!self->nursery) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    atomic_init(&self->nursery->refs, 1);
    subhost__interp_ref(thread->interp);
    self->interp = thread->interp;
    return (PyObject *)self;
}

static int nursery_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    return 0;
}

static void nursery_dealloc(PyObject *op)
{
    NurseryObject *self = (NurseryObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (self->nursery && self->interp) /* never left */
        subhost__task_cancel_nursery(self->interp->host, self->nursery, self->interp,
                                     "its nursery is gone");
    subhost__nursery_unref(self->nursery);
    if (self->interp)
        subhost__interp_unref(self->interp);
    type->tp_free(op);
    Py_DECREF(type);
}

/* Waits for all of them. What is raised here meanwhile cancels them; the first of it is
 * returned, None when there was nothing. */
static PyObject *join(NurseryObject *self, struct thread *thread)
{
    PyObject *first = NULL;
    int result;
    do {
        Py_BEGIN_ALLOW_THREADS result =
            wait_for(self->interp->host, self->nursery, NULL, SUBHOST_FOREVER);
        Py_END_ALLOW_THREADS PyObject *due =
            result == EINTR ? take_due(self->interp, thread) : NULL;
        if (due)
            subhost__task_cancel_nursery(self->interp->host, self->nursery, self->interp,
                                         "its nursery was interrupted");
        if (first)
            Py_XDECREF(due);
        else
            first = due;
    } while (result == EINTR);
    return first ? first : Py_NewRef(Py_None);
}

/* No task is live, and none can be started any more. */
static bool close_nursery(const NurseryObject *self)
{
    pthread_mutex_lock(&self->interp->host->lock);
    bool closed = self->nursery->live == 0;
    if (closed) /* else it stays cancelled, if it is */
        self->nursery->closed = self->nursery->cancelled = true;
    pthread_mutex_unlock(&self->interp->host->lock);
    return closed;
}

/* In C, because a method in Python begins with a check for what is to be raised: the
 * children would stay behind. */
static PyObject *nursery_exit(PyObject *op, PyObject *args)
{
    NurseryObject *self = (NurseryObject *)op;
    PyObject *kind, *error, *traceback;
    struct thread *thread = subhost__thread_adopt(self->interp, THREAD_PROGRAM);
    if (!thread)
        return PyErr_NoMemory();
    subhost__raise_seal(thread);
    if (PyArg_ParseTuple(args, "OOO", &kind, &error, &traceback) == 0)
        error = NULL;
    if (!error || error != Py_None)
        subhost__task_cancel_nursery(self->interp->host, self->nursery, self->interp,
                                     "its nursery is left by an exception");
    PyObject *outer = error ? NULL : PyErr_GetRaisedException();
    PyObject *interrupted = join(self, thread);
    /* Another thread may have started one, until we had the GIL again. */
    while (!close_nursery(self)) {
        PyObject *again = join(self, thread);
        if (Py_IsNone(interrupted))
            Py_SETREF(interrupted, Py_NewRef(again));
        Py_DECREF(again);
    }
    subhost__buffers_collect(self->interp);
    PyObject *result = NULL;
    if (error)
        result = PyObject_CallMethod(op, "_conclude", "OO", error, interrupted);
    PyObject *raised = error ? PyErr_GetRaisedException() : outer;
    /* What the tasks raised goes before a cancel, and so before one that is just coming. */
    if (raised && atomic_load(&self->interp->cancel.requested))
        subhost__raise_forget(self->interp, thread);
    subhost__raise_unseal(self->interp, thread);
    if (raised)
        PyErr_SetRaisedException(raised);
    Py_DECREF(interrupted);
    return result;
}

static PyMethodDef nursery_methods[] = {
    {"__exit__", nursery_exit, METH_VARARGS, NULL},
    {NULL},
};
static PyType_Slot nursery_slots[] = {
    {Py_tp_new, nursery_new},
    {Py_tp_dealloc, nursery_dealloc},
    {Py_tp_traverse, nursery_traverse},
    {Py_tp_methods, nursery_methods},
    {0, NULL},
};
static PyType_Spec nursery_spec = {
    .name = "subhost._Nursery",
    .basicsize = sizeof(NurseryObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = nursery_slots,
};

/* ---- what nursery.py gets beside it --------------------------------------------- */

#define TASK_CAPSULE "subhost.task"

static void release_capsule(PyObject *capsule)
{
    subhost_task_release(PyCapsule_GetPointer(capsule, TASK_CAPSULE));
}

static subhost_task *task_of(PyObject *capsule)
{
    return PyCapsule_GetPointer(capsule, TASK_CAPSULE);
}

static int fail_start(subhost_error *err)
{
    PyErr_Format(subhost_error_code(err) == SUBHOST_EFORBIDDEN ? PyExc_PermissionError
                                                               : PyExc_RuntimeError,
                 "the task could not be started: %s", subhost_error_message(err));
    subhost_error_free(err);
    return -1;
}

/* An interpreter of the task's own, which ends after it. */
static int create_interp(subhost_task *parent, int isolation,
                         const subhost_policy *policy, subhost_interp **interp)
{
    subhost_interp_options options = SUBHOST_INTERP_OPTIONS_INIT;
    options.worker = parent->interp->worker;
    options.isolation = (enum subhost_isolation)isolation;
    options.policy = policy;
    subhost_error *err = NULL;
    int code = subhost_interp_create(parent->interp->host, &options, interp, &err);
    if (code)
        return fail_start(err);
    subhost__signals_inherit(*interp, parent->interp);
    return 0;
}

struct call {
    const char *payload;
    Py_ssize_t size;
    struct buffer_list lent; /* what the payload refers to */
    const char *name;
    int isolation;
    double timeout;          /* seconds; negative: none */
    const char *policy_name; /* NULL: the parent's */
    PyObject *settings;      /* a list of "key=value" */
    subhost_policy *policy;  /* what comes of both */
};

/* What start() was given as policy=: a name or a path, and keys. NULL: an exception is set. */
static subhost_policy *wanted_policy(const struct call *call)
{
    subhost_policy *policy = NULL;
    subhost_error *err = NULL;
    int code = subhost_policy_load(call->policy_name, &policy, &err);
    for (Py_ssize_t i = 0; !code && i < PyList_GET_SIZE(call->settings); i++) {
        const char *text = PyUnicode_AsUTF8(PyList_GET_ITEM(call->settings, i));
        if (!text) {
            subhost_policy_free(policy);
            return NULL;
        }
        code = subhost__policy_set_below_host(policy, text, "the task's policy", &err);
    }
    if (!code)
        return policy;
    PyErr_Format(code == SUBHOST_ESYSTEM ? PyExc_OSError : PyExc_ValueError, "policy: %s",
                 subhost_error_message(err));
    subhost_error_free(err);
    subhost_policy_free(policy);
    return NULL;
}

/* The policy of a task below `parent`; false: an exception is set. */
static bool narrow_policy(const subhost_task *parent, struct call *call)
{
    if (!call->policy_name && PyList_GET_SIZE(call->settings) == 0) {
        call->policy = subhost__policy_ref(parent->policy);
        return true;
    }
    subhost_policy *wanted = wanted_policy(call);
    if (!wanted)
        return false;
    subhost_error *err = NULL;
    int code =
        subhost__policy_narrow(parent->policy, wanted, SCOPE_INTERP, &call->policy, &err);
    subhost_policy_free(wanted);
    return code == 0 || fail_start(err) == 0;
}

static subhost_task *submit(subhost_task *parent, struct nursery *nursery,
                            struct call *call)
{
    subhost_interp *interp = NULL;
    if (create_interp(parent, call->isolation, call->policy, &interp) < 0)
        return NULL;
    subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
    options.name = call->name;
    options.grace = parent->grace;
    if (call->timeout >= 0)
        options.timeout =
            call->timeout < 1e9 ? (int64_t)(call->timeout * 1e9) + 1 : SUBHOST_FOREVER;
    pthread_mutex_lock(&interp->lock);
    interp->for_one_call = true;
    pthread_mutex_unlock(&interp->lock);
    subhost_error *err = NULL;
    subhost_task *task = subhost__task_make_call(interp, call->payload,
                                                 (size_t)call->size, &options, parent);
    if (task) {
        subhost__nursery_ref(nursery);
        task->nursery = nursery;
        task->lent = call->lent;
        call->lent = (struct buffer_list){0};
        if (subhost__task_enqueue(task, &err) < 0) {
            fail_start(err);
            subhost_task_release(task);
            task = NULL;
        }
    } else {
        PyErr_NoMemory();
    }
    subhost_interp_release(interp);
    return task;
}

/* The last look before a start: nothing behind it gives the GIL away. */
static bool is_open(const NurseryObject *self)
{
    if (self->nursery->closed)
        PyErr_SetString(PyExc_RuntimeError,
                        "tasks can be started only inside the nursery's with block");
    return !self->nursery->closed;
}

/* submit(nursery, task, payload, buffers, name, isolation, timeout, policy, settings): sets
 * task._handle and task.id in one piece with the start, so that no interruption comes in
 * between. */
static PyObject *host_submit(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *op, *object, *buffers;
    struct call call;
    if (!PyArg_ParseTuple(args, "OOy#O!sidzO!", &op, &object, &call.payload, &call.size,
                          &PyList_Type, &buffers, &call.name, &call.isolation,
                          &call.timeout, &call.policy_name, &PyList_Type, &call.settings))
        return NULL;
    NurseryObject *self = (NurseryObject *)op;
    pthread_mutex_lock(&self->interp->lock);
    subhost_task *parent = self->interp->current;
    if (parent)
        subhost__task_ref(parent);
    pthread_mutex_unlock(&self->interp->lock);
    if (!parent) {
        PyErr_SetString(PyExc_RuntimeError, "no task runs in this interpreter");
        return NULL;
    }
    if (!subhost__policing_may_start(parent->policy)) {
        PyErr_SetString(
            PyExc_PermissionError,
            "the task could not be started: the task that runs here may do more "
            "than the one that has started this thread");
        subhost_task_release(parent);
        return NULL;
    }
    call.policy = NULL;
    subhost_task *task = NULL;
    if (subhost__buffers_lend(self->interp, buffers, &call.lent) &&
        narrow_policy(parent, &call) && is_open(self))
        task = submit(parent, self->nursery, &call);
    subhost__buffer_list_clear(&call.lent);
    subhost_policy_free(call.policy);
    subhost_task_release(parent);
    if (!task)
        return NULL;
    PyObject *handle = PyCapsule_New(task, TASK_CAPSULE, release_capsule);
    PyObject *id = PyLong_FromUnsignedLong(task->id);
    PyObject *tasks = PyObject_GetAttrString(op, "_tasks");
    int result =
        handle && id && tasks ? PyObject_SetAttrString(object, "_handle", handle) : -1;
    if (result == 0)
        result = PyObject_SetAttrString(object, "id", id);
    if (result == 0)
        result = PyList_Append(tasks, object);
    Py_XDECREF(tasks);
    Py_XDECREF(id);
    if (handle)
        Py_DECREF(handle);
    else
        subhost_task_release(task);
    if (result < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* wait(nursery, handle, seconds or a negative number): False when time was up. */
static PyObject *host_wait(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *op, *handle;
    double timeout;
    if (!PyArg_ParseTuple(args, "OOd", &op, &handle, &timeout))
        return NULL;
    if (!PyObject_HasAttrString(op, "_conclude")) {
        PyErr_SetString(PyExc_RuntimeError, "the nursery of the task was left");
        return NULL;
    }
    NurseryObject *self = (NurseryObject *)op;
    subhost_task *task = task_of(handle);
    struct thread *thread = subhost__thread_adopt(self->interp, THREAD_PROGRAM);
    if (!task || !thread)
        return task ? PyErr_NoMemory() : NULL;
    int64_t deadline = timeout >= 0 && timeout < 1e9
                           ? subhost__deadline((int64_t)(timeout * 1e9))
                           : SUBHOST_FOREVER;
    int result;
    do {
        Py_BEGIN_ALLOW_THREADS result =
            wait_for(self->interp->host, self->nursery, task, deadline);
        Py_END_ALLOW_THREADS if (result == EINTR &&
                                 subhost__raise_now(self->interp, thread) <
                                     0) return NULL;
    } while (result == EINTR && thread->sealed == 0);
    return PyBool_FromLong(result == 0);
}

static PyObject *host_cancel(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *handle;
    const char *text;
    if (!PyArg_ParseTuple(args, "Os", &handle, &text))
        return NULL;
    subhost_task *task = task_of(handle);
    if (!task)
        return NULL;
    subhost__task_expect_cancel(task);
    subhost_task_cancel(task, SUBHOST_BY_REQUEST, *text ? text : NULL);
    Py_RETURN_NONE;
}

/* None while it runs; (kind, code, detail, reason or None, its words or None, seconds, failed). */
static PyObject *host_outcome(PyObject *module, PyObject *handle)
{
    (void)module;
    subhost_task *task = task_of(handle);
    if (!task)
        return NULL;
    subhost_host *host = task->interp->host;
    pthread_mutex_lock(&host->lock);
    bool ended = task->ended, failed = ended && subhost__task_failed(task);
    subhost_outcome outcome = task->outcome; /* does not change any more */
    pthread_mutex_unlock(&host->lock);
    if (!ended)
        Py_RETURN_NONE;
    const char *reason =
        outcome.cancel_reason >= 0
            ? subhost__reason_name((enum subhost_reason)outcome.cancel_reason)
            : NULL;
    PyObject *words =
        task->words ? PyUnicode_DecodeFSDefault(task->words) : Py_NewRef(Py_None);
    return Py_BuildValue("(siNzNdN)", subhost_outcome_name(outcome.kind), outcome.code,
                         PyUnicode_DecodeFSDefault(outcome.detail), reason, words,
                         (double)outcome.duration / 1e9, PyBool_FromLong(failed));
}

/* Of an ended task: its bytes and the buffers that they refer to, or (None, []). */
static PyObject *host_result(PyObject *module, PyObject *handle)
{
    (void)module;
    subhost_task *task = task_of(handle);
    if (!task)
        return NULL;
    subhost_interp *interp = task->parent->interp; /* where we are */
    subhost__buffers_collect(interp); /* what was lent to it is the caller's again */
    if (!task->result)
        return Py_BuildValue("(O[])", Py_None);
    PyObject *views = subhost__buffers_view(interp, &task->returned);
    return views ? Py_BuildValue("(y#N)", (const char *)task->result,
                                 (Py_ssize_t)task->result_size, views)
                 : NULL;
}

static PyObject *host_pid(PyObject *module, PyObject *handle)
{
    (void)module;
    subhost_task *task = task_of(handle);
    int pid = task ? (int)atomic_load(&task->interp->pid) : 0;
    if (task && !pid)
        Py_RETURN_NONE; /* not forked yet */
    return task ? PyLong_FromLong(pid) : NULL;
}

/* The lines of a traceback, as python prints them, without the traceback module: that takes
 * as long to import as an interpreter to create. */
static PyObject *host_format_traceback(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *traceback, *stream;
    if (!PyArg_ParseTuple(args, "OO", &traceback, &stream) ||
        PyTraceBack_Print(traceback, stream) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* compile(source, filename): as compile() of "exec", which would first make the hundred types
 * of the ast module: longer than all else that a task's start takes. */
static PyObject *host_compile(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *filename;
    const char *source;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "s#U", &source, &size, &filename))
        return NULL;
    if (strlen(source) != (size_t)size) {
        PyErr_SetString(PyExc_SyntaxError, "source code cannot contain null bytes");
        return NULL;
    }
    return Py_CompileStringObject(source, filename, Py_file_input, NULL, -1);
}

/* Whether the task that runs here is itself to end. */
static PyObject *host_cancel_requested(PyObject *module, PyObject *nursery)
{
    (void)module;
    const NurseryObject *self = (NurseryObject *)nursery;
    return PyBool_FromLong(atomic_load(&self->interp->cancel.requested));
}

/* Whether a task that is started here may come to run in a process. */
static PyObject *host_may_move(PyObject *module, PyObject *nursery)
{
    (void)module;
    const NurseryObject *self = (NurseryObject *)nursery;
    return PyBool_FromLong(subhost__policing_moves(self->interp->policy));
}

static PyMethodDef host_methods[] = {
    {"may_move", host_may_move, METH_O, NULL},
    {"cancel_requested", host_cancel_requested, METH_O, NULL},
    {"compile", host_compile, METH_VARARGS, NULL},
    {"submit", host_submit, METH_VARARGS, NULL},
    {"wait", host_wait, METH_VARARGS, NULL},
    {"cancel", host_cancel, METH_VARARGS, NULL},
    {"outcome", host_outcome, METH_O, NULL},
    {"result", host_result, METH_O, NULL},
    {"pid", host_pid, METH_O, NULL},
    {"format_traceback", host_format_traceback, METH_VARARGS, NULL},
    {NULL},
};

/* ---- nursery.py ----------------------------------------------------------------- */

static PyObject *make_host(struct module_state *state)
{
    PyObject *host = PyModule_New("subhost._nursery_host");
    PyObject *type = PyType_FromModuleAndSpec(state->module, &nursery_spec, NULL);
    int result = host && type ? PyModule_AddFunctions(host, host_methods) : -1;
    if (result == 0)
        result = PyModule_AddObjectRef(host, "Nursery", type);
    if (result == 0)
        result = PyModule_AddObjectRef(host, "Cancelled", state->cancelled);
    PyObject *checkpoint = PyObject_GetAttrString(state->module, "checkpoint");
    if (result == 0)
        result = PyModule_AddObjectRef(host, "checkpoint", checkpoint);
    Py_XDECREF(checkpoint);
    Py_XDECREF(type);
    if (result < 0)
        Py_CLEAR(host);
    return host;
}

static PyObject *nursery_code(void)
{
    if (PyImport_GetMagicNumber() == PRELUDE_NURSERY_MAGIC)
        return PyMarshal_ReadObjectFromString((const char *)prelude_nursery_code,
                                              (Py_ssize_t)sizeof prelude_nursery_code);
    return Py_CompileString(prelude_nursery_source, "<subhost.nursery>", Py_file_input);
}

static PyObject *run_nursery(struct module_state *state)
{
    PyObject *dict = PyDict_New(), *code = nursery_code();
    PyObject *host = make_host(state), *name = PyUnicode_FromString("subhost");
    PyObject *result = NULL;
    if (dict && code && host && name && PyDict_SetItemString(dict, "_host", host) == 0 &&
        PyDict_SetItemString(dict, "_prelude", state->prelude) == 0 &&
        PyDict_SetItemString(dict, "__name__", name) == 0 &&
        PyDict_SetItemString(dict, "__builtins__", PyEval_GetBuiltins()) == 0)
        result = PyEval_EvalCode(code, dict, dict);
    Py_XDECREF(name);
    Py_XDECREF(host);
    Py_XDECREF(code);
    if (!result)
        Py_CLEAR(dict);
    Py_XDECREF(result);
    return dict;
}

PyObject *subhost__nursery_get(subhost_interp *interp, const char *name)
{
    struct module_state *state = interp->module;
    if (!state || !state->prelude) {
        PyErr_SetString(PyExc_RuntimeError, "the interpreter is not complete");
        return NULL;
    }
    if (!state->nursery) {
        struct thread *self = subhost__thread_self();
        subhost__raise_seal(self);
        PyObject *dict = run_nursery(state);
        if (state->nursery)
            Py_XDECREF(dict); /* another thread was faster */
        else
            state->nursery = dict;
        subhost__raise_unseal(interp, self);
        if (!state->nursery)
            return NULL;
    }
    PyObject *value = PyDict_GetItemString(state->nursery, name);
    if (!value)
        PyErr_Format(PyExc_AttributeError, "module 'subhost' has no attribute '%s'",
                     name);
    return Py_XNewRef(value);
}
