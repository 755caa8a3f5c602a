/* A pool's workers in forked children: each call is a task of its child's, with the function's
 * name and the argument as its payload, and the result, or what it raised, as its result. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "module.h"
#include "pool.h"
#include "process.h"
#include "value_python.h"

/* ---- at the pool's ---------------------------------------------------------------- */

/* How a call ended that its child could not tell: by a deadline, a signal, os._exit(). */
static void conclude(struct worker *worker, subhost_call *call,
                     const subhost_outcome *outcome)
{
    bool timed_out = outcome->cancel_reason == SUBHOST_BY_DEADLINE;
    enum subhost_outcome_kind kind = timed_out ? SUBHOST_TIMED_OUT : outcome->kind;
    char *detail = NULL;
    /* What it made of a cancel is no result of the call's. */
    if (outcome->cancel_reason >= 0 && kind == SUBHOST_RETURNED)
        kind = SUBHOST_CANCELLED;
    if (kind == SUBHOST_CANCELLED)
        detail =
            strdup(subhost__reason_name((enum subhost_reason)outcome->cancel_reason));
    else if (!timed_out)
        detail = strdup(outcome->detail);
    else if (outcome->kind == SUBHOST_KILLED)
        detail = strdup("its time was up, and its process, which did not end within the "
                        "grace period, was killed");
    else
        detail = strdup("its time was up");
    if (kind == SUBHOST_EXITED)
        kind = SUBHOST_KILLED; /* os._exit(): the process is gone, however politely */
    if (timed_out)
        atomic_fetch_add(&worker->pool->stat_timeouts, 1);
    int status = outcome->status;
    if (kind == SUBHOST_CANCELLED)
        status = subhost__cancel_status((enum subhost_reason)outcome->cancel_reason);
    subhost__call_conclude(call, kind, status, outcome->cancel_reason, detail, NULL);
    call->outcome.code = outcome->code;
}

/* What the child has sent: a value, or what was raised. False: it makes no sense. `worn`: it
 * could not be reset. */
static bool take_result(subhost_call *call, const subhost_task *task, bool *worn)
{
    struct unpack unpack = {.data = task->result, .size = task->result_size};
    *worn = subhost__unpack_u64(&unpack);
    bool ok = subhost__unpack_u64(&unpack);
    if (ok) {
        if (!subhost__value_unpack(&unpack, &call->result))
            return false;
        subhost__call_conclude(call, SUBHOST_RETURNED, 0, -1, NULL, NULL);
        return true;
    }
    enum subhost_outcome_kind kind =
        (enum subhost_outcome_kind)subhost__unpack_u64(&unpack);
    int status = (int)subhost__unpack_u64(&unpack);
    int code = (int)subhost__unpack_u64(&unpack);
    char *detail = subhost__unpack_string(&unpack);
    char *traceback = subhost__unpack_string(&unpack);
    if (unpack.failed) {
        free(detail);
        free(traceback);
        return false;
    }
    subhost__call_conclude(call, kind, status, -1, detail, traceback);
    call->outcome.code = code;
    return true;
}

/* It has imported the functions, or has told nobody why not: the first call will. */
static void on_warm(subhost_task *task, void *data)
{
    struct worker *worker = data;
    subhost_pool *pool = worker->pool;
    subhost_outcome outcome = {.size = sizeof outcome};
    subhost_task_wait(task, 0, &outcome, NULL);
    worker->task = NULL;
    if (outcome.kind != SUBHOST_RETURNED)
        subhost__pool_note_failure(pool, outcome.detail);
    pthread_mutex_lock(&pool->lock);
    worker->state = outcome.kind == SUBHOST_RETURNED && worker->state == WORKER_STARTING
                        ? WORKER_SPARE
                        : WORKER_ENDED;
    pthread_mutex_unlock(&pool->lock);
    subhost_task_release(task);
    subhost__loop_wake(pool->host);
    if (worker->orphan)
        subhost__worker_free(worker);
}

void subhost__worker_disown(struct worker *worker)
{
    subhost_call *call = worker->running;
    worker->running = NULL;
    if (!call)
        return;
    subhost__call_conclude(call, SUBHOST_CANCELLED, 137, SUBHOST_BY_REQUEST,
                           strdup("the pool was closed"), NULL);
    subhost__pool_publish(worker->pool, call);
}

