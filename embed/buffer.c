/* Buffers: how they are counted, and given back. What they are in Python: buffer_python.c. */
#include "buffer.h"

#include <stdlib.h>
#include <string.h>

#include "options.h"

/* ---- what a buffer is ------------------------------------------------------------- */

/* The size of an item by a format of one letter, as Python's module struct has it; 0: it is
 * none of these. */
static size_t native_size(const char *format)
{
    static const struct {
        char letter;
        unsigned char size;
    } sizes[] = {
        {'b', 1},
        {'B', 1},
        {'c', 1},
        {'?', sizeof(_Bool)},
        {'h', sizeof(short)},
        {'H', sizeof(short)},
        {'i', sizeof(int)},
        {'I', sizeof(int)},
        {'l', sizeof(long)},
        {'L', sizeof(long)},
        {'q', sizeof(long long)},
        {'Q', sizeof(long long)},
        {'n', sizeof(ssize_t)},
        {'N', sizeof(size_t)},
        {'e', 2},
        {'f', sizeof(float)},
        {'d', sizeof(double)},
        {'P', sizeof(void *)},
    };
    if (*format == '@')
        format++;
    for (size_t i = 0; *format && !format[1] && i < ARRAY_LENGTH(sizes); i++)
        if (sizes[i].letter == *format)
            return sizes[i].size;
    return 0;
}

/* Why the dimensions are wrong, or NULL. */
static const char *check_shape(const subhost_memory *memory)
{
    if (memory->dimensions < 0 || memory->dimensions > SUBHOST_DIMENSIONS)
        return "dimensions is not from 0 to SUBHOST_DIMENSIONS";
    if (memory->dimensions == 0)
        return NULL;
    if (!memory->shape)
        return "shape is NULL";
    size_t left = memory->length / memory->item_size;
    bool empty = left == 0, has_zero = false;
    for (int i = 0; i < memory->dimensions; i++) {
        size_t n = memory->shape[i];
        has_zero = has_zero || n == 0;
        if (!empty && (n == 0 || left % n != 0))
            return "shape is not that of length / item_size items";
        left = empty ? left : left / n;
    }
    return (empty ? has_zero : left == 1)
               ? NULL
               : "shape is not that of length / item_size items";
}

/* Fills in what was left out; why it is wrong, or NULL. */
static const char *complete(subhost_memory *memory)
{
    if (!memory->address && memory->length)
        return "address is NULL";
    if (memory->length > PTRDIFF_MAX)
        return "length is larger than PTRDIFF_MAX";
    size_t native = memory->format ? native_size(memory->format) : 1;
    if (memory->format && !*memory->format)
        return "format is empty";
    if (!memory->item_size)
        memory->item_size = native;
    if (!memory->item_size)
        return "item_size is 0, and the format is not of one letter";
    if (native && memory->item_size != native)
        return "item_size is not that of the format";
    if (memory->length % memory->item_size)
        return "length is no multiple of item_size";
    return check_shape(memory);
}

subhost_buffer *subhost__buffer_make(const subhost_memory *memory)
{
    const char *format = memory->format ? memory->format : "B";
    size_t n = strlen(format) + 1;
    subhost_buffer *buffer = calloc(1, sizeof *buffer + n);
    if (!buffer)
        return NULL;
    atomic_init(&buffer->refs, 1);
    atomic_init(&buffer->structs, 1);
    memcpy(buffer->format, format, n);
    subhost_memory *m = &buffer->memory;
    *m = *memory;
    m->size = sizeof *m;
    m->format = buffer->format;
    m->shape = buffer->shape;
    buffer->shape[0] = m->length / m->item_size;
    if (m->dimensions)
        memcpy(buffer->shape, memory->shape, (size_t)m->dimensions * sizeof *m->shape);
    else
        m->dimensions = 1;
    ssize_t stride = (ssize_t)m->item_size;
    for (int i = m->dimensions - 1; i >= 0; i--) {
        buffer->strides[i] = stride;
        stride *= (ssize_t)buffer->shape[i];
    }
    return buffer;
}

