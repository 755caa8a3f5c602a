/* Buffers in Python: memoryviews of them, and buffers of what Python's objects have. */
#include "buffer.h"

#include <stdlib.h>
#include <string.h>

#include "module.h"

struct buffer_life {
    atomic_int refs; /* the interpreter's, and of each buffer that it has lent */
    subhost_interp *interp;
    int64_t id; /* CPython's, of the interpreter */
    /* Under interp->lock, until it has ended: */
    struct exposure *exposures;
    subhost_buffer *returned;
    bool ended;
    atomic_bool in_use;  /* what it has lent is in an interpreter that was abandoned */
    atomic_bool waiting; /* something is returned; a hint */
};

/* ---- the life of an interpreter's buffers ------------------------------------------ */

static void life_unref(struct buffer_life *life)
{
    if (atomic_fetch_sub(&life->refs, 1) != 1)
        return;
    /* The interpreter has ended, and nobody has what it lent: but for lost threads nothing is
     * used any more. */
    struct exposure *exposure = life->exposures, *next;
    for (; exposure; exposure = next) {
        next = exposure->next;
        if (exposure->buffer && atomic_load(&life->in_use))
            atomic_store(&exposure->buffer->in_use, true);
        subhost_buffer_release(exposure->buffer);
        subhost__buffer_forget(exposure->looks);
        free(exposure);
    }
    subhost__interp_unref(life->interp);
    free(life);
}

/* That of the interpreter as it is now. NULL: no memory. GIL held. */
static struct buffer_life *life_of(subhost_interp *interp)
{
    pthread_mutex_lock(&interp->lock);
    struct buffer_life *life = interp->buffers;
    if (!life && (life = calloc(1, sizeof *life))) {
        atomic_init(&life->refs, 1);
        subhost__interp_ref(interp);
        life->interp = interp;
        life->id =
            PyInterpreterState_GetID(PyThreadState_GetInterpreter(PyThreadState_Get()));
        interp->buffers = life;
    }
    pthread_mutex_unlock(&interp->lock);
    return life;
}

void subhost__buffers_end(subhost_interp *interp)
{
    pthread_mutex_lock(&interp->lock);
    struct buffer_life *life = interp->buffers;
    subhost_buffer *returned = life ? life->returned : NULL, *next;
    interp->buffers = NULL;
    if (life)
        life->ended = true;
    pthread_mutex_unlock(&interp->lock);
    for (; returned; returned = next) { /* too late for Python */
        next = returned->next;
        subhost__buffer_forget(returned);
        life_unref(life);
    }
    if (life)
        life_unref(life);
}

void subhost__buffers_abandon(subhost_interp *interp)
{
    for (;;) {
        subhost_buffer *buffer = NULL;
        pthread_mutex_lock(&interp->lock);
        struct exposure *at = interp->buffers ? interp->buffers->exposures : NULL;
        while (at && !at->buffer)
            at = at->next;
        if (at) {
            buffer = at->buffer;
            at->buffer = NULL;
        }
        pthread_mutex_unlock(&interp->lock);
        if (!buffer)
            return;
        atomic_store(&buffer->in_use, true);
        subhost_buffer_release(buffer);
    }
}

/* ---- what an interpreter has -------------------------------------------------------- */

struct exposure *subhost__buffer_expose(subhost_interp *interp, subhost_buffer *buffer)
{
    struct buffer_life *life = life_of(interp);
    struct exposure *exposure = life ? calloc(1, sizeof *exposure) : NULL;
    if (!exposure)
        return NULL;
    atomic_fetch_add(&buffer->structs, 1);
    exposure->interp = interp;
    exposure->buffer = subhost_buffer_hold(buffer);
    exposure->looks = buffer;
    exposure->refs = 1;
    pthread_mutex_lock(&interp->lock);
    if (atomic_load(&interp->state) == INTERP_QUARANTINED) {
        /* What it had was taken away, once and for all. */
        pthread_mutex_unlock(&interp->lock);
        subhost_buffer_release(buffer);
        subhost__buffer_forget(buffer);
        free(exposure);
        return NULL;
    }
    exposure->next = life->exposures;
    exposure->at = &life->exposures;
    if (exposure->next)
        exposure->next->at = &exposure->next;
    life->exposures = exposure;
    pthread_mutex_unlock(&interp->lock);
    return exposure;
}

