/* Results of `audit modules` that outlive the audit: --resume FILE. And the reading of records
 * in C, which only they need. */
#ifndef SUBHOST_MODULES_KEPT_H
#define SUBHOST_MODULES_KEPT_H

#include <stdbool.h>
#include <stddef.h>

#include "embed/error.h"

/* ---- records (records.h), read ---------------------------------------------------- */

struct field {
    const char *key, *value;
    size_t next; /* of the caller's: 0 at first */
};

/* The next field of a record; false: it has no more. One that is cut off is none. */
bool subhost__next_field(const char *data, size_t size, struct field *field);
/* The size of the record that begins here, with its end; 0: it is not whole. */
size_t subhost__record_length(const char *data, size_t size);
/* The last value of that key, or NULL; owned by the record. */
const char *subhost__record_field(const char *data, size_t size, const char *key);

/* ---- results ---------------------------------------------------------------------- */

/* One result: a record. */
struct kept {
    char *data;
    size_t size;
};

struct keeper {
    int fd;     /* -1: nothing is kept */
    char *path; /* for messages; owned */
    char *data; /* what the file held at the start */
    size_t size;
};

/* Opens or makes the file, and locks it. What another version of subhost or CPython has kept
 * is dropped. NULL as path: nothing is kept. */
int subhost__kept_open(struct keeper *keeper, const char *path, subhost_error **err);
/* The next result that the file held; `*at` is 0 at first. False: there is none. The view is
 * the keeper's. */
bool subhost__kept_next(const struct keeper *keeper, size_t *at, struct kept *view);
/* Appends a result. */
int subhost__kept_add(struct keeper *keeper, const struct kept *result,
                      subhost_error **err);
/* A copy, owned; false: out of memory. */
bool subhost__kept_copy(const struct kept *view, struct kept *result);
void subhost__kept_free(struct kept *result);
void subhost__kept_close(struct keeper *keeper);

#endif
