/* The trail: events from all threads, and from all processes of a tree, into one file.
 *
 * Whoever notes an event makes a record of it on its own stack, copies that into a bounded
 * buffer and goes on. Two buffers change places: one fills; of the other, lines are made and
 * written by a thread that does nothing else (trail_writer.c), or in a forked child passed on
 * to the supervisor by the main loop. An event that finds the buffer full is lost; the loss is counted and said in the
 * trail. */
#define _GNU_SOURCE
#include "audit/trail.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "audit/trail_writer.h"

#define BUFFER_ROOM (TRAIL_BUFFER + 2 * TRAIL_RECORD_MAX)
/* What the program makes many of leaves room for what the host has to say. */
#define PYTHON_EVENTS_ROOM (TRAIL_BUFFER / 2)

/* ---- noting ----------------------------------------------------------------------- */

/* Without a system call each time. A thread that forks is another one in the child. */
static pid_t thread_id(pid_t pid)
{
    static _Thread_local pid_t thread, of;
    if (of != pid) {
        thread = (pid_t)syscall(SYS_gettid);
        of = pid;
    }
    return thread;
}

static struct trail_head head_of(pid_t pid, enum trail_event event)
{
    struct trail_head head = {.pid = pid, .thread = thread_id(pid), .event = event};
    clock_gettime(CLOCK_MONOTONIC, &head.monotonic);
    return head;
}

size_t subhost__trail_own_line(char line[TRAIL_LINE_MAX], pid_t pid,
                               enum trail_event event, const struct trail_value *values)
{
    struct trail_head head = head_of(pid, event);
    subhost__trail_wall(&head);
    return subhost__trail_line(line, &head, values);
}

/* Into the buffer; beyond TRAIL_BUFFER there is room for two records. Under lock. */
static void append(struct trail *trail, const char *data, size_t size)
{
    bool much = trail->used < TRAIL_BUFFER / 4 && trail->used + size >= TRAIL_BUFFER / 4;
    memcpy(trail->filling + trail->used, data, size);
    trail->used += size;
    trail->taken += size;
    if (trail->has_writer && (trail->idle || much))
        pthread_cond_signal(&trail->work);
}

static void say_lost(struct trail *trail)
{
    char record[TRAIL_RECORD_MAX];
    if (!trail->unsaid)
        return;
    const struct trail_head head = head_of(trail->pid, EVENT_EVENTS_LOST);
    const struct trail_value values[] = {TRAIL_NUMBER(COUNT, trail->unsaid),
                                         {.field = FIELD_END}};
    trail->unsaid = 0;
    append(trail, record, subhost__trail_record(record, &head, values));
}

static void lose(struct trail *trail, uint64_t count)
{
    trail->lost += count;
    trail->unsaid += count;
}

_Static_assert(TRAIL_EVENT_COUNT <= 64, "a bit for each in `unwanted`");
#define EVENT_BIT(event) (UINT64_C(1) << (event))
#define OWN_EVENTS                                                                       \
    (EVENT_BIT(EVENT_HOST_OPEN) | EVENT_BIT(EVENT_HOST_CLOSE) |                          \
     EVENT_BIT(EVENT_EVENTS_LOST) | EVENT_BIT(EVENT_TRAIL_CONTINUED) |                   \
     EVENT_BIT(EVENT_TRAIL_NOT_CONTINUED))

/* The bit of the event; 0: there is none of this name. */
static uint64_t bit_of_name(const char *name, size_t length)
{
    static const char *const names[] = {
#define EVENT_NAME(event, text, meaning, fields) [EVENT_##event] = text,
        TRAIL_EVENTS(EVENT_NAME)
#undef EVENT_NAME
    };
    for (size_t i = 0; i < TRAIL_EVENT_COUNT; i++)
        if (strlen(names[i]) == length && memcmp(names[i], name, length) == 0)
            return EVENT_BIT(i);
    return 0;
}

const char *subhost__trail_only(struct trail *trail, const char *names)
{
    uint64_t wanted = OWN_EVENTS;
    for (const char *at = names; *at;) {
        size_t length = strcspn(at, ",");
        uint64_t bit = bit_of_name(at, length);
        if (!bit)
            return at;
        wanted |= bit;
        at += length + (at[length] == ',');
    }
    if (trail)
        trail->unwanted = *names ? ~wanted : 0;
    return NULL;
}

