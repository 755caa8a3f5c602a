/* The driver thread: creates its interpreter, runs its tasks, ends it. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "boot.h"
#include "buffer.h"
#include "capture.h"
#include "importer.h"
#include "interp.h"
#include "module.h"
#include "policing.h"

/* How long one creation or destruction may keep the others waiting. */
#define CREATION_TIMEOUT SUBHOST_MSEC(30000)
/* What daemon threads have for their end before their interpreter is left behind. */
#define DAEMON_TIMEOUT SUBHOST_MSEC(500)
/* What callbacks have that are still inside: they are short, and on threads of others. */
#define VISITOR_TIMEOUT SUBHOST_MSEC(5000)

static bool lock_creation(subhost_host *host)
{
    struct timespec t = subhost__timespec(subhost__now() + CREATION_TIMEOUT);
    return pthread_mutex_clocklock(&host->creation, CLOCK_MONOTONIC, &t) == 0;
}

/* ---- creation ------------------------------------------------------------------- */

static void fail(subhost_interp *interp, const char *why)
{
    pthread_mutex_lock(&interp->lock);
    free(interp->failure);
    interp->failure = strdup(why);
    pthread_mutex_unlock(&interp->lock);
}

/* PEP 684: a GIL of its own needs an obmalloc of its own, which needs that extension
 * modules are checked (CPython's Python/pylifecycle.c, init_interp_settings()). */
static PyInterpreterConfig configuration(const subhost_interp *interp)
{
    bool own = interp->gil == SUBHOST_GIL_OWN;
    bool own_obmalloc = own || subhost__policing_own_obmalloc(interp->policy);
    return (PyInterpreterConfig){
        .use_main_obmalloc = !own_obmalloc,
        .allow_fork = 1, /* refused by the fence, with a better message */
        .allow_exec = 1,
        .allow_threads = 1,
        .allow_daemon_threads = 1,
        .check_multi_interp_extensions = own_obmalloc,
        .gil = own ? PyInterpreterConfig_OWN_GIL : PyInterpreterConfig_SHARED_GIL,
    };
}

/* The interpreter itself. Leaves its thread state current. */
static bool new_interpreter(subhost_interp *interp)
{
    /* Creation starts from the main interpreter (C-API: the GIL must be held). */
    PyThreadState *main_tstate = PyThreadState_New(PyInterpreterState_Main());
    if (!main_tstate) {
        fail(interp, "out of memory");
        return false;
    }
    PyEval_RestoreThread(main_tstate);
    PyInterpreterConfig config = configuration(interp);
    PyThreadState *tstate = NULL;
    PyStatus status = Py_NewInterpreterFromConfig(&tstate, &config);
    if (PyStatus_Exception(status) || !tstate) {
        fail(interp, status.err_msg ? status.err_msg : "CPython made no interpreter");
        PyThreadState_Swap(main_tstate);
        PyThreadState_Clear(main_tstate);
        PyThreadState_DeleteCurrent();
        return false;
    }
    /* A thread state of the main interpreter that nobody runs would only be in the way.
     */
    PyThreadState_Swap(main_tstate);
    PyThreadState_Clear(main_tstate);
    PyThreadState_DeleteCurrent();
    PyEval_RestoreThread(tstate);
    interp->py = PyThreadState_GetInterpreter(tstate);
    interp->driver_tstate = tstate;
    interp->programs_run = 0;
    subhost__occupy();
    subhost__thread_open_door(interp);
    return true;
}

/* What the policy has imported before any program. */
static int import_first(subhost_interp *interp)
{
    if (subhost__policy_number(interp->policy, POLICY_INTERPRETER_SITE) &&
        subhost__boot_site() < 0)
        return -1;
    return subhost__policing_preload(interp->policy);
}

/* sys.stdout and sys.stderr go into the capture's pipes. */
static int capture_output(subhost_interp *interp)
{
    if (!interp->capture)
        return 0;
    PyObject *result = subhost__prelude_call(interp, "capture", "(ii)",
                                             subhost__capture_fd(interp->capture, 0),
                                             subhost__capture_fd(interp->capture, 1));
    Py_XDECREF(result);
    return result ? 0 : -1;
}

static void fail_with_exception(subhost_interp *interp)
{
    PyObject *exception = PyErr_GetRaisedException();
    PyObject *text = exception ? PyObject_Repr(exception) : NULL;
    const char *utf8 = text ? PyUnicode_AsUTF8(text) : NULL;
    fail(interp, utf8 ? utf8 : "an exception that cannot be shown");
    Py_XDECREF(text);
    Py_XDECREF(exception);
    PyErr_Clear();
}

