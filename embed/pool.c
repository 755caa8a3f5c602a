/* Pools of interpreters that call functions: the side of those who submit and take calls.
 *
 *   submit -> queue -> a worker's batch -> the call -> ended (a stack) -> take
 *
 * The queue has a short lock, taken once per batch on either side. What has ended goes on a
 * stack without a lock, several at once when there is more to do. Either side is woken only
 * when it sleeps. */
#define _GNU_SOURCE
#include "options.h"
#include "pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CALLS_DEFAULT 1024
#define WORKERS_MAX 1024
/* A worker that is busy with its next call may not have told of the one before. */
#define LOOK_INTERVAL SUBHOST_MSEC(10)

/* ---- bells ----------------------------------------------------------------------- */

void subhost__bell_init(struct bell *bell)
{
    atomic_init(&bell->sleeping, false);
    sem_init(&bell->sem, 0, 0); /* cannot fail: not shared, and the value is small */
}

void subhost__bell_ring(struct bell *bell)
{
    if (atomic_load(&bell->sleeping) && atomic_exchange(&bell->sleeping, false))
        sem_post(&bell->sem);
}

/* After `sleeping` was set and the condition looked at once more. False: time was up. */
static bool sleep_until(struct bell *bell, int64_t deadline)
{
    struct timespec until = subhost__timespec(deadline);
    int result;
    do {
        result = sem_clockwait(&bell->sem, CLOCK_MONOTONIC, &until);
    } while (result < 0 && errno == EINTR);
    atomic_store(&bell->sleeping, false);
    return result == 0;
}

/* ---- opening --------------------------------------------------------------------- */

void subhost__pool_unref(subhost_pool *pool)
{
    if (atomic_fetch_sub(&pool->refs, 1) != 1)
        return;
    unsigned n = atomic_load(&pool->n_functions);
    for (unsigned i = 0; i < n; i++)
        free(pool->functions[i].module);
    sem_destroy(&pool->taker.sem);
    pthread_cond_destroy(&pool->room);
    pthread_mutex_destroy(&pool->lock);
    free(pool->failure);
    free(pool->name);
    free(pool->path0);
    free(pool);
}

static int take_options(subhost_pool_options *to, const subhost_pool_options *from,
                        subhost_error **err)
{
    subhost_pool_options o = SUBHOST_POOL_OPTIONS_INIT;
    int code = subhost__options_take(&o, sizeof o, from, "subhost_pool_options", err);
    if (code)
        return code;
    if (o.workers < 0 || o.workers > WORKERS_MAX || o.spares < 0 ||
        o.spares > WORKERS_MAX)
        return subhost__fail(
            err, SUBHOST_EINVAL,
            "subhost_pool_options: %d workers and %d spares: each is from "
            "0 to %d",
            o.workers, o.spares, WORKERS_MAX);
    if (o.warm < 0 || o.warm > WORKERS_MAX)
        return subhost__fail(err, SUBHOST_EINVAL,
                             "subhost_pool_options: warm is %d: from 0 to workers",
                             o.warm);
    if (o.timeout < 0 || o.grace < 0)
        return subhost__fail(err, SUBHOST_EINVAL,
                             "subhost_pool_options: a duration is negative");
    if (o.workers == 0) {
        long cpus = sysconf(_SC_NPROCESSORS_ONLN);
        o.workers = cpus < 1 ? 1 : cpus > WORKERS_MAX ? WORKERS_MAX : (int)cpus;
    }
    if (o.warm > o.workers)
        o.warm = o.workers;
    if (o.timeout == 0)
        o.timeout = SUBHOST_FOREVER;
    if (o.grace == 0)
        o.grace = SUBHOST_MSEC(2000);
    if (o.calls == 0)
        o.calls = CALLS_DEFAULT;
    *to = o;
    return 0;
}

