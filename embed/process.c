/* Interpreters in forked children, at their supervisor's: see process.h.
 *
 * The supervisor may be the root, which forked the child, or a child itself, for which the
 * root did; the difference is in whom it asks and who tells it the exit status. Its tools
 * are the control wire, over which everything goes, and the pidfd, which kills.
 *
 *   new -> asked -> alive -> ended        (a fork that fails: asked -> ended) */
#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buffer.h"
#include "capture.h"
#include "child.h"
#include "fd.h"

/* From the question to the fork: the forkserver thread may have to wait for the GIL. */
#define FORK_TIMEOUT SUBHOST_MSEC(60000)
/* After the grace period, for a child that is just about to end by itself. */
#define KILL_DELAY SUBHOST_MSEC(40)
/* From the end of a child, or its SIGKILL, to its exit status. */
#define STATUS_TIMEOUT SUBHOST_MSEC(2000)

#define STATUS_UNKNOWN 125 /* as of anything else that the host could not do */

#define PROCESS_STATES(X)                                                                \
    X(PROCESS_NEW)                                                                       \
    X(PROCESS_ASKED)                                                                     \
    X(PROCESS_ALIVE)                                                                     \
    X(PROCESS_ENDED)

enum process_state {
#define STATE_ENUM(name) name,
    PROCESS_STATES(STATE_ENUM)
#undef STATE_ENUM
};

struct process {
    struct source pidfd; /* first: what is ready is the process */
    subhost_interp *interp;
    enum process_state state;
    uint64_t id; /* in this process, 1, 2, 3 ... */
    struct wire control;
    int64_t since;      /* in this state */
    int64_t ended_at;   /* its pidfd was ready, or it was killed; 0: neither */
    bool hello;         /* it was heard of */
    int64_t told_grace; /* with the cancel of its task, which was sent; else -1 */
    bool killed;        /* by us */
    bool released;      /* it was told that nothing more comes */
    bool status_known;
    int status; /* wait(2)'s, -1: lost */
    /* Captured output that it was not yet told to be taken, its last line's part of that, and
     * when it is told of so much although the reader is full; 0: when there is more to tell. */
    size_t output_owed, output_last;
    int64_t output_at;
};

/* ---- making it ------------------------------------------------------------------ */

struct process *subhost__process_new(subhost_interp *interp)
{
    struct process *process = calloc(1, sizeof *process);
    if (process) {
        process->interp = interp; /* which owns it */
        process->pidfd.fd = process->control.source.fd = -1;
        process->id = interp->serial;
    }
    return process;
}

void subhost__process_free(struct process *process)
{
    if (!process)
        return;
    subhost_host *host = process->interp->host;
    subhost__wire_close(&process->control, host);
    if (process->pidfd.fd >= 0) {
        subhost__loop_unwatch(host, &process->pidfd);
        subhost__fd_close(process->pidfd.fd);
    }
    free(process);
}

struct process *subhost__process_find(subhost_host *host, uint64_t id)
{
    struct process *found = NULL;
    pthread_mutex_lock(&host->lock);
    for (subhost_interp *i = host->interps; i && !found; i = i->next) {
        if (i->process && i->process->id == id)
            found = i->process;
    }
    pthread_mutex_unlock(&host->lock);
    return found;
}

static void enter(struct process *process, enum process_state state)
{
    process->state = state;
    process->since = subhost__now();
}

static bool set_state(subhost_interp *interp, enum interp_state state)
{
    pthread_mutex_lock(&interp->lock);
    bool ok = subhost__interp_enter(interp, state);
    pthread_mutex_unlock(&interp->lock);
    return ok;
}

/* ---- the fork ------------------------------------------------------------------- */

void subhost__process_not_forked(struct process *process, const char *why)
{
    subhost_interp *interp = process->interp;
    char *text = NULL;
    if (asprintf(&text, "the process could not be forked: %s", why) < 0)
        text = NULL;
    pthread_mutex_lock(&interp->lock);
    subhost__interp_enter(interp, INTERP_FAILED);
    interp->driver_gone = true; /* it has none: nothing to wait for */
    free(interp->failure);
    interp->failure = text ? strdup(text) : NULL;
    pthread_cond_broadcast(&interp->work);
    pthread_mutex_unlock(&interp->lock);
    NOTE(interp, INTERP_FAILED, TRAIL_TEXT(NAME, interp->name),
         TRAIL_TEXT(WHY, text ? text : "out of memory"));
    subhost__task_end_queue(interp, SUBHOST_FAILED, -1, text ? text : "out of memory");
    free(text);
    enter(process, PROCESS_ENDED);
}

