/* os.exec* with threads and interpreters alive. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

static void run(int fd)
{
    subhost__plain_python(fd);
    PyThreadState *tstate = PyEval_SaveThread();
    subhost__plain_sibling(fd, PLAIN_OWN_GIL, "os.write(ready, b'x')\nwhile True: pass");
    PyEval_RestoreThread(tstate);
    subhost__plain_code(fd, "import os\nos.execv('/bin/sh', ['sh', '-c', 'exit 7'])");
    _exit(0);
}

const struct probe subhost__probe_os_exec = {
    .id = "os-exec",
    .title = "os.execv in the main interpreter while a busy subinterpreter lives",
    .constraint =
        "exec replaces the whole process, with every interpreter and thread in it",
    .source = "execve(2); os documentation, \"exec*\"; C API, allow_exec",
    .meaning =
        "nothing of the host survives: an isolated configuration forbids it, and so "
        "should an embedder's policy",
    .expected = {{FROM(3, 13), "exit status 7"}},
    .run = run,
};
