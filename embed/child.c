/* A forked child: what happens between fork() and its end.
 *
 *   1. The prelude: async-signal-safe calls only, all signals blocked (prelude()).
 *   2. CPython puts itself right: PyOS_AfterFork_Child().
 *   3. The host does: locks, lists, loop and signals are made anew; what belonged to the
 *      parent's threads stays behind as their stacks do (become_host()).
 *   4. It serves its supervisor: the thread that forked is the main thread now and runs
 *      the loop, a driver runs the task in the main interpreter (serve()).
 *
 * The child has two wires: to its supervisor, which asked for it, and to the root, which
 * forked it and forks for it. When one of them ends, it is an orphan. */
#define _GNU_SOURCE
#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "buffer.h"
#include "capture.h"
#include "fd.h"
#include "guard.h"
#include "pids.h"
#include "policing.h"
#include "process.h"
#include "siblings.h"

/* A supervisor that reads nothing must not cost memory without end. */
#define TRAIL_WAITING_MAX ((size_t)1 << 20)
/* What threads of a pool's process have to end by themselves when there are no more calls. */
#define FINISH_TIMEOUT SUBHOST_MSEC(50)

struct child_wires {
    struct wire supervisor, root;
    subhost_interp *interp; /* where tasks run */
    subhost_task *task;     /* the one that runs; a reference */
    bool last;              /* nothing comes after it */
    bool unfinished;        /* calls have run, and not what follows a program's end */
    int64_t grace;          /* of the last one */
    bool told_failing;
    bool ending; /* what is in the trail goes out before its end, however much */
    size_t output_waiting; /* of captured output sent, what no reader has taken yet */
    atomic_bool signals_changed;
    bool orphan;
    bool done;
    int status; /* for the process's exit */
};

/* ---- 1: the prelude --------------------------------------------------------------- */

/* The one way out of a child that cannot become a host. Async-signal-safe. */
static _Noreturn void give_up(const char *what)
{
    static char before[] = "subhost: a forked child cannot start: ";
    const struct iovec line[] = {{before, sizeof before - 1},
                                 {(char *)(uintptr_t)what, strlen(what)},
                                 {(char[]){'\n'}, 1}};
    /* In one piece, whoever else has the same to say. */
    ssize_t n = syscall(SYS_writev, STDERR_FILENO, line, ARRAY_LENGTH(line));
    (void)n;
    _exit(125);
}

static void close_between(int first, int last)
{
    if (first > last)
        return;
#ifdef SYS_close_range
    if (syscall(SYS_close_range, first, last, 0) == 0)
        return;
#endif
    /* Linux before 5.9. The limit may have been lowered below what is open. */
    long limit = sysconf(_SC_OPEN_MAX);
    for (int fd = first; fd <= last && fd < (limit > 65536 ? limit : 65536); fd++)
        syscall(SYS_close, fd);
}

/* What stays open: stdio and the two wires. */
static void close_inherited(struct child_birth *birth)
{
    const struct fork_request *request = birth->request;
    for (int fd = 0; request->own_stdio && fd < 3; fd++) {
        if (request->stdio[fd] < 0)
            syscall(SYS_close, fd);
        else if (dup2(request->stdio[fd], fd) < 0)
            give_up("dup2");
    }
    int low = birth->control < birth->service ? birth->control : birth->service;
    int high = birth->control < birth->service ? birth->service : birth->control;
    close_between(3, low - 1);
    close_between(low + 1, high - 1);
    close_between(high + 1, INT32_MAX);
}

static void prelude(struct child_birth *birth)
{
    subhost__guard_own_fork(false);
    subhost__guard_adopt();
    subhost__pids_after_fork();
    subhost__siblings_detach();
    subhost__fd_forget_all();
    close_inherited(birth);
    subhost__signals_child();
    prctl(PR_SET_NAME, birth->request->name);
}

/* ---- 3: a host again -------------------------------------------------------------- */

