/* Values: their encoding, made and read without Python. What Python objects they are is in
 * value_python.c. */
#include "value.h"

#include <stdlib.h>
#include <string.h>

/* Memory that a value keeps for the next one. */
#define KEPT_ROOM ((size_t)64 << 10)
#define DEPTH_TEXT "lists, tuples and dicts are nested too deep in one another"

#define ARRAY_LENGTH(a) (sizeof(a) / sizeof *(a))

const char *subhost_value_kind_name(enum subhost_value_kind kind)
{
    static const char *const names[] = {
#define KIND_NAME(name, text) [name] = text,
        SUBHOST_VALUE_KINDS(KIND_NAME)
#undef KIND_NAME
    };
    return (size_t)kind < ARRAY_LENGTH(names) ? names[kind] : "unknown";
}

/* ---- memory --------------------------------------------------------------------- */

int subhost_value_new(subhost_value **value, subhost_error **err)
{
    if (!value)
        return subhost__fail(err, SUBHOST_EINVAL, "subhost_value_new: value is NULL");
    subhost_value *made = calloc(1, sizeof *made);
    if (!made)
        return subhost__fail(err, SUBHOST_ENOMEM, "subhost_value_new: out of memory");
    *value = made;
    return 0;
}

void subhost__value_release(struct subhost_value *value)
{
    subhost__value_drop_buffers(value);
    free(value->buffers);
    free(value->data);
    free(value->opens);
    *value = (struct subhost_value){0};
}

void subhost_value_free(subhost_value *value)
{
    if (value)
        subhost__value_release(value);
    free(value);
}

void subhost__value_drop_buffers(struct subhost_value *value)
{
    while (value->n_buffers > 0)
        subhost_buffer_release(value->buffers[--value->n_buffers]);
}

void subhost_value_clear(subhost_value *value)
{
    subhost__value_drop_buffers(value);
    value->size = 0;
    value->code = 0;
    value->why = NULL;
    value->values = 0;
    value->depth = 0;
}

void subhost__value_trim(struct subhost_value *value)
{
    if (value->room <= KEPT_ROOM)
        return;
    free(value->data);
    value->data = NULL;
    value->room = 0;
    subhost_value_clear(value);
}

int subhost__value_fail(struct subhost_value *value, int code, const char *why)
{
    if (!value)
        return SUBHOST_EINVAL; /* where the caller had no memory for it, and did not look */
    if (!value->code) {
        value->code = code;
        value->why = why;
    }
    return value->code;
}

/* Room for so many bytes more; NULL: it has failed. */
static unsigned char *extend(subhost_value *value, size_t more)
{
    if (!value || value->code)
        return NULL;
    if (more > SUBHOST_VALUE_SIZE - value->size) {
        subhost__value_fail(value, SUBHOST_EINVAL, "the value is larger than 4 GiB");
        return NULL;
    }
    if (value->size + more > value->room) {
        size_t room = value->room ? value->room : 64;
        while (room < value->size + more)
            room *= 2;
        unsigned char *data = realloc(value->data, room);
        if (!data) {
            subhost__value_fail(value, SUBHOST_ENOMEM, "out of memory");
            return NULL;
        }
        value->data = data;
        value->room = room;
    }
    unsigned char *to = value->data + value->size;
    value->size += more;
    return to;
}

/* ---- making ---------------------------------------------------------------------- */

/* One more value where we are. */
static void count(subhost_value *value)
{
    if (value->depth)
        value->opens[value->depth - 1].count++;
    else
        value->values++;
}

static int add(subhost_value *value, enum value_tag tag, const void *data, size_t size)
{
    unsigned char *to = extend(value, 1 + size);
    if (!to)
        return subhost__value_fail(value, SUBHOST_EINVAL, "");
    *to = (unsigned char)tag;
    if (size)
        memcpy(to + 1, data, size);
    count(value);
    return 0;
}

