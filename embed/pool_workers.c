/* A pool's workers, from the main thread: they are made when there is work for them, kept
 * ready, replaced when they were abandoned or killed, and ended. */
#define _GNU_SOURCE
#include "pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Spares are for pools that live for a while: one that makes a call or two must not wait for
 * them at its end. */
#define SPARES_AFTER SUBHOST_MSEC(250)
/* Interpreters in a row that could not be made, before the pool gives up. */
#define FAILURES_MAX 3
/* How often one that has grown is looked for. */
#define GROWTH_INTERVAL SUBHOST_MSEC(500)
/* How long what has ended may lie there while its worker is busy with the next call. */
#define NOTICE_INTERVAL SUBHOST_MSEC(10)

static void set_state(struct worker *worker, enum worker_state state)
{
    pthread_mutex_lock(&worker->pool->lock);
    if (worker->state != WORKER_ENDED)
        worker->state = state;
    pthread_mutex_unlock(&worker->pool->lock);
}

static unsigned count(subhost_pool *pool, enum worker_state state)
{
    unsigned n = 0;
    pthread_mutex_lock(&pool->lock);
    for (struct worker *worker = pool->workers; worker; worker = worker->next)
        n += worker->state == state;
    pthread_mutex_unlock(&pool->lock);
    return n;
}

static void count_one(subhost_pool *pool, unsigned *counter)
{
    pthread_mutex_lock(&pool->lock);
    ++*counter;
    pthread_mutex_unlock(&pool->lock);
}

/* ---- the end of one --------------------------------------------------------------- */

void subhost__worker_free(struct worker *worker)
{
    if (worker->abandoned)
        return; /* its thread may still come by */
    subhost_pool *pool = worker->pool;
    subhost_task_release(worker->task);
    if (worker->interp)
        subhost_interp_release(worker->interp);
    sem_destroy(&worker->bell.sem);
    subhost__value_release(&worker->result);
    free(worker);
    subhost__pool_unref(pool);
}

/* What it has claimed for itself and not begun is for others. */
static void give_back(struct worker *worker)
{
    subhost_call *calls[WORKER_BATCH], *call;
    unsigned n = 0;
    while (n < WORKER_BATCH && (call = subhost__worker_claim(worker)))
        calls[n++] = call;
    if (n > 0)
        subhost__pool_requeue(worker->pool, calls, n);
}

/* Its driver does not come back: the call that it had is taken from it. */
static void settle(struct worker *worker, const subhost_outcome *outcome)
{
    uint64_t phase = atomic_load(&worker->phase), kind;
    do {
        kind = phase & CALL_PHASE_MASK;
        if (kind != (uint64_t)CALL_RUNNING && kind != (uint64_t)CALL_CANCELLING)
            return;
    } while (!atomic_compare_exchange_weak(
        &worker->phase, &phase, (phase & ~CALL_PHASE_MASK) | (uint64_t)CALL_ABANDONED));
    subhost_call *call = worker->running;
    /* The thread that is lost in there may be reading the argument. */
    struct subhost_value copy = {0};
    if (subhost_value_copy(&copy, &call->argument, NULL) == 0) {
        subhost__value_drop_buffers(&call->argument); /* the copy has its own */
        free(call->argument.buffers);
        call->argument = copy;
    }
    bool timed_out = kind == (uint64_t)CALL_CANCELLING;
    if (timed_out)
        atomic_fetch_add(&worker->pool->stat_timeouts, 1);
    subhost__call_conclude(
        call, timed_out ? SUBHOST_TIMED_OUT : SUBHOST_ABANDONED, 137,
        outcome->cancel_reason,
        strdup("it could not be interrupted within the grace period: its interpreter was "
               "abandoned, and its thread runs on; only a process can be killed"),
        NULL);
    subhost__pool_publish(worker->pool, call);
}

/* Everything that waits ends so. */
static void end_queue(subhost_pool *pool, enum subhost_outcome_kind kind, int status,
                      int reason, const char *why)
{
    subhost_call *calls[WORKER_BATCH];
    unsigned n;
    while ((n = subhost__pool_dequeue(pool, calls, WORKER_BATCH, NULL)) > 0) {
        for (unsigned i = 0; i < n; i++) {
            subhost__call_conclude(calls[i], kind, status, reason, strdup(why), NULL);
            subhost__pool_publish(pool, calls[i]);
        }
    }
}

