/* `import subhost`: the module's C part. Multi-phase, all state per interpreter.
 *
 * The prelude (python/prelude.py) runs in a namespace of its own when the interpreter is
 * made; what users see of it is copied into the module. */
#define _GNU_SOURCE
#include "module.h"
#include "policing.h"

#include "adopted.h"
#include "child.h"
#include "fence.h"
#include "native.h"
#include "pool.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <structmember.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <marshal.h> /* after Python.h */
#include "prelude_prelude.h"

static struct PyModuleDef module_def;

static struct module_state *state_of(PyObject *module)
{
    return PyModule_GetState(module);
}

static struct module_state *hosted_state(PyObject *module)
{
    struct module_state *state = state_of(module);
    if (state->interp)
        return state;
    PyErr_SetString(PyExc_RuntimeError,
                    "this interpreter is not hosted by subhost (it was made by the "
                    "program itself)");
    return NULL;
}

/* ---- exceptions ----------------------------------------------------------------- */

PyObject *subhost__module_cancelled(subhost_interp *interp)
{
    struct module_state *state = interp->module;
    struct cancel *cancel = &interp->cancel;
    enum subhost_reason reason = cancel->reason;
    const char *text = cancel->text ? cancel->text : subhost__reason_name(reason);
    /* Whatever the text is, this must become an exception. */
    PyObject *value = PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
    PyObject *exception = NULL;
    /* As KeyboardInterrupt, which has no text either. */
    if (value && reason == SUBHOST_BY_SIGINT)
        exception = PyObject_CallNoArgs(state->interrupted);
    else if (value)
        exception = PyObject_CallOneArg(state->cancelled, value);
    if (exception && PyObject_SetAttrString(exception, "reason", value) < 0)
        Py_CLEAR(exception);
    Py_XDECREF(value);
    return exception;
}

bool subhost__module_is_cancel(subhost_interp *interp, PyObject *exception)
{
    PyObject *result = subhost__prelude_call(interp, "is_cancel", "(O)", exception);
    bool is = result && PyObject_IsTrue(result) == 1;
    Py_XDECREF(result);
    PyErr_Clear();
    return is;
}

/* ---- Task ----------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD PyObject *name, *isolation;
    unsigned long id;
    int worker;
    PyObject *parent_id, *deadline;
} TaskObject;

static PyMemberDef task_members[] = {
    {"name", Py_T_OBJECT_EX, offsetof(TaskObject, name), Py_READONLY, NULL},
    {"id", Py_T_ULONG, offsetof(TaskObject, id), Py_READONLY, NULL},
    {"isolation", Py_T_OBJECT_EX, offsetof(TaskObject, isolation), Py_READONLY, NULL},
    {"worker", Py_T_INT, offsetof(TaskObject, worker), Py_READONLY, NULL},
    {"parent_id", Py_T_OBJECT_EX, offsetof(TaskObject, parent_id), Py_READONLY, NULL},
    {"deadline", Py_T_OBJECT_EX, offsetof(TaskObject, deadline), Py_READONLY,
     "time.monotonic() at which the task is cancelled, or None"},
    {NULL},
};

static void task_dealloc(PyObject *op)
{
    TaskObject *task = (TaskObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    Py_XDECREF(task->name);
    Py_XDECREF(task->isolation);
    Py_XDECREF(task->parent_id);
    Py_XDECREF(task->deadline);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *task_repr(PyObject *op)
{
    TaskObject *task = (TaskObject *)op;
    return PyUnicode_FromFormat("<subhost.Task %R id=%lu>", task->name, task->id);
}

static PyType_Slot task_slots[] = {
    {Py_tp_dealloc, task_dealloc},
    {Py_tp_members, task_members},
    {Py_tp_repr, task_repr},
    {Py_tp_doc, (void *)"The task that runs in an interpreter."},
    {0, NULL},
};
static PyType_Spec task_spec = {
    .name = "subhost.Task",
    .basicsize = sizeof(TaskObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = task_slots,
};

/* ---- functions of the module ---------------------------------------------------- */