/* A tag, a length and so many bytes. */
static int add_sized(subhost_value *value, enum value_tag tag, const void *data,
                     size_t length)
{
    uint32_t length32 = (uint32_t)length;
    size_t head = 1 + (tag == TAG_STR8 ? 1 : sizeof length32);
    if (!data && length)
        return subhost__value_fail(value, SUBHOST_EINVAL, "data is NULL");
    unsigned char *to =
        length > SUBHOST_VALUE_SIZE - head ? NULL : extend(value, head + length);
    if (!to)
        return subhost__value_fail(value, SUBHOST_EINVAL,
                                   "the value is larger than 4 GiB");
    *to = (unsigned char)tag;
    if (tag == TAG_STR8)
        to[1] = (unsigned char)length;
    else
        memcpy(to + 1, &length32, sizeof length32);
    if (length)
        memcpy(to + head, data, length);
    count(value);
    return 0;
}

int subhost_value_add_none(subhost_value *value) { return add(value, TAG_NONE, NULL, 0); }

int subhost_value_add_bool(subhost_value *value, int truth)
{
    return add(value, truth ? TAG_TRUE : TAG_FALSE, NULL, 0);
}

int subhost_value_add_int(subhost_value *value, int64_t integer)
{
    if (integer < INT8_MIN || integer > INT8_MAX)
        return add(value, TAG_INT64, &integer, sizeof integer);
    int8_t small = (int8_t)integer;
    return add(value, TAG_INT8, &small, sizeof small);
}

int subhost_value_add_bigint(subhost_value *value, const void *bytes, size_t length)
{
    if (length == 0)
        return subhost_value_add_int(value, 0);
    return add_sized(value, TAG_BIGINT, bytes, length);
}

int subhost_value_add_float(subhost_value *value, double number)
{
    return add(value, TAG_FLOAT, &number, sizeof number);
}

int subhost_value_add_str(subhost_value *value, const char *text, size_t length)
{
    return add_sized(value, length <= UINT8_MAX ? TAG_STR8 : TAG_STR, text, length);
}

int subhost_value_add_bytes(subhost_value *value, const void *bytes, size_t length)
{
    return add_sized(value, TAG_BYTES, bytes, length);
}

int subhost_value_add_json(subhost_value *value, const char *text, size_t length)
{
    return add_sized(value, TAG_JSON, text, length);
}

int subhost__value_add_pickle(struct subhost_value *value, const void *bytes,
                              size_t length)
{
    return add_sized(value, TAG_PICKLE, bytes, length);
}

int subhost__value_adopt_buffers(struct subhost_value *value, subhost_buffer **buffers,
                                 uint32_t n)
{
    if (n > value->buffers_room - value->n_buffers) {
        uint32_t room = 2 * value->buffers_room + n;
        subhost_buffer **more =
            room < n ? NULL : realloc(value->buffers, room * sizeof *more);
        if (!more)
            return subhost__value_fail(value, SUBHOST_ENOMEM, "out of memory");
        value->buffers = more;
        value->buffers_room = room;
    }
    for (uint32_t i = 0; i < n; i++)
        value->buffers[value->n_buffers++] = buffers[i];
    return 0;
}

int subhost_value_add_buffer(subhost_value *value, subhost_buffer *buffer)
{
    if (!value || !buffer)
        return subhost__value_fail(value, SUBHOST_EINVAL, "buffer is NULL");
    uint32_t number = value->n_buffers;
    if (value->code || subhost__value_adopt_buffers(value, &buffer, 1) < 0)
        return value->code;
    subhost_buffer_hold(buffer);
    return add(value, TAG_BUFFER, &number, sizeof number);
}

int subhost__value_add_apart(struct subhost_value *value, const void *bytes,
                             size_t length, subhost_buffer *const *buffers, uint32_t n)
{
    const uint32_t head[] = {value->n_buffers, n, (uint32_t)length};
    unsigned char *to = length > SUBHOST_VALUE_SIZE - sizeof head - 1
                            ? NULL
                            : extend(value, 1 + sizeof head + length);
    if (!to)
        return subhost__value_fail(value, SUBHOST_EINVAL,
                                   "the value is larger than 4 GiB");
    *to = TAG_APART;
    memcpy(to + 1, head, sizeof head);
    memcpy(to + 1 + sizeof head, bytes, length);
    if (subhost__value_adopt_buffers(value, (subhost_buffer **)buffers, n) < 0)
        return value->code;
    for (uint32_t i = 0; i < n; i++)
        subhost_buffer_hold(buffers[i]);
    count(value);
    return 0;
}

