/* Lines of workers and tasks, with their names, to stdout and stderr.
 *
 * They are queued and written only as far as that does not wait: a reader that is slow or
 * gone must not hold up the main thread, which signals and deadlines need. What nobody
 * reads is kept up to a limit, and then dropped and counted. */
#define _GNU_SOURCE
#include "output.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define QUEUE_MAX ((size_t)16 << 20)
/* What poll(2) promises to a pipe's writer: this much, at least, does not wait. */
#define WRITE_SIZE ((size_t)4096)
/* With a full queue a reader is waited for so long, by who writes; of one that takes nothing
 * meanwhile the rest is dropped, until it takes some again. */
#define PATIENCE SUBHOST_MSEC(5000)

struct queue {
    char *text;
    size_t first, size, room; /* `size` bytes from `first` on */
    unsigned long long dropped;
    int64_t full_since; /* nothing was taken since, and it is full; 0: neither */
    bool gone;          /* nobody will ever read it */
    int error;          /* that said so */
};

static struct queue queues[2];

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void append(struct queue *queue, const char *text, size_t size)
{
    if (queue->first + queue->size + size > queue->room) {
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
    if (queue->gone)
        return SUBHOST_OUTPUT_CLOSED;
    if (queue->size < QUEUE_MAX) {
        append_line(queue, output->name, output->text, output->length);
        write_some(queue, output->stream);
        return SUBHOST_OUTPUT_TAKEN;
    }
    write_some(queue, output->stream);
    if (!queue->full_since)
        queue->full_since = now();
    if (now() - queue->full_since >= PATIENCE) {
        queue->dropped++;
        return SUBHOST_OUTPUT_TAKEN;
    }
    /* What has been read out of the pipe is kept; little more comes for now. */
    append_line(queue, output->name, output->text, output->length);
    return SUBHOST_OUTPUT_FULL;
}

bool output_finish(int64_t timeout)
{
    int64_t deadline = now() + timeout;
    while (output_write()) {
        struct pollfd ready[2] = {
            {.fd = queues[0].size > 0 ? STDOUT_FILENO : -1, .events = POLLOUT},
            {.fd = queues[1].size > 0 ? STDERR_FILENO : -1, .events = POLLOUT}};
        int64_t left = deadline - now();
        if (left <= 0 || poll(ready, 2, (int)(left / 1000000 + 1)) == 0)
            break;
    }
    struct pollfd tell = {.fd = STDERR_FILENO, .events = POLLOUT};
    for (int i = 0; i < 2 && poll(&tell, 1, 0) > 0; i++) {
        if (queues[i].error && queues[i].error != EPIPE)
            fprintf(stderr, "subhost: %s: %s\n", i == 0 ? "stdout" : "stderr",
                    strerror(queues[i].error));
        else if (queues[i].size > 0)
            fprintf(stderr,
                    "subhost: %zu bytes of captured output are lost: nobody reads "
                    "them\n",
                    queues[i].size);
    }
    return !queues[0].error && !queues[1].error && !queues[0].size && !queues[1].size;
}
