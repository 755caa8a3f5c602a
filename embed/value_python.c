/* Values as Python objects, and back. On the path of each call: what is common comes first,
 * and nothing of Python is called for a plain value. */
#include "value_python.h"

#include <stdlib.h>

#include "buffer.h"
#include "module.h"

struct encoder {
    subhost_interp *interp;
    struct subhost_value *value;
    bool plain;
};

struct decoder {
    subhost_interp *interp;
    const unsigned char *data;
    size_t size, at;
    unsigned depth;
    struct exposure **exposures; /* of its buffers */
};

/* ---- objects to values ----------------------------------------------------------- */

static int encode(const struct encoder *encoder, PyObject *object);

/* What the value says of its own failure, as an exception. */
static int raise_failure(const struct subhost_value *value)
{
    if (value->code == SUBHOST_ENOMEM)
        PyErr_NoMemory();
    else
        PyErr_SetString(PyExc_ValueError, value->why ? value->why : "a bad value");
    return -1;
}

static int done(const struct encoder *encoder, int code)
{
    return code < 0 ? raise_failure(encoder->value) : 0;
}

static int encode_str(const struct encoder *encoder, PyObject *object)
{
    Py_ssize_t size;
    if (PyUnicode_IS_COMPACT_ASCII(object))
        return done(encoder, subhost_value_add_str(encoder->value, PyUnicode_DATA(object),
                                                   (size_t)PyUnicode_GET_LENGTH(object)));
    char *data;
    PyObject *bytes = PyUnicode_AsEncodedString(object, "utf-8", "surrogatepass");
    if (!bytes || PyBytes_AsStringAndSize(bytes, &data, &size) < 0) {
        Py_XDECREF(bytes);
        return -1;
    }
    int code = subhost_value_add_str(encoder->value, data, (size_t)size);
    Py_DECREF(bytes);
    return done(encoder, code);
}

static int encode_int(const struct encoder *encoder, PyObject *object)
{
    int overflow;
    int64_t integer = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (!overflow)
        return done(encoder, subhost_value_add_int(encoder->value, integer));
    Py_ssize_t size =
        PyLong_AsNativeBytes(object, NULL, 0, Py_ASNATIVEBYTES_LITTLE_ENDIAN);
    unsigned char *bytes = size < 0 ? NULL : PyMem_Malloc((size_t)size);
    if (!bytes)
        return size < 0 ? -1 : (PyErr_NoMemory(), -1);
    int code = -1;
    if (PyLong_AsNativeBytes(object, bytes, size, Py_ASNATIVEBYTES_LITTLE_ENDIAN) >= 0)
        code =
            done(encoder, subhost_value_add_bigint(encoder->value, bytes, (size_t)size));
    PyMem_Free(bytes);
    return code;
}

/* A list may change while an item of it is pickled. */
static int encode_list(const struct encoder *encoder, PyObject *object)
{
    if (subhost_value_begin(encoder->value, SUBHOST_VALUE_LIST) < 0)
        return raise_failure(encoder->value);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(object); i++) {
        PyObject *item = Py_NewRef(PyList_GET_ITEM(object, i));
        int code = encode(encoder, item);
        Py_DECREF(item);
        if (code < 0)
            return -1;
    }
    return done(encoder, subhost_value_end(encoder->value));
}

static int encode_tuple(const struct encoder *encoder, PyObject *object)
{
    if (subhost_value_begin(encoder->value, SUBHOST_VALUE_TUPLE) < 0)
        return raise_failure(encoder->value);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(object); i++) {
        if (encode(encoder, PyTuple_GET_ITEM(object, i)) < 0)
            return -1;
    }
    return done(encoder, subhost_value_end(encoder->value));
}

static int encode_dict(const struct encoder *encoder, PyObject *object)
{
    if (subhost_value_begin(encoder->value, SUBHOST_VALUE_DICT) < 0)
        return raise_failure(encoder->value);
    Py_ssize_t at = 0, size = PyDict_GET_SIZE(object);
    PyObject *key, *item;
    while (PyDict_Next(object, &at, &key, &item)) {
        Py_INCREF(key);
        Py_INCREF(item);
        int code = encode(encoder, key);
        if (code == 0)
            code = encode(encoder, item);
        Py_DECREF(key);
        Py_DECREF(item);
        if (code < 0)
            return -1;
        if (PyDict_GET_SIZE(object) != size) {
            PyErr_SetString(PyExc_RuntimeError,
                            "a dict changed its size while it was being sent");
            return -1;
        }
    }
    return done(encoder, subhost_value_end(encoder->value));
}

