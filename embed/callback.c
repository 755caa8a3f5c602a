/* Function pointers that call Python: libffi closures which enter one interpreter, from
 * whatever thread.
 *
 * The door of thread.c says whether the interpreter can be entered; where it cannot, the
 * declared default is returned. A callback is counted: by its handle (or Python object), by
 * the interpreter's list of those that C keeps, and by each call that is inside.
 *
 * C may still have the pointer of one that was never released when its interpreter has
 * ended. The closure then stays for the life of the process, and returns its default. */
#define _GNU_SOURCE
#include "native.h"

#include "module.h"

#include <alloca.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct subhost_callback {
    atomic_int refs;
    atomic_bool closed;
    subhost_interp *interp; /* a reference */
    int64_t life;           /* of the interpreter that is meant; -1: whichever lives */
    char *module, *name;    /* of the callable, where C named it; owned */
    /* Where Python gave it; with the GIL held: */
    PyObject *callable;
    vectorcallfunc vectorcall; /* of a plain Python function; else NULL */
    struct native_types types; /* references */
    subhost_callback *next;    /* in interp->callbacks */
    bool stored;               /* C keeps it */
    struct native_call *call;  /* the one that it was lent to, or NULL */
    const struct signature *signature;
    bool owns_signature;
    bool numbers;         /* a few, and nothing else: no way but that of numbers below */
    void *closure, *code; /* libffi's */
};

static atomic_ullong called, defaulted;
/* Those whose interpreters have ended: C may have their pointers. */
static subhost_callback *_Atomic forgotten;

void subhost__callback_get_stats(subhost_stats *stats)
{
    stats->callbacks = atomic_load(&called);
    stats->callbacks_defaulted = atomic_load(&defaulted);
}

void subhost__callback_reset_stats(void)
{
    atomic_store(&called, 0);
    atomic_store(&defaulted, 0);
}

/* ---- the callable ----------------------------------------------------------------- */

static PyObject *attribute(PyObject *object, const char *name)
{
    Py_INCREF(object);
    while (object && *name) {
        size_t n = strcspn(name, ".");
        PyObject *part = PyUnicode_FromStringAndSize(name, (Py_ssize_t)n);
        PyObject *next = part ? PyObject_GetAttr(object, part) : NULL;
        Py_XDECREF(part);
        Py_SETREF(object, next);
        name += n + (name[n] == '.');
    }
    return object;
}

/* An exception that is raised inside importlib may leave a lock of its own behind, for which
 * the next import waits for ever: none is raised meanwhile. */
static PyObject *import_sealed(subhost_interp *interp, const char *name)
{
    struct thread *self = subhost__thread_self();
    subhost__raise_seal(self);
    PyObject *module = PyImport_ImportModule(name);
    subhost__raise_unseal(interp, self);
    return module;
}

static PyObject *look_up(const subhost_callback *callback)
{
    /* Not by PyImport_GetModule(): that takes importlib's locks as well. */
    PyObject *modules = PyImport_GetModuleDict(); /* borrowed */
    PyObject *module =
        Py_XNewRef(modules ? PyDict_GetItemString(modules, callback->module) : NULL);
    PyObject *object = module ? attribute(module, callback->name) : NULL;
    if (!object) { /* not there, or not complete */
        PyErr_Clear();
        Py_XSETREF(module, import_sealed(callback->interp, callback->module));
        object = module ? attribute(module, callback->name) : NULL;
    }
    Py_XDECREF(module);
    return object;
}

/* What a call needs of Python's, held while it lasts: the callback may be released meanwhile.
 * False without an exception: the interpreter is about to end. */
struct held {
    PyObject *callable;
    struct native_types types;
};

static bool hold(const subhost_callback *callback, struct held *held)
{
    struct native_types types = callback->types;
    if (callback->module && subhost__native_types(callback->interp, &types))
        held->callable = look_up(callback);
    else
        held->callable = Py_XNewRef(callback->callable);
    held->types.interp = callback->interp;
    held->types.pointer = Py_XNewRef(types.pointer);
    held->types.callback = Py_XNewRef(types.callback);
    return held->callable != NULL;
}

static void let_go(struct held *held)
{
    Py_XDECREF(held->callable);
    Py_XDECREF(held->types.pointer);
    Py_XDECREF(held->types.callback);
}

/* ---- arguments and result --------------------------------------------------------- */

