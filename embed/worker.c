/* A pool's worker, in its interpreter: one task, on whose driver thread it makes one call
 * after another. GIL held, but while it sleeps.
 *
 * The deadline of a call is kept by the main loop, which looks when one may have passed, and
 * no more often: a call costs no wake-up. A word says which call runs, and whether the cancel
 * that is under way is that call's; who wants to end the call, in either way, changes it by
 * compare-and-swap (enum call_phase). */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "module.h"
#include "pool.h"
#include "value_python.h"

/* While there is more to do, who takes what has ended is woken no more often. */
#define TELL_INTERVAL (SUBHOST_MSEC(1) / 8)
/* What a batch is to take, so that nobody waits long for what another could do. */
#define BATCH_TIME (SUBHOST_MSEC(1) / 5)

/* ---- batches --------------------------------------------------------------------- */

#define CLAIM_BITS 32
#define CLAIM_INDEX(claim) ((uint32_t)(claim))

subhost_call *subhost__worker_claim(struct worker *worker)
{
    uint64_t claim = atomic_load(&worker->claim);
    for (;;) {
        uint32_t index = CLAIM_INDEX(claim);
        if (index >= atomic_load(&worker->batch_size))
            return NULL;
        subhost_call *call = atomic_load(&worker->batch[index % WORKER_BATCH]);
        if (atomic_compare_exchange_weak(&worker->claim, &claim, claim + 1))
            return call;
    }
}

/* How many it takes at a time: its share of what is there, and not more than a batch is to
 * take. */
static unsigned share(const struct worker *worker, unsigned queued)
{
    const subhost_pool *pool = worker->pool;
    if (pool->options.fresh)
        return 1;
    unsigned wanted = queued / (2 * (unsigned)pool->options.workers);
    int64_t affordable = worker->cost > 0 ? BATCH_TIME / worker->cost : 1;
    if (wanted > affordable)
        wanted = (unsigned)affordable;
    return wanted < 1 ? 1 : wanted > WORKER_BATCH ? WORKER_BATCH : wanted;
}

/* The first call of a new batch; NULL: the queue is empty. */
static subhost_call *refill(struct worker *worker)
{
    subhost_call *calls[WORKER_BATCH];
    unsigned n = subhost__pool_dequeue(worker->pool, calls,
                                       share(worker, worker->pool->queued), NULL);
    if (n == 0)
        return NULL;
    for (unsigned i = 1; i < n; i++)
        atomic_store(&worker->batch[i], calls[i]);
    /* Nobody claims meanwhile: its index is behind the old size, which is cleared first. */
    atomic_store(&worker->batch_size, 0);
    uint64_t generation = (atomic_load(&worker->claim) >> CLAIM_BITS) + 1;
    atomic_store(&worker->claim, generation << CLAIM_BITS | 1);
    atomic_store(&worker->batch_size, n);
    return calls[0];
}

/* One of another worker's batch, which may be busy for long with the one before. */
static subhost_call *steal(struct worker *worker)
{
    subhost_pool *pool = worker->pool;
    subhost_call *call = NULL;
    pthread_mutex_lock(&pool->lock);
    for (struct worker *other = pool->workers; other && !call; other = other->next) {
        if (other != worker)
            call = subhost__worker_claim(other);
    }
    pthread_mutex_unlock(&pool->lock);
    return call;
}

/* ---- what has ended -------------------------------------------------------------- */

static void tell(struct worker *worker, int64_t now)
{
    if (!worker->untold)
        return;
    worker->untold = false;
    worker->told_at = now;
    subhost__pool_tell(worker->pool);
}

static void put_ended(struct worker *worker, subhost_call *call, int64_t now)
{
    subhost__pool_put_ended(worker->pool, call);
    worker->untold = true;
    if (now - worker->told_at >= TELL_INTERVAL || subhost__pool_rests(worker->pool))
        tell(worker, now);
}

/* ---- the running call ------------------------------------------------------------- */