/* In an order of its own, as an OrderedDict's. */
static int encode_mapping(const struct encoder *encoder, PyObject *object)
{
    PyObject *items = PyMapping_Items(object); /* a list */
    int code = items ? 0 : -1;
    if (items && subhost_value_begin(encoder->value, SUBHOST_VALUE_DICT) < 0)
        code = raise_failure(encoder->value);
    for (Py_ssize_t i = 0; code == 0 && i < PyList_GET_SIZE(items); i++) {
        PyObject *pair = PyList_GET_ITEM(items, i);
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
            PyErr_SetString(PyExc_ValueError, "items must return 2-tuples");
            code = -1;
            continue;
        }
        code = encode(encoder, PyTuple_GET_ITEM(pair, 0));
        if (code == 0)
            code = encode(encoder, PyTuple_GET_ITEM(pair, 1));
    }
    Py_XDECREF(items);
    return code == 0 ? done(encoder, subhost_value_end(encoder->value)) : code;
}

static int encode_bytes(const struct encoder *encoder, PyObject *object)
{
    return done(encoder,
                subhost_value_add_bytes(encoder->value, PyBytes_AS_STRING(object),
                                        (size_t)PyBytes_GET_SIZE(object)));
}

/* A pickle and a list of what it refers to by number. */
static int add_apart(const struct encoder *encoder, PyObject *pickle, PyObject *list)
{
    const char *data = PyBytes_AS_STRING(pickle);
    size_t size = (size_t)PyBytes_GET_SIZE(pickle);
    struct buffer_list lent;
    if (PyList_GET_SIZE(list) == 0)
        return done(encoder, subhost__value_add_pickle(encoder->value, data, size));
    if (!subhost__buffers_lend(encoder->interp, list, &lent))
        return -1;
    int code = subhost__value_add_apart(encoder->value, data, size, lent.items, lent.n);
    subhost__buffer_list_clear(&lent);
    return done(encoder, code);
}

static int encode_pickle(const struct encoder *encoder, PyObject *object)
{
    PyObject *dumps = subhost__nursery_get(encoder->interp, "_dumps_apart");
    PyObject *pair = dumps ? PyObject_CallOneArg(dumps, object) : NULL;
    Py_XDECREF(dumps);
    PyObject *pickle, *list;
    int code = -1;
    if (pair &&
        PyArg_ParseTuple(pair, "O!O!", &PyBytes_Type, &pickle, &PyList_Type, &list))
        code = add_apart(encoder, pickle, list);
    Py_XDECREF(pair);
    return code;
}

/* A memoryview or a PickleBuffer: by reference, if it is in one piece. */
static int encode_buffer(const struct encoder *encoder, PyObject *object)
{
    subhost_buffer *buffer = subhost__buffer_of(encoder->interp, object);
    if (!buffer) {
        if (!PyErr_ExceptionMatches(PyExc_BufferError))
            return -1;
        PyErr_Clear();
        return encode_pickle(encoder, object);
    }
    int code = subhost_value_add_buffer(encoder->value, buffer);
    subhost_buffer_release(buffer);
    return done(encoder, code);
}

/* Of a type that is none of the plain ones. */
static int encode_other(const struct encoder *encoder, PyObject *object)
{
    if (!encoder->plain && (PyMemoryView_Check(object) || PyPickleBuffer_Check(object)))
        return encode_buffer(encoder, object);
    if (!encoder->plain)
        return encode_pickle(encoder, object);
    if (PyUnicode_Check(object))
        return encode_str(encoder, object);
    if (PyLong_Check(object))
        return encode_int(encoder, object);
    if (PyFloat_Check(object))
        return done(encoder,
                    subhost_value_add_float(encoder->value, PyFloat_AS_DOUBLE(object)));
    if (PyList_Check(object))
        return encode_list(encoder, object);
    if (PyTuple_Check(object))
        return encode_tuple(encoder, object);
    if (PyDict_Check(object))
        return encode_mapping(encoder, object);
    if (PyBytes_Check(object))
        return encode_bytes(encoder, object);
    PyObject *name = PyType_GetFullyQualifiedName(Py_TYPE(object));
    if (name)
        PyErr_Format(
            PyExc_TypeError,
            "what the function returned has an object of type %U, which is not a "
            "plain value: None, bool, int, float, str, bytes, list, tuple or dict",
            name);
    Py_XDECREF(name);
    return -1;
}

