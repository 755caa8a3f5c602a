/* PyGILState_Ensure() in threads of C code.
 *
 * A thread that CPython does not know gets a thread state of the main interpreter there,
 * whichever interpreter's program, or library, started it. What it then calls (a ctypes
 * callback, say) runs without the GIL that guards it, and allocates from another
 * interpreter's memory: the process dies of a corrupted heap (cpython#59956). Such a thread
 * has a record here, for pthread_create() is interposed, so it gets a thread state of the
 * interpreter that started it, and may be cancelled like any other of its threads. When that
 * interpreter has ended it gets none and waits for ever, as CPython has it at its own end.
 *
 * Extension modules call this function, not libpython's, when the library comes before
 * libpython in the order of the program's libraries. libpython's own calls need not come
 * here. Weak: a libpython that is linked into the program keeps its own. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>

#include "guard.h"
#include "interp.h"

static __typeof__(PyGILState_Ensure) *real_ensure;

__attribute__((constructor)) static void resolve(void)
{
    void *symbol = dlsym(RTLD_NEXT, "PyGILState_Ensure");
    memcpy(&real_ensure, &symbol, sizeof symbol);
}

__attribute__((visibility("default"), weak)) PyGILState_STATE PyGILState_Ensure(void)
{
    if (!real_ensure)
        resolve();
    if (subhost__guard_is_raw())
        subhost__guard_end(); /* before it waits for a lock of CPython's */
    struct thread *self = subhost__thread_self();
    bool entered =
        self && !PyGILState_GetThisThreadState() && subhost__thread_enter(self);
    PyGILState_STATE state = real_ensure();
    if (entered && !atomic_load(&self->raise_pending))
        subhost__raise_forget(self->interp, self); /* left over; now with the GIL */
    return state;
}
