/* The processes that the forkserver thread has forked, against waits that are not meant for
 * them: a program that waits for any child of its process means one that it has started.
 * The forks are the root's; in a child the table is empty.
 *
 * There is no lock. A wait may be a signal handler's, and fork() runs handlers of the program's
 * and takes locks of libc's, which who waits may hold. */
#ifndef SUBHOST_PIDS_H
#define SUBHOST_PIDS_H

#include <stdbool.h>
#include <sys/types.h>

/* A place in the table. */
struct pid_place;

/* Before the fork, after which it is too late to fail. NULL: out of memory; the child will not
 * be in the table. Any thread. */
struct pid_place *subhost__pids_claim(void);
/* After the fork, with what it returned, in both processes: who is first puts the child into
 * its place, so that it is there before it can end. A child that is killed from outside at its
 * first instructions may still be a program's. Gives the place back where there is no child.
 * Async-signal-safe. */
void subhost__pids_put(struct pid_place *place, pid_t forked);
/* In the child: the table is the parent's. Async-signal-safe. */
void subhost__pids_after_fork(void);

/* Somebody's wait has reaped `pid`; true: it is one of ours, whose `status` (wait(2)'s) is
 * kept for the host. Any thread. Async-signal-safe. */
bool subhost__pids_reaped(pid_t pid, int status);
/* True while it is in the table and not reaped. Any thread. Async-signal-safe. */
bool subhost__pids_have(pid_t pid);
/* Takes it out of the table; true: it was reaped, with this status. */
bool subhost__pids_remove(pid_t pid, int *status);
/* True: it was reaped, and who did it has said so. */
bool subhost__pids_told(pid_t pid);

#endif
