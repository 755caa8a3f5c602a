/* Pools: see pool.c. What its parts, and the driver's side of a worker, know of one another.
 *
 * Who owns what:
 *   call      the caller, but for what the pool has of it from submit to take
 *   worker    the pool; an abandoned one stays as long as its thread
 *   pool      refcounted: the handle, and each worker
 *
 * pool->lock comes after host->lock and interp->lock, and nothing is taken under it. */
#ifndef SUBHOST_POOL_H
#define SUBHOST_POOL_H

#include "interp.h"
#include "value.h"

#define WORKER_BATCH 64 /* calls that a worker takes at a time */
#define POOL_FUNCTIONS 64

/* Wakes the other side when it sleeps, and costs nothing when it does not. */
struct bell {
    atomic_bool sleeping;
    sem_t sem;
};

struct subhost_function {
    subhost_pool *pool;
    unsigned index;
    char *module, *name; /* owned; name is behind module's memory */
};

struct subhost_call {
    subhost_call *next; /* in the queue, or among those that have ended */
    subhost_function *function;
    void *data;
    bool imports; /* its function, and no more */
    atomic_bool in_pool;
    struct subhost_value argument, result;
    subhost_outcome outcome;
    char *detail, *traceback; /* owned, NULL: "" */
};

/* What a worker does with its call. In the low bits of `phase`, a serial number above. */
enum call_phase {
    CALL_IDLE,       /* none runs, or it is the worker's to publish */
    CALL_RUNNING,    /* the worker's driver has it */
    CALL_CANCELLING, /* its deadline passed: the running cancel is this call's */
    CALL_ABANDONED,  /* the driver may not touch it any more */
};
#define CALL_PHASE_BITS 2
#define CALL_PHASE_MASK ((UINT64_C(1) << CALL_PHASE_BITS) - 1)

/* One list: state, its name. */
#define WORKER_STATES(X)                                                                 \
    X(WORKER_STARTING, "starting") /* its interpreter is being created */                \
    X(WORKER_SPARE, "spare")       /* warm, and not needed yet */                        \
    X(WORKER_ACTIVE, "active")                                                           \
    X(WORKER_RETIRED, "retired") /* takes no more calls */                               \
    X(WORKER_ENDED, "ended")

enum worker_state {
#define WORKER_STATE_ENUM(name, text) name,
    WORKER_STATES(WORKER_STATE_ENUM)
#undef WORKER_STATE_ENUM
};

struct worker {
    struct worker *next; /* pool->workers, pool->lock */
    subhost_pool *pool;  /* a reference */
    subhost_interp *interp;
    subhost_task *task;              /* that serves; of a process: the call that runs */
    _Atomic enum worker_state state; /* written under pool->lock */
    struct bell bell;
    atomic_ullong calls; /* it has made */
    bool abandoned;      /* the main thread's */
    bool orphan;         /* its pool is closed: it is freed when its task ends */

    /* The call that runs. */
    _Atomic uint64_t phase;
    _Atomic int64_t started_at;
    subhost_call *running; /* set before phase, by the driver */

    /* The batch: claimed one by one, by its owner and by others who have nothing to do. The
     * word is a generation and, in its low half, the next to be claimed. */
    _Atomic uint64_t claim;
    _Atomic(subhost_call *) batch[WORKER_BATCH];
    atomic_uint batch_size;

    /* Of its driver alone, GIL held. */
    PyObject *functions[POOL_FUNCTIONS]; /* owned; NULL: not imported yet */
    struct subhost_value result;
    char *detail, *traceback;
    bool untold; /* something has ended, and who takes was not rung for it */
    int64_t told_at;
    int64_t cost; /* of a call, ns, lately */

    /* A cancel of the worker itself (enum subhost_reason, + 1) that was asked for while that of
     * a call was under way, and follows it; 0: none. Set under interp->lock. */
    atomic_int cancel_next;
};

struct subhost_pool {
    subhost_pool *next; /* host->pools, the main thread's */
    subhost_host *host;
    pid_t home; /* the process that made it */
    atomic_int refs;
    subhost_pool_options options;
    char *name, *path0;
    subhost_function functions[POOL_FUNCTIONS];
    atomic_uint n_functions;

    pthread_mutex_t lock;
    /* Under lock: */
    subhost_call *queue, **queue_tail;
    atomic_uint queued;
    struct worker *workers;
    unsigned next_worker;
    char *failure; /* why no interpreter can be had; owned */

    atomic_uint outstanding;          /* calls from submit to take */
    atomic_bool closing;              /* takes no more calls; set under lock */
    atomic_bool ending;               /* it is being closed: nobody waits in it */
    atomic_bool closed;               /* and that is done: it uses its host no more */
    bool in_close;                    /* the main thread's */
    atomic_bool wake;                 /* asked for by subhost_pool_wake() */
    _Atomic(subhost_call *) ended;    /* a stack: the last one first */
    subhost_call *ready, *ready_last; /* of who takes, the first one first */
    struct bell taker;
    pthread_cond_t room; /* with lock */
    atomic_uint wanting_room;
    atomic_bool notify; /* on_done is due */
    unsigned told_in;   /* the round of subhost__pools_tick() in which it was called */
    /* Who takes, or the main loop for on_done, does not look for what has ended: nothing was
     * outstanding. It has to be told of the first. */
    atomic_bool taker_rests, loop_rests;

    atomic_ullong stat_calls, stat_timeouts;
    atomic_uint live;            /* workers, in whatever state */
    unsigned replaced, recycled; /* under lock */
    int closed_by;               /* enum subhost_reason, when it was a cancel; else 0 */
    int64_t opened_at;
    unsigned failed_in_a_row;
    int64_t rss_at, rss_next_at;
};

