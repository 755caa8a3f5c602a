/* Daemon threads in a subinterpreter. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

static const char code[] =
    "import threading\n"
    "def attempt(daemon):\n"
    "    try:\n"
    "        t = threading.Thread(target=int, daemon=daemon); t.start(); t.join()\n"
    "    except RuntimeError as e: return type(e).__name__\n"
    "    return 'works'\n"
    "seen = f'thread: {attempt(False)}, daemon thread: {attempt(True)}'\n";

static void run(int fd)
{
    subhost__plain_python(fd);
    PyThreadState *main_tstate = PyThreadState_Get();
    PyThreadState *tstate = subhost__plain_interpreter(fd, PLAIN_OWN_GIL);
    subhost__see(fd, "isolated:");
    subhost__plain_code(fd, code);
    Py_EndInterpreter(tstate);
    PyThreadState_Swap(main_tstate);
    subhost__plain_interpreter(fd, PLAIN_LEGACY);
    subhost__see(fd, "legacy:");
    subhost__plain_code(fd, code);
    _exit(0);
}

const struct probe subhost__probe_daemon_threads = {
    .id = "daemon-threads",
    .title = "daemon threads in a subinterpreter, by its configuration",
    .constraint =
        "allow_daemon_threads is 0 in the isolated configuration: starting one raises",
    .source = "C API, PyInterpreterConfig.allow_daemon_threads",
    .meaning =
        "libraries that keep a daemon thread fail there; subhost allows them, and ends "
        "them itself",
    .expected = {{FROM(3, 13),
                  "isolated: thread: works, daemon thread: RuntimeError; legacy: "
                  "thread: works, daemon thread: works"}},
    .run = run,
};
