/* What the main interpreter imports for an extension module of a program's.
 *
 * CPython calls the init function of an extension module in the main interpreter first, whichever
 * interpreter imports it, and such a function may import what lies beside it. The main
 * interpreter has no site, and never the program's sys.path. So a finder in front of its own looks
 * along the sys.path of the program that has brought the thread there. It asks for that when it
 * has to find something: what is builtin, frozen or loaded costs nothing. */
#define _GNU_SOURCE
#include "importer.h"

#include <stdlib.h>
#include <string.h>

#include "interp.h"

struct paths {
    size_t count;
    char **items; /* owned, as they are */
};

static void clear(struct paths *paths)
{
    for (size_t i = 0; i < paths->count; i++)
        free(paths->items[i]);
    free(paths->items);
}

/* The strings of this interpreter's sys.path. No Python code runs. */
static void copy_path(struct paths *paths)
{
    PyObject *path = PySys_GetObject("path"); /* borrowed */
    Py_ssize_t length = path && PyList_Check(path) ? PyList_GET_SIZE(path) : 0;
    paths->items = calloc((size_t)length + 1, sizeof *paths->items);
    for (Py_ssize_t i = 0; paths->items && i < length; i++) {
        PyObject *entry = PyList_GET_ITEM(path, i);
        PyObject *bytes =
            PyUnicode_Check(entry) ? PyUnicode_EncodeFSDefault(entry) : NULL;
        char *copy = bytes ? strdup(PyBytes_AS_STRING(bytes)) : NULL;
        if (copy)
            paths->items[paths->count++] = copy;
        Py_XDECREF(bytes);
        PyErr_Clear(); /* it is no name of a file */
    }
}

/* That of the program whose import this thread is in, as a list; NULL without an exception:
 * there is none. */
static PyObject *program_path(void)
{
    struct thread *self = subhost__thread_self();
    subhost_interp *interp = self && !self->interp->is_main ? self->interp : NULL;
    int64_t life = interp ? atomic_load(&interp->life) : -1;
    struct visit visit;
    if (life < 0 || !subhost__thread_visit(&visit, interp, life))
        return NULL;
    struct paths paths = {0};
    copy_path(&paths);
    subhost__thread_leave(&visit);
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < paths.count; i++) {
        PyObject *entry = PyUnicode_DecodeFSDefault(paths.items[i]);
        if (!entry || PyList_Append(list, entry) < 0)
            Py_CLEAR(list);
        Py_XDECREF(entry);
    }
    clear(&paths);
    return list;
}

#define EXTERNAL "_frozen_importlib_external"

/* importlib's; embed/python/main.py, which stands in for it, makes way first. */
static PyObject *path_finder(PyObject *wanted)
{
    PyObject *external = PyImport_ImportModule(EXTERNAL);
    if (external && PyObject_HasAttrString(external, "complete")) {
        PyObject *done = PyObject_CallMethod(external, "complete", "O", wanted);
        Py_DECREF(external);
        external = done ? PyImport_ImportModule(EXTERNAL) : NULL;
        Py_XDECREF(done);
    }
    PyObject *finder = external ? PyObject_GetAttrString(external, "PathFinder") : NULL;
    Py_XDECREF(external);
    return finder;
}

static PyObject *find_spec(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *name, *path = Py_None, *target = Py_None;
    if (!PyArg_ParseTuple(args, "U|OO", &name, &path, &target))
        return NULL;
    /* What is in a package is found along the package's path. */
    PyObject *list = Py_IsNone(path) ? program_path() : NULL;
    if (!list)
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    PyObject *finder = path_finder(name);
    PyObject *spec =
        finder ? PyObject_CallMethod(finder, "find_spec", "OOO", name, list, target)
               : NULL;
    Py_XDECREF(finder);
    Py_DECREF(list);
    return spec;
}

static PyMethodDef methods[] = {
    {"find_spec", find_spec, METH_VARARGS, NULL},
    {NULL},
};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "subhost.importer",
    .m_size = -1,
    .m_methods = methods,
};

int subhost__importer_install(void)
{
    PyObject *finders = PySys_GetObject("meta_path"); /* borrowed */
    if (!finders || !PyList_Check(finders) || PyList_GET_SIZE(finders) == 0)
        return 0;
    PyObject *finder = PyModule_Create(&definition);
    int result =
        finder ? PyList_Insert(finders, PyList_GET_SIZE(finders) - 1, finder) : -1;
    Py_XDECREF(finder);
    return result;
}

void subhost__importer_remove(void)
{
    PyObject *finders = PySys_GetObject("meta_path"); /* borrowed */
    Py_ssize_t length = finders && PyList_Check(finders) ? PyList_GET_SIZE(finders) : 0;
    for (Py_ssize_t i = 0; i < length; i++) {
        PyObject *finder = PyList_GET_ITEM(finders, i);
        if (!PyModule_Check(finder) || PyModule_GetDef(finder) != &definition)
            continue;
        PySequence_DelItem(finders, i);
        break;
    }
    PyErr_Clear();
}
