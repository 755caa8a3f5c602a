/* Writing: what has ended is printed here, put in order, and written. In order, what comes
 * before its turn waits in a ring as large as there are items. */
#define _GNU_SOURCE
#include "map.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "journal.h"

#define TAKE_MAX 256
#define WRITE_SIZE ((size_t)64 << 10)
/* For an interpreter to be created, and what it imports. */
#define LOST_PATIENCE SUBHOST_MSEC(5000)
/* What an item may keep of one value for the next. */
#define KEPT_SIZE ((size_t)4 << 10)

struct writer {
    struct map *map;
    struct text out, error;
    bool broken;        /* nothing can be written any more */
    struct item **ring; /* in order: by their index; NULL: unordered */
    uint64_t next;      /* to be written, in order */
    uint64_t done;      /* items that came to their end here */
    int64_t lost_at;    /* an item kept the shared GIL, and none has ended since; 0: no */
    struct item *free_items;
    subhost_call *again[TAKE_MAX];
    size_t n_again;
};

/* ---- what is written ------------------------------------------------------------- */

static void lose_reader(struct map *map)
{
    map->broken_pipe = true;
    map_stop(map);
}

static void flush(struct writer *writer)
{
    struct map *map = writer->map;
    struct text *out = &writer->out;
    if (out->failed)
        map_fail(map, STATUS_FAILED, "out of memory");
    if (map->journal && out->size > 0 && !writer->broken &&
        !journal_add(map->journal, out->data, out->size)) {
        map_fail(map, STATUS_FAILED, "%s: %s", map->options->resume, strerror(errno));
        writer->broken = true;
    }
    if (!writer->broken && !fds_write(map->fds.out, out->data, out->size)) {
        writer->broken = true;
        if (errno == EPIPE) {
            lose_reader(map);
        } else {
            map_fail(map, STATUS_FAILED, "standard output: %s", strerror(errno));
        }
    }
    out->size = 0;
}

/* No object could be made of its argument. */
static bool is_bad_input(const subhost_outcome *outcome)
{
    return outcome->kind == SUBHOST_RAISED && outcome->code == 2;
}

static const char *kind_of(const subhost_outcome *outcome)
{
    switch (outcome->kind) {
    case SUBHOST_TIMED_OUT:
        return "timed-out";
    case SUBHOST_RAISED:
        return is_bad_input(outcome) ? "bad-input" : "raised";
    default:
        return "killed";
    }
}

static void print_failure(struct writer *writer, uint64_t index, const char *kind,
                          const char *error, size_t error_size, const char *traceback)
{
    struct text *out = &writer->out;
    text_format(out, "{\"index\": %llu, \"ok\": false, \"kind\": \"%s\", \"error\": ",
                (unsigned long long)index, kind);
    json_print_string(out, error, error_size);
    text_add_string(out, ", \"traceback\": ");
    json_print_string(out, traceback, strlen(traceback));
    text_add_string(out, "}\n");
    atomic_fetch_add(&writer->map->failed, 1);
}

static void print_item(struct writer *writer, struct item *item)
{
    struct text *out = &writer->out;
    subhost_outcome outcome = SUBHOST_OUTCOME_INIT;
    if (item->is_bad) {
        print_failure(writer, item->index, "bad-input", item->error.data,
                      item->error.size, "");
        return;
    }
    subhost_call_outcome(item->call, &outcome);
    if (outcome.kind != SUBHOST_RETURNED) {
        print_failure(writer, item->index, kind_of(&outcome), outcome.detail,
                      strlen(outcome.detail), subhost_call_traceback(item->call));
        return;
    }
    size_t before = out->size;
    writer->error.size = 0;
    text_format(out, "{\"index\": %llu, \"ok\": true, \"value\": ",
                (unsigned long long)item->index);
    if (json_print(out, subhost_call_result(item->call), &writer->error)) {
        text_add(out, "}\n", 2);
    } else {
        out->size = before;
        print_failure(writer, item->index, "raised", writer->error.data,
                      writer->error.size, "");
    }
}

/* A free item holds little: what it had of a large value is not kept for the next. */
static void shrink_item(struct map *map, struct item *item)
{
    subhost_error *err = NULL;
    if (item->error.room > KEPT_SIZE)
        text_free(&item->error);
    if (item->bytes <= KEPT_SIZE)
        return;
    subhost_call_free(item->call);
    item->call = NULL;
    if (subhost_call_new(map->function, item, &item->call, &err)) {
        map_fail(map, STATUS_FAILED, "%s", subhost_error_message(err));
        subhost_error_free(err);
    }
}

