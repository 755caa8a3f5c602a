/* Interpreters: their handles, states, and abandonment. What happens on their driver
 * threads is in driver.c. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "buffer.h"
#include "capture.h"
#include "interp.h"
#include "options.h"
#include "policing.h"
#include "process.h"

/* ---- states --------------------------------------------------------------------- */

static const char *const state_names[] = {
#define STATE_NAME(name, text) [name] = text,
    INTERP_STATES(STATE_NAME)
#undef STATE_NAME
};

#define FROM(state) (1u << (state))

/* From which states each state may be entered. */
static const unsigned entered_from[] = {
    [INTERP_STARTING] = FROM(INTERP_STARTING) | FROM(INTERP_CLOSING),
    [INTERP_IDLE] = FROM(INTERP_STARTING) | FROM(INTERP_FINISHING),
    [INTERP_RUNNING] = FROM(INTERP_IDLE),
    [INTERP_FINISHING] = FROM(INTERP_RUNNING),
    [INTERP_CLOSING] = FROM(INTERP_IDLE),
    [INTERP_ENDED] = FROM(INTERP_CLOSING),
    [INTERP_FAILED] = FROM(INTERP_STARTING),
    [INTERP_QUARANTINED] = FROM(INTERP_STARTING) | FROM(INTERP_RUNNING) |
                           FROM(INTERP_FINISHING) | FROM(INTERP_CLOSING) |
                           FROM(INTERP_IDLE),
};

bool subhost__interp_enter(subhost_interp *interp, enum interp_state state)
{
    if (!(entered_from[state] & FROM(interp->state)))
        return false;
    interp->state = state;
    return true;
}

const char *subhost__interp_state_name(enum interp_state state)
{
    return (size_t)state < ARRAY_LENGTH(state_names) ? state_names[state] : "unknown";
}

const char *subhost__gil_name(enum subhost_gil gil)
{
    return gil == SUBHOST_GIL_OWN ? "own" : "shared";
}

/* ---- references ----------------------------------------------------------------- */

void subhost__interp_ref(subhost_interp *interp) { atomic_fetch_add(&interp->refs, 1); }

void subhost__interp_unref(subhost_interp *interp)
{
    if (atomic_fetch_sub(&interp->refs, 1) != 1)
        return;
    subhost__channel_destroy(&interp->channel);
    pthread_mutex_destroy(&interp->threads_lock);
    pthread_cond_destroy(&interp->work);
    pthread_mutex_destroy(&interp->lock);
    subhost__process_free(interp->process); /* of one that has not begun */
    subhost__capture_free(interp->capture);
    free(interp->last_task);
    free(interp->cancel.text);
    free(interp->failure);
    subhost_policy_free(interp->policy);
    subhost_host *host = interp->host;
    free(interp);
    subhost__host_unref(host);
}

void subhost__interp_part(subhost_interp *interp)
{
    pthread_mutex_lock(&interp->lock);
    struct process *process = interp->process;
    struct capture *capture = interp->capture;
    interp->process = NULL;
    interp->capture = NULL;
    pthread_mutex_unlock(&interp->lock);
    subhost__process_free(process);
    subhost__capture_free(capture);
}

/* ---- creating ------------------------------------------------------------------- */

