/* What PyThreadState_SetAsyncExc() finds. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

static void run(int fd)
{
    subhost__plain_python(fd);
    PyThreadState *main_tstate = PyThreadState_Get();
    PyThreadState *tstate = subhost__plain_interpreter(fd, PLAIN_OWN_GIL);
    unsigned long ident = PyThread_get_thread_ident();
    PyThreadState_Swap(main_tstate);
    /* This thread has a state in both; from main only main's is found. */
    int found = PyThreadState_SetAsyncExc(ident, PyExc_KeyError);
    int raised = PyRun_SimpleString("for i in range(1000): pass");
    subhost__see(fd, "from main: %d found, raised in main: %s", found,
                 raised ? "yes" : "no");
    PyThreadState_Swap(tstate);
    raised = PyRun_SimpleString("for i in range(1000): pass");
    subhost__see(fd, "raised in the subinterpreter: %s", raised ? "yes" : "no");
    found = PyThreadState_SetAsyncExc(ident, PyExc_KeyError);
    raised = PyRun_SimpleString("for i in range(1000): pass");
    subhost__see(fd, "from there: %d found, raised there: %s", found,
                 raised ? "yes" : "no");
    _exit(0);
}

const struct probe subhost__probe_async_exc_scope = {
    .id = "async-exc-scope",
    .title = "the thread states that PyThreadState_SetAsyncExc() looks at",
    .constraint =
        "only those of the current interpreter, by thread id; 1 says that one was "
        "found, and not which",
    .source = "C API, PyThreadState_SetAsyncExc()",
    .meaning = "to stop code in an interpreter one must be attached to it",
    .expected = {{FROM(3, 13),
                  "from main: 1 found, raised in main: yes; raised in the "
                  "subinterpreter: no; from there: 1 found, raised there: yes"}},
    .run = run,
};