/* `in` parameters point to their value; NULL is None. */
static PyObject *argument(const subhost_callback *callback,
                          const struct native_types *types, const struct sig_param *param,
                          void **args, size_t i)
{
    const struct signature *s = callback->signature;
    void *value = args[i], *address;
    if (param->way == SIG_IN) {
        memcpy(&value, args[i], sizeof value);
        if (!value)
            Py_RETURN_NONE;
    }
    if (param->type.kind != SIG_BUF)
        return subhost__value_to_python(&param->type, types, value);
    memcpy(&address, value, sizeof address);
    for (size_t j = i + 1; j < s->n_params; j++) {
        if (s->params[j].type.kind != SIG_LEN || s->params[j].buffer != i)
            continue;
        struct sig_type length = {.kind = s->params[j].type.item};
        PyObject *number = subhost__value_to_python(&length, NULL, args[j]);
        Py_ssize_t n = number ? PyLong_AsSsize_t(number) : -1;
        Py_XDECREF(number);
        if (n < 0 && PyErr_Occurred())
            return NULL;
        n = n < 0 ? 0 : n;
        if (!address)
            Py_RETURN_NONE;
        size_t item =
            param->type.item == SIG_VOID ? 1 : subhost__sig_size(param->type.item);
        return param->type.writable
                   ? PyMemoryView_FromMemory(address, n * (Py_ssize_t)item, PyBUF_WRITE)
                   : PyBytes_FromStringAndSize(address, n * (Py_ssize_t)item);
    }
    Py_RETURN_NONE;
}

/* What was lent for the call must not be used after it: an exception where it still is, unless
 * there is one already. */
static void take_back(PyObject **values, size_t n, bool lent)
{
    PyObject *exception = PyErr_GetRaisedException();
    for (size_t i = 0; i < n; i++) {
        if (lent && PyMemoryView_Check(values[i]))
            Py_XDECREF(PyObject_CallMethod(values[i], "release", NULL));
        Py_DECREF(values[i]);
    }
    if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_BufferError))
        PyErr_SetString(PyExc_BufferError,
                        "callback: a buffer that was lent for the call is still in use "
                        "behind it; copy what is to be kept");
    if (exception)
        PyErr_SetRaisedException(exception);
}

