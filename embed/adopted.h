/* Processes that a program has started, and that nobody can wait for any more. See adopted.c. */
#ifndef SUBHOST_ADOPTED_H
#define SUBHOST_ADOPTED_H

#include <sys/types.h>

#include "subhost.h"

/* The host waits for this child of the process from now on. Any thread; does not block. Without
 * memory for it, it is left as it is. */
void subhost__adopt(subhost_host *host, pid_t pid);

/* The main loop's part: those that have ended are reaped. */
void subhost__adopted_tick(subhost_host *host);
/* At the host's close: what still runs is left alone. Main thread. */
void subhost__adopted_free(subhost_host *host);

#endif