static subhost_pool *make_pool(subhost_host *host, const subhost_pool_options *options)
{
    subhost_pool *pool = calloc(1, sizeof *pool);
    if (!pool || subhost__cond_init(&pool->room) != 0) {
        free(pool);
        return NULL;
    }
    pool->host = host;
    pool->home = host->pid;
    pool->options = *options;
    pool->queue_tail = &pool->queue;
    pool->opened_at = subhost__now();
    atomic_init(&pool->refs, 1);
    pthread_mutex_init(&pool->lock, NULL); /* a plain one: cannot fail */
    subhost__bell_init(&pool->taker);
    atomic_init(&pool->loop_rests, options->on_done != NULL);
    pool->name = strdup(options->name ? options->name : "pool");
    pool->path0 = options->path0 ? strdup(options->path0) : NULL;
    if (!pool->name || (options->path0 && !pool->path0)) {
        subhost__pool_unref(pool);
        return NULL;
    }
    return pool;
}

int subhost_pool_open(subhost_host *host, const subhost_pool_options *options,
                      subhost_pool **pool, subhost_error **err)
{
    subhost_pool_options o;
    if (!host || !pool)
        return subhost__fail(err, SUBHOST_EINVAL, "subhost_pool_open: %s is NULL",
                             host ? "pool" : "host");
    if (!subhost__is_here(host->pid))
        return subhost__refuse_copy(host->pid, "subhost_pool_open", err);
    if (!pthread_equal(pthread_self(), host->main_thread))
        return subhost__fail(
            err, SUBHOST_ETHREAD,
            "subhost_pool_open: only the thread that opened the host may");
    int code = take_options(&o, options, err);
    if (code)
        return code;
    subhost_pool *made = make_pool(host, &o);
    if (!made)
        return subhost__fail(err, SUBHOST_ENOMEM, "subhost_pool_open: out of memory");
    made->next = host->pools;
    host->pools = made;
    *pool = made;
    return 0;
}

/* "module:name", each made of identifiers and dots. */
static bool is_function_name(const char *name)
{
    const char *colon = strchr(name, ':');
    if (!colon || colon == name || !colon[1] || strchr(colon + 1, ':'))
        return false;
    for (const char *c = name; *c; c++) {
        bool at_start = c == name || c[-1] == '.' || c[-1] == ':';
        bool is_mark = *c == '.' || *c == ':';
        if (is_mark && (at_start || !c[1]))
            return false;
        if (!is_mark && (unsigned char)*c < 128 && !strchr("_", *c) &&
            !(*c >= 'a' && *c <= 'z') && !(*c >= 'A' && *c <= 'Z') &&
            !(!at_start && *c >= '0' && *c <= '9'))
            return false;
    }
    return true;
}

int subhost_pool_function(subhost_pool *pool, const char *name,
                          subhost_function **function, subhost_error **err)
{
    if (!pool || !name || !function)
        return subhost__fail(err, SUBHOST_EINVAL, "subhost_pool_function: %s is NULL",
                             !pool   ? "pool"
                             : !name ? "name"
                                     : "function");
    if (!subhost__is_here(pool->home))
        return subhost__refuse_copy(pool->home, "subhost_pool_function", err);
    if (!is_function_name(name))
        return subhost__fail(err, SUBHOST_EINVAL,
                             "'%s' names no function: it is written module:function, as "
                             "json:loads",
                             name);
    char *copy = strdup(name);
    if (!copy)
        return subhost__fail(err, SUBHOST_ENOMEM, "subhost_pool_function: out of memory");
    char *colon = strchr(copy, ':');
    *colon = '\0';
    pthread_mutex_lock(&pool->lock);
    unsigned n = atomic_load(&pool->n_functions);
    subhost_function *known = NULL;
    for (unsigned i = 0; i < n && !known; i++) {
        if (strcmp(pool->functions[i].module, copy) == 0 &&
            strcmp(pool->functions[i].name, colon + 1) == 0)
            known = &pool->functions[i];
    }
    if (known) {
        *function = known;
    } else if (n < POOL_FUNCTIONS) {
        pool->functions[n] = (subhost_function){
            .pool = pool, .index = n, .module = copy, .name = colon + 1};
        *function = &pool->functions[n];
        atomic_store(&pool->n_functions, n + 1);
    }
    pthread_mutex_unlock(&pool->lock);
    if (!known && n < POOL_FUNCTIONS)
        return 0;
    free(copy);
    if (known)
        return 0;
    return subhost__fail(err, SUBHOST_EINVAL, "a pool has at most %d functions",
                         POOL_FUNCTIONS);
}