void subhost__exposure_drop(struct exposure *exposure)
{
    if (--exposure->refs > 0)
        return;
    pthread_mutex_lock(&exposure->interp->lock);
    *exposure->at = exposure->next;
    if (exposure->next)
        exposure->next->at = exposure->at;
    pthread_mutex_unlock(&exposure->interp->lock);
    subhost_buffer_release(exposure->buffer);
    subhost__buffer_forget(exposure->looks);
    free(exposure);
}

/* ---- subhost.Buffer ------------------------------------------------------------------ */

struct buffer_object {
    PyObject_HEAD struct exposure *exposure;
};

static int buffer_get(PyObject *self, Py_buffer *view, int flags)
{
    struct exposure *exposure = ((struct buffer_object *)self)->exposure;
    subhost_buffer *buffer = exposure->looks;
    const subhost_memory *m = &buffer->memory;
    pthread_mutex_lock(&exposure->interp->lock);
    bool there = exposure->buffer != NULL;
    pthread_mutex_unlock(&exposure->interp->lock);
    if (!there || ((flags & PyBUF_WRITABLE) && !m->writable)) {
        PyErr_SetString(PyExc_BufferError,
                        there
                            ? "the buffer is read-only"
                            : "the buffer was taken back: the interpreter is abandoned");
        view->obj = NULL;
        return -1;
    }
    *view = (Py_buffer){.buf = m->address,
                        .obj = Py_NewRef(self),
                        .len = (Py_ssize_t)m->length,
                        .itemsize = (Py_ssize_t)m->item_size,
                        .readonly = !m->writable,
                        .ndim = m->dimensions};
    if (flags & PyBUF_FORMAT)
        view->format = buffer->format;
    if (flags & PyBUF_ND)
        view->shape = (Py_ssize_t *)buffer->shape;
    if ((flags & PyBUF_STRIDES) == PyBUF_STRIDES)
        view->strides = (Py_ssize_t *)buffer->strides;
    return 0;
}

static void buffer_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    subhost__exposure_drop(((struct buffer_object *)self)->exposure);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot buffer_slots[] = {
    {Py_tp_dealloc, buffer_dealloc},
    {Py_bf_getbuffer, buffer_get},
    {Py_tp_doc, (void *)"Memory that C, or another interpreter, has as well."},
    {0, NULL},
};
static PyType_Spec buffer_spec = {
    .name = "subhost.Buffer",
    .basicsize = sizeof(struct buffer_object),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = buffer_slots,
};

/* Borrowed; NULL with an exception. */
static PyTypeObject *buffer_type(subhost_interp *interp)
{
    struct module_state *state = interp->module;
    if (!state) {
        PyErr_SetString(PyExc_RuntimeError, "the interpreter is about to end");
        return NULL;
    }
    if (!state->buffer_type)
        state->buffer_type = PyType_FromSpec(&buffer_spec);
    return (PyTypeObject *)state->buffer_type;
}

PyObject *subhost__exposure_view(struct exposure *exposure)
{
    PyTypeObject *type = buffer_type(exposure->interp);
    struct buffer_object *object =
        type ? (struct buffer_object *)type->tp_alloc(type, 0) : NULL;
    if (!object)
        return NULL;
    object->exposure = exposure;
    exposure->refs++;
    PyObject *view = PyMemoryView_FromObject((PyObject *)object);
    Py_DECREF(object);
    return view;
}

