/* How many pending calls fit. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

#include "audit/probe.h"

typedef int add_pending(PyInterpreterState *interp, int (*function)(void *), void *arg,
                        int flags);

static int nothing(void *unused)
{
    (void)unused;
    return 0;
}

static void run(int fd)
{
    subhost__plain_python(fd);
    PyThreadState *main_tstate = PyThreadState_Get();
    PyThreadState *tstate = subhost__plain_interpreter(fd, PLAIN_OWN_GIL);
    PyInterpreterState *interp = PyThreadState_GetInterpreter(tstate);
    PyThreadState_Swap(main_tstate);
    int count = 0;
    while (count < 10000 && Py_AddPendingCall(nothing, NULL) == 0)
        count++;
    subhost__see(fd, "main: %d", count);
    add_pending *add = NULL;
    void *symbol = dlsym(RTLD_DEFAULT, "_PyEval_AddPendingCall");
    memcpy(&add, &symbol, sizeof add);
    for (count = 0; add && count < 10000 && add(interp, nothing, NULL, 0) == 0;)
        count++;
    subhost__see(fd, "a subinterpreter: %d", count);
    _exit(0);
}

const struct probe subhost__probe_pending_call_capacity = {
    .id = "pending-call-capacity",
    .title = "how many pending calls can wait",
    .constraint = "the queues are bounded: 32 for the main interpreter, 300 for another",
    .source = "cpython#110693; Py_AddPendingCall() returns -1 when it is full",
    .meaning =
        "a pending call is a doorbell, not a queue of messages: ring it once for a batch",
    .expected = {{FROM(3, 13), "main: 32; a subinterpreter: 300"}},
    .run = run,
};
