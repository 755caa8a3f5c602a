/* Processes that programs have started and left behind. CPython's subprocess keeps the Popen
 * objects that nobody has any more, and looks whether their processes have ended when the
 * program starts the next one. With an interpreter that list ends as well, but not the process
 * in which it was: so the interpreter hands them over (prelude.py, leave_children()), and the
 * host waits for them; for exactly these, each by its pid. */
#define _GNU_SOURCE
#include "adopted.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fd.h"
#include "interp.h"

#ifndef P_PIDFD
#define P_PIDFD 3 /* waitid(2), Linux 5.4 */
#endif

/* So many have a descriptor; the others are looked at when one of these has ended. */
#define WATCHED_MAX 64

struct adopted {
    struct source pidfd; /* first: what is ready is the process; -1: it has none */
    struct adopted *next;
    pid_t pid;
    bool ended;
};

void subhost__adopt(subhost_host *host, pid_t pid)
{
    struct adopted *it = calloc(1, sizeof *it);
    if (!it)
        return;
    it->pid = pid;
    it->pidfd.fd = -1;
    it->next = atomic_load(&host->handed_over);
    while (!atomic_compare_exchange_weak(&host->handed_over, &it->next, it))
        ;
    subhost__loop_wake(host);
}

static void process_ended(struct source *source, uint32_t events)
{
    (void)events;
    ((struct adopted *)source)->ended = true;
    subhost__loop_unwatch(subhost__host(), source);
}

/* False: there is no descriptor for it, or it cannot be watched. */
static bool watch(subhost_host *host, struct adopted *it)
{
    int fd = subhost__fd_take((int)syscall(SYS_pidfd_open, it->pid, 0));
    it->pidfd = (struct source){.fd = fd, .ready = process_ended};
    if (fd >= 0 && subhost__loop_watch(host, &it->pidfd, EPOLLIN) != 0) {
        subhost__fd_close(fd);
        it->pidfd.fd = -1;
    }
    return it->pidfd.fd >= 0;
}

/* True: it is reaped, by us or by somebody else. */
static bool reap(const struct adopted *it)
{
    siginfo_t info = {0};
    bool has_fd = it->pidfd.fd >= 0;
    return waitid(has_fd ? P_PIDFD : P_PID, (id_t)(has_fd ? it->pidfd.fd : it->pid),
                  &info, WEXITED | WNOHANG) != 0 ||
           info.si_pid != 0;
}

static void free_adopted(subhost_host *host, struct adopted *it)
{
    if (it->pidfd.fd >= 0) {
        subhost__loop_unwatch(host, &it->pidfd);
        subhost__fd_close(it->pidfd.fd);
    }
    free(it);
}

/* True: there are new ones. */
static bool take_over(subhost_host *host)
{
    struct adopted *it = atomic_exchange(&host->handed_over, NULL);
    bool any = it;
    while (it) {
        struct adopted *next = it->next;
        it->next = host->adopted;
        host->adopted = it;
        it = next;
    }
    return any;
}

void subhost__adopted_tick(subhost_host *host)
{
    bool any = take_over(host);
    unsigned watched = 0;
    for (const struct adopted *it = host->adopted; it; it = it->next) {
        any = any || it->ended;
        watched += it->pidfd.fd >= 0;
    }
    if (!any)
        return;
    for (struct adopted **at = &host->adopted; *at;) {
        struct adopted *it = *at;
        if (it->pidfd.fd < 0 && watched < WATCHED_MAX)
            watched = watch(host, it) ? watched + 1 : WATCHED_MAX;
        /* What has a descriptor now, and has ended, is heard of in the next round. */
        if ((it->pidfd.fd >= 0 && !it->ended) || !reap(it)) {
            at = &it->next;
            continue;
        }
        *at = it->next;
        free_adopted(host, it);
    }
}

void subhost__adopted_free(subhost_host *host)
{
    take_over(host);
    while (host->adopted) {
        struct adopted *it = host->adopted;
        host->adopted = it->next;
        reap(it);
        free_adopted(host, it);
    }
}