PyObject *subhost__buffer_view(subhost_interp *interp, subhost_buffer *buffer)
{
    struct exposure *exposure = subhost__buffer_expose(interp, buffer);
    if (!exposure)
        return PyErr_NoMemory();
    PyObject *view = subhost__exposure_view(exposure);
    subhost__exposure_drop(exposure);
    return view;
}

/* ---- what an interpreter lends -------------------------------------------------------- */

/* The buffer that a memoryview shows, all of it or a part: a new reference. NULL: it shows
 * something else. */
static subhost_buffer *shown_by(subhost_interp *interp, PyObject *object)
{
    struct module_state *state = interp->module;
    PyObject *base = PyMemoryView_Check(object) ? PyMemoryView_GET_BASE(object) : NULL;
    if (!base || !state || (PyObject *)Py_TYPE(base) != state->buffer_type)
        return NULL;
    pthread_mutex_lock(&interp->lock);
    subhost_buffer *buffer =
        subhost_buffer_hold(((struct buffer_object *)base)->exposure->buffer);
    pthread_mutex_unlock(&interp->lock);
    return buffer;
}

static void describe(const Py_buffer *view, subhost_memory *memory, size_t *shape)
{
    *memory = (subhost_memory){.size = sizeof *memory,
                               .address = view->buf,
                               .length = (size_t)view->len,
                               .writable = !view->readonly,
                               .format = view->format,
                               .item_size = (size_t)view->itemsize,
                               .dimensions = view->ndim,
                               .shape = shape};
    if (view->ndim > SUBHOST_DIMENSIONS)
        memory->dimensions = 0; /* as one row */
    for (int i = 0; i < memory->dimensions; i++)
        shape[i] = (size_t)view->shape[i];
}

/* Takes the view over. NULL with an exception. */
static subhost_buffer *lend(subhost_interp *interp, const subhost_memory *memory,
                            Py_buffer *view)
{
    struct buffer_life *life = life_of(interp);
    subhost_buffer *buffer = life ? subhost__buffer_make(memory) : NULL;
    if (!buffer) {
        PyBuffer_Release(view);
        PyErr_NoMemory();
        return NULL;
    }
    atomic_fetch_add(&life->refs, 1);
    buffer->life = life;
    buffer->view = *view;
    return buffer;
}

subhost_buffer *subhost__buffer_of(subhost_interp *interp, PyObject *object)
{
    Py_buffer view;
    subhost_memory memory;
    size_t shape[SUBHOST_DIMENSIONS];
    if (PyObject_GetBuffer(object, &view, PyBUF_FULL_RO) < 0)
        return NULL;
    if (!PyBuffer_IsContiguous(&view, 'C') || view.itemsize < 1) {
        PyBuffer_Release(&view);
        PyErr_SetString(PyExc_BufferError,
                        "only a C-contiguous buffer can be passed by reference");
        return NULL;
    }
    describe(&view, &memory, shape);
    subhost_buffer *whole = shown_by(interp, view.obj); /* behind a PickleBuffer, too */
    if (!whole)
        return lend(interp, &memory, &view);
    subhost_buffer *part = subhost__buffer_part(whole, &memory);
    PyBuffer_Release(&view);
    subhost_buffer_release(whole);
    if (!part)
        PyErr_NoMemory();
    return part;
}

/* False with an exception, and `made` is empty. */
static bool make_all(subhost_interp *interp, PyObject *objects,
                     subhost_buffer *(*make)(subhost_interp *, PyObject *),
                     struct buffer_list *made)
{
    Py_ssize_t n = PyList_GET_SIZE(objects);
    *made = (struct buffer_list){calloc(n ? (size_t)n : 1, sizeof(*made->items)), 0};
    if (!made->items)
        PyErr_NoMemory();
    for (; made->items && made->n < n; made->n++) {
        made->items[made->n] = make(interp, PyList_GET_ITEM(objects, made->n));
        if (!made->items[made->n]) {
            subhost__buffer_list_clear(made);
            break;
        }
    }
    return made->items != NULL;
}

