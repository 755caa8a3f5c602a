/* A nursery's call where it runs: python/nursery.py's run_call(), and what came of it. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "buffer.h"
#include "module.h"
#include "policing.h"

static int keep_result(subhost_task *task, PyObject *bytes)
{
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(bytes, &data, &size) < 0)
        return -1;
    unsigned char *copy = malloc(size ? (size_t)size : 1);
    if (!copy) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(copy, data, (size_t)size);
    free(task->result);
    task->result = copy;
    task->result_size = (size_t)size;
    return 0;
}

/* What the task was lent, as memoryviews. An abandonment, on the main thread, may take it away
 * meanwhile. NULL with an exception. */
static PyObject *view_lent(subhost_interp *interp, subhost_task *task)
{
    struct buffer_list lent;
    pthread_mutex_lock(&interp->lock);
    bool copied = subhost__buffer_list_copy(&lent, &task->lent);
    pthread_mutex_unlock(&interp->lock);
    PyObject *views = copied ? subhost__buffers_view(interp, &lent) : PyErr_NoMemory();
    subhost__buffer_list_clear(&lent);
    return views;
}

/* run_call() returns bytes and a list. They outlive the interpreter, and so are copied. */
static int keep_all(subhost_task *task, PyObject *pair)
{
    PyObject *bytes, *objects;
    if (!PyArg_ParseTuple(pair, "SO!", &bytes, &PyList_Type, &objects))
        return -1;
    struct buffer_list copies;
    if (!subhost__buffers_copy(objects, &copies))
        return -1;
    if (keep_result(task, bytes) < 0) {
        subhost__buffer_list_clear(&copies);
        return -1;
    }
    task->returned = copies;
    return 0;
}

PyObject *subhost__call_run(subhost_interp *interp, subhost_task *task)
{
    PyObject *function = subhost__nursery_get(interp, "run_call");
    PyObject *views = function ? view_lent(interp, task) : NULL;
    PyObject *payload = views ? PyBytes_FromStringAndSize((const char *)task->payload,
                                                          (Py_ssize_t)task->payload_size)
                              : NULL;
    /* It may be large, and is seldom needed twice. */
    if (subhost__policing_anew(interp, task) == ANEW_NOT) {
        free(task->payload);
        task->payload = NULL;
        task->payload_size = 0;
    }
    PyObject *arguments = payload ? Py_BuildValue("(NO)", payload, views) : NULL;
    Py_XDECREF(views);
    PyObject *pair = arguments ? PyObject_CallObject(function, arguments) : NULL;
    Py_XDECREF(arguments);
    int result = pair ? keep_all(task, pair) : -1;
    Py_XDECREF(pair);
    Py_XDECREF(function);
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

void subhost__call_failed(subhost_interp *interp, subhost_task *task, PyObject *exception)
{
    struct thread *self = subhost__thread_self();
    subhost__raise_seal(self); /* a cancel must not cost the nursery what it raised */
    PyObject *function = subhost__nursery_get(interp, "pack_exception");
    PyObject *bytes = function ? PyObject_CallOneArg(function, exception) : NULL;
    if (!bytes || keep_result(task, bytes) < 0)
        PyErr_Clear(); /* the outcome's detail tells what it was */
    subhost__raise_unseal(interp, self);
    Py_XDECREF(bytes);
    Py_XDECREF(function);
}
