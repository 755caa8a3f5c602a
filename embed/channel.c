/* The pending-call channel: see channel.h. */
#define _GNU_SOURCE
#include "channel.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "buffer.h"
#include "guard.h"
#include "interp.h"

/* CPython's private `_PyEval_AddPendingCall` (Python/ceval_gil.c): exported by 3.13, 3.14
 * and 3.15, looked up at run time. Needs no thread state and no GIL; takes a mutex. */
typedef int (*add_pending_call)(PyInterpreterState *interp, int (*function)(void *),
                                void *data, int flags);
static add_pending_call pending_call;

/* ---- the ring ------------------------------------------------------------------- */

int subhost__channel_init(struct channel *channel)
{
    for (size_t i = 0; i < CHANNEL_CELLS; i++)
        atomic_init(&channel->cells[i].turn, i);
    int error = pthread_mutex_init(&channel->door, NULL);
    if (error)
        return error;
    error = subhost__cond_init(&channel->attendant_cond);
    if (error)
        pthread_mutex_destroy(&channel->door);
    return error;
}

void subhost__channel_destroy(struct channel *channel)
{
    pthread_cond_destroy(&channel->attendant_cond);
    pthread_mutex_destroy(&channel->door);
}

bool subhost__channel_put(struct channel *channel, void (*function)(void *), void *data)
{
    size_t tail = atomic_load_explicit(&channel->tail, memory_order_relaxed);
    for (;;) {
        struct channel_cell *cell = &channel->cells[tail % CHANNEL_CELLS];
        size_t turn = atomic_load_explicit(&cell->turn, memory_order_acquire);
        if (turn == tail) {
            if (!atomic_compare_exchange_weak_explicit(&channel->tail, &tail, tail + 1,
                                                       memory_order_relaxed,
                                                       memory_order_relaxed))
                continue; /* another producer was first; `tail` is fresh */
            cell->function = function;
            cell->data = data;
            atomic_store_explicit(&cell->turn, tail + 1, memory_order_release);
            return true;
        }
        if ((ptrdiff_t)(turn - tail) < 0)
            return false; /* the consumer has not freed this cell yet: full */
        tail = atomic_load_explicit(&channel->tail, memory_order_relaxed);
    }
}

static bool channel_take(struct channel *channel, void (**function)(void *), void **data)
{
    size_t head = atomic_load_explicit(&channel->head, memory_order_relaxed);
    struct channel_cell *cell = &channel->cells[head % CHANNEL_CELLS];
    if (atomic_load_explicit(&cell->turn, memory_order_acquire) != head + 1)
        return false;
    *function = cell->function;
    *data = cell->data;
    /* Before the message runs: it may run Python, which may drain again. */
    atomic_store_explicit(&channel->head, head + 1, memory_order_relaxed);
    atomic_store_explicit(&cell->turn, head + CHANNEL_CELLS, memory_order_release);
    return true;
}

bool subhost__channel_is_empty(struct channel *channel)
{
    return atomic_load(&channel->head) == atomic_load(&channel->tail);
}

/* ---- draining ------------------------------------------------------------------- */

int subhost__channel_drain(subhost_interp *interp)
{
    struct channel *channel = &interp->channel;
    void (*function)(void *);
    void *data;
    /* Before looking: a message that comes later rings again. */
    atomic_exchange(&channel->bell_pending, false);
    /* At most a ringful: senders that never pause must not keep the rest from its turn. */
    for (int n = 0; n < CHANNEL_CELLS && channel_take(channel, &function, &data); n++) {
        atomic_fetch_add_explicit(&channel->drained, 1, memory_order_relaxed);
        function(data);
        if (PyErr_Occurred())
            break;
    }
    if (!subhost__channel_is_empty(channel))
        subhost__channel_ring(interp);
    subhost__buffers_collect(interp);
    if (PyErr_Occurred())
        return -1;
    subhost__cancel_service(interp);
    struct thread *self = subhost__thread_self();
    if (!self || self->interp != interp)
        return 0;
    /* Handlers run in the program's main thread; where nobody can be rung for that, the
     * attendant calls them. */
    if (self->is_driver || (self->is_attendant && !pending_call))
        return subhost__signals_run(interp);
    return 0;
}