/* pool.c */
void subhost__bell_init(struct bell *bell);
void subhost__bell_ring(struct bell *bell);
void subhost__pool_unref(subhost_pool *pool);
/* It takes no more calls. Any thread. */
void subhost__pool_stop(subhost_pool *pool);
/* Up to `n` of the queue, as a list; any thread. */
unsigned subhost__pool_dequeue(subhost_pool *pool, subhost_call **calls, unsigned n,
                               unsigned *left);
/* Back to the front of the queue, in order. */
void subhost__pool_requeue(subhost_pool *pool, subhost_call *const *calls, unsigned n);
/* A call has ended: it can be taken. In two steps: who takes it may look by itself. Any
 * thread. */
void subhost__pool_put_ended(subhost_pool *pool, subhost_call *call);
void subhost__pool_tell(subhost_pool *pool);
void subhost__pool_publish(subhost_pool *pool, subhost_call *call);
/* Whether nobody looks by himself. */
bool subhost__pool_rests(const subhost_pool *pool);
/* Sets how a call ended. Strings are taken over; NULL: "". */
void subhost__call_conclude(subhost_call *call, enum subhost_outcome_kind kind,
                            int status, int reason, char *detail, char *traceback);
/* The main loop's part; returns when it wants to be called again. */
int64_t subhost__pools_tick(subhost_host *host, int64_t now);
/* The host is being closed: its pools take no more calls; later, when their interpreters have
 * ended, they are closed. The handles stay. */
void subhost__pools_stop(subhost_host *host);
void subhost__pools_close(subhost_host *host);

/* pool_workers.c: the main thread's: making, replacing, ending them. */
int64_t subhost__pool_tick_workers(subhost_pool *pool, int64_t now);
void subhost__worker_free(struct worker *worker);
/* The pool is closed: its call is the caller's again, and it is freed, now or when its task
 * has come to its end. */
void subhost__worker_part(struct worker *worker);
/* One more interpreter could not be had. */
void subhost__pool_note_failure(subhost_pool *pool, const char *why);
/* A process that gets no more calls: it does what follows a program's end, and ends. Main
 * thread. */
void subhost__worker_let_go(struct worker *worker);
/* pool_process.c: the call that its process has is the caller's again. */
void subhost__worker_disown(struct worker *worker);
/* Has a new process import what will be called. False: it cannot. */
bool subhost__worker_warm(struct worker *worker);
/* Gives each process that has no call one. */
int64_t subhost__pool_feed_processes(subhost_pool *pool, int64_t now);
/* In the child: the call that a task is; its result is set in the task. */
PyObject *subhost__value_call_run(subhost_interp *interp, subhost_task *task);

/* worker.c: the driver's side. Serves calls until the worker is retired, or cancelled: None,
 * or NULL with the exception set. GIL held. */
PyObject *subhost__worker_run(subhost_interp *interp, subhost_task *task);
/* The next call of a batch; NULL: none is left. Any thread. */
subhost_call *subhost__worker_claim(struct worker *worker);
/* When the main loop has to look at the running call's deadline. */
int64_t subhost__worker_deadline(struct worker *worker, int64_t now);
/* Of the call that runs. Any thread. */
int64_t subhost__worker_call_deadline(struct worker *worker);
/* The deadline has passed: true, and the cancel that follows is that call's. Under
 * interp->lock. */
bool subhost__worker_expire(struct worker *worker);

/* call.c: calls a function with an argument, which is unexposed; with nothing (a size of 0) it
 * is not called, and the result is None. The result is put into `result`: true.
 * Else false: the exception is described. Owned strings, or NULL. GIL held. */
enum call_code {
    CALL_RAISED = 1,
    CALL_BAD_ARGUMENT = 2, /* no object could be made of it */
};
struct call_failure {
    enum subhost_outcome_kind kind; /* RAISED or FAILED */
    int status;
    int code; /* CALL_RAISED, CALL_BAD_ARGUMENT */
    char *detail, *traceback;
};
struct exposed_value;
bool subhost__call_function(subhost_interp *interp, PyObject *function,
                            struct exposed_value *argument, bool plain,
                            struct subhost_value *result, struct call_failure *failure);
/* The failure of a call for which there is no memory. */
void subhost__call_no_memory(struct call_failure *failure);
/* "module:name": a new reference, or NULL and the failure. GIL held. */
PyObject *subhost__call_import(subhost_interp *interp, const char *module,
                               const char *name, struct call_failure *failure);
/* What there is now lasts as long as its worker: the garbage collector need not look at it in
 * each of its rounds, until it is let go. GIL held. */
void subhost__call_keep(void);
void subhost__call_let_go(void);
/* Makes the current interpreter one for calls: what ends a process is contained, a directory is
 * put in front of sys.path, stdout to stderr. 0, or -1 with an exception set. GIL held. */
int subhost__call_prepare(subhost_interp *interp, const char *path0,
                          bool stdout_to_stderr);

/* reset.c: notes how the current interpreter is, for subhost__reset(). 0, or -1 with an
 * exception set. GIL held. */
int subhost__reset_prepare(subhost_interp *interp);
/* Puts it back; who has functions of the program's drops them before. False: it cannot be, and
 * the interpreter should make no more calls. GIL held. */
bool subhost__reset(subhost_interp *interp);
/* Around a call: what it sets in contextvars (decimal's context, say) is gone after it. NULL:
 * out of memory, and there is nothing to leave. An exception that is set stays. GIL held. */
PyObject *subhost__reset_enter(void);
void subhost__reset_leave(PyObject *context);

#endif