static void finish_item(struct writer *writer, struct item *item)
{
    struct map *map = writer->map;
    print_item(writer, item);
    atomic_fetch_sub(&map->bytes, item->bytes);
    shrink_item(map, item);
    atomic_fetch_add(&map->written, 1);
    item->next = writer->free_items;
    writer->free_items = item;
    if (writer->out.size >= WRITE_SIZE)
        flush(writer);
}

/* ---- in which order -------------------------------------------------------------- */

/* Past what was written before this run. */
static void skip_done(struct writer *writer)
{
    while (writer->map->journal && journal_has(writer->map->journal, writer->next))
        writer->next++;
}

static void deliver(struct writer *writer, struct item *item)
{
    size_t n = writer->map->n_items;
    writer->done++;
    if (!writer->ring) {
        finish_item(writer, item);
        return;
    }
    writer->ring[item->index % n] = item;
    struct item *due;
    skip_done(writer);
    while ((due = writer->ring[writer->next % n]) && due->index == writer->next) {
        writer->ring[writer->next % n] = NULL;
        writer->next++;
        finish_item(writer, due);
        skip_done(writer);
    }
}

/* What cannot be one item's fault ends the run. True: it did. */
static bool ends_run(struct map *map, const subhost_outcome *outcome,
                     const subhost_call *call)
{
    if (outcome->kind == SUBHOST_FAILED) {
        const char *traceback = subhost_call_traceback(call);
        bool show =
            outcome->status == STATUS_CANNOT_RUN && strstr(traceback, "\n  File ");
        map_fail(map, outcome->status, "%s: %s%s%s", map->options->function,
                 outcome->detail, show && *traceback ? "\n" : "", show ? traceback : "");
        return true;
    }
    if (outcome->kind == SUBHOST_CANCELLED ||
        (outcome->kind != SUBHOST_TIMED_OUT && outcome->cancel_reason >= 0 &&
         outcome->cancel_reason != SUBHOST_BY_DEADLINE)) {
        atomic_store(&map->cancelled, outcome->status);
        map_stop(map); /* a signal: it is said at the end */
        return true;
    }
    return false;
}

/* One that was given up may have gone with the GIL, when there is only one. */
static void note_lost(struct writer *writer, const subhost_outcome *outcome)
{
    const struct map *map = writer->map;
    bool abandoned =
        outcome->status == STATUS_KILLED &&
        (outcome->kind == SUBHOST_TIMED_OUT || outcome->kind == SUBHOST_ABANDONED);
    writer->lost_at = abandoned && map->one_gil ? clock_now() : 0;
}

/* Whoever could run would have ended by now. */
static void check_lost(struct writer *writer)
{
    struct map *map = writer->map;
    if (!writer->lost_at)
        return;
    if (writer->done + atomic_load(&map->skip) >= atomic_load(&map->lines))
        writer->lost_at = clock_now(); /* nobody has anything to do */
    else if (clock_now() - writer->lost_at > map->timeout + map->grace + LOST_PATIENCE)
        map_fail(map, STATUS_FAILED,
                 "an item that cannot be interrupted keeps the GIL that all share: use "
                 "--isolation process");
}

/* It has failed, or will when its result is printed, and may do better. */
static bool can_be_tried(struct writer *writer, const subhost_call *call,
                         const subhost_outcome *outcome)
{
    if (outcome->kind != SUBHOST_RETURNED)
        return !is_bad_input(outcome);
    size_t before = writer->out.size;
    writer->error.size = 0;
    bool printed = json_print(&writer->out, subhost_call_result(call), &writer->error);
    writer->out.size = before;
    return !printed;
}

