/* A forked child: from fork() to a host that runs its task. See child.c. */
#ifndef SUBHOST_CHILD_H
#define SUBHOST_CHILD_H

#include "forkserver.h"
#include "wire.h"

struct child_birth {
    subhost_host *host;          /* the parent's; becomes the child's */
    subhost_interp *main_interp; /* prepared, not running anything */
    const struct fork_request *request;
    int control, service; /* the child's ends */
};

/* In the child, on the thread that forked, the main interpreter's GIL held. */
_Noreturn void subhost__child_main(struct child_birth *birth);

/* In a child: asks the root for a fork, answered by process.c. False: errno says why not; EPIPE: the
 * root is gone. */
bool subhost__child_ask_fork(subhost_host *host, uint64_t id, const char *name,
                             const int stdio[3]);
/* In a child: a program wants something else of a signal. Any thread. */
void subhost__child_signals_changed(subhost_host *host);
/* In a child: whether readers take what was passed on. Main thread. */
bool subhost__child_output_room(const subhost_host *host);
/* In a child: passes a line of captured output on to the supervisor, in any case; true: there is
 * room for more. */
bool subhost__child_pass_output(subhost_host *host, const char *name, int stream,
                                const char *text, size_t size);
/* In a child: passes lines of the trail on to the supervisor, and how many events were lost
 * since. False: not now. */
bool subhost__child_pass_trail(subhost_host *host, const char *text, size_t size,
                               uint64_t lost);

#endif
