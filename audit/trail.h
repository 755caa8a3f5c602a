/* The trail: what the host decided and why, one JSON object a line. See trail.c. */
#ifndef SUBHOST_TRAIL_H
#define SUBHOST_TRAIL_H

#include <stdbool.h>
#include <stddef.h>

#include "embed/error.h"

struct trail;

/* Opens (and truncates) the file. `wake(data)` is called, on any thread, when there is
 * something to write. Main thread. */
int subhost__trail_open(const char *path, void (*wake)(void *data), void *data,
                        struct trail **trail, subhost_error **err);

/* Notes an event; NULL as trail: does nothing. `name` lives for ever; interp and task are
 * their numbers in this host, 0 for none; the rest goes into "detail". Any thread, GIL or
 * not, does not block; not from a signal handler. */
void subhost__trail_note(struct trail *trail, const char *name, unsigned interp,
                         unsigned task, const char *format, ...) SUBHOST_PRINTF(5, 6);

/* Only events with these names (with commas between them; owned by the caller, as long as the
 * trail) are noted; "": all. Before there are other threads. */
void subhost__trail_only(struct trail *trail, const char *names);
/* Writes what has been noted. Main thread. */
void subhost__trail_write(struct trail *trail);
/* Adds whole lines that came from a forked child. Main thread. */
void subhost__trail_pass(struct trail *trail, const char *lines, size_t size);
/* In a forked child: lines are given to `pass` from now on; NULL as trail: does nothing. */
void subhost__trail_after_fork(struct trail *trail,
                               void (*pass)(void *data, const char *text, size_t size),
                               void *data);
/* Writes the rest and what was lost, and frees it; NULL is allowed. Main thread. */
void subhost__trail_close(struct trail *trail);

#endif
