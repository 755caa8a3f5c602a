/* What the library's parts know of a host, its interpreters, their threads and tasks.
 *
 * Who owns what:
 *   host     the thread that called subhost_open() (the main thread) drives it, and closes
 *            it; its memory is refcounted: each interp
 *   interp   refcounted: the host's list, the handle, the driver thread, each task
 *   thread   a record of an OS thread that runs Python of one interpreter; it frees its
 *            own record when it ends
 *   task     refcounted: the handle, and the queue or driver that holds it
 *
 * Locks, in the order in which they are taken (none is held while Python code runs):
 *   host->lock > interp->lock > channel->door > interp->threads_lock
 * A GIL may be held while one of them is taken, never the other way round: nobody waits
 * for a GIL with one of these locks held. */
#ifndef SUBHOST_INTERP_H
#define SUBHOST_INTERP_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include "audit/trail.h"
#include "channel.h"
#include "error.h"
#include "loop.h"
#include "subhost.h"

#define ARRAY_LENGTH(a) (sizeof(a) / sizeof *(a))

/* ---- threads of an interpreter (thread.c) --------------------------------------- */

struct thread {
    subhost_interp *interp;
    struct thread *next; /* interp->threads, threads_lock */
    pthread_t handle;
    pid_t tid;
    int64_t life; /* the interpreter's when the thread was started; not the driver's */
    bool is_driver;
    bool is_attendant;
    bool is_visitor; /* of C code that came by a callback: its record is on its stack */
    subhost_policy *policy; /* of the task that started it, a reference; NULL: none */
    /* Inside an interposed call that may block, with no GIL held. Set by the thread. */
    atomic_bool in_call;
    /* Set by the one who kicks, before the signal; taken by the thread. */
    atomic_bool attention;
    /* An exception has been handed to the thread and has not been raised there yet. Set
     * with the interpreter's GIL held, read by the main loop. */
    atomic_bool raise_pending;
    /* With the interpreter's GIL held only: */
    PyObject *deferred;   /* the exception to raise instead of Cancelled, owned */
    bool runs_loop;       /* asyncio or trio was told to cancel its main task */
    int shield_depth;     /* subhost.shield() */
    unsigned sealed;      /* inside code of the prelude's that must not be interrupted */
    bool shield_withheld; /* a cancel arrived under a shield */
    bool armed;           /* deliver.c: an early ended call is on its way out */
    unsigned raised;      /* Cancelled, so many times in this cancel */
};

/* ---- the cancel of one interpreter's running task (cancel.c) -------------------- */

enum cancel_scope {
    CANCEL_DRIVER_FIRST, /* as python's KeyboardInterrupt: other threads come later */
    CANCEL_ALL,
};

struct cancel {
    /* Written under interp->lock by whoever asks; `requested` is set last. */
    atomic_bool requested;
    enum subhost_reason reason;
    char *text; /* owned; NULL: the reason's own words */
    int64_t requested_at;
    int64_t grace;
    int rungs; /* 1: only ask, 2: raise once, 3: raise again (cancel.rungs) */
    /* Progress, set with the interpreter's GIL held, read by the main loop. */
    atomic_bool begun;            /* rung 1 ran */
    atomic_bool over_loops;       /* raise in threads that run an event loop as well */
    atomic_bool held_by_loop;     /* asyncio or trio was told: rung 2 waits */
    _Atomic int64_t delivered_at; /* first exception raised; 0: not yet */
    /* Orders of the main loop to whoever drains, a round number each. */
    atomic_uint raise_round; /* raise now, in threads that were not reached yet */
    atomic_uint probe_round; /* raise again where it was swallowed */
    atomic_int scope;        /* enum cancel_scope */
    atomic_bool insist;      /* raise even in a thread that is cleaning up */
    atomic_uint raise_done, probe_done; /* the rounds carried out */
    bool begin_started;                 /* with the GIL held */
    unsigned serial;                    /* of the task it is for; with the GIL held */
    /* Of the main loop alone. */
    int64_t next_probe_at, probe_interval;
    int64_t next_round_at, round_interval;
    int insisted;
};

