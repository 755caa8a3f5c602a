/* Values between Python and C, by the types of a signature. GIL held in all of it. */
#include "native.h"

#include "buffer.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* ---- errors ----------------------------------------------------------------------- */

void subhost__value_wrong(const struct where *where, PyObject *exception,
                          const char *format, ...)
{
    va_list args;
    va_start(args, format);
    PyObject *text = PyUnicode_FromFormatV(format, args);
    va_end(args);
    if (!text)
        return;
    if (!where->number)
        PyErr_Format(exception, "%s: the result %U", where->function, text);
    else if (where->name)
        PyErr_Format(exception, "%s() argument %zu (%s) %U", where->function,
                     where->number, where->name, text);
    else
        PyErr_Format(exception, "%s() argument %zu %U", where->function, where->number,
                     text);
    Py_DECREF(text);
}

static int must_be(const struct where *where, const char *what, PyObject *object)
{
    subhost__value_wrong(where, PyExc_TypeError, "must be %s, not %s", what,
                         Py_IsNone(object) ? "None" : Py_TYPE(object)->tp_name);
    return -1;
}

/* ---- integers --------------------------------------------------------------------- */

static void store_integer(enum sig_kind kind, uint64_t value, void *to)
{
    switch (kind) {
#define STORE(kind, word, type, ffi)                                                     \
    case kind: {                                                                         \
        type typed = (type)value;                                                        \
        memcpy(to, &typed, sizeof typed);                                                \
        break;                                                                           \
    }
        SIG_INTEGERS(STORE)
#undef STORE
    default:
        break;
    }
}

bool subhost__value_set_integer(enum sig_kind kind, uint64_t value, void *to)
{
    if (value > subhost__sig_largest(kind))
        return false;
    store_integer(kind, value, to);
    return true;
}

static int out_of_range(const struct where *where, enum sig_kind kind)
{
    uint64_t max = subhost__sig_largest(kind);
    if (subhost__sig_is_signed(kind))
        subhost__value_wrong(where, PyExc_OverflowError, "does not fit %s (%lld to %lld)",
                             subhost__sig_word(kind), -(long long)max - 1,
                             (long long)max);
    else
        subhost__value_wrong(where, PyExc_OverflowError, "does not fit %s (0 to %llu)",
                             subhost__sig_word(kind), (unsigned long long)max);
    return -1;
}

static int from_long(enum sig_kind kind, const struct where *where, PyObject *number,
                     void *to)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (value == -1 && !overflow && PyErr_Occurred())
        return -1;
    uint64_t max = subhost__sig_largest(kind), bits = (uint64_t)value;
    bool fits;
    if (subhost__sig_is_signed(kind)) {
        fits = !overflow && value <= (long long)max && value >= -(long long)max - 1;
    } else if (overflow > 0) {
        bits = PyLong_AsUnsignedLongLong(number);
        fits = !PyErr_Occurred() && bits <= max;
        PyErr_Clear();
    } else {
        fits = !overflow && value >= 0 && bits <= max;
    }
    if (!fits)
        return out_of_range(where, kind);
    store_integer(kind, bits, to);
    return 0;
}

static int from_integer(enum sig_kind kind, const struct where *where, PyObject *object,
                        void *to)
{
    if (PyLong_CheckExact(object))
        return from_long(kind, where, object, to);
    if (!PyIndex_Check(object))
        return must_be(where, "an integer", object);
    PyObject *number = PyNumber_Index(object);
    int result = number ? from_long(kind, where, number, to) : -1;
    Py_XDECREF(number);
    return result;
}

/* ---- floats, bools ---------------------------------------------------------------- */

static int from_float(enum sig_kind kind, const struct where *where, PyObject *object,
                      void *to)
{
    double value = PyFloat_AsDouble(object);
    if (value == -1.0 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
            PyErr_Clear();
            subhost__value_wrong(where, PyExc_OverflowError, "does not fit %s",
                                 subhost__sig_word(kind));
        } else if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Clear();
            return must_be(where, "a number", object);
        }
        return -1;
    }
    if (kind == SIG_F64) {
        memcpy(to, &value, sizeof value);
        return 0;
    }
    float narrow = (float)value;
    if (isinf(narrow) && !isinf(value)) {
        subhost__value_wrong(where, PyExc_OverflowError, "does not fit f32");
        return -1;
    }
    memcpy(to, &narrow, sizeof narrow);
    return 0;
}

static int from_bool(const struct where *where, PyObject *object, void *to)
{
    if (!PyBool_Check(object))
        return must_be(where, "a bool", object);
    _Bool value = Py_IsTrue(object);
    memcpy(to, &value, sizeof value);
    return 0;
}

/* ---- strings, pointers, structs --------------------------------------------------- */

