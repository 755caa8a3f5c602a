/* Opening and closing the host. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "adopted.h"
#include "capture.h"
#include "child.h"
#include "interp.h"
#include "policing.h"
#include "native.h"
#include "options.h"
#include "pool.h"
#include "process.h"
#include "python_events.h"

/* How long the forkserver thread has to leave: it may be waiting for a GIL. */
#define STOP_TIMEOUT SUBHOST_MSEC(500)

static subhost_host *_Atomic the_host;

subhost_host *subhost__host(void) { return atomic_load(&the_host); }

bool subhost__host_is_open(const subhost_host *host)
{
    return host && host == atomic_load(&the_host) && subhost__is_here(host->pid);
}

bool subhost__is_here(pid_t home) { return home == getpid(); }

int subhost__refuse_copy(pid_t home, const char *function, subhost_error **err)
{
    return subhost__fail(
        err, SUBHOST_ESTATE,
        "%s: this is process %d, forked from process %d, in which the host "
        "is: open one here after an exec, or ask there",
        function, (int)getpid(), (int)home);
}

void subhost__host_ref(subhost_host *host) { atomic_fetch_add(&host->refs, 1); }

void subhost__host_unref(subhost_host *host)
{
    if (atomic_fetch_sub(&host->refs, 1) != 1)
        return;
    subhost__native_free(host);
    subhost__trail_close(host->trail);
    pthread_cond_destroy(&host->ended_cond);
    pthread_mutex_destroy(&host->lock);
    pthread_mutex_destroy(&host->creation);
    subhost_policy_free(host->policy);
    free(host->executable);
    free(host->trail_path);
    free(host);
}

/* It is not the open one any more. Handles may still refer to it, and other threads may be on
 * their way in by one; what they find is there, and ends nowhere. */
static void retire(subhost_host *host)
{
    subhost__python_events_end();
    subhost__loop_close(host);
    atomic_store(&the_host, NULL);
    subhost__host_unref(host);
}

/* ---- in a forked child ------------------------------------------------------------ */

static bool pass_trail(void *data, const char *text, size_t size, uint64_t lost)
{
    return subhost__child_pass_trail(data, text, size, lost);
}

static void wake(void *host) { subhost__loop_wake(host); }

static void on_child_signal(subhost_host *host, const subhost_signal_event *event,
                            void *data)
{
    (void)host, (void)data;
    /* As the runner: the first one cancels, the second one ends the process. */
    if (event->waiting > 0 && event->cancelled == 0 &&
        (event->signo == SIGINT || event->signo == SIGTERM))
        _exit(128 + event->signo);
}

void subhost__host_after_fork(subhost_host *host, unsigned serial)
{
    /* The parent's threads may have held these. */
    pthread_mutex_init(&host->lock, NULL);
    pthread_mutex_init(&host->creation, NULL);
    if (subhost__cond_init(&host->ended_cond) != 0)
        _exit(125);
    host->main_thread = pthread_self();
    host->pid = getpid();
    host->is_child = true;
    host->epoll_fd = host->wake_fd = host->timer_fd = host->signal_fd = -1;
    host->timer_at = SUBHOST_FOREVER;
    host->dispatching = 0;
    atomic_store(&host->wake_pending, false);
    atomic_store(&host->wakers, 0);
    atomic_store(&host->barrier_asked, 0);
    atomic_store(&host->barrier_done, 0);
    host->interps = NULL;
    host->live = NULL;
    host->pools = NULL; /* the parent's, whose threads may have their locks */
    host->ended = NULL;
    host->ended_tail = &host->ended;
    host->forkserver = NULL;
    host->children = NULL;
    host->adopted = NULL;
    atomic_store(&host->handed_over, NULL);
    host->closing = host->exiting = false;
    host->stats = (subhost_stats){.size = sizeof host->stats};
    host->next_serial = 0;
    /* So many tasks may each process start before numbers meet in one tree. */
    host->next_task = serial << 16;
    host->options.take_signals = 1;
    host->options.on_signal = on_child_signal;
    subhost__trail_after_fork(host->trail, pass_trail, wake, host);
    subhost__standard_input_after_fork();
}

/* ---- opening ---------------------------------------------------------------------- */

static int open_trail(subhost_host *host, subhost_error **err)
{
    const subhost_options *o = &host->options;
    if (o->trail_limit < 0)
        return subhost__fail(err, SUBHOST_EINVAL, "the trail: trail_limit is negative");
    const struct trail_options options = {
        .path = o->trail, .limit = o->trail_limit, .files = o->trail_files};
    const char *events = subhost__policy_text(host->policy, POLICY_AUDIT_EVENTS);
    const char *unknown = subhost__trail_only(NULL, events);
    if (unknown)
        return subhost__fail(
            err, SUBHOST_EINVAL,
            "audit.events: there is no event '%.*s'; docs/trail.md lists "
            "them",
            (int)strcspn(unknown, ","), unknown);
    int code = subhost__trail_open(&options, &host->trail, err);
    if (!code)
        subhost__trail_only(host->trail, events);
    return code;
}