/* ---- interpreters (interp.c, driver.c) ------------------------------------------ */

/* One list: state, its name. Transitions are in interp.c's table. */
#define INTERP_STATES(X)                                                                 \
    X(INTERP_STARTING, "starting")                                                       \
    X(INTERP_IDLE, "idle")                                                               \
    X(INTERP_RUNNING, "running")                                                         \
    X(INTERP_FINISHING, "finishing") /* the program has ended: threads, atexit, flush */ \
    X(INTERP_CLOSING, "closing")                                                         \
    X(INTERP_ENDED, "ended")                                                             \
    X(INTERP_FAILED, "failed")                                                           \
    X(INTERP_QUARANTINED, "quarantined")

enum interp_state {
#define INTERP_STATE_ENUM(name, text) name,
    INTERP_STATES(INTERP_STATE_ENUM)
#undef INTERP_STATE_ENUM
};

#define SUBHOST_NSIG 65 /* signals 1 to 64; bit n-1 of a mask stands for signal n */
#define SIGNAL_BIT(signo) (UINT64_C(1) << ((signo)-1))

struct subhost_interp {
    subhost_host *host;
    subhost_interp *next; /* host->interps, host->lock */
    atomic_int refs;
    subhost_policy
        *policy;     /* a reference; NULL: nothing given. Fixed, but in a child: lock */
    unsigned serial; /* 1, 2, 3 ... in this host */
    int worker;
    enum subhost_gil gil;
    enum subhost_isolation isolation;
    char name[16]; /* what pthread_setname_np() takes */

    pthread_mutex_t lock;
    pthread_cond_t work;
    /* Under lock: */
    _Atomic enum interp_state state; /* written under lock */
    subhost_task *queue, **queue_tail;
    subhost_task *current;
    atomic_uint running_task; /* current's id, 0: none */
    bool releasing;
    bool for_one_call;
    bool driver_gone; /* the driver thread has left; signalled on `work` */
    char *failure;    /* why it could not be created, owned */
    _Atomic(struct buffer_life *) buffers; /* buffer.h; NULL: none so far */

    struct channel channel;
    struct cancel cancel;

    pid_t home;              /* the process that made it, or whose main one it is */
    _Atomic pid_t pid;       /* of the process that it lives in; 0: not forked yet */
    struct capture *capture; /* of its output, or NULL; the main thread's */
    char *last_task;         /* the name of the task that ended last, under lock; owned */
    /* The forked child that it lives in, or is to; NULL: it lives here. Set once. */
    struct process *_Atomic process;
    atomic_bool
        moves;    /* its driver has left it to a process, which is not asked for yet */
    bool is_main; /* it is this forked child's main interpreter */
    atomic_bool in_pool; /* it makes a pool's calls */

    pthread_t driver;
    atomic_bool no_exec; /* its task must not start other programs (exec.allow) */
    bool has_driver;     /* there is a thread to be joined; the main thread's */
    struct thread *driver_thread;
    cpu_set_t cpus; /* the driver's own, where starts_near */
    bool starts_near;
    pthread_mutex_t threads_lock;
    struct thread *threads;
    /* CPython's id of the interpreter, which no other ever gets; -1 when threads of C code
     * may not enter: it is not there, or about to end. Written under threads_lock. */
    _Atomic int64_t life;
    void *view; /* PyInterpreterView * (3.15, PEP 788), under threads_lock; NULL: none */
    /* callback.c: what Python gave to C for keeps. With the GIL held. */
    struct subhost_callback *callbacks;

    /* Valid from creation to the end of the interpreter, used with its GIL held. */
    PyInterpreterState *py;
    PyThreadState *driver_tstate;
    struct module_state *module;
    unsigned programs_run;
    atomic_bool opened; /* something that can be written to was (fence.c) */

    /* Signals: bits by signal number. Set by the main loop, taken by the driver. */
    _Atomic uint64_t signals_pending;
    _Atomic uint64_t signals_handled; /* the program has a handler of its own */
    _Atomic uint64_t signals_ignored;
    _Atomic uint64_t signals_blocked; /* the driver's mask, mirrored on the main thread */
    atomic_int wakeup_fd;
    _Atomic uint64_t signals_default; /* the program asked for SIG_DFL in so many words */
    atomic_bool parked;               /* quarantined, and its threads were told to park */
    atomic_ullong handlers_run;       /* handlers of the program called so far */

