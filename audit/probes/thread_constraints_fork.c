/* Thread-constraints: a fork on a thread that was in a subinterpreter before. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

static void visit_and_fork(int fd)
{
    PyThreadState *mine = PyThreadState_New(PyInterpreterState_Main());
    PyEval_RestoreThread(mine);
    PyThreadState *tstate = subhost__plain_interpreter(fd, PLAIN_OWN_GIL);
    subhost__plain_code(fd, "import threading, json");
    Py_EndInterpreter(tstate);
    PyEval_AcquireThread(mine);
    pid_t pid = subhost__plain_fork(fd);
    if (pid == 0)
        _exit(PyRun_SimpleString("import threading\n"
                                 "t = threading.Thread(target=int); t.start(); t.join()")
                  ? 3
                  : 0);
    subhost__see(fd, "child: %s", subhost__plain_wait(pid));
    PyThreadState_Clear(mine);
    PyThreadState_DeleteCurrent();
}

static void run(int fd)
{
    subhost__plain_python(fd);
    PyThreadState *tstate = PyEval_SaveThread();
    subhost__plain_thread(fd, visit_and_fork);
    PyEval_RestoreThread(tstate);
    _exit(0);
}

const struct probe subhost__probe_thread_constraints_fork = {
    .id = "thread-constraints-fork",
    .title = "a fork on a thread that has run a subinterpreter, which is gone",
    .constraint =
        "what counts at the fork is which thread state is current, and that no other "
        "interpreter lives; not what the thread did before",
    .source = "PyOS_AfterFork_Child(); measured here",
    .meaning =
        "the precaution \"fork only on a thread that never entered a subinterpreter\" is "
        "not needed",
    .expected = {{FROM(3, 13), "child: exit status 0"}},
    .run = run,
};
