/* subhost.native of one interpreter: a module whose attributes are the bound functions, made
 * when they are first asked for, and the types Pointer and Callback. */
#define _GNU_SOURCE
#include "native.h"

#include <string.h>

#include "module.h"

/* ---- errors of the language ------------------------------------------------------- */

static void raise_error(subhost_error *err)
{
    PyErr_SetString(subhost_error_code(err) == SUBHOST_ENOMEM ? PyExc_MemoryError
                                                              : PyExc_ValueError,
                    subhost_error_message(err));
    subhost_error_free(err);
}

/* ---- Pointer ---------------------------------------------------------------------- */

struct pointer {
    PyObject_HEAD void *address;
    const char *tag; /* interned; NULL: none */
};

static void plain_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

PyObject *subhost__pointer_new(const struct native_types *types, void *address,
                               const char *tag)
{
    PyTypeObject *type = (PyTypeObject *)types->pointer;
    struct pointer *pointer = (struct pointer *)type->tp_alloc(type, 0);
    if (pointer) {
        pointer->address = address;
        pointer->tag = tag;
    }
    return (PyObject *)pointer;
}

bool subhost__pointer_get(const struct native_types *types, PyObject *object,
                          void **address, const char **tag)
{
    if ((PyObject *)Py_TYPE(object) != types->pointer)
        return false;
    *address = ((struct pointer *)object)->address;
    *tag = ((struct pointer *)object)->tag;
    return true;
}

static PyObject *pointer_repr(PyObject *self)
{
    const struct pointer *p = (struct pointer *)self;
    return PyUnicode_FromFormat("<subhost.native.Pointer %s%s%p>", p->tag ? p->tag : "",
                                p->tag ? " " : "", p->address);
}

static Py_hash_t pointer_hash(PyObject *self)
{
    Py_hash_t hash = (Py_hash_t)((uintptr_t)((struct pointer *)self)->address >> 4);
    return hash == -1 ? -2 : hash;
}

static PyObject *pointer_compare(PyObject *a, PyObject *b, int op)
{
    if (Py_TYPE(a) != Py_TYPE(b) || (op != Py_EQ && op != Py_NE))
        Py_RETURN_NOTIMPLEMENTED;
    const struct pointer *x = (struct pointer *)a, *y = (struct pointer *)b;
    bool same = x->address == y->address && x->tag == y->tag;
    return PyBool_FromLong(same == (op == Py_EQ));
}

static PyObject *pointer_address(PyObject *self, void *ignored)
{
    (void)ignored;
    return PyLong_FromVoidPtr(((struct pointer *)self)->address);
}

static PyObject *pointer_tag(PyObject *self, void *ignored)
{
    (void)ignored;
    const char *tag = ((struct pointer *)self)->tag;
    return tag ? PyUnicode_FromString(tag) : Py_NewRef(Py_None);
}

/* The type that a text names, and where the item of that index is; NULL: an exception. */
static struct signature *locate(PyObject *self, const char *text, Py_ssize_t index,
                                char **at)
{
    struct signature *holder;
    subhost_error *err = NULL;
    if (subhost__signature_parse_type(text, &holder, &err)) {
        raise_error(err);
        return NULL;
    }
    *at = (char *)((struct pointer *)self)->address +
          index * (Py_ssize_t)holder->result.ffi->size;
    return holder;
}

static PyObject *pointer_read(PyObject *self, PyObject *args)
{
    const char *text;
    Py_ssize_t index = 0;
    char *at;
    if (!PyArg_ParseTuple(args, "s|n:read", &text, &index))
        return NULL;
    struct signature *holder = locate(self, text, index, &at);
    struct native_types types = {.pointer = (PyObject *)Py_TYPE(self)};
    PyObject *value =
        holder ? subhost__value_to_python(&holder->result, &types, at) : NULL;
    subhost__signature_free(holder);
    return value;
}

static PyObject *pointer_write(PyObject *self, PyObject *args)
{
    const char *text;
    Py_ssize_t index = 0;
    PyObject *value;
    char *at;
    if (!PyArg_ParseTuple(args, "sO|n:write", &text, &value, &index))
        return NULL;
    struct signature *holder = locate(self, text, index, &at);
    if (!holder)
        return NULL;
    struct native_types types = {.pointer = (PyObject *)Py_TYPE(self)};
    struct where where = {"write", 2, NULL};
    int result = -1;
    if (holder->result.kind == SIG_STR)
        PyErr_SetString(PyExc_ValueError,
                        "write(): a str cannot be written: nobody would "
                        "own its memory");
    else
        result = subhost__value_from_python(&holder->result, &where, &types, value, at);
    subhost__signature_free(holder);
    return result == 0 ? Py_NewRef(Py_None) : NULL;
}