    /* Of the main loop alone: pokes until everything has been noticed. */
    _Atomic int64_t next_poke_at; /* 0: none due; a driver that gives up sets it, too */
    int64_t poke_interval;
    int64_t poke_since;
};

/* Notes an event of an interpreter and the task it runs: NOTE(interp, KILLED, TRAIL_...). */
#define NOTE(interp, event, ...)                                                         \
    NOTE_EVENT((interp)->host->trail, event, (interp)->serial, (interp)->running_task,   \
               __VA_ARGS__)

/* ---- tasks (task.c) ------------------------------------------------------------- */

/* References to buffers (buffer.h), owned. */
struct buffer_list {
    subhost_buffer **items;
    uint32_t n;
};

struct subhost_task {
    atomic_int refs;
    subhost_interp *interp; /* a reference */
    subhost_task *next;     /* in the interpreter's queue, or in the host's ended list */
    char *name;
    unsigned id;
    enum subhost_program_kind kind;
    char *source;
    int argc;
    char **argv;
    /* A call of a nursery's instead of a program: what to call, and what came of it. Both
     * malloc'ed and owned; the result is set before the terminal event. */
    bool is_call;
    bool
        calls_value; /* its payload is a function and an encoded value (pool_process.c) */
    bool ends; /* runs nothing: what follows a program's end is due after several calls */
    bool anew; /* it is to be begun again, or has been: imports.unsupported */
    unsigned char *payload, *result;
    size_t payload_size, result_size;
    /* What they refer to instead of having its bytes. `lent` is taken out, or added to, with
     * interp->lock held: an abandonment may come at any time. */
    struct buffer_list lent, returned;
    struct worker *worker; /* which serves a pool's calls in it; NULL: it is none such */
    unsigned parent_id;    /* 0: none */
    subhost_task *parent;  /* a reference, NULL: none, or in another process */
    struct nursery *nursery; /* a reference, NULL: none */
    int64_t timeout, grace;
    subhost_policy *policy; /* a reference; NULL: nothing given */
    bool fresh;
    void (*on_end)(subhost_task *task, void *data);
    void *on_end_data;
    /* Under host->lock: */
    bool ended;
    subhost_task *live_next; /* host->live */
    bool failing;            /* it will have failed, once it has finished */
    bool cancel_asked;       /* by whomever: nothing is started below it any more */
    atomic_uint
        cancels_over; /* of a worker's calls: these have ended, each with its cancel */
    bool cancel_expected;   /* asked for by its nursery, its user, or from above it */
    const void *ordered_by; /* the cancel_live() that has it on its list; NULL: none */
    int64_t started_at, deadline;
    subhost_outcome outcome;
    char *detail; /* outcome.detail, owned */
    char *words;  /* of the first cancel, owned; NULL: none. Written before it ends */
};

/* The tasks of one open_nursery(): refcounted by its Python object and by each task. */
struct nursery {
    atomic_int refs;
    /* Under host->lock: */
    unsigned live;
    bool failed, cancelled;
    bool closed; /* left: no task is live, and none is started; with the GIL as well */
    struct waiter *waiters; /* threads that wait for one of its tasks; on their stacks */
};

/* ---- the host (host.c) ---------------------------------------------------------- */

struct subhost_host {
    /* While it is open, and of each interpreter: what handles refer to, and what a thread that
     * comes by one needs, is there after the close, too. */
    atomic_int refs;
    pthread_t main_thread;
    pid_t pid;
    PyThreadState *main_tstate;
    subhost_options options;
    subhost_policy *policy; /* NULL: nothing given */
    atomic_bool recycle_wanted;
    char *executable;
    char doorbell_name[128];
    bool interruptible;

    struct trail *trail; /* NULL: none */
    char *trail_path;    /* options.trail; NULL: none was given there */
    unsigned left;       /* what the close could not end; the main thread's */