/* 0, or -1 with an exception set. */
static int call_prelude(subhost_interp *interp, const char *name)
{
    PyObject *result = subhost__prelude_call(interp, name, "()");
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/* The main interpreter of a forked child, prepared before the fork. */
static bool enter_main(subhost_interp *interp)
{
    PyThreadState *tstate = PyThreadState_New(interp->py);
    if (!tstate) {
        fail(interp, "out of memory");
        return false;
    }
    PyEval_RestoreThread(tstate);
    interp->driver_tstate = tstate;
    subhost__occupy();
    subhost__thread_open_door(interp);
    subhost__importer_remove();
    bool ok = call_prelude(interp, "become_child") == 0;
    if (ok)
        subhost__channel_open(interp);
    else
        fail_with_exception(interp);
    PyEval_SaveThread();
    return ok;
}

/* Creates and prepares the interpreter; detached when it returns. */
static bool create(subhost_interp *interp)
{
    subhost_host *host = interp->host;
    if (interp->is_main)
        return enter_main(interp);
    if (!lock_creation(host)) {
        fail(interp, "another interpreter's creation has not ended for 30 s");
        return false;
    }
    bool ok = !subhost__interp_is_unwanted(interp) && new_interpreter(interp);
    pthread_mutex_unlock(&host->creation);
    if (!ok)
        return false;
    ok = subhost__module_boot(interp) == 0 && import_first(interp) == 0 &&
         capture_output(interp) == 0 && call_prelude(interp, "settle") == 0;
    if (!ok)
        fail_with_exception(interp);
    pthread_mutex_lock(&host->lock);
    host->stats.interpreters_created++;
    pthread_mutex_unlock(&host->lock);
    if (ok)
        subhost__channel_open(interp);
    if (ok)
        NOTE(interp, INTERP_CREATED, TRAIL_TEXT(NAME, interp->name),
             TRAIL_TEXT(ISOLATION, "interpreter"),
             TRAIL_TEXT(GIL, subhost__gil_name(interp->gil)));
    else
        NOTE(interp, INTERP_FAILED, TRAIL_TEXT(NAME, interp->name),
             TRAIL_TEXT(WHY, interp->failure));
    PyEval_SaveThread();
    return ok;
}

/* ---- the end -------------------------------------------------------------------- */

/* Cancels the threads that are still there; false when they are visitors at most. GIL held. */
static bool cancel_others(subhost_interp *interp)
{
    bool daemons = false;
    PyThreadState *tstate = subhost__thread_first_state(interp);
    for (; tstate; tstate = PyThreadState_Next(tstate)) {
        struct thread *thread = subhost__thread_find(interp, tstate->thread_id);
        /* One that is just coming in has no record yet. */
        daemons = daemons || (thread && !thread->is_driver && !thread->is_visitor);
        if (thread && !thread->is_driver && !thread->is_attendant &&
            !atomic_load(&thread->raise_pending)) {
            thread->shield_depth = 0;
            subhost__raise_in(interp, thread, NULL);
        }
    }
    return daemons;
}

/* Py_EndInterpreter() dies when there is another thread state. Those of daemon threads
 * are cancelled. GIL held; false: some are still there. Else none can come any more. */
static bool end_daemon_threads(subhost_interp *interp)
{
    int64_t started = subhost__now();
    long pause = 1000000;
    bool quiet = false;
    while (!subhost__thread_close_door(interp)) {
        if (!quiet) {
            call_prelude(interp, "end_quietly");
            PyErr_Clear();
            quiet = true;
        }
        bool daemons = cancel_others(interp);
        if (subhost__now() - started >= (daemons ? DAEMON_TIMEOUT : VISITOR_TIMEOUT))
            return false;
        PyThreadState *self = PyEval_SaveThread();
        subhost__thread_kick_all(interp);
        nanosleep(&(struct timespec){.tv_nsec = pause}, NULL);
        PyEval_RestoreThread(self);
        /* A kicked thread needs the GIL for its answer: not too often. */
        pause = pause < 16000000 ? 2 * pause : pause;
    }
    return true;
}

/* False: it could not be ended, and stays. Detached, before and after. */
static bool end_interpreter(subhost_interp *interp)
{
    subhost_host *host = interp->host;
    if (interp->is_main)
        return true; /* the process ends with it */
    PyEval_RestoreThread(interp->driver_tstate);
    pthread_mutex_lock(&host->lock);
    bool exiting = host->exiting;
    pthread_mutex_unlock(&host->lock);
    /* A process that exits takes its daemon threads with it, as python's does. */
    bool ok = exiting ? subhost__thread_close_door(interp) : end_daemon_threads(interp);
    PyEval_SaveThread();
    if (!subhost__channel_close(interp, subhost__now() + SUBHOST_MSEC(1000)))
        ok = false;
    if (!ok || !lock_creation(host))
        return false;
    PyEval_RestoreThread(interp->driver_tstate);
    subhost__cancel_reset(interp);
    call_prelude(interp, "forget_atexits");
    if (!exiting) {
        call_prelude(interp, "leave_children");
        PyErr_Clear();
        call_prelude(interp, "unsettle");
    }
    PyErr_Clear();
    subhost__channel_drain_rest(interp);
    subhost__callback_end_all(interp);
    subhost__buffers_collect(interp);
    interp->py = NULL; /* messages that are still queued see that it is over */
    PyObject *module = interp->module ? interp->module->module : NULL;
    interp->module = NULL; /* the next interpreter on this thread makes its own */
    Py_XDECREF(module);
    PyThreadState *tstate = interp->driver_tstate;
    interp->driver_tstate = NULL;
    subhost__vacate();
    Py_EndInterpreter(tstate);
    subhost__buffers_end(interp);
    NOTE(interp, INTERP_ENDED, TRAIL_TEXT(NAME, interp->name));
    pthread_mutex_unlock(&host->creation);
    pthread_mutex_lock(&host->lock);
    host->stats.interpreters_ended++;
    pthread_mutex_unlock(&host->lock);
    return true;
}

/* ---- tasks ---------------------------------------------------------------------- */

static subhost_task *next_task(subhost_interp *interp)
{
    pthread_mutex_lock(&interp->lock);
    while (!interp->queue && !interp->releasing && interp->state == INTERP_IDLE)
        subhost__cond_wait(&interp->work, &interp->lock, SUBHOST_FOREVER);
    subhost_task *task = subhost__task_begin(interp);
    pthread_mutex_unlock(&interp->lock);
    if (task)
        subhost__task_note_start(task);
    if (task && task->deadline != SUBHOST_FOREVER)
        subhost__loop_wake(interp->host); /* it has to set its timer */
    return task;
}

static void note_cancel_latency(subhost_interp *interp)
{
    struct cancel *cancel = &interp->cancel;
    int64_t delivered = atomic_load(&cancel->delivered_at);
    if (!atomic_load(&cancel->requested) || !delivered)
        return;
    subhost__cancel_note_latency(interp->host, delivered - cancel->requested_at);
}

/* In front of all others, with what is left of its time; the next interpreter shares the main
 * GIL, or is that of a process. False: it is cancelled. Under interp->lock. */
static bool queue_again(subhost_interp *interp, subhost_task *task)
{
    if (atomic_load(&interp->cancel.requested))
        return false;
    int64_t left = task->deadline - subhost__now();
    if (task->deadline != SUBHOST_FOREVER)
        task->timeout = left > 0 ? left : 1;
    subhost__task_ref(task);
    task->next = interp->queue;
    interp->queue = task;
    if (!task->next)
        interp->queue_tail = &task->next;
    if (subhost__policing_anew(interp, task) == ANEW_PROCESS)
        interp->isolation = SUBHOST_ISOLATION_PROCESS;
    else
        interp->gil = SUBHOST_GIL_SHARED;
    return true;
}

/* False when the interpreter was abandoned meanwhile. */
static bool run_task(subhost_interp *interp, subhost_task *task)
{
    subhost_outcome outcome = {.cancel_reason = -1};
    char *detail = NULL;
    pthread_mutex_lock(&interp->host->lock);
    interp->host->stats.tasks_started += !task->anew;
    pthread_mutex_unlock(&interp->host->lock);

    PyEval_RestoreThread(interp->driver_tstate);
    subhost__program_run(interp, task, &outcome, &detail);
    pthread_mutex_lock(&interp->lock);
    bool ours = subhost__interp_enter(interp, INTERP_IDLE);
    interp->current = NULL;
    bool anew = ours && task->anew && queue_again(interp, task);
    pthread_mutex_unlock(&interp->lock);
    if (task->anew && !anew) {
        outcome.kind = SUBHOST_CANCELLED;
        outcome.status = subhost__cancel_status(interp->cancel.reason);
    }
    if (ours) {
        note_cancel_latency(interp);
        subhost__cancel_reset(interp);
    }
    PyEval_SaveThread();
    if (anew) {
        free(detail);
        atomic_store(&interp->running_task, 0);
        return true;
    }
    subhost__task_note_name(interp, task);
    subhost__task_finish(task, &outcome, detail);
    atomic_store(&interp->running_task, 0);
    free(detail);
    return ours;
}

static bool set_state(subhost_interp *interp, enum interp_state state)
{
    pthread_mutex_lock(&interp->lock);
    bool ok = subhost__interp_enter(interp, state);
    pthread_mutex_unlock(&interp->lock);
    return ok;
}

/* Replaces the interpreter by a new one on the same thread. */
static bool renew(subhost_interp *interp)
{
    if (!set_state(interp, INTERP_CLOSING) || !end_interpreter(interp))
        return false;
    set_state(interp, INTERP_STARTING);
    atomic_store(&interp->wakeup_fd, -1);
    return create(interp) && set_state(interp, INTERP_IDLE);
}

/* It has run as many tasks as its policy lets one interpreter run. */
static bool is_used_up(const subhost_interp *interp)
{
    int64_t most = subhost__policy_number(interp->policy, POLICY_INTERPRETER_REUSE);
    return most > 0 && interp->programs_run >= (uint64_t)most;
}

/* Something waits, or may still come. */
static bool has_work(subhost_interp *interp)
{
    pthread_mutex_lock(&interp->lock);
    bool has = interp->queue || !interp->releasing;
    pthread_mutex_unlock(&interp->lock);
    return has;
}

/* What is left to run runs in a process, which is the main loop's. False: it could not be
 * ended here, and was abandoned. */
static bool leave_to_process(subhost_interp *interp)
{
    if (set_state(interp, INTERP_CLOSING) && end_interpreter(interp) &&
        set_state(interp, INTERP_STARTING))
        return true;
    subhost__interp_abandon(interp, NULL);
    return false;
}

/* True: a process goes on. */
static bool drive(subhost_interp *interp)
{
    if (!create(interp)) {
        set_state(interp, INTERP_FAILED);
        char *why = NULL;
        if (asprintf(&why, "the interpreter could not be created: %s",
                     interp->failure ? interp->failure : "out of memory") < 0)
            why = NULL;
        subhost__task_end_queue(interp, SUBHOST_FAILED, -1, why ? why : "out of memory");
        free(why);
        return false;
    }
    if (!set_state(interp, INTERP_IDLE))
        return false;
    subhost_task *task;
    while ((task = next_task(interp))) {
        bool fresh = task->fresh;
        bool ours = run_task(interp, task);
        fresh = (fresh || is_used_up(interp) || task->anew) && has_work(interp);
        subhost_task_release(task);
        if (!ours)
            return false; /* abandoned, and back after all: nobody waits for it any more */
        if (interp->isolation == SUBHOST_ISOLATION_PROCESS)
            return leave_to_process(interp);
        if (fresh && !interp->is_main && !renew(interp)) {
            subhost__interp_abandon(interp, NULL);
            return false;
        }
    }
    if (!set_state(interp, INTERP_CLOSING))
        return false;
    if (end_interpreter(interp))
        set_state(interp, INTERP_ENDED);
    else
        subhost__interp_abandon(interp, NULL);
    return false;
}

/* Threads inherit the mask. What else is blocked is the affair of who has created the
 * interpreter; the program's threads inherit this one's. */
static void let_kicks_through(void)
{
    sigset_t kick;
    sigemptyset(&kick);
    sigaddset(&kick, SUBHOST_KICK_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
}

void *subhost__driver_main(void *arg)
{
    subhost_interp *interp = arg;
    let_kicks_through();
    if (interp->starts_near)
        pthread_setaffinity_np(pthread_self(), sizeof interp->cpus, &interp->cpus);
    pthread_setname_np(pthread_self(), interp->name);
    interp->driver = pthread_self();
    struct thread *self = subhost__thread_adopt(interp, THREAD_DRIVER);
    bool moves = false;
    if (self) {
        interp->driver_thread = self;
        moves = drive(interp);
    } else {
        set_state(interp, INTERP_FAILED);
        subhost__task_end_queue(interp, SUBHOST_FAILED, -1, "out of memory");
    }
    pthread_mutex_lock(&interp->lock);
    if (moves)
        atomic_store(&interp->moves, true); /* the main loop takes it over */
    else
        interp->driver_gone = true;
    pthread_cond_broadcast(&interp->work);
    pthread_mutex_unlock(&interp->lock);
    subhost__loop_wake(interp->host);
    subhost__thread_forget();
    subhost__interp_unref(interp);
    return NULL;
}