static void ask(struct process *process)
{
    subhost_interp *interp = process->interp;
    subhost_host *host = interp->host;
    int stdio[3] = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO};
    enter(process, PROCESS_ASKED);
    if (interp->capture) {
        stdio[1] = subhost__capture_fd(interp->capture, 0);
        stdio[2] = subhost__capture_fd(interp->capture, 1);
    }
    if (host->up) {
        if (!subhost__child_ask_fork(host, process->id, interp->name, stdio))
            subhost__process_not_forked(process, errno == EPIPE
                                                     ? "the root of the tree is gone"
                                                     : strerror(errno));
        return;
    }
    char why[240];
    if (!subhost__children_room(host, why, sizeof why)) {
        subhost__process_not_forked(process, why);
        return;
    }
    subhost__signals_keep_children(host);
    struct fork_request *request = subhost__fork_request_new();
    int error = ENOMEM;
    if (request) {
        request->process = process;
        request->id = process->id;
        snprintf(request->name, sizeof request->name, "%s", interp->name);
        request->own_stdio = interp->capture != NULL;
        for (int i = 0; request->own_stdio && i < 3; i++)
            request->stdio[i] = subhost__fd_dup(stdio[i]);
        error = subhost__forkserver_submit(host, request);
    }
    if (error) {
        subhost__fork_request_free(request);
        subhost__process_not_forked(process, strerror(error));
    }
}

static void pidfd_ready(struct source *source, uint32_t events)
{
    struct process *process = (struct process *)source;
    (void)events;
    process->ended_at = subhost__now();
    /* Whatever it sent is in the wire, whose end comes with it. */
    subhost__loop_unwatch(process->interp->host, source);
}

void subhost__process_forked(struct process *process, pid_t pid, int control, int pidfd)
{
    subhost_interp *interp = process->interp;
    subhost_host *host = interp->host;
    process->pidfd = (struct source){.fd = pidfd, .ready = pidfd_ready};
    atomic_store(&interp->pid, pid);
    if (interp->capture)
        subhost__capture_given(interp->capture);
    int error = subhost__wire_open(&process->control, host, control);
    if (!error)
        error = subhost__loop_watch(host, &process->pidfd, EPOLLIN);
    pthread_mutex_lock(&host->lock);
    host->stats.interpreters_created++;
    pthread_mutex_unlock(&host->lock);
    NOTE(interp, INTERP_CREATED, TRAIL_TEXT(NAME, interp->name),
         TRAIL_TEXT(ISOLATION, "process"), TRAIL_NUMBER(CHILD, pid));
    enter(process, PROCESS_ALIVE);
    set_state(interp, INTERP_IDLE);
    if (error)
        subhost__process_kill(process);
}

void subhost__process_reaped(struct process *process, int status)
{
    process->status = status;
    process->status_known = true;
}

void subhost__process_kill(struct process *process)
{
    if (process->state != PROCESS_ALIVE || process->killed)
        return;
    NOTE(process->interp, KILLED, TRAIL_NUMBER(CHILD, process->interp->pid),
         TRAIL_NUMBER(AFTER, subhost__cancel_age(process->interp)));
    process->killed = true;
    if (process->pidfd.fd >= 0)
        syscall(SYS_pidfd_send_signal, process->pidfd.fd, SIGKILL, NULL, 0);
    if (!process->ended_at)
        process->ended_at = subhost__now();
}

void subhost__process_dump(struct process *process)
{
    if (process->state == PROCESS_ALIVE)
        subhost__wire_send(&process->control, FRAME_DUMP, 0, NULL, 0, NULL, 0);
}

/* ---- tasks ---------------------------------------------------------------------- */

/* The next task goes to the child; true: one did. */
static bool send_task(struct process *process)
{
    subhost_interp *interp = process->interp;
    pthread_mutex_lock(&interp->lock);
    subhost_task *task = subhost__task_begin(interp);
    bool last = interp->releasing && !interp->queue;
    pthread_mutex_unlock(&interp->lock);
    if (!task)
        return false;
    pthread_mutex_lock(&interp->host->lock);
    interp->host->stats.tasks_started += !task->anew;
    pthread_mutex_unlock(&interp->host->lock);
    subhost__task_note_start(task);
    struct pack pack = {0};
    subhost__task_pack(&pack, task, last);
    process->released = last;
    process->told_grace = -1;
    if (pack.failed || !subhost__wire_send(&process->control, FRAME_RUN, task->id,
                                           pack.data, pack.size, NULL, 0))
        subhost__process_kill(process); /* or it is dead already: its end says it all */
    free(pack.data);
    return true;
}