/* A main thread's stack, so that recursion goes as deep as under python. */
static size_t driver_stack_size(void)
{
    struct rlimit limit;
    size_t size = (size_t)8 << 20;
    if (getrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        size = limit.rlim_cur;
    if (size < (size_t)1 << 20)
        size = (size_t)1 << 20;
    if (size > (size_t)1 << 30)
        size = (size_t)1 << 30;
    return (size + 4095) & ~(size_t)4095;
}

int subhost__start_with_main_stack(pthread_t *thread, const cpu_set_t *cpus,
                                   void *(*function)(void *), void *arg)
{
    pthread_attr_t attr;
    int error = pthread_attr_init(&attr);
    if (error)
        return error;
    error = pthread_attr_setstacksize(&attr, driver_stack_size());
    if (!error && cpus)
        error = pthread_attr_setaffinity_np(&attr, sizeof *cpus, cpus);
    if (!error)
        error = subhost__thread_create(thread, &attr, function, arg);
    pthread_attr_destroy(&attr);
    return error;
}

/* The first driver starts on the CPU of its creator, whose caches hold what CPython's start
 * has just written: a twentieth of `subhost run -c pass`. From its first instruction on it
 * may go where its creator may. Later ones start side by side. */
static bool near_creator(subhost_interp *interp, cpu_set_t *here)
{
    int cpu = sched_getcpu();
    if (interp->serial != 1 || cpu < 0 || cpu >= CPU_SETSIZE ||
        sched_getaffinity(0, sizeof interp->cpus, &interp->cpus) != 0)
        return false;
    CPU_ZERO(here);
    CPU_SET(cpu, here);
    return true;
}

/* Its driver thread; an interpreter in a process of its own is the main loop's. */
static int start_driver(subhost_interp *interp)
{
    if (interp->isolation == SUBHOST_ISOLATION_PROCESS) {
        interp->process = subhost__process_new(interp);
        return interp->process ? 0 : ENOMEM;
    }
    subhost__interp_ref(interp);
    cpu_set_t here;
    interp->starts_near = near_creator(interp, &here);
    int error = subhost__start_with_main_stack(&interp->driver,
                                               interp->starts_near ? &here : NULL,
                                               subhost__driver_main, interp);
    interp->has_driver = !error;
    if (error)
        subhost__interp_unref(interp);
    return error;
}

bool subhost__interp_is_unwanted(subhost_interp *interp)
{
    pthread_mutex_lock(&interp->lock);
    bool is = interp->for_one_call && interp->releasing && !interp->queue;
    pthread_mutex_unlock(&interp->lock);
    return is;
}

void subhost__interp_join(subhost_interp *interp)
{
    if (interp->has_driver)
        pthread_join(interp->driver, NULL);
    interp->has_driver = false;
}

void subhost__interp_move(subhost_interp *interp)
{
    subhost__interp_join(interp); /* it is at its last few instructions */
    atomic_store(&interp->moves, false);
    atomic_store(&interp->pid, 0);
    subhost__signals_forget_all(interp);
    struct process *process = subhost__process_new(interp);
    if (process) {
        interp->process = process;
        return;
    }
    pthread_mutex_lock(&interp->lock);
    subhost__interp_enter(interp, INTERP_FAILED);
    interp->driver_gone = true;
    pthread_mutex_unlock(&interp->lock);
    subhost__task_end_queue(interp, SUBHOST_FAILED, -1, "out of memory");
}

/* Locks and the like. 0 or an errno. */
static int init_parts(subhost_interp *interp)
{
    interp->queue_tail = &interp->queue;
    atomic_init(&interp->wakeup_fd, -1);
    /* Plain mutexes: their initialization cannot fail (pthread_mutex_init(3)). */
    pthread_mutex_init(&interp->lock, NULL);
    pthread_mutex_init(&interp->threads_lock, NULL);
    int error = subhost__cond_init(&interp->work);
    if (error)
        return error;
    error = subhost__channel_init(&interp->channel);
    if (error)
        pthread_cond_destroy(&interp->work);
    return error;
}

static subhost_interp *make_interp(subhost_host *host,
                                   const subhost_interp_options *options)
{
    subhost_interp *interp = calloc(1, sizeof *interp);
    if (!interp)
        return NULL;
    interp->host = host;
    interp->gil = options->gil;
    interp->isolation = options->isolation;
    interp->worker = options->worker;
    atomic_init(&interp->life, -1);
    interp->home = host->pid;
    interp->pid = options->isolation == SUBHOST_ISOLATION_PROCESS ? 0 : host->pid;
    atomic_init(&interp->refs, 1);
    if (init_parts(interp) != 0) {
        free(interp);
        return NULL;
    }
    subhost__host_ref(host);
    return interp;
}

subhost_interp *subhost__interp_make_main(subhost_host *host)
{
    subhost_interp_options options = SUBHOST_INTERP_OPTIONS_INIT;
    subhost_interp *interp = make_interp(host, &options);
    if (interp)
        interp->is_main = true;
    return interp;
}

int subhost__interp_start_main(subhost_interp *interp)
{
    subhost_host *host = interp->host;
    /* The parent's threads may have held its locks. */
    int error = init_parts(interp);
    if (error)
        return error;
    interp->threads = NULL;
    interp->serial = ++host->next_serial;
    interp->pid = interp->home = host->pid;
    snprintf(interp->name, sizeof interp->name, "py/main");
    subhost__interp_ref(interp); /* child.c's; the first one is the list's */
    host->interps = interp;
    return start_driver(interp);
}

int subhost_interp_create(subhost_host *host, const subhost_interp_options *options,
                          subhost_interp **result, subhost_error **err)
{
    subhost_interp_options o = SUBHOST_INTERP_OPTIONS_INIT;
    if (!host || !result)
        return subhost__fail(err, SUBHOST_EINVAL, "subhost_interp_create: %s is NULL",
                             host ? "interp" : "host");
    if (!subhost__host_is_open(host))
        return subhost__host_refuse(host, "subhost_interp_create", err);
    int code =
        subhost__options_take(&o, sizeof o, options, "subhost_interp_options", err);
    if (code)
        return code;
    if (o.isolation != SUBHOST_ISOLATION_INTERPRETER &&
        o.isolation != SUBHOST_ISOLATION_PROCESS)
        return subhost__fail(err, SUBHOST_EINVAL,
                             "subhost_interp_options: isolation is %d", (int)o.isolation);
    if (o.gil != SUBHOST_GIL_OWN && o.gil != SUBHOST_GIL_SHARED)
        return subhost__fail(err, SUBHOST_EINVAL, "subhost_interp_options: gil is %d",
                             (int)o.gil);
    subhost_policy *policy;
    code = subhost__policing_interp(host, &o, &policy, err);
    if (code == SUBHOST_ENOMEM)
        return subhost__context(err, code, "subhost_interp_create");
    if (code) /* of a policy: it names what it is about */
        return code;
    subhost_interp *interp = make_interp(host, &o);
    if (!interp) {
        subhost_policy_free(policy);
        return subhost__fail(err, SUBHOST_ENOMEM, "subhost_interp_create: out of memory");
    }
    interp->policy = policy;
    interp->gil = subhost__policing_gil(policy);
    atomic_store(&interp->no_exec, !subhost__policy_number(policy, POLICY_EXEC_ALLOW));

    if (host->options.on_output && !(interp->capture = subhost__capture_new(interp))) {
        int error = errno;
        subhost__interp_unref(interp);
        return subhost__fail_errno(err, error, "a pipe for the captured output");
    }
    pthread_mutex_lock(&host->lock);
    if (host->closing) {
        pthread_mutex_unlock(&host->lock);
        subhost__interp_unref(interp);
        return subhost__fail(err, SUBHOST_ESTATE,
                             "subhost_interp_create: the host is closing");
    }
    code = subhost__policing_room(host, interp, err);
    if (code) {
        pthread_mutex_unlock(&host->lock);
        subhost__interp_unref(interp);
        return code;
    }
    interp->serial = ++host->next_serial;
    if (o.name)
        snprintf(interp->name, sizeof interp->name, "%s", o.name);
    else
        snprintf(interp->name, sizeof interp->name, "py/%u", interp->serial);
    int error = start_driver(interp);
    if (!error) {
        subhost__interp_ref(interp); /* the handle; the first one is the list's */
        interp->next = host->interps;
        host->interps = interp;
        subhost__signals_join(host);
    }
    pthread_mutex_unlock(&host->lock);
    if (error) {
        subhost__interp_unref(interp);
        return subhost__fail_errno(err, error, "starting a driver thread");
    }
    *result = interp;
    if (interp->process)
        subhost__loop_wake(host);
    return 0;
}

void subhost_interp_release(subhost_interp *interp)
{
    if (!interp || !subhost__is_here(interp->home))
        return;
    pthread_mutex_lock(&interp->lock);
    interp->releasing = true;
    pthread_cond_signal(&interp->work);
    if (interp->process)
        subhost__loop_wake(interp->host);
    pthread_mutex_unlock(&interp->lock);
    subhost__interp_unref(interp);
}

int subhost_interp_send(subhost_interp *interp, void (*function)(void *data), void *data,
                        subhost_error **err)
{
    if (!interp || !function)
        return subhost__fail(err, SUBHOST_EINVAL, "subhost_interp_send: %s is NULL",
                             interp ? "function" : "interp");
    if (!subhost__is_here(interp->home))
        return subhost__refuse_copy(interp->home, "subhost_interp_send", err);
    /* Over the put as well: what is put before the end is called before the end. */
    pthread_mutex_lock(&interp->lock);
    enum interp_state state = interp->state;
    bool open = !interp->process && state != INTERP_QUARANTINED &&
                state != INTERP_ENDED && state != INTERP_FAILED &&
                state != INTERP_CLOSING;
    bool queued = open && subhost__channel_put(&interp->channel, function, data);
    pthread_mutex_unlock(&interp->lock);
    if (state == INTERP_QUARANTINED)
        return subhost__fail(err, SUBHOST_EQUARANTINED, "interpreter %u was abandoned",
                             interp->serial);
    if (interp->process)
        return subhost__fail(err, SUBHOST_ESTATE,
                             "interpreter %u lives in another process, where no function "
                             "of this one can be called",
                             interp->serial);
    if (!open)
        return subhost__fail(err, SUBHOST_ESTATE, "interpreter %u is %s", interp->serial,
                             subhost__interp_state_name(state));
    if (!queued)
        return subhost__fail(err, SUBHOST_EAGAIN, "the channel of interpreter %u is full",
                             interp->serial);
    subhost__channel_ring(interp);
    /* Threads that are blocked do not hear the bell: the loop kicks them. */
    subhost__loop_wake(interp->host);
    return 0;
}

/* ---- abandonment ---------------------------------------------------------------- */

void subhost__interp_abandon(subhost_interp *interp, const subhost_task *only)
{
    pthread_mutex_lock(&interp->lock);
    /* Of a pool's worker it is one call that is given up on: the next one may have begun. */
    bool over = only && only->worker && !atomic_load(&interp->cancel.requested);
    bool now = (!only || interp->current == only) && !over &&
               subhost__interp_enter(interp, INTERP_QUARANTINED);
    subhost_task *task = interp->current;
    if (task)
        subhost__task_ref(task);
    int reason = atomic_load(&interp->cancel.requested) ? (int)interp->cancel.reason : -1;
    pthread_mutex_unlock(&interp->lock);
    if (now) {
        /* Its handlers will not be called: a signal must not wait for them. */
        subhost__signals_forget_all(interp);
        atomic_store(&interp->signals_blocked, 0);
        NOTE(interp, ABANDONED,
             TRAIL_TEXT(WHY, task ? "its task could not be interrupted"
                                  : "it could not be ended"),
             TRAIL_TEXT(GIL, subhost__gil_name(interp->gil)),
             TRAIL_NUMBER(AFTER, subhost__cancel_age(interp)));
        subhost__policing_abandoned(interp->host);
        /* Whoever holds a shared GIL while it has no CPU share keeps it from everybody.
         */
        if (interp->gil == SUBHOST_GIL_OWN)
            subhost__thread_idle_priority(interp);
        /* Threads that still come through the eval loop, or are kicked out of a call, park. */
        interp->next_poke_at = 0;
        subhost__channel_ring(interp);
        subhost__thread_kick_all(interp);
        subhost__loop_wake(interp->host);
        subhost__buffers_abandon(interp);
        subhost__task_end_queue(interp, SUBHOST_FAILED, -1,
                                "its interpreter was abandoned");
    }
    if (now && task) {
        subhost_outcome outcome = {
            .kind = SUBHOST_ABANDONED, .cancel_reason = reason, .status = 137};
        subhost__task_finish(task, &outcome, "it could not be interrupted");
    }
    subhost_task_release(task);
}