void subhost__trail_note(struct trail *trail, enum trail_event event, unsigned interp,
                         unsigned task, const struct trail_value *values)
{
    char record[TRAIL_RECORD_MAX];
    if (trail->unwanted & EVENT_BIT(event))
        return;
    struct trail_head head = head_of(trail->pid, event);
    head.interp = interp;
    head.task = task;
    size_t size = subhost__trail_record(record, &head, values);
    size_t room = event == EVENT_PYTHON_EVENT ? PYTHON_EVENTS_ROOM : TRAIL_BUFFER;
    pthread_mutex_lock(&trail->lock);
    if (!trail->sealed) {
        trail->events++;
        if (event == EVENT_HOST_CLOSE) {
            say_lost(trail);
            append(trail, record, size); /* for which there is room in any case */
            trail->sealed = true;
        } else if (trail->used + size <= room) {
            append(trail, record, size);
        } else {
            lose(trail, 1);
        }
    }
    pthread_mutex_unlock(&trail->lock);
    if (trail->wake)
        trail->wake(trail->data);
}

static uint64_t count_lines(const char *text, size_t size)
{
    uint64_t count = 0;
    const char *end = text + size;
    while (text < end && (text = memchr(text, '\n', (size_t)(end - text)))) {
        text++;
        count++;
    }
    return count;
}

/* How many events are not in the trail without these lines: a child's line about its own losses
 * stands for all of them. */
static uint64_t count_events(const char *lines, size_t size)
{
    static const char losses[] = "\"event\": \"events-lost\", \"count\": ";
    uint64_t count = count_lines(lines, size);
    const char *end = lines + size, *at = lines;
    while ((at = memmem(at, (size_t)(end - at), losses, sizeof losses - 1))) {
        at += sizeof losses - 1;
        count += strtoull(at, NULL, 10) - 1; /* it ends at the line's brace */
    }
    return count;
}

/* As many of these bytes as are whole lines; 0: not even one is. */
static size_t whole_lines(const char *lines, size_t size)
{
    const char *end = size ? memrchr(lines, '\n', size) : NULL;
    return end ? (size_t)(end - lines) + 1 : 0;
}

/* As a record; returns how much of them there was room for. Under lock. */
static size_t append_lines(struct trail *trail, const char *lines, size_t size)
{
    char head[TRAIL_LINES_HEAD];
    size_t used = trail->used + sizeof head;
    size_t fits = used < TRAIL_BUFFER ? TRAIL_BUFFER - used : 0;
    if (fits < size)
        size = whole_lines(lines, fits);
    if (size > TRAIL_CHUNK)
        size = whole_lines(lines, TRAIL_CHUNK);
    if (size > 0) {
        subhost__trail_lines_head(head, size);
        append(trail, head, sizeof head);
        append(trail, lines, size);
    }
    return size;
}

void subhost__trail_pass(struct trail *trail, const char *lines, size_t size,
                         uint64_t lost)
{
    if (!trail)
        return;
    pthread_mutex_lock(&trail->lock);
    if (!trail->sealed) {
        trail->events += count_lines(lines, size) + lost;
        trail->lost += lost; /* the child has said it */
        for (size_t n; size > 0 && (n = append_lines(trail, lines, size)) > 0; size -= n)
            lines += n;
        trail->lost += count_lines(lines, size);
        trail->unsaid += count_events(lines, size);
    }
    pthread_mutex_unlock(&trail->lock);
    if (trail->wake)
        trail->wake(trail->data);
}

size_t subhost__trail_next_text(struct trail *trail)
{
    if (trail->text_size == 0)
        trail->text_size = subhost__trail_render(
            trail->full, trail->full_size, &trail->full_at, trail->text, TRAIL_CHUNK);
    return trail->text_size;
}

bool subhost__trail_take(struct trail *trail)
{
    say_lost(trail);
    if (trail->used == 0)
        return false;
    char *empty = trail->full;
    trail->full = trail->filling;
    trail->full_size = trail->used;
    trail->full_at = 0;
    trail->filling = empty;
    trail->used = 0;
    return true;
}

/* ---- opening and closing ---------------------------------------------------------- */