int64_t subhost__worker_deadline(struct worker *worker, int64_t now)
{
    int64_t timeout = worker->pool->options.timeout;
    if (timeout == SUBHOST_FOREVER)
        return SUBHOST_FOREVER;
    bool running =
        (atomic_load(&worker->phase) & CALL_PHASE_MASK) == (uint64_t)CALL_RUNNING;
    /* A call that begins right now has not passed its deadline before that. */
    return (running ? atomic_load(&worker->started_at) : now) + timeout;
}

int64_t subhost__worker_call_deadline(struct worker *worker)
{
    bool idle = (atomic_load(&worker->phase) & CALL_PHASE_MASK) == (uint64_t)CALL_IDLE;
    int64_t timeout = worker->pool->options.timeout;
    return idle || timeout == SUBHOST_FOREVER
               ? SUBHOST_FOREVER
               : atomic_load(&worker->started_at) + timeout;
}

bool subhost__worker_expire(struct worker *worker)
{
    uint64_t phase = atomic_load(&worker->phase);
    if ((phase & CALL_PHASE_MASK) != (uint64_t)CALL_RUNNING ||
        subhost__now() < atomic_load(&worker->started_at) + worker->pool->options.timeout)
        return false;
    return atomic_compare_exchange_strong(
        &worker->phase, &phase, (phase & ~CALL_PHASE_MASK) | (uint64_t)CALL_CANCELLING);
}

static void begin(struct worker *worker, subhost_call *call, int64_t now)
{
    uint64_t serial = (atomic_load(&worker->phase) >> CALL_PHASE_BITS) + 1;
    worker->running = call;
    atomic_store(&worker->started_at, now);
    atomic_store(&worker->phase, serial << CALL_PHASE_BITS | (uint64_t)CALL_RUNNING);
}

/* Takes the call back from whoever might end it. What it was until then: CALL_ABANDONED, and
 * it is not ours any more. */
static enum call_phase leave(struct worker *worker)
{
    uint64_t phase = atomic_load(&worker->phase);
    do {
        if ((phase & CALL_PHASE_MASK) == (uint64_t)CALL_ABANDONED)
            return CALL_ABANDONED;
    } while (!atomic_compare_exchange_weak(
        &worker->phase, &phase, (phase & ~CALL_PHASE_MASK) | (uint64_t)CALL_IDLE));
    return (enum call_phase)(phase & CALL_PHASE_MASK);
}

/* After a call whose deadline had passed. False: the interpreter was abandoned all the same. */
static bool end_cancel(subhost_interp *interp, subhost_task *task)
{
    /* The request is made under the lock, and is whole when we have it. */
    pthread_mutex_lock(&interp->lock);
    bool ours = interp->state == INTERP_RUNNING;
    int64_t delivered = atomic_load(&interp->cancel.delivered_at);
    int64_t latency = delivered ? delivered - interp->cancel.requested_at : 0;
    pthread_mutex_unlock(&interp->lock);
    if (latency > 0)
        subhost__cancel_note_latency(interp->host, latency);
    if (ours)
        subhost__cancel_last_rounds(interp);
    subhost__task_forget_cancel(task);
    subhost__cancel_reset(interp);
    /* From here on a request is one of its own again. */
    int next = atomic_exchange(&task->worker->cancel_next, 0);
    if (next)
        subhost__cancel_request(interp, task, (enum subhost_reason)(next - 1), NULL);
    return ours;
}

static PyObject *find_function(struct worker *worker, const subhost_function *function,
                               struct call_failure *failure)
{
    PyObject **slot = &worker->functions[function->index];
    if (!*slot)
        *slot = subhost__call_import(worker->interp, function->module, function->name,
                                     failure);
    return *slot;
}

static void drop_functions(struct worker *worker)
{
    for (unsigned i = 0; i < POOL_FUNCTIONS; i++)
        Py_CLEAR(worker->functions[i]);
}

