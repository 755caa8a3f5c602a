/* An event as a line of the trail. */
#ifndef SUBHOST_TRAIL_LINE_H
#define SUBHOST_TRAIL_LINE_H

#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

#include "audit/trail.h"

/* No line is longer, its end included: a pipe takes so much at once (PIPE_BUF). */
#define TRAIL_LINE_MAX 4096

/* Of a text, a long one, and all strings of a list, in bytes. */
#define TRAIL_TEXT_MAX 500
#define TRAIL_LONG_MAX 1000
#define TRAIL_LIST_MAX 2000

/* How a field is written: events.h says what each means. */
enum trail_kind {
    TRAIL_KIND_TEXT,
    TRAIL_KIND_LONG,
    TRAIL_KIND_LIST,
    TRAIL_KIND_NUMBER,
    TRAIL_KIND_ID,
    TRAIL_KIND_SECONDS,
    TRAIL_KIND_FLAG,
};

static inline bool subhost__trail_is_text(enum trail_kind kind)
{
    return kind <= TRAIL_KIND_LIST;
}

enum trail_kind subhost__trail_kind(enum trail_field field);
/* It is left out. */
bool subhost__trail_is_none(const struct trail_value *value);

struct trail_head {
    struct timespec monotonic;
    struct timespec
        wall; /* 0: not known before its line is made (subhost__trail_wall()) */
    pid_t pid, thread;
    unsigned interp, task;
    enum trail_event event;
};

/* Sets the wall time from the monotonic one, by what lies between them now: who notes an event
 * reads one clock. */
void subhost__trail_wall(struct trail_head *head);

/* Writes the line, without a NUL; returns its length. Async-signal-safe. */
size_t subhost__trail_line(char line[TRAIL_LINE_MAX], const struct trail_head *head,
                           const struct trail_value *values);

#endif
