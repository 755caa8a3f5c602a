/* Stack dumps: the Python stacks of all threads of all hosted interpreters.
 *
 * faulthandler knows one interpreter, and dumps from a signal handler while the others
 * run. Here each interpreter is asked through its channel: a busy one answers between two
 * bytecodes, a blocked one from inside its interruptible call, and nobody is stopped. One
 * that does not answer (C code that keeps its GIL) is shown as the kernel sees it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "interp.h"
#include "process.h"

#define ANSWER_TIMEOUT SUBHOST_MSEC(100)
/* How long a dump may wait, in total, for who reads it: it is the main thread that waits. */
#define READER_TIMEOUT SUBHOST_MSEC(100)
/* What poll(2) promises to a pipe's writer: this much, at least, does not wait. */
#define WRITE_SIZE ((size_t)4096)
#define MAX_FRAMES 200

/* One interpreter's part of a dump; freed by the last of the asker and the answerer. */
struct dump {
    atomic_int refs;
    subhost_interp *interp;
    int fd;
    atomic_bool done;
    char *text; /* what the interpreter answered, owned */
    size_t size;
};

static void unref(struct dump *dump)
{
    if (atomic_fetch_sub(&dump->refs, 1) != 1)
        return;
    subhost__interp_unref(dump->interp);
    free(dump->text);
    free(dump);
}

/* ---- in the interpreter --------------------------------------------------------- */

static void print_frames(FILE *out, PyThreadState *tstate)
{
    PyFrameObject *frame = PyThreadState_GetFrame(tstate);
    if (!frame)
        fputs("  (no Python frame)\n", out);
    for (int depth = 0; frame; depth++) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        const char *file = PyUnicode_AsUTF8(code->co_filename);
        const char *name = PyUnicode_AsUTF8(code->co_qualname);
        if (depth < MAX_FRAMES)
            fprintf(out, "  File \"%s\", line %d in %s\n", file ? file : "?",
                    PyFrame_GetLineNumber(frame), name ? name : "?");
        else if (depth == MAX_FRAMES)
            fputs("  ...\n", out);
        PyFrameObject *back = PyFrame_GetBack(frame);
        Py_DECREF(code);
        Py_DECREF(frame);
        frame = back;
    }
    PyErr_Clear();
}

static void answer(void *data)
{
    struct dump *dump = data;
    subhost_interp *interp = dump->interp;
    PyObject *outer = PyErr_GetRaisedException();
    FILE *out = open_memstream(&dump->text, &dump->size);
    /* Python frees nothing of another thread's while we hold the GIL. */
    PyThreadState *tstate = out ? subhost__thread_first_state(interp) : NULL;
    for (; tstate; tstate = PyThreadState_Next(tstate)) {
        struct thread *thread = subhost__thread_find(interp, tstate->thread_id);
        if (thread && thread->is_attendant)
            continue;
        fprintf(out, "Thread 0x%016lx", tstate->thread_id);
        if (thread)
            fprintf(out, " [tid %d%s]", (int)thread->tid,
                    thread->is_driver ? ", the program's main thread" : "");
        fputs(" (most recent call first):\n", out);
        print_frames(out, tstate);
    }
    if (out)
        fclose(out);
    PyErr_SetRaisedException(outer);
    atomic_store(&dump->done, true);
    subhost__loop_wake(interp->host);
    unref(dump);
}

/* ---- on the main thread --------------------------------------------------------- */

/* Where a dump goes. What its reader does not take in time is dropped. */
struct sink {
    int fd;
    int64_t deadline;
};

/* Of the last dump something was dropped: nobody reads there, and the next does not wait. */
static int unread_fd = -1;

static bool is_ready(const struct sink *sink)
{
    struct pollfd ready = {.fd = sink->fd, .events = POLLOUT};
    int64_t left = sink->fd == unread_fd ? 0 : sink->deadline - subhost__now();
    return poll(&ready, 1, left > 0 ? (int)(left / 1000000) : 0) > 0;
}

static void put(struct sink *sink, const char *text, size_t size)
{
    while (size > 0 && sink->fd >= 0) {
        if (!is_ready(sink)) {
            unread_fd = sink->fd;
            sink->fd = -1;
            return;
        }
        ssize_t n = write(sink->fd, text, size < WRITE_SIZE ? size : WRITE_SIZE);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            sink->fd = -1;
            return;
        }
        unread_fd = -1;
        text += n;
        size -= (size_t)n;
    }
}

