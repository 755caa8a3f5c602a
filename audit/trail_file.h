/* Where the trail goes: a file, with older ones beside it, or a pipe or device. The thread's
 * that writes it. */
#ifndef SUBHOST_TRAIL_FILE_H
#define SUBHOST_TRAIL_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "audit/trail.h"

struct trail_file {
    int fd;
    /* For the next file; -1 where there is none to be. A program may change the process's
     * working directory. */
    int directory;
    char *name;
    uint64_t limit; /* 0: none */
    unsigned files;
    unsigned part;
    uint64_t size;
    uint64_t head; /* of that the line that it begins with; 0: one like any other */
    bool had_name; /* when it was opened */
    bool inside;   /* a line: its rest belongs to the same file */
};

int subhost__trail_file_open(struct trail_file *file, const struct trail_options *options,
                             subhost_error **err);
void subhost__trail_file_close(struct trail_file *file);
/* How much of the lines may go into this file; 0: time for the next one. */
size_t subhost__trail_file_room(const struct trail_file *file, const char *lines,
                                size_t size);
/* Makes this file NAME.1, NAME.1 NAME.2 ..., and begins a new one. 0 or an errno: then there
 * is no further try. */
int subhost__trail_file_rotate(struct trail_file *file);
/* What is written of the new one so far is its head, beside which it has one line at least. */
void subhost__trail_file_begun(struct trail_file *file);
/* Somebody has removed it, and with it what is written. */
bool subhost__trail_file_was_removed(const struct trail_file *file);
/* One write; -1 with errno. */
ptrdiff_t subhost__trail_file_write(struct trail_file *file, const char *text,
                                    size_t size);

#endif
