/* The thread that writes the trail.
 *
 * It is not the main loop's work: write(2) to a regular file ignores O_NONBLOCK, and a disk or
 * a file server that does not answer would hold up signals and deadlines. Here it holds up
 * nobody; events that find the buffer full are lost and counted. Pipes and the like are
 * non-blocking all the same, so that the thread can be stopped.
 *
 * What cannot be written (a full disk) is kept and tried again, from the very byte on: a line
 * is never in the file in part, but at the end of a trail that was cut off. */
#define _GNU_SOURCE
#include "audit/trail_writer.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#define MSEC INT64_C(1000000)
/* Events come in bursts: as long as there are some they are written this often, and nobody has
 * to wake the writer. It is what a process that is killed loses of its trail. */
#define LINGER (5 * MSEC)
/* Until what failed is tried again. */
#define RETRY (250 * MSEC)
/* How long the end of the host waits for a file that takes nothing. */
#define PATIENCE (500 * MSEC)
/* Beyond it: the writer needs a moment to see that it is over. */
#define LEAVE_TIME (100 * MSEC)

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 * MSEC + t.tv_nsec;
}

static int wait_until(pthread_cond_t *cond, struct trail *trail, int64_t deadline)
{
    struct timespec t = {.tv_sec = deadline / (1000 * MSEC),
                         .tv_nsec = deadline % (1000 * MSEC)};
    return pthread_cond_clockwait(cond, &trail->lock, CLOCK_MONOTONIC, &t);
}

/* ---- writing ---------------------------------------------------------------------- */

/* Waits before the next try; false: there is no next one. */
static bool may_try_again(struct trail *trail, int error)
{
    struct pollfd fd = {.fd = trail->file.fd, .events = POLLOUT};
    if (error == EAGAIN)
        poll(&fd, 1, 20); /* not for long: somebody may want us to stop */
    pthread_mutex_lock(&trail->lock);
    trail->error = error;
    pthread_cond_broadcast(&trail->written);
    if (error != EAGAIN) {
        int64_t at = now() + RETRY;
        while (!trail->stopping && wait_until(&trail->work, trail, at) != ETIMEDOUT)
            ;
    }
    /* A pipe may be read on yet; a full disk has had its chance. */
    bool may = !trail->stopping || (error == EAGAIN && now() < trail->stop_at);
    pthread_mutex_unlock(&trail->lock);
    return may;
}

static void note_begin(struct trail *trail)
{
    pthread_mutex_lock(&trail->lock);
    if (!trail->stuck_since)
        trail->stuck_since = now();
    pthread_mutex_unlock(&trail->lock);
}

/* Some of it has been written; with that, so many bytes of records are done. */
static void note_progress(struct trail *trail, size_t records)
{
    pthread_mutex_lock(&trail->lock);
    trail->error = 0;
    trail->stuck_since = 0;
    trail->out += records;
    pthread_cond_broadcast(&trail->written);
    pthread_mutex_unlock(&trail->lock);
}

/* False: given up. */
static bool write_lines(struct trail *trail, const char *text, size_t size)
{
    while (size > 0) {
        note_begin(trail);
        ptrdiff_t n = subhost__trail_file_write(&trail->file, text, size);
        if (n < 0 && errno != EINTR && !may_try_again(trail, errno))
            return false;
        if (n <= 0)
            continue;
        note_progress(trail, 0);
        text += n;
        size -= (size_t)n;
    }
    return true;
}

static bool next_file(struct trail *trail)
{
    char line[TRAIL_LINE_MAX];
    size_t size;
    int error = subhost__trail_file_rotate(&trail->file);
    if (error) {
        const struct trail_value values[] = {TRAIL_TEXT(WHY, strerrordesc_np(error)),
                                             {.field = FIELD_END}};
        size =
            subhost__trail_own_line(line, trail->pid, EVENT_TRAIL_NOT_CONTINUED, values);
    } else {
        pthread_mutex_lock(&trail->lock);
        uint64_t lost = trail->lost;
        pthread_mutex_unlock(&trail->lock);
        const struct trail_value values[] = {TRAIL_NUMBER(FORMAT, 1),
                                             TRAIL_TEXT(TRAIL, trail->id),
                                             TRAIL_NUMBER(PART, trail->file.part),
                                             TRAIL_NUMBER(LOST, lost),
                                             {.field = FIELD_END}};
        size = subhost__trail_own_line(line, trail->pid, EVENT_TRAIL_CONTINUED, values);
    }
    if (!write_lines(trail, line, size))
        return false;
    if (!error)
        subhost__trail_file_begun(&trail->file);
    return true;
}