static void become_host(const struct child_birth *birth, struct child_wires *up)
{
    subhost_host *host = birth->host;
    subhost__host_after_fork(host, birth->request->serial);
    host->up = up;
    up->interp = birth->main_interp;
    host->main_tstate = PyEval_SaveThread();
    subhost_error *err = NULL;
    int code = subhost__loop_open(host, &err);
    if (!code)
        code = subhost__signals_open(host, &err);
    if (code)
        give_up(subhost_error_message(err));
    if (subhost__wire_open(&up->supervisor, host, subhost__fd_take(birth->control)) ||
        subhost__wire_open(&up->root, host, subhost__fd_take(birth->service)))
        give_up("epoll_ctl");
    /* Before there are threads, which inherit the mask. What the embedder blocks is for threads
     * of its own, which are not here. */
    sigset_t none;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    if (subhost__interp_start_main(up->interp))
        give_up("starting a driver thread");
    subhost__wire_send(&up->supervisor, FRAME_HELLO, 0, NULL, 0, NULL, 0);
}

/* ---- 4: serving ------------------------------------------------------------------- */

/* Signals that are sent to the root alone reach the programs here, too. */
static void send_signals(subhost_host *host, struct child_wires *up)
{
    if (!atomic_exchange(&up->signals_changed, false))
        return;
    uint64_t handled = 0, ignored = UINT64_MAX, by_default = UINT64_MAX;
    pthread_mutex_lock(&host->lock);
    for (subhost_interp *interp = host->interps; interp; interp = interp->next) {
        handled |= atomic_load(&interp->signals_handled);
        ignored &= atomic_load(&interp->signals_ignored);
        by_default &= atomic_load(&interp->signals_default);
    }
    pthread_mutex_unlock(&host->lock);
    struct pack pack = {0};
    subhost__pack_u64(&pack, handled);
    subhost__pack_u64(&pack, ignored);
    subhost__pack_u64(&pack, by_default);
    if (!pack.failed)
        subhost__wire_send(&up->supervisor, FRAME_SIGNALS, 0, pack.data, pack.size, NULL,
                           0);
    free(pack.data);
}

static void send_ended(struct child_wires *up, subhost_task *task)
{
    subhost_outcome outcome = {.size = sizeof outcome};
    subhost_task_wait(task, 0, &outcome, NULL);
    /* As with output: who hears of the end may leave, and with it what was still to come. */
    up->ending = true;
    subhost__trail_write(subhost__host()->trail);
    up->ending = false;
    if (outcome.kind == SUBHOST_ABANDONED)
        kill(getpid(), SIGKILL); /* here there is one rung more */
    /* Who hears of the end finds the dispositions put back. */
    send_signals(subhost__host(), up);
    subhost_stats stats = {.size = sizeof stats};
    subhost_get_stats(subhost__host(), &stats);
    struct pack pack = {0};
    subhost__pack_u64(&pack, (uint64_t)outcome.kind);
    subhost__pack_u64(&pack, (uint64_t)outcome.code);
    subhost__pack_u64(&pack, (uint64_t)outcome.cancel_reason);
    subhost__pack_u64(&pack, (uint64_t)outcome.status);
    subhost__pack_u64(&pack, (uint64_t)stats.cancel_latency_last);
    subhost__pack_string(&pack, outcome.detail);
    subhost__pack_bytes(&pack, task->result, task->result_size);
    subhost__buffer_list_pack(&pack, &task->returned);
    if (pack.failed || !subhost__wire_send(&up->supervisor, FRAME_ENDED, task->id,
                                           pack.data, pack.size, NULL, 0))
        up->done = true; /* then our exit is all that is heard of it */
    free(pack.data);
    up->status = outcome.status;
}

static void on_finished(subhost_task *task, void *data)
{
    struct child_wires *up = data;
    (void)task;
    subhost_task_release(up->task);
    up->task = NULL;
    up->done = true; /* and if it was abandoned: our exit ends all threads */
}

/* Nothing comes any more: the process is done, or has threads to wait for and atexit to run. */
static void finish(struct child_wires *up)
{
    subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
    options.timeout = FINISH_TIMEOUT;
    options.grace = up->grace;
    options.on_end = on_finished;
    options.on_end_data = up;
    subhost_task *task = up->unfinished
                             ? subhost__task_make_call(up->interp, "", 0, &options, NULL)
                             : NULL;
    up->unfinished = false;
    if (task)
        task->ends = true;
    if (task && subhost__task_enqueue(task, NULL) == 0) {
        up->task = task;
    } else {
        subhost_task_release(task);
        up->done = true;
    }
}