/* The running task's end; the result, if any, is the task's already. */
static void finish_task(struct process *process, const subhost_outcome *outcome,
                        const char *detail)
{
    subhost_interp *interp = process->interp;
    pthread_mutex_lock(&interp->lock);
    subhost_task *task = interp->current;
    subhost__interp_enter(interp, INTERP_FINISHING);
    subhost__interp_enter(interp, INTERP_IDLE);
    interp->current = NULL;
    pthread_mutex_unlock(&interp->lock);
    subhost__cancel_reset(interp);
    if (!task)
        return;
    subhost__task_note_name(interp, task);
    subhost__task_finish(task, outcome, detail);
    atomic_store(&interp->running_task, 0);
    subhost_task_release(task);
}

static void on_ended(struct process *process, const struct frame *frame)
{
    subhost_interp *interp = process->interp;
    subhost_task *task = interp->current; /* written by this thread only */
    struct unpack unpack = {.data = frame->data, .size = frame->size};
    subhost_outcome outcome = {.size = sizeof outcome};
    outcome.kind = (enum subhost_outcome_kind)subhost__unpack_u64(&unpack);
    outcome.code = (int)subhost__unpack_u64(&unpack);
    outcome.cancel_reason = (int)subhost__unpack_u64(&unpack);
    outcome.status = (int)subhost__unpack_u64(&unpack);
    int64_t latency = (int64_t)subhost__unpack_u64(&unpack);
    char *detail = subhost__unpack_string(&unpack);
    size_t size;
    const unsigned char *result = subhost__unpack_bytes(&unpack, &size);
    struct buffer_list returned = {0};
    bool complete = subhost__buffer_list_unpack(&unpack, &returned);
    if (!task || task->id != (unsigned)frame->id || unpack.failed) {
        subhost__buffer_list_clear(&returned);
        free(detail);
        return;
    }
    if (size > 0) {
        task->result = malloc(size);
        task->result_size = task->result ? size : 0;
        if (task->result)
            memcpy(task->result, result, size);
    }
    task->returned = returned;
    if (!unpack.failed && (!complete || task->result_size < size)) {
        free(detail);
        detail = strdup("there is no memory for its result");
        outcome.kind = SUBHOST_FAILED;
    }
    if (outcome.cancel_reason >= 0 && latency > 0)
        subhost__cancel_note_latency(interp->host, latency);
    finish_task(process, &outcome, detail);
    free(detail);
}

/* What the child's programs want of signals: the host takes these, and passes them on. Not
 * SIGCHLD: their children are not ours, and ours would lose their exit status. */
static void on_signals(struct process *process, const struct frame *frame)
{
    subhost_interp *interp = process->interp;
    struct unpack unpack = {.data = frame->data, .size = frame->size};
    const uint64_t passed = ~SIGNAL_BIT(SIGCHLD);
    uint64_t handled = subhost__unpack_u64(&unpack) & passed;
    uint64_t ignored = subhost__unpack_u64(&unpack) & passed;
    uint64_t by_default = subhost__unpack_u64(&unpack) & passed;
    uint64_t changed =
        (handled ^ atomic_exchange(&interp->signals_handled, handled)) |
        (ignored ^ atomic_exchange(&interp->signals_ignored, ignored)) |
        (by_default ^ atomic_exchange(&interp->signals_default, by_default));
    for (int signo = 1; signo < SUBHOST_NSIG; signo++) {
        if (changed & SIGNAL_BIT(signo))
            subhost__signals_update(interp->host, signo);
    }
}

void subhost__process_signal(struct process *process, int signo)
{
    if (process->state == PROCESS_ALIVE)
        subhost__wire_send(&process->control, FRAME_SIGNAL, (uint64_t)signo, NULL, 0,
                           NULL, 0);
}

/* Only then it sends more: a reader that is full has who writes wait, at whatever depth. */
static void tell_taken(struct process *process, size_t size)
{
    if (size > 0 &&
        subhost__wire_send(&process->control, FRAME_TAKEN, size, NULL, 0, NULL, 0))
        process->output_owed -= size;
}

/* A reader that was full is given one more line from time to time: that tells. Returns when to
 * look again. */
static int64_t try_output(struct process *process, int64_t now)
{
    const subhost_host *host = process->interp->host;
    if (!process->output_at || now < process->output_at)
        return process->output_at ? process->output_at : SUBHOST_FOREVER;
    size_t owed = process->output_owed, last = process->output_last;
    bool all = last > owed || (host->up && subhost__child_output_room(host));
    if (all || !host->up)
        tell_taken(process, all ? owed : last);
    process->output_at = process->output_owed > 0 ? now + CAPTURE_PAUSE : 0;
    return process->output_at ? process->output_at : SUBHOST_FOREVER;
}

