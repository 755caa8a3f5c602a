/* The signal module in a subinterpreter. */
#define _GNU_SOURCE
#include <signal.h>
#include <unistd.h>

#include "audit/probe.h"

static void run(int fd)
{
    subhost__plain_python(fd);
    PyThreadState *main_tstate = PyThreadState_Get();
    subhost__plain_code(fd, "import signal\ngot = []\n"
                            "signal.signal(signal.SIGUSR1, lambda *a: got.append(1))");
    PyThreadState *tstate = subhost__plain_interpreter(fd, PLAIN_SHARED_GIL);
    subhost__plain_code(fd,
                        "import signal\n"
                        "def attempt(f, *args):\n"
                        "    try: f(*args)\n"
                        "    except BaseException as e: return type(e).__name__\n"
                        "    return 'works'\n"
                        "seen = (f'signal.signal: {attempt(signal.signal, 10, 1)}; '\n"
                        "        f'set_wakeup_fd: {attempt(signal.set_wakeup_fd, -1)}')");
    raise(SIGUSR1);
    subhost__plain_code(fd, "for i in range(100000): pass");
    PyThreadState_Swap(main_tstate);
    /* Nothing has run in main since: a handler that has run by now ran above. */
    PyObject *got =
        PyDict_GetItemString(PyModule_GetDict(PyImport_AddModule("__main__")), "got");
    bool early = PyList_GET_SIZE(got) > 0;
    subhost__plain_code(fd, "for i in range(1000): pass");
    subhost__see(fd, "a handler of main's: %s",
                 early                      ? "runs while the subinterpreter does"
                 : PyList_GET_SIZE(got) > 0 ? "waits until main runs again"
                                            : "never runs");
    PyThreadState_Swap(tstate);
    _exit(0);
}

const struct probe subhost__probe_signals_in_subinterpreter = {
    .id = "signals-in-subinterpreter",
    .title = "signal.signal, set_wakeup_fd and handlers while a subinterpreter runs on "
             "the main "
             "thread",
    .constraint =
        "Python's signal handlers belong to the main thread of the main interpreter; "
        "Ctrl-C is ignored while a subinterpreter runs there",
    .source = "signal documentation; cpython#113130, cpython#137173",
    .meaning = "a host takes signals in C, and gives each interpreter what its program "
               "asked for",
    .expected = {{FROM(3, 13),
                  "signal.signal: ValueError; set_wakeup_fd: ValueError; a handler "
                  "of main's: waits until main runs again"}},
    .run = run,
};