/* `text`, into as many files as it takes. */
static bool write_text(struct trail *trail)
{
    const char *text = trail->text, *end = text + trail->text_size;
    trail->text_size = 0;
    while (text < end) {
        size_t size = subhost__trail_file_room(&trail->file, text, (size_t)(end - text));
        if (size == 0 ? !next_file(trail) : !write_lines(trail, text, size))
            return false;
        text += size;
    }
    return true;
}

static void note_removal(struct trail *trail)
{
    bool removed = subhost__trail_file_was_removed(&trail->file);
    pthread_mutex_lock(&trail->lock);
    trail->removed = removed;
    pthread_mutex_unlock(&trail->lock);
}

static bool write_full(struct trail *trail)
{
    size_t from = trail->full_at;
    while (subhost__trail_next_text(trail) > 0) {
        if (!write_text(trail))
            return false;
        note_removal(trail); /* before who waits for this text goes on */
        note_progress(trail, trail->full_at - from);
        from = trail->full_at;
    }
    trail->full_size = 0;
    return true;
}

/* ---- the thread ------------------------------------------------------------------- */

/* Until there is something to write. False: never again. */
static bool await_work(struct trail *trail)
{
    pthread_mutex_lock(&trail->lock);
    int64_t at = now() + LINGER;
    while (!trail->stopping && !(trail->hurry && trail->used > 0) &&
           trail->used < TRAIL_BUFFER / 4 &&
           wait_until(&trail->work, trail, at) != ETIMEDOUT)
        ;
    trail->idle = true;
    while (trail->used == 0 && trail->unsaid == 0 && !trail->stopping)
        pthread_cond_wait(&trail->work, &trail->lock);
    trail->idle = false;
    bool any = subhost__trail_take(trail);
    pthread_mutex_unlock(&trail->lock);
    return any;
}

static void *write_main(void *arg)
{
    struct trail *trail = arg;
    pthread_setname_np(pthread_self(), "subhost/trail");
    while (await_work(trail) && write_full(trail))
        ;
    pthread_mutex_lock(&trail->lock);
    trail->gone = true;
    pthread_cond_broadcast(&trail->written);
    pthread_mutex_unlock(&trail->lock);
    return NULL;
}

int subhost__trail_writer_start(struct trail *trail, subhost_error **err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&trail->writer, NULL, write_main, trail);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    trail->has_writer = !error;
    return error ? subhost__fail_errno(err, error, "the trail's thread") : 0;
}

bool subhost__trail_writer_stop(struct trail *trail)
{
    pthread_mutex_lock(&trail->lock);
    trail->stopping = true;
    trail->stop_at = (trail->stuck_since ? trail->stuck_since : now()) + PATIENCE;
    int64_t deadline = (trail->stop_at > now() ? trail->stop_at : now()) + LEAVE_TIME;
    pthread_cond_signal(&trail->work);
    while (!trail->gone && wait_until(&trail->written, trail, deadline) != ETIMEDOUT)
        ;
    bool gone = trail->gone;
    pthread_mutex_unlock(&trail->lock);
    trail->has_writer = false;
    if (gone)
        pthread_join(trail->writer, NULL);
    else
        pthread_detach(trail->writer);
    return gone;
}

int subhost__trail_flush(struct trail *trail, int64_t timeout)
{
    if (!trail || !trail->has_writer)
        return 0;
    int64_t deadline;
    if (__builtin_add_overflow(now(), timeout, &deadline))
        deadline = INT64_MAX;
    int error = 0;
    pthread_mutex_lock(&trail->lock);
    uint64_t target = trail->taken;
    trail->hurry = true;
    pthread_cond_signal(&trail->work);
    while (trail->out < target && !error && !trail->gone) {
        if (trail->error && trail->error != EAGAIN)
            error = trail->error;
        else if (wait_until(&trail->written, trail, deadline) == ETIMEDOUT)
            error = ETIMEDOUT;
    }
    if (!error && trail->removed)
        error = ENOENT;
    trail->hurry = false;
    pthread_mutex_unlock(&trail->lock);
    return error;
}