static void on_end(subhost_task *task, void *data)
{
    struct worker *worker = data;
    subhost_pool *pool = worker->pool;
    subhost_call *call = worker->running;
    subhost_outcome outcome = {.size = sizeof outcome};
    subhost_task_wait(task, 0, &outcome, NULL);
    worker->running = NULL;
    worker->task = NULL;
    atomic_fetch_add(&worker->calls, 1);
    bool worn = false;
    if (call && (outcome.kind != SUBHOST_RETURNED || outcome.cancel_reason >= 0 ||
                 !take_result(call, task, &worn)))
        conclude(worker, call, &outcome);
    bool lost = outcome.kind == SUBHOST_KILLED || outcome.kind == SUBHOST_EXITED ||
                outcome.kind == SUBHOST_FAILED;
    if (outcome.kind == SUBHOST_FAILED)
        pool->failed_in_a_row++;
    if (outcome.cancel_reason == SUBHOST_BY_SIGINT ||
        outcome.cancel_reason == SUBHOST_BY_SIGTERM) {
        subhost__pool_stop(pool);
        pool->closed_by = outcome.cancel_reason;
    }
    pthread_mutex_lock(&pool->lock);
    pool->replaced += lost;
    if (lost) {
        worker->state = WORKER_ENDED;
    } else if ((pool->options.fresh || worn) && call && !call->imports &&
               worker->state == WORKER_ACTIVE) {
        worker->state = WORKER_RETIRED;
        pool->recycled++;
    }
    bool retired = worker->state == WORKER_RETIRED;
    bool imports = pool->options.reset && worker->state == WORKER_ACTIVE;
    if (imports)
        worker->state = WORKER_STARTING;
    pthread_mutex_unlock(&pool->lock);
    if (retired)
        subhost__worker_let_go(worker);
    subhost_task_release(task);
    if (call)
        subhost__pool_publish(pool, call);
    if (imports && !subhost__worker_warm(worker)) {
        pthread_mutex_lock(&pool->lock);
        worker->state = WORKER_ENDED;
        pool->replaced++;
        pthread_mutex_unlock(&pool->lock);
    }
    subhost__loop_wake(pool->host);
    if (worker->orphan)
        subhost__worker_free(worker);
}

/* A task with a function, and the argument of the call; without one it is to import the
 * function and no more. */
static subhost_task *make_task(struct worker *worker, const subhost_function *function,
                               const subhost_call *call)
{
    subhost_pool *pool = worker->pool;
    const subhost_pool_options *o = &pool->options;
    struct pack pack = {0};
    subhost__pack_string(&pack, function->module);
    subhost__pack_string(&pack, function->name);
    subhost__pack_string(&pack, pool->path0);
    subhost__pack_u64(&pack, o->plain != 0);
    subhost__pack_u64(&pack, o->stdout_to_stderr != 0);
    subhost__pack_u64(&pack, o->reset != 0);
    if (call && !call->imports)
        subhost__value_pack(&pack, &call->argument);
    subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
    options.name = pool->name;
    options.timeout = call ? o->timeout : SUBHOST_FOREVER;
    options.grace = o->grace;
    options.on_end = call ? on_end : on_warm;
    options.on_end_data = worker;
    subhost_task *task = pack.failed ? NULL
                                     : subhost__task_make_call(worker->interp, pack.data,
                                                               pack.size, &options, NULL);
    free(pack.data);
    if (task)
        task->calls_value = true;
    if (task && !call)
        task->timeout = SUBHOST_FOREVER; /* the policy's is for calls */
    return task;
}

static bool send(struct worker *worker, subhost_task *task, subhost_call *call)
{
    worker->running = call;
    worker->task = task;
    if (task && subhost__task_enqueue(task, NULL) == 0)
        return true;
    subhost_task_release(task);
    worker->running = NULL;
    worker->task = NULL;
    return false;
}

bool subhost__worker_warm(struct worker *worker)
{
    subhost_pool *pool = worker->pool;
    if (atomic_load(&pool->n_functions) == 0) {
        worker->state = WORKER_SPARE;
        return true;
    }
    return send(worker, make_task(worker, &pool->functions[0], NULL), NULL);
}

int64_t subhost__pool_feed_processes(subhost_pool *pool, int64_t now)
{
    pthread_mutex_lock(&pool->lock);
    struct worker *worker = pool->workers; /* the list is this thread's to change */
    pthread_mutex_unlock(&pool->lock);
    bool again = false;
    for (; worker; worker = worker->next) {
        subhost_call *call;
        if (worker->state != WORKER_ACTIVE || worker->task ||
            subhost__pool_dequeue(pool, &call, 1, NULL) == 0)
            continue;
        if (send(worker, make_task(worker, call->function, call), call))
            continue;
        /* Its process has ended while it had nothing to do. */
        subhost__pool_requeue(pool, &call, 1);
        pthread_mutex_lock(&pool->lock);
        worker->state = WORKER_ENDED;
        pool->replaced++;
        pthread_mutex_unlock(&pool->lock);
        again = true;
    }
    return again ? now : SUBHOST_FOREVER;
}

