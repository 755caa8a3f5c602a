/* The sibling trap, in plain CPython. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

static const char sleeper[] = "import time\nos.write(ready, b'x')\ntime.sleep(60)";

static void fork_here(int fd)
{
    PyThreadState *tstate = PyThreadState_New(PyInterpreterState_Main());
    PyEval_RestoreThread(tstate);
    pid_t pid = subhost__plain_fork(fd);
    if (pid == 0)
        _exit(PyRun_SimpleString("sum(range(100))") ? 3 : 0);
    PyEval_SaveThread();
    subhost__see(fd, "worker: %s", subhost__plain_wait(pid));
}

static void run(int fd)
{
    subhost__plain_python(fd);
    PyThreadState *tstate = PyEval_SaveThread();
    subhost__plain_sibling(fd, PLAIN_OWN_GIL, sleeper);
    PyEval_RestoreThread(tstate);
    pid_t pid = subhost__plain_fork(fd);
    if (pid == 0)
        _exit(PyRun_SimpleString("sum(range(100))") ? 3 : 0);
    PyEval_SaveThread();
    subhost__see(fd, "main thread: %s", subhost__plain_wait(pid));
    subhost__plain_thread(fd, fork_here);
    _exit(0);
}

const struct probe subhost__probe_fork_with_siblings = {
    .id = "fork-with-siblings",
    .title = "a fork while a subinterpreter lives",
    .constraint =
        "PyOS_AfterFork_Child() needs the main interpreter to be the only one: any "
        "other, busy or asleep, kills the child",
    .source = "cpython#139759, cpython#101437; PyOS_AfterFork_Child()",
    .meaning =
        "without precautions no fork, on whatever thread, while a subinterpreter is "
        "there; exec (subprocess, posix_spawn) is all right",
    .expected = {{FROM(3, 13), "main thread: SIGABRT; worker: SIGABRT"},
                 {FROM(3, 14), "main thread: SIGSEGV; worker: SIGSEGV"}},
    .run = run,
};
