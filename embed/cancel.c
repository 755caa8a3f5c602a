/* The cancel ladder.
 *
 *   1. cancel_requested() turns true, on_cancel() callbacks run; a running asyncio or
 * trio is told to cancel its main task.
 *   2. Cancelled is raised in the interpreter's threads, blocked ones are interrupted.
 *   3. It is raised again where it was swallowed, less and less often.
 *   4. When the grace period is over: abandonment (interp.c).
 *
 * In two halves: whoever asks sets an atomic and wakes; the interpreter's own threads act
 * on rungs 1 to 3 (subhost__cancel_service, with the GIL), the main loop keeps the time
 * and acts on rung 4 (subhost__cancel_tick, without one). */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "interp.h"
#include "module.h"
#include "policing.h"
#include "pool.h"

/* A program that asyncio or trio runs keeps the whole grace period to end in the loop's
 * own way; then Cancelled is raised over it, and this long later it is abandoned. */
#define LOOP_LAST_CHANCE SUBHOST_MSEC(40)
/* How long the program's main thread has for a SIGINT before other threads get it too,
 * when it does not take it at all (blocked in a join(), say). */
#define DRIVER_FIRST SUBHOST_MSEC(5)
#define POKE_MAX SUBHOST_MSEC(50)
/* How long the end of a pool's call waits for threads of it that were held back. */
#define LAST_ROUNDS SUBHOST_MSEC(50)
/* Pokes that nobody answers before the attendant is sent in. */
#define POKES_BEFORE_ATTENDANT SUBHOST_MSEC(5)

const char *subhost__reason_name(enum subhost_reason reason)
{
    static const char *const names[] = {
#define REASON_NAME(name, text) [name] = text,
        SUBHOST_REASONS(REASON_NAME)
#undef REASON_NAME
    };
    return (size_t)reason < ARRAY_LENGTH(names) ? names[reason] : "unknown";
}

int subhost__cancel_status(enum subhost_reason reason)
{
    switch (reason) {
    case SUBHOST_BY_DEADLINE:
        return 124;
    case SUBHOST_BY_SIGINT:
        return 130;
    case SUBHOST_BY_SIGTERM:
        return 143;
    case SUBHOST_BY_REQUEST:
    case SUBHOST_BY_CLOSE:
    case SUBHOST_BY_ORPHAN:
        break;
    }
    return 137;
}

/* The cancel under way is that of one call of a pool's, after which its worker goes on. Under
 * interp->lock. */
static bool is_calls_deadline(const subhost_interp *interp)
{
    return interp->current && interp->current->worker &&
           atomic_load(&interp->cancel.requested) &&
           interp->cancel.reason == SUBHOST_BY_DEADLINE;
}

bool subhost__cancel_is_under_way(subhost_interp *interp)
{
    pthread_mutex_lock(&interp->lock);
    bool is = atomic_load(&interp->cancel.requested) && !is_calls_deadline(interp);
    pthread_mutex_unlock(&interp->lock);
    return is;
}

