/* C functions for Python and Python callables for C: what native*.c and callback.c share.
 *
 *   native.c         the table of bindings: subhost_bind()
 *   native_module.c  subhost.native of one interpreter, and its types
 *   native_call.c    a call from Python to C
 *   native_value.c   values from Python to C and back
 *   native_stack.c   whether the thread's stack has room for a call
 *   callback.c       function pointers that call Python */
#ifndef SUBHOST_NATIVE_H
#define SUBHOST_NATIVE_H

#include "interp.h"
#include "signature.h"

/* A bound function. Made once, never changed, freed with the host: all interpreters read it
 * without a lock. */
struct binding {
    struct binding *next;
    char *name;
    subhost_native_function function;
    struct signature *signature; /* owned */
    char *doc;                   /* with the text signature that inspect reads */
    PyMethodDef method;
};

/* The types of one interpreter. */
struct native_types {
    PyObject *pointer, *callback, *bound;
    subhost_interp *interp;
};

/* native.c */
const struct binding *subhost__native_find(subhost_host *host, const char *name);
void subhost__native_free(subhost_host *host);

/* native_module.c. All with the GIL held. */
/* subhost.native, for the module `subhost`; a new reference, NULL with an exception. */
PyObject *subhost__native_make(PyObject *parent);
/* Borrowed references to its types; false with an exception, or without when the interpreter
 * is about to end. */
bool subhost__native_types(subhost_interp *interp, struct native_types *types);
PyObject *subhost__pointer_new(const struct native_types *types, void *address,
                               const char *tag);
/* False: `object` is no pointer. */
bool subhost__pointer_get(const struct native_types *types, PyObject *object,
                          void **address, const char **tag);

/* native_call.c */
/* The calls that are under way on this thread, innermost first: what a callback raises comes
 * out of the one that it was made from. */
struct native_call {
    struct native_call *outer;
    PyThreadState *tstate;
    PyObject *exception;                     /* owned, NULL: none */
    bool released;                           /* the GIL, meanwhile */
    unsigned long long callbacks, defaulted; /* of those that were lent to it */
};
struct native_call *subhost__native_current(void);
/* `self` of a bound function's method. */
struct bound {
    PyObject_HEAD const struct binding *binding;
    subhost_interp *interp;
    struct native_types types;
    PyObject
        *names[SIG_MAX_PARAMS]; /* interned, of the arguments; NULL: positional only */
};
/* The method that is the best one for a signature. */
PyCFunction subhost__native_method(const struct signature *signature);

/* native_stack.c */
#if PY_VERSION_HEX < 0x030E0000
/* On the path of every call: no function of the dynamic linker's for it. */
extern _Thread_local struct native_stack {
    uintptr_t end;  /* the lowest address of the calling thread's stack */
    size_t reserve; /* what is to be left above it; 0: the end is unknown */
} subhost__native_stack __attribute__((tls_model("initial-exec")));

/* No, too, when C code has moved to a stack of its own: of that nothing is known. */
static inline bool subhost__stack_is_near_end(void)
{
    char here;
    return (uintptr_t)&here - subhost__native_stack.end < subhost__native_stack.reserve;
}

bool subhost__stack_look_closer(const char *what);
#endif

/* False with RecursionError when too little of the calling thread's C stack is left for
 * `what`. GIL held. CPython 3.14 and later look at the stack themselves, wherever a Python
 * function is entered. */
static inline bool subhost__stack_has_room(const char *what)
{
#if PY_VERSION_HEX < 0x030E0000
    return !subhost__stack_is_near_end() || subhost__stack_look_closer(what);
#else
    (void)what;
    return true;
#endif
}

/* native_value.c. Messages begin with what `where` says. */
struct where {
    const char *function;
    size_t number; /* of the argument, from 1; 0: the result */
    const char *name;
};
void subhost__value_wrong(const struct where *where, PyObject *exception,
                          const char *format, ...);
/* Scalars, strings, pointers, structs, buffers (a reference each): `to` has room for the type. What strings point to
 * lives as long as `object`. 0 or -1 with an exception. */
int subhost__value_from_python(const struct sig_type *type, const struct where *where,
                               const struct native_types *types, PyObject *object,
                               void *to);
/* A new reference or NULL with an exception. */
PyObject *subhost__value_to_python(const struct sig_type *type,
                                   const struct native_types *types, const void *from);
/* libffi has small integers in a whole register where it returns them. */
void subhost__value_narrow(const struct sig_type *type, void *value);
void subhost__value_widen(const struct sig_type *type, void *value);
/* An integer that comes from C: false when the kind cannot hold it. */
bool subhost__value_set_integer(enum sig_kind kind, uint64_t value, void *to);
/* The buffer of a bytes-like object, with the items that the type says. */
int subhost__value_buffer(const struct sig_type *type, const struct where *where,
                          PyObject *object, Py_buffer *view);

/* callback.c */
/* A function pointer that calls `callable` in the calling interpreter, for as long as the
 * caller holds it. The signature outlives it. GIL held. */
subhost_callback *subhost__callback_borrow(subhost_interp *interp,
                                           const struct native_types *types,
                                           PyObject *callable,
                                           const struct signature *signature);
/* The same until it is released, or the interpreter ends; owns the signature. */
subhost_callback *subhost__callback_store(subhost_interp *interp,
                                          const struct native_types *types,
                                          PyObject *callable,
                                          struct signature *signature);
void subhost__callback_close(subhost_callback *callback);
/* A borrowed one is passed to this call, which begins. */
void subhost__callback_lend(subhost_callback *callback, struct native_call *call);
/* Adds to the host's figures what the call has counted. */
void subhost__callback_count(const struct native_call *call);
/* Gives back one that was borrowed, or only referred to. GIL held. */
void subhost__callback_return(subhost_callback *callback);
void subhost__callback_ref(subhost_callback *callback);
void subhost__callback_unref(subhost_callback *callback);
void *subhost__callback_pointer(const subhost_callback *callback);
const struct signature *subhost__callback_signature(const subhost_callback *callback);
bool subhost__callback_is_closed(const subhost_callback *callback);
/* The callback behind a Python object; NULL: it is none. */
subhost_callback *subhost__callback_of(const struct native_types *types,
                                       PyObject *object);

#endif