void subhost__channel_drain_rest(subhost_interp *interp)
{
    void (*function)(void *);
    void *data;
    while (channel_take(&interp->channel, &function, &data)) {
        atomic_fetch_add_explicit(&interp->channel.drained, 1, memory_order_relaxed);
        function(data);
        PyErr_Clear();
    }
}

/* Runs on any thread of the interpreter, at its next eval-breaker check, GIL held. */
static int bell_rang(void *arg)
{
    subhost_interp *interp = arg;
    if (subhost__guard_is_raw())
        subhost__guard_end();
    if (interp->py != PyInterpreterState_Get())
        return 0; /* rung for a predecessor on the same driver */
    if (atomic_load(&interp->state) == INTERP_QUARANTINED) {
        /* Not parked in here: the interpreter's other threads would not be rung again. */
        atomic_store(&interp->channel.bell_pending, false);
        subhost__raise_park_all(interp);
        return 0;
    }
    /* Without memory for a record the messages are drained all the same. */
    struct thread *self = subhost__thread_adopt(interp, THREAD_PROGRAM);
    if (subhost__channel_drain(interp) < 0)
        return -1;
    /* A signal is for the driver: rung again, so that it hears of it when it gets the GIL. */
    if (self && !self->is_driver && atomic_load(&interp->signals_pending))
        subhost__channel_ring(interp);
    return subhost__raise_now(interp, self);
}

/* ---- the doorbell --------------------------------------------------------------- */

void subhost__channel_ring(subhost_interp *interp)
{
    struct channel *channel = &interp->channel;
    if (atomic_exchange(&channel->bell_pending, true))
        return;
    if (!pending_call) {
        subhost__channel_call_attendant(interp);
        return;
    }
    pthread_mutex_lock(&channel->door);
    if (!channel->open || pending_call(interp->py, bell_rang, interp, 0) != 0)
        atomic_store(&channel->bell_pending, false); /* the next poke rings again */
    pthread_mutex_unlock(&channel->door);
}

bool subhost__channel_pending_call(PyInterpreterState *interp, int (*function)(void *),
                                   void *data)
{
    return pending_call && pending_call(interp, function, data, 0) == 0;
}

void subhost__channel_open(subhost_interp *interp)
{
    struct channel *channel = &interp->channel;
    pthread_mutex_lock(&channel->door);
    channel->open = true;
    channel->attendant_stop = false;
    channel->attendant_wanted = false;
    pthread_mutex_unlock(&channel->door);
    atomic_store(&channel->bell_pending, false);
    if (!subhost__channel_is_empty(channel))
        subhost__channel_ring(interp);
}

bool subhost__channel_close(subhost_interp *interp, int64_t deadline)
{
    struct channel *channel = &interp->channel;
    pthread_mutex_lock(&channel->door);
    channel->open = false;
    channel->attendant_stop = true;
    pthread_cond_broadcast(&channel->attendant_cond);
    while (channel->attendant_alive && !channel->attendant_left) {
        if (!subhost__cond_wait(&channel->attendant_cond, &channel->door, deadline) &&
            !channel->attendant_left) {
            pthread_mutex_unlock(&channel->door);
            return false;
        }
    }
    bool alive = channel->attendant_alive;
    channel->attendant_alive = channel->attendant_left = false;
    pthread_mutex_unlock(&channel->door);
    if (alive)
        pthread_join(channel->attendant, NULL); /* at its last instructions */
    return true;
}

/* ---- the attendant -------------------------------------------------------------- */

