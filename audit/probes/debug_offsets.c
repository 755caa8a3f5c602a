/* Whether the debug offsets lead to the interpreters. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"
#include "embed/siblings.h"

static void run(int fd)
{
    subhost__plain_python(fd);
    PyThreadState *main_tstate = PyThreadState_Get();
    for (int i = 0; i < 3; i++) {
        subhost__plain_interpreter(fd, PLAIN_OWN_GIL);
        PyThreadState_Swap(main_tstate);
    }
    const char *why = subhost__siblings_check(false);
    subhost__see(fd, "%s", why ? why : "they lead to all of them");
    _exit(0);
}

const struct probe subhost__probe_debug_offsets = {
    .id = "debug-offsets",
    .title = "the offsets at the start of _PyRuntime, with four interpreters",
    .constraint = "debuggers find the list of interpreters by them",
    .source = "PEP 768; pycore_debug_offsets.h; docs/private-symbols.md",
    .meaning =
        "where they do not lead there, forks with other interpreters alive are refused",
    .expected = {{FROM(3, 13), "they lead to all of them"}},
    .run = run,
};
