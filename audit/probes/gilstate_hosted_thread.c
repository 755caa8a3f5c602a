/* The same in a host: the thread enters the interpreter that started it. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

static const char code[] =
    "import ctypes, os, sys, threading\n"
    "try: from concurrent.interpreters import get_current\n"
    "except ImportError: get_current = None\n"
    "import subhost\n"
    "libc = ctypes.CDLL(None)\n"
    "found = []\n"
    "here = object.__subclasses__  # of this interpreter\n"
    "mine = sys.modules\n"
    "@ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)\n"
    "def callback(arg):\n"
    "    found.append(sys.modules is mine and subhost.current().name)\n"
    "    return None\n"
    "thread = ctypes.c_ulong()\n"
    "libc.pthread_create(ctypes.byref(thread), None, callback, None)\n"
    "libc.pthread_join(thread, None)\n"
    "right = found == [subhost.current().name]\n"
    "os.write(int(sys.argv[1]), b'the thread is in the interpreter that started it'\n"
    "         if right else repr(found).encode())\n";

static void run(int fd)
{
    subhost_host *host = subhost__hosted_open(fd, NULL);
    subhost__hosted_code(fd, host, code);
    _exit(0);
}

const struct probe subhost__probe_gilstate_hosted_thread = {
    .id = "gilstate-hosted-thread",
    .title =
        "the interpreter that a callback of ctypes runs in, on a thread made by C code, "
        "under subhost",
    .constraint =
        "a thread that hosted code starts enters the interpreter that started it",
    .source = "docs/design.md, \"Threads\"; embed/interpose_gilstate.c",
    .meaning =
        "libraries that call back from threads of their own work in hosted interpreters",
    .expected = {{FROM(3, 13), "the thread is in the interpreter that started it"}},
    .run = run,
};
