/* `subhost map`: a function over JSON lines.
 *
 *   main    runs the host: signals, deadlines, replacements; draws the progress bar
 *   read    lines, to values, into the pool (map_read.c)
 *   write   results, to lines, in order, to standard output (map_write.c)
 *
 * The interpreters' threads do neither: they get values and give values. */
#define _GNU_SOURCE
#include "map.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "journal.h"
#include "policy.h"
#include "run.h"

/* Items on their way at the same time. */
#define ITEMS 4096
#define PROGRESS_INTERVAL_MS 100
/* An interpreter that is ready in the place of one that has to be given up. */
#define SPARES 1

static int ended_by; /* the first SIGINT or SIGTERM; the main thread's */

/* ---- the end, before its time ----------------------------------------------------- */

void map_stop(struct map *map)
{
    pthread_mutex_lock(&map->lock);
    atomic_store(&map->stop, true);
    pthread_cond_broadcast(&map->room);
    pthread_mutex_unlock(&map->lock);
    map_wake(map);
}

/* ---- the pool, for threads that nobody waits for ----------------------------------- */

int map_submit(struct map *map, subhost_call *const *calls, size_t n, int64_t timeout,
               subhost_error **err)
{
    pthread_rwlock_rdlock(&map->gate);
    int code = map->closed ? SUBHOST_ESTATE
                           : subhost_pool_submit(map->pool, calls, n, timeout, err);
    pthread_rwlock_unlock(&map->gate);
    return code;
}

void map_wake(struct map *map)
{
    pthread_rwlock_rdlock(&map->gate);
    if (map->pool && !map->closed)
        subhost_pool_wake(map->pool);
    pthread_rwlock_unlock(&map->gate);
}

static void close_pool(struct map *map)
{
    pthread_rwlock_wrlock(&map->gate);
    map->closed = true;
    pthread_rwlock_unlock(&map->gate);
    bool patient = ended_by || map->status || map->broken_pipe;
    subhost_pool_close(map->pool, patient ? map->grace : 1, NULL);
}

static void note(struct map *map, int status, const char *format, va_list args)
{
    pthread_mutex_lock(&map->lock);
    if (!map->status) {
        map->status = status;
        if (vasprintf(&map->failure, format, args) < 0)
            map->failure = NULL;
    }
    pthread_mutex_unlock(&map->lock);
}

void map_fail(struct map *map, int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    note(map, status, format, args);
    va_end(args);
    map_stop(map);
}

void map_note(struct map *map, int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    note(map, status, format, args);
    va_end(args);
}

static void on_signal(subhost_host *host, const subhost_signal_event *event, void *data)
{
    (void)host;
    if (event->signo != SIGINT && event->signo != SIGTERM)
        return;
    if (ended_by)
        _exit(128 + event->signo);
    ended_by = event->signo;
    map_stop(data);
}

/* What C code does to the process cannot be contained here, but said. */
static void on_crash(int signo)
{
    static const char text[] = "subhost: map: a call has crashed the process: "
                               "--isolation process contains that, "
                               "and --resume FILE goes on where a run has stopped\n";
    ssize_t n = write(STDERR_FILENO, text, sizeof text - 1);
    (void)n;
    raise(signo); /* by default now, and delivered on the way out */
}

static void catch_crashes(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    struct sigaction action = {.sa_handler = on_crash, .sa_flags = SA_RESETHAND};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &action, NULL);
}

/* ---- before anything is started -------------------------------------------------- */

/* Those of /dev, too: fd 0 is not the input any more. */
bool map_is_standard_input(const char *name)
{
    return strcmp(name, "-") == 0 || strcmp(name, "/dev/stdin") == 0 ||
           strcmp(name, "/dev/fd/0") == 0 || strcmp(name, "/proc/self/fd/0") == 0;
}

/* 0, or a status after a message. */
static int take_fds(struct map *map)
{
    bool ok = fds_take(&map->fds);
    if (ok && map->fds.out < 0) {
        errno = EBADF;
        ok = false;
    }
    if (ok)
        return 0;
    fprintf(stderr, "subhost: map: standard output: %s\n", strerror(errno));
    return STATUS_FAILED;
}

/* 0, or a status after a message. A file that is not there must not cost the results of those
 * before it. None is opened: who writes to a FIFO would take that for its reader. */
static int check_files(struct map *map)
{
    bool known = map->options->n_files > 0;
    struct stat st;
    for (int i = 0; i < map->options->n_files; i++) {
        const char *name = map->options->files[i];
        if (map_is_standard_input(name)) {
            known = false;
            continue;
        }
        bool ok =
            stat(name, &st) == 0 && faccessat(AT_FDCWD, name, R_OK, AT_EACCESS) == 0;
        if (!ok || S_ISDIR(st.st_mode)) {
            fprintf(stderr, "subhost: map: can't open file '%s': %s\n", name,
                    strerror(!ok ? errno : EISDIR));
            return STATUS_FAILED;
        }
        known = known && S_ISREG(st.st_mode);
        map->bytes_total += (uint64_t)st.st_size;
    }
    if (map->options->n_files == 0 && fstat(map->fds.in, &st) == 0 &&
        S_ISREG(st.st_mode)) {
        off_t at = lseek(map->fds.in, 0, SEEK_CUR);
        known = at >= 0 && at <= st.st_size;
        map->bytes_total = known ? (uint64_t)(st.st_size - at) : 0;
    }
    if (!known)
        map->bytes_total = 0;
    return 0;
}