/* How the call ended, when `how` is what it was. */
static void conclude(struct worker *worker, subhost_call *call, enum call_phase how,
                     bool ok, struct call_failure *failure)
{
    struct cancel *cancel = &worker->interp->cancel;
    struct subhost_value result = call->result;
    if (how == CALL_CANCELLING) {
        /* As a task's: whatever it made of it, its time was up. */
        subhost__call_conclude(call, SUBHOST_TIMED_OUT, 124, SUBHOST_BY_DEADLINE,
                               strdup("its time was up"), failure->traceback);
        free(failure->detail);
        atomic_fetch_add(&worker->pool->stat_timeouts, 1);
    } else if (atomic_load(&cancel->requested)) {
        /* Somebody has ended everything. What it made of that is no result of the call's, nor
         * a failure of its own. */
        const char *why = subhost__reason_name(cancel->reason);
        subhost__call_conclude(
            call, SUBHOST_CANCELLED, subhost__cancel_status(cancel->reason),
            (int)cancel->reason, failure->detail ? failure->detail : strdup(why),
            failure->traceback);
    } else if (ok) {
        call->result = worker->result;
        worker->result = result;
        call->result.values = 1;
        subhost__call_conclude(call, SUBHOST_RETURNED, 0, -1, NULL, NULL);
    } else {
        subhost__call_conclude(call, failure->kind, failure->status, -1, failure->detail,
                               failure->traceback);
        call->outcome.code = failure->code;
    }
}

/* Where each call has an interpreter of its own, this one's was made. */
static void use_up(struct worker *worker)
{
    subhost_pool *pool = worker->pool;
    pthread_mutex_lock(&pool->lock);
    if (worker->state == WORKER_ACTIVE) {
        worker->state = WORKER_RETIRED;
        pool->recycled++;
    }
    pthread_mutex_unlock(&pool->lock);
    subhost__loop_wake(pool->host); /* it makes a successor */
}

/* What the call has left is not there for the next one. Within its time, for objects of the
 * program's end here. */
static void reset(struct worker *worker, PyObject *context)
{
    if (context)
        subhost__reset_leave(context);
    drop_functions(worker);
    if (!subhost__reset(worker->interp))
        use_up(worker);
}

/* The functions that there are so far, before they are needed. What fails is told by the
 * first call. */
static void preload(struct worker *worker)
{
    unsigned n = atomic_load(&worker->pool->n_functions);
    for (unsigned i = 0; i < n; i++) {
        struct call_failure failure = {0};
        find_function(worker, &worker->pool->functions[i], &failure);
        free(failure.detail);
        free(failure.traceback);
    }
}

/* Makes the call. False: the worker was abandoned meanwhile, or is cancelled. */
static bool make(struct worker *worker, subhost_task *task, subhost_call *call)
{
    subhost_interp *interp = worker->interp;
    struct call_failure failure = {0};
    /* The call may be taken from us while it runs, and used again. */
    const subhost_function *named = call->function;
    bool imports = call->imports, resets = worker->pool->options.reset;
    struct exposed_value argument = {0};
    bool ok = call->imports || subhost__value_expose(interp, &call->argument, &argument);
    int64_t started_at = subhost__now();
    begin(worker, call, started_at);
    PyObject *function = NULL, *context = resets ? subhost__reset_enter() : NULL;
    if (ok)
        function = find_function(worker, named, &failure);
    else
        subhost__call_no_memory(&failure);
    ok = function &&
         subhost__call_function(interp, function, &argument, worker->pool->options.plain,
                                &worker->result, &failure);
    subhost__value_unexpose(&argument);
    if (resets && !imports)
        reset(worker, context);
    else if (resets)
        subhost__reset_leave(context);
    enum call_phase how = leave(worker);
    if (how == CALL_ABANDONED) {
        free(failure.detail);
        free(failure.traceback);
        subhost_value_clear(&worker->result);
        return false;
    }
    conclude(worker, call, how, ok, &failure);
    uint64_t calls = atomic_fetch_add(&worker->calls, 1) + 1;
    uint64_t limit = worker->pool->options.recycle_calls;
    if (limit && (calls == limit || calls == limit / 2))
        subhost__loop_wake(worker->pool->host); /* it sees to a successor */
    bool ours = how != CALL_CANCELLING || end_cancel(interp, task);
    if (worker->pool->options.fresh && !imports)
        use_up(worker);
    subhost__value_trim(&worker->result);
    int64_t now = subhost__now();
    worker->cost += (now - started_at - worker->cost) / 8;
    put_ended(worker, call, now);
    if (resets && !imports && worker->state == WORKER_ACTIVE) {
        tell(worker, now);
        preload(worker); /* in nobody's time */
    }
    return ours && !atomic_load(&interp->cancel.requested);
}