static void on_output(struct process *process, const struct frame *frame)
{
    struct unpack unpack = {.data = frame->data, .size = frame->size};
    char *name = subhost__unpack_string(&unpack);
    size_t size;
    const unsigned char *text = subhost__unpack_bytes(&unpack, &size);
    enum subhost_output_answer answer = SUBHOST_OUTPUT_TAKEN;
    if (name && text)
        answer = subhost__capture_line(process->interp->host, name, (int)frame->id,
                                       (const char *)text, size);
    free(name);
    process->output_owed += frame->size;
    process->output_last = frame->size;
    if (answer == SUBHOST_OUTPUT_FULL) {
        if (!process->output_at)
            process->output_at = subhost__now() + CAPTURE_PAUSE;
        return;
    }
    process->output_at = 0;
    if (process->output_owed >= OUTPUT_WINDOW / 4)
        tell_taken(process, process->output_owed);
}

static void hear(struct process *process)
{
    subhost_host *host = process->interp->host;
    struct frame frame;
    while (subhost__wire_take(&process->control, &frame)) {
        for (unsigned i = 0; i < frame.n_fds; i++)
            subhost__fd_close(frame.fds[i]); /* nothing that we expect */
        process->hello = true;
        if (frame.type == FRAME_FAILING && process->interp->current)
            subhost__task_failing(process->interp->current);
        else if (frame.type == FRAME_ENDED)
            on_ended(process, &frame);
        else if (frame.type == FRAME_SIGNALS)
            on_signals(process, &frame);
        else if (frame.type == FRAME_OUTPUT)
            on_output(process, &frame);
        else if (frame.type == FRAME_TRAIL)
            subhost__trail_pass(host->trail, (const char *)frame.data, frame.size,
                                frame.id);
    }
}

/* ---- cancels and the end ----------------------------------------------------------- */

/* Deadline, cancel, kill; when to look again. */
static int64_t climb(struct process *process, int64_t now)
{
    subhost_interp *interp = process->interp;
    struct cancel *cancel = &interp->cancel;
    subhost_task *task = interp->current;
    if (!atomic_load(&cancel->requested)) {
        if (now < task->deadline)
            return task->deadline;
        subhost__cancel_request(interp, task, SUBHOST_BY_DEADLINE, NULL);
    }
    pthread_mutex_lock(&interp->lock);
    int64_t end = cancel->requested_at + cancel->grace + KILL_DELAY;
    struct pack pack = {0};
    subhost__pack_u64(&pack, (uint64_t)cancel->reason);
    /* When it has become shorter it is sent again: what is left now. */
    int64_t grace = cancel->grace, left = grace - (now - cancel->requested_at);
    subhost__pack_u64(&pack, (uint64_t)(left > 0 ? left : 0));
    subhost__pack_string(&pack, cancel->text);
    pthread_mutex_unlock(&interp->lock);
    if (process->told_grace != grace) {
        process->told_grace = grace;
        subhost__wire_send(&process->control, FRAME_CANCEL, task->id, pack.data,
                           pack.size, NULL, 0);
    }
    free(pack.data);
    if (now >= end)
        subhost__process_kill(process);
    return process->killed ? SUBHOST_FOREVER : end;
}

/* What the exit of the child says of the task that it had not ended. */
static void conclude(struct process *process, const char *why)
{
    subhost_interp *interp = process->interp;
    struct cancel *cancel = &interp->cancel;
    subhost_outcome outcome = {.size = sizeof outcome, .cancel_reason = -1};
    int status = process->status;
    char text[160];
    if (atomic_load(&cancel->requested))
        outcome.cancel_reason = (int)cancel->reason;
    if (status < 0 && !process->killed) {
        outcome.kind = SUBHOST_FAILED; /* nobody knows whether it has failed */
        outcome.code = -1;
        outcome.status = STATUS_UNKNOWN;
    } else if (status < 0) {
        outcome.kind = SUBHOST_KILLED;
        outcome.code = SIGKILL;
        outcome.status = 137;
    } else if (WIFSIGNALED(status)) {
        outcome.kind = SUBHOST_KILLED;
        outcome.code = WTERMSIG(status);
        outcome.status = 128 + outcome.code;
    } else {
        outcome.kind = SUBHOST_EXITED;
        outcome.code = outcome.status = WEXITSTATUS(status);
    }
    snprintf(text, sizeof text, "process %d %s%s", (int)interp->pid, why,
             process->hello ? "" : ", before it said hello");
    finish_task(process, &outcome, text);
}

