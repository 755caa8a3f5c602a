/* Reading: files, or standard input, line by line; each line is parsed here and goes into the
 * pool. An item is needed for each: when all are on their way, or hold too much, this thread
 * waits. So memory stays bounded, whatever comes in. */
#define _GNU_SOURCE
#include "map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "journal.h"

#define READ_SIZE ((size_t)256 << 10)
/* A longer line is no input that anybody means. */
#define LINE_MAX_SIZE ((size_t)64 << 20)
#define BATCH 64
/* What items on their way may hold together, before no more are read. */
#define BYTES_MAX ((size_t)16 << 20)

struct reader {
    struct map *map;
    struct text line; /* one that is not in one piece in the buffer */
    bool too_long;    /* it is passed over, up to its end */
    char *buffer;
    struct item *items; /* free ones, of this thread alone */
    subhost_call *batch[BATCH];
    size_t n_batch;
    bool any; /* has gone into the pool */
};

/* ---- items ----------------------------------------------------------------------- */

static void submit(struct reader *reader)
{
    struct map *map = reader->map;
    size_t done = 0;
    while (done < reader->n_batch && !atomic_load(&map->stop)) {
        subhost_error *err = NULL;
        int n = map_submit(map, reader->batch + done, reader->n_batch - done,
                           SUBHOST_MSEC(100), &err);
        if (n < 0) {
            /* A pool that has been closed by a signal says so by its calls. */
            if (n != SUBHOST_ESTATE)
                map_fail(map, STATUS_FAILED, "%s", subhost_error_message(err));
            map_stop(map);
            subhost_error_free(err);
            return;
        }
        done += (size_t)n;
        reader->any = true;
    }
    reader->n_batch = 0;
}

static bool holds_too_much(const struct map *map)
{
    size_t bytes = atomic_load(&map->bytes);
    return bytes > 0 && bytes + atomic_load(&map->result_size) > BYTES_MAX;
}

/* An item that is free; NULL: it is time to stop. */
static struct item *get_item(struct reader *reader)
{
    struct map *map = reader->map;
    if (reader->items && holds_too_much(map))
        submit(reader);
    while (!reader->items || holds_too_much(map)) {
        pthread_mutex_lock(&map->lock);
        if (map->free_items) {
            /* Those that were used last come first. */
            struct item *last = map->free_items;
            while (last->next)
                last = last->next;
            last->next = reader->items;
            reader->items = map->free_items;
            map->free_items = NULL;
        }
        bool wait = !reader->items || holds_too_much(map);
        if (wait && reader->n_batch == 0 && !atomic_load(&map->stop))
            pthread_cond_wait(&map->room, &map->lock);
        pthread_mutex_unlock(&map->lock);
        if (wait)
            submit(reader);
        if (atomic_load(&map->stop))
            return NULL;
    }
    struct item *item = reader->items;
    if (!item->call) /* there was no memory for it: the run ends */
        return NULL;
    reader->items = item->next;
    item->next = NULL;
    item->tries = 0;
    item->is_bad = false;
    item->error.size = 0;
    return item;
}

/* What is no JSON goes past the pool. */
static void pass_bad(struct map *map, struct item *item)
{
    item->is_bad = true;
    item->bytes = 0;
    pthread_mutex_lock(&map->lock);
    *map->bad_tail = item;
    map->bad_tail = &item->next;
    pthread_mutex_unlock(&map->lock);
    map_wake(map);
}

/* One line. False: it is time to stop. */
static bool take_line(struct reader *reader, const char *line, size_t size)
{
    struct map *map = reader->map;
    uint64_t index = atomic_fetch_add(&map->lines, 1);
    if (map->journal && journal_has(map->journal, index)) {
        atomic_fetch_add(&map->skip, 1);
        reader->too_long = false;
        return true;
    }
    struct item *item = get_item(reader);
    if (!item)
        return false;
    item->index = index;
    if (reader->too_long) {
        reader->too_long = false;
        text_format(&item->error, "the line is longer than %zu MiB", LINE_MAX_SIZE >> 20);
        pass_bad(map, item);
        return true;
    }
    subhost_value *argument = subhost_call_argument(item->call);
    if (!json_parse(line, size, argument, &item->error)) {
        if (item->error.failed) {
            map_fail(map, STATUS_FAILED, "out of memory");
            return false;
        }
        pass_bad(map, item);
        return true;
    }
    subhost_value_data(argument, &item->bytes);
    atomic_fetch_add(&map->bytes, item->bytes);
    reader->batch[reader->n_batch++] = item->call;
    if (reader->n_batch == BATCH)
        submit(reader);
    return !atomic_load(&map->stop);
}

