/* The runner's own stdout and stderr under --capture: see output.c. */
#ifndef RUNNER_OUTPUT_H
#define RUNNER_OUTPUT_H

#include <stdbool.h>
#include <stdint.h>

#include <subhost.h>

/* For subhost_options.on_output. */
void output_line(subhost_host *host, const subhost_output *output, void *data);
/* Writes what can be written without waiting; true: there is more. */
bool output_write(void);
/* Writes the rest, for at most `timeout` ns; what is left is lost, and said. */
void output_finish(int64_t timeout);

#endif
