/* The way out of the sibling trap. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"
#include "embed/siblings.h"

static const char child_code[] = "import threading, asyncio\n"
                                 "t = threading.Thread(target=int); t.start(); t.join()\n"
                                 "asyncio.run(asyncio.sleep(0.001))\n";

static void run(int fd)
{
    subhost__plain_python(fd);
    const char *why = subhost__siblings_check(false);
    if (why)
        subhost__see_failed(fd, "%s", why);
    PyThreadState *tstate = PyEval_SaveThread();
    subhost__plain_sibling(fd, PLAIN_OWN_GIL, "os.write(ready, b'x')\nwhile True: pass");
    subhost__plain_sibling(fd, PLAIN_SHARED_GIL,
                           "import time\nos.write(ready, b'x')\ntime.sleep(60)");
    PyEval_RestoreThread(tstate);
    PyOS_BeforeFork();
    pid_t pid = fork();
    if (pid == 0) {
        subhost__siblings_detach();
        PyOS_AfterFork_Child();
        if (PyRun_SimpleString(child_code))
            _exit(3);
        subhost__plain_interpreter(fd, PLAIN_OWN_GIL);
        _exit(PyRun_SimpleString(child_code) ? 4 : 0);
    }
    PyOS_AfterFork_Parent();
    subhost__see(fd, "child: %s", subhost__plain_wait(pid));
    _exit(0);
}

const struct probe subhost__probe_fork_with_siblings_detached = {
    .id = "fork-with-siblings-detached",
    .title = "a fork while subinterpreters live, which are taken off the runtime's list "
             "in the "
             "child",
    .constraint =
        "before PyOS_AfterFork_Child() the child makes main the only interpreter; "
        "threads, an event loop and a new subinterpreter work in it",
    .source = "docs/private-symbols.md; the debug offsets at the start of _PyRuntime",
    .meaning = "this is how subhost forks; embedders get it by isolation=\"process\"",
    .expected = {{FROM(3, 13), "child: exit status 0"}},
    .run = run,
};