static void free_trail(struct trail *trail)
{
    subhost__trail_file_close(&trail->file);
    pthread_cond_destroy(&trail->written);
    pthread_cond_destroy(&trail->work);
    pthread_mutex_destroy(&trail->lock);
    free(trail->filling);
    free(trail->full);
    free(trail->text);
    free(trail);
}

/* Locks and the like; in a forked child anew, because a thread of the parent's may have held
 * them. Those of static kind cannot fail. */
static void init_locks(struct trail *trail)
{
    pthread_mutex_init(&trail->lock, NULL);
    pthread_cond_init(&trail->work, NULL);
    pthread_cond_init(&trail->written, NULL);
}

int subhost__trail_open(const struct trail_options *options, struct trail **result,
                        subhost_error **err)
{
    struct trail *trail = calloc(1, sizeof *trail);
    if (!trail)
        return subhost__fail(err, SUBHOST_ENOMEM, "the trail: out of memory");
    init_locks(trail);
    trail->pid = getpid();
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    snprintf(trail->id, sizeof trail->id, "%d-%llx", (int)trail->pid,
             (unsigned long long)wall.tv_sec * 1000000000 +
                 (unsigned long long)wall.tv_nsec);
    trail->filling = malloc(BUFFER_ROOM);
    trail->full = malloc(BUFFER_ROOM);
    trail->text = malloc(TRAIL_CHUNK);
    int code = subhost__trail_file_open(&trail->file, options, err);
    if (!code && (!trail->filling || !trail->full || !trail->text))
        code = subhost__fail(err, SUBHOST_ENOMEM, "the trail: out of memory");
    if (!code) {
        /* As much as is filled as a rule is there before somebody has to wait for it. */
        memset(trail->filling, 0, TRAIL_BUFFER / 4);
        memset(trail->full, 0, TRAIL_BUFFER / 4);
        code = subhost__trail_writer_start(trail, err);
    }
    if (code) {
        free_trail(trail);
        return code;
    }
    *result = trail;
    return 0;
}

const char *subhost__trail_id(const struct trail *trail) { return trail->id; }

struct trail_counts subhost__trail_counts(struct trail *trail)
{
    struct trail_counts counts = {0};
    if (!trail)
        return counts;
    pthread_mutex_lock(&trail->lock);
    counts = (struct trail_counts){.events = trail->events, .lost = trail->lost};
    pthread_mutex_unlock(&trail->lock);
    return counts;
}

void subhost__trail_finish(struct trail *trail)
{
    if (!trail)
        return;
    pthread_mutex_lock(&trail->lock);
    trail->sealed = true;
    pthread_mutex_unlock(&trail->lock);
    if (trail->has_writer && subhost__trail_writer_stop(trail))
        subhost__trail_file_close(&trail->file);
}

void subhost__trail_close(struct trail *trail)
{
    if (!trail)
        return;
    subhost__trail_finish(trail);
    /* A thread that is stuck inside a write keeps it. */
    if (trail->gone || trail->pass)
        free_trail(trail);
}

/* ---- in a forked child ------------------------------------------------------------ */

void subhost__trail_after_fork(struct trail *trail,
                               bool (*pass)(void *data, const char *text, size_t size,
                                            uint64_t lost),
                               void (*wake)(void *data), void *data)
{
    if (!trail)
        return;
    init_locks(trail);
    trail->pid = getpid();
    trail->has_writer = false; /* it is the parent's, as is what it has to write */
    trail->file.fd = trail->file.directory = -1;
    trail->used = trail->full_size = trail->full_at = trail->text_size = 0;
    trail->events = trail->lost = trail->unsaid = trail->lost_passed = 0;
    trail->sealed = trail->hurry = trail->stopping = trail->gone = false;
    trail->pass = pass;
    trail->wake = wake;
    trail->data = data;
}

void subhost__trail_write(struct trail *trail)
{
    if (!trail || !trail->pass)
        return;
    for (;;) {
        pthread_mutex_lock(&trail->lock);
        bool any = subhost__trail_next_text(trail) > 0 ||
                   (subhost__trail_take(trail) && subhost__trail_next_text(trail) > 0);
        uint64_t lost = trail->lost;
        pthread_mutex_unlock(&trail->lock);
        if (!any || !trail->pass(trail->data, trail->text, trail->text_size,
                                 lost - trail->lost_passed))
            return;
        trail->lost_passed = lost;
        trail->text_size = 0;
    }
}
