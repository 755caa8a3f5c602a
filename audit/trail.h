/* The trail: what the host decided and why, one JSON object a line. What an event says is in
 * events.h, how it is written in trail_line.c, where to in trail_file.c. */
#ifndef SUBHOST_TRAIL_H
#define SUBHOST_TRAIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "audit/events.h"
#include "embed/error.h"

struct trail;

/* A field and its value. */
struct trail_value {
    enum trail_field field;
    const char *text;
    int64_t number;
};

#define TRAIL_TEXT(name, value)                                                          \
    {                                                                                    \
        .field = FIELD_##name, .text = (value)                                           \
    }
/* SECONDS in nanoseconds; negative or SUBHOST_FOREVER: none. */
#define TRAIL_NUMBER(name, value)                                                        \
    {                                                                                    \
        .field = FIELD_##name, .number = (int64_t)(value)                                \
    }
/* Between the strings of a LIST. */
#define TRAIL_NEXT '\x1e'

struct trail_options {
    const char *path;
    int64_t limit;  /* of a file, in bytes; 0: none */
    unsigned files; /* older ones kept: PATH.1 is the youngest of them */
};

struct trail_counts {
    uint64_t events, lost;
};

/* Opens (and truncates) the file, and starts the thread that writes it. */
int subhost__trail_open(const struct trail_options *options, struct trail **trail,
                        subhost_error **err);
/* Which trail this is, for its first line. */
const char *subhost__trail_id(const struct trail *trail);

/* Notes an event: NOTE_EVENT(trail, TASK_ENDED, interp, task, TRAIL_TEXT(...), ...), with at
 * least one field. NULL as trail: nothing is evaluated. interp and task are their numbers, 0
 * for none. Any thread, GIL or not, does not block; not from a signal handler. */
#define NOTE_EVENT(trail_, event_, interp_, task_, ...)                                  \
    do {                                                                                 \
        struct trail *noted_in = (trail_);                                               \
        if (noted_in)                                                                    \
            subhost__trail_note(                                                         \
                noted_in, EVENT_##event_, interp_, task_,                                \
                (const struct trail_value[]){__VA_ARGS__, {.field = FIELD_END}});        \
    } while (0)
void subhost__trail_note(struct trail *trail, enum trail_event event, unsigned interp,
                         unsigned task, const struct trail_value *values);

/* Of these events only (their names, with commas between them) are noted, and the trail's own:
 * its first and last line, losses. "": all. Returns NULL, or the first name that is none, up to
 * the next comma. Before there are other threads. */
const char *subhost__trail_only(struct trail *trail, const char *names);
/* Adds whole lines that came from a forked child, and how many it lost. Main thread. */
void subhost__trail_pass(struct trail *trail, const char *lines, size_t size,
                         uint64_t lost);
/* In a forked child: lines are given to `pass` from now on, by subhost__trail_write(), which
 * `wake` asks for. `pass` returns false when it cannot take them now. NULL as trail: does
 * nothing. */
void subhost__trail_after_fork(struct trail *trail,
                               bool (*pass)(void *data, const char *text, size_t size,
                                            uint64_t lost),
                               void (*wake)(void *data), void *data);
/* In a forked child: passes on what has been noted; NULL is allowed. Main thread. */
void subhost__trail_write(struct trail *trail);

/* Waits until what has been noted is in the file: 0, ETIMEDOUT, or why the file does not take
 * it, an errno; ENOENT: it has been removed. Any thread, no GIL. */
int subhost__trail_flush(struct trail *trail, int64_t timeout);
struct trail_counts subhost__trail_counts(struct trail *trail);
/* Nothing is noted any more; writes the rest, which takes half a second at most. Main thread. */
void subhost__trail_finish(struct trail *trail);
/* The same, and frees it; NULL is allowed. Main thread. */
void subhost__trail_close(struct trail *trail);

#endif