/* One line that says what run this is. */
static void describe(const struct map_options *options, struct text *text)
{
    text_add_string(text, "{\"subhost map\": 1, \"function\": ");
    json_print_string(text, options->function, strlen(options->function));
    text_format(text, ", \"unordered\": %s, \"files\": [",
                options->unordered ? "true" : "false");
    for (int i = 0; i < options->n_files; i++) {
        if (i > 0)
            text_add_string(text, ", ");
        json_print_string(text, options->files[i], strlen(options->files[i]));
    }
    text_add(text, "]}", 3);
}

static int open_journal(struct map *map)
{
    struct text identity = {0}, error = {0};
    struct stat journal, output;
    if (stat(map->options->resume, &journal) == 0 && fstat(map->fds.out, &output) == 0 &&
        journal.st_dev == output.st_dev && journal.st_ino == output.st_ino) {
        fprintf(stderr,
                "subhost: map: --resume: %s is standard output, too: the results "
                "need a file of their own\n",
                map->options->resume);
        return STATUS_FAILED;
    }
    describe(map->options, &identity);
    map->journal = journal_open(map->options->resume, identity.data,
                                map->options->unordered, &error);
    if (map->journal) {
        uint64_t failed, done = journal_count(map->journal, &failed);
        if (done > 0)
            fprintf(stderr, "subhost: map: %llu items were done before\n",
                    (unsigned long long)done);
        atomic_store(&map->failed, failed);
    } else {
        text_add(&error, "", 1);
        fprintf(stderr, "subhost: map: --resume: %s\n", error.data);
    }
    text_free(&identity);
    text_free(&error);
    return map->journal ? 0 : STATUS_FAILED;
}

static int fail(subhost_error *err)
{
    fprintf(stderr, "subhost: map: %s\n", subhost_error_message(err));
    subhost_error_free(err);
    return STATUS_FAILED;
}

/* ---- starting --------------------------------------------------------------------- */

/* What the policy says of each item. */
static int take_policy(struct map *map)
{
    const struct map_options *o = map->options;
    map->policy = policy_of_options("map", o->policy, &o->settings);
    if (!map->policy)
        return STATUS_FAILED;
    const char *grace = subhost_policy_get(map->policy, "cancel.grace");
    const char *timeout = subhost_policy_get(map->policy, "limits.timeout");
    if (grace)
        subhost_duration(grace, &map->grace);
    if (timeout)
        subhost_duration(timeout, &map->timeout);
    const char *gil = subhost_policy_get(map->policy, "interpreter.gil");
    map->one_gil = o->isolation == SUBHOST_ISOLATION_INTERPRETER && gil &&
                   strcmp(gil, "shared") == 0;
    return 0;
}

static int count_spares(const struct map *map)
{
    const struct map_options *o = map->options;
    if (o->fresh && o->jobs)
        return o->jobs; /* each worker needs a successor */
    return o->fresh || o->recycle || map->timeout ? SPARES : 0;
}

static int open_pool(struct map *map, subhost_error **err)
{
    const struct map_options *o = map->options;
    char cwd[PATH_MAX];
    subhost_options host_options = run_host_options();
    host_options.policy = map->policy;
    host_options.take_signals = 1;
    host_options.on_signal = on_signal;
    host_options.on_signal_data = map;
    int code = subhost_open(&host_options, &map->host, err);
    if (code)
        return code;
    code = run_bind_natives(map->host, &o->natives, err);
    if (code)
        return code;
    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    options.name = "map";
    options.workers = o->jobs;
    options.spares = count_spares(map);
    options.fresh = o->fresh;
    options.reset = o->reset;
    options.isolation = o->isolation;
    options.timeout = map->timeout;
    options.grace = map->grace > 0 ? map->grace : 1;
    options.recycle_calls = o->recycle;
    options.calls = ITEMS;
    options.path0 = getcwd(cwd, sizeof cwd) ? cwd : "";
    options.plain = 1;
    options.stdout_to_stderr = 1;
    code = subhost_pool_open(map->host, &options, &map->pool, err);
    if (!code)
        code = subhost_pool_function(map->pool, o->function, &map->function, err);
    return code;
}

static int make_items(struct map *map, subhost_error **err)
{
    map->n_items = ITEMS;
    map->items = calloc(map->n_items, sizeof *map->items);
    int code = map->items ? 0 : SUBHOST_ENOMEM;
    for (size_t i = 0; i < map->n_items && !code; i++) {
        struct item *item = &map->items[i];
        code = subhost_call_new(map->function, item, &item->call, err);
        item->next = i + 1 < map->n_items ? item + 1 : NULL;
    }
    if (!code)
        code = subhost_call_new(map->function, NULL, &map->import, err);
    if (!code)
        subhost_call_import_only(map->import);
    map->free_items = map->items;
    map->bad_tail = &map->bad_items;
    return code;
}