/* ---- calls ----------------------------------------------------------------------- */

int subhost_call_new(subhost_function *function, void *data, subhost_call **call,
                     subhost_error **err)
{
    if (!function || !call)
        return subhost__fail(err, SUBHOST_EINVAL, "subhost_call_new: %s is NULL",
                             function ? "call" : "function");
    subhost_call *made = calloc(1, sizeof *made);
    if (!made)
        return subhost__fail(err, SUBHOST_ENOMEM, "subhost_call_new: out of memory");
    made->function = function;
    made->data = data;
    *call = made;
    return 0;
}

void subhost_call_free(subhost_call *call)
{
    if (!call)
        return;
    subhost__value_release(&call->argument);
    subhost__value_release(&call->result);
    free(call->detail);
    free(call->traceback);
    free(call);
}

void *subhost_call_data(const subhost_call *call) { return call->data; }

subhost_value *subhost_call_argument(subhost_call *call)
{
    subhost__value_trim(&call->argument);
    return &call->argument;
}

void subhost_call_import_only(subhost_call *call) { call->imports = true; }

const subhost_value *subhost_call_result(const subhost_call *call)
{
    return &call->result;
}

const char *subhost_call_traceback(const subhost_call *call)
{
    return call->traceback ? call->traceback : "";
}

void subhost_call_outcome(const subhost_call *call, subhost_outcome *outcome)
{
    size_t size = outcome->size < sizeof *outcome ? outcome->size : sizeof *outcome;
    subhost_outcome copy = call->outcome;
    copy.size = size;
    copy.detail = call->detail ? call->detail : subhost__detail_missing(copy.kind, NULL);
    memcpy(outcome, &copy, size);
}

void subhost__call_conclude(subhost_call *call, enum subhost_outcome_kind kind,
                            int status, int reason, char *detail, char *traceback)
{
    free(call->detail);
    free(call->traceback);
    call->detail = detail;
    call->traceback = traceback;
    call->outcome = (subhost_outcome){.size = sizeof call->outcome,
                                      .kind = kind,
                                      .cancel_reason = reason,
                                      .status = status};
}

/* ---- submitting ------------------------------------------------------------------ */

/* Wakes up to `n` workers that have nothing to do. Under pool->lock. True: there were not so
 * many. */
static bool ring_workers(subhost_pool *pool, size_t n)
{
    for (struct worker *worker = pool->workers; worker && n > 0; worker = worker->next) {
        if (worker->state == WORKER_ACTIVE && atomic_load(&worker->bell.sleeping)) {
            subhost__bell_ring(&worker->bell);
            n--;
        }
    }
    return n > 0;
}

/* False: the pool has been closed meanwhile. */
static bool enqueue(subhost_pool *pool, subhost_call *const *calls, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        calls[i]->next = i + 1 < n ? calls[i + 1] : NULL;
        subhost__call_conclude(calls[i], SUBHOST_CANCELLED, 0, -1, NULL, NULL);
    }
    pthread_mutex_lock(&pool->lock);
    bool open = !atomic_load(&pool->closing);
    if (open) {
        *pool->queue_tail = calls[0];
        pool->queue_tail = &calls[n - 1]->next;
        pool->queued += (unsigned)n;
        bool too_few = ring_workers(pool, n);
        /* The main loop makes more workers, and feeds those in processes. Under the lock: the
         * host may be about to close. */
        if (pool->options.isolation == SUBHOST_ISOLATION_PROCESS ||
            (too_few && atomic_load(&pool->live) < (unsigned)pool->options.workers))
            subhost__loop_wake(pool->host);
    }
    pthread_mutex_unlock(&pool->lock);
    return open;
}

