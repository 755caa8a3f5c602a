/* A call from Python to a bound function: arguments, GIL, result.
 *
 * The general way is call_any(), by libffi. Functions of one, two or three doubles have a
 * method of their own, which needs no libffi; what is not plain goes the general way. */
#define _GNU_SOURCE
#include "native.h"

#include <alloca.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* On the path of every call: no function of the dynamic linker's for it. */
static _Thread_local struct native_call *innermost
    __attribute__((tls_model("initial-exec")));

struct native_call *subhost__native_current(void) { return innermost; }

int subhost_cancel_requested(void)
{
    const struct thread *self = subhost__thread_self();
    return self && atomic_load(&self->interp->cancel.requested);
}

static void begin(struct native_call *call, bool keep_gil)
{
    *call = (struct native_call){.outer = innermost,
                                 .tstate = PyThreadState_GetUnchecked(),
                                 .released = !keep_gil};
    innermost = call;
}

/* -1 with an exception when one is to be raised in the place of the result: a callback's,
 * or what is due in this thread. */
static int end(struct native_call *call, subhost_interp *interp, bool had_released)
{
    innermost = call->outer;
    struct thread *self = had_released ? subhost__thread_self() : NULL;
    if (call->exception) {
        PyErr_SetRaisedException(call->exception);
        return -1;
    }
    if (self && self->interp == interp && atomic_load(&self->raise_pending))
        return subhost__raise_now(interp, self);
    return 0;
}

/* ---- arguments -------------------------------------------------------------------- */

static PyObject *wrong_count(const struct bound *bound, Py_ssize_t given)
{
    const struct signature *s = bound->binding->signature;
    PyErr_Format(PyExc_TypeError, "%s() takes %s%zu argument%s (%zd given)",
                 bound->binding->name, s->variadic ? "at least " : "", s->n_arguments,
                 s->n_arguments == 1 ? "" : "s", given);
    return NULL;
}

static const struct sig_param *param_of(const struct signature *s, size_t number)
{
    for (size_t i = 0; i < s->n_params; i++)
        if (s->params[i].number == number)
            return &s->params[i];
    return NULL;
}

static size_t find_name(const struct bound *bound, PyObject *name)
{
    const struct signature *s = bound->binding->signature;
    for (size_t i = s->n_positional; i < s->n_arguments; i++)
        if (bound->names[i] == name)
            return i;
    for (size_t i = s->n_positional; i < s->n_arguments; i++)
        if (PyUnicode_Compare(bound->names[i], name) == 0)
            return i;
    return SIZE_MAX;
}

/* Sorts keyword arguments in: `into` has them all, by number. */
static int arrange(const struct bound *bound, PyObject *const *args, size_t n,
                   PyObject *kwnames, PyObject **into)
{
    const struct signature *s = bound->binding->signature;
    const char *function = bound->binding->name;
    size_t n_kw = (size_t)PyTuple_GET_SIZE(kwnames);
    if (n > s->n_arguments) {
        wrong_count(bound, (Py_ssize_t)(n + n_kw));
        return -1;
    }
    memset(into, 0, s->n_arguments * sizeof *into);
    memcpy(into, args, n * sizeof *into);
    for (size_t i = 0; i < n_kw; i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        size_t at = find_name(bound, name);
        if (at == SIZE_MAX || into[at]) {
            PyErr_Format(PyExc_TypeError,
                         at == SIZE_MAX ? "%s() got an unexpected keyword argument '%U'"
                                        : "%s() got multiple values for argument '%U'",
                         function, name);
            return -1;
        }
        into[at] = args[n + i];
    }
    for (size_t i = 0; i < s->n_arguments; i++) {
        if (into[i])
            continue;
        const struct sig_param *param = param_of(s, i + 1);
        PyErr_Format(PyExc_TypeError, "%s() missing argument %zu%s%s%s", function, i + 1,
                     param && param->name ? " (" : "",
                     param && param->name ? param->name : "",
                     param && param->name ? ")" : "");
        return -1;
    }
    return 0;
}

/* ---- the memory of a call --------------------------------------------------------- */

/* Enough for most signatures, and no more: calls nest through callbacks, and of a thread's
 * stack much is taken by what is between them. */
enum { SMALL_MEMORY = 512 };