/* What its own tasks have written goes before its end: then who hears of that may leave. */
static void finish_captures(subhost_host *host)
{
    pthread_mutex_lock(&host->lock);
    subhost_interp *first = host->interps;
    pthread_mutex_unlock(&host->lock);
    /* The list shrinks on this thread only. */
    for (subhost_interp *interp = first; interp; interp = interp->next)
        subhost__capture_finish(interp->capture);
}

static void on_end(subhost_task *task, void *data)
{
    struct child_wires *up = data;
    finish_captures(subhost__host());
    send_ended(up, task);
    subhost_task_release(up->task);
    up->task = NULL;
    if (up->last || up->orphan)
        finish(up);
}

static void on_run(struct child_wires *up, const struct frame *frame)
{
    struct unpack unpack = {.data = frame->data, .size = frame->size};
    subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
    options.on_end = on_end;
    options.on_end_data = up;
    subhost_task *task =
        up->task ? NULL : subhost__task_unpack(up->interp, &unpack, &options, &up->last);
    if (task) {
        task->id = (unsigned)frame->id; /* its number in the tree */
        subhost__policing_confine(task->policy);
    }
    if (task && subhost__task_enqueue(task, NULL) == 0) {
        up->task = task;
        up->told_failing = false;
        up->unfinished = task->calls_value;
        up->grace = task->grace;
    } else {
        subhost_task_release(task);
        up->done = true; /* out of memory: our exit says it */
    }
}

static void on_cancel(struct child_wires *up, const struct frame *frame)
{
    struct unpack unpack = {.data = frame->data, .size = frame->size};
    uint64_t reason = subhost__unpack_u64(&unpack);
    int64_t grace = (int64_t)subhost__unpack_u64(&unpack);
    char *text = subhost__unpack_string(&unpack);
    if (up->task && up->task->id == (unsigned)frame->id) {
        up->task->grace = grace;
        subhost_task_cancel(up->task, (enum subhost_reason)reason, text);
    }
    free(text);
}

static void hear_supervisor(subhost_host *host, struct child_wires *up)
{
    struct frame frame;
    while (subhost__wire_take(&up->supervisor, &frame)) {
        for (unsigned i = 0; i < frame.n_fds; i++)
            subhost__fd_close(frame.fds[i]);
        switch ((enum process_frame)frame.type) {
        case FRAME_RUN:
            on_run(up, &frame);
            break;
        case FRAME_CANCEL:
            on_cancel(up, &frame);
            break;
        case FRAME_SIGNAL:
            subhost__signals_inject(host, (int)frame.id);
            break;
        case FRAME_DUMP:
            subhost__stacks_request(host, STDERR_FILENO);
            break;
        case FRAME_TAKEN:
            up->output_waiting -=
                frame.id < up->output_waiting ? (size_t)frame.id : up->output_waiting;
            break;
        default:
            break;
        }
    }
}

static void hear_root(subhost_host *host, struct child_wires *up)
{
    struct frame frame;
    while (subhost__wire_take(&up->root, &frame)) {
        struct unpack unpack = {.data = frame.data, .size = frame.size};
        struct process *process = subhost__process_find(host, frame.id);
        if (frame.type == FRAME_FORKED && frame.n_fds == 2 && process) {
            subhost__process_forked(process, (pid_t)subhost__unpack_u64(&unpack),
                                    frame.fds[0], frame.fds[1]);
            continue;
        }
        if (frame.type == FRAME_FORK_FAILED && process) {
            char *why = subhost__unpack_string(&unpack);
            subhost__process_not_forked(process, why ? why : "out of memory");
            free(why);
        } else if (frame.type == FRAME_REAPED && process) {
            subhost__process_reaped(process, (int)subhost__unpack_u64(&unpack));
        }
        /* Of a process that nobody waits for any more: it sees the end of its wire. */
        for (unsigned i = 0; i < frame.n_fds; i++)
            subhost__fd_close(frame.fds[i]);
    }
}

/* The supervisor or the root is gone. */
static void become_orphan(subhost_host *host, struct child_wires *up)
{
    up->orphan = true;
    NOTE_EVENT(host->trail, ORPHAN, up->interp->serial, up->task ? up->task->id : 0,
               TRAIL_TEXT(WHY, up->supervisor.ended ? "the supervisor is gone"
                                                    : "the root is gone"));
    if (!up->task) {
        finish(up); /* idle: it was released */
        return;
    }
    switch (subhost__policing_orphan(up->task->policy)) {
    case SUBHOST_ORPHAN_DETACH:
        break;
    case SUBHOST_ORPHAN_KILL:
        kill(getpid(), SIGKILL);
        break;
    case SUBHOST_ORPHAN_CANCEL:
        subhost_task_cancel(up->task, SUBHOST_BY_ORPHAN, NULL);
        break;
    }
}

