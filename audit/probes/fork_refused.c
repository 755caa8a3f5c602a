/* What the isolated configuration forbids, and what the legacy one leaves open. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

static void attempts(int fd, enum plain_config config, const char *name)
{
    PyThreadState *main_tstate = PyThreadState_Get();
    PyThreadState *tstate = subhost__plain_interpreter(fd, config);
    subhost__see(fd, "%s:", name);
    subhost__plain_code(
        fd, "import os, subprocess\n"
            "def attempt(f, *args, **kw):\n"
            "    try: f(*args, **kw)\n"
            "    except BaseException as e: return type(e).__name__\n"
            "    return 'works'\n"
            "found = [f'{name} {attempt(f, *args, **kw)}' for name, f, args, kw in (\n"
            "    ('preexec_fn', subprocess.run, (['true'],), {'preexec_fn': int}),\n"
            "    ('subprocess', subprocess.run, (['true'],), {}),\n"
            "    ('posix_spawn', os.posix_spawn, ('/bin/true', ['true'], {}), {}))]\n"
            "seen = ', '.join(found)");
    if (config != PLAIN_LEGACY)
        subhost__plain_code(
            fd, "found = [f'{f.__name__} {attempt(f, *args)}' for f, args in (\n"
                "    (os.fork, ()), (os.forkpty, ()),\n"
                "    (os.execv, ('/bin/true', ['true'])))]\n"
                "seen = ', '.join(found)");
    Py_EndInterpreter(tstate);
    PyThreadState_Swap(main_tstate);
}

static void run(int fd)
{
    subhost__plain_python(fd);
    attempts(fd, PLAIN_OWN_GIL, "isolated");
    attempts(fd, PLAIN_LEGACY, "legacy");
    _exit(0);
}

const struct probe subhost__probe_fork_refused = {
    .id = "fork-refused",
    .title = "fork, exec and their kin in a subinterpreter, by its configuration",
    .constraint =
        "allow_fork and allow_exec are 0 in the isolated configuration: os.fork and "
        "os.execv raise; starting another program works; preexec_fn never does",
    .source = "C API, PyInterpreterConfig.allow_fork, .allow_exec; PEP 684",
    .meaning = "subprocess and posix_spawn are what code in subinterpreters can count on",
    .expected =
        {{FROM(3, 13),
          "isolated: preexec_fn RuntimeError, subprocess works, posix_spawn works; fork "
          "RuntimeError, forkpty RuntimeError, execv RuntimeError; legacy: preexec_fn "
          "RuntimeError, subprocess works, posix_spawn works"}},
    .run = run,
};
