/* Captured output: see capture.h. */
#define _GNU_SOURCE
#include "capture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "child.h"
#include "fd.h"
#include "interp.h"

/* A longer line comes in pieces of this size. */
#define LINE_MAX_SIZE ((size_t)64 << 10)
/* Read in one round of the loop, which has others to listen to. */
#define ROUND_SIZE ((size_t)1 << 20)
/* Read after a pause, to see whether the reader takes lines again. */
#define TRIAL_SIZE ((size_t)512)

struct stream {
    struct source source; /* first; the end to read from */
    struct capture *capture;
    int number; /* 1: stdout, 2: stderr */
    int write_fd;
    bool paused; /* its reader is full: not read for CAPTURE_PAUSE */
    bool full;   /* its reader was, when it got the last line */
    size_t size;
    char line[LINE_MAX_SIZE];
};

struct capture {
    subhost_interp *interp;
    struct stream streams[2];
};

enum subhost_output_answer subhost__capture_line(subhost_host *host, const char *name,
                                                 int stream, const char *text,
                                                 size_t size)
{
    if (host->up)
        return subhost__child_pass_output(host, name, stream, text, size)
                   ? SUBHOST_OUTPUT_TAKEN
                   : SUBHOST_OUTPUT_FULL;
    subhost_output output = {.size = sizeof output,
                             .name = name,
                             .stream = stream,
                             .text = text,
                             .length = size};
    if (!host->options.on_output)
        return SUBHOST_OUTPUT_TAKEN;
    return (enum subhost_output_answer)host->options.on_output(
        host, &output, host->options.on_output_data);
}

static void close_reader(struct stream *stream)
{
    if (stream->source.fd < 0)
        return;
    subhost__loop_unwatch(stream->capture->interp->host, &stream->source);
    subhost__fd_close(stream->source.fd);
    stream->source.fd = -1;
}

static void put_line(struct stream *stream)
{
    subhost_interp *interp = stream->capture->interp;
    char name[128];
    pthread_mutex_lock(&interp->lock);
    /* Between tasks it is still the last one's. */
    const char *known = interp->current     ? interp->current->name
                        : interp->last_task ? interp->last_task
                                            : interp->name;
    snprintf(name, sizeof name, "%s", known);
    pthread_mutex_unlock(&interp->lock);
    switch (subhost__capture_line(interp->host, name, stream->number, stream->line,
                                  stream->size)) {
    case SUBHOST_OUTPUT_TAKEN:
        stream->full = false;
        break;
    case SUBHOST_OUTPUT_FULL:
        stream->full = stream->paused = true;
        break;
    case SUBHOST_OUTPUT_CLOSED:
        close_reader(stream);
        break;
    }
    stream->size = 0;
}

static void take(struct stream *stream, const char *text, size_t size)
{
    while (size > 0) {
        /* Not before it is known to go on: this may be all of the line but its end. */
        if (stream->size == sizeof stream->line && *text != '\n')
            put_line(stream);
        const char *newline = memchr(text, '\n', size);
        size_t length = newline ? (size_t)(newline - text) : size;
        size_t room = sizeof stream->line - stream->size;
        if (length > room)
            length = room;
        memcpy(stream->line + stream->size, text, length);
        stream->size += length;
        text += length;
        size -= length;
        bool at_end = newline && text == newline;
        if (at_end) {
            text++;
            size--;
        }
        if (at_end)
            put_line(stream);
    }
}

static void drain(struct stream *stream, size_t limit, bool at_end)
{
    static char buffer[LINE_MAX_SIZE]; /* the main thread's */
    for (size_t done = 0; done < limit && stream->source.fd >= 0 && !stream->paused;) {
        size_t most = stream->full && !at_end ? TRIAL_SIZE : sizeof buffer;
        ssize_t n = read(stream->source.fd, buffer, most);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return; /* EAGAIN: nothing more for now */
        if (n == 0) {
            close_reader(stream);
            return;
        }
        take(stream, buffer, (size_t)n);
        done += (size_t)n;
    }
}