/* Room for up to `n` calls is reserved; returns for how many. */
static size_t reserve(subhost_pool *pool, size_t n)
{
    unsigned now = atomic_load(&pool->outstanding), limit = pool->options.calls;
    size_t granted;
    do {
        granted = now >= limit ? 0 : limit - now < n ? limit - now : n;
    } while (granted > 0 && !atomic_compare_exchange_weak(&pool->outstanding, &now,
                                                          now + (unsigned)granted));
    return granted;
}

static void give_room(subhost_pool *pool, unsigned n)
{
    atomic_fetch_sub(&pool->outstanding, n);
    if (atomic_load(&pool->wanting_room) == 0)
        return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->room);
    pthread_mutex_unlock(&pool->lock);
}

/* For one call at least, or until the pool is closed. False: time was up. */
static bool wait_for_room(subhost_pool *pool, int64_t deadline)
{
    bool in_time = true;
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->wanting_room, 1);
    while (in_time && atomic_load(&pool->outstanding) >= pool->options.calls &&
           !atomic_load(&pool->closing))
        in_time = subhost__cond_wait(&pool->room, &pool->lock, deadline);
    atomic_fetch_sub(&pool->wanting_room, 1);
    pthread_mutex_unlock(&pool->lock);
    return in_time;
}

static void unclaim(subhost_call *const *calls, size_t n)
{
    for (size_t i = 0; i < n; i++)
        atomic_store(&calls[i]->in_pool, false);
}

static int claim_one(const subhost_pool *pool, subhost_call *call, subhost_error **err)
{
    const subhost_function *function = call->function;
    if (function->pool != pool)
        return subhost__fail(err, SUBHOST_EINVAL,
                             "its function %s:%s is another pool's; "
                             "subhost_pool_function() gives one of this pool",
                             function->module, function->name);
    if (atomic_exchange(&call->in_pool, true))
        return subhost__fail(err, SUBHOST_ESTATE,
                             "it is in the pool already, until subhost_pool_take() gives "
                             "it back");
    int code = call->imports ? 0 : subhost_value_check(&call->argument, err);
    if (!code)
        return 0;
    unclaim(&call, 1);
    return subhost__context(err, code, "the argument");
}

/* Looks at each of them, and marks it as the pool's. */
static int claim(const subhost_pool *pool, subhost_call *const *calls, size_t n,
                 subhost_error **err)
{
    for (size_t i = 0; i < n; i++) {
        int code = claim_one(pool, calls[i], err);
        if (code) {
            unclaim(calls, i);
            return subhost__context(err, code, "call %zu of %zu", i + 1, n);
        }
    }
    return 0;
}

/* How many of them got into the pool, or a negative code. */
static int submit(subhost_pool *pool, subhost_call *const *calls, size_t n,
                  int64_t deadline, subhost_error **err)
{
    for (;;) {
        if (atomic_load(&pool->closing))
            return subhost__fail(err, SUBHOST_ESTATE, "the pool is closed");
        size_t granted = reserve(pool, n);
        if (granted > 0 && !enqueue(pool, calls, granted))
            give_room(pool, (unsigned)granted);
        else if (granted > 0 || n == 0 || !wait_for_room(pool, deadline))
            return (int)granted;
    }
}

