/* An event as a line of the trail. */
#ifndef SUBHOST_TRAIL_LINE_H
#define SUBHOST_TRAIL_LINE_H

#include <sys/types.h>
#include <time.h>

#include "audit/trail.h"

/* No line is longer, its end included: a pipe takes so much at once (PIPE_BUF). */
#define TRAIL_LINE_MAX 4096

struct trail_head {
    struct timespec monotonic, wall;
    pid_t pid, thread;
    unsigned interp, task;
    enum trail_event event;
};

/* Writes the line, without a NUL; returns its length. Async-signal-safe. */
size_t subhost__trail_line(char line[TRAIL_LINE_MAX], const struct trail_head *head,
                           const struct trail_value *values);

#endif
