/* The root's part for all children of the tree, at whatever depth: it forks them, reaps
 * them, and tells their supervisors. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fd.h"
#include "pids.h"
#include "policing.h"
#include "process.h"

#ifndef P_PIDFD
#define P_PIDFD 3 /* waitid(2), Linux 5.4 */
#endif

/* From a program's wait that reaps a child of ours to its word (pids.h). */
#define TELL_TIMEOUT SUBHOST_MSEC(200)

struct child {
    struct source pidfd; /* first: what is ready is the child */
    struct child *next;
    struct wire wire; /* it asks for forks, and hears of them */
    pid_t pid;
    bool ended;
    int64_t gone_at; /* reaped, and not by us; 0: no */
    /* Who is told; both NULL: nobody any more. `id` is what they call it. */
    struct process *supervisor;
    struct child *supervisor_child;
    uint64_t id;
};

struct children {
    struct child *first;
};

static void child_ended(struct source *source, uint32_t events)
{
    (void)events;
    ((struct child *)source)->ended = true;
}

bool subhost__children_room(subhost_host *host, char *why, size_t size)
{
    unsigned alive = subhost__forkserver_pending(host);
    struct children *children = host->children;
    for (const struct child *c = children ? children->first : NULL; c; c = c->next)
        alive++;
    return subhost__policing_child_allowed(host, alive, why, size);
}

/* ---- asking --------------------------------------------------------------------- */

static void refuse_fork(struct child *child, uint64_t id, const char *why)
{
    struct pack pack = {0};
    subhost__pack_string(&pack, why);
    subhost__wire_send(&child->wire, FRAME_FORK_FAILED, id, pack.data, pack.size, NULL,
                       0);
    free(pack.data);
}

static void on_fork(subhost_host *host, struct child *child, struct frame *frame)
{
    struct unpack unpack = {.data = frame->data, .size = frame->size};
    char why[240];
    if (!subhost__children_room(host, why, sizeof why)) {
        for (unsigned i = 0; i < frame->n_fds; i++)
            subhost__fd_close(frame->fds[i]);
        refuse_fork(child, frame->id, why);
        return;
    }
    subhost__signals_keep_children(host);
    struct fork_request *request = subhost__fork_request_new();
    unsigned taken = 0;
    if (request) {
        char *name = subhost__unpack_string(&unpack);
        snprintf(request->name, sizeof request->name, "%s", name ? name : "subhost");
        free(name);
        request->child = child;
        request->id = frame->id;
        request->own_stdio = true;
        for (int i = 0; i < 3; i++) {
            if (subhost__unpack_u64(&unpack) && taken < frame->n_fds)
                request->stdio[i] = frame->fds[taken++];
        }
    }
    while (taken < frame->n_fds)
        subhost__fd_close(frame->fds[taken++]);
    int error = request ? subhost__forkserver_submit(host, request) : ENOMEM;
    if (error) {
        refuse_fork(child, frame->id, strerror(error));
        subhost__fork_request_free(request);
    }
}

static void hear(subhost_host *host, struct child *child)
{
    struct frame frame;
    while (subhost__wire_take(&child->wire, &frame)) {
        if (frame.type == FRAME_FORK) {
            on_fork(host, child, &frame);
            continue;
        }
        for (unsigned i = 0; i < frame.n_fds; i++)
            subhost__fd_close(frame.fds[i]);
    }
}

/* ---- answering ------------------------------------------------------------------ */

/* Hands the child's control socket and pidfd to who asked for it. */
static bool give(struct child *child, struct fork_request *request)
{
    if (request->process) {
        int pidfd = subhost__fd_dup(child->pidfd.fd);
        if (pidfd < 0)
            return false;
        subhost__process_forked(request->process, request->pid, request->control, pidfd);
        request->control = -1;
        return true;
    }
    if (!request->child)
        return true; /* nobody any more: it sees the end of its wires */
    struct pack pack = {0};
    int fds[] = {request->control, child->pidfd.fd};
    subhost__pack_u64(&pack, (uint64_t)request->pid);
    bool sent = subhost__wire_send(&request->child->wire, FRAME_FORKED, request->id,
                                   pack.data, pack.size, fds, ARRAY_LENGTH(fds));
    free(pack.data);
    return sent;
}

/* False: it has been given to nobody, and sees the end of its wires. */
static bool adopt(subhost_host *host, struct fork_request *request)
{
    struct child *child = calloc(1, sizeof *child);
    if (!child)
        return false;
    child->pid = request->pid;
    child->pidfd = (struct source){.fd = request->pidfd, .ready = child_ended};
    child->supervisor = request->process;
    child->supervisor_child = request->child;
    child->id = request->id;
    request->pidfd = -1;
    int service = request->service;
    request->service = -1;
    if (subhost__loop_watch(host, &child->pidfd, EPOLLIN) != 0) {
        /* Nobody would see its end: it gets it now. */
        kill(child->pid, SIGKILL);
        child->ended = true;
    }
    child->next = host->children->first;
    host->children->first = child;
    bool given = subhost__wire_open(&child->wire, host, service) == 0 && !child->ended &&
                 give(child, request);
    if (!given) {
        child->supervisor = NULL; /* they hear of it in another way */
        child->supervisor_child = NULL;
    }
    return given;
}

/* 0: it is gone. */
static pid_t supervisor_of(const subhost_host *host, const struct fork_request *request)
{
    return request->process ? host->pid : request->child ? request->child->pid : 0;
}

