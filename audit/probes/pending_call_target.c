/* Where pending calls run. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

#include "audit/probe.h"

typedef int add_pending(PyInterpreterState *interp, int (*function)(void *), void *arg,
                        int flags);

static int64_t ran_in; /* an interpreter's id */
static pthread_t ran_on;

static int note(void *unused)
{
    (void)unused;
    ran_in = PyInterpreterState_GetID(PyInterpreterState_Get());
    ran_on = pthread_self();
    return 0;
}

/* Long enough for a check between two bytecodes. */
static void some_bytecode(void) { PyRun_SimpleString("for i in range(10000): pass"); }

static void run(int fd)
{
    subhost__plain_python(fd);
    PyThreadState *main_tstate = PyThreadState_Get();
    PyThreadState *tstate = subhost__plain_interpreter(fd, PLAIN_OWN_GIL);
    PyInterpreterState *interp = PyThreadState_GetInterpreter(tstate);

    ran_in = -1;
    Py_AddPendingCall(note, NULL);
    some_bytecode();
    bool here = ran_in >= 0;
    PyThreadState_Swap(main_tstate);
    some_bytecode();
    subhost__see(fd, "Py_AddPendingCall in a subinterpreter: %s",
                 here          ? "runs there"
                 : ran_in == 0 ? "runs in main"
                               : "does not run");

    add_pending *add = NULL;
    void *symbol = dlsym(RTLD_DEFAULT, "_PyEval_AddPendingCall");
    memcpy(&add, &symbol, sizeof add);
    ran_in = -1;
    if (!add) {
        subhost__see(fd, "_PyEval_AddPendingCall: is not there");
        _exit(0);
    }
    int result = add(interp, note, NULL, 0);
    some_bytecode();
    bool in_main = ran_in >= 0;
    PyThreadState_Swap(tstate);
    some_bytecode();
    subhost__see(fd, "_PyEval_AddPendingCall from main: %s",
                 result                                       ? "refused"
                 : in_main                                    ? "runs in main"
                 : ran_in == PyInterpreterState_GetID(interp) ? "runs in its interpreter"
                                                              : "does not run");
    _exit(0);
}

const struct probe subhost__probe_pending_call_target = {
    .id = "pending-call-target",
    .title = "the interpreter in which a pending call runs",
    .constraint = "Py_AddPendingCall() always means the main interpreter's main thread; "
                  "_PyEval_AddPendingCall() names an interpreter",
    .source = "C API, Py_AddPendingCall(); cpython#104812; docs/private-symbols.md",
    .meaning =
        "the public function cannot wake a subinterpreter: subhost uses the private one "
        "where it is there, and attaches a thread where it is not",
    .expected = {{FROM(3, 13),
                  "Py_AddPendingCall in a subinterpreter: runs in main; "
                  "_PyEval_AddPendingCall from main: runs in its interpreter"}},
    .run = run,
};