static PyObject *pointer_read_bytes(PyObject *self, PyObject *arg)
{
    Py_ssize_t size = PyNumber_AsSsize_t(arg, PyExc_OverflowError);
    if (size == -1 && PyErr_Occurred())
        return NULL;
    if (size < 0) {
        PyErr_SetString(PyExc_ValueError, "read_bytes(): the size is negative");
        return NULL;
    }
    return PyBytes_FromStringAndSize(((struct pointer *)self)->address, size);
}

static PyMethodDef pointer_methods[] = {
    {"read", pointer_read, METH_VARARGS,
     "read($self, type, index=0, /)\n--\n\n"
     "The value of a type of the signature language that is there."},
    {"write", pointer_write, METH_VARARGS,
     "write($self, type, value, index=0, /)\n--\n\nStores a value there."},
    {"read_bytes", pointer_read_bytes, METH_O,
     "read_bytes($self, size, /)\n--\n\nA copy of the memory that is there."},
    {NULL},
};
static PyGetSetDef pointer_getset[] = {
    {"address", pointer_address, NULL, "An int.", NULL},
    {"tag", pointer_tag, NULL, "What it points to, a str or None.", NULL},
    {NULL},
};
static PyType_Slot pointer_slots[] = {
    {Py_tp_dealloc, plain_dealloc},
    {Py_tp_repr, pointer_repr},
    {Py_tp_hash, pointer_hash},
    {Py_tp_richcompare, pointer_compare},
    {Py_tp_methods, pointer_methods},
    {Py_tp_getset, pointer_getset},
    {Py_tp_doc, (void *)"A pointer of C's, of which Python knows nothing but its tag."},
    {0, NULL},
};
static PyType_Spec pointer_spec = {
    .name = "subhost.native.Pointer",
    .basicsize = sizeof(struct pointer),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = pointer_slots,
};

/* ---- Callback --------------------------------------------------------------------- */

struct callback_object {
    PyObject_HEAD subhost_callback *callback;
    PyObject *pointer_type;
};

subhost_callback *subhost__callback_of(const struct native_types *types, PyObject *object)
{
    return (PyObject *)Py_TYPE(object) == types->callback
               ? ((struct callback_object *)object)->callback
               : NULL;
}

static void callback_dealloc(PyObject *self)
{
    struct callback_object *object = (struct callback_object *)self;
    if (object->callback)
        subhost__callback_unref(object->callback);
    Py_XDECREF(object->pointer_type);
    plain_dealloc(self);
}

static PyObject *callback_release(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    subhost__callback_close(((struct callback_object *)self)->callback);
    Py_RETURN_NONE;
}

static PyObject *callback_enter(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return Py_NewRef(self);
}

static PyObject *callback_pointer(PyObject *self, void *ignored)
{
    (void)ignored;
    const struct callback_object *object = (struct callback_object *)self;
    const struct native_types types = {.pointer = object->pointer_type};
    return subhost__pointer_new(&types, subhost__callback_pointer(object->callback),
                                NULL);
}

static PyObject *callback_signature(PyObject *self, void *ignored)
{
    (void)ignored;
    return PyUnicode_FromString(
        subhost__callback_signature(((struct callback_object *)self)->callback)->text);
}

static PyMethodDef callback_methods[] = {
    {"release", callback_release, METH_NOARGS,
     "release($self, /)\n--\n\nC does not have it any more; a call returns its default."},
    {"__enter__", callback_enter, METH_NOARGS, NULL},
    {"__exit__", callback_release, METH_VARARGS, NULL},
    {NULL},
};
static PyGetSetDef callback_getset[] = {
    {"pointer", callback_pointer, NULL, "As a Pointer, for what takes a ptr.", NULL},
    {"signature", callback_signature, NULL, "What it was made with.", NULL},
    {NULL},
};
static PyType_Slot callback_slots[] = {
    {Py_tp_dealloc, callback_dealloc},
    {Py_tp_methods, callback_methods},
    {Py_tp_getset, callback_getset},
    {Py_tp_doc,
     (void *)"A function of C's that calls a Python one, until it is released."},
    {0, NULL},
};
static PyType_Spec callback_spec = {
    .name = "subhost.native.Callback",
    .basicsize = sizeof(struct callback_object),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = callback_slots,
};

/* ---- bound functions -------------------------------------------------------------- */