static void answer(subhost_host *host, struct fork_request *request)
{
    if (!request->error[0]) {
        pthread_mutex_lock(&host->lock);
        host->stats.forks++;
        pthread_mutex_unlock(&host->lock);
        NOTE_EVENT(host->trail, FORKED, 0, 0, TRAIL_TEXT(NAME, request->name),
                   TRAIL_NUMBER(CHILD, request->pid),
                   TRAIL_NUMBER(SUPERVISOR, supervisor_of(host, request)));
        if (!adopt(host, request))
            snprintf(request->error, sizeof request->error,
                     "out of memory or descriptors in the root");
    } else {
        NOTE_EVENT(host->trail, NOT_FORKED, 0, 0, TRAIL_TEXT(NAME, request->name),
                   TRAIL_NUMBER(SUPERVISOR, supervisor_of(host, request)),
                   TRAIL_TEXT(WHY, request->error));
    }
    if (request->error[0] && request->process)
        subhost__process_not_forked(request->process, request->error);
    else if (request->error[0] && request->child)
        refuse_fork(request->child, request->id, request->error);
    subhost__fork_request_free(request);
}

/* ---- reaping -------------------------------------------------------------------- */

/* As wait(2)'s; -1: code that goes round libc has reaped it. False: it has not ended, or who
 * has reaped it is about to say how it did. */
static bool wait_status(struct child *child, int *status)
{
    siginfo_t info = {0};
    bool gone = waitid(P_PIDFD, (id_t)child->pidfd.fd, &info, WEXITED | WNOHANG) != 0;
    if (gone && errno != ECHILD)
        return false;
    if (!gone && info.si_pid == 0)
        return false;
    if (gone && !subhost__pids_told(child->pid)) {
        int64_t now = subhost__now();
        if (!child->gone_at)
            child->gone_at = now;
        if (now < child->gone_at + TELL_TIMEOUT)
            return false;
    }
    *status = -1;
    subhost__pids_remove(child->pid, status);
    if (!gone)
        *status =
            info.si_code == CLD_EXITED ? (info.si_status & 0xFF) << 8 : info.si_status;
    return true;
}

static void tell(struct child *child, int status)
{
    if (child->supervisor) {
        subhost__process_reaped(child->supervisor, status);
    } else if (child->supervisor_child) {
        struct pack pack = {0};
        subhost__pack_u64(&pack, (uint64_t)(int64_t)status);
        subhost__wire_send(&child->supervisor_child->wire, FRAME_REAPED, child->id,
                           pack.data, pack.size, NULL, 0);
        free(pack.data);
    }
}

static void free_child(subhost_host *host, struct child *child)
{
    subhost__loop_unwatch(host, &child->pidfd);
    subhost__fd_close(child->pidfd.fd);
    subhost__wire_close(&child->wire, host);
    free(child);
}

int64_t subhost__children_tick(subhost_host *host)
{
    struct fork_request *request;
    int64_t again = SUBHOST_FOREVER;
    if (!host->children) {
        if (!host->forkserver)
            return SUBHOST_FOREVER;
        host->children = calloc(1, sizeof *host->children);
        if (!host->children)
            return subhost__now() + SUBHOST_MSEC(10);
    }
    while ((request = subhost__forkserver_take(host)))
        answer(host, request);
    for (struct child *child = host->children->first; child; child = child->next)
        hear(host, child);
    for (struct child **at = &host->children->first; *at;) {
        struct child *child = *at;
        int status;
        if (!child->ended || !wait_status(child, &status)) {
            if (child->gone_at)
                again = subhost__now() + SUBHOST_MSEC(1);
            at = &child->next;
            continue;
        }
        *at = child->next;
        tell(child, status);
        subhost__forkserver_forget(host, NULL, child);
        for (struct child *other = host->children->first; other; other = other->next) {
            if (other->supervisor_child == child)
                other->supervisor_child = NULL;
        }
        free_child(host, child);
    }
    return again;
}

void subhost__children_forget(subhost_host *host, const struct process *process)
{
    subhost__forkserver_forget(host, process, NULL);
    struct child *child = host->children ? host->children->first : NULL;
    for (; child; child = child->next) {
        if (child->supervisor == process)
            child->supervisor = NULL;
    }
}

/* What is left when the host closes: a child whose supervisor is gone, and which is about to
 * find out. It must not stay behind as a zombie of an embedder's. */
static void end_child(struct child *child, int64_t deadline)
{
    int status;
    syscall(SYS_pidfd_send_signal, child->pidfd.fd, SIGKILL, NULL, 0);
    while (!wait_status(child, &status)) {
        int64_t left = (deadline - subhost__now()) / 1000000;
        struct pollfd ended = {.fd = child->pidfd.fd, .events = POLLIN};
        if (left <= 0 || (poll(&ended, 1, (int)left) < 0 && errno != EINTR))
            return; /* not even SIGKILL ends it: the kernel has it */
    }
}

void subhost__children_free(subhost_host *host)
{
    if (!host->children)
        return;
    int64_t deadline = subhost__now() + SUBHOST_MSEC(1000);
    while (host->children->first) {
        struct child *child = host->children->first;
        host->children->first = child->next;
        end_child(child, deadline);
        free_child(host, child);
    }
    free(host->children);
    host->children = NULL;
}
