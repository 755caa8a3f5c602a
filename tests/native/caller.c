/* Calls a function from a thread of its own, as C libraries call back: again and again, and
 * knowing nothing of Python. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct calls {
    void (*function)(void);
    int times;
};

static void *call(void *arg)
{
    struct calls calls = *(struct calls *)arg;
    free(arg);
    for (int i = 0; i < calls.times; i++) {
        calls.function();
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    return NULL;
}

/* The new thread, to be joined; 0: it could not be started. */
unsigned long call_from_thread(void (*function)(void), int times)
{
    pthread_t thread = 0;
    struct calls *calls = malloc(sizeof *calls);
    if (!calls)
        return 0;
    *calls = (struct calls){function, times};
    if (pthread_create(&thread, NULL, call, calls) != 0) {
        free(calls);
        return 0;
    }
    return thread;
}