/* ---- serving --------------------------------------------------------------------- */

static bool has_work(struct worker *worker)
{
    subhost_pool *pool = worker->pool;
    pthread_mutex_lock(&pool->lock);
    bool has = worker->state == WORKER_RETIRED ||
               (worker->state == WORKER_ACTIVE && pool->queue);
    pthread_mutex_unlock(&pool->lock);
    return has;
}

/* Until somebody rings. -1: with the exception that is to be raised here. */
static int wait_for_work(struct worker *worker)
{
    struct bell *bell = &worker->bell;
    int result = 0;
    atomic_store(&bell->sleeping, true);
    if (has_work(worker)) {
        atomic_store(&bell->sleeping, false);
        return 0;
    }
    Py_BEGIN_ALLOW_THREADS;
    result = subhost__interruptible_wait(&bell->sem, SUBHOST_FOREVER, true);
    Py_END_ALLOW_THREADS;
    atomic_store(&bell->sleeping, false);
    if (result == EINTR)
        return subhost__raise_now(worker->interp, subhost__thread_self());
    return 0;
}

static void announce(struct worker *worker)
{
    pthread_mutex_lock(&worker->pool->lock);
    if (worker->state == WORKER_STARTING)
        worker->state = WORKER_SPARE;
    pthread_mutex_unlock(&worker->pool->lock);
    subhost__loop_wake(worker->pool->host); /* which says what it is needed for */
}

/* Calls, one after another, until there is a reason to stop. False: with an exception set,
 * or without one. */
static bool serve(struct worker *worker, subhost_task *task)
{
    while (atomic_load(&worker->state) != WORKER_RETIRED) {
        /* A function in C gives no occasion to what Python does between two bytecodes. */
        if (PyErr_CheckSignals() < 0 ||
            (!subhost__channel_is_empty(&worker->interp->channel) &&
             subhost__channel_drain(worker->interp) < 0))
            return false;
        subhost_call *call = subhost__worker_claim(worker);
        if (!call && atomic_load(&worker->state) == WORKER_ACTIVE) {
            call = refill(worker);
            if (!call)
                call = steal(worker);
        }
        if (call) {
            if (!make(worker, task, call))
                return false;
            continue;
        }
        tell(worker, subhost__now());
        if (wait_for_work(worker) < 0)
            return false;
    }
    return true;
}

PyObject *subhost__worker_run(subhost_interp *interp, subhost_task *task)
{
    struct worker *worker = task->worker;
    const subhost_pool_options *options = &worker->pool->options;
    if (subhost__call_prepare(interp, worker->pool->path0, options->stdout_to_stderr) <
            0 ||
        (options->reset && subhost__reset_prepare(interp) < 0))
        return NULL;
    preload(worker);
    subhost__call_keep();
    announce(worker);
    bool whole = serve(worker, task);
    tell(worker, subhost__now());
    drop_functions(worker);
    PyObject *exception = whole ? NULL : PyErr_GetRaisedException();
    subhost__call_let_go();
    if (exception) {
        PyErr_SetRaisedException(exception);
        return NULL;
    }
    return Py_NewRef(Py_None);
}
