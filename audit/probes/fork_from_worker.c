/* The four scenarios of forking an interpreter, in plain CPython without other subinterpreters
 * alive, but for the control. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

static const char threads[] =
    "import threading\nt = threading.Thread(target=int); t.start(); t.join()\n";
static const char loop[] = "import asyncio\nasyncio.run(asyncio.sleep(0.001))\n";

static void in_subinterpreter(int fd)
{
    PyThreadState *mine = PyThreadState_New(PyInterpreterState_Main());
    PyEval_RestoreThread(mine);
    subhost__plain_interpreter(fd, PLAIN_LEGACY);
    subhost__plain_code(fd, "import os\npid = os.fork()\n"
                            "if pid == 0: os._exit(0)\n");
    PyObject *pid =
        PyDict_GetItemString(PyModule_GetDict(PyImport_AddModule("__main__")), "pid");
    pid_t child = (pid_t)PyLong_AsLong(pid);
    subhost__see(fd, "in a subinterpreter: %s", subhost__plain_wait(child));
    Py_EndInterpreter(PyThreadState_Get());
    PyEval_AcquireThread(mine);
    PyThreadState_Clear(mine);
    PyThreadState_DeleteCurrent();
}

static void on_worker(int fd)
{
    PyThreadState *mine = PyThreadState_New(PyInterpreterState_Main());
    PyEval_RestoreThread(mine);
    pid_t pid = subhost__plain_fork(fd);
    if (pid == 0)
        _exit(PyRun_SimpleString(threads) ? 3 : 0);
    subhost__see(fd, "on a worker: %s", subhost__plain_wait(pid));
    pid = subhost__plain_fork(fd);
    if (pid == 0) {
        subhost__plain_interpreter(fd, PLAIN_OWN_GIL);
        int failed = PyRun_SimpleString(threads) || PyRun_SimpleString(loop);
        _exit(failed ? 3 : 0);
    }
    subhost__see(fd, "on a worker, its child runs a loop in a subinterpreter: %s",
                 subhost__plain_wait(pid));
    PyThreadState_Clear(mine);
    PyThreadState_DeleteCurrent();
}

static void run(int fd)
{
    subhost__plain_python(fd);
    PyThreadState *tstate = PyEval_SaveThread();
    subhost__plain_thread(fd, in_subinterpreter);
    PyEval_RestoreThread(tstate);
    pid_t pid = subhost__plain_fork(fd);
    if (pid == 0)
        _exit(PyRun_SimpleString(threads) ? 3 : 0);
    subhost__see(fd, "on the main thread: %s", subhost__plain_wait(pid));
    PyEval_SaveThread();
    subhost__plain_thread(fd, on_worker);
    _exit(0);
}

const struct probe subhost__probe_fork_from_worker = {
    .id = "fork-from-worker",
    .title = "a fork in a subinterpreter, on the main thread, on a worker thread, and "
             "one whose "
             "child creates a subinterpreter",
    .constraint =
        "fork belongs to the main thread of the main interpreter; in a subinterpreter "
        "the child ends at once",
    .source = "C API, \"Cautions about fork()\"; PyOS_AfterFork_Child()",
    .meaning =
        "a thread of its own, attached to the main interpreter, can fork, as long as no "
        "subinterpreter lives (fork-with-siblings)",
    .expected =
        {{FROM(3, 13),
          "in a subinterpreter: exit status 1; on the main thread: exit status 0; on a "
          "worker: exit status 0; on a worker, its child runs a loop in a "
          "subinterpreter: exit status 0"}},
    .run = run,
};