static void bound_dealloc(PyObject *self)
{
    struct bound *bound = (struct bound *)self;
    for (size_t i = 0; i < SIG_MAX_PARAMS; i++)
        Py_XDECREF(bound->names[i]);
    Py_XDECREF(bound->types.pointer);
    Py_XDECREF(bound->types.callback);
    Py_XDECREF(bound->types.bound);
    plain_dealloc(self);
}

static PyType_Slot bound_slots[] = {{Py_tp_dealloc, bound_dealloc}, {0, NULL}};
static PyType_Spec bound_spec = {
    .name = "subhost.native._Bound",
    .basicsize = sizeof(struct bound),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = bound_slots,
};

static struct bound *make_bound(subhost_interp *interp, const struct native_types *types)
{
    PyTypeObject *type = (PyTypeObject *)types->bound;
    struct bound *bound = (struct bound *)type->tp_alloc(type, 0);
    if (!bound)
        return NULL;
    bound->interp = interp;
    bound->types = *types;
    Py_INCREF(types->pointer);
    Py_INCREF(types->callback);
    Py_INCREF(types->bound);
    return bound;
}

static PyObject *make_function(const struct bound *context, const struct binding *binding)
{
    struct bound *bound = make_bound(context->interp, &context->types);
    if (!bound)
        return NULL;
    bound->binding = binding;
    const struct signature *s = binding->signature;
    for (size_t i = 0; i < s->n_params; i++) {
        const struct sig_param *param = &s->params[i];
        if (!param->number || !param->name)
            continue;
        PyObject *name = PyUnicode_InternFromString(param->name);
        if (!name) {
            Py_DECREF(bound);
            return NULL;
        }
        bound->names[param->number - 1] = name;
    }
    PyObject *module = PyUnicode_FromString("subhost.native");
    PyObject *function = module ? PyCFunction_NewEx((PyMethodDef *)&binding->method,
                                                    (PyObject *)bound, module)
                                : NULL;
    Py_XDECREF(module);
    Py_DECREF(bound);
    return function;
}

/* ---- functions of the module ------------------------------------------------------ */

static PyObject *module_of(const struct bound *context)
{
    struct module_state *state = context->interp->module;
    return state ? state->native : NULL;
}

/* A name that the module does not have yet (PEP 562). What is found stays. */
static PyObject *native_getattr(PyObject *self, PyObject *arg)
{
    const struct bound *context = (struct bound *)self;
    const char *name = PyUnicode_AsUTF8(arg);
    if (!name)
        return NULL;
    const struct binding *binding = subhost__native_find(context->interp->host, name);
    if (!binding) {
        PyErr_Format(PyExc_AttributeError,
                     "no C function '%s' is bound; subhost_bind() does it, or "
                     "subhost run --native LIB:SIGNATURE",
                     name);
        return NULL;
    }
    PyObject *function = make_function(context, binding), *module = module_of(context);
    if (function && module && PyObject_SetAttr(module, arg, function) < 0)
        Py_CLEAR(function);
    return function;
}

static PyObject *native_dir(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    const struct bound *context = (struct bound *)self;
    static const char *const own[] = {"Callback", "Pointer", "callback"};
    PyObject *names = PySet_New(NULL);
    const struct binding *binding = atomic_load(&context->interp->host->bindings);
    size_t i = 0;
    while (names && (binding || i < ARRAY_LENGTH(own))) {
        PyObject *name = PyUnicode_FromString(binding ? binding->name : own[i]);
        if (!name || PySet_Add(names, name) < 0)
            Py_CLEAR(names);
        Py_XDECREF(name);
        if (binding)
            binding = binding->next;
        else
            i++;
    }
    PyObject *list = names ? PySequence_List(names) : NULL;
    Py_XDECREF(names);
    return list;
}

static PyObject *native_callback(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"callable", "signature", NULL};
    const struct bound *context = (struct bound *)self;
    PyObject *callable;
    const char *text;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Os:callback", (char **)names,
                                     &callable, &text))
        return NULL;
    if (!PyCallable_Check(callable)) {
        PyErr_Format(PyExc_TypeError, "callback() argument 1 must be callable, not %s",
                     Py_TYPE(callable)->tp_name);
        return NULL;
    }
    struct signature *signature;
    subhost_error *err = NULL;
    if (subhost__signature_parse(text, SIG_FOR_CALLBACK, &signature, &err)) {
        raise_error(err);
        return NULL;
    }
    PyTypeObject *type = (PyTypeObject *)context->types.callback;
    struct callback_object *object = (struct callback_object *)type->tp_alloc(type, 0);
    if (!object) {
        subhost__signature_free(signature);
        return NULL;
    }
    object->pointer_type = Py_NewRef(context->types.pointer);
    object->callback =
        subhost__callback_store(context->interp, &context->types, callable, signature);
    if (!object->callback)
        Py_CLEAR(object);
    return (PyObject *)object;
}

