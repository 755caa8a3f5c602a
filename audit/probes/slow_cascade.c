/* The cancel of a deep tree. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

static const char code[] =
    "import os, sys, time\n"
    "import subhost\n"
    "def node(depth, pipe):\n"
    "    if depth == 4:\n"
    "        with open(pipe, 'wb', buffering=0) as file: file.write(b'x')\n"
    "        while True: time.sleep(60)\n"
    "    with subhost.open_nursery() as nursery:\n"
    "        nursery.start(node, depth + 1, pipe,\n"
    "                      isolation='process' if depth % 2 else 'interpreter')\n"
    "if __name__ == '__main__':\n"
    "    r, w = os.pipe()\n"
    "    with subhost.open_nursery() as nursery:\n"
    "        task = nursery.start(node, 0, f'/proc/{os.getpid()}/fd/{w}')\n"
    "        os.read(r, 1)\n"
    "        since = time.monotonic()\n"
    "        task.cancel()\n"
    "    seconds = time.monotonic() - since\n"
    "    words = 'within one grace period' if seconds < 1.5 else f'after {seconds:.1f} "
    "s'\n"
    "    os.write(int(sys.argv[1]), words.encode())\n";

static void run(int fd)
{
    subhost_host *host = subhost__hosted_open(fd, NULL);
    subhost__hosted_code(fd, host, code);
    _exit(0);
}

const struct probe subhost__probe_slow_cascade = {
    .id = "slow-cascade",
    .title =
        "the cancel of a tree five levels deep, interpreters and forked children in turn",
    .constraint =
        "a cancel reaches the whole tree at once, and not level by level with a timeout "
        "each",
    .source = "docs/cancel.md; docs/design.md, \"Nurseries\"",
    .meaning = "depth does not add up to waiting",
    .expected = {{FROM(3, 13), "within one grace period"}},
    .run = run,
};