void subhost__cancel_request(subhost_interp *interp, subhost_task *task,
                             enum subhost_reason reason, const char *text)
{
    struct cancel *cancel = &interp->cancel;
    bool shortened = false;
    pthread_mutex_lock(&interp->lock);
    bool first = interp->current == task && !atomic_load(&cancel->requested) &&
                 interp->state != INTERP_QUARANTINED &&
                 (!task->worker || reason != SUBHOST_BY_DEADLINE ||
                  subhost__worker_expire(task->worker));
    if (first) {
        cancel->reason = reason;
        cancel->text = text && *text ? strdup(text) : NULL;
        subhost__task_keep_words(task, text);
        cancel->requested_at = subhost__now();
        cancel->grace = task->grace;
        cancel->rungs = (int)subhost__policy_number(task->policy, POLICY_CANCEL_RUNGS);
        atomic_store(&cancel->scope,
                     reason == SUBHOST_BY_SIGINT ? CANCEL_DRIVER_FIRST : CANCEL_ALL);
        atomic_store(&cancel->requested, true);
    } else if (interp->current == task && is_calls_deadline(interp) &&
               reason != SUBHOST_BY_DEADLINE) {
        atomic_store(&task->worker->cancel_next, (int)reason + 1);
    } else if (interp->current == task && atomic_load(&cancel->requested)) {
        /* By one who has less time, its parent: what is left becomes shorter, never longer. */
        int64_t age = subhost__now() - cancel->requested_at;
        shortened = task->grace < cancel->grace - age;
        if (shortened)
            cancel->grace = age + task->grace;
    }
    unsigned over = atomic_load(&task->cancels_over);
    pthread_mutex_unlock(&interp->lock);
    if (shortened) /* and so does that of what is below it */
        subhost__task_cancel_children(task, over, reason, text);
    if (shortened)
        subhost__loop_wake(interp->host); /* its timer */
    if (!first)
        return;
    pthread_mutex_lock(&interp->host->lock);
    interp->host->stats.cancels++;
    pthread_mutex_unlock(&interp->host->lock);
    NOTE(interp, CANCEL_REQUESTED, TRAIL_TEXT(REASON, subhost__reason_name(reason)),
         TRAIL_TEXT(WORDS, text), TRAIL_NUMBER(GRACE, cancel->grace));
    subhost__channel_ring(interp);
    subhost__thread_kick_all(interp);
    /* Everything below it at once, and not when its Python code comes to it. */
    subhost__task_cancel_children(task, over, reason, text);
    subhost__loop_wake(interp->host);
}

void subhost__cancel_note_latency(subhost_host *host, int64_t latency)
{
    pthread_mutex_lock(&host->lock);
    host->stats.cancel_latency_last = latency;
    if (latency > host->stats.cancel_latency_max)
        host->stats.cancel_latency_max = latency;
    pthread_mutex_unlock(&host->lock);
}

int64_t subhost__cancel_age(const subhost_interp *interp)
{
    const struct cancel *cancel = &interp->cancel;
    return atomic_load(&cancel->requested) ? subhost__now() - cancel->requested_at : -1;
}

/* After the task's end; driver, GIL held. */
void subhost__cancel_reset(subhost_interp *interp)
{
    struct cancel *cancel = &interp->cancel;
    struct thread *self = subhost__thread_self();
    if (self) {
        /* What was handed over too late must not hit the next task. */
        subhost__raise_forget(interp, self);
        self->raised = 0;
        self->runs_loop = false;
        self->shield_depth = 0;
        self->shield_withheld = false;
    }
    pthread_mutex_lock(&interp->lock);
    cancel->serial++;
    free(cancel->text);
    cancel->text = NULL;
    atomic_store(&cancel->requested, false);
    atomic_store(&cancel->begun, false);
    atomic_store(&cancel->held_by_loop, false);
    atomic_store(&cancel->over_loops, false);
    atomic_store(&cancel->delivered_at, 0);
    atomic_store(&cancel->raise_round, 0);
    atomic_store(&cancel->probe_round, 0);
    atomic_store(&cancel->raise_done, 0);
    atomic_store(&cancel->probe_done, 0);
    atomic_store(&cancel->insist, false);
    cancel->begin_started = false;
    cancel->next_probe_at = 0;
    cancel->next_round_at = 0;
    cancel->round_interval = 0;
    cancel->insisted = 0;
    pthread_mutex_unlock(&interp->lock);
}

/* ---- in the interpreter, GIL held ----------------------------------------------- */

/* Whether this thread is to get Cancelled at all in this round. */
static bool concerns(subhost_interp *interp, const struct thread *thread, bool insist)
{
    if (thread->is_attendant)
        return false;
    if (thread->runs_loop && !atomic_load(&interp->cancel.over_loops))
        return false;
    if (!thread->is_driver)
        return atomic_load(&interp->cancel.scope) == CANCEL_ALL;
    /* Past its program's end the driver runs atexit and flushes: that may take its time.
     */
    return insist || atomic_load(&interp->state) == INTERP_RUNNING;
}

