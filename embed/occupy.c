/* Interpreters that CPython's own module `_interpreters` (concurrent.interpreters) leaves alone:
 * marked as running a program, as `python` marks the one it runs. Else a program can run code in
 * its parent's interpreter, under its parent's policy, or destroy it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>

#include "interp.h"

typedef int set_running_function(PyInterpreterState *interp);
typedef void set_not_running_function(PyInterpreterState *interp);

static void *look_up(const char *name) { return dlsym(RTLD_DEFAULT, name); }

void subhost__occupy(void)
{
    void *symbol = look_up("_PyInterpreterState_SetRunningMain");
    set_running_function *function;
    memcpy(&function, &symbol, sizeof function);
    if (symbol && function(PyInterpreterState_Get()) < 0)
        PyErr_Clear();
}

void subhost__vacate(void)
{
    void *symbol = look_up("_PyInterpreterState_SetNotRunningMain");
    set_not_running_function *function;
    memcpy(&function, &symbol, sizeof function);
    if (symbol)
        function(PyInterpreterState_Get());
}