static PyObject *call_python(const subhost_callback *callback,
                             const struct native_types *types, PyObject *callable,
                             void **args)
{
    const struct signature *s = callback->signature;
    PyObject **values = alloca((1 + s->n_params) * sizeof *values);
    size_t n = 0;
    for (size_t i = 0; i < s->n_params; i++) {
        if (s->params[i].type.kind == SIG_LEN)
            continue;
        PyObject *value = argument(callback, types, &s->params[i], args, i);
        if (!value) {
            take_back(values + 1, n, s->n_buffers > 0);
            return NULL;
        }
        values[1 + n++] = value;
    }
    /* What PyObject_Vectorcall() does, without its checks of others' functions. */
    vectorcallfunc function = PyVectorcall_Function(callable);
    PyObject *result = (function ? function : PyObject_Vectorcall)(
        callable, values + 1, n | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    take_back(values + 1, n, s->n_buffers > 0);
    if (result && s->n_buffers > 0 && PyErr_Occurred())
        Py_CLEAR(result);
    return result;
}

/* ---- numbers ---------------------------------------------------------------------- */

/* Most callbacks have a few numbers alone, and many are called a million times, as qsort()'s. What
 * these need of the above is no more than this. */
enum { FEW = 8 };

static bool has_a_few_numbers(const struct signature *s)
{
    if (s->n_params > FEW)
        return false;
    for (size_t i = 0; i < s->n_params; i++)
        if (s->params[i].way != SIG_VALUE || s->params[i].type.kind > SIG_BOOL)
            return false;
    return true;
}

static inline PyObject *number(enum sig_kind kind, const void *from)
{
    switch (kind) {
    case SIG_I32:
        return PyLong_FromLong(*(const int32_t *)from);
    case SIG_I64:
        return PyLong_FromLongLong(*(const int64_t *)from);
    case SIG_F64:
        return PyFloat_FromDouble(*(const double *)from);
    default:
        return subhost__value_to_python(&(struct sig_type){.kind = kind}, NULL, from);
    }
}

static PyObject *call_with_numbers(const subhost_callback *callback, PyObject *callable,
                                   void **args)
{
    const struct signature *s = callback->signature;
    PyObject *values[1 + FEW], *result = NULL;
    size_t n = 0;
    while (n < s->n_params && (values[1 + n] = number(s->params[n].type.kind, args[n])))
        n++;
    vectorcallfunc function = callback->vectorcall;
    if (!function)
        function = PyVectorcall_Function(callable);
    if (n == s->n_params)
        result = (function ? function : PyObject_Vectorcall)(
            callable, values + 1, n | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    while (n > 0)
        Py_DECREF(values[n--]); /* runs no code of anybody's, so an exception stays */
    return result;
}

/* False, without an exception: not as simple as that. */
static inline bool give_number(enum sig_kind kind, PyObject *object, void *to)
{
    if (kind == SIG_I32 && PyLong_CheckExact(object) &&
        PyUnstable_Long_IsCompact((PyLongObject *)object)) {
        Py_ssize_t value = PyUnstable_Long_CompactValue((PyLongObject *)object);
        if (value != (int32_t)value)
            return false;
        *(ffi_sarg *)to = value;
        return true;
    }
    if (kind == SIG_F64 && PyFloat_CheckExact(object)) {
        *(double *)to = PyFloat_AS_DOUBLE(object);
        return true;
    }
    return kind == SIG_VOID;
}

/* ---- the result ------------------------------------------------------------------- */

static bool give_result(const subhost_callback *callback,
                        const struct native_types *types, PyObject *object, void *to)
{
    const struct sig_type *type = &callback->signature->result;
    const struct where where = {"callback", 0, NULL};
    if (type->kind == SIG_VOID)
        return true;
    if (type->kind <= SIG_BOOL) { /* stored last: all of it or nothing */
        if (subhost__value_from_python(type, &where, types, object, to) < 0)
            return false;
        if (type->ffi->size < sizeof(ffi_arg))
            subhost__value_widen(type, to);
        return true;
    }
    _Alignas(max_align_t) char small[64];
    size_t size = type->ffi->size;
    char *value = size <= sizeof small ? small : malloc(size);
    if (!value) {
        PyErr_NoMemory();
        return false;
    }
    if (type->kind == SIG_STRUCT)
        memset(value, 0, size); /* what is between its fields */
    bool ok = subhost__value_from_python(type, &where, types, object, value) == 0;
    if (ok)
        memcpy(to, value, size);
    if (value != small)
        free(value);
    return ok;
}

/* False with an exception: `result` is as it was. */
static bool invoke(const subhost_callback *callback, const struct native_types *types,
                   PyObject *callable, void *result, void **args)
{
    const struct signature *s = callback->signature;
    PyObject *object = callback->numbers ? call_with_numbers(callback, callable, args)
                                         : call_python(callback, types, callable, args);
    bool ok = object && (give_number(s->result.kind, object, result) ||
                         give_result(callback, types, object, result));
    Py_XDECREF(object);
    return ok;
}

static void set_default(const struct signature *s, void *to)
{
    const struct sig_type *type = &s->result;
    if (type->kind == SIG_VOID)
        return;
    size_t size = type->ffi->size;
    memset(to, 0, size < sizeof(ffi_arg) ? sizeof(ffi_arg) : size);
    if (type->kind == SIG_F64) {
        memcpy(to, &s->default_float, sizeof s->default_float);
    } else if (type->kind == SIG_F32) {
        float value = (float)s->default_float;
        memcpy(to, &value, sizeof value);
    } else if (type->kind <= SIG_BOOL) {
        ffi_arg whole = (ffi_arg)s->default_integer;
        memcpy(to, &whole, sizeof whole);
        subhost__value_narrow(type, to);
        subhost__value_widen(type, to);
    }
}

/* ---- what a callback raised ------------------------------------------------------- */

/* Out of the bound call that it was made from; else it is nobody's. */
static void pass_on(const subhost_callback *callback, struct native_call *call,
                    PyObject *callable)
{
    subhost_interp *interp = callback->interp;
    if (call && !call->exception) {
        call->exception = PyErr_GetRaisedException();
        return;
    }
    struct thread *self = subhost__thread_self();
    PyObject *cancelled = interp->module ? interp->module->cancelled : NULL;
    if (self && self->is_visitor && cancelled && PyErr_ExceptionMatches(cancelled)) {
        PyErr_Clear(); /* it was to end, and has */
        return;
    }
    PyErr_WriteUnraisable(callable);
}

/* In the interpreter. False: the default stays. */
static bool run(const subhost_callback *callback, void *result, void **args)
{
    struct native_call *call = subhost__native_current();
    if (call && call->tstate != PyThreadState_GetUnchecked())
        call = NULL;
    if (call && call->exception)
        return false; /* C does not know yet that it is to end */
    PyObject *outer = PyErr_GetRaisedException();
    struct held held = {0};
    bool ok = false;
    if (subhost__stack_has_room("a callback") && hold(callback, &held))
        ok = invoke(callback, &held.types, held.callable, result, args);
    if (PyErr_Occurred())
        pass_on(callback, call, held.callable);
    let_go(&held);
    PyErr_SetRaisedException(outer);
    return ok;
}

/* From within the bound call that it was lent to, on its thread: all that is needed is there
 * and stays, and no exception is set. */
static void run_lent(const subhost_callback *callback, struct native_call *call,
                     void *result, void **args)
{
    call->callbacks++;
    bool ok = false;
    if (!call->exception) {
        /* Unless the C function took the GIL itself. */
        bool attach = call->released && !PyThreadState_GetUnchecked();
        if (attach)
            PyEval_RestoreThread(call->tstate);
        ok = subhost__stack_has_room("a callback") &&
             invoke(callback, &callback->types, callback->callable, result, args);
        if (!ok)
            call->exception = PyErr_GetRaisedException();
        if (attach)
            PyEval_SaveThread();
    }
    if (!ok) {
        set_default(callback->signature, result);
        call->defaulted++;
    }
}

void subhost__callback_count(const struct native_call *call)
{
    atomic_fetch_add_explicit(&called, call->callbacks, memory_order_relaxed);
    atomic_fetch_add_explicit(&defaulted, call->defaulted, memory_order_relaxed);
}

void subhost__callback_lend(subhost_callback *callback, struct native_call *call)
{
    if (!callback->stored)
        callback->call = call;
}

static void enter(ffi_cif *cif, void *result, void **args, void *data)
{
    (void)cif;
    subhost_callback *callback = data;
    int *error = &errno, saved_errno = *error; /* this thread's, looked up once */
    struct native_call *call = subhost__native_current();
    if (call && callback->call == call) {
        run_lent(callback, call, result, args);
        *error = saved_errno;
        return;
    }
    atomic_fetch_add_explicit(&called, 1, memory_order_relaxed);
    atomic_fetch_add(&callback->refs, 1);
    struct visit visit;
    bool ok = !atomic_load(&callback->closed) &&
              subhost__thread_visit(&visit, callback->interp, callback->life);
    if (ok) {
        ok = run(callback, result, args);
        subhost__thread_leave(&visit);
    }
    if (!ok) {
        set_default(callback->signature, result);
        atomic_fetch_add_explicit(&defaulted, 1, memory_order_relaxed);
    }
    subhost__callback_unref(callback);
    *error = saved_errno;
}

/* ---- making and freeing ----------------------------------------------------------- */

void subhost__callback_ref(subhost_callback *callback)
{
    atomic_fetch_add(&callback->refs, 1);
}

/* The last one holds nothing of Python's any more. */
void subhost__callback_unref(subhost_callback *callback)
{
    if (atomic_fetch_sub(&callback->refs, 1) != 1)
        return;
    if (callback->closure)
        ffi_closure_free(callback->closure);
    if (callback->owns_signature)
        subhost__signature_free((struct signature *)callback->signature);
    free(callback->module);
    subhost__interp_unref(callback->interp);
    free(callback);
}

/* One reference; NULL: no memory. Takes an owned signature over in any case. */
static subhost_callback *make(subhost_interp *interp, const struct signature *signature,
                              bool owns_signature)
{
    subhost_callback *callback = calloc(1, sizeof *callback);
    if (!callback) {
        if (owns_signature)
            subhost__signature_free((struct signature *)signature);
        return NULL;
    }
    atomic_init(&callback->refs, 1);
    callback->life = -1;
    callback->interp = interp;
    subhost__interp_ref(interp);
    callback->signature = signature;
    callback->owns_signature = owns_signature;
    callback->numbers = has_a_few_numbers(signature);
    callback->closure = ffi_closure_alloc(sizeof(ffi_closure), &callback->code);
    if (!callback->closure ||
        ffi_prep_closure_loc(callback->closure, (ffi_cif *)&signature->cif, enter,
                             callback, callback->code) != FFI_OK) {
        subhost__callback_unref(callback);
        return NULL;
    }
    return callback;
}

void *subhost__callback_pointer(const subhost_callback *callback)
{
    return callback->code;
}

const struct signature *subhost__callback_signature(const subhost_callback *callback)
{
    return callback->signature;
}

bool subhost__callback_is_closed(const subhost_callback *callback)
{
    return atomic_load(&callback->closed);
}

/* ---- those of Python -------------------------------------------------------------- */

static subhost_callback *make_of(subhost_interp *interp, const struct native_types *types,
                                 PyObject *callable, const struct signature *signature,
                                 bool owns_signature)
{
    subhost_callback *callback = make(interp, signature, owns_signature);
    if (!callback) {
        PyErr_NoMemory();
        return NULL;
    }
    callback->life =
        PyInterpreterState_GetID(PyThreadState_GetInterpreter(PyThreadState_Get()));
    callback->callable = Py_NewRef(callable);
    /* What PyObject_Vectorcall() would find, without its checks of others' functions. */
    if (PyFunction_Check(callable))
        callback->vectorcall = PyVectorcall_Function(callable);
    callback->types.interp = interp;
    callback->types.pointer = Py_NewRef(types->pointer);
    callback->types.callback = Py_NewRef(types->callback);
    return callback;
}

subhost_callback *subhost__callback_borrow(subhost_interp *interp,
                                           const struct native_types *types,
                                           PyObject *callable,
                                           const struct signature *signature)
{
    return make_of(interp, types, callable, signature, false);
}

subhost_callback *subhost__callback_store(subhost_interp *interp,
                                          const struct native_types *types,
                                          PyObject *callable, struct signature *signature)
{
    subhost_callback *callback = make_of(interp, types, callable, signature, true);
    if (!callback)
        return NULL;
    callback->stored = true;
    callback->next = interp->callbacks; /* its reference is released with it */
    interp->callbacks = callback;
    subhost__callback_ref(callback);
    return callback;
}

static void drop_python(subhost_callback *callback)
{
    atomic_store(&callback->closed, true);
    Py_CLEAR(callback->callable);
    Py_CLEAR(callback->types.pointer);
    Py_CLEAR(callback->types.callback);
}

void subhost__callback_return(subhost_callback *callback)
{
    if (!callback->stored)
        drop_python(callback);
    subhost__callback_unref(callback);
}

void subhost__callback_close(subhost_callback *callback)
{
    bool listed = false;
    for (subhost_callback **at = &callback->interp->callbacks; *at; at = &(*at)->next) {
        if (*at == callback) {
            *at = callback->next;
            listed = true;
            break;
        }
    }
    drop_python(callback);
    if (listed)
        subhost__callback_unref(callback);
}

void subhost__callback_end_all(subhost_interp *interp)
{
    while (interp->callbacks) {
        subhost_callback *callback = interp->callbacks;
        interp->callbacks = callback->next;
        drop_python(callback);
        callback->next = atomic_load(&forgotten);
        while (!atomic_compare_exchange_weak(&forgotten, &callback->next, callback))
            ;
    }
}

/* ---- those of C ------------------------------------------------------------------- */

/* "MODULE:NAME", where NAME may have dots. */
static int split(subhost_callback *callback, const char *callable, subhost_error **err)
{
    const char *colon = strchr(callable, ':');
    if (!colon || colon == callable || !colon[1])
        return subhost__fail(err, SUBHOST_EINVAL,
                             "'%s' is not MODULE:NAME, as json:loads", callable);
    callback->module = strdup(callable);
    if (!callback->module)
        return subhost__fail(err, SUBHOST_ENOMEM, "out of memory");
    callback->module[colon - callable] = '\0';
    callback->name = callback->module + (colon - callable) + 1;
    return 0;
}

int subhost_callback_create(subhost_interp *interp, const char *callable,
                            const char *text, subhost_callback **result,
                            subhost_error **err)
{
    struct signature *signature = NULL;
    subhost_callback *callback = NULL;
    int code = 0;
    if (!interp || !callable || !text || !result)
        code = subhost__fail(err, SUBHOST_EINVAL, "%s is NULL",
                             !interp     ? "interp"
                             : !callable ? "callable"
                             : !text     ? "signature"
                                         : "callback");
    if (!code && !subhost__is_here(interp->home))
        code = subhost__refuse_copy(interp->home, "it cannot be made here", err);
    if (!code && interp->process)
        code =
            subhost__fail(err, SUBHOST_ESTATE,
                          "interpreter %u lives in another process, where no thread of "
                          "this one can go",
                          interp->serial);
    if (!code)
        code = subhost__signature_parse(text, SIG_FOR_CALLBACK, &signature, err);
    if (!code && !(callback = make(interp, signature, true)))
        code = subhost__fail(err, SUBHOST_ENOMEM, "out of memory");
    if (!code)
        code = split(callback, callable, err);
    if (code) {
        if (callback)
            subhost__callback_unref(callback);
        subhost__context(err, code, "subhost_callback_create");
        return code;
    }
    *result = callback;
    return 0;
}

subhost_native_function subhost_callback_function(const subhost_callback *callback)
{
    subhost_native_function function;
    memcpy(&function, &callback->code, sizeof function);
    return function;
}

void subhost_callback_release(subhost_callback *callback)
{
    if (!callback)
        return;
    atomic_store(&callback->closed, true);
    subhost__callback_unref(callback);
}
