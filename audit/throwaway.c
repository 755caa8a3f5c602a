/* Throwaway children: see throwaway.h. */
#define _GNU_SOURCE
#include "throwaway.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "embed/interp.h"

/* Of what a child prints or reports, so much is kept. */
#define KEPT ((size_t)64 * 1024)
/* Killed, it has so long to be gone: more means that the kernel holds it (state D). */
#define REAP_LIMIT SUBHOST_MSEC(5000)

/* ---- in the child ----------------------------------------------------------------- */

static void fresh_signals(const sigset_t *mask)
{
    for (int signo = 1; signo < NSIG; signo++)
        signal(signo, SIG_DFL);
    sigprocmask(SIG_SETMASK, mask, NULL);
}

_Noreturn static void become(struct throwaway *child, pid_t parent, int report,
                             int output, const sigset_t *mask)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(125);
    fresh_signals(mask);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null < 0 || dup2(null, 0) < 0 || dup2(output, 1) < 0 || dup2(output, 2) < 0)
        _exit(125);
    child->run(child->data, report);
    _exit(0);
}

/* ---- starting --------------------------------------------------------------------- */

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static int start(struct throwaway *child, const sigset_t *mask, subhost_error **err)
{
    int report[2] = {-1, -1}, output[2] = {-1, -1};
    pid_t parent = getpid();
    if (pipe2(report, O_CLOEXEC) == 0 && pipe2(output, O_CLOEXEC) == 0) {
        child->started_at = subhost__now();
        child->pid = fork();
        if (child->pid == 0)
            become(child, parent, report[1], output[1], mask);
    }
    int error = errno;
    close_fd(&report[1]);
    close_fd(&output[1]);
    if (child->pid > 0) {
        setpgid(child->pid, child->pid); /* whoever of the two comes first */
        child->pid_fd = (int)syscall(SYS_pidfd_open, child->pid, 0);
        error = errno;
    }
    child->report_fd = report[0];
    child->output_fd = output[0];
    if (child->pid > 0 && child->pid_fd >= 0) {
        fcntl(report[0], F_SETFL, O_NONBLOCK);
        fcntl(output[0], F_SETFL, O_NONBLOCK);
        return 0;
    }
    if (child->pid > 0) {
        kill(child->pid, SIGKILL);
        waitpid(child->pid, NULL, 0);
    }
    child->pid = 0;
    close_fd(&child->report_fd);
    close_fd(&child->output_fd);
    return subhost__fail_errno(err, error, "starting the examination %s", child->name);
}

/* ---- reading ---------------------------------------------------------------------- */

/* Appends, and drops the first half when there is too much: the end tells how it ended. */
static void keep(char **text, size_t *size, const char *more, size_t length)
{
    if (!*text)
        *text = calloc(1, 2 * KEPT + 1);
    if (!*text)
        return;
    if (*size + length > 2 * KEPT) {
        memmove(*text, *text + *size - KEPT, KEPT);
        *size = KEPT;
    }
    memcpy(*text + *size, more, length);
    *size += length;
    (*text)[*size] = '\0';
}

/* What is there; the descriptor is closed at the end of the file. */
static void drain(int *fd, char **text, size_t *size)
{
    char buffer[4096];
    for (int reads = 0; *fd >= 0 && reads < 64; reads++) {
        ssize_t n = read(*fd, buffer, sizeof buffer);
        if (n > 0)
            keep(text, size, buffer, (size_t)n);
        else if (n == 0)
            close_fd(fd);
        else if (errno != EINTR)
            return;
    }
}

static void read_all(struct throwaway *child)
{
    drain(&child->report_fd, &child->report, &child->report_size);
    drain(&child->output_fd, &child->output, &child->output_size);
}

/* ---- ending ----------------------------------------------------------------------- */

/* Its exit was seen, or it is killed now: collects it and everything it left. */
static void end(struct throwaway *child)
{
    /* The leader is not reaped yet, so the group's number is not another's. */
    kill(-child->pid, SIGKILL);
    struct pollfd fd = {.fd = child->pid_fd, .events = POLLIN};
    poll(&fd, 1, (int)(REAP_LIMIT / 1000000));
    if (waitpid(child->pid, &child->status, WNOHANG) != child->pid)
        child->hung = true;
    child->duration = subhost__now() - child->started_at;
    read_all(child);
    close_fd(&child->report_fd);
    close_fd(&child->output_fd);
    close_fd(&child->pid_fd);
    child->done = true;
}

void subhost__throwaway_free(struct throwaway *child)
{
    free(child->report);
    free(child->output);
    child->report = child->output = NULL;
}

/* ---- the loop --------------------------------------------------------------------- */

struct pool {
    struct throwaway *children;
    unsigned count, next, running, jobs;
    void (*on_end)(struct throwaway *child, void *data);
    void *data;
    struct pollfd *fds; /* three for each child, and the signals' */
    int signal_fd;
    sigset_t mask; /* the process's own */
};

static bool lives(const struct throwaway *child) { return child->pid && !child->done; }

