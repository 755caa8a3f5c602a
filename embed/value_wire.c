/* Values on their way to another process, and from there: buffers are copied. */
#include "buffer.h"
#include "value.h"

#include <stdlib.h>
#include <string.h>

#include "wire.h"

static void pack_buffer(struct pack *pack, const subhost_buffer *buffer)
{
    subhost_memory memory = SUBHOST_MEMORY_INIT;
    subhost_buffer_get(buffer, &memory);
    subhost__pack_u64(pack, memory.writable != 0);
    subhost__pack_string(pack, memory.format);
    subhost__pack_u64(pack, memory.item_size);
    subhost__pack_u64(pack, (uint64_t)memory.dimensions);
    for (int i = 0; i < memory.dimensions; i++)
        subhost__pack_u64(pack, memory.shape[i]);
    subhost__pack_bytes(pack, memory.address, memory.length);
}

void subhost__buffer_list_pack(struct pack *pack, const struct buffer_list *list)
{
    subhost__pack_u64(pack, list->n);
    for (uint32_t i = 0; i < list->n; i++)
        pack_buffer(pack, list->items[i]);
}

void subhost__value_pack(struct pack *pack, const struct subhost_value *value)
{
    subhost__pack_bytes(pack, value->data, value->size);
    subhost__buffer_list_pack(pack,
                              &(struct buffer_list){value->buffers, value->n_buffers});
}

/* NULL: it makes no sense, or there is no memory. */
static subhost_buffer *unpack_buffer(struct unpack *unpack)
{
    subhost_memory memory = SUBHOST_MEMORY_INIT;
    size_t shape[SUBHOST_DIMENSIONS];
    memory.writable = subhost__unpack_u64(unpack) != 0;
    char *format = subhost__unpack_string(unpack);
    memory.format = format;
    memory.item_size = subhost__unpack_u64(unpack);
    uint64_t dimensions = subhost__unpack_u64(unpack);
    for (uint64_t i = 0; i < dimensions && i < SUBHOST_DIMENSIONS; i++)
        shape[i] = subhost__unpack_u64(unpack);
    /* Only read from. */
    memory.address = (void *)subhost__unpack_bytes(unpack, &memory.length);
    memory.dimensions = (int)dimensions;
    memory.shape = shape;
    subhost_buffer *buffer = NULL;
    if (!unpack->failed && dimensions <= SUBHOST_DIMENSIONS)
        buffer = subhost__buffer_copy(&memory);
    free(format);
    return buffer;
}

bool subhost__buffer_list_unpack(struct unpack *unpack, struct buffer_list *list)
{
    uint64_t n = subhost__unpack_u64(unpack);
    if (unpack->failed || n > unpack->size) /* each has some bytes at least */
        return false;
    *list = (struct buffer_list){calloc(n ? n : 1, sizeof(*list->items)), 0};
    for (; list->items && list->n < n; list->n++) {
        list->items[list->n] = unpack_buffer(unpack);
        if (!list->items[list->n]) {
            subhost__buffer_list_clear(list);
            return false;
        }
    }
    return list->items != NULL;
}

bool subhost__value_unpack(struct unpack *unpack, struct subhost_value *value)
{
    size_t size;
    const unsigned char *data = subhost__unpack_bytes(unpack, &size);
    struct buffer_list list = {0};
    subhost_value_clear(value);
    if (!subhost__buffer_list_unpack(unpack, &list))
        return false;
    if (subhost__value_adopt_buffers(value, list.items, list.n) < 0) {
        subhost__buffer_list_clear(&list);
        return false;
    }
    free(list.items);
    return !unpack->failed && subhost__value_load_bytes(value, data, size, NULL) == 0;
}