/* With all signals blocked: they are the main thread's. */
static int start_thread(pthread_t *thread, void *(*function)(void *), struct map *map)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(thread, NULL, function, map);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error)
        map_fail(map, STATUS_FAILED, "starting a thread: %s", strerror(error));
    return error;
}

/* ---- running ---------------------------------------------------------------------- */

/* False: the writer has not come to its end in time after a signal: nobody reads what it
 * writes. */
static bool run(struct map *map)
{
    bool show = isatty(STDERR_FILENO);
    int64_t started_at = clock_now(), shown_at = started_at, leave_at = 0;
    struct pollfd ready[2] = {{.fd = subhost_fd(map->host), .events = POLLIN},
                              {.fd = map->done_fd, .events = POLLIN}};
    subhost_error *err = NULL;
    while (!atomic_load(&map->all_written)) {
        if (ended_by && !leave_at)
            leave_at = clock_now() + map->grace;
        if (leave_at && clock_now() >= leave_at)
            return false;
        if (poll(ready, 2, show || ended_by ? PROGRESS_INTERVAL_MS : -1) < 0 &&
            errno != EINTR)
            map_fail(map, STATUS_FAILED, "poll: %s", strerror(errno));
        if (subhost_dispatch(map->host, 0, &err) < 0) {
            map_fail(map, STATUS_FAILED, "%s", subhost_error_message(err));
            subhost_error_free(err);
            err = NULL;
        }
        if (show && clock_now() - shown_at >= SUBHOST_MSEC(PROGRESS_INTERVAL_MS)) {
            shown_at = clock_now();
            map_progress(map, started_at, false);
        }
    }
    if (show)
        map_progress(map, started_at, true);
    return true;
}

static void print_stats(struct map *map)
{
    subhost_pool_stats stats = SUBHOST_POOL_STATS_INIT;
    subhost_pool_get_stats(map->pool, &stats);
    fprintf(stderr,
            "subhost: items %llu read, %llu done before, %llu written, %llu not ok\n"
            "subhost: calls %llu, timed out %llu; interpreters %u, replaced %u, recycled "
            "%u\n",
            (unsigned long long)atomic_load(&map->lines),
            (unsigned long long)atomic_load(&map->skip),
            (unsigned long long)atomic_load(&map->written),
            (unsigned long long)atomic_load(&map->failed),
            (unsigned long long)stats.calls, (unsigned long long)stats.timeouts,
            stats.workers, stats.replaced, stats.recycled);
    run_print_stats(map->host);
}

/* What the shell is told. */
static int conclude(struct map *map)
{
    if (map->journal && !journal_close(map->journal) && !map->status)
        map_note(map, STATUS_FAILED, "%s: %s", map->options->resume, strerror(errno));
    if (map->status) {
        fprintf(stderr, "subhost: map: %s\n", map->failure ? map->failure : "failed");
        return map->status;
    }
    if (ended_by)
        return 128 + ended_by;
    if (atomic_load(&map->cancelled))
        return atomic_load(&map->cancelled);
    return atomic_load(&map->failed) > 0 ? 1 : 0;
}

static _Noreturn void leave(const struct map *map, int status)
{
    fflush(stderr);
    if (map->broken_pipe && !map->status) {
        /* As any filter whose reader has gone. */
        signal(SIGPIPE, SIG_DFL);
        raise(SIGPIPE);
    }
    /* The reader may still wait for standard input, and a thread that could not be
     * interrupted runs on: exit() would take the ground from under them. */
    _exit(status);
}

int map_command(const struct map_options *options)
{
    struct map map = {.options = options,
                      .lock = PTHREAD_MUTEX_INITIALIZER,
                      .room = PTHREAD_COND_INITIALIZER,
                      .gate = PTHREAD_RWLOCK_INITIALIZER};
    subhost_error *err = NULL;
    pthread_t reader, writer;
    int status = take_fds(&map);
    if (!status)
        status = check_files(&map);
    if (!status)
        status = take_policy(&map);
    if (!status && options->resume)
        status = open_journal(&map);
    if (status)
        return status;
    if (open_pool(&map, &err) || make_items(&map, &err)) {
        status = fail(err);
        subhost_close(map.host, SUBHOST_CLOSE_EXITING, 0, NULL);
        return status;
    }
    if (options->isolation == SUBHOST_ISOLATION_INTERPRETER)
        catch_crashes();
    map.done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    bool writes = map.done_fd >= 0 && start_thread(&writer, map_write, &map) == 0;
    if (writes && start_thread(&reader, map_read, &map) == 0)
        pthread_detach(reader);
    else
        atomic_store(&map.all_read, true); /* map_fail() has been told why */
    if (writes && run(&map))
        pthread_join(writer, NULL);
    else if (writes)
        pthread_detach(writer);
    if (options->stats)
        print_stats(&map);
    close_pool(&map);
    status = conclude(&map);
    run_check_trail(map.host);
    subhost_close(map.host, SUBHOST_CLOSE_EXITING, 0, NULL);
    leave(&map, status);
}
