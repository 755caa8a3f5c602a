/* Whether the thread's C stack has room for a call.
 *
 * Up to CPython 3.13 recursion is only counted, with limits that are meant for frames of
 * CPython's own. A bound function and its callback, which call each other, have frames of
 * libffi's and of any C library's between them, and may be on a small stack. */
#define _GNU_SOURCE
#include "native.h"

#include <pthread.h>

#if PY_VERSION_HEX < 0x030E0000

/* What a call finds at least: enough for what C libraries do, and for Python to handle the
 * exception. Of a small stack a part of it must do. */
#define RESERVE ((size_t)64 << 10)
#define PART_OF_SMALL 4

/* Until the end is known all of memory is near it. */
_Thread_local struct native_stack subhost__native_stack = {0, SIZE_MAX};

static void find_end(void)
{
    struct native_stack *stack = &subhost__native_stack;
    pthread_attr_t attr;
    void *end = NULL;
    size_t size = 0;
    stack->reserve = 0;
    if (pthread_getattr_np(pthread_self(), &attr) != 0)
        return;
    if (pthread_attr_getstack(&attr, &end, &size) == 0) {
        stack->end = (uintptr_t)end;
        stack->reserve = size / PART_OF_SMALL < RESERVE ? size / PART_OF_SMALL : RESERVE;
    }
    pthread_attr_destroy(&attr);
}

bool subhost__stack_look_closer(const char *what)
{
    if (subhost__native_stack.reserve == SIZE_MAX)
        find_end();
    if (!subhost__stack_is_near_end())
        return true;
    PyErr_Format(
        PyExc_RecursionError,
        "maximum recursion depth exceeded: too little of the thread's C stack is "
        "left for %s",
        what);
    return false;
}

#endif
