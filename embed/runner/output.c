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
/* With a full queue a reader is waited for so long; one that takes nothing meanwhile is not
 * waited for again until it does. */
#define PATIENCE_MS 100

struct queue {
    char *text;
    size_t first, size, room; /* `size` bytes from `first` on */
    unsigned long long dropped;
    bool stalled; /* its reader has taken nothing for PATIENCE_MS */
    bool gone;    /* nobody will ever read it */
    int error;    /* that said so */
};

static struct queue queues[2];

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
        queue->stalled = false;
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

/* Makes room for a slow reader's sake. False: it has stalled. */
static bool make_room(struct queue *queue, int fd, size_t size)
{
    while (!queue->gone && queue->size + size > QUEUE_MAX) {
        struct pollfd ready = {.fd = fd, .events = POLLOUT};
        if (queue->stalled)
            return false;
        /* A signal ends it early; it is handled when we return. */
        if (poll(&ready, 1, PATIENCE_MS) <= 0)
            queue->stalled = true;
        else
            write_some(queue, fd);
    }
    return true;
}

int output_line(subhost_host *host, const subhost_output *output, void *data)
{
    struct queue *queue = &queues[output->stream == 2];
    (void)host, (void)data;
    if (!make_room(queue, output->stream, output->length)) {
        queue->dropped++;
    } else if (!queue->gone) {
        append_line(queue, output->name, output->text, output->length);
        write_some(queue, output->stream);
    }
    return queue->gone;
}

bool output_finish(int64_t timeout)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t deadline = now.tv_sec * INT64_C(1000000000) + now.tv_nsec + timeout;
    while (output_write()) {
        struct pollfd ready[2] = {
            {.fd = queues[0].size > 0 ? STDOUT_FILENO : -1, .events = POLLOUT},
            {.fd = queues[1].size > 0 ? STDERR_FILENO : -1, .events = POLLOUT}};
        clock_gettime(CLOCK_MONOTONIC, &now);
        int64_t left = deadline - now.tv_sec * INT64_C(1000000000) - now.tv_nsec;
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