static PyObject *module_current(PyObject *module, PyObject *ignored)
{
    (void)ignored;
    struct module_state *state = hosted_state(module);
    if (!state)
        return NULL;
    subhost_interp *interp = state->interp;
    /* Set before the program starts and after it has ended, by the driver. */
    pthread_mutex_lock(&interp->lock);
    subhost_task *current = interp->current;
    if (current)
        subhost__task_ref(current);
    pthread_mutex_unlock(&interp->lock);
    if (!current) {
        PyErr_SetString(PyExc_RuntimeError, "no task runs in this interpreter");
        return NULL;
    }
    PyObject *type = PyObject_GetAttrString(module, "Task");
    TaskObject *task =
        type ? (TaskObject *)PyType_GenericAlloc((PyTypeObject *)type, 0) : NULL;
    Py_XDECREF(type);
    if (task) {
        task->name = PyUnicode_DecodeFSDefault(current->name);
        task->isolation =
            PyUnicode_FromString(interp->is_main ? "process" : "interpreter");
        task->id = current->id;
        task->worker = interp->worker;
        task->parent_id = current->parent_id ? PyLong_FromUnsignedLong(current->parent_id)
                                             : Py_NewRef(Py_None);
        int64_t deadline = current->worker
                               ? subhost__worker_call_deadline(current->worker)
                               : current->deadline;
        /* time.monotonic() is CLOCK_MONOTONIC, too. */
        task->deadline = deadline == SUBHOST_FOREVER
                             ? Py_NewRef(Py_None)
                             : PyFloat_FromDouble((double)deadline / 1e9);
        if (!task->name || !task->isolation || !task->parent_id || !task->deadline)
            Py_CLEAR(task);
    }
    subhost_task_release(current);
    return (PyObject *)task;
}

static PyObject *module_cancel_requested(PyObject *module, PyObject *ignored)
{
    (void)ignored;
    struct module_state *state = hosted_state(module);
    if (!state)
        return NULL;
    return PyBool_FromLong(atomic_load(&state->interp->cancel.requested));
}

