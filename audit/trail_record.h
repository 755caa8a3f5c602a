/* An event as it is noted: bytes in a buffer. Its line is made later, by whoever writes it. */
#ifndef SUBHOST_TRAIL_RECORD_H
#define SUBHOST_TRAIL_RECORD_H

#include "audit/trail_line.h"

/* No record is larger, but one of lines. */
#define TRAIL_RECORD_MAX (2 * (size_t)TRAIL_LINE_MAX)
/* Before the lines of a record of lines. */
#define TRAIL_LINES_HEAD (2 * sizeof(uint32_t))

/* Writes the record; returns its size. What no line has room for is left out. */
size_t subhost__trail_record(char record[TRAIL_RECORD_MAX], const struct trail_head *head,
                             const struct trail_value *values);
/* What stands before so many bytes of whole lines to make a record of them. */
void subhost__trail_lines_head(char head[TRAIL_LINES_HEAD], size_t size);
/* Lines of the records from `*at` on, as many as there is room for, which must be enough for
 * one record; `*at` moves behind them. Returns how long they are. */
size_t subhost__trail_render(const char *records, size_t size, size_t *at, char *text,
                             size_t room);

#endif