static int from_string(const struct sig_type *type, const struct where *where,
                       PyObject *object, void *to)
{
    const char *text = NULL;
    Py_ssize_t size = 0;
    if (PyUnicode_Check(object)) {
        text = PyUnicode_AsUTF8AndSize(object, &size);
        if (!text && PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
            PyErr_Clear();
            subhost__value_wrong(
                where, PyExc_ValueError,
                "is no UTF-8: it has surrogates; pass bytes, as those of "
                "os.fsencode()");
        }
        if (!text)
            return -1;
    } else if (PyBytes_Check(object)) {
        text = PyBytes_AS_STRING(object);
        size = PyBytes_GET_SIZE(object);
    } else if (!Py_IsNone(object) || !type->nullable) {
        return must_be(where, type->nullable ? "str, bytes or None" : "str or bytes",
                       object);
    }
    if (text && strlen(text) != (size_t)size) {
        subhost__value_wrong(where, PyExc_ValueError, "has a null character in it");
        return -1;
    }
    memcpy(to, &text, sizeof text);
    return 0;
}

static int from_pointer(const struct sig_type *type, const struct where *where,
                        const struct native_types *types, PyObject *object, void *to)
{
    void *address = NULL;
    const char *tag = NULL;
    bool is = subhost__pointer_get(types, object, &address, &tag);
    if (!is && !(Py_IsNone(object) && type->nullable))
        return must_be(where,
                       type->nullable ? "a subhost.native.Pointer or None"
                                      : "a subhost.native.Pointer",
                       object);
    if (is && type->tag && tag != type->tag) {
        subhost__value_wrong(where, PyExc_TypeError, "must be a ptr<%s>, not a ptr%s%s%s",
                             type->tag, tag ? "<" : "", tag ? tag : "", tag ? ">" : "");
        return -1;
    }
    memcpy(to, &address, sizeof address);
    return 0;
}

static int from_struct(const struct sig_type *type, const struct where *where,
                       const struct native_types *types, PyObject *object, char *to)
{
    if (!PyTuple_Check(object) && !PyList_Check(object))
        return must_be(where, "a tuple", object);
    /* A list may change while its items are converted. */
    PyObject *items = PySequence_Tuple(object);
    if (!items)
        return -1;
    int result = 0;
    if (PyTuple_GET_SIZE(items) != (Py_ssize_t)type->n_fields) {
        subhost__value_wrong(where, PyExc_TypeError, "must have %zu fields, not %zd",
                             type->n_fields, PyTuple_GET_SIZE(items));
        result = -1;
    }
    for (size_t i = 0; i < type->n_fields && result == 0; i++)
        result = subhost__value_from_python(&type->fields[i].type, where, types,
                                            PyTuple_GET_ITEM(items, i),
                                            to + type->fields[i].offset);
    Py_DECREF(items);
    return result;
}

/* A reference, which is the caller's. */
static int from_buffer(const struct sig_type *type, const struct where *where,
                       const struct native_types *types, PyObject *object, void *to)
{
    subhost_buffer *buffer = NULL;
    if (!Py_IsNone(object) || !type->nullable) {
        if (!PyObject_CheckBuffer(object))
            return must_be(where,
                           type->nullable ? "a bytes-like object or None"
                                          : "a bytes-like object",
                           object);
        buffer = subhost__buffer_of(types->interp, object);
        if (!buffer && PyErr_ExceptionMatches(PyExc_BufferError)) {
            PyErr_Clear();
            subhost__value_wrong(where, PyExc_TypeError, "must be a contiguous buffer");
        }
        if (!buffer)
            return -1;
    }
    memcpy(to, &buffer, sizeof buffer);
    return 0;
}

int subhost__value_from_python(const struct sig_type *type, const struct where *where,
                               const struct native_types *types, PyObject *object,
                               void *to)
{
    if (subhost__sig_is_integer(type->kind))
        return from_integer(type->kind, where, object, to);
    switch (type->kind) {
    case SIG_F32:
    case SIG_F64:
        return from_float(type->kind, where, object, to);
    case SIG_BOOL:
        return from_bool(where, object, to);
    case SIG_STR:
        return from_string(type, where, object, to);
    case SIG_PTR:
        return from_pointer(type, where, types, object, to);
    case SIG_STRUCT:
        return from_struct(type, where, types, object, to);
    case SIG_BUFFER:
        return from_buffer(type, where, types, object, to);
    default:
        return 0; /* void: whatever a callback returned */
    }
}

/* ---- to Python -------------------------------------------------------------------- */

static PyObject *to_string(const void *from)
{
    const char *text;
    memcpy(&text, from, sizeof text);
    if (!text)
        Py_RETURN_NONE;
    return PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "surrogateescape");
}

static PyObject *to_struct(const struct sig_type *type, const struct native_types *types,
                           const char *from)
{
    PyObject *tuple = PyTuple_New((Py_ssize_t)type->n_fields);
    for (size_t i = 0; tuple && i < type->n_fields; i++) {
        PyObject *item = subhost__value_to_python(&type->fields[i].type, types,
                                                  from + type->fields[i].offset);
        if (item)
            PyTuple_SET_ITEM(tuple, i, item);
        else
            Py_CLEAR(tuple);
    }
    return tuple;
}

