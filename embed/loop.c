/* The main thread's event loop: one epoll descriptor over an eventfd (something happened
 * on another thread), a second one (a signal arrived) and a timerfd (a deadline). */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "adopted.h"
#include "capture.h"
#include "fd.h"
#include "interp.h"
#include "pool.h"
#include "process.h"

/* How many of the watched are heard in one round; the others are ready the next time. */
#define ROUND_EVENTS 64

/* The loop's own descriptors: each round looks at them anyhow. */
static int watch(subhost_host *host, int fd, subhost_error **err)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (fd < 0 || epoll_ctl(host->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        return subhost__fail_errno(err, errno, "the event loop");
    return 0;
}

int subhost__loop_watch(subhost_host *host, struct source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    uint32_t before = source->watched;
    source->watched = events; /* before the main loop can hear of it */
    if (epoll_ctl(host->epoll_fd, before ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, source->fd,
                  &event) == 0)
        return 0;
    source->watched = before;
    return errno;
}

void subhost__loop_unwatch(subhost_host *host, struct source *source)
{
    if (source->watched)
        epoll_ctl(host->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    source->watched = 0;
}

/* True: there was something, at which its owner should look. */
static bool hear_sources(subhost_host *host)
{
    struct epoll_event ready[ROUND_EVENTS];
    bool heard = false;
    int n = epoll_wait(host->epoll_fd, ready, ARRAY_LENGTH(ready), 0);
    for (int i = 0; i < n; i++) {
        struct source *source = ready[i].data.ptr;
        if (!source ||
            !source->watched) /* any more: a callback before it in this round */
            continue;
        source->ready(source, ready[i].events);
        heard = true;
    }
    return heard;
}

int subhost__loop_open(subhost_host *host, subhost_error **err)
{
    host->epoll_fd = subhost__fd_take(epoll_create1(EPOLL_CLOEXEC));
    if (host->epoll_fd < 0)
        return subhost__fail_errno(err, errno, "epoll_create1");
    host->wake_fd = subhost__fd_take(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    host->signal_fd = subhost__fd_take(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    host->timer_fd =
        subhost__fd_take(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    int code = watch(host, host->wake_fd, err);
    if (!code)
        code = watch(host, host->signal_fd, err);
    if (!code)
        code = watch(host, host->timer_fd, err);
    return code;
}

void subhost__loop_close(subhost_host *host)
{
    /* Who has a handle may still come to wake the loop: from now on that does nothing. */
    atomic_store(&host->wake_pending, true);
    while (atomic_load(&host->wakers))
        sched_yield(); /* a few instructions and a system call that does not block */
    int *fds[] = {&host->epoll_fd, &host->wake_fd, &host->signal_fd, &host->timer_fd};
    for (size_t i = 0; i < ARRAY_LENGTH(fds); i++) {
        subhost__fd_close(*fds[i]);
        *fds[i] = -1;
    }
}

void subhost__loop_wake(subhost_host *host)
{
    atomic_fetch_add(&host->wakers, 1);
    if (!atomic_exchange(&host->wake_pending, true)) {
        int saved_errno = errno;
        uint64_t one = 1;
        /* Cannot block: an eventfd takes 2^64-2 of these. Not write(), which on a hosted
         * thread is an interruptible call: Python would run in here, or it would park. */
        syscall(SYS_write, host->wake_fd, &one, sizeof one);
        errno = saved_errno;
    }
    atomic_fetch_sub(&host->wakers, 1);
}

void subhost__loop_barrier(subhost_host *host, int64_t timeout)
{
    unsigned ticket = atomic_fetch_add(&host->barrier_asked, 1) + 1;
    int64_t deadline = subhost__now() + timeout;
    subhost__loop_wake(host);
    pthread_mutex_lock(&host->lock);
    while ((int)(atomic_load(&host->barrier_done) - ticket) < 0) {
        if (!subhost__cond_wait(&host->ended_cond, &host->lock, deadline))
            break; /* an embedder that does not dispatch */
    }
    pthread_mutex_unlock(&host->lock);
}

/* Polls, and takes no lock: the thread may be in a handler of a crash, or hold its GIL. */
void subhost__loop_finish_captures(subhost_host *host, int64_t timeout)
{
    const struct timespec pause = {.tv_nsec = 10000};
    int64_t deadline = subhost__now() + timeout;
    atomic_store(&host->captures_ending, true);
    unsigned ticket = atomic_fetch_add(&host->barrier_asked, 1) + 1;
    subhost__loop_wake(host);
    while ((int)(atomic_load(&host->barrier_done) - ticket) < 0 &&
           subhost__now() < deadline)
        nanosleep(&pause, NULL);
}

static void pass_barrier(subhost_host *host, unsigned asked)
{
    if (asked == atomic_load(&host->barrier_done))
        return;
    pthread_mutex_lock(&host->lock);
    atomic_store(&host->barrier_done, asked);
    pthread_cond_broadcast(&host->ended_cond);
    pthread_mutex_unlock(&host->lock);
}

int subhost_fd(const subhost_host *host) { return host->epoll_fd; }

/* False (EAGAIN): it was not this one. */
static bool drain_fd(int fd)
{
    uint64_t count;
    return read(fd, &count, sizeof count) == sizeof count;
}

static void set_timer(subhost_host *host, int64_t at)
{
    if (at == host->timer_at)
        return;
    host->timer_at = at;
    /* Zero disarms, so the past is one nanosecond after the beginning. */
    struct itimerspec spec = {0};
    if (at != SUBHOST_FOREVER)
        spec.it_value = subhost__timespec(at > 0 ? at : 1);
    timerfd_settime(host->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

/* Takes one that has ended out of the list, its counters into the host's; NULL: none. */
static subhost_interp *unlink_ended(subhost_host *host)
{
    subhost_interp *found = NULL;
    pthread_mutex_lock(&host->lock);
    for (subhost_interp **at = &host->interps; *at && !found; at = &(*at)->next) {
        subhost_interp *interp = *at;
        pthread_mutex_lock(&interp->lock);
        bool over = interp->driver_gone &&
                    (interp->state == INTERP_ENDED || interp->state == INTERP_FAILED);
        pthread_mutex_unlock(&interp->lock);
        if (!over)
            continue;
        found = interp;
        *at = interp->next;
        host->stats.messages += atomic_load(&interp->channel.drained);
        break;
    }
    pthread_mutex_unlock(&host->lock);
    return found;
}

static void reap(subhost_host *host)
{
    subhost_interp *interp;
    while ((interp = unlink_ended(host))) {
        subhost__capture_finish(interp->capture);
        subhost__interp_join(interp); /* it is at its last few instructions */
        subhost__signals_forget_all(interp);
        subhost__interp_unref(interp);
    }
}

/* Deadlines of tasks, ladders of cancels, pokes. Returns when the next one is due. */
static int64_t tick(subhost_host *host)
{
    int64_t next = SUBHOST_FOREVER, now = subhost__now();
    /* The list grows at its head; it shrinks on this thread only. */
    pthread_mutex_lock(&host->lock);
    subhost_interp *interp = host->interps;
    pthread_mutex_unlock(&host->lock);
    for (; interp; interp = interp->next) {
        if (atomic_load(&interp->moves))
            subhost__interp_move(interp);
        int64_t at = interp->process ? subhost__process_tick(interp, now)
                                     : subhost__cancel_tick(interp, now);
        if (at < next)
            next = at;
    }
    return next;
}

/* What has been captured when a program is about to end the process. */
static void finish_captures(subhost_host *host)
{
    if (!atomic_exchange(&host->captures_ending, false))
        return;
    pthread_mutex_lock(&host->lock);
    subhost_interp *interp = host->interps;
    pthread_mutex_unlock(&host->lock);
    for (; interp; interp = interp->next)
        subhost__capture_finish(interp->capture);
}

/* Reads on where a reader was full. Returns when it wants to be called again. */
static int64_t resume_captures(subhost_host *host)
{
    if (!host->captures_resume_at || subhost__now() < host->captures_resume_at)
        return host->captures_resume_at ? host->captures_resume_at : SUBHOST_FOREVER;
    host->captures_resume_at = 0;
    pthread_mutex_lock(&host->lock);
    subhost_interp *interp = host->interps;
    pthread_mutex_unlock(&host->lock);
    for (; interp; interp = interp->next)
        subhost__capture_resume(interp->capture);
    return SUBHOST_FOREVER;
}

/* `*woken` turns true when another thread had something to say: a caller that looks at
 * more than events (subhost_task_wait()) has to look again before the loop sleeps. */
static int handle(subhost_host *host, bool *woken)
{
    host->dispatching++;
    unsigned asked = atomic_load(&host->barrier_asked);
    if (drain_fd(host->wake_fd))
        *woken = true;
    /* After the read, before the look: a wake that comes now is seen next time. */
    atomic_exchange(&host->wake_pending, false);
    drain_fd(host->timer_fd);
    host->timer_at = 0;
    if (hear_sources(host))
        *woken = true;
    int events = subhost__signals_dispatch(host);
    int64_t next = subhost__children_tick(host);
    subhost__adopted_tick(host);
    int64_t at = tick(host);
    if (at < next)
        next = at;
    at = subhost__pools_tick(host, subhost__now());
    if (at < next)
        next = at;
    at = resume_captures(host);
    if (at < next)
        next = at;
    finish_captures(host);
    events += subhost__task_run_callbacks(host);
    reap(host);
    subhost__trail_write(host->trail);
    set_timer(host, next);
    pass_barrier(host, asked);
    host->dispatching--;
    return events;
}

int subhost_dispatch(subhost_host *host, int64_t timeout, subhost_error **err)
{
    if (!subhost__host_is_open(host))
        return subhost__host_refuse(host, "subhost_dispatch", err);
    if (!pthread_equal(pthread_self(), host->main_thread))
        return subhost__fail(err, SUBHOST_ETHREAD,
                             "subhost_dispatch: only the thread that opened the host may "
                             "drive it");
    int64_t deadline = subhost__deadline(timeout);
    for (bool woken = false;; woken = true) {
        int events = handle(host, &woken);
        int64_t now = subhost__now();
        if (events || woken || now >= deadline)
            return events;
        struct epoll_event ready[4];
        int64_t wait =
            deadline == SUBHOST_FOREVER ? -1 : (deadline - now + 999999) / 1000000;
        if (wait > INT32_MAX)
            wait = INT32_MAX;
        if (epoll_wait(host->epoll_fd, ready, ARRAY_LENGTH(ready), (int)wait) < 0 &&
            errno != EINTR)
            return subhost__fail_errno(err, errno, "epoll_wait");
    }
}
