/* Whether PEP 788 is there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>

#include "audit/probe.h"

static void run(int fd)
{
    static const char *const names[] = {"PyThreadState_Ensure",
                                        "PyInterpreterView_FromMain",
                                        "PyInterpreterGuard_FromCurrent"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
        subhost__see(fd, "%s: %s", names[i],
                     dlsym(RTLD_DEFAULT, names[i]) ? "is there" : "is not there");
    _exit(0);
}

const struct probe subhost__probe_thread_state_ensure = {
    .id = "thread-state-ensure",
    .title = "the public way for a thread of C code into an interpreter of its choice",
    .constraint = "PEP 788 came with 3.15",
    .source = "PEP 788",
    .meaning =
        "before it: PyThreadState_New() on an interpreter that must be kept alive by "
        "means of one's own",
    .expected = {{FROM(3, 13),
                  "PyThreadState_Ensure: is not there; PyInterpreterView_FromMain: "
                  "is not there; PyInterpreterGuard_FromCurrent: is not there"},
                 {FROM(3, 15),
                  "PyThreadState_Ensure: is there; PyInterpreterView_FromMain: is "
                  "there; PyInterpreterGuard_FromCurrent: is there"}},
    .run = run,
};