    _Atomic(struct binding *) bindings; /* native.c: a list that only grows */

    /* Creation and destruction of interpreters, one at a time. */
    pthread_mutex_t creation;

    pthread_mutex_t lock;
    pthread_cond_t ended_cond; /* some task ended; CLOCK_MONOTONIC */
    /* Under lock: */
    subhost_interp *interps;
    subhost_task *ended, **ended_tail; /* with an on_end callback that is due */
    subhost_task *live;                /* calls that have not ended, no references */
    unsigned next_serial, next_task;
    bool closing, exiting;
    int64_t
        close_until; /* while it closes: interpreters have so long to end; the main thread's */
    subhost_stats stats;

    subhost_pool *pools; /* the main thread's */
    unsigned pools_round;

    /* Forks (forkserver.c, children.c, child.c). */
    struct forkserver *forkserver; /* NULL: not started, or this is a forked child */
    struct children *children; /* forked by this process, the tree's root; NULL: none */
    struct adopted *_Atomic handed_over; /* adopted.c: by threads of interpreters */
    struct adopted *adopted;             /* and what of that the main loop has taken */
    struct child_wires *up;  /* in a forked child: to its supervisor and to the root */
    const char *no_siblings; /* why a fork with live siblings is refused, or NULL */
    bool is_child;

    /* The loop (loop.c). */
    int epoll_fd, wake_fd, timer_fd, signal_fd;
    atomic_bool wake_pending;
    atomic_int wakers; /* that may be about to write to wake_fd */
    atomic_uint barrier_asked, barrier_done;
    atomic_bool captures_ending;
    int64_t captures_resume_at; /* 0: none is paused */
    unsigned dispatching;       /* rounds that are under way, one inside another */
    int64_t timer_at;
};

/* host.c: the one open host, or NULL. Any thread. */
subhost_host *subhost__host(void);
/* Whether a caller's host is that one. The error where it is not: NULL, or closed. Any thread. */
/* In the process that opened it, or as the host of a forked child. */
bool subhost__host_is_open(const subhost_host *host);
/* False in a process that was forked from the one in which a thing was made: what there is of it
 * here is a dead copy, with locks that nobody gives back and descriptors in common. */
bool subhost__is_here(pid_t home);
int subhost__refuse_copy(pid_t home, const char *function, subhost_error **err);
int subhost__host_refuse(const subhost_host *host, const char *function,
                         subhost_error **err);
/* A signal while the host closes: what has not ended has the policy's grace period from now on.
 * Main thread. */
void subhost__host_hurry(subhost_host *host);
void subhost__host_ref(subhost_host *host);
void subhost__host_unref(subhost_host *host);
/* In a forked child: makes the host as new, without interpreters, for the calling thread as
 * its main one. `serial` is the child's in the tree. */
void subhost__host_after_fork(subhost_host *host, unsigned serial);
/* Starts a thread with the stack of a main thread, on `cpus` unless that is NULL; 0 or an
 * errno. */
int subhost__start_with_main_stack(pthread_t *thread, const cpu_set_t *cpus,
                                   void *(*function)(void *), void *arg);

/* clock.c: CLOCK_MONOTONIC, ns; a deadline that does not overflow; a timespec of it. */
int64_t subhost__now(void);
int64_t subhost__deadline(int64_t timeout);
struct timespec subhost__timespec(int64_t ns);
/* Condition variables on CLOCK_MONOTONIC; wait returns false when the deadline passed. */
int subhost__cond_init(pthread_cond_t *cond);
bool subhost__cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t deadline);

/* loop.c: makes subhost_dispatch() look at everything again. Any thread, GIL or not, also
 * from a signal handler. */
void subhost__loop_wake(subhost_host *host);
/* Waits until the main loop has been round once more, at most `timeout`: everything that
 * came before, signals too, has been looked at then. Any thread but the main one, no GIL. */
void subhost__loop_barrier(subhost_host *host, int64_t timeout);
/* Has the main loop hand on all that has been captured, and waits for that, at most `timeout`.
 * Any thread but the main one, GIL or not, also from a signal handler. */
