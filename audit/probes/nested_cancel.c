/* The failing tree of 15. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

static const char code[] =
    "import collections, os, sys, time\n"
    "import subhost\n"
    "class LeafError(Exception): pass\n"
    "def node(path):\n"
    "    if len(path) == 3: raise LeafError(path)\n"
    "    with subhost.open_nursery() as nursery:\n"
    "        for number in range(2):\n"
    "            isolation = 'process' if number else 'interpreter'\n"
    "            nursery.start(node, (*path, number), isolation=isolation)\n"
    "def leaves(error):\n"
    "    if isinstance(error, BaseExceptionGroup):\n"
    "        return [leaf for one in error.exceptions for leaf in leaves(one)]\n"
    "    return [type(error).__name__]\n"
    "if __name__ == '__main__':\n"
    "    kinds, count = set(), 0\n"
    "    for _ in range(3):\n"
    "        try: node(())\n"
    "        except BaseExceptionGroup as group:\n"
    "            found = leaves(group)\n"
    "            kinds |= set(found); count += bool(found)\n"
    "    words = f'{count} of 3 trees end; errors: {\", \".join(sorted(kinds))}'\n"
    "    os.write(int(sys.argv[1]), words.encode())\n";

static void run(int fd)
{
    subhost_host *host = subhost__hosted_open(fd, NULL);
    int64_t since = subhost__now();
    subhost__hosted_code(fd, host, code);
    subhost__see_detail(fd, "a tree", "%.0f ms", (double)(subhost__now() - since) / 3e6);
    _exit(0);
}

const struct probe subhost__probe_nested_cancel = {
    .id = "nested-cancel",
    .title =
        "a tree of 15 tasks, interpreters and forked children mixed, whose leaves fail",
    .constraint =
        "a failing tree always tears down: errors gathered, children reaped, every wait "
        "bounded",
    .source = "docs/design.md, \"Nurseries\"; tests/fork/nested_cancel.t",
    .meaning = "a failure anywhere comes out at the top, and nothing stays behind",
    .expected = {{FROM(3, 13), "3 of 3 trees end; errors: LeafError"}},
    .run = run,
};