static bool grow_opens(subhost_value *value)
{
    if (value->depth < value->n_opens)
        return true;
    unsigned n = value->n_opens ? 2 * value->n_opens : 16;
    struct value_open *opens = realloc(value->opens, n * sizeof *opens);
    if (opens) {
        value->opens = opens;
        value->n_opens = n;
    }
    return opens != NULL;
}

int subhost_value_begin(subhost_value *value, enum subhost_value_kind kind)
{
    enum value_tag tag = kind == SUBHOST_VALUE_LIST    ? TAG_LIST
                         : kind == SUBHOST_VALUE_TUPLE ? TAG_TUPLE
                                                       : TAG_DICT;
    if (!value || (tag == TAG_DICT && kind != SUBHOST_VALUE_DICT))
        return subhost__value_fail(value, SUBHOST_EINVAL,
                                   "only a list, a tuple or a dict can be begun");
    if (value->depth >= SUBHOST_VALUE_DEPTH)
        return subhost__value_fail(value, SUBHOST_EINVAL, DEPTH_TEXT);
    if (!grow_opens(value))
        return subhost__value_fail(value, SUBHOST_ENOMEM, "out of memory");
    uint32_t none = 0;
    if (add(value, tag, &none, sizeof none) < 0)
        return value->code;
    value->opens[value->depth++] =
        (struct value_open){.at = value->size - sizeof none, .is_dict = tag == TAG_DICT};
    return 0;
}

int subhost_value_end(subhost_value *value)
{
    if (!value || value->code)
        return subhost__value_fail(value, SUBHOST_EINVAL, "");
    if (value->depth == 0)
        return subhost__value_fail(value, SUBHOST_EINVAL,
                                   "an end without a begin of a list, tuple or dict");
    const struct value_open *open = &value->opens[value->depth - 1];
    if (open->is_dict && open->count % 2)
        return subhost__value_fail(value, SUBHOST_EINVAL,
                                   "the last key of a dict has no value");
    uint32_t n = open->is_dict ? open->count / 2 : open->count;
    memcpy(value->data + open->at, &n, sizeof n);
    value->depth--;
    return 0;
}

int subhost_value_check(const subhost_value *value, subhost_error **err)
{
    if (!value)
        return subhost__fail(err, SUBHOST_EINVAL, "the value is NULL");
    if (value->code)
        return subhost__fail(err, value->code, "the value: %s", value->why);
    if (value->depth)
        return subhost__fail(err, SUBHOST_EINVAL,
                             "the value: %u lists, tuples or dicts are not ended",
                             value->depth);
    if (value->values != 1)
        return subhost__fail(err, SUBHOST_EINVAL, "the value: %u values, and not one",
                             value->values);
    return 0;
}

const void *subhost_value_data(const subhost_value *value, size_t *size)
{
    *size = value->size;
    return value->data;
}

/* ---- reading --------------------------------------------------------------------- */

static int bad(const char **why, const char *text)
{
    *why = text;
    return SUBHOST_EINVAL;
}

/* `size` bytes at `*at`, which moves on; NULL: there are not so many. */
static const unsigned char *take(const unsigned char *data, size_t size, size_t *at,
                                 size_t wanted)
{
    if (wanted > size - *at)
        return NULL;
    const unsigned char *found = data + *at;
    *at += wanted;
    return found;
}

static enum subhost_value_kind kind_of(enum value_tag tag)
{
    switch (tag) {
    case TAG_NONE:
        return SUBHOST_VALUE_NONE;
    case TAG_TRUE:
    case TAG_FALSE:
        return SUBHOST_VALUE_BOOL;
    case TAG_INT8:
    case TAG_INT64:
        return SUBHOST_VALUE_INT;
    case TAG_BIGINT:
        return SUBHOST_VALUE_BIGINT;
    case TAG_FLOAT:
        return SUBHOST_VALUE_FLOAT;
    case TAG_STR8:
    case TAG_STR:
        return SUBHOST_VALUE_STR;
    case TAG_BYTES:
        return SUBHOST_VALUE_BYTES;
    case TAG_LIST:
        return SUBHOST_VALUE_LIST;
    case TAG_TUPLE:
        return SUBHOST_VALUE_TUPLE;
    case TAG_DICT:
        return SUBHOST_VALUE_DICT;
    case TAG_PICKLE:
    case TAG_APART:
        return SUBHOST_VALUE_PICKLE;
    case TAG_BUFFER:
        return SUBHOST_VALUE_BUFFER;
    case TAG_JSON:
        break;
    }
    return SUBHOST_VALUE_JSON;
}