int subhost_pool_submit(subhost_pool *pool, subhost_call *const *calls, size_t n,
                        int64_t timeout, subhost_error **err)
{
    if (!pool || (!calls && n))
        return subhost__fail(err, SUBHOST_EINVAL, "subhost_pool_submit: %s is NULL",
                             pool ? "calls" : "pool");
    if (!subhost__is_here(pool->home))
        return subhost__refuse_copy(pool->home, "subhost_pool_submit", err);
    if (n > INT32_MAX)
        n = INT32_MAX;
    int code = claim(pool, calls, n, err);
    if (code)
        return code;
    /* It may be closed while this waits. */
    atomic_fetch_add(&pool->refs, 1);
    int result = submit(pool, calls, n, subhost__deadline(timeout), err);
    size_t in = result > 0 ? (size_t)result : 0;
    unclaim(calls + in, n - in);
    subhost__pool_unref(pool);
    return result;
}

/* ---- between ---------------------------------------------------------------------- */

unsigned subhost__pool_dequeue(subhost_pool *pool, subhost_call **calls, unsigned n,
                               unsigned *left)
{
    pthread_mutex_lock(&pool->lock);
    unsigned taken = 0;
    for (; taken < n && pool->queue; taken++) {
        calls[taken] = pool->queue;
        pool->queue = pool->queue->next;
        calls[taken]->next = NULL;
    }
    if (!pool->queue)
        pool->queue_tail = &pool->queue;
    pool->queued -= taken;
    if (left)
        *left = pool->queued;
    pthread_mutex_unlock(&pool->lock);
    return taken;
}

void subhost__pool_requeue(subhost_pool *pool, subhost_call *const *calls, unsigned n)
{
    pthread_mutex_lock(&pool->lock);
    for (unsigned i = n; i > 0; i--) {
        calls[i - 1]->next = pool->queue;
        if (!pool->queue)
            pool->queue_tail = &calls[i - 1]->next;
        pool->queue = calls[i - 1];
    }
    pool->queued += n;
    ring_workers(pool, n);
    pthread_mutex_unlock(&pool->lock);
    subhost__loop_wake(pool->host);
}

void subhost__pool_put_ended(subhost_pool *pool, subhost_call *call)
{
    atomic_fetch_add(&pool->stat_calls, 1);
    subhost_call *top = atomic_load(&pool->ended);
    do {
        call->next = top;
    } while (!atomic_compare_exchange_weak(&pool->ended, &top, call));
}

void subhost__pool_tell(subhost_pool *pool)
{
    subhost__bell_ring(&pool->taker);
    if (pool->options.on_done && !atomic_exchange(&pool->notify, true))
        subhost__loop_wake(pool->host);
}

bool subhost__pool_rests(const subhost_pool *pool)
{
    return atomic_load(&pool->taker_rests) || atomic_load(&pool->loop_rests);
}

void subhost__pool_publish(subhost_pool *pool, subhost_call *call)
{
    subhost__pool_put_ended(pool, call);
    subhost__pool_tell(pool);
}

/* ---- taking ---------------------------------------------------------------------- */

/* What has ended so far, behind what was not taken last time. */
static void collect(subhost_pool *pool)
{
    subhost_call *call = atomic_exchange(&pool->ended, NULL), *list = NULL, *next;
    subhost_call *last = call;
    for (; call; call = next) {
        next = call->next;
        call->next = list;
        list = call;
    }
    if (!list)
        return;
    if (pool->ready)
        pool->ready_last->next = list;
    else
        pool->ready = list;
    pool->ready_last = last;
}

static size_t take_ready(subhost_pool *pool, subhost_call **calls, size_t n)
{
    size_t taken = 0;
    for (; taken < n && pool->ready; taken++) {
        calls[taken] = pool->ready;
        pool->ready = pool->ready->next;
        calls[taken]->next = NULL;
        atomic_store(&calls[taken]->in_pool, false);
    }
    if (taken > 0)
        give_room(pool, (unsigned)taken);
    return taken;
}

