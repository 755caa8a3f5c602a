/* Monotonic time and waits with absolute deadlines. */
#define _GNU_SOURCE
#include "interp.h"

#include <errno.h>
#include <time.h>

#define NSEC_PER_SEC INT64_C(1000000000)

int64_t subhost__now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

int64_t subhost__deadline(int64_t timeout)
{
    if (timeout == SUBHOST_FOREVER)
        return SUBHOST_FOREVER;
    int64_t deadline;
    if (__builtin_add_overflow(subhost__now(), timeout < 0 ? 0 : timeout, &deadline))
        return SUBHOST_FOREVER;
    return deadline;
}

struct timespec subhost__timespec(int64_t ns)
{
    return (struct timespec){.tv_sec = ns / NSEC_PER_SEC, .tv_nsec = ns % NSEC_PER_SEC};
}

int subhost__cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    int error = pthread_condattr_init(&attr);
    if (error)
        return error;
    error = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    if (!error)
        error = pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
    return error;
}

bool subhost__cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t deadline)
{
    if (deadline == SUBHOST_FOREVER) {
        /* "For ever" still wakes now and then: no wait here is unbounded, and whoever
         * waits looks at its condition again anyway. */
        deadline = subhost__now() + 3600 * NSEC_PER_SEC;
        struct timespec t = subhost__timespec(deadline);
        pthread_cond_timedwait(cond, lock, &t);
        return true;
    }
    struct timespec t = subhost__timespec(deadline);
    return pthread_cond_timedwait(cond, lock, &t) != ETIMEDOUT;
}
