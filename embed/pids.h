/* The processes that the forkserver thread has forked, against waits that are not meant for
 * them: a program that waits for any child of its process means one that it has started.
 * The forks are the root's; in a child the table is empty. */
#ifndef SUBHOST_PIDS_H
#define SUBHOST_PIDS_H

#include <stdbool.h>
#include <sys/types.h>

/* Around the fork, so that nobody reaps a child that is not in the table yet. */
void subhost__pids_lock(void);
/* `pid` <= 0: there is no child. False: out of memory; it is not in the table. */
bool subhost__pids_unlock(pid_t pid);
/* In the child, with the lock held by the thread that forked. Async-signal-safe. */
void subhost__pids_after_fork(void);

/* Somebody's wait has reaped `pid`; true: it is one of ours, whose `status` (wait(2)'s) is
 * kept for the host. Any thread. */
bool subhost__pids_reaped(pid_t pid, int status);
/* Takes it out of the table; true: it was reaped, with this status. */
bool subhost__pids_remove(pid_t pid, int *status);
/* True: it was reaped, and who did it has said so. */
bool subhost__pids_told(pid_t pid);
/* True while it is in the table. Any thread. */
bool subhost__pids_have(pid_t pid);

#endif