static PyMethodDef native_methods[] = {
    {"callback", (PyCFunction)(void (*)(void))native_callback,
     METH_VARARGS | METH_KEYWORDS,
     "callback(callable, signature)\n--\n\n"
     "A function pointer for C to keep: it calls `callable` until it is released."},
    {"__getattr__", native_getattr, METH_O, NULL},
    {"__dir__", native_dir, METH_NOARGS, NULL},
    {NULL},
};

/* ---- the module ------------------------------------------------------------------- */

/* The functions' `self`: the interpreter and its types, bound to nothing. */
static struct bound *make_context(subhost_interp *interp)
{
    struct native_types types = {
        .pointer = PyType_FromSpec(&pointer_spec),
        .callback = PyType_FromSpec(&callback_spec),
        .bound = PyType_FromSpec(&bound_spec),
        .interp = interp,
    };
    struct bound *context = NULL;
    if (types.pointer && types.callback && types.bound)
        context = make_bound(interp, &types);
    Py_XDECREF(types.pointer);
    Py_XDECREF(types.callback);
    Py_XDECREF(types.bound);
    return context;
}

static int fill(PyObject *module, struct bound *context)
{
    PyObject *name = PyModule_GetNameObject(module);
    if (!name ||
        PyModule_SetDocString(module, "The C functions that the host has bound.") ||
        PyModule_AddObjectRef(module, "Pointer", context->types.pointer) < 0 ||
        PyModule_AddObjectRef(module, "Callback", context->types.callback) < 0) {
        Py_XDECREF(name);
        return -1;
    }
    int result = 0;
    for (PyMethodDef *def = native_methods; def->ml_name && result == 0; def++) {
        PyObject *function = PyCFunction_NewEx(def, (PyObject *)context, name);
        result = PyModule_AddObjectRef(module, def->ml_name, function);
        Py_XDECREF(function);
    }
    Py_DECREF(name);
    return result;
}

/* Types and functions come when something is asked for: interpreters start without them. */
static int complete(subhost_interp *interp)
{
    struct module_state *state = interp->module;
    if (!state || !state->native) {
        PyErr_SetString(PyExc_RuntimeError, "the interpreter is not complete");
        return -1;
    }
    if (state->native_types)
        return 0;
    struct bound *context = make_context(interp);
    if (!context || fill(state->native, context) < 0) {
        Py_XDECREF(context);
        return -1;
    }
    Py_XSETREF(state->native_types, (PyObject *)context);
    return 0;
}

static PyObject *complete_and_getattr(PyObject *self, PyObject *name)
{
    struct module_state *state = PyModule_GetState(self);
    if (!state || !state->interp || complete(state->interp) < 0)
        return NULL;
    return PyObject_GetAttr(state->interp->module->native, name);
}

static PyObject *complete_and_dir(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    struct module_state *state = PyModule_GetState(self);
    if (!state || !state->interp || complete(state->interp) < 0)
        return NULL;
    return native_dir(state->interp->module->native_types, NULL);
}

static PyMethodDef first_methods[] = {
    {"__getattr__", complete_and_getattr, METH_O, NULL},
    {"__dir__", complete_and_dir, METH_NOARGS, NULL},
    {NULL},
};

PyObject *subhost__native_make(PyObject *parent)
{
    PyObject *module = PyModule_New("subhost.native");
    for (PyMethodDef *def = first_methods; module && def->ml_name; def++) {
        PyObject *function = PyCFunction_New(def, parent);
        if (PyModule_AddObjectRef(module, def->ml_name, function) < 0)
            Py_CLEAR(module);
        Py_XDECREF(function);
    }
    PyObject *modules = PySys_GetObject("modules"); /* borrowed */
    if (module &&
        (!modules || PyDict_SetItemString(modules, "subhost.native", module) < 0 ||
         PyModule_AddObjectRef(parent, "native", module) < 0))
        Py_CLEAR(module);
    return module;
}

bool subhost__native_types(subhost_interp *interp, struct native_types *types)
{
    if (!interp->module || complete(interp) < 0)
        return false;
    *types = ((struct bound *)interp->module->native_types)->types;
    return true;
}