static PyObject *to_integer(enum sig_kind kind, const void *from)
{
    switch (kind) {
#define LOAD(kind, word, type, ffi)                                                      \
    case kind: {                                                                         \
        type typed;                                                                      \
        memcpy(&typed, from, sizeof typed);                                              \
        return subhost__sig_is_signed(kind)                                              \
                   ? PyLong_FromLongLong((long long)typed)                               \
                   : PyLong_FromUnsignedLongLong((unsigned long long)typed);             \
    }
        SIG_INTEGERS(LOAD)
#undef LOAD
    default:
        return NULL;
    }
}

PyObject *subhost__value_to_python(const struct sig_type *type,
                                   const struct native_types *types, const void *from)
{
    if (subhost__sig_is_integer(type->kind))
        return to_integer(type->kind, from);
    void *address;
    double wide;
    float narrow;
    switch (type->kind) {
    case SIG_F32:
        memcpy(&narrow, from, sizeof narrow);
        return PyFloat_FromDouble((double)narrow);
    case SIG_F64:
        memcpy(&wide, from, sizeof wide);
        return PyFloat_FromDouble(wide);
    case SIG_BOOL:
        return PyBool_FromLong(*(const unsigned char *)from != 0);
    case SIG_STR:
        return to_string(from);
    case SIG_PTR:
        memcpy(&address, from, sizeof address);
        return address ? subhost__pointer_new(types, address, type->tag)
                       : Py_NewRef(Py_None);
    case SIG_STRUCT:
        return to_struct(type, types, from);
    case SIG_BUFFER:
        memcpy(&address, from, sizeof address);
        return address ? subhost__buffer_view(types->interp, address)
                       : Py_NewRef(Py_None);
    default:
        Py_RETURN_NONE;
    }
}

/* ---- libffi's registers ----------------------------------------------------------- */

static bool is_small(const struct sig_type *type)
{
    return (subhost__sig_is_integer(type->kind) || type->kind == SIG_BOOL) &&
           subhost__sig_size(type->kind) < sizeof(ffi_arg);
}

void subhost__value_narrow(const struct sig_type *type, void *value)
{
    if (!is_small(type))
        return;
    ffi_arg whole;
    memcpy(&whole, value, sizeof whole);
    if (type->kind == SIG_BOOL)
        *(_Bool *)value = (whole & 0xFF) != 0;
    else
        store_integer(type->kind, whole, value);
}

void subhost__value_widen(const struct sig_type *type, void *value)
{
    if (!is_small(type))
        return;
    ffi_arg whole = 0;
    switch (type->kind) {
#define WIDEN(kind, word, type, ffi)                                                     \
    case kind: {                                                                         \
        type typed;                                                                      \
        memcpy(&typed, value, sizeof typed);                                             \
        whole = (ffi_arg)typed;                                                          \
        break;                                                                           \
    }
        SIG_SCALARS(WIDEN)
#undef WIDEN
    default:
        break;
    }
    memcpy(value, &whole, sizeof whole);
}

/* ---- buffers ---------------------------------------------------------------------- */

/* Whether a format of the struct module is of the same sort as a kind: integers with the
 * same sign, floats. The size is compared by the caller. */
static bool same_sort(const char *format, enum sig_kind kind)
{
    if (!format)
        format = "B";
    if (*format == '@' || *format == '=' ||
        *format == (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? '<' : '>'))
        format++;
    if (!*format || format[1])
        return false;
    const char *sort = kind == SIG_F32 || kind == SIG_F64 ? "fd"
                       : kind == SIG_BOOL                 ? "?"
                       : subhost__sig_is_signed(kind)     ? "bhilqn"
                                                          : "BHILQN";
    return strchr(sort, *format) != NULL;
}

int subhost__value_buffer(const struct sig_type *type, const struct where *where,
                          PyObject *object, Py_buffer *view)
{
    bool typed = type->item != SIG_VOID;
    if (!PyObject_CheckBuffer(object))
        return must_be(
            where, type->nullable ? "a bytes-like object or None" : "a bytes-like object",
            object);
    int flags = PyBUF_C_CONTIGUOUS | (type->writable ? PyBUF_WRITABLE : 0) |
                (typed ? PyBUF_FORMAT : 0);
    if (PyObject_GetBuffer(object, view, flags) < 0) {
        PyErr_Clear();
        subhost__value_wrong(where, PyExc_TypeError, "must be a %scontiguous buffer",
                             type->writable ? "writable, " : "");
        return -1;
    }
    if (typed && (view->itemsize != (Py_ssize_t)subhost__sig_size(type->item) ||
                  !same_sort(view->format, type->item))) {
        subhost__value_wrong(
            where, PyExc_TypeError, "must be a buffer of %s, not of format '%s'",
            subhost__sig_word(type->item), view->format ? view->format : "B");
        PyBuffer_Release(view);
        return -1;
    }
    return 0;
}