void subhost__loop_finish_captures(subhost_host *host, int64_t timeout);
int subhost__loop_open(subhost_host *host, subhost_error **err);
void subhost__loop_close(subhost_host *host);

/* boot.c: CPython itself. Main thread. */
int subhost__boot(subhost_host *host, subhost_error **err);
int subhost__unboot(subhost_host *host, enum subhost_close_mode mode,
                    subhost_error **err);

/* occupy.c: the current interpreter is the host's, and not to be used or destroyed by CPython's
 * `_interpreters`, while the current thread state lives; and no more. GIL held. */
void subhost__occupy(void);
void subhost__vacate(void);

/* interp.c */
void subhost__interp_ref(subhost_interp *interp);
void subhost__interp_unref(subhost_interp *interp);
/* What the interpreter shares with its host, before that is freed; handles may live on. */
void subhost__interp_part(subhost_interp *interp);
/* Under interp->lock. False when the table has no such transition. */
bool subhost__interp_enter(subhost_interp *interp, enum interp_state state);
const char *subhost__interp_state_name(enum interp_state state);
const char *subhost__gil_name(enum subhost_gil gil);
/* Made for one call, which has been cancelled meanwhile: others wait for their turn. */
bool subhost__interp_is_unwanted(subhost_interp *interp);
/* Asks for the process that its driver has left it to (imports.unsupported). Main thread. */
void subhost__interp_move(subhost_interp *interp);
/* Waits for a driver thread that has left, or is about to. Main thread. */
void subhost__interp_join(subhost_interp *interp);
/* The record of the main interpreter, in which a forked child runs its task; in no list.
 * NULL: out of memory. */
subhost_interp *subhost__interp_make_main(subhost_host *host);
/* In the forked child: makes the record as new, and starts its driver. 0 or an errno. */
int subhost__interp_start_main(subhost_interp *interp);
/* Gives up on the interpreter: waiters get their event, its threads their idle share.
 * `only`: if that is still the task it runs; NULL: in any case. */
void subhost__interp_abandon(subhost_interp *interp, const subhost_task *only);

/* driver.c: the driver thread's main function; `arg` is an interp reference. */
void *subhost__driver_main(void *arg);

/* program.c: runs the task's program in the current interpreter, and what follows its
 * end. Driver thread, GIL held. */
void subhost__program_run(subhost_interp *interp, subhost_task *task,
                          subhost_outcome *outcome, char **detail);

/* Puts it in front of sys.path, unless PYTHONSAFEPATH forbids; "" stands for the current
 * directory, whatever that will be. GIL held. 0, or -1 with an exception set. */
int subhost__program_path0(const char *path0);

/* standard_input.c: all of it, owned by the process; NULL with errno. GIL held, released
 * while it reads. */
const char *subhost__standard_input(size_t *size);
void subhost__standard_input_after_fork(void);

/* task.c */
void subhost__task_ref(subhost_task *task);
/* The next of the queue becomes the current one, if the interpreter can run it now; else NULL.
 * Under interp->lock. */
subhost_task *subhost__task_begin(subhost_interp *interp);
/* Keeps the task's name as that of the last one. */
void subhost__task_note_name(subhost_interp *interp, const subhost_task *task);
/* The one terminal event. False when the task had it already. Any thread. */
bool subhost__task_finish(subhost_task *task, const subhost_outcome *outcome,
                          const char *detail);
/* Ends what waits in the interpreter's queue. Any thread. */
/* `reason`: of the cancel (enum subhost_reason), or -1. */
void subhost__task_end_queue(subhost_interp *interp, enum subhost_outcome_kind kind,
                             int reason, const char *why);
/* What is told in the place of a detail that could not be copied, or made (NULL). */
const char *subhost__detail_missing(enum subhost_outcome_kind kind, const char *detail);
/* Runs the on_end callbacks that are due; returns how many. Main thread. */
int subhost__task_run_callbacks(subhost_host *host);
/* A call, made and queued in one; or in two, to set more of the task in between. `parent`:
 * whose end or cancel is its cancel, NULL: none. What was made and could not be queued is
 * the caller's, who releases it. Any thread, GIL or not. */