/* What one call holds while it lasts. */
struct work {
    const struct bound *bound;
    const struct signature *s;
    char *memory; /* slots and stores, and behind them the arrays below */
    Py_buffer *buffers;
    size_t n_buffers; /* held */
    void **values;
    size_t n_values;
    subhost_callback **functions;
    size_t n_functions;
    subhost_buffer **held;
    size_t n_held;
    ffi_type **types; /* of a variadic call */
    uint64_t *more;   /* and its values behind '...' */
};

/* The parts of a call's memory; `n_more` arguments stand behind '...'. */
static size_t size_of_memory(const struct signature *s, size_t n_more)
{
    size_t n_pointers = s->n_params + s->n_functions + s->n_held;
    if (s->variadic)
        n_pointers += s->n_params + 2 * n_more;
    return s->frame_size + (s->n_buffers + n_more) * sizeof(Py_buffer) +
           n_pointers * sizeof(void *) + n_more * sizeof(uint64_t);
}

static void divide_memory(struct work *w, size_t n_more)
{
    const struct signature *s = w->s;
    w->buffers = (Py_buffer *)(void *)(w->memory + s->frame_size);
    w->more = (uint64_t *)(void *)(w->buffers + s->n_buffers + n_more);
    w->values = (void **)(void *)(w->more + n_more);
    w->functions = (subhost_callback **)(w->values + s->n_params + n_more);
    w->held = (subhost_buffer **)(w->functions + s->n_functions);
    w->types = (ffi_type **)(w->held + s->n_held);
    w->n_values = w->n_buffers = w->n_functions = w->n_held = 0;
}

static void finish(struct work *w)
{
    while (w->n_functions > 0) {
        subhost_callback *callback = w->functions[--w->n_functions];
        if (callback)
            subhost__callback_return(callback);
    }
    while (w->n_held > 0)
        subhost_buffer_release(w->held[--w->n_held]);
    while (w->n_buffers > 0)
        PyBuffer_Release(&w->buffers[--w->n_buffers]);
}

/* ---- from Python ------------------------------------------------------------------ */

static int take_buffer(struct work *w, const struct sig_param *param,
                       const struct where *where, PyObject *object, void *to)
{
    Py_buffer *view = &w->buffers[w->n_buffers];
    if (Py_IsNone(object) && param->type.nullable) {
        memset(view, 0, sizeof *view); /* PyBuffer_Release() passes over it */
        view->itemsize = 1;
    } else if (subhost__value_buffer(&param->type, where, object, view) < 0) {
        return -1;
    }
    w->n_buffers++;
    memcpy(to, &view->buf, sizeof view->buf);
    return 0;
}

static int take_length(struct work *w, const struct sig_param *param,
                       const struct where *where, void *to)
{
    const struct sig_param *of = &w->s->params[param->buffer];
    const Py_buffer *view = &w->buffers[of->extra];
    size_t item = of->type.item == SIG_VOID ? 1 : (size_t)view->itemsize;
    if (subhost__value_set_integer(param->type.item, (size_t)view->len / item, to))
        return 0;
    subhost__value_wrong(where, PyExc_OverflowError, "is too long for len<%s>",
                         subhost__sig_word(param->type.item));
    return -1;
}

/* A callable for this call alone, or a subhost.native.Callback. */
static int take_function(struct work *w, const struct sig_param *param,
                         const struct where *where, PyObject *object, void *to)
{
    const struct signature *s = param->type.function;
    const struct native_types *types = &w->bound->types;
    subhost_callback *callback = subhost__callback_of(types, object);
    void *pointer = NULL;
    if (callback && subhost__callback_is_closed(callback)) {
        subhost__value_wrong(where, PyExc_ValueError, "is a Callback that was released");
        return -1;
    }
    if (callback && !subhost__signature_same(s, subhost__callback_signature(callback))) {
        subhost__value_wrong(where, PyExc_TypeError,
                             "is a Callback of another signature: %s",
                             subhost__callback_signature(callback)->text);
        return -1;
    }
    if (callback) {
        subhost__callback_ref(callback);
    } else if (PyCallable_Check(object)) {
        callback = subhost__callback_borrow(w->bound->interp, types, object, s);
        if (!callback)
            return -1;
    } else if (!Py_IsNone(object) || !param->type.nullable) {
        subhost__value_wrong(where, PyExc_TypeError, "must be callable%s, not %s",
                             param->type.nullable ? " or None" : "",
                             Py_IsNone(object) ? "None" : Py_TYPE(object)->tp_name);
        return -1;
    }
    w->functions[w->n_functions++] = callback;
    if (callback)
        pointer = subhost__callback_pointer(callback);
    memcpy(to, &pointer, sizeof pointer);
    return 0;
}