static int open_parts(subhost_host *host, subhost_error **err)
{
    int code = subhost__policing_open(host, err);
    if (!code)
        code = subhost__thread_init(err);
    if (!code)
        code = subhost__loop_open(host, err);
    if (!code && host->options.trail)
        code = open_trail(host, err);
    if (!code)
        code = subhost__boot(host, err);
    if (!code)
        code = subhost__signals_open(host, err);
    return code;
}

static void note_open(subhost_host *host)
{
    char only[1024];
    snprintf(only, sizeof only, "%s",
             subhost__policy_text(host->policy, POLICY_AUDIT_EVENTS));
    for (char *at = only; (at = strchr(at, ',')); at++)
        *at = TRAIL_NEXT;
    NOTE_EVENT(
        host->trail, HOST_OPEN, 0, 0, TRAIL_NUMBER(FORMAT, 1),
        TRAIL_TEXT(TRAIL, subhost__trail_id(host->trail)), TRAIL_NUMBER(PART, 1),
        TRAIL_TEXT(VERSION, subhost_version_details()),
        TRAIL_TEXT(DOORBELL, host->doorbell_name),
        TRAIL_TEXT(INTERRUPTIBLE, subhost_interruptible_calls(host)),
        TRAIL_NUMBER(LIMIT, host->options.trail_limit),
        TRAIL_NUMBER(FILES, host->options.trail_limit ? host->options.trail_files : 0),
        TRAIL_TEXT(ONLY, only), TRAIL_TEXT(PYTHON_EVENTS, subhost__python_events_list()));
    subhost__python_events_begin();
}

static int check_options(const subhost_options *o, subhost_error **err)
{
    if (o->doorbell != SUBHOST_DOORBELL_AUTO && o->doorbell != SUBHOST_DOORBELL_ATTACH)
        return subhost__fail(
            err, SUBHOST_EINVAL,
            "subhost_options: doorbell is %d; SUBHOST_DOORBELL_AUTO is the "
            "default",
            (int)o->doorbell);
    if (o->orphan != SUBHOST_ORPHAN_CANCEL && o->orphan != SUBHOST_ORPHAN_DETACH &&
        o->orphan != SUBHOST_ORPHAN_KILL)
        return subhost__fail(
            err, SUBHOST_EINVAL,
            "subhost_options: orphan is %d; SUBHOST_ORPHAN_CANCEL is the "
            "default",
            (int)o->orphan);
    return 0;
}

/* Nothing of it is anybody else's yet. NULL: no memory. */
static subhost_host *make_host(const subhost_options *options)
{
    subhost_host *host = calloc(1, sizeof *host);
    if (!host)
        return NULL;
    atomic_init(&host->refs, 1);
    host->options = *options;
    host->main_thread = pthread_self();
    host->pid = getpid();
    host->epoll_fd = host->wake_fd = host->timer_fd = host->signal_fd = -1;
    host->timer_at = SUBHOST_FOREVER;
    host->ended_tail = &host->ended;
    host->trail_path = options->trail ? strdup(options->trail) : NULL;
    host->options.trail = host->trail_path;
    if ((options->trail && !host->trail_path) ||
        subhost__cond_init(&host->ended_cond) != 0) {
        free(host->trail_path);
        free(host);
        return NULL;
    }
    pthread_mutex_init(&host->lock, NULL);
    pthread_mutex_init(&host->creation, NULL);
    return host;
}

static int one_is_there(const subhost_host *host, subhost_error **err)
{
    if (!subhost__is_here(host->pid))
        return subhost__refuse_copy(host->pid, "subhost_open", err);
    if (!host->left)
        return subhost__fail(err, SUBHOST_ESTATE,
                             "subhost_open: a host is open already in this process");
    return subhost__fail(
        err, SUBHOST_ESTATE,
        "subhost_open: the host that was closed left %u abandoned interpreter%s behind; "
        "another host needs a new process",
        host->left, host->left > 1 ? "s" : "");
}

int subhost_open(const subhost_options *options, subhost_host **result,
                 subhost_error **err)
{
    subhost_options o = SUBHOST_OPTIONS_INIT;
    if (!result)
        return subhost__fail(err, SUBHOST_EINVAL, "subhost_open: host is NULL");
    int code = subhost__options_take(&o, sizeof o, options, "subhost_options", err);
    if (!code)
        code = check_options(&o, err);
    if (code)
        return code;
    subhost_host *host = make_host(&o), *other = NULL;
    if (!host)
        return subhost__fail(err, SUBHOST_ENOMEM, "subhost_open: out of memory");
    if (!atomic_compare_exchange_strong(&the_host, &other, host)) {
        subhost__host_unref(host);
        return one_is_there(other, err);
    }
    subhost__callback_reset_stats();
    code = open_parts(host, err);
    if (code) {
        subhost__context(err, code, "opening the host");
        retire(host);
        return code;
    }
    note_open(host);
    *result = host;
    return 0;
}

