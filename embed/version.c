/* What `subhost --version` says. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <ffi.h>
#include <pthread.h>
#include <stdio.h>

#include "interp.h"
#include "subhost_config.h"

static char details[256];

static void compose(void)
{
    /* The versions that run, not the ones we were built with. libffi can say its own
     * only from 3.5 on; before that its header's is the best there is. */
    const char *(*ffi_version)(void) = NULL;
    void *symbol = dlsym(RTLD_DEFAULT, "ffi_get_version");
    __builtin_memcpy(&ffi_version, &symbol, sizeof symbol);
    snprintf(details, sizeof details, "subhost %s (CPython %lu.%lu.%lu, libffi %s, %s)",
             SUBHOST_BUILD_VERSION, Py_Version >> 24, (Py_Version >> 16) & 0xFF,
             (Py_Version >> 8) & 0xFF, symbol ? ffi_version() : SUBHOST_BUILD_LIBFFI,
             SUBHOST_BUILD_COMPILER);
}

const char *subhost_version_details(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, compose);
    return details;
}
