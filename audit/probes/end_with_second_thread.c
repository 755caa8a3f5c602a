/* Py_EndInterpreter() while another thread state of the interpreter exists. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

static PyInterpreterState *interp;

/* Attaches, and goes away with its thread state left behind. */
static void visit(int fd)
{
    (void)fd;
    PyThreadState *tstate = PyThreadState_New(interp);
    PyEval_RestoreThread(tstate);
    PyEval_SaveThread();
}

static void run(int fd)
{
    subhost__plain_python(fd);
    PyThreadState *tstate = subhost__plain_interpreter(fd, PLAIN_OWN_GIL);
    interp = PyThreadState_GetInterpreter(tstate);
    PyEval_SaveThread();
    subhost__plain_thread(fd, visit);
    PyEval_RestoreThread(tstate);
    Py_EndInterpreter(tstate);
    subhost__see(fd, "the interpreter ends");
    _exit(0);
}

const struct probe subhost__probe_end_with_second_thread = {
    .id = "end-with-second-thread",
    .title = "Py_EndInterpreter() while another thread has a thread state there",
    .constraint =
        "up to 3.13 the thread state given must be the last one: anything else is a "
        "fatal error of the whole process; from 3.14 on the others are deleted",
    .source = "C API, Py_EndInterpreter(); cpython#128639",
    .meaning =
        "who keeps thread states for threads of its own must have them all back before "
        "the end: one that is late takes the process with it, or its thread hangs",
    .expected = {{FROM(3, 13),
                  "SIGABRT (Fatal Python error: Py_EndInterpreter: not the last "
                  "thread)"},
                 {FROM(3, 14), "the interpreter ends"}},
    .run = run,
};