subhost_buffer *subhost__buffer_part(subhost_buffer *whole, const subhost_memory *memory)
{
    subhost_buffer *part = subhost__buffer_make(memory);
    if (part)
        part->whole = subhost_buffer_hold(whole);
    return part;
}

int subhost_buffer_new(const subhost_memory *memory, subhost_release release, void *data,
                       subhost_buffer **buffer, subhost_error **err)
{
    if (!memory || !buffer)
        return subhost__fail(err, SUBHOST_EINVAL, "subhost_buffer_new: %s is NULL",
                             memory ? "buffer" : "memory");
    subhost_memory full = SUBHOST_MEMORY_INIT;
    int code = subhost__options_take(&full, sizeof full, memory, "subhost_memory", err);
    if (code)
        return code;
    const char *why = complete(&full);
    if (why)
        return subhost__fail(err, SUBHOST_EINVAL, "subhost_memory: %s", why);
    subhost_buffer *made = subhost__buffer_make(&full);
    if (!made)
        return subhost__fail(err, SUBHOST_ENOMEM, "subhost_buffer_new: out of memory");
    made->release = release;
    made->data = data;
    *buffer = made;
    return 0;
}

void subhost_buffer_get(const subhost_buffer *buffer, subhost_memory *memory)
{
    subhost_memory copy = buffer->memory;
    copy.size = memory->size < sizeof copy ? memory->size : sizeof copy;
    memcpy(memory, &copy, copy.size);
}

/* ---- counting --------------------------------------------------------------------- */

subhost_buffer *subhost_buffer_hold(subhost_buffer *buffer)
{
    if (buffer)
        atomic_fetch_add(&buffer->refs, 1);
    return buffer;
}

void subhost__buffer_forget(subhost_buffer *buffer)
{
    if (buffer && atomic_fetch_sub(&buffer->structs, 1) == 1)
        free(buffer);
}

static void free_copy(void *address, int in_use, void *data)
{
    (void)data;
    if (!in_use)
        free(address);
}

subhost_buffer *subhost__buffer_copy(const subhost_memory *memory)
{
    subhost_memory copy = *memory;
    subhost_buffer *buffer = NULL;
    copy.address = malloc(copy.length ? copy.length : 1);
    if (!copy.address)
        return NULL;
    if (copy.length)
        memcpy(copy.address, memory->address, copy.length);
    if (subhost_buffer_new(&copy, free_copy, NULL, &buffer, NULL) < 0)
        free(copy.address);
    return buffer;
}

bool subhost__buffer_list_copy(struct buffer_list *copy, const struct buffer_list *list)
{
    *copy = (struct buffer_list){calloc(list->n ? list->n : 1, sizeof(*copy->items)), 0};
    for (; copy->items && copy->n < list->n; copy->n++)
        copy->items[copy->n] = subhost_buffer_hold(list->items[copy->n]);
    return copy->items != NULL;
}

void subhost__buffer_list_clear(struct buffer_list *list)
{
    while (list->n > 0)
        subhost_buffer_release(list->items[--list->n]);
    free(list->items);
    list->items = NULL;
}

void subhost_buffer_release(subhost_buffer *buffer)
{
    if (!buffer || atomic_fetch_sub(&buffer->refs, 1) != 1)
        return;
    bool in_use = atomic_load(&buffer->in_use);
    if (buffer->whole) {
        if (in_use)
            atomic_store(&buffer->whole->in_use, true);
        subhost_buffer_release(buffer->whole);
    } else if (buffer->life) {
        if (in_use)
            subhost__buffer_lose(buffer);
        else
            subhost__buffer_return(buffer);
    } else if (buffer->release) {
        buffer->release(buffer->memory.address, in_use, buffer->data);
    }
    subhost__buffer_forget(buffer);
}