static void stream_ready(struct source *source, uint32_t events)
{
    struct stream *stream = (struct stream *)source;
    subhost_host *host = stream->capture->interp->host;
    (void)events;
    drain(stream, ROUND_SIZE, false);
    if (!stream->paused || stream->source.fd < 0)
        return;
    subhost__loop_unwatch(host, source);
    if (!host->captures_resume_at)
        host->captures_resume_at = subhost__now() + CAPTURE_PAUSE;
}

void subhost__capture_resume(struct capture *capture)
{
    subhost_host *host = capture ? capture->interp->host : NULL;
    if (host && host->up && !subhost__child_output_room(host)) {
        host->captures_resume_at = subhost__now() + CAPTURE_PAUSE;
        return;
    }
    for (int i = 0; capture && i < 2; i++) {
        struct stream *stream = &capture->streams[i];
        if (stream->paused && stream->source.fd >= 0)
            subhost__loop_watch(host, &stream->source, EPOLLIN);
        stream->paused = false;
    }
}

static int open_stream(struct capture *capture, int number)
{
    struct stream *stream = &capture->streams[number - 1];
    int fds[2];
    *stream = (struct stream){.capture = capture, .number = number, .write_fd = -1};
    stream->source = (struct source){.fd = -1, .ready = stream_ready};
    if (pipe2(fds, O_CLOEXEC) != 0)
        return errno;
    stream->source.fd = subhost__fd_take(fds[0]);
    stream->write_fd = subhost__fd_take(fds[1]);
    if (stream->source.fd < 0 || stream->write_fd < 0)
        return EMFILE;
    /* Our end only: writers wait while the pipe is full, as they do with any. */
    if (fcntl(stream->source.fd, F_SETFL, O_NONBLOCK) != 0)
        return errno;
    return subhost__loop_watch(capture->interp->host, &stream->source, EPOLLIN);
}

struct capture *subhost__capture_new(subhost_interp *interp)
{
    struct capture *capture = malloc(sizeof *capture);
    if (!capture)
        return NULL;
    capture->interp = interp;
    capture->streams[1].source = (struct source){.fd = -1};
    capture->streams[1].write_fd = -1;
    int error = open_stream(capture, 1);
    if (!error)
        error = open_stream(capture, 2);
    if (error) {
        subhost__capture_free(capture);
        errno = error;
        return NULL;
    }
    return capture;
}

int subhost__capture_fd(const struct capture *capture, int stream)
{
    return capture->streams[stream].write_fd;
}

void subhost__capture_given(struct capture *capture)
{
    for (int i = 0; i < 2; i++) {
        subhost__fd_close(capture->streams[i].write_fd);
        capture->streams[i].write_fd = -1;
    }
}

void subhost__capture_finish(struct capture *capture)
{
    for (int i = 0; capture && i < 2; i++) {
        struct stream *stream = &capture->streams[i];
        bool unwatched = stream->paused;
        /* Not without a bound: a process that it left behind may write for ever. */
        for (int round = 0; round < 64; round++) {
            stream->paused = false; /* it is the end: no writer is to wait */
            drain(stream, ROUND_SIZE, true);
            if (!stream->paused)
                break;
        }
        if (stream->size > 0)
            put_line(stream);
        stream->paused = unwatched; /* to be resumed, if there is more to come */
    }
}

void subhost__capture_free(struct capture *capture)
{
    if (!capture)
        return;
    subhost__capture_given(capture);
    for (int i = 0; i < 2; i++) {
        struct stream *stream = &capture->streams[i];
        if (stream->source.fd >= 0)
            subhost__loop_unwatch(capture->interp->host, &stream->source);
        subhost__fd_close(stream->source.fd);
    }
    free(capture);
}
