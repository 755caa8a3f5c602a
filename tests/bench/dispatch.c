/* Calls through a pool, from a thread of C: latency one by one, rate in batches, and what many
 * interpreters cost. Prints one JSON object.
 *
 *   dispatch FOLDER [CALLS [ROUNDS]]    FOLDER has map_functions.py */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <subhost.h>

#define BATCH 512

static subhost_host *host;
static const char *folder;
static atomic_bool done;

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* The error is looked at after the call that may have made it: hence the pointer. */
static void check(int code, subhost_error **err)
{
    if (code >= 0)
        return;
    fprintf(stderr, "dispatch: %s\n", *err ? subhost_error_message(*err) : "failed");
    exit(1);
}

static subhost_pool *open_pool(int workers, uint64_t recycle)
{
    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    subhost_error *err = NULL;
    subhost_pool *pool;
    options.workers = workers;
    options.timeout = SUBHOST_MSEC(60000);
    options.calls = 4096;
    options.recycle_calls = recycle;
    options.spares = recycle ? 1 : 0;
    options.path0 = folder;
    check(subhost_pool_open(host, &options, &pool, &err), &err);
    return pool;
}

static subhost_call *new_call(subhost_pool *pool, const char *name, int64_t integer)
{
    subhost_function *function;
    subhost_call *call;
    subhost_error *err = NULL;
    check(subhost_pool_function(pool, name, &function, &err), &err);
    check(subhost_call_new(function, NULL, &call, &err), &err);
    subhost_value_add_int(subhost_call_argument(call), integer);
    return call;
}

/* What the main thread's loop does not need: everything is another thread's. */
static void submit(subhost_pool *pool, subhost_call **calls, size_t n)
{
    subhost_error *err = NULL;
    while (n > 0) {
        int k = subhost_pool_submit(pool, calls, n, SUBHOST_FOREVER, &err);
        check(k, &err);
        calls += k;
        n -= (size_t)k;
    }
}

static void expect(const subhost_call *call)
{
    subhost_outcome outcome = {.size = sizeof outcome};
    subhost_call_outcome(call, &outcome);
    if (outcome.kind == SUBHOST_RETURNED)
        return;
    fprintf(stderr, "dispatch: %s\n", outcome.detail);
    exit(1);
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* All workers at work at the same time: so all are there. */
static void fill(subhost_pool *pool, int workers)
{
    subhost_call **calls = calloc((size_t)workers, sizeof(subhost_call *)), *taken;
    if (!calls)
        exit(1);
    for (int i = 0; i < workers; i++)
        calls[i] = new_call(pool, "map_functions:nap", workers);
    submit(pool, calls, (size_t)workers);
    for (int i = 0; i < workers; i++) {
        subhost_error *err = NULL;
        int n = subhost_pool_take(pool, &taken, 1, SUBHOST_FOREVER, &err);
        check(n, &err);
        expect(taken);
        subhost_call_free(taken);
    }
    free(calls);
}

static void latency(const char *name, subhost_pool *pool, int workers, int n_rounds)
{
    fill(pool, workers);
    subhost_call *call = new_call(pool, "map_functions:same", 7), *taken;
    int64_t *taken_ns = calloc((size_t)n_rounds, sizeof *taken_ns);
    for (int i = -n_rounds / 10; taken_ns && i < n_rounds; i++) {
        int64_t start = now();
        submit(pool, &call, 1);
        subhost_error *err = NULL;
        check(subhost_pool_take(pool, &taken, 1, SUBHOST_FOREVER, &err), &err);
        if (i >= 0)
            taken_ns[i] = now() - start;
        expect(taken);
    }
    qsort(taken_ns, (size_t)n_rounds, sizeof *taken_ns, by_value);
    printf("\"%s_p50_us\": %.2f, \"%s_p99_us\": %.2f, \"%s_max_us\": %.2f, ", name,
           (double)taken_ns[n_rounds / 2] / 1e3, name,
           (double)taken_ns[(size_t)n_rounds * 99 / 100] / 1e3, name,
           (double)taken_ns[n_rounds - 1] / 1e3);
    fflush(stdout);
    free(taken_ns);
    subhost_call_free(call);
    /* The pool is the main thread's to close; the process ends soon. */
}

static double rate(subhost_pool *pool, int n_calls)
{
    subhost_call *batch[BATCH], *taken[BATCH];
    int64_t start = now();
    int in = 0, out = 0, idle = 8 * BATCH;
    for (; out < n_calls;) {
        while (idle > 0 && in < n_calls) {
            int n = 0;
            for (; n < BATCH && n < idle && in + n < n_calls; n++)
                batch[n] =
                    in < 8 * BATCH ? new_call(pool, "map_functions:same", n) : NULL;
            submit(pool, batch, (size_t)n);
            in += n;
            idle -= n;
        }
        subhost_error *err = NULL;
        int n = subhost_pool_take(pool, taken, BATCH, SUBHOST_FOREVER, &err);
        check(n, &err);
        for (int i = 0; i < n; i++)
            expect(taken[i]);
        out += n;
        int again = n_calls - in < n ? n_calls - in : n;
        submit(pool, taken, (size_t)again);
        in += again;
    }
    return n_calls / ((double)(now() - start) / 1e9);
}

static double resident_mib(void)
{
    long total, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file && fscanf(file, "%ld %ld", &total, &resident) != 2)
        resident = 0;
    if (file)
        fclose(file);
    return (double)resident * (double)sysconf(_SC_PAGESIZE) / 1048576;
}

static int calls = 400000, rounds = 5000;
static subhost_pool *few, *many, *recycled;

static void *measure(void *arg)
{
    (void)arg;
    printf("{");
    latency("latency", few, 2, rounds);
    printf("\"calls_per_s\": [");
    for (int i = 0; i < 3; i++) {
        printf("%s%.0f", i ? ", " : "", rate(few, calls));
    }
    printf("], ");
    subhost_pool_stats stats = {.size = sizeof stats};
    latency("recycle", recycled, 2, 5 * rounds);
    subhost_pool_get_stats(recycled, &stats);
    printf("\"recycled\": %u, ", stats.recycled);
    double before = resident_mib();
    latency("latency_64", many, 64, rounds);
    printf("\"rss_per_interpreter_mib\": %.2f}\n", (resident_mib() - before) / 64);
    atomic_store(&done, true);
    return NULL;
}

int main(int argc, char **argv)
{
    subhost_error *err = NULL;
    pthread_t thread;
    if (argc < 2)
        return 2;
    folder = argv[1];
    if (argc > 2)
        calls = atoi(argv[2]);
    if (argc > 3)
        rounds = atoi(argv[3]);
    check(subhost_open(NULL, &host, &err), &err);
    few = open_pool(2,
                    0); /* on this thread; their interpreters come when they are called */
    many = open_pool(64, 0);
    recycled = open_pool(2, 1000);
    if (pthread_create(&thread, NULL, measure, NULL) != 0)
        return 1;
    while (!atomic_load(&done))
        subhost_dispatch(host, SUBHOST_MSEC(20), NULL);
    pthread_join(thread, NULL);
    fflush(stdout);
    _exit(0);
}
