/* The runner's own stdout and stderr under --capture: see output.c. */
#ifndef RUNNER_OUTPUT_H
#define RUNNER_OUTPUT_H

#include <stdbool.h>
#include <stdint.h>

#include <subhost.h>

/* For subhost_options.on_output. */
int output_line(subhost_host *host, const subhost_output *output, void *data);
/* Writes what can be written without waiting; true: there is more. */
bool output_write(void);
/* Writes the rest, for at most `timeout` ns. False: not everything could be written; a
 * message says so, but for a reader that has gone. */
bool output_finish(int64_t timeout);

#endif