static void finish(struct pool *pool, struct throwaway *child)
{
    end(child);
    pool->running--;
    if (pool->on_end)
        pool->on_end(child, pool->data);
}

/* Waits for the next event, at most until the next deadline. */
static void wait_for_any(struct pool *pool)
{
    nfds_t n = 0;
    int64_t until = SUBHOST_FOREVER, now = subhost__now();
    pool->fds[n++] = (struct pollfd){.fd = pool->signal_fd, .events = POLLIN};
    for (unsigned i = 0; i < pool->next; i++) {
        struct throwaway *child = &pool->children[i];
        if (!lives(child))
            continue;
        int fds[] = {child->pid_fd, child->report_fd, child->output_fd};
        for (size_t k = 0; k < ARRAY_LENGTH(fds); k++)
            if (fds[k] >= 0)
                pool->fds[n++] = (struct pollfd){.fd = fds[k], .events = POLLIN};
        int64_t deadline = child->started_at + child->limit;
        until = deadline < until ? deadline : until;
    }
    int64_t left = until - now;
    poll(pool->fds, n, left <= 0 ? 0 : (int)(left / 1000000 + 1));
}

/* Handles what is due; false: a signal wants the end of it all. */
static bool look(struct pool *pool)
{
    for (unsigned i = 0; i < pool->next; i++) {
        struct throwaway *child = &pool->children[i];
        if (!lives(child))
            continue;
        read_all(child);
        struct pollfd exit = {.fd = child->pid_fd, .events = POLLIN};
        if (poll(&exit, 1, 0) == 1) {
            finish(pool, child);
        } else if (subhost__now() - child->started_at >= child->limit) {
            child->hung = true;
            finish(pool, child);
        }
    }
    struct pollfd signals = {.fd = pool->signal_fd, .events = POLLIN};
    return poll(&signals, 1, 0) != 1;
}

static int run_pool(struct pool *pool, subhost_error **err)
{
    int code = 0;
    while (!code && (pool->next < pool->count || pool->running > 0)) {
        while (!code && pool->next < pool->count && pool->running < pool->jobs) {
            code = start(&pool->children[pool->next], &pool->mask, err);
            pool->running += code == 0;
            pool->next++;
        }
        if (code)
            break;
        wait_for_any(pool);
        if (!look(pool))
            code = subhost__fail(err, SUBHOST_ESTATE, "the audit was ended by a signal");
    }
    for (unsigned i = 0; i < pool->next; i++)
        if (lives(&pool->children[i]))
            end(&pool->children[i]);
    return code;
}

/* Where the parent ignores SIGCHLD so do we, from exec on, and the kernel keeps no exit status.
 * `before`: what it is to be again. */
static void keep_statuses(struct sigaction *before)
{
    if (sigaction(SIGCHLD, NULL, before) == 0 &&
        (before->sa_handler == SIG_IGN || before->sa_flags & SA_NOCLDWAIT))
        sigaction(SIGCHLD, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
}

int subhost__throwaway_run(struct throwaway *children, unsigned count, int jobs,
                           void (*on_end)(struct throwaway *child, void *data),
                           void *data, subhost_error **err)
{
    struct pool pool = {.children = children,
                        .count = count,
                        .jobs = jobs > 0 ? (unsigned)jobs : 1,
                        .on_end = on_end,
                        .data = data};
    for (unsigned i = 0; i < count; i++)
        children[i].pid_fd = children[i].report_fd = children[i].output_fd = -1;
    pool.fds = calloc(3 * (size_t)count + 1, sizeof *pool.fds);
    if (!pool.fds)
        return subhost__fail(err, SUBHOST_ENOMEM, "the examinations: out of memory");
    struct sigaction on_child;
    keep_statuses(&on_child);
    /* Looked at, never taken: unblocked again, the signal does what it would have done. */
    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGINT);
    sigaddset(&ending, SIGTERM);
    sigprocmask(SIG_BLOCK, &ending, &pool.mask);
    pool.signal_fd = signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK);
    int code = pool.signal_fd < 0
                   ? subhost__fail_errno(err, errno, "the examinations: signalfd")
                   : run_pool(&pool, err);
    close_fd(&pool.signal_fd);
    free(pool.fds);
    sigprocmask(SIG_SETMASK, &pool.mask, NULL);
    sigaction(SIGCHLD, &on_child, NULL);
    return code;
}

/* ---- words ------------------------------------------------------------------------ */

void subhost__describe_status(int status, char *text, size_t size)
{
    if (WIFSIGNALED(status)) {
        const char *name = sigabbrev_np(WTERMSIG(status));
        snprintf(text, size, "SIG%s", name ? name : "?");
    } else {
        snprintf(text, size, "exit status %d", WEXITSTATUS(status));
    }
}

void subhost__throwaway_describe(const struct throwaway *child, char *text, size_t size)
{
    if (child->hung)
        snprintf(text, size, "no end within %.1f s", (double)child->limit / 1e9);
    else
        subhost__describe_status(child->status, text, size);
}
