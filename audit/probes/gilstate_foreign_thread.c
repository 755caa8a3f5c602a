/* PyGILState_Ensure() on a thread of C code, in plain CPython. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

#include "audit/probe.h"

static int64_t entered = -1;

static void enter(int fd)
{
    (void)fd;
    PyGILState_STATE state = PyGILState_Ensure();
    entered = PyInterpreterState_GetID(PyInterpreterState_Get());
    PyGILState_Release(state);
}

static void run(int fd)
{
    subhost__plain_python(fd);
    PyThreadState *main_tstate = PyThreadState_Get();
    PyEval_SaveThread();
    int before = PyGILState_Check();
    PyEval_RestoreThread(main_tstate);
    PyThreadState *tstate = subhost__plain_interpreter(fd, PLAIN_OWN_GIL);
    /* As a callback does it, whose C code was called in the subinterpreter. */
    PyEval_SaveThread();
    subhost__plain_thread(fd, enter);
    subhost__see(fd, "the thread is in %s",
                 entered == 0 ? "the main interpreter" : "the subinterpreter");
    int after = PyGILState_Check();
    subhost__see(fd,
                 "PyGILState_Check() without a GIL: %d before, %d after a subinterpreter",
                 before, after);
    PyEval_RestoreThread(tstate);
    _exit(0);
}

const struct probe subhost__probe_gilstate_foreign_thread = {
    .id = "gilstate-foreign-thread",
    .title = "the interpreter that PyGILState_Ensure() enters on a thread of C code",
    .constraint =
        "it knows the main interpreter only; PyGILState_Check() says 1 for ever once "
        "there has been a subinterpreter",
    .source =
        "cpython#59956; C API, \"Non-Python created threads\"; ctypes documentation",
    .meaning =
        "callbacks from threads run without the GIL of the objects that they use; up to "
        "3.14 there is no public way to enter another interpreter without its pointer",
    .expected = {{FROM(3, 13),
                  "the thread is in the main interpreter; PyGILState_Check() without "
                  "a GIL: 0 before, 1 after a subinterpreter"}},
    .run = run,
};
