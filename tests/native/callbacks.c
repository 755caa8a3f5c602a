/* Functions that call back, for callbacks.t: at once, later, nested, from other threads. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FUNCTION(type, name, params)                                                     \
    type name params;                                                                    \
    type name params

struct point {
    double x, y;
};
FUNCTION(int64_t, call_i64, (int64_t(*f)(int64_t), int64_t value)) { return f(value); }
FUNCTION(int8_t, call_i8, (int8_t(*f)(int8_t), int8_t value)) { return f(value); }
FUNCTION(uint64_t, call_u64, (uint64_t(*f)(uint64_t), uint64_t value))
{
    return f(value);
}
FUNCTION(float, call_f32, (float (*f)(float), float value)) { return f(value); }
FUNCTION(double, call_f64, (double (*f)(double), double value)) { return f(value); }
FUNCTION(_Bool, call_bool, (_Bool(*f)(_Bool), _Bool value)) { return f(value); }
FUNCTION(void, call_str, (void (*f)(const char *), const char *value)) { f(value); }
FUNCTION(void *, call_ptr, (void *(*f)(void *), void *value)) { return f(value); }
FUNCTION(struct point, call_point, (struct point(*f)(struct point), struct point value))
{
    return f(value);
}
FUNCTION(int, call_bytes, (int (*f)(const void *, size_t), const char *text))
{
    return f(text, strlen(text));
}
FUNCTION(void, call_fill, (void (*f)(char *, uint32_t), char *to, uint32_t n))
{
    f(to, n);
}
FUNCTION(void, call_void, (void (*f)(void))) { f(); }
FUNCTION(int, is_null, (void (*f)(void))) { return !f; }

/* How often it returned 0; goes on after an exception, as C does. */
FUNCTION(int, count_zeros, (int (*f)(int), int times))
{
    int zeros = 0;
    for (int i = 0; i < times; i++)
        zeros += f(i) == 0;
    return zeros;
}

/* The same for 1, under a name of its own: to be bound in another way. */
FUNCTION(int, count_ones, (int (*f)(int), int times))
{
    int ones = 0;
    for (int i = 0; i < times; i++)
        ones += f(i) == 1;
    return ones;
}

static int (*_Atomic kept)(int);
FUNCTION(void, keep, (int (*f)(int))) { atomic_store(&kept, f); }
FUNCTION(int, call_kept, (int value))
{
    int (*f)(int) = atomic_load(&kept);
    return f ? f(value) : -99;
}

/* On threads of its own. */
struct job {
    int (*f)(int);
    int value, result;
};
static void *run_job(void *arg)
{
    struct job *job = arg;
    job->result = job->f(job->value);
    return NULL;
}
FUNCTION(int, call_on_threads, (int (*f)(int), int threads))
{
    struct job jobs[64];
    pthread_t ids[64];
    int sum = 0;
    for (int i = 0; i < threads && i < 64; i++) {
        jobs[i] = (struct job){f, i, 0};
        if (pthread_create(&ids[i], NULL, run_job, &jobs[i]) != 0)
            return -1;
    }
    for (int i = 0; i < threads && i < 64; i++) {
        pthread_join(ids[i], NULL);
        sum += jobs[i].result;
    }
    return sum;
}

/* After the function has returned, and after its program has ended. */
struct later {
    int (*f)(int);
    int times;
};
static void *run_later(void *arg)
{
    struct later later = *(struct later *)arg;
    free(arg);
    int defaults = 0;
    for (int i = 0; i < later.times; i++) {
        struct timespec t = {0, 1000000};
        defaults += later.f(i) == -7;
        nanosleep(&t, NULL);
    }
    fprintf(stderr, "defaults: %d of %d\n", defaults, later.times);
    return NULL;
}
static pthread_t later_thread;
FUNCTION(int, call_later, (int (*f)(int), int times))
{
    struct later *later = malloc(sizeof *later);
    if (!later)
        return -1;
    *later = (struct later){f, times};
    return pthread_create(&later_thread, NULL, run_later, later);
}
