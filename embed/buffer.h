/* Buffers: memory that values refer to instead of having its bytes.
 *
 *   buffer.c         counting, and whose the memory is: C's, or a part of another buffer
 *   buffer_python.c  Python's side: memoryviews of buffers, and buffers of Python's objects
 *
 * An interpreter that has a buffer, or has lent one, has a `buffer_life`: from the first of
 * these to its end. What it still has then goes back when nobody has any more what it has
 * lent, because that may be a part of it (an array over C's memory). What it has lent is never
 * freed: no interpreter is left that could. */
#ifndef SUBHOST_BUFFER_H
#define SUBHOST_BUFFER_H

#include "interp.h"

struct buffer_life;

struct subhost_buffer {
    atomic_int refs;    /* of who may use the memory */
    atomic_int structs; /* of who may look in here: one for all of `refs`, and others */
    atomic_bool in_use; /* it was in an interpreter that was abandoned */
    subhost_memory memory; /* format and shape point into this */
    /* Of C's memory: */
    subhost_release release;
    void *data;
    /* A part of another; owned: */
    subhost_buffer *whole;
    /* Of a Python object's: with the GIL of `life` only, a reference to which it has. */
    struct buffer_life *life;
    Py_buffer view;
    subhost_buffer *next; /* of those that are to be released there */
    size_t shape[SUBHOST_DIMENSIONS];
    ssize_t strides[SUBHOST_DIMENSIONS];
    char format[];
};

/* buffer.c */
/* Copies what `memory` says, which is valid. NULL: no memory. */
subhost_buffer *subhost__buffer_make(const subhost_memory *memory);
/* A part of `whole`, to which it takes a reference. NULL: no memory. */
subhost_buffer *subhost__buffer_part(subhost_buffer *whole, const subhost_memory *memory);
void subhost__buffer_forget(subhost_buffer *buffer); /* one of `structs` */
/* Of a copy of the bytes, which it owns. NULL: no memory. */
subhost_buffer *subhost__buffer_copy(const subhost_memory *memory);
/* Another reference to each. False: no memory, and `copy` is empty. */
bool subhost__buffer_list_copy(struct buffer_list *copy, const struct buffer_list *list);
void subhost__buffer_list_clear(struct buffer_list *list);

/* value_wire.c: with copies of the bytes. False: it makes no sense, or no memory. */
struct pack;
struct unpack;
void subhost__buffer_list_pack(struct pack *pack, const struct buffer_list *list);
bool subhost__buffer_list_unpack(struct unpack *unpack, struct buffer_list *list);

/* buffer_python.c */
/* Nobody has the buffer of a Python object any more: its interpreter is to release it, if it
 * still can. Any thread, GIL or not. */
void subhost__buffer_return(subhost_buffer *buffer);
/* The same where a lost thread may be using it for as long as the process lives: the object, and
 * its memory, stay. */
void subhost__buffer_lose(const subhost_buffer *buffer);

/* What an interpreter has of a buffer. A node of its own, and not in a Python object, because
 * such an object need not be freed at an interpreter's end. */
struct exposure {
    struct exposure *next, **at; /* in buffer_life's list; interp->lock */
    subhost_interp *interp;
    subhost_buffer *buffer; /* NULL: taken away; interp->lock */
    subhost_buffer *looks;  /* the same, of which it has one of `structs` */
    unsigned refs;          /* GIL */
};
/* NULL: no memory. GIL held. */
struct exposure *subhost__buffer_expose(subhost_interp *interp, subhost_buffer *buffer);
void subhost__exposure_drop(struct exposure *exposure);
/* A memoryview of it; NULL with an exception. GIL held. */
PyObject *subhost__exposure_view(struct exposure *exposure);

/* The same of a buffer that nobody gave it before. */
PyObject *subhost__buffer_view(subhost_interp *interp, subhost_buffer *buffer);

/* The memory of an object with the buffer protocol, C-contiguous: a new reference, or NULL with
 * an exception. Of a memoryview over a buffer: that one, or a part of it. GIL held. */
subhost_buffer *subhost__buffer_of(subhost_interp *interp, PyObject *object);

/* The same of each object in a list. False with an exception, and `lent` is empty. */
bool subhost__buffers_lend(subhost_interp *interp, PyObject *objects,
                           struct buffer_list *lent);
/* Copies of the objects' bytes, in C's memory: what outlives the interpreter. As above. */
bool subhost__buffers_copy(PyObject *objects, struct buffer_list *copies);
/* A list of memoryviews of them; NULL with an exception. */
PyObject *subhost__buffers_view(subhost_interp *interp, const struct buffer_list *list);

/* Releases what was given back. GIL held. */
void subhost__buffers_collect(subhost_interp *interp);
/* The interpreter has ended. Its driver. */
void subhost__buffers_end(subhost_interp *interp);
/* It was abandoned: what it had is given up. */
void subhost__buffers_abandon(subhost_interp *interp);

#endif