/* Attaches a thread state of its own, drains, detaches: the documented way in. */
static void attend(subhost_interp *interp, struct thread *self)
{
    PyThreadState *tstate = subhost__thread_make_state(interp);
    if (!tstate)
        return;
    PyEval_RestoreThread(tstate);
    if (atomic_load(&interp->state) == INTERP_QUARANTINED) {
        subhost__raise_park_all(interp);
    } else if (subhost__channel_drain(interp) < 0) {
        /* What a message or a handler raised belongs to the program's main thread. */
        PyObject *exception = PyErr_GetRaisedException();
        subhost__raise_in(interp, interp->driver_thread, exception);
    }
    Py_CLEAR(self->deferred);
    PyThreadState_Clear(tstate);
    PyThreadState_DeleteCurrent();
}

static void *attendant_main(void *arg)
{
    subhost_interp *interp = arg;
    struct channel *channel = &interp->channel;
    pthread_setname_np(pthread_self(), "subhost/attend");
    struct thread *self = subhost__thread_adopt(interp, THREAD_ATTENDANT);
    pthread_mutex_lock(&channel->door);
    while (self && !channel->attendant_stop) {
        if (!channel->attendant_wanted) {
            subhost__cond_wait(&channel->attendant_cond, &channel->door, SUBHOST_FOREVER);
            continue;
        }
        channel->attendant_wanted = false;
        pthread_mutex_unlock(&channel->door);
        attend(interp, self);
        pthread_mutex_lock(&channel->door);
    }
    pthread_mutex_unlock(&channel->door);
    subhost__thread_forget();
    pthread_mutex_lock(&channel->door);
    channel->attendant_left = true;
    pthread_cond_broadcast(&channel->attendant_cond);
    pthread_mutex_unlock(&channel->door);
    return NULL;
}

void subhost__channel_call_attendant(subhost_interp *interp)
{
    struct channel *channel = &interp->channel;
    pthread_mutex_lock(&channel->door);
    if (channel->open && !channel->attendant_stop) {
        channel->attendant_wanted = true;
        if (channel->attendant_alive) {
            pthread_cond_broadcast(&channel->attendant_cond);
        } else {
            sigset_t all, before;
            sigfillset(&all);
            pthread_sigmask(SIG_SETMASK, &all, &before);
            channel->attendant_alive =
                subhost__thread_create(&channel->attendant, NULL, attendant_main,
                                       interp) == 0;
            pthread_sigmask(SIG_SETMASK, &before, NULL);
        }
    } else {
        atomic_store(&channel->bell_pending, false);
    }
    pthread_mutex_unlock(&channel->door);
}

/* ---- the self-check ------------------------------------------------------------- */

static int note_interpreter(void *arg)
{
    *(PyInterpreterState **)arg = PyInterpreterState_Get();
    return 0;
}

/* Rings in the main interpreter, lets one loop of bytecode pass, and looks. */
static const char *check_pending_call(add_pending_call function)
{
    PyInterpreterState *seen = NULL, *self = PyInterpreterState_Get();
    if (function(self, note_interpreter, &seen, 0) != 0)
        return "self-check: the call was not queued";
    PyObject *globals = PyDict_New();
    PyObject *result = NULL;
    if (globals)
        result =
            PyRun_String("for _ in range(100): pass", Py_file_input, globals, globals);
    Py_XDECREF(globals);
    Py_XDECREF(result);
    PyErr_Clear();
    return seen == self ? NULL : "self-check: the call did not arrive";
}

void subhost__channel_choose_doorbell(subhost_host *host)
{
    const char *why = NULL;
    pending_call = NULL;
    if (host->options.doorbell == SUBHOST_DOORBELL_ATTACH) {
        why = "asked for";
    } else {
        void *symbol = dlsym(RTLD_DEFAULT, "_PyEval_AddPendingCall");
        add_pending_call function;
        memcpy(&function, &symbol, sizeof function); /* POSIX's way from dlsym() */
        if (!symbol)
            why = "_PyEval_AddPendingCall is missing";
        else
            why = check_pending_call(function);
        if (!why)
            pending_call = function;
    }
    snprintf(host->doorbell_name, sizeof host->doorbell_name, "%s%s",
             why ? "attach: " : "pending-call", why ? why : "");
}
