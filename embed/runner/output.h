/* What the runner itself writes to stdout and stderr: see output.c. */
#ifndef RUNNER_OUTPUT_H
#define RUNNER_OUTPUT_H

#include <stdbool.h>
#include <stdint.h>

#include <subhost.h>

/* For subhost_options.on_output. */
int output_line(subhost_host *host, const subhost_output *output, void *data);
/* Writes what can be written without waiting; true: there is more. */
bool output_write(void);
/* A message for stderr, as it is: with "subhost: " and its newline. It is written at once if
 * that does not wait, else when somebody reads; at the latest at the process's end, which
 * waits a second for that. */
void output_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Writes the rest, as long as its readers take some of it every 5 s, and for at most `limit` ns
 * (0: as long as that takes), and messages for a second. False: not all captured output could be
 * written; a message says so, but for a reader that has gone. */
bool output_finish(int64_t limit);
/* What the C library holds for stdout and stderr. False: it cannot be written without waiting
 * for longer, and exit() would wait for ever. */
bool output_flush(void);

#endif