int subhost__submit_call(subhost_interp *interp, const void *payload, size_t size,
                         const subhost_task_options *options, subhost_task *parent,
                         subhost_task **task, subhost_error **err);
subhost_task *subhost__task_make_program(subhost_interp *interp,
                                         const subhost_program *program,
                                         const subhost_task_options *options);
subhost_task *subhost__task_make_call(subhost_interp *interp, const void *payload,
                                      size_t size, const subhost_task_options *options,
                                      subhost_task *parent);
/* One that serves a pool's calls (worker.c). */
subhost_task *subhost__task_make_worker(subhost_interp *interp, struct worker *worker,
                                        const subhost_task_options *options);
int subhost__task_enqueue(subhost_task *task, subhost_error **err);
/* The call that was cancelled in a worker has ended: the next one may start tasks. */
void subhost__task_forget_cancel(subhost_task *task);
/* Of a cancel, unless there was one before it. Under interp->lock. */
void subhost__task_keep_words(subhost_task *task, const char *text);
/* Cancels the calls that `task` has started and that still live, within what is left of its
 * grace period. They do the same with theirs. `over`: its cancels_over when this was asked
 * for; when it has changed the call has ended whose children they were, and what there is now
 * is the next one's. Any thread, GIL or not. */
void subhost__task_cancel_children(subhost_task *task, unsigned over,
                                   enum subhost_reason reason, const char *text);
/* Cancels what lives in a nursery, and what will be started in it. When the task of `of`
 * (NULL: none), to whose program it belongs, is being cancelled: for the same reason and within
 * what is left of its grace period. Any thread. */
void subhost__task_cancel_nursery(subhost_host *host, struct nursery *nursery,
                                  subhost_interp *of, const char *text);
/* The function of a call has failed: its siblings need not wait for what follows (threads,
 * atexit, a flush into a pipe that nobody reads), for which it has its grace period. Any
 * thread. */
void subhost__task_failing(subhost_task *task);
/* Somebody who knows why has asked for the end of the task: no failure for its nursery. */
void subhost__task_expect_cancel(subhost_task *task);
/* Whether its end is a failure for its nursery. Under host->lock, after its end. */
bool subhost__task_failed(const subhost_task *task);
/* Has the trail say that the task begins to run. */
void subhost__task_note_start(const subhost_task *task);

/* callback.c */
/* The interpreter is about to end: what Python gave to C returns defaults from now on. GIL
 * held. */
void subhost__callback_end_all(subhost_interp *interp);
void subhost__callback_get_stats(subhost_stats *stats);
void subhost__callback_reset_stats(void);

/* nursery.c */
void subhost__nursery_ref(struct nursery *nursery);
void subhost__nursery_unref(struct nursery *nursery);
/* Wakes who waits for one of its tasks. Under host->lock. */
void subhost__nursery_wake(struct nursery *nursery);
/* Runs a call; the result is set in the task. A new reference (to None), or NULL with the
 * exception that the function left. Driver, GIL held. */
PyObject *subhost__call_run(subhost_interp *interp, subhost_task *task);
/* Sets the task's result to what its nursery is to know of an exception. Driver, GIL held. */
void subhost__call_failed(subhost_interp *interp, subhost_task *task,
                          PyObject *exception);

/* interpose.c: waits for the semaphore until `deadline`: 0 or ETIMEDOUT; with `ends` also
 * EINTR, when an exception is to be raised in this thread. No GIL held. */
int subhost__interruptible_wait(sem_t *sem, int64_t deadline, bool ends);

/* thread.c */
/* The record of the calling thread; NULL when it is not a hosted one. */
struct thread *subhost__thread_self(void);
/* Makes a record for the calling thread, or returns the one it has. NULL: no memory. */
enum thread_kind { THREAD_PROGRAM, THREAD_DRIVER, THREAD_ATTENDANT };
struct thread *subhost__thread_adopt(subhost_interp *interp, enum thread_kind kind);
/* Frees the calling thread's record. */
void subhost__thread_forget(void);
/* pthread_create() for a thread of the host's own: it belongs to no program, whoever starts it,
 * and no lock is taken. Any thread, GIL or not, with any lock held. */
