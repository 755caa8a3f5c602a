/* What an examination in C hands to the report's Python: records of named strings.
 *
 * Bytes, not JSON: what a crashed child printed need not be text. A record is a list of
 * `key NUL value NUL`, ended by an empty key; Python reads it with report.records(). */
#ifndef SUBHOST_RECORDS_H
#define SUBHOST_RECORDS_H

#include <stddef.h>
#include <stdio.h>

#include "embed/error.h"

struct records {
    FILE *out;
    char *data; /* malloc'ed, valid after _finish() */
    size_t size;
};

int subhost__records_open(struct records *records, subhost_error **err);
/* One value of the present record. An empty or NULL value is left out. */
void subhost__records_put(struct records *records, const char *key, const char *value);
void subhost__records_print(struct records *records, const char *key, const char *format,
                            ...) SUBHOST_PRINTF(3, 4);
void subhost__records_end(struct records *records);
/* Closes the stream: data and size are set; the caller frees data. */
int subhost__records_finish(struct records *records, subhost_error **err);

#endif