/* No call was made: that the function is not there must not go unnoticed. */
static void import_only(struct map *map)
{
    atomic_store(&map->importing, true);
    if (map_submit(map, &map->import, 1, 0, NULL) != 1)
        map_stop(map);
}

/* ---- lines ----------------------------------------------------------------------- */

/* A piece of a line that goes on. */
static void keep_piece(struct reader *reader, const char *data, size_t size)
{
    if (reader->line.size + size > LINE_MAX_SIZE) {
        reader->too_long = true;
        text_free(&reader->line);
    }
    if (!reader->too_long)
        text_add(&reader->line, data, size);
}

static bool take_buffer(struct reader *reader, const char *data, size_t size)
{
    const char *end = data + size;
    while (data < end) {
        const char *newline = memchr(data, '\n', (size_t)(end - data));
        if (!newline) {
            keep_piece(reader, data, (size_t)(end - data));
            return true;
        }
        size_t n = (size_t)(newline - data);
        bool more;
        if (reader->line.size > 0 || reader->too_long) {
            keep_piece(reader, data, n);
            if (reader->line.failed) {
                map_fail(reader->map, STATUS_FAILED, "out of memory");
                return false;
            }
            more = take_line(reader, reader->line.data, reader->line.size);
            if (reader->line.room > READ_SIZE)
                text_free(&reader->line);
            reader->line.size = 0;
        } else {
            more = take_line(reader, data, n);
        }
        if (!more)
            return false;
        data = newline + 1;
    }
    return true;
}

/* False: it is time to stop. */
static bool read_all(struct reader *reader, int fd, const char *name)
{
    struct map *map = reader->map;
    bool more = true;
    while (more) {
        ssize_t n = fds_read(fd, reader->buffer, READ_SIZE);
        if (n < 0) {
            map_note(map, STATUS_FAILED, "%s: %s", name, strerror(errno));
            return false;
        }
        if (n == 0)
            break;
        atomic_fetch_add(&map->bytes_read, (unsigned long long)n);
        more = take_buffer(reader, reader->buffer, (size_t)n);
        /* Before it waits for more: what there is shall not wait with it. */
        submit(reader);
    }
    /* The last line need not have an end. */
    if (more && (reader->line.size > 0 || reader->too_long)) {
        more = take_line(reader, reader->line.data, reader->line.size);
        reader->line.size = 0;
    }
    submit(reader);
    return more && !atomic_load(&map->stop);
}

static bool read_file(struct reader *reader, const char *name)
{
    if (map_is_standard_input(name))
        return read_all(reader, reader->map->fds.in, "standard input");
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        map_note(reader->map, STATUS_FAILED, "%s: %s", name, strerror(errno));
        return false;
    }
    bool more = read_all(reader, fd, name);
    close(fd);
    return more;
}

void *map_read(void *arg)
{
    struct map *map = arg;
    struct reader reader = {.map = map, .buffer = malloc(READ_SIZE)};
    bool more = reader.buffer;
    pthread_setname_np(pthread_self(), "map/read");
    if (!more)
        map_fail(map, STATUS_FAILED, "out of memory");
    if (more && map->options->n_files == 0)
        more = read_file(&reader, "-");
    for (int i = 0; more && i < map->options->n_files; i++)
        more = read_file(&reader, map->options->files[i]);
    if (reader.line.failed)
        map_fail(map, STATUS_FAILED, "out of memory");
    text_free(&reader.line);
    free(reader.buffer);
    if (more && !reader.any && atomic_load(&map->skip) == 0)
        import_only(map);
    atomic_store(&map->all_read, true);
    map_wake(map);
    return NULL;
}