static void take(struct writer *writer, subhost_call *call)
{
    struct map *map = writer->map;
    struct item *item = subhost_call_data(call);
    subhost_outcome outcome = SUBHOST_OUTCOME_INIT;
    subhost_call_outcome(call, &outcome);
    if (ends_run(map, &outcome, call))
        return;
    note_lost(writer, &outcome);
    if (!item) { /* map->import */
        if (outcome.kind != SUBHOST_RETURNED)
            map_fail(map, STATUS_CANNOT_RUN, "%s: %s", map->options->function,
                     outcome.detail);
        atomic_store(&map->importing, false);
        return;
    }
    if (item->tries < map->options->retry && !atomic_load(&map->stop) &&
        can_be_tried(writer, call, &outcome)) {
        item->tries++;
        writer->again[writer->n_again++] = call;
        return;
    }
    size_t size = 0;
    subhost_value_data(subhost_call_result(call), &size);
    if (outcome.kind != SUBHOST_RETURNED)
        size = strlen(outcome.detail) + strlen(subhost_call_traceback(call));
    item->bytes += size;
    atomic_fetch_add(&map->bytes, size);
    /* Lately: what one item holds is what those that run will hold, too. */
    size_t before = atomic_load(&map->result_size);
    atomic_store(&map->result_size, before - before / 8 + item->bytes / 8);
    deliver(writer, item);
}

/* ---- the thread ------------------------------------------------------------------ */

static void give_back(struct writer *writer)
{
    struct map *map = writer->map;
    if (!writer->free_items)
        return;
    struct item *last = writer->free_items;
    while (last->next)
        last = last->next;
    pthread_mutex_lock(&map->lock);
    last->next = map->free_items;
    map->free_items = writer->free_items;
    pthread_cond_signal(&map->room);
    pthread_mutex_unlock(&map->lock);
    writer->free_items = NULL;
}

static bool take_bad(struct writer *writer)
{
    struct map *map = writer->map;
    pthread_mutex_lock(&map->lock);
    struct item *item = map->bad_items;
    map->bad_items = NULL;
    map->bad_tail = &map->bad_items;
    pthread_mutex_unlock(&map->lock);
    bool any = item;
    while (item) {
        struct item *next = item->next;
        item->next = NULL;
        deliver(writer, item);
        item = next;
    }
    return any;
}

static bool is_over(struct writer *writer)
{
    struct map *map = writer->map;
    if (atomic_load(&map->stop))
        return true;
    return atomic_load(&map->all_read) && !atomic_load(&map->importing) &&
           writer->done + atomic_load(&map->skip) == atomic_load(&map->lines);
}

static void try_again(struct writer *writer)
{
    size_t n = writer->n_again;
    writer->n_again = 0;
    /* There is room: as many as the pool has items, and these are out of it. */
    if (n > 0 && subhost_pool_submit(writer->map->pool, writer->again, n,
                                     SUBHOST_MSEC(1000), NULL) != (int)n)
        map_stop(writer->map);
}

static void write_items(struct writer *writer)
{
    struct map *map = writer->map;
    subhost_call *calls[TAKE_MAX];
    while (!is_over(writer)) {
        int n = subhost_pool_take(map->pool, calls, TAKE_MAX, 0, NULL);
        bool any = take_bad(writer) || n > 0;
        for (int i = 0; i < n; i++)
            take(writer, calls[i]);
        try_again(writer);
        if (!any) {
            /* Before it waits: what there is shall not wait with it. */
            flush(writer);
            give_back(writer);
            if (is_over(writer))
                break;
            n = subhost_pool_take(map->pool, calls, TAKE_MAX, SUBHOST_MSEC(500), NULL);
            for (int i = 0; i < n; i++)
                take(writer, calls[i]);
            try_again(writer);
            check_lost(writer);
        }
        give_back(writer);
    }
    flush(writer);
}

void *map_write(void *arg)
{
    struct map *map = arg;
    struct writer writer = {.map = map};
    pthread_setname_np(pthread_self(), "map/write");
    if (!map->options->unordered)
        writer.ring = calloc(map->n_items, sizeof(struct item *));
    if (!map->options->unordered && !writer.ring)
        map_fail(map, STATUS_FAILED, "out of memory");
    struct text why = {0};
    if (map->journal && !journal_replay(map->journal, map->fds.out, &why)) {
        if (errno == EPIPE)
            lose_reader(map);
        else
            map_fail(map, STATUS_FAILED, "%.*s", (int)why.size, why.data);
        writer.broken = true;
    }
    text_free(&why);
    write_items(&writer);
    free(writer.ring);
    text_free(&writer.out);
    text_free(&writer.error);
    atomic_store(&map->all_written, true);
    uint64_t one = 1;
    ssize_t n = write(map->done_fd, &one, sizeof one);
    (void)n; /* an eventfd that is full is readable, too */
    return NULL;
}