void subhost__pool_note_failure(subhost_pool *pool, const char *why)
{
    pthread_mutex_lock(&pool->lock);
    free(pool->failure);
    pool->failure = strdup(why);
    pthread_mutex_unlock(&pool->lock);
    pool->failed_in_a_row++;
}

/* The task that served has ended. */
static void on_end(subhost_task *task, void *data)
{
    struct worker *worker = data;
    subhost_pool *pool = worker->pool;
    subhost_outcome outcome = {.size = sizeof outcome};
    subhost_task_wait(task, 0, &outcome, NULL);
    bool retired = worker->state == WORKER_RETIRED;
    give_back(worker);
    settle(worker, &outcome);
    if (outcome.kind == SUBHOST_ABANDONED) {
        worker->abandoned = true;
        count_one(pool, &pool->replaced);
    } else if (outcome.kind == SUBHOST_FAILED || outcome.kind == SUBHOST_RAISED) {
        subhost__pool_note_failure(pool, outcome.detail);
    } else if (!retired && outcome.cancel_reason >= 0 &&
               outcome.cancel_reason != SUBHOST_BY_DEADLINE) {
        /* Somebody has ended everything (a signal, say): the pool, too. */
        subhost__pool_stop(pool);
        pool->closed_by = outcome.cancel_reason;
    }
    set_state(worker, WORKER_ENDED);
    if (worker->orphan)
        subhost__worker_free(worker);
}

void subhost__worker_part(struct worker *worker)
{
    static const subhost_outcome closed = {.cancel_reason = SUBHOST_BY_REQUEST};
    if (worker->state == WORKER_ENDED || !worker->task) {
        subhost__worker_free(worker);
        return;
    }
    worker->orphan = true;
    if (worker->pool->options.isolation == SUBHOST_ISOLATION_PROCESS) {
        subhost__worker_disown(worker);
    } else {
        give_back(worker);
        settle(worker, &closed);
    }
}

/* ---- making ----------------------------------------------------------------------- */

static struct worker *make_worker(subhost_pool *pool)
{
    struct worker *worker = calloc(1, sizeof *worker);
    if (!worker)
        return NULL;
    atomic_fetch_add(&pool->refs, 1);
    worker->pool = pool;
    subhost__bell_init(&worker->bell);
    return worker;
}

static int start_interp(struct worker *worker, subhost_error **err)
{
    subhost_pool *pool = worker->pool;
    const subhost_pool_options *o = &pool->options;
    char name[64];
    snprintf(name, sizeof name, "%.40s/%u", pool->name, pool->next_worker);
    subhost_interp_options options = SUBHOST_INTERP_OPTIONS_INIT;
    options.name = name;
    options.gil = o->gil;
    options.worker = (int)pool->next_worker;
    options.isolation = o->isolation;
    int code = subhost_interp_create(pool->host, &options, &worker->interp, err);
    if (!code)
        atomic_store(&worker->interp->in_pool, true);
    if (code || o->isolation == SUBHOST_ISOLATION_PROCESS)
        return code;
    subhost_task_options task_options = SUBHOST_TASK_OPTIONS_INIT;
    task_options.name = name;
    task_options.grace = o->grace;
    task_options.on_end = on_end;
    task_options.on_end_data = worker;
    worker->task = subhost__task_make_worker(worker->interp, worker, &task_options);
    if (!worker->task)
        return subhost__fail(err, SUBHOST_ENOMEM, "a pool's worker: out of memory");
    return subhost__task_enqueue(worker->task, err);
}

static bool spawn(subhost_pool *pool)
{
    subhost_error *err = NULL;
    struct worker *worker = make_worker(pool);
    int code = worker ? start_interp(worker, &err) : SUBHOST_ENOMEM;
    if (code) {
        subhost__pool_note_failure(pool,
                                   err ? subhost_error_message(err) : "out of memory");
        subhost_error_free(err);
        if (worker)
            subhost__worker_free(worker);
        return false;
    }
    pthread_mutex_lock(&pool->lock);
    pool->next_worker++;
    worker->next = pool->workers;
    pool->workers = worker;
    pthread_mutex_unlock(&pool->lock);
    atomic_fetch_add(&pool->live, 1);
    if (pool->options.isolation == SUBHOST_ISOLATION_PROCESS &&
        !subhost__worker_warm(worker))
        set_state(worker, WORKER_ENDED);
    return true;
}

