/* The forkserver thread: the only one that forks, in the root of the tree. See
 * forkserver.c. */
#ifndef SUBHOST_FORKSERVER_H
#define SUBHOST_FORKSERVER_H

#include "interp.h"

/* With room for what the dynamic linker says: a path, and then what is wrong. */
#define FORK_ERROR_SIZE 512

/* Who wants a child, and what came of it. Made and freed on the main thread; between
 * subhost__forkserver_submit() and _take() the forkserver thread has it. */
struct fork_request {
    struct fork_request *next;
    /* One of them; both NULL: nobody any more. Main thread only. */
    struct process *process; /* of this process */
    struct child *child;     /* a child that wants one of its own */
    uint64_t id;             /* what the asker calls it */
    char name[16];
    bool own_stdio; /* else it has ours */
    int stdio[3];   /* the child's 0, 1, 2; -1: closed. Owned */

    /* The result. */
    unsigned serial; /* 1, 2, 3 ... in the tree */
    pid_t pid;
    int pidfd, control, service; /* owned, until somebody takes them; else -1 */
    char error[FORK_ERROR_SIZE]; /* "": forked */
};

struct fork_request *subhost__fork_request_new(void);
void subhost__fork_request_free(struct fork_request *request);

/* How many are queued, under way, or done and not taken. Main thread. */
unsigned subhost__forkserver_pending(subhost_host *host);
/* Queues it, and starts the thread with the first one. 0 or an errno. Main thread. */
int subhost__forkserver_submit(subhost_host *host, struct fork_request *request);
/* One that is done; NULL: none. Main thread. */
struct fork_request *subhost__forkserver_take(subhost_host *host);
/* Whoever of them has asked (NULL: nobody) does not wait for it any more. Main thread. */
void subhost__forkserver_forget(subhost_host *host, const struct process *process,
                                const struct child *child);
/* Nothing more will be asked of it that has to be done: an import of what is preloaded is left
 * (KeyboardInterrupt), and whatever waits for it is refused. Main thread. */
void subhost__forkserver_hurry(subhost_host *host);
/* Ends the thread, when it can: it may be waiting for a GIL that nobody gives back. False:
 * it is left behind, with what it uses. Main thread. */
bool subhost__forkserver_stop(subhost_host *host, int64_t deadline);

#endif