static int encode(const struct encoder *encoder, PyObject *object)
{
    if (PyUnicode_CheckExact(object))
        return encode_str(encoder, object);
    if (PyLong_CheckExact(object))
        return encode_int(encoder, object);
    if (object == Py_None)
        return done(encoder, subhost_value_add_none(encoder->value));
    if (PyBool_Check(object))
        return done(encoder, subhost_value_add_bool(encoder->value, object == Py_True));
    if (PyFloat_CheckExact(object))
        return done(encoder,
                    subhost_value_add_float(encoder->value, PyFloat_AS_DOUBLE(object)));
    if (PyDict_CheckExact(object))
        return encode_dict(encoder, object);
    if (PyList_CheckExact(object))
        return encode_list(encoder, object);
    if (PyTuple_CheckExact(object))
        return encode_tuple(encoder, object);
    if (PyBytes_CheckExact(object))
        return encode_bytes(encoder, object);
    return encode_other(encoder, object);
}

int subhost__value_from_object(subhost_interp *interp, struct subhost_value *value,
                               PyObject *object, bool plain)
{
    struct encoder encoder = {.interp = interp, .value = value, .plain = plain};
    return encode(&encoder, object);
}

/* ---- values to objects ----------------------------------------------------------- */

static PyObject *decode(struct decoder *decoder);