/* Those that have ended and that nobody needs any more. */
static void reap(subhost_pool *pool)
{
    for (;;) {
        pthread_mutex_lock(&pool->lock);
        struct worker **at = &pool->workers;
        while (*at && ((*at)->state != WORKER_ENDED))
            at = &(*at)->next;
        struct worker *found = *at;
        if (found)
            *at = found->next;
        pthread_mutex_unlock(&pool->lock);
        if (!found)
            return;
        atomic_fetch_sub(&pool->live, 1);
        subhost__worker_free(found);
    }
}

/* ---- who works -------------------------------------------------------------------- */

static void activate(subhost_pool *pool)
{
    unsigned active = count(pool, WORKER_ACTIVE);
    pthread_mutex_lock(&pool->lock);
    for (struct worker *worker = pool->workers; worker; worker = worker->next) {
        if (worker->state != WORKER_SPARE || active >= (unsigned)pool->options.workers)
            continue;
        worker->state = WORKER_ACTIVE;
        pool->failed_in_a_row = 0;
        active++;
        subhost__bell_ring(&worker->bell);
    }
    pthread_mutex_unlock(&pool->lock);
}

void subhost__worker_let_go(struct worker *worker)
{
    subhost__interp_ref(worker->interp); /* ours is still needed: its end is waited for */
    subhost_interp_release(worker->interp);
}

/* Processes that were let go, and have ended. */
static void end_retired(subhost_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    struct worker *worker = pool->workers; /* it grows and shrinks on this thread only */
    pthread_mutex_unlock(&pool->lock);
    for (; worker; worker = worker->next) {
        if (worker->state != WORKER_RETIRED || worker->task)
            continue;
        pthread_mutex_lock(&worker->interp->lock);
        bool gone = worker->interp->driver_gone;
        pthread_mutex_unlock(&worker->interp->lock);
        if (gone)
            set_state(worker, WORKER_ENDED);
    }
}

static void retire(struct worker *worker, bool cancel)
{
    set_state(worker, WORKER_RETIRED);
    subhost__bell_ring(&worker->bell);
    if (cancel && worker->task) {
        pthread_mutex_lock(&worker->interp->lock);
        worker->task->grace = worker->pool->options.grace;
        pthread_mutex_unlock(&worker->interp->lock);
        subhost_task_cancel(worker->task, SUBHOST_BY_REQUEST, "the pool is closed");
    }
    if (!worker->task)
        subhost__worker_let_go(worker); /* a process without a call */
}

static void retire_all(subhost_pool *pool)
{
    struct worker *list;
    pthread_mutex_lock(&pool->lock);
    list = pool->workers; /* it grows and shrinks on this thread only */
    pthread_mutex_unlock(&pool->lock);
    for (struct worker *worker = list; worker; worker = worker->next) {
        if (worker->state != WORKER_RETIRED && worker->state != WORKER_ENDED)
            retire(worker, true);
    }
}

static int64_t resident_bytes(void)
{
    long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file && fscanf(file, "%ld %ld", &pages, &resident) != 2)
        resident = 0;
    if (file)
        fclose(file);
    return resident * (int64_t)sysconf(_SC_PAGESIZE);
}

/* The process has grown too much since it was last looked at: true, once. */
static bool has_grown(subhost_pool *pool, int64_t now)
{
    if (pool->options.recycle_growth == 0 || now < pool->rss_next_at)
        return false;
    pool->rss_next_at = now + GROWTH_INTERVAL;
    int64_t rss = resident_bytes();
    if (!pool->rss_at)
        pool->rss_at = rss;
    bool grown = rss > pool->rss_at + (int64_t)pool->options.recycle_growth;
    if (grown)
        pool->rss_at = 0; /* measured again, when the old one is gone */
    return grown;
}

/* One that has done enough is replaced, if there is one to replace it by. True: one that
 * will have to be is half there, and no spare is. */
