/* Records of events: a head, struct trail_head, and the values, one behind the other. A number
 * is its field and eight bytes, a text its field, its length and itself with a NUL.
 *
 * Whoever notes an event should lose no time with it, and a record is made in a quarter of the
 * time that its line takes. */
#define _GNU_SOURCE
#include "audit/trail_record.h"

#include <stdbool.h>
#include <string.h>

/* At the begin of each record. */
struct start {
    uint32_t size; /* of the whole record */
    uint32_t is_lines;
};
_Static_assert(sizeof(struct start) == TRAIL_LINES_HEAD, "nothing else is before lines");

/* A character of a text that is cut has at most so many bytes. */
#define CHARACTER_MAX 4
#define STRING_MAX ((size_t)TRAIL_TEXT_MAX + CHARACTER_MAX)
#define VALUES_MAX TRAIL_FIELD_COUNT /* an event has a field once */

/* ---- noting ----------------------------------------------------------------------- */

struct writer {
    char *at, *end;
};

static bool put(struct writer *out, const void *data, size_t size)
{
    if ((size_t)(out->end - out->at) < size)
        return false;
    memcpy(out->at, data, size);
    out->at += size;
    return true;
}

/* Of each string of the list as much as its line takes, until that is full. */
static bool put_list(struct writer *out, const char *list)
{
    const char *const begin = out->at;
    for (const char *at = list;; at++) {
        size_t length = strcspn(at, (const char[]){TRAIL_NEXT, '\0'});
        if (!put(out, at, length < STRING_MAX ? length : STRING_MAX))
            return false;
        at += length;
        /* Beyond it, that there is more is all that a line tells. */
        if (!*at || (size_t)(out->at - begin) > TRAIL_LIST_MAX + STRING_MAX)
            return true;
        if (!put(out, at, 1))
            return false;
    }
}

static bool put_text(struct writer *out, enum trail_kind kind, const char *text)
{
    if (kind == TRAIL_KIND_LIST)
        return put_list(out, text) && put(out, "", 1);
    size_t max = kind == TRAIL_KIND_LONG ? TRAIL_LONG_MAX : TRAIL_TEXT_MAX;
    return put(out, text, strnlen(text, max + CHARACTER_MAX)) && put(out, "", 1);
}

static bool put_value(struct writer *out, const struct trail_value *value)
{
    const unsigned char field = (unsigned char)value->field;
    const enum trail_kind kind = subhost__trail_kind(value->field);
    if (!put(out, &field, sizeof field))
        return false;
    if (!subhost__trail_is_text(kind))
        return put(out, &value->number, sizeof value->number);
    uint16_t length = 0;
    char *const length_at = out->at;
    if (!put(out, &length, sizeof length) || !put_text(out, kind, value->text))
        return false;
    length = (uint16_t)(out->at - length_at - (ptrdiff_t)sizeof length);
    memcpy(length_at, &length, sizeof length);
    return true;
}

_Static_assert(TRAIL_FIELD_COUNT <= UINT8_MAX, "a field is one byte");
_Static_assert(TRAIL_RECORD_MAX <= UINT16_MAX, "a length is two");

size_t subhost__trail_record(char record[TRAIL_RECORD_MAX], const struct trail_head *head,
                             const struct trail_value *values)
{
    struct writer out = {.at = record + sizeof(struct start),
                         .end = record + TRAIL_RECORD_MAX};
    put(&out, head, sizeof *head);
    for (; values->field != FIELD_END; values++) {
        struct writer before = out;
        if (!subhost__trail_is_none(values) && !put_value(&out, values))
            out = before;
    }
    struct start start = {.size = (uint32_t)(out.at - record)};
    memcpy(record, &start, sizeof start);
    return start.size;
}

void subhost__trail_lines_head(char head[TRAIL_LINES_HEAD], size_t size)
{
    struct start start = {.size = (uint32_t)(sizeof start + size), .is_lines = true};
    memcpy(head, &start, sizeof start);
}

/* ---- lines ------------------------------------------------------------------------ */

/* One value; returns what is behind it. */
static const char *get_value(const char *at, struct trail_value *value)
{
    *value = (struct trail_value){.field = (enum trail_field)(unsigned char)*at++};
    if (!subhost__trail_is_text(subhost__trail_kind(value->field))) {
        memcpy(&value->number, at, sizeof value->number);
        return at + sizeof value->number;
    }
    uint16_t length;
    memcpy(&length, at, sizeof length);
    value->text = at + sizeof length;
    return value->text + length;
}

static size_t line_of(const char *record, size_t size, char line[TRAIL_LINE_MAX])
{
    struct trail_head head;
    struct trail_value values[VALUES_MAX];
    size_t count = 0;
    const char *at = record + sizeof(struct start), *end = record + size;
    memcpy(&head, at, sizeof head);
    if (head.wall.tv_sec == 0)
        subhost__trail_wall(&head);
    at += sizeof head;
    while (at < end && count < VALUES_MAX - 1)
        at = get_value(at, &values[count++]);
    values[count].field = FIELD_END;
    return subhost__trail_line(line, &head, values);
}

size_t subhost__trail_render(const char *records, size_t size, size_t *at, char *text,
                             size_t room)
{
    size_t used = 0;
    while (*at < size) {
        struct start start;
        const char *record = records + *at;
        memcpy(&start, record, sizeof start);
        size_t needed = start.is_lines ? start.size - sizeof start : TRAIL_LINE_MAX;
        if (room - used < needed)
            break;
        if (start.is_lines)
            memcpy(text + used, record + sizeof start, needed);
        used += start.is_lines ? needed : line_of(record, start.size, text + used);
        *at += start.size;
    }
    return used;
}