static PyObject *module_checkpoint(PyObject *module, PyObject *ignored)
{
    (void)ignored;
    struct module_state *state = hosted_state(module);
    if (!state)
        return NULL;
    subhost_interp *interp = state->interp;
    struct thread *self = subhost__thread_self();
    if (atomic_load(&interp->cancel.requested) && !(self && self->shield_depth > 0)) {
        PyObject *exception = subhost__module_cancelled(interp);
        if (!exception)
            return NULL;
        int64_t none = 0;
        atomic_compare_exchange_strong(&interp->cancel.delivered_at, &none,
                                       subhost__now());
        if (self)
            self->raised++;
        PyErr_SetRaisedException(exception);
        return NULL;
    }
    if (subhost__channel_drain(interp) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* shield(): delivery of Cancelled to this thread waits. It is ours to keep, because
 * CPython may raise an asynchronous exception outside the block it was meant for
 * (cpython#139622). */
static PyObject *shield_enter(PyObject *self_object, PyObject *ignored)
{
    (void)ignored;
    PyObject *module = PyType_GetModule(Py_TYPE(self_object));
    struct module_state *state = module ? hosted_state(module) : NULL;
    if (!state)
        return NULL;
    struct thread *self = subhost__thread_adopt(state->interp, THREAD_PROGRAM);
    if (!self)
        return PyErr_NoMemory();
    if (self->shield_depth++ == 0 && atomic_load(&self->raise_pending) &&
        !self->deferred) {
        /* Handed over and not raised yet: take it back until the shield is left. */
        PyThreadState_SetAsyncExc((unsigned long)self->handle, NULL);
        atomic_store(&self->raise_pending, false);
        self->shield_withheld = true;
    }
    return Py_NewRef(self_object);
}

static PyObject *shield_exit(PyObject *self_object, PyObject *args)
{
    (void)args;
    PyObject *module = PyType_GetModule(Py_TYPE(self_object));
    struct module_state *state = module ? hosted_state(module) : NULL;
    struct thread *self = subhost__thread_self();
    if (!state)
        return NULL;
    if (self && self->shield_depth > 0 && --self->shield_depth == 0 &&
        self->shield_withheld) {
        self->shield_withheld = false;
        subhost__raise_in(state->interp, self, NULL);
    }
    Py_RETURN_NONE;
}

static PyMethodDef shield_methods[] = {
    {"__enter__", shield_enter, METH_NOARGS, NULL},
    {"__exit__", shield_exit, METH_VARARGS, NULL},
    {NULL},
};
static PyType_Slot shield_slots[] = {
    {Py_tp_methods, shield_methods},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_doc,
     (void *)"Context manager: Cancelled is not raised inside, at most for the grace "
             "period. Use it around what must not be left half done."},
    {0, NULL},
};
static PyType_Spec shield_spec = {
    .name = "subhost.shield",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = shield_slots,
};

static PyObject *module_open_nursery(PyObject *module, PyObject *ignored)
{
    (void)ignored;
    struct module_state *state = hosted_state(module);
    PyObject *type = state ? subhost__nursery_get(state->interp, "Nursery") : NULL;
    PyObject *nursery = type ? PyObject_CallNoArgs(type) : NULL;
    Py_XDECREF(type);
    return nursery;
}

/* What nursery.py adds to the module, once somebody asks for it (PEP 562). */
static const char *const lazy[] = {"RemoteError", "Nursery",          "NurseryTask",
                                   "Outcome",     "_RemoteTraceback", "_restore",
                                   "_view"};

static PyObject *module_getattr(PyObject *module, PyObject *arg)
{
    struct module_state *state = state_of(module);
    const char *name = PyUnicode_AsUTF8(arg);
    if (!name)
        return NULL;
    for (size_t i = 0; state && state->interp && i < ARRAY_LENGTH(lazy); i++)
        if (strcmp(name, lazy[i]) == 0)
            return subhost__nursery_get(state->interp, name);
    PyErr_Format(PyExc_AttributeError, "module 'subhost' has no attribute '%s'", name);
    return NULL;
}

/* What is there, and the public ones of what would be made. */
static PyObject *module_dir(PyObject *module, PyObject *ignored)
{
    (void)ignored;
    struct module_state *state = state_of(module);
    PyObject *names = PySet_New(PyModule_GetDict(module));
    for (size_t i = 0; names && state->interp && i < ARRAY_LENGTH(lazy); i++) {
        if (*lazy[i] == '_')
            continue;
        PyObject *name = PyUnicode_FromString(lazy[i]);
        if (!name || PySet_Add(names, name) < 0)
            Py_CLEAR(names);
        Py_XDECREF(name);
    }
    PyObject *list = names ? PySequence_List(names) : NULL;
    Py_XDECREF(names);
    return list;
}

static PyMethodDef module_methods[] = {
    {"open_nursery", module_open_nursery, METH_NOARGS,
     "A context manager in which tasks are started; it is left when all have ended."},
    {"__getattr__", module_getattr, METH_O, NULL},
    {"__dir__", module_dir, METH_NOARGS, NULL},
    {"current", module_current, METH_NOARGS, "The task that runs here."},
    {"cancel_requested", module_cancel_requested, METH_NOARGS,
     "True from the moment in which the task's cancel was asked for."},
    {"checkpoint", module_checkpoint, METH_NOARGS, "Raises Cancelled when one is due."},
    {NULL},
};

/* ---- functions for the prelude -------------------------------------------------- */

static PyObject *host_driver_ident(PyObject *module, PyObject *ignored)
{
    (void)ignored;
    struct module_state *state = hosted_state(module);
    return state ? PyLong_FromUnsignedLong((unsigned long)state->interp->driver) : NULL;
}

static PyObject *host_initial_disposition(PyObject *module, PyObject *arg)
{
    (void)module;
    long signo = PyLong_AsLong(arg);
    if (signo == -1 && PyErr_Occurred())
        return NULL;
    char kind = subhost__signal_initial((int)signo);
    return PyUnicode_FromStringAndSize(&kind, 1);
}

static PyObject *host_take_signal(PyObject *module, PyObject *args)
{
    struct module_state *state = hosted_state(module);
    int signo, action;
    if (!state || !PyArg_ParseTuple(args, "ii", &signo, &action))
        return NULL;
    if (action != 0 &&
        subhost__policing_check(POLICY_SIGNALS_HANDLERS, PyExc_PermissionError,
                                "signal.signal()") < 0)
        return NULL;
    subhost_interp *interp = state->interp;
    uint64_t bit = SIGNAL_BIT(signo);
    atomic_fetch_and(&interp->signals_handled, ~bit);
    atomic_fetch_and(&interp->signals_ignored, ~bit);
    atomic_fetch_and(&interp->signals_default, ~bit);
    if (action == 3)
        atomic_fetch_or(&interp->signals_default, bit);
    else if (action == 1)
        atomic_fetch_or(&interp->signals_ignored, bit);
    else if (action == 2)
        atomic_fetch_or(&interp->signals_handled, bit);
    int error = subhost__signals_update(interp->host, signo);
    if (interp->host->up)
        subhost__child_signals_changed(interp->host);
    if (error) {
        atomic_fetch_and(&interp->signals_handled, ~bit);
        atomic_fetch_and(&interp->signals_ignored, ~bit);
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static PyObject *host_forget_signal(PyObject *module, PyObject *arg)
{
    struct module_state *state = hosted_state(module);
    long signo = PyLong_AsLong(arg);
    if (!state || PyErr_Occurred())
        return NULL;
    int error = subhost__signals_forget(state->interp, (int)signo);
    if (state->interp->host->up)
        subhost__child_signals_changed(state->interp->host);
    if (error) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static PyObject *host_set_wakeup_fd(PyObject *module, PyObject *arg)
{
    struct module_state *state = hosted_state(module);
    long fd = PyLong_AsLong(arg);
    if (!state || (fd == -1 && PyErr_Occurred()))
        return NULL;
    return PyLong_FromLong(atomic_exchange(&state->interp->wakeup_fd, (int)fd));
}

static PyObject *host_block_signals(PyObject *module, PyObject *arg)
{
    struct module_state *state = hosted_state(module);
    uint64_t mask = PyLong_AsUnsignedLongLongMask(arg);
    if (!state || PyErr_Occurred())
        return NULL;
    subhost_host *host = state->interp->host;
    atomic_store(&state->interp->signals_blocked, mask);
    Py_BEGIN_ALLOW_THREADS subhost__signals_update_mask(host);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

static PyObject *host_make_cancelled(PyObject *module, PyObject *ignored)
{
    (void)ignored;
    struct module_state *state = hosted_state(module);
    return state ? subhost__module_cancelled(state->interp) : NULL;
}

static PyObject *host_post_signal(PyObject *module, PyObject *arg)
{
    struct module_state *state = hosted_state(module);
    long signo = PyLong_AsLong(arg);
    if (!state || PyErr_Occurred())
        return NULL;
    /* The main loop sees it is pending and pokes the driver. */
    atomic_fetch_or(&state->interp->signals_pending, SIGNAL_BIT(signo));
    int fd = atomic_load(&state->interp->wakeup_fd);
    unsigned char byte = (unsigned char)signo;
    if (fd >= 0) /* not write(): see subhost__loop_wake() */
        (void)!syscall(SYS_write, fd, &byte, sizeof byte);
    subhost__channel_ring(state->interp);
    subhost__loop_wake(state->interp->host);
    Py_RETURN_NONE;
}

static PyObject *host_refuse_fork(PyObject *module, PyObject *arg)
{
    (void)module;
    const char *what = PyUnicode_AsUTF8(arg);
    if (what)
        subhost__fence_refuse(what);
    return NULL;
}

static PyObject *host_refuse_exec(PyObject *module, PyObject *what)
{
    (void)module;
    const char *name = PyUnicode_AsUTF8(what);
    if (!name ||
        subhost__policing_check(POLICY_EXEC_ALLOW, PyExc_PermissionError, name) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *host_loads_anything(PyObject *module, PyObject *ignored)
{
    (void)ignored;
    struct module_state *state = hosted_state(module);
    return state ? PyBool_FromLong(subhost__policing_loads_anything(state->interp))
                 : NULL;
}

static PyObject *host_adopt(PyObject *module, PyObject *arg)
{
    (void)module; /* its state is no more when the interpreter is taken apart */
    subhost_host *host = subhost__host();
    long pid = PyLong_AsLong(arg);
    if (pid == -1 && PyErr_Occurred())
        return NULL;
    if (host && pid > 0)
        subhost__adopt(host, (pid_t)pid);
    Py_RETURN_NONE;
}

static PyObject *host_note_import(PyObject *module, PyObject *name)
{
    struct module_state *state = hosted_state(module);
    const char *text = state ? PyUnicode_AsUTF8(name) : NULL;
    if (!text)
        return NULL;
    NOTE(state->interp, IMPORT_WARNED, TRAIL_TEXT(NAME, text));
    Py_RETURN_NONE;
}

/* C's environment is already this dict of bytes. -1 with an exception. */
static int is_environ(PyObject *wanted)
{
    Py_ssize_t count = 0;
    for (char **at = environ; at && *at; at++, count++) {
        const char *end = strchrnul(*at, '=');
        PyObject *key = PyBytes_FromStringAndSize(*at, end - *at);
        PyObject *value = key ? PyDict_GetItemWithError(wanted, key) : NULL;
        Py_XDECREF(key);
        if (PyErr_Occurred())
            return -1;
        if (!value || !*end || strcmp(PyBytes_AsString(value), end + 1) != 0)
            return 0;
    }
    return count == PyDict_Size(wanted);
}

/* C's environment, with what others have put there behind python's back. */
static PyObject *host_set_environ(PyObject *module, PyObject *wanted)
{
    (void)module;
    PyObject *key, *value;
    Py_ssize_t at = 0;
    int is = PyDict_Check(wanted) ? is_environ(wanted) : 0;
    if (is < 0)
        return NULL;
    if (is)
        Py_RETURN_NONE;
    clearenv();
    while (PyDict_Next(wanted, &at, &key, &value)) {
        const char *name = PyBytes_AsString(key), *text = PyBytes_AsString(value);
        if (!name || !text)
            return NULL;
        if (setenv(name, text, true) != 0)
            return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

/* C's environment, as os.environ keeps it: a dict of bytes. */
static PyObject *host_environ(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    PyObject *found = PyDict_New();
    for (char **at = environ; found && at && *at; at++) {
        const char *end = strchrnul(*at, '=');
        if (!*end)
            continue;
        PyObject *key = PyBytes_FromStringAndSize(*at, end - *at);
        PyObject *value = key ? PyBytes_FromString(end + 1) : NULL;
        if (!value ||
            !PyDict_SetDefault(found, key, value)) /* the first one, as getenv() */
            Py_CLEAR(found);
        Py_XDECREF(value);
        Py_XDECREF(key);
    }
    return found;
}

static PyMethodDef host_methods[] = {
    {"environ", host_environ, METH_NOARGS, NULL},
    {"set_environ", host_set_environ, METH_O, NULL},
    {"unflushed", subhost__unflushed, METH_VARARGS, NULL},
    {"loads_anything", host_loads_anything, METH_NOARGS, NULL},
    {"adopt", host_adopt, METH_O, NULL},
    {"note_import", host_note_import, METH_O, NULL},
    {"refuse_exec", host_refuse_exec, METH_O, NULL},
    {"current_frames", subhost__current_frames, METH_NOARGS, NULL},
    {"current_exceptions", subhost__current_exceptions, METH_NOARGS, NULL},
    {"post_signal", host_post_signal, METH_O, NULL},
    {"refuse_fork", host_refuse_fork, METH_O, NULL},
    {"driver_ident", host_driver_ident, METH_NOARGS, NULL},
    {"initial_disposition", host_initial_disposition, METH_O, NULL},
    {"take_signal", host_take_signal, METH_VARARGS, NULL},
    {"forget_signal", host_forget_signal, METH_O, NULL},
    {"set_wakeup_fd", host_set_wakeup_fd, METH_O, NULL},
    {"block_signals", host_block_signals, METH_O, NULL},
    {"make_cancelled", host_make_cancelled, METH_NOARGS, NULL},
    {"cancel_requested", module_cancel_requested, METH_NOARGS, NULL},
    {NULL},
};

/* ---- the prelude ---------------------------------------------------------------- */

static PyObject *prelude_code(void)
{
    if (PyImport_GetMagicNumber() == PRELUDE_PRELUDE_MAGIC)
        return PyMarshal_ReadObjectFromString((const char *)prelude_prelude_code,
                                              (Py_ssize_t)sizeof prelude_prelude_code);
    /* libpython's bytecode is not the one that we were built with. */
    return Py_CompileString(prelude_prelude_source, "<subhost.prelude>", Py_file_input);
}

static int add(PyObject *dict, const char *name, PyObject *value)
{
    int result = value ? PyDict_SetItemString(dict, name, value) : -1;
    Py_XDECREF(value);
    return result;
}

/* `_host`: what the prelude gets from C. */
static PyObject *make_host_namespace(PyObject *module, struct module_state *state)
{
    PyObject *host = PyModule_New("subhost._host");
    if (!host)
        return NULL;
    PyObject *name = PyModule_GetNameObject(module);
    for (PyMethodDef *method = host_methods; name && method->ml_name; method++) {
        PyObject *function = PyCFunction_NewEx(method, module, name);
        if (!function || PyObject_SetAttrString(host, method->ml_name, function) < 0)
            Py_CLEAR(name);
        Py_XDECREF(function);
    }
    if (!name || PyObject_SetAttrString(host, "Cancelled", state->cancelled) < 0 ||
        PyObject_SetAttrString(host, "handlers", state->handlers) < 0)
        Py_CLEAR(host);
    Py_XDECREF(name);
    return host;
}

static int run_prelude(PyObject *module, struct module_state *state)
{
    PyObject *code = prelude_code();
    state->prelude = PyDict_New();
    if (!code || !state->prelude ||
        add(state->prelude, "_host", make_host_namespace(module, state)) < 0 ||
        add(state->prelude, "__name__", PyUnicode_FromString("subhost")) < 0 ||
        PyDict_SetItemString(state->prelude, "__builtins__", PyEval_GetBuiltins()) < 0) {
        Py_XDECREF(code);
        return -1;
    }
    PyObject *result = PyEval_EvalCode(code, state->prelude, state->prelude);
    Py_DECREF(code);
    if (!result)
        return -1;
    Py_DECREF(result);
    return PyModule_AddObjectRef(module, "on_cancel",
                                 PyDict_GetItemString(state->prelude, "on_cancel"));
}

static PyObject *prelude_call(subhost_interp *interp, const char *name,
                              const char *format, va_list list)
{
    if (!interp->module || !interp->module->prelude) {
        PyErr_SetString(PyExc_RuntimeError, "the interpreter is not complete");
        return NULL;
    }
    PyObject *function = PyDict_GetItemString(interp->module->prelude, name);
    if (!function) {
        PyErr_Format(PyExc_RuntimeError, "the prelude has no %s()", name);
        return NULL;
    }
    PyObject *args = Py_VaBuildValue(format, list);
    if (!args)
        return NULL;
    PyObject *result = PyObject_CallObject(function, args);
    Py_DECREF(args);
    return result;
}

PyObject *subhost__prelude_call(subhost_interp *interp, const char *name,
                                const char *format, ...)
{
    /* Sealed: what is due would be raised in the prelude and not in the program. */
    struct thread *self = subhost__thread_self();
    subhost__raise_seal(self);
    va_list list;
    va_start(list, format);
    PyObject *result = prelude_call(interp, name, format, list);
    va_end(list);
    subhost__raise_unseal(interp, self);
    return result;
}

PyObject *subhost__prelude_run(subhost_interp *interp, const char *name,
                               const char *format, ...)
{
    va_list list;
    va_start(list, format);
    PyObject *result = prelude_call(interp, name, format, list);
    va_end(list);
    return result;
}

int subhost__module_run_handler(subhost_interp *interp, int signo)
{
    struct module_state *state = interp->module;
    PyObject *number = state ? PyLong_FromLong(signo) : NULL;
    if (!number)
        return state ? -1 : 0;
    PyObject *handler = Py_XNewRef(PyDict_GetItemWithError(state->handlers, number));
    PyObject *result = NULL;
    if (!handler && signo == SIGINT && !PyErr_Occurred()) {
        PyErr_SetNone(PyExc_KeyboardInterrupt); /* what default_int_handler does */
    } else if (!handler || !PyCallable_Check(handler)) {
        /* Changed back since the signal came: as if it had been lost in that race. */
        result = PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    } else {
        PyObject *frame = (PyObject *)PyThreadState_GetFrame(PyThreadState_Get());
        result =
            PyObject_CallFunctionObjArgs(handler, number, frame ? frame : Py_None, NULL);
        Py_XDECREF(frame);
        atomic_fetch_add(&interp->handlers_run, 1);
    }
    Py_XDECREF(handler);
    Py_DECREF(number);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

void subhost__module_release_waiter(subhost_interp *interp)
{
    PyObject *result = subhost__prelude_call(interp, "release_waiter", "()");
    Py_XDECREF(result);
    PyErr_Clear(); /* then the wait goes on, and the ladder with it */
}

/* ---- the module ----------------------------------------------------------------- */

static int make_exceptions(PyObject *module, struct module_state *state)
{
    state->cancelled = PyErr_NewExceptionWithDoc(
        "subhost.Cancelled",
        "The task is being cancelled. Not an Exception: let it pass. `reason` says why.",
        PyExc_BaseException, NULL);
    if (!state->cancelled)
        return -1;
    PyObject *bases = PyTuple_Pack(2, state->cancelled, PyExc_KeyboardInterrupt);
    /* Shown as what users know it by. */
    state->interrupted =
        bases ? PyErr_NewException("builtins.KeyboardInterrupt", bases, NULL) : NULL;
    Py_XDECREF(bases);
    state->deliver = subhost__deliver_type(module);
    if (!state->interrupted || !state->deliver ||
        PyObject_SetAttrString(state->cancelled, "reason", Py_None) < 0)
        return -1;
    return PyModule_AddObjectRef(module, "Cancelled", state->cancelled);
}

/* A program that drops the module from sys.modules and imports it again gets the same
 * classes, and the same host. */
static int share_first(PyObject *module, struct module_state *state,
                       struct module_state *first)
{
    state->interp = first->interp;
    state->cancelled = Py_XNewRef(first->cancelled);
    state->interrupted = Py_XNewRef(first->interrupted);
    state->deliver = Py_XNewRef(first->deliver);
    state->prelude = Py_XNewRef(first->prelude);
    state->handlers = Py_XNewRef(first->handlers);
    static const char *const names[] = {"Cancelled", "Task", "shield", "on_cancel",
                                        "native"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        PyObject *value = PyObject_GetAttrString(first->module, names[i]);
        int result = PyModule_AddObjectRef(module, names[i], value);
        Py_XDECREF(value);
        if (result < 0)
            return -1;
    }
    return 0;
}

static int module_exec(PyObject *module)
{
    struct module_state *state = state_of(module);
    struct thread *self = subhost__thread_self();
    /* Only the interpreter that the driver has just made is hosted. */
    bool hosted = self && self->interp->py == PyInterpreterState_Get();
    if (hosted && self->interp->module)
        return share_first(module, state, self->interp->module);
    state->interp = hosted ? self->interp : NULL;
    state->module = module; /* borrowed: the state is a part of it */
    state->handlers = PyDict_New();
    if (!state->handlers || make_exceptions(module, state) < 0)
        return -1;
    PyObject *task = PyType_FromModuleAndSpec(module, &task_spec, NULL);
    PyObject *shield = PyType_FromModuleAndSpec(module, &shield_spec, NULL);
    int result = task && shield ? 0 : -1;
    if (result == 0)
        result = PyModule_AddObjectRef(module, "Task", task);
    if (result == 0)
        result = PyModule_AddObjectRef(module, "shield", shield);
    Py_XDECREF(task);
    Py_XDECREF(shield);
    if (result < 0 || !state->interp)
        return result;
    state->native = subhost__native_make(module);
    return state->native ? run_prelude(module, state) : -1;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct module_state *state = state_of(module);
    Py_VISIT(state->cancelled);
    Py_VISIT(state->interrupted);
    Py_VISIT(state->deliver);
    Py_VISIT(state->prelude);
    Py_VISIT(state->nursery);
    Py_VISIT(state->restore);
    Py_VISIT(state->handlers);
    Py_VISIT(state->native);
    Py_VISIT(state->native_types);
    Py_VISIT(state->buffer_type);
    return 0;
}

static int module_clear(PyObject *module)
{
    struct module_state *state = state_of(module);
    Py_CLEAR(state->cancelled);
    Py_CLEAR(state->interrupted);
    Py_CLEAR(state->deliver);
    Py_CLEAR(state->prelude);
    Py_CLEAR(state->nursery);
    Py_CLEAR(state->restore);
    Py_CLEAR(state->handlers);
    Py_CLEAR(state->native);
    Py_CLEAR(state->native_types);
    Py_CLEAR(state->buffer_type);
    return 0;
}

static void module_free(void *module)
{
    struct module_state *state = state_of(module);
    if (state && state->interp && state->interp->module == state)
        state->interp->module = NULL;
    module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "subhost",
    .m_doc = "The task's side of the host that runs this interpreter.",
    .m_size = sizeof(struct module_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

static PyObject *module_init(void) { return PyModuleDef_Init(&module_def); }

int subhost__module_register(void)
{
    return PyImport_AppendInittab("subhost", module_init);
}

int subhost__module_boot(subhost_interp *interp)
{
    PyObject *module = PyImport_ImportModule("subhost");
    if (!module)
        return -1;
    struct module_state *state = state_of(module);
    /* sys.modules may lose it, the state may not. */
    interp->module = state->interp ? state : NULL;
    if (!interp->module) {
        PyErr_SetString(PyExc_RuntimeError, "the subhost module did not find its host");
        Py_DECREF(module);
        return -1;
    }
    /* The reference stays: the host keeps the module until the interpreter ends. */
    return 0;
}