int subhost__host_refuse(const subhost_host *host, const char *function,
                         subhost_error **err)
{
    if (!host)
        return subhost__fail(err, SUBHOST_EINVAL, "%s: host is NULL", function);
    if (host == atomic_load(&the_host) && !subhost__is_here(host->pid))
        return subhost__refuse_copy(host->pid, function, err);
    return subhost__fail(err, SUBHOST_ESTATE, "%s: the host is closed", function);
}

void subhost_get_stats(subhost_host *host, subhost_stats *stats)
{
    subhost_stats copy;
    size_t size = stats->size < sizeof copy ? stats->size : sizeof copy;
    pthread_mutex_lock(&host->lock);
    copy = host->stats;
    for (subhost_interp *interp = host->interps; interp; interp = interp->next)
        copy.messages += atomic_load(&interp->channel.drained);
    pthread_mutex_unlock(&host->lock);
    struct trail_counts counts = subhost__trail_counts(host->trail);
    copy.trail_events = counts.events;
    copy.trail_lost = counts.lost;
    subhost__callback_get_stats(&copy);
    copy.size = size;
    memcpy(stats, &copy, size);
}

int subhost_trail_flush(subhost_host *host, int64_t timeout, subhost_error **err)
{
    if (!subhost__host_is_open(host))
        return subhost__host_refuse(host, "subhost_trail_flush", err);
    int error = subhost__trail_flush(host->trail, timeout);
    if (error == ETIMEDOUT)
        return subhost__fail(err, SUBHOST_ETIMEDOUT,
                             "the trail: %s: it takes nothing at the moment",
                             host->options.trail);
    if (error)
        return subhost__fail_errno(err, error, "the trail: %s", host->options.trail);
    return 0;
}

const char *subhost_doorbell_name(const subhost_host *host)
{
    return host->doorbell_name;
}

const char *subhost_interruptible_calls(const subhost_host *host)
{
    if (!host->interruptible)
        return "off: asked for";
    return subhost__interpose_reached() ? "on"
                                        : "off: the calls do not come to this library; "
                                          "link it before the C library";
}

/* ---- closing -------------------------------------------------------------------- */

static bool gone(subhost_interp *interp)
{
    pthread_mutex_lock(&interp->lock);
    bool is = interp->driver_gone;
    pthread_mutex_unlock(&interp->lock);
    return is;
}

static bool quarantined(subhost_interp *interp)
{
    pthread_mutex_lock(&interp->lock);
    bool is = interp->state == INTERP_QUARANTINED;
    pthread_mutex_unlock(&interp->lock);
    return is;
}

/* Tells every interpreter to end: what waits is not begun, what runs is cancelled, within
 * our grace period and not its own, unless ours is without an end. */
static void end_all(subhost_host *host, int64_t grace)
{
    for (subhost_interp *interp = host->interps; interp; interp = interp->next) {
        pthread_mutex_lock(&interp->lock);
        interp->releasing = true; /* nothing more is queued */
        pthread_cond_broadcast(&interp->work);
        pthread_mutex_unlock(&interp->lock);
        subhost__task_end_queue(interp, SUBHOST_CANCELLED, SUBHOST_BY_CLOSE,
                                "the host closes");
        pthread_mutex_lock(&interp->lock);
        subhost_task *task = interp->current;
        if (task) {
            subhost__task_ref(task);
            if (grace != SUBHOST_FOREVER)
                task->grace = grace > 0 ? grace : 1;
        }
        pthread_mutex_unlock(&interp->lock);
        if (task)
            subhost__cancel_request(interp, task, SUBHOST_BY_CLOSE, NULL);
        subhost_task_release(task);
    }
}

/* When what ends within `grace` from now is not waited for any longer. */
static int64_t end_of(int64_t grace)
{
    int64_t deadline = subhost__deadline(grace);
    if (deadline < SUBHOST_FOREVER - SUBHOST_MSEC(100))
        deadline += SUBHOST_MSEC(50);
    return deadline;
}

void subhost__host_hurry(subhost_host *host)
{
    int64_t until = end_of(subhost__policy_number(host->policy, POLICY_CANCEL_GRACE));
    if (until < host->close_until)
        host->close_until = until;
}

/* Dispatches until every driver has left or was abandoned, or it is host->close_until, which
 * a signal brings nearer. */
