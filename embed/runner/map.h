/* `subhost map`: see map.c. */
#ifndef RUNNER_MAP_H
#define RUNNER_MAP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "clock.h"
#include "fds.h"
#include "json.h"
#include "options.h"

struct map_options {
    const char *function; /* MODULE:FUNCTION */
    int n_files;
    char **files;
    int jobs; /* 0: as many as CPUs */
    int retry;
    bool unordered, stats, help;
    enum subhost_isolation isolation;
    uint64_t recycle;
    bool fresh, reset;
    const char *resume;
    const char *policy; /* NULL: the default one */
    struct settings settings;
    struct natives natives;
};

/* A line of input, from its reading to its writing. */
struct item {
    struct item *next;
    uint64_t index;
    subhost_call *call;
    size_t bytes; /* of argument and result, as counted in map->bytes */
    int tries;
    bool is_bad; /* no JSON value: `error` says why */
    struct text error;
};

/* What the three threads share: the main one, which runs the host, one that reads and parses,
 * one that prints and writes. */
struct map {
    const struct map_options *options;
    struct fds fds; /* the input and the output: 0 and 1 are not */
    subhost_policy *policy;
    int64_t timeout, grace; /* the policy's */
    bool one_gil;           /* for all interpreters */
    subhost_host *host;
    subhost_pool *pool;
    pthread_rwlock_t
        gate;    /* taken to read around what others than main do with the pool */
    bool closed; /* the pool, under gate */
    subhost_function *function;
    struct item *items;
    size_t n_items;
    subhost_call *import; /* for an input without a line: the function must be there */

    pthread_mutex_t lock;
    pthread_cond_t room; /* an item became free, or it is time to stop */
    /* Under lock: */
    struct item *free_items, *bad_items, **bad_tail;
    char *failure; /* of the run as a whole; owned */
    int status;    /* that goes with it; 0: none */

    atomic_bool stop;         /* nothing more is read or begun */
    atomic_bool all_read;     /* `lines` is final */
    atomic_bool importing;    /* `import` is in the pool */
    atomic_bool all_written;  /* or given up */
    atomic_ullong lines;      /* read so far */
    atomic_ullong skip;       /* of these: were done before this run (--resume) */
    atomic_ullong bytes_read; /* of `bytes_total`, which is 0 when nobody knows */
    uint64_t bytes_total;
    atomic_ullong written, failed;
    atomic_size_t bytes;       /* of the items that are on their way */
    atomic_size_t result_size; /* of an item lately: argument and result */
    int done_fd;               /* readable when the writer has ended */
    bool broken_pipe;
    atomic_int
        cancelled; /* the status of what was ended, but not by a signal to the runner */
    struct journal *journal; /* NULL: none */
};

int map_parse(int argc, char **argv, struct map_options *options);
void map_print_help(void);
int map_command(const struct map_options *options);

/* The whole run ends, with this message and status; the first one counts. */
void map_fail(struct map *map, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same, without an end of the run: what was read so far is done. */
void map_note(struct map *map, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Nothing more is read or begun. Any thread. */
void map_stop(struct map *map);
/* As subhost_pool_submit() and subhost_pool_wake(), for threads that may outlive the pool:
 * SUBHOST_ESTATE then, or nothing. */
int map_submit(struct map *map, subhost_call *const *calls, size_t n, int64_t timeout,
               subhost_error **err);
void map_wake(struct map *map);

/* The two threads. */
void *map_read(void *map);
void *map_write(void *map);

/* Whether a FILE is standard input. */
bool map_is_standard_input(const char *name);

/* map_progress.c: a line on a terminal; `last`: and its end. */
void map_progress(const struct map *map, int64_t started_at, bool last);

#endif
