/* What an interposer calls in the end: the next definition of each function that it wraps. */
#ifndef SUBHOST_INTERPOSE_REAL_H
#define SUBHOST_INTERPOSE_REAL_H

#include <dlfcn.h>
#include <stdint.h>
#include <string.h>

/* A sanitizer's runtime that is linked into the program offers its own under another name,
 * which must not be passed by. */
#define DECLARE_REAL(name)                                                               \
    static __typeof__(name) *real_##name;                                                \
    extern __typeof__(name) __interceptor_##name __attribute__((weak));

#define RESOLVE_REAL(name)                                                               \
    {                                                                                    \
        void *symbol = (void *)(uintptr_t)__interceptor_##name;                          \
        if (!symbol)                                                                     \
            symbol = dlsym(RTLD_NEXT, #name);                                            \
        memcpy(&real_##name, &symbol, sizeof symbol);                                    \
    }

/* real_NAME of each in the list WRAPPED(X), found when the library is loaded, because dlsym()
 * is nothing for a child between fork and exec. */
#define FIND_REAL(WRAPPED)                                                               \
    WRAPPED(DECLARE_REAL)                                                                \
    __attribute__((constructor)) static void resolve(void) { WRAPPED(RESOLVE_REAL) }

/* Another library's constructor may have come first. */
#define REAL(name)                                                                       \
    if (__builtin_expect(!real_##name, 0))                                               \
        resolve();

#endif
