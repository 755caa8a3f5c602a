/* Thread-constraints: an interpreter's end on another thread than its creator's, and after a
 * third one has run it. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

static PyThreadState *created;
static PyInterpreterState *interp;

static void create(int fd)
{
    PyThreadState *mine = PyThreadState_New(PyInterpreterState_Main());
    PyEval_RestoreThread(mine);
    created = subhost__plain_interpreter(fd, PLAIN_OWN_GIL);
    interp = PyThreadState_GetInterpreter(created);
    PyThreadState_Swap(mine);
    PyThreadState_Clear(mine);
    PyThreadState_DeleteCurrent();
}

/* A cached thread: its thread state is kept between two visits, and given back at the end. */
static void work(int fd)
{
    PyThreadState *mine = PyThreadState_New(interp);
    for (int i = 0; i < 3; i++) {
        PyEval_RestoreThread(mine);
        subhost__plain_code(fd, "import threading, json; json.dumps([1])");
        PyEval_SaveThread();
    }
    PyEval_RestoreThread(mine);
    PyThreadState_Clear(mine);
    PyThreadState_DeleteCurrent();
}

static void destroy(int fd)
{
    (void)fd;
    PyEval_RestoreThread(created);
    Py_EndInterpreter(created);
}

static void run(int fd)
{
    subhost__plain_python(fd);
    PyThreadState *tstate = PyEval_SaveThread();
    subhost__plain_thread(fd, create);
    subhost__plain_thread(fd, destroy);
    subhost__see(fd, "on another thread than the creator's: ends");
    subhost__plain_thread(fd, create);
    subhost__plain_thread(fd, work);
    subhost__plain_thread(fd, destroy);
    subhost__see(fd, "after a cached thread ran it: ends");
    PyEval_RestoreThread(tstate);
    subhost__see(fd, "Py_FinalizeEx: %d", Py_FinalizeEx());
    _exit(0);
}

const struct probe subhost__probe_thread_constraints_destroy = {
    .id = "thread-constraints-destroy",
    .title = "create, run and end an interpreter on three different threads",
    .constraint =
        "an interpreter is not bound to a thread, as long as each thread state is given "
        "back before the end",
    .source = "C API, Py_EndInterpreter(), PyThreadState_New()",
    .meaning = "the precaution \"end it on the thread that made it\" is not needed with "
               "a GIL of "
               "its own",
    .expected = {{FROM(3, 13),
                  "on another thread than the creator's: ends; after a cached thread "
                  "ran it: ends; Py_FinalizeEx: 0"}},
    .run = run,
};