/* For a task that comes too late: it would only hear that the interpreter has ended. */
static void keep_reason(const struct process *process, const char *why)
{
    subhost_interp *interp = process->interp;
    char *text;
    if (asprintf(&text, "process %d %s%s", (int)interp->pid, why,
                 process->hello ? "" : ", before it said hello") < 0)
        return;
    pthread_mutex_lock(&interp->lock);
    free(interp->failure);
    interp->failure = text;
    pthread_mutex_unlock(&interp->lock);
}

static void end(struct process *process, const char *why)
{
    subhost_interp *interp = process->interp;
    subhost_host *host = interp->host;
    keep_reason(process, why);
    hear(process); /* what it still had to say */
    subhost__capture_finish(interp->capture);
    if (interp->current)
        conclude(process, why);
    subhost__task_end_queue(interp, SUBHOST_FAILED, -1, "its process has ended");
    subhost__wire_close(&process->control, host);
    pthread_mutex_lock(&interp->lock);
    interp->releasing = true;
    subhost__interp_enter(interp, INTERP_CLOSING);
    subhost__interp_enter(interp, INTERP_ENDED);
    interp->driver_gone = true;
    pthread_cond_broadcast(&interp->work);
    pthread_mutex_unlock(&interp->lock);
    NOTE(interp, INTERP_ENDED, TRAIL_TEXT(NAME, interp->name),
         TRAIL_NUMBER(CHILD, interp->pid), TRAIL_TEXT(WHY, why));
    pthread_mutex_lock(&host->lock);
    host->stats.interpreters_ended++;
    pthread_mutex_unlock(&host->lock);
    subhost__loop_unwatch(host, &process->pidfd);
    subhost__fd_close(process->pidfd.fd);
    process->pidfd.fd = -1;
    enter(process, PROCESS_ENDED);
}

/* Once its pidfd was ready, or it was killed. */
static int64_t await_status(struct process *process, int64_t now)
{
    char why[80];
    int64_t patience = process->ended_at + STATUS_TIMEOUT;
    bool root_gone = !process->status_known && now >= patience;
    if (root_gone)
        process->status = -1;
    if (!process->status_known && !root_gone)
        return patience;
    if (!process->control.ended && !root_gone && now < patience)
        return patience; /* the end of the wire comes with the next round */
    if (process->status < 0)
        snprintf(why, sizeof why, "ended; its exit status is lost%s",
                 root_gone ? "" : ": SIGCHLD is ignored, or another wait had it");
    else if (WIFSIGNALED(process->status))
        snprintf(why, sizeof why, "was ended by signal %d", WTERMSIG(process->status));
    else
        snprintf(why, sizeof why, "exited with status %d", WEXITSTATUS(process->status));
    end(process, why);
    return SUBHOST_FOREVER;
}

static int64_t tick_alive(struct process *process, int64_t now)
{
    subhost_interp *interp = process->interp;
    hear(process);
    if (process->status_known && !process->ended_at)
        process->ended_at = now;
    if (process->ended_at)
        return await_status(process, now);
    if (!interp->current && !send_task(process)) {
        pthread_mutex_lock(&interp->lock);
        bool release = interp->releasing && !interp->queue && !process->released;
        pthread_mutex_unlock(&interp->lock);
        if (release) {
            process->released = true;
            shutdown(process->control.source.fd, SHUT_WR); /* it sees our end, and ends */
        }
    }
    int64_t again = try_output(process, now);
    int64_t at = interp->current ? climb(process, now) : SUBHOST_FOREVER;
    return at < again ? at : again;
}

int64_t subhost__process_tick(subhost_interp *interp, int64_t now)
{
    struct process *process = interp->process;
    switch (process->state) {
    case PROCESS_NEW:
        if (subhost__interp_is_unwanted(interp))
            subhost__process_not_forked(process, "its task was cancelled before");
        else
            ask(process);
        return now + FORK_TIMEOUT;
    case PROCESS_ASKED:
        if (now < process->since + FORK_TIMEOUT)
            return process->since + FORK_TIMEOUT;
        subhost__children_forget(interp->host, process);
        subhost__process_not_forked(process,
                                    "the forkserver thread has not answered for 60 s");
        break;
    case PROCESS_ALIVE:
        return tick_alive(process, now);
    case PROCESS_ENDED:
        break;
    }
    return SUBHOST_FOREVER;
}