static bool is_container(enum value_tag tag)
{
    return tag == TAG_LIST || tag == TAG_TUPLE || tag == TAG_DICT;
}

/* What stands behind the tag. */
static int step_body(const unsigned char *data, size_t size, size_t *at,
                     enum value_tag tag, subhost_item *item, const char **why)
{
    const unsigned char *from;
    uint32_t length = 0, numbers[2];
    switch (tag) {
    case TAG_NONE:
    case TAG_FALSE:
        return 1;
    case TAG_TRUE:
        item->integer = 1;
        return 1;
    case TAG_INT8:
        if (!(from = take(data, size, at, 1)))
            break;
        item->integer = (int8_t)*from;
        return 1;
    case TAG_INT64:
        if (!(from = take(data, size, at, sizeof item->integer)))
            break;
        memcpy(&item->integer, from, sizeof item->integer);
        return 1;
    case TAG_FLOAT:
        if (!(from = take(data, size, at, sizeof item->number)))
            break;
        memcpy(&item->number, from, sizeof item->number);
        return 1;
    case TAG_BUFFER:
        if (!(from = take(data, size, at, sizeof length)))
            break;
        memcpy(&length, from, sizeof length);
        item->integer = length;
        return 1;
    case TAG_APART:
        if (!(from = take(data, size, at, sizeof numbers)))
            break;
        memcpy(numbers, from, sizeof numbers);
        item->integer = (int64_t)((uint64_t)numbers[1] << 32 | numbers[0]);
        /* fall through */
    case TAG_BIGINT:
    case TAG_STR8:
    case TAG_STR:
    case TAG_BYTES:
    case TAG_PICKLE:
    case TAG_JSON:
    case TAG_LIST:
    case TAG_TUPLE:
    case TAG_DICT:
        if (!(from = take(data, size, at, tag == TAG_STR8 ? 1 : sizeof length)))
            break;
        if (tag == TAG_STR8)
            length = *from;
        else
            memcpy(&length, from, sizeof length);
        item->length = length;
        if (is_container(tag))
            /* Each of them has a byte at least: no reservation by what is not there. */
            return (tag == TAG_DICT ? (uint64_t)2 * length : length) <= size - *at
                       ? 1
                       : bad(why, "a count is larger than what follows");
        if (!(item->data = take(data, size, at, length)))
            break;
        return 1;
    }
    return bad(why, "it ends in the middle of a value");
}

int subhost__value_step(const unsigned char *data, size_t size, size_t *at,
                        subhost_item *item, const char **why)
{
    static const char tags[] = {
#define VALUE_TAG_LETTER(name, letter) letter,
        VALUE_TAGS(VALUE_TAG_LETTER)
#undef VALUE_TAG_LETTER
    };
    if (*at >= size)
        return 0;
    int tag = data[*at];
    if (!memchr(tags, tag, sizeof tags))
        return bad(why, "a tag that is none");
    ++*at;
    item->kind = kind_of((enum value_tag)tag);
    item->integer = 0;
    item->number = 0;
    item->data = NULL;
    item->length = 0;
    item->buffer = NULL;
    return step_body(data, size, at, (enum value_tag)tag, item, why);
}

int subhost_value_next(const subhost_value *value, size_t *at, subhost_item *item,
                       subhost_error **err)
{
    if (!value || !at || !item || item->size < sizeof item->size)
        return subhost__fail(err, SUBHOST_EINVAL, "subhost_value_next: %s",
                             !value  ? "value is NULL"
                             : !at   ? "at is NULL"
                             : !item ? "item is NULL"
                                     : "the item's size field is not set");
    const char *why = "";
    subhost_item full = SUBHOST_ITEM_INIT;
    int code = subhost__value_step(value->data, value->size, at, &full, &why);
    if (code > 0 && full.kind == SUBHOST_VALUE_BUFFER) {
        subhost_memory memory = SUBHOST_MEMORY_INIT;
        full.buffer = value->buffers[full.integer];
        subhost_buffer_get(full.buffer, &memory);
        full.data = memory.address;
        full.length = memory.length;
        full.integer = 0;
    } else if (code > 0 && full.kind == SUBHOST_VALUE_PICKLE) {
        full.integer = 0;
    }
    full.size = item->size < sizeof full ? item->size : sizeof full;
    if (code > 0)
        memcpy(item, &full, full.size);
    return code < 0 ? subhost__fail(err, code, "an encoded value: %s", why) : code;
}