/* Sleeps until it is rung for, or has to look for itself. False: time was up. */
static bool wait_for_ended(subhost_pool *pool, int64_t deadline)
{
    int64_t until = subhost__now() + LOOK_INTERVAL;
    /* First this, then the look at what is outstanding: a call that comes later is told of. */
    atomic_store(&pool->taker_rests, true);
    bool rests = atomic_load(&pool->outstanding) == 0;
    atomic_store(&pool->taker_rests, rests);
    if (rests || until > deadline)
        until = deadline;
    bool rung = sleep_until(&pool->taker, until);
    atomic_store(&pool->taker_rests, false);
    return rung || until != deadline;
}

static int take(subhost_pool *pool, subhost_call **calls, size_t n, int64_t timeout,
                subhost_error **err)
{
    int64_t deadline = subhost__deadline(timeout);
    for (;;) {
        /* Who waits need not know what becomes of the handle. */
        if (atomic_load(timeout > 0 ? &pool->ending : &pool->closed))
            return subhost__fail(err, SUBHOST_ESTATE, "the pool is closed");
        collect(pool);
        size_t taken = take_ready(pool, calls, n);
        if (taken > 0 || n == 0 || timeout <= 0)
            return (int)taken;
        atomic_store(&pool->taker.sleeping, true);
        if (atomic_exchange(&pool->wake, false)) {
            atomic_store(&pool->taker.sleeping, false);
            return 0;
        }
        if (!atomic_load(&pool->ended) && !atomic_load(&pool->ending) &&
            !wait_for_ended(pool, deadline))
            return 0;
    }
}

int subhost_pool_take(subhost_pool *pool, subhost_call **calls, size_t n, int64_t timeout,
                      subhost_error **err)
{
    if (!pool || (!calls && n))
        return subhost__fail(err, SUBHOST_EINVAL, "subhost_pool_take: %s is NULL",
                             pool ? "calls" : "pool");
    if (!subhost__is_here(pool->home))
        return subhost__refuse_copy(pool->home, "subhost_pool_take", err);
    /* It may be closed while this waits. */
    atomic_fetch_add(&pool->refs, 1);
    int taken = take(pool, calls, n < INT32_MAX ? n : INT32_MAX, timeout, err);
    subhost__pool_unref(pool);
    return taken;
}

void subhost_pool_wake(subhost_pool *pool)
{
    if (!subhost__is_here(pool->home))
        return;
    atomic_store(&pool->wake, true);
    subhost__bell_ring(&pool->taker);
}

void subhost_pool_get_stats(subhost_pool *pool, subhost_pool_stats *stats)
{
    subhost_pool_stats copy = {.calls = atomic_load(&pool->stat_calls),
                               .timeouts = atomic_load(&pool->stat_timeouts)};
    pthread_mutex_lock(&pool->lock);
    for (struct worker *worker = pool->workers; worker; worker = worker->next)
        copy.workers += worker->state != WORKER_ENDED;
    copy.replaced = pool->replaced;
    copy.recycled = pool->recycled;
    pthread_mutex_unlock(&pool->lock);
    size_t size = stats->size < sizeof copy ? stats->size : sizeof copy;
    copy.size = size;
    memcpy(stats, &copy, size);
}

/* ---- the main loop's part, and the end ------------------------------------------- */

/* One whose on_done is due, and was not called in this round; NULL: none. */
static subhost_pool *next_to_tell(subhost_host *host, unsigned round)
{
    for (subhost_pool *pool = host->pools; pool; pool = pool->next) {
        if ((int)(pool->told_in - round) < 0 && atomic_exchange(&pool->notify, false)) {
            pool->told_in = round;
            return pool;
        }
    }
    return NULL;
}

int64_t subhost__pools_tick(subhost_host *host, int64_t now)
{
    int64_t next = SUBHOST_FOREVER;
    for (subhost_pool *pool = host->pools; pool; pool = pool->next) {
        int64_t at = subhost__pool_tick_workers(pool, now);
        if (at < next)
            next = at;
    }
    /* Each may close any pool, and dispatch: nothing of the list is kept. */
    unsigned round = ++host->pools_round;
    subhost_pool *pool;
    while ((pool = next_to_tell(host, round)))
        pool->options.on_done(pool, pool->options.on_done_data);
    return next;
}

