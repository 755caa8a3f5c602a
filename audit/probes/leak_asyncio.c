/* What an interpreter leaves behind that has imported asyncio. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/leak.h"
#include "audit/probe.h"

static void run(int fd)
{
    subhost__see_leak(fd, "import asyncio", 1, 4);
    _exit(0);
}

const struct probe subhost__probe_leak_asyncio = {
    .id = "leak-asyncio",
    .title = "memory left behind by an own-GIL interpreter that has imported asyncio",
    .constraint =
        "what extension modules allocate is not all given back at an interpreter's end",
    .source = "measured here",
    .meaning = "what a program imports can leave more behind than the interpreter itself",
    .expected = {{FROM(3, 13), "more than 3 MiB a round"},
                 {FROM(3, 14), "200 to 800 KiB a round"}},
    .run = run,
    .limit = SUBHOST_MSEC(20000),
};
