/* Whether blocking calls of CPython come to the library, and its doorbell works. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

static void run(int fd)
{
    subhost_host *host = subhost__hosted_open(fd, NULL);
    subhost__see(fd, "interruptible calls: %s", subhost_interruptible_calls(host));
    subhost__see(fd, "doorbell: %s", subhost_doorbell_name(host));
    _exit(0);
}

const struct probe subhost__probe_interposed_calls = {
    .id = "interposed-calls",
    .title = "what the host needs from the dynamic linker and from CPython",
    .constraint =
        "libpython's calls of libc go through its PLT, to whoever comes first in the "
        "order of libraries; the private doorbell is exported",
    .source = "docs/design.md, \"Interruptible calls\"; ld.so(8)",
    .meaning =
        "without them a blocked thread is interrupted only where CPython can do it",
    .expected = {{FROM(3, 13), "interruptible calls: on; doorbell: pending-call"}},
    .run = run,
};