static int wait_all(subhost_host *host, subhost_error **err)
{
    for (;;) {
        bool waiting = false;
        for (subhost_interp *interp = host->interps; interp; interp = interp->next)
            waiting = waiting || (!gone(interp) && !quarantined(interp));
        int64_t now = subhost__now();
        if (!waiting || now >= host->close_until)
            return 0;
        int code = subhost_dispatch(host, host->close_until - now, err);
        if (code < 0)
            return code;
    }
}

/* Those that still live; true: there were some. */
static bool kill_processes(subhost_host *host)
{
    bool any = false;
    for (subhost_interp *interp = host->interps; interp; interp = interp->next) {
        if (interp->process && !gone(interp)) {
            subhost__process_kill(interp->process);
            any = true;
        }
    }
    return any;
}

/* The trail's last line: what can still happen has no place in it. */
static void note_close(subhost_host *host)
{
    subhost_stats stats = {.size = sizeof stats};
    subhost_get_stats(host, &stats);
    NOTE_EVENT(host->trail, HOST_CLOSE, 0, 0, TRAIL_NUMBER(EVENTS, stats.trail_events),
               TRAIL_NUMBER(LOST, stats.trail_lost),
               TRAIL_NUMBER(TASKS, stats.tasks_started),
               TRAIL_NUMBER(CANCELS, stats.cancels), TRAIL_NUMBER(FORKS, stats.forks),
               TRAIL_NUMBER(SIGNALS, stats.signals),
               TRAIL_NUMBER(ABANDONED, stats.interpreters_abandoned));
}

/* Ends what there is, within the grace period. `*left`: how many could not be ended. */
static int end_interps(subhost_host *host, int64_t grace, unsigned *left,
                       subhost_error **err)
{
    host->close_until = end_of(grace);
    subhost__pools_stop(host);
    subhost__forkserver_hurry(host);
    end_all(host, grace);
    int code = wait_all(host, err);
    if (!code && kill_processes(host)) {
        host->close_until = subhost__now() + SUBHOST_MSEC(1000);
        code = wait_all(host, err);
    }
    if (code)
        return code;
    *left = !subhost__forkserver_stop(host, subhost__now() + STOP_TIMEOUT);
    for (subhost_interp *interp = host->interps; interp; interp = interp->next) {
        if (gone(interp)) {
            subhost__interp_join(interp);
        } else {
            subhost__interp_abandon(interp, NULL);
            ++*left;
        }
        *left += gone(interp) && quarantined(interp);
    }
    for (subhost_interp *interp = host->interps; interp; interp = interp->next)
        subhost__capture_finish(interp->capture);
    subhost__task_run_callbacks(host);
    subhost__pools_close(host);
    subhost__signals_close(host);
    note_close(host);
    subhost__trail_finish(host->trail);
    for (subhost_interp *interp = host->interps; *left && interp; interp = interp->next)
        subhost__thread_normal_priority(interp); /* to leave, a thread needs its turn */
    return 0;
}

static int may_close(subhost_host *host, subhost_error **err)
{
    if (!subhost__host_is_open(host))
        return subhost__host_refuse(host, "subhost_close", err);
    if (!pthread_equal(pthread_self(), host->main_thread))
        return subhost__fail(err, SUBHOST_ETHREAD,
                             "subhost_close: only the thread that opened the host may");
    if (host->dispatching)
        return subhost__fail(err, SUBHOST_ESTATE,
                             "subhost_close: not in a callback: what has called it still "
                             "uses the host; close it when subhost_dispatch(), or what "
                             "dispatches, has returned");
    return 0;
}

int subhost_close(subhost_host *host, enum subhost_close_mode mode, int64_t grace,
                  subhost_error **err)
{
    if (!host)
        return 0;
    int code = may_close(host, err);
    if (code)
        return code;
    pthread_mutex_lock(&host->lock);
    host->closing = true;
    host->exiting = mode == SUBHOST_CLOSE_EXITING;
    pthread_mutex_unlock(&host->lock);
    unsigned left = 0;
    host->dispatching++; /* its callbacks are callbacks, too */
    code = end_interps(host, grace > 0 ? grace : 0, &left, err);
    host->dispatching--;
    if (code)
        return code;
    host->left = left;
    if (left) {
        /* Their threads still use the host's memory; it stays with them. */
        return subhost__fail(
            err, SUBHOST_EQUARANTINED,
            "%u abandoned interpreter%s stay%s behind; CPython cannot be "
            "finalized in this process",
            left, left > 1 ? "s" : "", left > 1 ? "" : "s");
    }
    code = subhost__unboot(host, mode, err);
    while (host->interps) {
        subhost_interp *interp = host->interps;
        host->interps = interp->next;
        subhost__interp_part(interp);
        subhost__interp_unref(interp);
    }
    subhost__children_free(host);
    subhost__adopted_free(host);
    retire(host);
    return code;
}