static bool recycle(subhost_pool *pool, int64_t now)
{
    struct worker *oldest = NULL;
    if (pool->options.fresh)
        return false; /* each sees to that by itself */
    bool grown = has_grown(pool, now);
    pthread_mutex_lock(&pool->lock);
    for (struct worker *worker = pool->workers; worker; worker = worker->next) {
        if (worker->state == WORKER_ACTIVE && (!oldest || worker->calls > oldest->calls))
            oldest = worker;
    }
    pthread_mutex_unlock(&pool->lock);
    uint64_t limit = pool->options.recycle_calls;
    if (!oldest || !((limit && oldest->calls >= limit / 2) || grown))
        return false;
    if (count(pool, WORKER_SPARE) == 0)
        return true;
    if (!grown && oldest->calls < limit)
        return false;
    count_one(pool, &pool->recycled);
    retire(oldest, false);
    activate(pool);
    return false;
}

/* How many interpreters there should be. */
static unsigned wanted(subhost_pool *pool, int64_t now, bool one_more)
{
    unsigned live = count(pool, WORKER_STARTING) + count(pool, WORKER_SPARE) +
                    count(pool, WORKER_ACTIVE);
    unsigned limit = (unsigned)pool->options.workers, idle = 0, busy = 0;
    unsigned warm = (unsigned)pool->options.warm;
    unsigned spares =
        now >= pool->opened_at + SPARES_AFTER ? (unsigned)pool->options.spares : 0;
    pthread_mutex_lock(&pool->lock);
    unsigned queued = pool->queued;
    for (struct worker *worker = pool->workers; worker; worker = worker->next) {
        if (worker->state == WORKER_ACTIVE)
            ++*(atomic_load(&worker->bell.sleeping) ? &idle : &busy);
    }
    pthread_mutex_unlock(&pool->lock);
    unsigned want = live > warm ? live : warm;
    if (queued > idle && live < limit) {
        unsigned starting = count(pool, WORKER_STARTING);
        unsigned more = queued - idle > starting ? queued - idle - starting : 0;
        if (want < live + more)
            want = live + more < limit ? live + more : limit;
    }
    if (live >= limit && spares > 0)
        want = limit + spares;
    /* Those that are busy now will be gone then. */
    if (pool->options.fresh && want < busy + spares)
        want = busy + spares;
    if (one_more && want <= limit)
        want = limit + 1;
    return want > live ? want - live : 0;
}

int64_t subhost__pool_tick_workers(subhost_pool *pool, int64_t now)
{
    end_retired(pool);
    reap(pool);
    if (atomic_load(&pool->closing) || pool->host->closing) {
        retire_all(pool);
        if (pool->closed_by)
            end_queue(pool, SUBHOST_CANCELLED,
                      subhost__cancel_status((enum subhost_reason)pool->closed_by),
                      pool->closed_by, "the pool was cancelled");
        return SUBHOST_FOREVER;
    }
    activate(pool);
    bool one_more = recycle(pool, now);
    for (unsigned n = wanted(pool, now, one_more); n > 0; n--) {
        if (pool->failed_in_a_row >= FAILURES_MAX || !spawn(pool))
            break;
    }
    if (pool->failed_in_a_row >= FAILURES_MAX && count(pool, WORKER_ACTIVE) == 0 &&
        count(pool, WORKER_STARTING) == 0)
        end_queue(pool, SUBHOST_FAILED, 125, -1,
                  pool->failure ? pool->failure : "no interpreter could be created");
    int64_t next = SUBHOST_FOREVER;
    if (pool->options.isolation == SUBHOST_ISOLATION_PROCESS)
        next = subhost__pool_feed_processes(pool, now);
    if (pool->options.spares > 0 && now < pool->opened_at + SPARES_AFTER)
        next = pool->opened_at + SPARES_AFTER;
    if (pool->options.recycle_growth && now + GROWTH_INTERVAL < next)
        next = now + GROWTH_INTERVAL;
    if (pool->options.recycle_calls && now + 2 * NOTICE_INTERVAL < next)
        next = now + 2 * NOTICE_INTERVAL;
    atomic_store(&pool->loop_rests, pool->options.on_done != NULL);
    if (pool->options.on_done && atomic_load(&pool->outstanding) > 0) {
        atomic_store(&pool->loop_rests, false);
        if (atomic_load(&pool->ended))
            atomic_store(&pool->notify, true);
        if (now + NOTICE_INTERVAL < next)
            next = now + NOTICE_INTERVAL;
    }
    return next;
}
