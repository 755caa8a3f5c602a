/* Standard input, or a FIFO, as the program of several. */
#ifndef RUNNER_INPUT_H
#define RUNNER_INPUT_H

#include <stdint.h>

/* Reads the FIFO to its end, or descriptor 0 for NULL; `*text` is the caller's to free. Else the
 * status to exit with, after a message. `timeout`: ns, 0 for none. */
int input_read(const char *path, int64_t timeout, char **text);

#endif
