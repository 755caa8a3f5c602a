/* Descriptors that are the host's own: hidden from the programs it runs. See fd.c. */
#ifndef SUBHOST_FD_H
#define SUBHOST_FD_H

#include <stdbool.h>

/* Makes it the host's: out of the low numbers if it can, out of 0 to 2 in any case, and hidden.
 * Returns the number it has now; -1 with errno, also for -1. Any thread. */
int subhost__fd_take(int fd);
/* A copy that is the host's, or -1 with errno. Any thread. */
int subhost__fd_dup(int fd);
/* Closes one of the host's; -1 is allowed. errno is kept. Any thread. */
void subhost__fd_close(int fd);
/* Any thread; async-signal-safe. */
bool subhost__fd_is_hidden(int fd);
/* In a child of somebody else's fork: closes what it has of the host's. Async-signal-safe. */
void subhost__fd_close_all(void);
/* After a fork: none is the host's. Async-signal-safe. */
void subhost__fd_forget_all(void);

#endif