/* Idents of the interpreter's threads, by its own list: a Python list of int. */
static PyObject *thread_idents(subhost_interp *interp)
{
    PyObject *idents = PyList_New(0);
    /* Stable: thread states of an interpreter come and go with its GIL held. */
    PyThreadState *tstate = subhost__thread_first_state(interp);
    for (; idents && tstate; tstate = PyThreadState_Next(tstate)) {
        PyObject *ident = PyLong_FromUnsignedLong(tstate->thread_id);
        if (!ident || PyList_Append(idents, ident) < 0)
            Py_CLEAR(idents);
        Py_XDECREF(ident);
    }
    return idents;
}

typedef bool (*thread_filter)(subhost_interp *interp, const struct thread *thread);

static bool not_reached(subhost_interp *interp, const struct thread *thread)
{
    (void)interp;
    return thread->raised == 0;
}

static bool reached(subhost_interp *interp, const struct thread *thread)
{
    (void)interp;
    return thread->raised > 0 && !atomic_load(&thread->raise_pending);
}

/* Keeps of the idents those whose thread is concerned and passes the filter. */
static PyObject *select_threads(subhost_interp *interp, PyObject *idents,
                                thread_filter filter, bool insist)
{
    PyObject *selected = PyList_New(0);
    for (Py_ssize_t i = 0; selected && i < PyList_GET_SIZE(idents); i++) {
        PyObject *ident = PyList_GET_ITEM(idents, i);
        struct thread *thread =
            subhost__thread_find(interp, PyLong_AsUnsignedLong(ident));
        if (thread && concerns(interp, thread, insist) && filter(interp, thread) &&
            PyList_Append(selected, ident) < 0)
            Py_CLEAR(selected);
    }
    return selected;
}

/* `serial`: the cancel that they were chosen for. That was Python code, in which the task may
 * have ended and the next one begun.
 *
 * A thread that takes or gives back a lock of importlib's is passed by: the lock would stay
 * held, and the next import, by another thread or the next task, wait for ever. Its turn comes
 * in a later round. No Python code runs between this look and the raise, so it is still there. */
static void raise_in_all(subhost_interp *interp, PyObject *idents, unsigned serial)
{
    if (interp->cancel.serial != serial)
        return;
    for (Py_ssize_t i = 0; idents && i < PyList_GET_SIZE(idents); i++) {
        unsigned long ident = PyLong_AsUnsignedLong(PyList_GET_ITEM(idents, i));
        if (!subhost__frames_at_import_lock(interp, ident))
            subhost__raise_in(interp, subhost__thread_find(interp, ident), NULL);
    }
}

static void raise_round(subhost_interp *interp)
{
    bool insist = atomic_load(&interp->cancel.insist);
    unsigned serial = interp->cancel.serial;
    PyObject *idents = thread_idents(interp);
    PyObject *selected =
        idents ? select_threads(interp, idents, not_reached, insist) : NULL;
    PyObject *busy =
        selected ? subhost__prelude_call(interp, "without_idle", "(O)", selected) : NULL;
    if (busy && PyList_Check(busy) && PyList_GET_SIZE(busy) > 0)
        NOTE(interp, CANCEL_RUNG_2, TRAIL_NUMBER(THREADS, PyList_GET_SIZE(busy)),
             TRAIL_TEXT(SCOPE, atomic_load(&interp->cancel.scope) == CANCEL_ALL
                                   ? "all"
                                   : "main first"),
             TRAIL_NUMBER(AFTER, subhost__cancel_age(interp)));
    raise_in_all(interp, busy, serial);
    Py_XDECREF(busy);
    Py_XDECREF(selected);
    Py_XDECREF(idents);
    PyErr_Clear(); /* out of memory: the next round tries again */
}

