/* Shared memory in a forked child. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

static const char code[] =
    "import os, sys\n"
    "import subhost\n"
    "from multiprocessing import resource_tracker, shared_memory\n"
    "def child(name):\n"
    "    theirs = shared_memory.SharedMemory(name=name, track=False)\n"
    "    theirs.buf[1] = theirs.buf[0] + 1\n"
    "    theirs.close()\n"
    "    own = shared_memory.SharedMemory(create=True, size=64)\n"
    "    own.close(); own.unlink()\n"
    "    return resource_tracker._resource_tracker._pid\n"
    "if __name__ == '__main__':\n"
    "    memory = shared_memory.SharedMemory(create=True, size=64)\n"
    "    try:\n"
    "        memory.buf[0] = 41\n"
    "        with subhost.open_nursery() as nursery:\n"
    "            tracker = nursery.start(child, memory.name, "
    "isolation='process').result()\n"
    "        own = tracker != resource_tracker._resource_tracker._pid\n"
    "        there = os.path.exists('/dev/shm/' + memory.name)\n"
    "        found = (f'shared: {memory.buf[1] == 42}, a tracker of its own: {own}, '\n"
    "                 f'the parent\\'s memory stays: {there}')\n"
    "    finally:\n"
    "        memory.close(); memory.unlink()\n"
    "    os.write(int(sys.argv[1]), found.encode())\n";

static void run(int fd)
{
    if (access("/dev/shm", W_OK) != 0)
        subhost__see_skip(fd, "/dev/shm cannot be written here");
    subhost_host *host = subhost__hosted_open(fd, NULL);
    subhost__hosted_code(fd, host, code);
    _exit(0);
}

const struct probe subhost__probe_resource_tracker = {
    .id = "resource-tracker",
    .title = "multiprocessing's shared memory in a program and in its forked child",
    .constraint =
        "a fork without exec inherits the tracker's state; a child needs one of its own",
    .source =
        "multiprocessing.shared_memory documentation; multiprocessing.resource_tracker",
    .meaning =
        "what a child creates and unlinks is its own affair, and nothing of its parent's "
        "is unlinked",
    .expected = {{FROM(3, 13),
                  "shared: True, a tracker of its own: True, the parent's memory "
                  "stays: True"}},
    .run = run,
};