static void put_format(struct sink *sink, const char *format, ...) SUBHOST_PRINTF(2, 3);
static void put_format(struct sink *sink, const char *format, ...)
{
    char buffer[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(buffer, sizeof buffer, format, args);
    va_end(args);
    if (n > 0)
        put(sink, buffer, (size_t)n < sizeof buffer ? (size_t)n : sizeof buffer - 1);
}

/* The first line of /proc/self/task/TID/NAME, "" when there is none. */
static void read_proc(pid_t tid, const char *name, char *buffer, size_t size)
{
    char path[64];
    buffer[0] = '\0';
    snprintf(path, sizeof path, "/proc/self/task/%d/%s", (int)tid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = read(fd, buffer, size - 1);
    buffer[n > 0 ? n : 0] = '\0';
    buffer[strcspn(buffer, "\n")] = '\0';
    close(fd);
}

static void put_native(struct sink *sink, subhost_interp *interp)
{
    put_format(sink,
               "(no safe point within 100 ms: C code that keeps the GIL, or a call that "
               "is not interruptible)\n");
    pthread_mutex_lock(&interp->threads_lock);
    for (struct thread *thread = interp->threads; thread; thread = thread->next) {
        char stat[512], wchan[64], syscall_line[128];
        if (thread->is_attendant)
            continue;
        read_proc(thread->tid, "stat", stat, sizeof stat);
        read_proc(thread->tid, "wchan", wchan, sizeof wchan);
        read_proc(thread->tid, "syscall", syscall_line, sizeof syscall_line);
        const char *state = strrchr(stat, ')');
        put_format(sink, "Thread tid %d: state %c, kernel function %s, system call %s\n",
                   (int)thread->tid, state && state[1] ? state[2] : '?',
                   *wchan ? wchan : "-", *syscall_line ? syscall_line : "-");
    }
    pthread_mutex_unlock(&interp->threads_lock);
}

static struct dump *ask(subhost_interp *interp)
{
    struct dump *dump = calloc(1, sizeof *dump);
    if (!dump)
        return NULL;
    atomic_init(&dump->refs, 2);
    dump->interp = interp;
    subhost__interp_ref(interp);
    if (!subhost__channel_put(&interp->channel, answer, dump)) {
        atomic_store(&dump->refs, 1);
        unref(dump);
        return NULL;
    }
    subhost__channel_ring(interp);
    subhost__thread_kick_all(interp);
    return dump;
}

/* Pokes until all have answered or the time is over, so that blocked threads answer too. */
static void wait_for(struct dump **dumps, size_t count, int64_t deadline)
{
    for (int round = 0;; round++) {
        bool waiting = false;
        for (size_t i = 0; i < count; i++) {
            if (!dumps[i] || atomic_load(&dumps[i]->done))
                continue;
            waiting = true;
            if (round % 25 != 5)
                continue;
            subhost__channel_ring(dumps[i]->interp);
            subhost__thread_kick_all(dumps[i]->interp);
            subhost__channel_call_attendant(dumps[i]->interp);
        }
        if (!waiting || subhost__now() >= deadline)
            return;
        usleep(200);
    }
}

/* The interpreter's headline; false when there is nothing to be said of it. */
static bool put_headline(struct sink *sink, subhost_interp *interp)
{
    char task[64] = "";
    pthread_mutex_lock(&interp->lock);
    enum interp_state state = interp->state;
    if (interp->current)
        snprintf(task, sizeof task, ", task %s", interp->current->name);
    pthread_mutex_unlock(&interp->lock);
    if (state == INTERP_ENDED || state == INTERP_FAILED)
        return false;
    put_format(sink, "Interpreter %u (%s, %s%s):\n", interp->serial, interp->name,
               subhost__interp_state_name(state), task);
    return true;
}

static bool is_reachable(subhost_interp *interp)
{
    enum interp_state state = atomic_load(&interp->state);
    if (interp->process)
        return false; /* it is asked over its wire */
    return state == INTERP_RUNNING || state == INTERP_FINISHING || state == INTERP_IDLE;
}

void subhost__stacks_request(subhost_host *host, int fd)
{
    int64_t deadline = subhost__now() + ANSWER_TIMEOUT;
    pthread_mutex_lock(&host->lock);
    subhost_interp *first = host->interps;
    pthread_mutex_unlock(&host->lock);
    /* The list shrinks on this thread only, and what grows at its head is not asked. */
    size_t count = 0;
    for (subhost_interp *interp = first; interp; interp = interp->next)
        count++;
    struct dump **dumps = calloc(count ? count : 1, sizeof *dumps);
    if (!dumps)
        return;
    /* All are asked first: one that does not answer must not use up the others' time. */
    size_t i = 0;
    for (subhost_interp *interp = first; interp; interp = interp->next, i++)
        dumps[i] = is_reachable(interp) ? ask(interp) : NULL;
    wait_for(dumps, count, deadline);
    struct sink sink = {.fd = fd, .deadline = subhost__now() + READER_TIMEOUT};
    i = 0;
    for (subhost_interp *interp = first; interp; interp = interp->next, i++) {
        bool answered = dumps[i] && atomic_load(&dumps[i]->done) && dumps[i]->text;
        if (put_headline(&sink, interp)) {
            if (interp->process)
                subhost__process_dump(interp->process); /* on its own stderr */
            else if (answered)
                put(&sink, dumps[i]->text, dumps[i]->size);
            else
                put_native(&sink, interp);
        }
        if (dumps[i])
            unref(dumps[i]);
    }
    free(dumps);
}

int subhost_dump_stacks(subhost_host *host, int fd, subhost_error **err)
{
    if (!subhost__host_is_open(host))
        return subhost__host_refuse(host, "subhost_dump_stacks", err);
    if (fd < 0)
        return subhost__fail(err, SUBHOST_EINVAL,
                             "subhost_dump_stacks: not a descriptor");
    if (!pthread_equal(pthread_self(), host->main_thread))
        return subhost__fail(err, SUBHOST_ETHREAD,
                             "subhost_dump_stacks: only on the main thread");
    subhost__stacks_request(host, fd);
    return 0;
}