static bool is_failing(subhost_host *host, const subhost_task *task)
{
    pthread_mutex_lock(&host->lock);
    bool is = task->failing;
    pthread_mutex_unlock(&host->lock);
    return is;
}

static bool is_over(subhost_host *host, struct child_wires *up)
{
    if (up->done)
        subhost__trail_write(host->trail);
    return up->done && subhost__wire_flushed(&up->supervisor);
}

static _Noreturn void serve(subhost_host *host, struct child_wires *up)
{
    subhost_error *err = NULL;
    while (!is_over(host, up)) {
        if (subhost_dispatch(host, SUBHOST_FOREVER, &err) < 0)
            give_up(subhost_error_message(err));
        hear_supervisor(host, up);
        hear_root(host, up);
        if (up->task && !up->told_failing && is_failing(host, up->task)) {
            up->told_failing = true;
            subhost__wire_send(&up->supervisor, FRAME_FAILING, up->task->id, NULL, 0,
                               NULL, 0);
        }
        send_signals(host, up);
        if (!up->orphan && (up->supervisor.ended || up->root.ended))
            become_orphan(host, up);
        if (atomic_load(&up->interp->state) == INTERP_FAILED)
            give_up(up->interp->failure ? up->interp->failure : "out of memory");
    }
    /* Children of its own see the end of their wires, and the root reaps them. No exit
     * handlers: they are the parent's (as os._exit() in multiprocessing's children). */
    fflush(stdout);
    fflush(stderr);
    _exit(up->status & 0xFF);
}

_Noreturn void subhost__child_main(struct child_birth *birth)
{
    static struct child_wires up; /* there is one */
    prelude(birth);
    PyOS_AfterFork_Child();
    become_host(birth, &up);
    serve(birth->host, &up);
}

/* ---- what other parts ask for ------------------------------------------------------ */

bool subhost__child_ask_fork(subhost_host *host, uint64_t id, const char *name,
                             const int stdio[3])
{
    struct pack pack = {0};
    int fds[3];
    unsigned n_fds = 0;
    subhost__pack_string(&pack, name);
    for (int i = 0; i < 3; i++) {
        bool open = fcntl(stdio[i], F_GETFD) >= 0;
        subhost__pack_u64(&pack, open);
        if (open)
            fds[n_fds++] = stdio[i];
    }
    errno = ENOMEM;
    bool sent = !pack.failed && subhost__wire_send(&host->up->root, FRAME_FORK, id,
                                                   pack.data, pack.size, fds, n_fds);
    int error = errno;
    free(pack.data);
    errno = error;
    return sent;
}

void subhost__child_signals_changed(subhost_host *host)
{
    atomic_store(&host->up->signals_changed, true);
    subhost__loop_wake(host);
}

bool subhost__child_output_room(const subhost_host *host)
{
    /* Without a supervisor nobody reads, and nobody would say so. */
    return host->up->output_waiting < OUTPUT_WINDOW || host->up->supervisor.ended;
}

bool subhost__child_pass_output(subhost_host *host, const char *name, int stream,
                                const char *text, size_t size)
{
    struct pack pack = {0};
    subhost__pack_string(&pack, name);
    subhost__pack_bytes(&pack, text, size);
    if (!pack.failed &&
        subhost__wire_send(&host->up->supervisor, FRAME_OUTPUT, (uint64_t)stream,
                           pack.data, pack.size, NULL, 0))
        host->up->output_waiting += pack.size;
    free(pack.data);
    return subhost__child_output_room(host);
}

bool subhost__child_pass_trail(subhost_host *host, const char *text, size_t size,
                               uint64_t lost)
{
    struct wire *wire = &host->up->supervisor;
    if (!host->up->ending && subhost__wire_waiting(wire) > TRAIL_WAITING_MAX)
        return false; /* the main loop comes again when some of it has gone */
    return subhost__wire_send(wire, FRAME_TRAIL, lost, text, size, NULL, 0);
}
