/* The runner's clock: the library's own is not in its public header. */
#ifndef SUBHOST_RUNNER_CLOCK_H
#define SUBHOST_RUNNER_CLOCK_H

#include <stdint.h>
#include <time.h>

/* CLOCK_MONOTONIC, in nanoseconds, as the library's deadlines. Any thread. */
static inline int64_t clock_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

#endif