int subhost__thread_create(pthread_t *thread, const pthread_attr_t *attr,
                           void *(*function)(void *), void *arg);
/* Lets threads of C code enter the interpreter. GIL held. */
void subhost__thread_open_door(subhost_interp *interp);
/* Closes that door for good, unless a thread but the driver is inside. GIL held. */
bool subhost__thread_close_door(subhost_interp *interp);
/* The first thread state of the interpreter, to walk them from: those that come without the
 * GIL, by subhost__thread_make_state(), are complete. GIL held. */
PyThreadState *subhost__thread_first_state(subhost_interp *interp);
/* PyThreadState_New(); no GIL needed. */
PyThreadState *subhost__thread_make_state(subhost_interp *interp);
/* Makes a thread state for the calling thread of C code, when its record says where: true.
 * Does not return when that interpreter has ended. No GIL. */
bool subhost__thread_enter(struct thread *self);
/* A callback's way into an interpreter, from whatever thread, attached or not. True: the
 * calling thread holds the interpreter's GIL until subhost__thread_leave(). False: it has
 * ended, or was abandoned, or there is no memory. `life`: of the interpreter that is meant;
 * -1: whichever lives now. No lock held. */
struct visit {
    struct thread record, *before; /* used when `recorded` */
    PyThreadState *tstate;         /* made for this visit; NULL: none */
    PyThreadState *back;           /* what the thread had: to be taken up again */
    void *guard;                   /* PyInterpreterGuard * (3.15) */
    bool recorded, attached, was_attached;
};
bool subhost__thread_visit(struct visit *visit, subhost_interp *interp, int64_t life);
void subhost__thread_leave(struct visit *visit);
/* Leaves it to its memory: the calling thread is another process's (guard.c). */
void subhost__thread_disown(void);
/* Signals the threads that are inside an interruptible call. Main thread. */
void subhost__thread_kick_all(subhost_interp *interp);
bool subhost__thread_any_raise_pending(subhost_interp *interp);
/* The record of a thread of `interp` by its ident; NULL: none. GIL held. */
struct thread *subhost__thread_find(subhost_interp *interp, unsigned long ident);
void subhost__thread_idle_priority(subhost_interp *interp);
void subhost__thread_normal_priority(subhost_interp *interp);
/* Ends the calling thread's activity for good: its interpreter was abandoned. No GIL held;
 * does not return. */
_Noreturn void subhost__thread_park(void);
int subhost__thread_init(subhost_error **err);

/* What a thread does about its interpreter's messages while it is inside a blocking call:
 * attaches, drains, detaches. True: an exception is to be raised in this thread, so the
 * call should return. No GIL held. errno is kept. */
enum call_kind {
    CALL_FAILS, /* ended early it fails with an errno */
    CALL_ENDS,  /* ended early it looks as if it had come to its end */
    CALL_LOCKS, /* cannot be ended early */
};
bool subhost__thread_service(struct thread *self, enum call_kind kind);

/* cancel.c */
const char *subhost__reason_name(enum subhost_reason reason);
/* The exit status of a program that a cancel has ended (timeout(1), the shell's 128 + n). */
int subhost__cancel_status(enum subhost_reason reason);
/* Asks for the end of `task`, if that is what the interpreter runs now. Any thread. */
void subhost__cancel_request(subhost_interp *interp, subhost_task *task,
                             enum subhost_reason reason, const char *text);
/* One that ends all that the interpreter does: not that of a single call of a pool's. */
bool subhost__cancel_is_under_way(subhost_interp *interp);
void subhost__cancel_reset(subhost_interp *interp);
/* Before that, for a pool's call: its threads that were not reached yet would run on. Driver, GIL
 * held. */