/* Whether a thread that was not reached yet stands at a lock of importlib's. */
static bool any_held_back(subhost_interp *interp)
{
    PyObject *idents = thread_idents(interp);
    PyObject *selected =
        idents ? select_threads(interp, idents, not_reached, false) : NULL;
    bool found = false;
    for (Py_ssize_t i = 0; selected && !found && i < PyList_GET_SIZE(selected); i++)
        found = subhost__frames_at_import_lock(
            interp, PyLong_AsUnsignedLong(PyList_GET_ITEM(selected, i)));
    Py_XDECREF(selected);
    Py_XDECREF(idents);
    PyErr_Clear();
    return found;
}

void subhost__cancel_last_rounds(subhost_interp *interp)
{
    int64_t until = subhost__now() + LAST_ROUNDS;
    while (interp->cancel.rungs > 1) {
        raise_round(interp);
        if (subhost__now() >= until || !any_held_back(interp))
            return;
        Py_BEGIN_ALLOW_THREADS nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
        Py_END_ALLOW_THREADS
    }
}

static void probe_round(subhost_interp *interp)
{
    bool insist = atomic_load(&interp->cancel.insist);
    unsigned serial = interp->cancel.serial;
    PyObject *idents = thread_idents(interp);
    PyObject *selected = idents ? select_threads(interp, idents, reached, insist) : NULL;
    if (selected && PyList_GET_SIZE(selected) > 0) {
        PyObject *swallowers =
            subhost__prelude_call(interp, "swallowers", "(Oi)", selected, (int)insist);
        raise_in_all(interp, swallowers, serial);
        Py_XDECREF(swallowers);
    }
    Py_XDECREF(selected);
    Py_XDECREF(idents);
    PyErr_Clear();
}

static void begin(subhost_interp *interp)
{
    struct cancel *cancel = &interp->cancel;
    unsigned serial = cancel->serial;
    cancel->begin_started = true;
    NOTE(interp, CANCEL_RUNG_1, TRAIL_NUMBER(AFTER, subhost__cancel_age(interp)));
    /* The idents of the threads whose event loop now cancels its main task. */
    PyObject *told = subhost__prelude_run(interp, "begin_cancel", "(i)",
                                          cancel->reason == SUBHOST_BY_SIGINT);
    if (cancel->serial != serial) { /* its task ended meanwhile */
        Py_XDECREF(told);
        PyErr_Clear();
        return;
    }
    bool held = told && PyList_Check(told) && PyList_GET_SIZE(told) > 0;
    for (Py_ssize_t i = 0; held && i < PyList_GET_SIZE(told); i++) {
        unsigned long ident = PyLong_AsUnsignedLong(PyList_GET_ITEM(told, i));
        struct thread *thread = subhost__thread_find(interp, ident);
        if (thread)
            thread->runs_loop = true;
    }
    Py_XDECREF(told);
    PyErr_Clear(); /* a callback that lets a BaseException out does not stop the cancel */
    atomic_store(&cancel->held_by_loop, held);
    if (held)
        NOTE(interp, CANCEL_HELD, TRAIL_NUMBER(AFTER, subhost__cancel_age(interp)));
    if (atomic_load(&cancel->raise_round) == 0 && cancel->rungs > 1)
        atomic_store(&cancel->raise_round, 1);
    atomic_store(&cancel->begun, true);
}

void subhost__cancel_service(subhost_interp *interp)
{
    struct cancel *cancel = &interp->cancel;
    if (!atomic_load(&cancel->requested) || !interp->module)
        return;
    unsigned serial = cancel->serial;
    if (!cancel->begin_started)
        begin(interp);
    if (cancel->serial != serial)
        return;
    unsigned wanted = atomic_load(&cancel->raise_round);
    if (wanted != atomic_load(&cancel->raise_done)) {
        atomic_store(&cancel->raise_done, wanted);
        raise_round(interp);
        subhost__loop_wake(interp->host); /* threads that are blocked need a kick now */
    }
    if (cancel->serial != serial)
        return;
    wanted = atomic_load(&cancel->probe_round);
    if (wanted != atomic_load(&cancel->probe_done)) {
        atomic_store(&cancel->probe_done, wanted);
        NOTE(interp, CANCEL_RUNG_3, TRAIL_NUMBER(ROUND, wanted),
             TRAIL_NUMBER(INSISTS, atomic_load(&cancel->insist)),
             TRAIL_NUMBER(AFTER, subhost__cancel_age(interp)));
        raise_round(interp); /* threads that were started since */
        probe_round(interp);
        subhost__loop_wake(interp->host);
    }
}