static PyObject *decode_list(struct decoder *decoder, size_t n)
{
    PyObject *list = PyList_New((Py_ssize_t)n);
    for (size_t i = 0; list && i < n; i++) {
        PyObject *item = decode(decoder);
        if (item)
            PyList_SET_ITEM(list, (Py_ssize_t)i, item);
        else
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *decode_tuple(struct decoder *decoder, size_t n)
{
    PyObject *tuple = PyTuple_New((Py_ssize_t)n);
    for (size_t i = 0; tuple && i < n; i++) {
        PyObject *item = decode(decoder);
        if (item)
            PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, item);
        else
            Py_CLEAR(tuple);
    }
    return tuple;
}

static PyObject *decode_dict(struct decoder *decoder, size_t n)
{
    PyObject *dict = PyDict_New();
    for (size_t i = 0; dict && i < n; i++) {
        PyObject *key = decode(decoder);
        PyObject *item = key ? decode(decoder) : NULL;
        if (!item || PyDict_SetItem(dict, key, item) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(item);
        Py_XDECREF(key);
    }
    return dict;
}

/* By a function of Python's, in a module that need not be imported yet. */
static PyObject *decode_json(const subhost_item *item)
{
    PyObject *json = PyImport_ImportModule("json");
    PyObject *text =
        json ? PyUnicode_DecodeUTF8(item->data, (Py_ssize_t)item->length, NULL) : NULL;
    PyObject *object = text ? PyObject_CallMethod(json, "loads", "O", text) : NULL;
    Py_XDECREF(text);
    Py_XDECREF(json);
    return object;
}

static PyObject *decode_pickle(const struct decoder *decoder, const subhost_item *item)
{
    uint32_t first = (uint32_t)item->integer;
    uint32_t n = (uint32_t)((uint64_t)item->integer >> 32);
    PyObject *loads = subhost__nursery_get(decoder->interp, "_loads");
    PyObject *bytes =
        loads ? PyBytes_FromStringAndSize(item->data, (Py_ssize_t)item->length) : NULL;
    PyObject *views = bytes ? PyTuple_New((Py_ssize_t)n) : NULL;
    for (uint32_t i = 0; views && i < n; i++) {
        PyObject *view = subhost__exposure_view(decoder->exposures[first + i]);
        if (view)
            PyTuple_SET_ITEM(views, i, view);
        else
            Py_CLEAR(views);
    }
    PyObject *object =
        views ? PyObject_CallFunctionObjArgs(loads, bytes, views, NULL) : NULL;
    Py_XDECREF(views);
    Py_XDECREF(bytes);
    Py_XDECREF(loads);
    return object;
}

static PyObject *decode_container(struct decoder *decoder, const subhost_item *item)
{
    if (decoder->depth == SUBHOST_VALUE_DEPTH) {
        PyErr_SetString(PyExc_ValueError, "an encoded value is nested too deep");
        return NULL;
    }
    decoder->depth++;
    PyObject *object =
        item->kind == SUBHOST_VALUE_LIST    ? decode_list(decoder, item->length)
        : item->kind == SUBHOST_VALUE_TUPLE ? decode_tuple(decoder, item->length)
                                            : decode_dict(decoder, item->length);
    decoder->depth--;
    return object;
}

static PyObject *decode(struct decoder *decoder)
{
    subhost_item item;
    const char *why = "it ends too early";
    if (subhost__value_step(decoder->data, decoder->size, &decoder->at, &item, &why) <=
        0) {
        PyErr_Format(PyExc_ValueError, "an encoded value: %s", why);
        return NULL;
    }
    switch (item.kind) {
    case SUBHOST_VALUE_NONE:
        break;
    case SUBHOST_VALUE_BOOL:
        return PyBool_FromLong(item.integer != 0);
    case SUBHOST_VALUE_INT:
        return PyLong_FromLongLong(item.integer);
    case SUBHOST_VALUE_BIGINT:
        return PyLong_FromNativeBytes(item.data, item.length,
                                      Py_ASNATIVEBYTES_LITTLE_ENDIAN);
    case SUBHOST_VALUE_FLOAT:
        return PyFloat_FromDouble(item.number);
    case SUBHOST_VALUE_STR:
        return PyUnicode_DecodeUTF8(item.data, (Py_ssize_t)item.length, "surrogatepass");
    case SUBHOST_VALUE_BYTES:
        return PyBytes_FromStringAndSize(item.data, (Py_ssize_t)item.length);
    case SUBHOST_VALUE_LIST:
    case SUBHOST_VALUE_TUPLE:
    case SUBHOST_VALUE_DICT:
        return decode_container(decoder, &item);
    case SUBHOST_VALUE_PICKLE:
        return decode_pickle(decoder, &item);
    case SUBHOST_VALUE_JSON:
        return decode_json(&item);
    case SUBHOST_VALUE_BUFFER:
        return subhost__exposure_view(decoder->exposures[item.integer]);
    }
    return Py_NewRef(Py_None);
}

bool subhost__value_expose(subhost_interp *interp, const struct subhost_value *value,
                           struct exposed_value *exposed)
{
    *exposed = (struct exposed_value){.data = value->data, .size = value->size};
    if (value->n_buffers == 0)
        return true;
    exposed->exposures = calloc(value->n_buffers, sizeof(*exposed->exposures));
    for (uint32_t i = 0; exposed->exposures && i < value->n_buffers; i++) {
        exposed->exposures[i] = subhost__buffer_expose(interp, value->buffers[i]);
        if (!exposed->exposures[i]) {
            subhost__value_unexpose(exposed);
            return false;
        }
        exposed->n++;
    }
    return exposed->exposures != NULL;
}

void subhost__value_unexpose(struct exposed_value *exposed)
{
    while (exposed->n > 0)
        subhost__exposure_drop(exposed->exposures[--exposed->n]);
    free(exposed->exposures);
    exposed->exposures = NULL;
}

PyObject *subhost__value_to_object(subhost_interp *interp,
                                   const struct exposed_value *exposed)
{
    size_t size = exposed->size;
    struct decoder decoder = {.interp = interp,
                              .data = exposed->data,
                              .size = size,
                              .exposures = exposed->exposures};
    PyObject *object = decode(&decoder);
    if (object && decoder.at != size) {
        Py_DECREF(object);
        PyErr_SetString(PyExc_ValueError, "an encoded value: something follows its end");
        return NULL;
    }
    return object;
}