/* Whether the buffers that an item refers to are there. */
static bool has_buffers(const subhost_item *item, uint32_t n)
{
    uint64_t number = (uint64_t)item->integer;
    if (item->kind == SUBHOST_VALUE_BUFFER)
        return number < n;
    if (item->kind == SUBHOST_VALUE_PICKLE)
        return (number & UINT32_MAX) + (number >> 32) <= n;
    return true;
}

/* Whether the bytes are one value, whole, with so many buffers. */
static int check_bytes(const unsigned char *data, size_t size, uint32_t n_buffers,
                       const char **why)
{
    uint64_t open[SUBHOST_VALUE_DEPTH + 1] = {1}; /* what is still to come, per level */
    unsigned depth = 0;
    size_t at = 0;
    subhost_item item = SUBHOST_ITEM_INIT;
    while (open[0] > 0 || depth > 0) {
        int code = subhost__value_step(data, size, &at, &item, why);
        if (code <= 0)
            return code < 0 ? code : bad(why, "it ends before its last value");
        if (!has_buffers(&item, n_buffers))
            return bad(why, "it refers to a buffer, which bytes alone do not have: "
                            "subhost_value_copy() takes it along");
        open[depth]--;
        if (item.kind >= SUBHOST_VALUE_LIST && item.kind <= SUBHOST_VALUE_DICT) {
            if (depth == SUBHOST_VALUE_DEPTH)
                return bad(why, DEPTH_TEXT);
            open[++depth] =
                item.kind == SUBHOST_VALUE_DICT ? 2 * item.length : item.length;
        }
        while (depth > 0 && open[depth] == 0)
            depth--;
    }
    return at == size ? 0 : bad(why, "something follows its end");
}

int subhost_value_load(subhost_value *value, const void *data, size_t size,
                       subhost_error **err)
{
    if (!value || (!data && size))
        return subhost__fail(err, SUBHOST_EINVAL, "subhost_value_load: %s is NULL",
                             value ? "data" : "value");
    const char *why = "it is empty";
    if (size == 0 || check_bytes(data, size, 0, &why) < 0)
        return subhost__fail(err, SUBHOST_EINVAL, "an encoded value: %s", why);
    subhost_value_clear(value);
    return subhost__value_load_bytes(value, data, size, err);
}

int subhost__value_load_bytes(struct subhost_value *value, const void *data, size_t size,
                              subhost_error **err)
{
    const char *why = "it is empty";
    if (size == 0 || check_bytes(data, size, value->n_buffers, &why) < 0)
        return subhost__fail(err, SUBHOST_EINVAL, "an encoded value: %s", why);
    unsigned char *to = extend(value, size);
    if (!to)
        return subhost__fail(err, value->code, "an encoded value: %s", value->why);
    memcpy(to, data, size);
    value->values = 1;
    return 0;
}

int subhost_value_copy(subhost_value *value, const subhost_value *from,
                       subhost_error **err)
{
    if (!value || !from)
        return subhost__fail(err, SUBHOST_EINVAL, "subhost_value_copy: %s is NULL",
                             value ? "from" : "value");
    int code = value == from ? 0 : subhost_value_check(from, err);
    if (code || value == from)
        return code;
    subhost_value_clear(value);
    unsigned char *to = extend(value, from->size);
    if (!to || subhost__value_adopt_buffers(value, from->buffers, from->n_buffers) < 0)
        return subhost__fail(err, value->code, "subhost_value_copy: %s", value->why);
    for (uint32_t i = 0; i < value->n_buffers; i++)
        subhost_buffer_hold(value->buffers[i]);
    memcpy(to, from->data, from->size);
    value->values = 1;
    return 0;
}
