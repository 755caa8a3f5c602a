/* What a program has left open with something in its buffers, found for the prelude's
 * flush_files(): python's end would close, and so flush, what the program's modules hold.
 *
 * No gc.get_objects(): that is an audit event, and a list of everything. */
#include "module.h"

#define STREAMS 4 /* stdout and stderr, each with its buffer */

struct search {
    PyTypeObject *text, *writer, *random;
    PyObject *texts, *binaries;
    PyObject *streams[STREAMS]; /* not to be found: they are flushed by themselves */
};

static bool is_stream(const struct search *search, const PyObject *object)
{
    for (int i = 0; i < STREAMS; i++)
        if (search->streams[i] == object)
            return true;
    return false;
}

/* By type, not by isinstance(), which may ask the object: no code of the program's runs here. */
static int look_at(PyObject *object, void *arg)
{
    struct search *search = arg;
    PyObject *list = NULL;
    if (PyObject_TypeCheck(object, search->text))
        list = search->texts;
    else if (PyObject_TypeCheck(object, search->writer) ||
             PyObject_TypeCheck(object, search->random))
        list = search->binaries;
    if (!list || is_stream(search, object))
        return 1;
    return PyList_Append(list, object) == 0; /* a list's memory is none that is visited */
}

/* False: a program has what it writes to from elsewhere, or nothing is known of that: it wraps
 * sys.stdout.buffer in something of its own, or has taken it out. */
static bool name_streams(struct search *search)
{
    static const char *const names[] = {"__stdout__", "__stderr__"};
    bool untouched = true;
    for (int i = 0; i < STREAMS / 2; i++) {
        PyObject *stream = PySys_GetObject(names[i]); /* borrowed */
        if (!stream || !Py_IS_TYPE(stream, search->text)) {
            untouched = untouched && stream && Py_IsNone(stream);
            continue;
        }
        PyObject *buffer = PyObject_GetAttrString(stream, "buffer");
        PyErr_Clear();                                             /* detached */
        untouched = untouched && buffer && Py_REFCNT(buffer) == 2; /* its, and this one */
        search->streams[i] = Py_NewRef(stream);
        search->streams[STREAMS / 2 + i] = buffer;
    }
    return untouched;
}

PyObject *subhost__unflushed(PyObject *module, PyObject *args)
{
    const struct module_state *state = PyModule_GetState(module);
    struct search search = {0};
    if (!PyArg_ParseTuple(args, "O!O!O!", &PyType_Type, &search.text, &PyType_Type,
                          &search.writer, &PyType_Type, &search.random))
        return NULL;
    PyObject *result = NULL;
    search.texts = PyList_New(0);
    search.binaries = PyList_New(0);
    if (search.texts && search.binaries) {
        /* Nearly every program has nothing: to look costs a visit to all its objects. */
        if (!name_streams(&search) ||
            (state->interp && atomic_load(&state->interp->opened)))
            PyUnstable_GC_VisitObjects(look_at, &search);
        if (!PyErr_Occurred())
            result = PySequence_Concat(search.binaries, search.texts);
    }
    for (int i = 0; i < STREAMS; i++)
        Py_XDECREF(search.streams[i]);
    Py_XDECREF(search.texts);
    Py_XDECREF(search.binaries);
    return result;
}
