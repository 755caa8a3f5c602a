/* Interpreters that live in forked children, seen from the process that asked for them: its
 * supervisor. See process.c. Everything here is the main thread's. */
#ifndef SUBHOST_PROCESS_H
#define SUBHOST_PROCESS_H

#include "forkserver.h"
#include "wire.h"

/* What travels over the wires. */
#define PROCESS_FRAMES(X)                                                                \
    /* supervisor to child */                                                            \
    X(FRAME_RUN)    /* a task: subhost__task_pack() */                                   \
    X(FRAME_CANCEL) /* reason, grace, text */                                            \
    X(FRAME_SIGNAL) /* number: for a program that has a handler */                       \
    X(FRAME_DUMP)   /* the stacks, to the child's stderr */                              \
    X(FRAME_TAKEN)  /* so many bytes of FRAME_OUTPUT have found a reader */              \
    /* child to supervisor */                                                            \
    X(FRAME_HELLO)                                                                       \
    X(FRAME_SIGNALS) /* which are handled, ignored, left to the kernel: masks */         \
    X(FRAME_FAILING) /* the task's function has failed; its end will follow */           \
    X(FRAME_ENDED)   /* outcome, detail, result */                                       \
    X(FRAME_TRAIL)   /* how many events were lost; lines for the trail */                \
    X(FRAME_OUTPUT)  /* stream; name, a line of captured output */                       \
    /* child to root */                                                                  \
    X(FRAME_FORK) /* id; name; which of 0, 1, 2 are open, and these */                   \
    /* root to child */                                                                  \
    X(FRAME_FORKED)      /* id; pid; control socket and pidfd */                         \
    X(FRAME_FORK_FAILED) /* id; why */                                                   \
    X(FRAME_REAPED)      /* id; wait status */

enum process_frame {
#define FRAME_ENUM(name) name,
    PROCESS_FRAMES(FRAME_ENUM)
#undef FRAME_ENUM
};

/* Captured output that a child has sent, and that no reader has taken yet: with more, who writes
 * waits. Everything else on the wire passes by who waits. */
#define OUTPUT_WINDOW ((size_t)256 << 10)

/* Gives the interpreter a process to be; nothing is forked yet. Any thread. */
struct process *subhost__process_new(subhost_interp *interp);
void subhost__process_free(struct process *process);

/* The main loop's part, for an interpreter with a process: forks, tasks, deadlines,
 * cancels, the end. Returns when it wants to be called again. */
int64_t subhost__process_tick(subhost_interp *interp, int64_t now);
/* Kills it; for the host's end. */
void subhost__process_kill(struct process *process);
/* Passes a signal on to the programs there. */
void subhost__process_signal(struct process *process, int signo);
/* Has it print its stacks. */
void subhost__process_dump(struct process *process);

/* Answers to what it asked for. The descriptors are taken over. */
void subhost__process_forked(struct process *process, pid_t pid, int control, int pidfd);
void subhost__process_not_forked(struct process *process, const char *why);
/* `status` as from wait(2); -1: nobody knows. */
void subhost__process_reaped(struct process *process, int status);
/* The process that asked for a fork under this id; NULL: none any more. */
struct process *subhost__process_find(subhost_host *host, uint64_t id);

/* children.c: what the root does for all children of the tree. */
int64_t subhost__children_tick(subhost_host *host);
/* The process goes away: nobody waits for its child any more. */
void subhost__children_forget(subhost_host *host, const struct process *process);
/* In the root: whether one process more may be forked; else `why` says it. Main thread. */
bool subhost__children_room(subhost_host *host, char *why, size_t size);
void subhost__children_free(subhost_host *host);

/* task.c: a task as the data of a frame, and back. `last`: nothing comes after it. */
void subhost__task_pack(struct pack *pack, const subhost_task *task, bool last);
/* To be queued; NULL: out of memory. */
subhost_task *subhost__task_unpack(subhost_interp *interp, struct unpack *unpack,
                                   const subhost_task_options *options, bool *last);

#endif
