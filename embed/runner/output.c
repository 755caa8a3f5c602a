/* Lines of workers and tasks, with their names, and the runner's own, to stdout and stderr.
 *
 * They are queued and written only as far as that does not wait: a reader that is slow or
 * gone must not hold up the main thread, which signals and deadlines need. What nobody
 * reads is kept up to a limit, and then dropped and counted. */
#define _GNU_SOURCE
#include "output.h"
#include "clock.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define QUEUE_MAX ((size_t)16 << 20)
/* What poll(2) promises to a pipe's writer: this much, at least, does not wait. */
#define WRITE_SIZE ((size_t)4096)
/* With a full queue a reader is waited for so long, by who writes; of one that takes nothing
 * meanwhile the rest is dropped, until it takes some again. */
#define PATIENCE SUBHOST_MSEC(5000)
/* What the end of the process waits, in total, for readers of what was not captured: of the
 * runner's own lines, and of what the C library still holds. */
#define LAST_PATIENCE SUBHOST_MSEC(1000)

struct queue {
    char *text;
    size_t first, size, room; /* `size` bytes from `first` on */
    unsigned long long dropped;
    int64_t full_since; /* nothing was taken since, and it is full; 0: neither */
    bool captured;      /* it had lines of programs, which are not to be lost */
    bool gone;          /* nobody will ever read it */
    int error;          /* that said so */
};

static struct queue queues[2];
static int64_t last_patience = LAST_PATIENCE; /* what is left of it */

static void append(struct queue *queue, const char *text, size_t size)
{
    if (queue->first > 0 && queue->first + queue->size + size > queue->room) {
        memmove(queue->text, queue->text + queue->first, queue->size);
        queue->first = 0;
    }
    if (queue->size + size > queue->room) {
        size_t room = 2 * (queue->size + size);
        char *grown = realloc(queue->text, room);
        if (!grown)
            return;
        queue->text = grown;
        queue->room = room;
    }
    memcpy(queue->text + queue->first + queue->size, text, size);
    queue->size += size;
}

static void append_line(struct queue *queue, const char *name, const char *text,
                        size_t size)
{
    append(queue, name, strlen(name));
    append(queue, ": ", 2);
    append(queue, text, size);
    append(queue, "\n", 1);
}

static void write_some(struct queue *queue, int fd)
{
    while (queue->size > 0 && !queue->gone) {
        struct pollfd ready = {.fd = fd, .events = POLLOUT};
        if (poll(&ready, 1, 0) <= 0)
            return;
        size_t size = queue->size < WRITE_SIZE ? queue->size : WRITE_SIZE;
        ssize_t n = write(fd, queue->text + queue->first, size);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            return;
        if (n < 0) {
            queue->gone = true;
            queue->error = errno;
            queue->size = 0;
            return;
        }
        queue->first += (size_t)n;
        queue->size -= (size_t)n;
        queue->full_since = 0;
    }
    if (queue->size == 0)
        queue->first = 0;
}

bool output_write(void)
{
    for (int i = 0; i < 2; i++) {
        struct queue *queue = &queues[i];
        write_some(queue, i + 1);
        if (queue->dropped && queue->size < QUEUE_MAX / 2 && !queue->gone) {
            char text[80];
            snprintf(text, sizeof text, "%llu lines dropped: nobody has read them",
                     queue->dropped);
            queue->dropped = 0;
            append_line(queue, "subhost", text, strlen(text));
        }
    }
    return queues[0].size > 0 || queues[1].size > 0;
}

int output_line(subhost_host *host, const subhost_output *output, void *data)
{
    struct queue *queue = &queues[output->stream == 2];
    (void)host, (void)data;
    queue->captured = true;
    if (queue->gone)
        return SUBHOST_OUTPUT_CLOSED;
    if (queue->size < QUEUE_MAX) {
        append_line(queue, output->name, output->text, output->length);
        write_some(queue, output->stream);
        return SUBHOST_OUTPUT_TAKEN;
    }
    write_some(queue, output->stream);
    if (!queue->full_since)
        queue->full_since = clock_now();
    if (clock_now() - queue->full_since >= PATIENCE || queue->size >= 2 * QUEUE_MAX) {
        queue->dropped++;
        return SUBHOST_OUTPUT_TAKEN;
    }
    /* What has been read out of the pipe is kept; little more comes for now. */
    append_line(queue, output->name, output->text, output->length);
    return SUBHOST_OUTPUT_FULL;
}

static size_t left_over(void) { return queues[0].size + queues[1].size; }

/* As long as some is taken within `patience` each time, and until `deadline`; false: some is
 * left. */
static bool write_until(int64_t deadline, int64_t patience)
{
    int64_t taken_at = clock_now();
    for (size_t before = left_over(); output_write(); before = left_over()) {
        if (left_over() < before)
            taken_at = clock_now();
        struct pollfd ready[2] = {
            {.fd = queues[0].size > 0 ? STDOUT_FILENO : -1, .events = POLLOUT},
            {.fd = queues[1].size > 0 ? STDERR_FILENO : -1, .events = POLLOUT}};
        int64_t end = taken_at + patience < deadline ? taken_at + patience : deadline;
        int64_t left = end - clock_now();
        if (left <= 0 || poll(ready, 2, (int)(left / 1000000 + 1)) == 0)
            return false;
    }
    return true;
}

/* The runner's own lines, for what is left of the last patience. */
static void write_last(void)
{
    int64_t start = clock_now();
    write_until(start + last_patience, last_patience);
    last_patience -= clock_now() - start;
}

void output_say(const char *format, ...)
{
    struct queue *queue = &queues[1];
    static bool registered;
    va_list args;
    char *text;
    va_start(args, format);
    int size = vasprintf(&text, format, args);
    va_end(args);
    if (size < 0)
        return;
    if (!queue->gone)
        append(queue, text, (size_t)size);
    free(text);
    write_some(queue, STDERR_FILENO);
    if (queue->size > 0 && !registered)
        registered = atexit(write_last) == 0;
}

bool output_finish(int64_t limit)
{
    bool complete = true;
    if (queues[0].captured || queues[1].captured)
        write_until(limit ? clock_now() + limit : INT64_MAX, PATIENCE);
    for (int i = 0; i < 2; i++) {
        if (!queues[i].captured || (!queues[i].error && !queues[i].size))
            continue;
        complete = false;
        if (queues[i].error && queues[i].error != EPIPE)
            output_say("subhost: %s: %s\n", i == 0 ? "stdout" : "stderr",
                       strerror(queues[i].error));
        else if (queues[i].size > 0)
            output_say(
                "subhost: %zu bytes of captured output are lost: nobody reads them\n",
                queues[i].size);
        queues[i].size = 0;
    }
    write_last();
    return complete;
}

/* Its lock may be a thread's that waits for the same reader. */
static bool flush_now(FILE *stream)
{
    if (__fpending(stream) == 0)
        return true;
    struct pollfd ready = {.fd = fileno(stream), .events = POLLOUT};
    int64_t start = clock_now();
    bool can =
        poll(&ready, 1, last_patience > 0 ? (int)(last_patience / 1000000) : 0) > 0;
    last_patience -= clock_now() - start;
    if (!can || ftrylockfile(stream) != 0)
        return false;
    fflush_unlocked(stream);
    funlockfile(stream);
    return true;
}

bool output_flush(void)
{
    bool flushed = flush_now(stdout);
    return flush_now(stderr) && flushed;
}
