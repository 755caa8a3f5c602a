/* The guard against forks by C code: see guard.c. */
#ifndef SUBHOST_GUARD_H
#define SUBHOST_GUARD_H

#include <stdatomic.h>
#include <stdbool.h>

#include "error.h"

/* Starts and stops to look at the forks of this process. CPython is initialized; main
 * thread, GIL held. 0 or a negative code. */
int subhost__guard_open(subhost_error **err);
void subhost__guard_close(void);

/* The calling thread is about to fork for the host, or is done: the guard leaves that fork
 * alone. Any thread. */
void subhost__guard_own_fork(bool on);
/* In the child of such a fork, which is a host again. Async-signal-safe. */
void subhost__guard_adopt(void);

/* False there: this process was forked by C code. The kernel clears it, where it can, so that
 * no way to fork passes it by. Async-signal-safe. */
extern _Atomic(atomic_bool *) subhost__guard_mark;

static inline bool subhost__guard_is_raw(void)
{
    return !atomic_load_explicit(
        atomic_load_explicit(&subhost__guard_mark, memory_order_relaxed),
        memory_order_relaxed);
}

/* Ends such a child: status 126, and a line that says why. Async-signal-safe. */
_Noreturn void subhost__guard_end(void);
/* The same, when the code at `caller` belongs to CPython. Async-signal-safe. */
void subhost__guard_look(const void *caller);

/* In front of what a wrapped libc function does, where libpython's next step would be to run
 * Python, or to wait for a thread that this process does not have. */
#define SUBHOST_GUARD()                                                                  \
    do {                                                                                 \
        if (__builtin_expect(subhost__guard_is_raw(), 0))                                \
            subhost__guard_look(__builtin_return_address(0));                            \
    } while (0)

#endif
