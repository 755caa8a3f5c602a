/* An event as one line of JSON (RFC 8259), in UTF-8.
 *
 * Without stdio and without memory of its own, in a sixth of a microsecond. gmtime_r() would
 * take a lock that a fork may leave held. */
#define _GNU_SOURCE
#include "audit/trail_line.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#define NSEC_PER_SEC INT64_C(1000000000)

#define FIELD_KEY(name) ", \"" name "\": " /* with what is around it */
static const struct {
    const char *key;
    size_t length;
    enum trail_kind kind;
} fields[TRAIL_FIELD_COUNT] = {
#define FIELD_ROW(field, name, kind, text)                                               \
    [FIELD_##field] = {FIELD_KEY(name), sizeof(FIELD_KEY(name)) - 1, TRAIL_KIND_##kind},
    TRAIL_FIELDS(FIELD_ROW)
#undef FIELD_ROW
};

static const struct {
    const char *text;
    size_t length;
} event_names[TRAIL_EVENT_COUNT] = {
#define EVENT_NAME(event, name, text, fields)                                            \
    [EVENT_##                                                                            \
        event] = {", \"event\": \"" name "\"", sizeof(", \"event\": \"" name "\"") - 1},
    TRAIL_EVENTS(EVENT_NAME)
#undef EVENT_NAME
};

/* What is written to; what does not fit is not written, and `full` says so. */
struct cursor {
    char *at, *end;
    bool full;
};

static inline void put(struct cursor *out, const char *text, size_t size)
{
    if (out->full || (size_t)(out->end - out->at) < size) {
        out->full = true;
        return;
    }
    memcpy(out->at, text, size);
    out->at += size;
}

/* The compiler knows their length. */
#define PUT(out, literal) put((out), "" literal, sizeof(literal) - 1)

/* With leading zeros up to `width`. */
static void put_digits(struct cursor *out, uint64_t value, int width)
{
    static const char pairs[] = "00010203040506070809101112131415161718192021222324"
                                "25262728293031323334353637383940414243444546474849"
                                "50515253545556575859606162636465666768697071727374"
                                "75767778798081828384858687888990919293949596979899";
    char digits[24];
    char *const end = digits + sizeof digits;
    char *at = end;
    for (; value >= 10; value /= 100)
        memcpy(at -= 2, pairs + 2 * (value % 100), 2);
    if (value > 0 || at == end)
        *--at = (char)('0' + value);
    while (end - at < width)
        *--at = '0';
    put(out, at, (size_t)(end - at));
}

static void put_number(struct cursor *out, int64_t value)
{
    if (value < 0)
        PUT(out, "-");
    put_digits(out, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, 1);
}

static void put_seconds(struct cursor *out, int64_t ns)
{
    put_digits(out, (uint64_t)ns / 1000000000, 1);
    PUT(out, ".");
    put_digits(out, (uint64_t)ns % 1000000000, 9);
}

/* ---- strings ---------------------------------------------------------------------- */

/* The length of the UTF-8 sequence at `c`; 0: it is none (RFC 3629: no overlong forms, no
 * surrogates, nothing beyond U+10FFFF). `c` ends with a NUL. */
static size_t sequence(const unsigned char *c)
{
    unsigned char low = 0x80, high = 0xBF;
    size_t length;
    if (c[0] < 0x80)
        return 1;
    if (c[0] >= 0xC2 && c[0] <= 0xDF)
        length = 2;
    else if ((c[0] & 0xF0) == 0xE0)
        length = 3;
    else if (c[0] >= 0xF0 && c[0] <= 0xF4)
        length = 4;
    else
        return 0;
    if (c[0] == 0xE0)
        low = 0xA0;
    else if (c[0] == 0xED)
        high = 0x9F;
    else if (c[0] == 0xF0)
        low = 0x90;
    else if (c[0] == 0xF4)
        high = 0x8F;
    if (c[1] < low || c[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((c[i] & 0xC0) != 0x80)
            return 0;
    return length;
}

/* How many characters need no look, and have room. */
static size_t simple_run(const unsigned char *c, ptrdiff_t room)
{
    ptrdiff_t run = 0;
    while (run < room && c[run] >= 0x20 && c[run] < 0x80 && c[run] != '"' &&
           c[run] != '\\')
        run++;
    return (size_t)run;
}

/* One character of a JSON string. A byte that is not UTF-8 (names are bytes to the system)
 * is written as the surrogate that Python makes of it. Returns how many bytes it was. */
static size_t put_character(struct cursor *out, const unsigned char *c)
{
    static const char hex[] = "0123456789abcdef";
    size_t length = sequence(c);
    if (length == 0 || *c < 0x20) {
        char escape[6] = {
            '\\',         'u',         length ? '0' : 'd', length ? '0' : 'c',
            hex[*c >> 4], hex[*c & 15]};
        put(out, escape, sizeof escape);
        return 1;
    }
    if (*c == '"' || *c == '\\')
        PUT(out, "\\");
    put(out, (const char *)c, length);
    return length;
}

/* Up to a NUL or `stop`; of a longer text the beginning. Returns where the text ended. */
static const char *put_string(struct cursor *out, const char *text, char stop, size_t max)
{
    static const char cut[] = "...\"";
    struct cursor string = *out;
    if ((size_t)(out->end - out->at) > max)
        string.end = out->at + max;
    PUT(&string, "\"");
    struct cursor safe = string; /* the last place where the cut still fits */
    const unsigned char *c = (const unsigned char *)text;
    while (*c && *c != (unsigned char)stop && !string.full) {
        size_t run = simple_run(c, string.end - string.at - (ptrdiff_t)sizeof cut);
        if (run > 0) {
            memcpy(string.at, c, run);
            string.at += run;
            c += run;
            safe = string;
            continue;
        }
        c += put_character(&string, c);
        if (!string.full && (size_t)(string.end - string.at) >= sizeof cut - 1)
            safe = string;
    }
    PUT(&string, "\"");
    if (string.full) {
        safe.full = out->full;
        put(&safe, cut, sizeof cut - 1);
        string = safe;
        while (*c && *c != (unsigned char)stop)
            c++;
    }
    out->at = string.at;
    out->full = out->full || string.full;
    return (const char *)c;
}

/* As many of the strings as fit; "..." stands for the others. */
static void put_list(struct cursor *out, const char *text)
{
    static const char others[] = ", \"...\"]";
    struct cursor list = *out, whole;
    if ((size_t)(out->end - out->at) > TRAIL_LIST_MAX)
        list.end = out->at + TRAIL_LIST_MAX;
    list.end -= sizeof others - 1;
    PUT(&list, "[");
    const char *at = text;
    do {
        whole = list;
        if (at != text)
            PUT(&list, ", ");
        at = put_string(&list, at, TRAIL_NEXT, TRAIL_TEXT_MAX);
    } while (!list.full && *at++);
    bool cut = list.full;
    if (cut)
        list = whole;
    list.end = out->end;
    put(&list, cut ? others : "]", cut ? sizeof others - 1 : 1);
    out->at = list.at;
    out->full = out->full || list.full;
}

/* ---- the line --------------------------------------------------------------------- */

/* UTC, "2026-11-22T21:48:27"; the days as in Howard Hinnant's "chrono-compatible low-level
 * date algorithms", civil_from_days(). */
static void put_date(struct cursor *out, int64_t at)
{
    int64_t day = at / 86400, second = at % 86400;
    int64_t z = day + 719468, era = z / 146097;
    int64_t doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    int64_t month = mp < 10 ? mp + 3 : mp - 9;
    const struct {
        int64_t value;
        int width;
        char after;
    } parts[] = {{yoe + era * 400 + (month <= 2), 4, '-'},
                 {month, 2, '-'},
                 {doy - (153 * mp + 2) / 5 + 1, 2, 'T'},
                 {second / 3600, 2, ':'},
                 {second / 60 % 60, 2, ':'},
                 {second % 60, 2, '.'}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        put_digits(out, (uint64_t)parts[i].value, parts[i].width);
        put(out, &parts[i].after, 1);
    }
}

/* The date is that of the line before, as a rule. */
static void put_wall(struct cursor *out, const struct timespec *wall)
{
    static _Thread_local struct {
        bool known;
        time_t second;
        size_t length;
        char text[32];
    } last;
    if (!last.known || last.second != wall->tv_sec) {
        struct cursor date = {.at = last.text, .end = last.text + sizeof last.text};
        put_date(&date, wall->tv_sec);
        last.known = true;
        last.second = wall->tv_sec;
        last.length = (size_t)(date.at - last.text);
    }
    PUT(out, ", \"wall\": \"");
    put(out, last.text, last.length);
    put_digits(out, (uint64_t)wall->tv_nsec / 1000, 6);
    PUT(out, "Z\"");
}

void subhost__trail_wall(struct trail_head *head)
{
    struct timespec monotonic, wall;
    clock_gettime(CLOCK_MONOTONIC, &monotonic);
    clock_gettime(CLOCK_REALTIME, &wall);
    int64_t age = (int64_t)(monotonic.tv_sec - head->monotonic.tv_sec) * NSEC_PER_SEC +
                  monotonic.tv_nsec - head->monotonic.tv_nsec;
    int64_t at = (int64_t)wall.tv_sec * NSEC_PER_SEC + wall.tv_nsec - age;
    head->wall =
        (struct timespec){.tv_sec = at / NSEC_PER_SEC, .tv_nsec = at % NSEC_PER_SEC};
}

enum trail_kind subhost__trail_kind(enum trail_field field) { return fields[field].kind; }

bool subhost__trail_is_none(const struct trail_value *value)
{
    switch (fields[value->field].kind) {
    case TRAIL_KIND_TEXT:
    case TRAIL_KIND_LONG:
    case TRAIL_KIND_LIST:
        return !value->text || !*value->text;
    case TRAIL_KIND_ID:
        return value->number == 0;
    case TRAIL_KIND_SECONDS:
        return value->number < 0 || value->number == SUBHOST_FOREVER;
    case TRAIL_KIND_NUMBER:
    case TRAIL_KIND_FLAG:
        break;
    }
    return false;
}

static void put_value(struct cursor *out, const struct trail_value *value)
{
    put(out, fields[value->field].key, fields[value->field].length);
    switch (fields[value->field].kind) {
    case TRAIL_KIND_TEXT:
        put_string(out, value->text, '\0', TRAIL_TEXT_MAX);
        break;
    case TRAIL_KIND_LONG:
        put_string(out, value->text, '\0', TRAIL_LONG_MAX);
        break;
    case TRAIL_KIND_LIST:
        put_list(out, value->text);
        break;
    case TRAIL_KIND_NUMBER:
    case TRAIL_KIND_ID:
        put_number(out, value->number);
        break;
    case TRAIL_KIND_SECONDS:
        put_seconds(out, value->number);
        break;
    case TRAIL_KIND_FLAG:
        put(out, value->number ? "true" : "false", value->number ? 4 : 5);
        break;
    }
}

size_t subhost__trail_line(char line[TRAIL_LINE_MAX], const struct trail_head *head,
                           const struct trail_value *values)
{
    static const char end[] = "}\n";
    struct cursor out = {.at = line, .end = line + TRAIL_LINE_MAX - (sizeof end - 1)};
    PUT(&out, "{\"t\": ");
    put_seconds(&out,
                head->monotonic.tv_sec * INT64_C(1000000000) + head->monotonic.tv_nsec);
    put_wall(&out, &head->wall);
    PUT(&out, ", \"pid\": ");
    put_number(&out, head->pid);
    PUT(&out, ", \"thread\": ");
    put_number(&out, head->thread);
    if (head->interp) {
        PUT(&out, ", \"interp\": ");
        put_number(&out, head->interp);
    }
    if (head->task) {
        PUT(&out, ", \"task\": ");
        put_number(&out, head->task);
    }
    put(&out, event_names[head->event].text, event_names[head->event].length);
    for (; values->field != FIELD_END; values++) {
        if (subhost__trail_is_none(values))
            continue;
        struct cursor before = out;
        put_value(&out, values);
        if (out.full)
            out = before; /* the limits above leave room for all of any event */
    }
    out.end += sizeof end - 1;
    put(&out, end, sizeof end - 1);
    return (size_t)(out.at - line);
}
