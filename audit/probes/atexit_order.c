/* What the end of an interpreter runs, and in which order. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

static void run(int fd)
{
    char code[512];
    subhost__plain_python(fd);
    PyThreadState *main_tstate = PyThreadState_Get();
    PyThreadState *tstate = subhost__plain_interpreter(fd, PLAIN_OWN_GIL);
    int ends[2];
    if (pipe(ends) != 0)
        subhost__see_failed(fd, "no pipe");
    snprintf(code, sizeof code,
             "import atexit, os, threading, time\n"
             "say = lambda word: os.write(%d, word.encode() + b' ')\n"
             "def late(): time.sleep(0.1); say('thread')\n"
             "atexit.register(say, 'atexit-1')\n"
             "atexit.register(say, 'atexit-2')\n"
             "threading.Thread(target=late).start()\n",
             ends[1]);
    subhost__plain_code(fd, code);
    Py_EndInterpreter(tstate);
    PyThreadState_Swap(main_tstate);
    char text[256] = "";
    close(ends[1]);
    ssize_t n = read(ends[0], text, sizeof text - 1);
    subhost__see(fd, "%.*s", n > 0 ? (int)n - 1 : 0, text);
    _exit(0);
}

const struct probe subhost__probe_atexit_order = {
    .id = "atexit-order",
    .title = "threads and atexit callbacks at the end of a subinterpreter",
    .constraint =
        "Py_EndInterpreter() joins the threads, then calls the interpreter's own atexit "
        "callbacks, the last one first",
    .source = "C API, Py_EndInterpreter(); atexit documentation",
    .meaning = "the end of an interpreter waits for its threads without a limit: cancel "
               "them all "
               "first",
    .expected = {{FROM(3, 13), "thread atexit-2 atexit-1"}},
    .run = run,
};