/* ---- on the main loop ----------------------------------------------------------- */

static bool quiet(subhost_interp *interp)
{
    struct cancel *cancel = &interp->cancel;
    if (atomic_load(&interp->state) == INTERP_QUARANTINED)
        return atomic_load(&interp->parked);
    if (atomic_load(&interp->signals_pending) ||
        !subhost__channel_is_empty(&interp->channel))
        return false;
    if (!atomic_load(&cancel->requested))
        return true;
    return atomic_load(&cancel->begun) &&
           atomic_load(&cancel->raise_round) == atomic_load(&cancel->raise_done) &&
           atomic_load(&cancel->probe_round) == atomic_load(&cancel->probe_done) &&
           !subhost__thread_any_raise_pending(interp);
}

/* Rings and kicks until everything has been noticed: a kick that came between a thread's
 * check and its call is lost, a bell may have been heard by the wrong thread. */
static int64_t poke(subhost_interp *interp, int64_t now)
{
    if (quiet(interp)) {
        interp->next_poke_at = 0;
        return SUBHOST_FOREVER;
    }
    if (!interp->next_poke_at) {
        interp->poke_since = now;
        interp->poke_interval = 0;
        interp->next_poke_at = now;
    }
    if (now < interp->next_poke_at)
        return interp->next_poke_at;
    subhost__channel_ring(interp);
    subhost__thread_kick_all(interp);
    if (now - interp->poke_since >= POKES_BEFORE_ATTENDANT)
        subhost__channel_call_attendant(interp);
    interp->poke_interval =
        interp->poke_interval ? interp->poke_interval * 2 : SUBHOST_MSEC(1) / 2;
    /* One that was given up on is tried again, but not at the cost of the others. */
    int64_t longest =
        atomic_load(&interp->state) == INTERP_QUARANTINED ? 20 * POKE_MAX : POKE_MAX;
    if (interp->poke_interval > longest)
        interp->poke_interval = longest;
    interp->next_poke_at = now + interp->poke_interval;
    return interp->next_poke_at;
}

static void order(subhost_interp *interp, atomic_uint *round)
{
    atomic_fetch_add(round, 1);
    interp->next_poke_at = 0; /* at once, and often again */
}

/* Rungs 2 and 3 as time passes; returns when to look again, or 0 when it is time for the
 * last one. Under interp->lock, so that the task's end does not come in between. */
