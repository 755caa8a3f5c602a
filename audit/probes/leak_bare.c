/* What an interpreter leaves behind that has done nothing. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/leak.h"
#include "audit/probe.h"

static void run(int fd)
{
    subhost__see_leak(fd, "", 3, 12);
    _exit(0);
}

const struct probe subhost__probe_leak_bare = {
    .id = "leak-bare",
    .title = "memory left behind by creating and ending an own-GIL interpreter",
    .constraint = "before 3.14 an interpreter's memory is not all given back at its end",
    .source = "measured here; PEP 684, \"per-interpreter obmalloc\"",
    .meaning =
        "where it is not, reuse interpreters, and count how often they are replaced",
    .expected = {{FROM(3, 13), "0.8 to 3 MiB a round"},
                 {FROM(3, 14), "less than 200 KiB a round"}},
    .run = run,
};