bool subhost__buffers_lend(subhost_interp *interp, PyObject *objects,
                           struct buffer_list *lent)
{
    return make_all(interp, objects, subhost__buffer_of, lent);
}

static subhost_buffer *copy_of(subhost_interp *interp, PyObject *object)
{
    (void)interp;
    Py_buffer view;
    subhost_memory memory;
    size_t shape[SUBHOST_DIMENSIONS];
    if (PyObject_GetBuffer(object, &view, PyBUF_FULL_RO) < 0)
        return NULL;
    describe(&view, &memory, shape);
    subhost_buffer *copy = subhost__buffer_copy(&memory);
    PyBuffer_Release(&view);
    if (!copy)
        PyErr_NoMemory();
    return copy;
}

bool subhost__buffers_copy(PyObject *objects, struct buffer_list *copies)
{
    return make_all(NULL, objects, copy_of, copies);
}

PyObject *subhost__buffers_view(subhost_interp *interp, const struct buffer_list *list)
{
    PyObject *views = PyList_New(0);
    for (uint32_t i = 0; views && i < list->n; i++) {
        PyObject *view = subhost__buffer_view(interp, list->items[i]);
        if (!view || PyList_Append(views, view) < 0)
            Py_CLEAR(views);
        Py_XDECREF(view);
    }
    return views;
}

/* ---- and gets back -------------------------------------------------------------------- */

static void collect(void *data) { subhost__buffers_collect(data); }

/* Whether the calling thread has the GIL of that interpreter. */
static bool is_here(const struct buffer_life *life)
{
    PyThreadState *tstate = PyThreadState_GetUnchecked();
    return tstate &&
           PyInterpreterState_GetID(PyThreadState_GetInterpreter(tstate)) == life->id;
}

void subhost__buffer_lose(const subhost_buffer *buffer)
{
    atomic_store(&buffer->life->in_use, true);
    life_unref(buffer->life);
}

void subhost__buffer_return(subhost_buffer *buffer)
{
    struct buffer_life *life = buffer->life;
    subhost_interp *interp = life->interp;
    bool here = is_here(life);
    pthread_mutex_lock(&interp->lock);
    bool ended = life->ended;
    if (!ended) {
        atomic_fetch_add(&buffer->structs, 1);
        buffer->next = life->returned;
        life->returned = buffer;
        atomic_store(&life->waiting, true);
    }
    /* The host is there as long as its interpreter can be reached. */
    enum interp_state state = atomic_load(&interp->state);
    bool open =
        state == INTERP_IDLE || state == INTERP_RUNNING || state == INTERP_FINISHING;
    if (!ended && !here && open) {
        /* In a full ring there is something else that has it drained. */
        (void)subhost__channel_put(&interp->channel, collect, interp);
        subhost__channel_ring(interp);
        subhost__loop_wake(interp->host);
    }
    pthread_mutex_unlock(&interp->lock);
    if (ended)
        life_unref(life); /* no interpreter is left to free what it lent */
    else if (here)
        subhost__buffers_collect(interp);
}

void subhost__buffers_collect(subhost_interp *interp)
{
    struct buffer_life *life = interp->buffers; /* the GIL's holder sees its own */
    if (!life || !atomic_load(&life->waiting))
        return;
    pthread_mutex_lock(&interp->lock);
    atomic_store(&life->waiting, false);
    subhost_buffer *buffer = life->returned, *next;
    life->returned = NULL;
    pthread_mutex_unlock(&interp->lock);
    PyObject *raised = PyErr_GetRaisedException();
    for (; buffer; buffer = next) {
        next = buffer->next;
        PyBuffer_Release(&buffer->view);
        PyErr_Clear();
        subhost__buffer_forget(buffer);
        life_unref(life);
    }
    PyErr_SetRaisedException(raised);
}
