/* Forked children of a host whose interpreters are busy. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

static const char code[] =
    "import os, sys, threading\n"
    "import subhost\n"
    "def busy():\n"
    "    while True: pass\n"
    "def loop():\n"
    "    import asyncio\n"
    "    asyncio.run(asyncio.sleep(0.001))\n"
    "    return 'loop'\n"
    "def deeper(): return subhost.current().isolation\n"
    "def child():\n"
    "    t = threading.Thread(target=int); t.start(); t.join()\n"
    "    with subhost.open_nursery() as nursery:\n"
    "        inside = nursery.start(loop).result()\n"
    "        below = nursery.start(deeper, isolation='process').result()\n"
    "    return subhost.current().isolation, inside, below\n"
    "if __name__ == '__main__':\n"
    "    with subhost.open_nursery() as nursery:\n"
    "        siblings = [nursery.start(busy) for _ in range(2)]\n"
    "        found = [nursery.start(child, isolation='process').result() for _ in "
    "range(2)]\n"
    "        for task in siblings: task.cancel()\n"
    "    os.write(int(sys.argv[1]), '; '.join(', '.join(one) for one in "
    "found).encode())\n";

static void run(int fd)
{
    subhost_host *host = subhost__hosted_open(fd, NULL);
    subhost__hosted_code(fd, host, code);
    _exit(0);
}

const struct probe subhost__probe_fork_hosted = {
    .id = "fork-hosted",
    .title = "tasks in forked children while two busy interpreters live: threads, an "
             "event loop "
             "in an interpreter, a child of its own",
    .constraint = "isolation=\"process\" works at any depth and whatever else runs",
    .source = "docs/design.md, \"Forked children\"",
    .meaning = "every extension module loads there, and the task can always be killed",
    .expected = {{FROM(3, 13), "process, loop, process; process, loop, process"}},
    .run = run,
};