static int take_param(struct work *w, const struct sig_param *param,
                      PyObject *const *args)
{
    void *slot = w->memory + param->slot, *store = w->memory + param->store;
    struct where where = {w->bound->binding->name, param->number, param->name};
    PyObject *object = param->number ? args[param->number - 1] : NULL;
    if (param->way != SIG_VALUE) {
        memcpy(slot, &store, sizeof store);
        if (param->way == SIG_OUT) {
            memset(store, 0, param->type.ffi->size);
            return 0;
        }
        return subhost__value_from_python(&param->type, &where, &w->bound->types, object,
                                          store);
    }
    switch (param->type.kind) {
    case SIG_BUF:
        return take_buffer(w, param, &where, object, slot);
    case SIG_LEN:
        where.number = w->s->params[param->buffer].number;
        where.name = w->s->params[param->buffer].name;
        return take_length(w, param, &where, slot);
    case SIG_FN:
        return take_function(w, param, &where, object, slot);
    case SIG_BUFFER:
        if (subhost__value_from_python(&param->type, &where, &w->bound->types, object,
                                       slot) < 0)
            return -1;
        memcpy(&w->held[w->n_held++], slot, sizeof *w->held);
        return 0;
    default:
        return subhost__value_from_python(&param->type, &where, &w->bound->types, object,
                                          slot);
    }
}

/* What stands behind '...': an argument of C by the type of the Python object. */
static int take_more(struct work *w, size_t number, PyObject *object)
{
    static const struct sig_type integer = {.kind = SIG_I64}, big = {.kind = SIG_U64},
                                 number_type = {.kind = SIG_F64},
                                 string = {.kind = SIG_STR}, pointer = {.kind = SIG_PTR},
                                 buffer = {.kind = SIG_BUF, .item = SIG_VOID};
    struct where where = {w->bound->binding->name, number, NULL};
    const struct sig_type *type = NULL;
    void *address;
    const char *tag;
    uint64_t *to = &w->more[number - 1 - w->s->n_arguments];
    ffi_type *ffi = &ffi_type_pointer;
    *to = 0;
    if (PyFloat_Check(object))
        type = &number_type, ffi = &ffi_type_double;
    else if (PyLong_Check(object))
        type = &integer, ffi = &ffi_type_sint64;
    else if (PyUnicode_Check(object) || PyBytes_Check(object))
        type = &string;
    else if (subhost__pointer_get(&w->bound->types, object, &address, &tag))
        type = &pointer;
    if (type == &integer && PyObject_RichCompareBool(object, Py_False, Py_GT) == 1)
        type = &big; /* above the largest i64, too */
    w->values[w->n_values] = to;
    w->types[w->n_values++] = ffi;
    if (type)
        return subhost__value_from_python(type, &where, &w->bound->types, object, to);
    if (Py_IsNone(object))
        return 0;
    if (PyObject_CheckBuffer(object)) {
        Py_buffer *view = &w->buffers[w->n_buffers];
        if (subhost__value_buffer(&buffer, &where, object, view) < 0)
            return -1;
        w->n_buffers++;
        memcpy(to, &view->buf, sizeof view->buf);
        return 0;
    }
    subhost__value_wrong(&where, PyExc_TypeError,
                         "cannot be passed behind '...': %s is neither int, float, str, "
                         "bytes-like, Pointer nor None",
                         Py_TYPE(object)->tp_name);
    return -1;
}

static int take_all(struct work *w, PyObject *const *args, size_t n)
{
    const struct signature *s = w->s;
    for (size_t i = 0; i < s->n_params; i++) {
        w->values[i] = w->memory + s->params[i].slot;
        if (take_param(w, &s->params[i], args) < 0)
            return -1;
    }
    w->n_values = s->n_params;
    if (s->variadic)
        memcpy(w->types, s->ffi_params, s->n_params * sizeof *s->ffi_params);
    for (size_t i = s->n_arguments; i < n; i++)
        if (take_more(w, i + 1, args[i]) < 0)
            return -1;
    return 0;
}

/* ---- to Python -------------------------------------------------------------------- */

