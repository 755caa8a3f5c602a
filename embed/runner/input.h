/* Standard input as the program of several processes. */
#ifndef RUNNER_INPUT_H
#define RUNNER_INPUT_H

#include <stdint.h>

/* Reads descriptor 0 to its end, `*text` is the caller's to free. Else the status to exit with,
 * after a message. `timeout`: ns, 0 for none. */
int input_read(int64_t timeout, char **text);

#endif
