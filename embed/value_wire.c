/* Values on their way to another process, and from there: buffers are copied. */
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

void subhost__value_pack(struct pack *pack, const struct subhost_value *value)
{
    subhost__pack_bytes(pack, value->data, value->size);
    subhost__pack_u64(pack, value->n_buffers);
    for (uint32_t i = 0; i < value->n_buffers; i++)
        pack_buffer(pack, value->buffers[i]);
}

static void free_copy(void *address, int in_use, void *data)
{
    (void)data;
    if (!in_use)
        free(address);
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
    const void *bytes = subhost__unpack_bytes(unpack, &memory.length);
    memory.dimensions = (int)dimensions;
    memory.shape = shape;
    subhost_buffer *buffer = NULL;
    bool ok = !unpack->failed && dimensions <= SUBHOST_DIMENSIONS;
    memory.address = ok ? malloc(memory.length ? memory.length : 1) : NULL;
    if (memory.address) {
        if (memory.length)
            memcpy(memory.address, bytes, memory.length);
        if (subhost_buffer_new(&memory, free_copy, NULL, &buffer, NULL) < 0)
            free(memory.address);
    }
    free(format);
    return buffer;
}

bool subhost__value_unpack(struct unpack *unpack, struct subhost_value *value)
{
    size_t size;
    const unsigned char *data = subhost__unpack_bytes(unpack, &size);
    uint64_t n = subhost__unpack_u64(unpack);
    subhost_value_clear(value);
    for (uint64_t i = 0; i < n; i++) {
        subhost_buffer *buffer = unpack_buffer(unpack);
        if (!buffer || subhost__value_adopt_buffers(value, &buffer, 1) < 0) {
            subhost_buffer_release(buffer);
            return false;
        }
    }
    return !unpack->failed && subhost__value_load_bytes(value, data, size, NULL) == 0;
}