/* ---- in the child ------------------------------------------------------------------ */

static void pack_failure(struct pack *pack, const struct call_failure *failure)
{
    subhost__pack_u64(pack, false);
    subhost__pack_u64(pack, (uint64_t)failure->kind);
    subhost__pack_u64(pack, (uint64_t)failure->status);
    subhost__pack_u64(pack, (uint64_t)failure->code);
    subhost__pack_string(pack, failure->detail);
    subhost__pack_string(pack, failure->traceback);
}

/* Functions that were called before, by "module:name", of the one interpreter of this child. */
static PyObject *known;

/* `stays`: until the child ends. */
static PyObject *find_function(subhost_interp *interp, const char *module,
                               const char *name, bool stays, struct call_failure *failure)
{
    PyObject *key = PyUnicode_FromFormat("%s:%s", module, name);
    if (!known)
        known = PyDict_New();
    PyObject *function = known && key ? PyDict_GetItemWithError(known, key) : NULL;
    if (function) {
        Py_INCREF(function);
    } else {
        function = subhost__call_import(interp, module, name, failure);
        if (function && (!known || !key || PyDict_SetItem(known, key, function) < 0))
            PyErr_Clear();
        if (function && stays)
            subhost__call_keep(); /* also of what is shared with the parent, until written to */
    }
    Py_XDECREF(key);
    return function;
}

static int prepare_once(subhost_interp *interp, const char *path0, bool stdout_to_stderr,
                        bool resets)
{
    static bool prepared;
    if (prepared)
        return 0;
    prepared = true;
    int result = subhost__call_prepare(interp, path0, stdout_to_stderr);
    return result == 0 && resets ? subhost__reset_prepare(interp) : result;
}

/* False: out of memory, or what a cancel has raised; the exception is set. */
static bool make(subhost_interp *interp, struct unpack *unpack, struct pack *pack)
{
    char *module = subhost__unpack_string(unpack);
    char *name = subhost__unpack_string(unpack);
    char *path0 = subhost__unpack_string(unpack);
    bool plain = subhost__unpack_u64(unpack);
    bool stdout_to_stderr = subhost__unpack_u64(unpack);
    bool resets = subhost__unpack_u64(unpack), worn = false;
    struct call_failure failure = {.kind = SUBHOST_FAILED, .status = 125};
    struct subhost_value argument = {0}, result = {0};
    struct exposed_value exposed = {0};
    PyObject *function = NULL;
    /* One that is to import the function and no more has no argument. */
    bool ok = module && name && !unpack->failed &&
              (unpack->size == 0 || (subhost__value_unpack(unpack, &argument) &&
                                     subhost__value_expose(interp, &argument, &exposed)));
    bool imports = exposed.size == 0;
    ok = ok && prepare_once(interp, path0 && *path0 ? path0 : NULL, stdout_to_stderr,
                            resets) == 0;
    PyObject *context = ok && resets ? subhost__reset_enter() : NULL;
    if (ok)
        function = find_function(interp, module, name, !resets, &failure);
    ok = function &&
         subhost__call_function(interp, function, &exposed, plain, &result, &failure);
    subhost__value_unexpose(&exposed);
    subhost__value_release(&argument);
    Py_CLEAR(function);
    if (context)
        subhost__reset_leave(context);
    if (resets && !imports) {
        if (known)
            PyDict_Clear(known);
        worn = !subhost__reset(interp);
    }
    subhost__pack_u64(pack, worn);
    if (ok) {
        subhost__pack_u64(pack, true);
        subhost__value_pack(pack, &result);
    } else {
        pack_failure(pack, &failure);
    }
    subhost__value_release(&result);
    free(failure.detail);
    free(failure.traceback);
    free(module);
    free(name);
    free(path0);
    PyErr_Clear();
    return !pack->failed;
}

PyObject *subhost__value_call_run(subhost_interp *interp, subhost_task *task)
{
    struct unpack unpack = {.data = task->payload, .size = task->payload_size};
    struct pack pack = {0};
    bool packed = make(interp, &unpack, &pack);
    free(task->payload);
    task->payload = NULL;
    task->payload_size = 0;
    if (!packed) {
        free(pack.data);
        return PyErr_NoMemory();
    }
    free(task->result);
    task->result = pack.data;
    task->result_size = pack.size;
    return Py_NewRef(Py_None);
}