static int64_t climb(subhost_interp *interp, int64_t now)
{
    struct cancel *cancel = &interp->cancel;
    int64_t age = now - cancel->requested_at, grace = cancel->grace;
    int64_t end = grace + (atomic_load(&cancel->held_by_loop) ? LOOP_LAST_CHANCE : 0);
    if (age >= end)
        return 0;
    if (cancel->rungs < 2)
        return cancel->requested_at + end;
    /* Rung 2, where it was held back: a callback that hangs, a loop that did not end. */
    if (atomic_load(&cancel->raise_round) == 0 && age >= grace / 4)
        order(interp, &cancel->raise_round);
    if (age >= grace && !atomic_load(&cancel->over_loops)) {
        atomic_store(&cancel->over_loops, true);
        order(interp, &cancel->raise_round);
    }
    int64_t next = cancel->requested_at + (age < grace ? grace : end);

    if (atomic_load(&cancel->scope) == CANCEL_DRIVER_FIRST) {
        bool taken = atomic_load(&cancel->delivered_at) != 0;
        int64_t patience =
            taken || atomic_load(&cancel->held_by_loop) ? grace / 4 : DRIVER_FIRST;
        if (age >= patience) {
            atomic_store(&cancel->scope, CANCEL_ALL);
            if (atomic_load(&cancel->raise_round) > 0)
                order(interp, &cancel->raise_round);
        } else if (cancel->requested_at + patience < next) {
            next = cancel->requested_at + patience;
        }
    }
    /* Threads that were passed by at first (just being started, idle in a pool) get their
     * turn soon. */
    if (atomic_load(&cancel->begun) && cancel->round_interval <= SUBHOST_MSEC(64)) {
        if (!cancel->next_round_at) {
            cancel->round_interval = SUBHOST_MSEC(2);
            cancel->next_round_at = now + cancel->round_interval;
        }
        if (now >= cancel->next_round_at) {
            order(interp, &cancel->raise_round);
            cancel->round_interval *= 2;
            cancel->next_round_at = now + cancel->round_interval;
        }
        if (cancel->next_round_at < next)
            next = cancel->next_round_at;
    }
    /* Rung 3. A program that caught its KeyboardInterrupt has the right to tidy up, so a
     * signal's second one comes late. In a thread that is still handling the first one
     * (except, finally, __exit__) it comes at half and at three quarters of the grace. */
    if (atomic_load(&cancel->raise_round) > 0 && cancel->rungs > 2) {
        bool by_signal =
            cancel->reason == SUBHOST_BY_SIGINT || cancel->reason == SUBHOST_BY_SIGTERM;
        if (!cancel->next_probe_at) {
            cancel->probe_interval = by_signal ? grace / 2 : grace / 8;
            cancel->next_probe_at = now + cancel->probe_interval;
        }
        int64_t insist_at =
            cancel->requested_at + (cancel->insisted == 0   ? grace / 2
                                    : cancel->insisted == 1 ? grace * 3 / 4
                                                            : 2 * grace);
        bool insist = now >= insist_at;
        if (insist || now >= cancel->next_probe_at) {
            cancel->insisted += insist;
            atomic_store(&cancel->insist, insist);
            order(interp, &cancel->probe_round);
            cancel->probe_interval *= 2;
            cancel->next_probe_at = now + cancel->probe_interval;
        }
        if (cancel->next_probe_at < next)
            next = cancel->next_probe_at;
        if (!insist && insist_at < next)
            next = insist_at;
    }
    return next;
}

int64_t subhost__cancel_tick(subhost_interp *interp, int64_t now)
{
    int64_t next = SUBHOST_FOREVER, at = SUBHOST_FOREVER;
    pthread_mutex_lock(&interp->lock);
    enum interp_state state = interp->state;
    subhost_task *task = NULL;
    if (interp->current && (state == INTERP_RUNNING || state == INTERP_FINISHING)) {
        task = interp->current;
        subhost__task_ref(task);
        next =
            task->worker ? subhost__worker_deadline(task->worker, now) : task->deadline;
        if (atomic_load(&interp->cancel.requested))
            at = climb(interp, now);
    }
    pthread_mutex_unlock(&interp->lock);
    if (state == INTERP_QUARANTINED && !atomic_load(&interp->parked))
        return poke(interp, now);
    if (!task && state != INTERP_IDLE)
        return SUBHOST_FOREVER;

    if (at == 0) {
        subhost__interp_abandon(interp, task);
        next = at = SUBHOST_FOREVER;
    } else if (at != SUBHOST_FOREVER) {
        next = at; /* a cancel is under way; the deadline has nothing to add */
    } else if (now >= next) {
        subhost__cancel_request(interp, task, SUBHOST_BY_DEADLINE, NULL);
        next = now; /* the ladder has begun: look again at once */
    }
    subhost_task_release(task);
    at = poke(interp, now);
    return at < next ? at : next;
}
