/* The journal of a run that can go on after it was stopped: see journal.c. */
#ifndef RUNNER_JOURNAL_H
#define RUNNER_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text.h"

struct journal;

/* Opens it, or makes it. `identity`: one line that says what run it is of; another's is
 * refused. NULL: `error` says why not. */
struct journal *journal_open(const char *path, const char *identity, bool unordered,
                             struct text *error);
/* Whether this item was done before. Any thread. */
bool journal_has(const struct journal *journal, uint64_t index);
/* How many were, and how many of these have failed. */
uint64_t journal_count(const struct journal *journal, uint64_t *failed);
/* Writes to `fd` what was done before and is not there yet. False: `error` says why; errno is
 * EPIPE when nobody reads it. */
bool journal_replay(struct journal *journal, int fd, struct text *error);
/* Adds whole lines, before they go anywhere else. False: errno says why. */
bool journal_add(struct journal *journal, const char *data, size_t size);
/* False: what it has could not be brought to the disk; errno says why. */
bool journal_close(struct journal *journal);

#endif