void subhost__cancel_last_rounds(subhost_interp *interp);
/* The part of a drain that concerns a cancel. GIL held. */
void subhost__cancel_service(subhost_interp *interp);
/* The main loop's part; returns when it wants to be called again. */
void subhost__cancel_note_latency(subhost_host *host, int64_t latency);
int64_t subhost__cancel_tick(subhost_interp *interp, int64_t now);
/* How long ago the cancel was asked for, ns; -1: it was not. For the trail. */
int64_t subhost__cancel_age(const subhost_interp *interp);

/* deliver.c; GIL held. */
/* Hands an exception to a thread: it is raised at its next check. `exception` is taken
 * over; NULL: Cancelled with the reason of the cancel. */
void subhost__raise_in(subhost_interp *interp, struct thread *thread,
                       PyObject *exception);
/* Sets what is pending for the calling thread as its exception: -1; 0: nothing is. */
int subhost__raise_now(subhost_interp *interp, struct thread *self);
/* Between these nothing is raised in the calling thread: for code of the host's own, which
 * would swallow what the program is to get. They nest. */
void subhost__raise_seal(struct thread *self);
void subhost__raise_unseal(subhost_interp *interp, struct thread *self);
/* Has every thread of a quarantined interpreter park as soon as it comes by. */
void subhost__raise_park_all(subhost_interp *interp);
/* Takes back what is pending for the calling thread. */
void subhost__raise_forget(subhost_interp *interp, struct thread *self);
/* The calling thread's blocking call will fail with ECANCELED: what is pending shall come
 * out of it instead. */
void subhost__raise_arm(subhost_interp *interp, struct thread *self);

/* signals.c */
/* In a forked child: no handler but those of faults. Async-signal-safe. */
void subhost__signals_child(void);
int subhost__signals_open(subhost_host *host, subhost_error **err);
/* Before the host forks: where SIGCHLD is ignored the kernel keeps no exit status. Main thread. */
void subhost__signals_keep_children(subhost_host *host);
void subhost__signals_close(subhost_host *host);
/* Imports _signal, and no signal's disposition changes. Attached to main; -1: an exception. */
int subhost__signals_import(void);
/* Routes what the handler has noted; returns the number of signals. Main thread. */
int subhost__signals_dispatch(subhost_host *host);
/* As if the signal had arrived, unless it just has: a terminal's go to all processes. Main
 * thread. */
void subhost__signals_inject(subhost_host *host, int signo);
/* Calls the program's handlers. Driver thread (or the attendant), GIL held. Returns -1
 * with the exception set that a handler raised. */
int subhost__signals_run(subhost_interp *interp);
/* Called when a program changed what it wants of a signal. Any thread. */
int subhost__signals_update(subhost_host *host, int signo);
/* The program that wanted something of a signal has ended, or is made as new: so is its timer,
 * where no other program handles what that sends. 0 or an errno. Any thread. */
int subhost__signals_forget(subhost_interp *interp, int signo);
/* The same for all signals: their handlers will not be called. Any thread. */
void subhost__signals_forget_all(subhost_interp *interp);
/* There is one more interpreter, whose program does not ignore SIGINT and SIGTERM. host->lock. */
void subhost__signals_join(subhost_host *host);
/* A program's task ignores of these what the program ignores, as a child process would, until
 * it says otherwise. Any thread. */
void subhost__signals_inherit(subhost_interp *interp, const subhost_interp *from);
void subhost__signals_update_mask(subhost_host *host);
/* The host's disposition before it opened: 'd'efault, 'i'gnored, 'o'ther. */
char subhost__signal_initial(int signo);
/* A thread that sends its own process a signal finds it taken when the call returns, as
 * under python: ask before, wait after. Any thread. */
unsigned subhost__signals_routed(int signo);
void subhost__signals_wait_routed(subhost_interp *interp, int signo, unsigned before);
/* Whether it comes to the main loop; for a number that is no signal: false. Any thread. */
bool subhost__signals_take(int signo);
#define SUBHOST_KICK_SIGNAL SIGURG

/* stacks.c */
void subhost__stacks_request(subhost_host *host, int fd);

/* interpose.c: true when libpython's blocking calls come to us; the check makes one. Main
 * thread, GIL held. */
bool subhost__interpose_reached(void);
void subhost__interpose_check(void);

#endif
