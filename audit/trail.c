/* The trail: events from all threads into one file of JSON lines.
 *
 * Whoever notes an event copies it into a bounded ring and goes on; the main loop writes.
 * When the ring is full the event is lost, and the loss is counted and said in the trail:
 * a slow disk must never hold up an interpreter. The lock is held for a copy of some
 * hundred bytes. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "trail.h"

#define RING_EVENTS 1024
#define DETAIL_SIZE 664

struct event {
    struct timespec monotonic, wall;
    const char *name;
    unsigned interp, task;
    pid_t thread;
    char detail[DETAIL_SIZE];
};

struct trail {
    int fd;
    /* In a forked child, in place of the file: */
    void (*pass)(void *data, const char *text, size_t size);
    void *pass_data;
    void (*wake)(void *data);
    void *wake_data;
    pthread_mutex_t lock;
    size_t first, count; /* in `events`, under lock */
    unsigned long long lost, lost_said;
    const char *only; /* the names of the events to note, "": all */
    int write_error;  /* the first one; writing ends with it */
    struct event events[RING_EVENTS];
};

int subhost__trail_open(const char *path, void (*wake)(void *data), void *data,
                        struct trail **result, subhost_error **err)
{
    struct trail *trail = calloc(1, sizeof *trail);
    if (!trail)
        return subhost__fail(err, SUBHOST_ENOMEM, "the trail: out of memory");
    trail->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (trail->fd < 0) {
        int error = errno;
        free(trail);
        return subhost__fail_errno(err, error, "the trail: %s", path);
    }
    trail->wake = wake;
    trail->wake_data = data;
    trail->only = "";
    pthread_mutex_init(&trail->lock, NULL);
    *result = trail;
    return 0;
}

void subhost__trail_only(struct trail *trail, const char *names)
{
    if (trail)
        trail->only = names;
}

static bool is_wanted(const char *names, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = names; *at; at += strcspn(at, ","), at += *at == ',') {
        if (strcspn(at, ",") == length && memcmp(at, name, length) == 0)
            return true;
    }
    return !*names;
}

void subhost__trail_note(struct trail *trail, const char *name, unsigned interp,
                         unsigned task, const char *format, ...)
{
    if (!trail || !is_wanted(trail->only, name))
        return;
    struct event event = {.name = name, .interp = interp, .task = task};
    clock_gettime(CLOCK_MONOTONIC, &event.monotonic);
    clock_gettime(CLOCK_REALTIME, &event.wall);
    event.thread = (pid_t)syscall(SYS_gettid);
    va_list args;
    va_start(args, format);
    vsnprintf(event.detail, sizeof event.detail, format, args);
    va_end(args);
    pthread_mutex_lock(&trail->lock);
    if (trail->count < RING_EVENTS)
        trail->events[(trail->first + trail->count++) % RING_EVENTS] = event;
    else
        trail->lost++;
    pthread_mutex_unlock(&trail->lock);
    trail->wake(trail->wake_data);
}

/* ---- writing, on the main thread ------------------------------------------------ */

/* A JSON string (RFC 8259). What is not UTF-8 in the detail comes from names that are bytes
 * to the system; such a byte is written as the surrogate that Python makes of it. */
static void put_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        int length = *c < 0x80                            ? 1
                     : (*c & 0xE0) == 0xC0 && c[0] > 0xC1 ? 2
                     : (*c & 0xF0) == 0xE0                ? 3
                     : (*c & 0xF8) == 0xF0 && c[0] < 0xF5 ? 4
                                                          : 0;
        for (int i = 1; i < length; i++)
            if ((c[i] & 0xC0) != 0x80)
                length = 0;
        if (length == 0) {
            fprintf(out, "\\udc%02x", *c);
        } else if (*c == '"' || *c == '\\') {
            fprintf(out, "\\%c", *c);
        } else if (*c < 0x20) {
            fprintf(out, "\\u%04x", *c);
        } else {
            fwrite(c, 1, (size_t)length, out);
            c += length - 1;
        }
    }
    fputc('"', out);
}

static void put_event(FILE *out, const struct event *event)
{
    struct tm tm;
    char wall[32];
    gmtime_r(&event->wall.tv_sec, &tm);
    strftime(wall, sizeof wall, "%Y-%m-%dT%H:%M:%S", &tm);
    fprintf(out,
            "{\"t\": %lld.%09ld, \"wall\": \"%s.%06ldZ\", \"pid\": %d, \"thread\": %d",
            (long long)event->monotonic.tv_sec, event->monotonic.tv_nsec, wall,
            event->wall.tv_nsec / 1000, (int)getpid(), (int)event->thread);
    if (event->interp)
        fprintf(out, ", \"interp\": %u", event->interp);
    if (event->task)
        fprintf(out, ", \"task\": %u", event->task);
    fprintf(out, ", \"event\": \"%s\"", event->name);
    if (event->detail[0]) {
        fputs(", \"detail\": ", out);
        put_string(out, event->detail);
    }
    fputs("}\n", out);
}

static void write_all(struct trail *trail, const char *text, size_t size)
{
    if (trail->pass) {
        trail->pass(trail->pass_data, text, size);
        return;
    }
    while (size > 0 && !trail->write_error) {
        ssize_t n = write(trail->fd, text, size);
        if (n < 0 && errno != EINTR)
            trail->write_error = errno;
        if (n > 0) {
            text += n;
            size -= (size_t)n;
        }
    }
}

void subhost__trail_write(struct trail *trail)
{
    if (!trail)
        return;
    for (bool more = true; more;) {
        char *text = NULL;
        size_t size = 0;
        FILE *out = open_memstream(&text, &size);
        if (!out)
            return; /* out of memory: the events wait in the ring */
        struct event event;
        pthread_mutex_lock(&trail->lock);
        more = trail->count > 0;
        if (more) {
            event = trail->events[trail->first];
            trail->first = (trail->first + 1) % RING_EVENTS;
            trail->count--;
        }
        unsigned long long lost = trail->lost;
        pthread_mutex_unlock(&trail->lock);
        if (more)
            put_event(out, &event);
        if (lost != trail->lost_said)
            fprintf(out, "{\"event\": \"lost\", \"count\": %llu}\n",
                    lost - trail->lost_said);
        trail->lost_said = lost;
        fclose(out);
        write_all(trail, text, size);
        free(text);
    }
}

void subhost__trail_pass(struct trail *trail, const char *lines, size_t size)
{
    if (trail)
        write_all(trail, lines, size);
}

void subhost__trail_after_fork(struct trail *trail,
                               void (*pass)(void *data, const char *text, size_t size),
                               void *data)
{
    if (!trail)
        return;
    pthread_mutex_init(&trail->lock,
                       NULL); /* a thread of the parent's may have held it */
    trail->fd = -1;
    trail->pass = pass;
    trail->pass_data = data;
    trail->first = trail->count = 0; /* the parent writes these */
    trail->lost = trail->lost_said = 0;
    trail->write_error = 0;
}

void subhost__trail_close(struct trail *trail)
{
    if (!trail)
        return;
    subhost__trail_write(trail);
    close(trail->fd);
    pthread_mutex_destroy(&trail->lock);
    free(trail);
}