/* The convention for errors: -1 with an exception when the result is one. */
static int check_error(const struct work *w, const char *result, int number)
{
    const struct sig_type *type = &w->s->result;
    if (w->s->error == SIG_NO_ERRORS)
        return 0;
    if (w->s->error == SIG_ERRNO && !subhost__sig_is_integer(type->kind)) {
        void *pointer;
        memcpy(&pointer, result, sizeof pointer);
        if (pointer)
            return 0;
        errno = number;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    PyObject *object = subhost__value_to_python(type, &w->bound->types, result);
    if (!object)
        return -1;
    long long value = PyLong_AsLongLong(object);
    if (PyErr_Occurred()) { /* a u64 above; not 0 */
        PyErr_Clear();
        value = 1;
    }
    enum sig_error error = w->s->error;
    if (error == SIG_ERRNO ? value != -1 : error == SIG_NONZERO ? !value : value >= 0) {
        Py_DECREF(object);
        return 0;
    }
    if (error == SIG_ERRNO || error == SIG_NEGERRNO) {
        errno = error == SIG_ERRNO ? number : (int)-value;
        PyErr_SetFromErrno(PyExc_OSError);
    } else {
        PyErr_Format(PyExc_RuntimeError, "%s() failed: it returned %S",
                     w->bound->binding->name, object);
        PyObject *exception = PyErr_GetRaisedException();
        if (exception && PyObject_SetAttrString(exception, "code", object) < 0)
            PyErr_Clear();
        PyErr_SetRaisedException(exception);
    }
    Py_DECREF(object);
    return -1;
}

/* What the next out-parameter from `*i` on has. */
static PyObject *next_out(const struct work *w, size_t *i)
{
    const struct sig_param *param = &w->s->params[*i];
    while (param->way != SIG_OUT && param->way != SIG_INOUT)
        param++;
    *i = (size_t)(param - w->s->params) + 1;
    return subhost__value_to_python(&param->type, &w->bound->types,
                                    w->memory + param->store);
}

/* The result, or what the out-parameters have, or a tuple of all. */
static PyObject *make_result(const struct work *w, const char *result)
{
    const struct signature *s = w->s;
    bool itself = s->result.kind != SIG_VOID && s->error != SIG_NONZERO;
    size_t n = itself + s->n_results, i = 0;
    if (n == 0)
        Py_RETURN_NONE;
    if (n == 1)
        return itself ? subhost__value_to_python(&s->result, &w->bound->types, result)
                      : next_out(w, &i);
    PyObject *tuple = PyTuple_New((Py_ssize_t)n);
    for (size_t at = 0; tuple && at < n; at++) {
        PyObject *value =
            at == 0 && itself
                ? subhost__value_to_python(&s->result, &w->bound->types, result)
                : next_out(w, &i);
        if (value)
            PyTuple_SET_ITEM(tuple, (Py_ssize_t)at, value);
        else
            Py_CLEAR(tuple);
    }
    return tuple;
}

static void free_result(const struct signature *s, const char *result)
{
    void *pointer;
    memcpy(&pointer, result, sizeof pointer);
    if (s->free_result)
        free(pointer);
    else if (s->result.kind == SIG_BUFFER)
        subhost_buffer_release(
            pointer); /* Python has its own reference, or an exception */
}

/* ---- the call --------------------------------------------------------------------- */

/* The call itself and what comes of it; all is converted. */
static PyObject *perform(struct work *w, ffi_cif *cif)
{
    const struct signature *s = w->s;
    char *result = w->memory + s->result_slot;
    struct native_call call;
    begin(&call, s->keep_gil);
    for (size_t i = 0; i < w->n_functions; i++)
        if (w->functions[i])
            subhost__callback_lend(w->functions[i], &call);
    PyThreadState *tstate = s->keep_gil ? NULL : PyEval_SaveThread();
    errno = 0;
    ffi_call(cif, w->bound->binding->function, result, w->values);
    int number = errno;
    if (tstate)
        PyEval_RestoreThread(tstate);
    subhost__value_narrow(&s->result, result);
    if (call.callbacks)
        subhost__callback_count(&call);
    PyObject *object = NULL;
    if (end(&call, w->bound->interp, tstate != NULL) == 0 &&
        check_error(w, result, number) == 0)
        object = make_result(w, result);
    free_result(s, result);
    return object;
}

static PyObject *convert_and_perform(struct work *w, PyObject *const *args, size_t n)
{
    const struct signature *s = w->s;
    ffi_cif variadic, *cif = (ffi_cif *)&s->cif;
    if (take_all(w, args, n) < 0)
        return NULL;
    if (s->variadic) {
        cif = &variadic;
        if (ffi_prep_cif_var(cif, FFI_DEFAULT_ABI, (unsigned)s->n_params,
                             (unsigned)w->n_values, s->result.ffi, w->types) != FFI_OK) {
            PyErr_Format(PyExc_RuntimeError, "%s(): libffi does not support this call",
                         w->bound->binding->name);
            return NULL;
        }
    }
    return perform(w, cif);
}

/* `args` are as many as the signature has, or more of a variadic function. */
static PyObject *call_any(const struct bound *bound, PyObject *const *args, size_t n)
{
    const struct signature *s = bound->binding->signature;
    size_t n_more = n - s->n_arguments;
    if (n_more > SIG_MAX_PARAMS - s->n_params)
        return PyErr_Format(PyExc_TypeError, "%s() takes at most %d arguments",
                            bound->binding->name, SIG_MAX_PARAMS);
    if (!subhost__stack_has_room(bound->binding->name))
        return NULL;
    char small[SMALL_MEMORY] __attribute__((aligned(16)));
    size_t size = size_of_memory(s, n_more);
    struct work w = {.bound = bound, .s = s};
    w.memory = size <= sizeof small ? small : malloc(size);
    if (!w.memory)
        return PyErr_NoMemory();
    divide_memory(&w, n_more);
    PyObject *object = convert_and_perform(&w, args, n);
    finish(&w);
    if (w.memory != small)
        free(w.memory);
    return object;
}

static PyObject *method_any(PyObject *self, PyObject *const *args, Py_ssize_t n,
                            PyObject *kwnames)
{
    const struct bound *bound = (struct bound *)self;
    const struct signature *s = bound->binding->signature;
    if (kwnames && PyTuple_GET_SIZE(kwnames) > 0) {
        PyObject **arranged = alloca(s->n_arguments * sizeof *arranged);
        if (arrange(bound, args, (size_t)n, kwnames, arranged) < 0)
            return NULL;
        return call_any(bound, arranged, s->n_arguments);
    }
    if ((size_t)n != s->n_arguments && !(s->variadic && (size_t)n > s->n_arguments))
        return wrong_count(bound, n);
    return call_any(bound, args, (size_t)n);
}

/* ---- doubles ---------------------------------------------------------------------- */

typedef double (*f64_1)(double);
typedef double (*f64_2)(double, double);
typedef double (*f64_3)(double, double, double);

#define X(i) PyFloat_AS_DOUBLE(args[i])
#define IS(i) PyFloat_CheckExact(args[i])
#define METHOD_F64(count, all_floats, ...)                                               \
    static PyObject *method_f64_##count(PyObject *self, PyObject *const *args,           \
                                        Py_ssize_t n, PyObject *kwnames)                 \
    {                                                                                    \
        if (n != (count) || kwnames || !(all_floats))                                    \
            return method_any(self, args, n, kwnames);                                   \
        const struct bound *bound = (struct bound *)self;                                \
        f64_##count function = (f64_##count)bound->binding->function;                    \
        struct native_call call;                                                         \
        bool keep_gil = bound->binding->signature->keep_gil;                             \
        begin(&call, keep_gil);                                                          \
        PyThreadState *tstate = keep_gil ? NULL : PyEval_SaveThread();                   \
        double result = function(__VA_ARGS__);                                           \
        if (tstate)                                                                      \
            PyEval_RestoreThread(tstate);                                                \
        return end(&call, bound->interp, tstate != NULL) == 0                            \
                   ? PyFloat_FromDouble(result)                                          \
                   : NULL;                                                               \
    }
METHOD_F64(1, IS(0), X(0))
METHOD_F64(2, IS(0) && IS(1), X(0), X(1))
METHOD_F64(3, IS(0) && IS(1) && IS(2), X(0), X(1), X(2))
#undef METHOD_F64
#undef X
#undef IS

typedef PyObject *(*fast_method)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);

PyCFunction subhost__native_method(const struct signature *s)
{
    static const fast_method by_count[] = {method_any, method_f64_1, method_f64_2,
                                           method_f64_3};
    bool plain =
        s->result.kind == SIG_F64 && !s->variadic && s->n_params < ARRAY_LENGTH(by_count);
    for (size_t i = 0; i < s->n_params; i++)
        plain =
            plain && s->params[i].type.kind == SIG_F64 && s->params[i].way == SIG_VALUE;
    fast_method method = plain ? by_count[s->n_params] : method_any;
    return (PyCFunction)(void (*)(void))method;
}