void subhost__pool_stop(subhost_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->closing, true);
    pthread_cond_broadcast(&pool->room);
    pthread_mutex_unlock(&pool->lock);
}

/* Until their tasks have ended, or were abandoned. */
static int wait_for_workers(subhost_pool *pool, int64_t deadline, subhost_error **err)
{
    for (;;) {
        bool waiting = false;
        pthread_mutex_lock(&pool->lock);
        for (struct worker *worker = pool->workers; worker; worker = worker->next)
            waiting = waiting || worker->state != WORKER_ENDED;
        pthread_mutex_unlock(&pool->lock);
        int64_t now = subhost__now();
        if (!waiting || now >= deadline)
            return 0;
        int code = subhost_dispatch(pool->host, deadline - now, err);
        if (code < 0)
            return code;
    }
}

/* What was never begun. */
static void cancel_queue(subhost_pool *pool)
{
    subhost_call *calls[WORKER_BATCH];
    unsigned n;
    while ((n = subhost__pool_dequeue(pool, calls, WORKER_BATCH, NULL)) > 0) {
        for (unsigned i = 0; i < n; i++) {
            subhost__call_conclude(calls[i], SUBHOST_CANCELLED, 137, SUBHOST_BY_REQUEST,
                                   strdup("the pool was closed"), NULL);
            subhost__pool_publish(pool, calls[i]);
        }
    }
}

/* Nothing is begun any more, and nobody waits. */
static void stop(subhost_pool *pool)
{
    subhost__pool_stop(pool);
    atomic_store(&pool->ending, true);
    subhost__bell_ring(&pool->taker);
    cancel_queue(pool);
}

static struct worker *next_worker(subhost_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    struct worker *worker = pool->workers;
    if (worker)
        pool->workers = worker->next;
    pthread_mutex_unlock(&pool->lock);
    return worker;
}

/* What is left of it then is its handle's, and that of who waits in it. */
static void close_pool(subhost_pool *pool)
{
    for (subhost_pool **at = &pool->host->pools; *at; at = &(*at)->next) {
        if (*at == pool) {
            *at = pool->next;
            break;
        }
    }
    struct worker *worker;
    while ((worker = next_worker(pool)))
        subhost__worker_part(worker);
    cancel_queue(pool); /* what they had in their batches */
    atomic_store(&pool->closed, true);
}

int subhost_pool_close(subhost_pool *pool, int64_t grace, subhost_error **err)
{
    if (!pool)
        return 0;
    if (!subhost__is_here(pool->home))
        return subhost__refuse_copy(pool->home, "subhost_pool_close", err);
    int code = 0;
    if (!atomic_load(&pool->closed)) { /* else its host was closed before */
        if (!pthread_equal(pthread_self(), pool->host->main_thread))
            return subhost__fail(err, SUBHOST_ETHREAD,
                                 "subhost_pool_close: only the thread that opened the "
                                 "host may");
        if (pool->in_close)
            return subhost__fail(err, SUBHOST_ESTATE,
                                 "subhost_pool_close: it is being closed");
        pool->in_close = true;
        pool->options.grace = grace > 0 ? grace : 1;
        stop(pool);
        (void)subhost__pool_tick_workers(pool, subhost__now()); /* it retires them */
        code = wait_for_workers(
            pool, subhost__deadline(pool->options.grace) + SUBHOST_MSEC(100), err);
        close_pool(pool);
    }
    subhost__pool_unref(pool);
    return code;
}

void subhost__pools_stop(subhost_host *host)
{
    for (subhost_pool *pool = host->pools; pool; pool = pool->next)
        stop(pool);
}

void subhost__pools_close(subhost_host *host)
{
    while (host->pools)
        close_pool(host->pools);
}
