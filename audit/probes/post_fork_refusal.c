/* Forks of a hosted program. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

static const char code[] =
    "import ctypes, os, select, subprocess, sys\n"
    "def attempt(f, *args, **kw):\n"
    "    try: f(*args, **kw)\n"
    "    except RuntimeError as e: return 'RuntimeError'\n"
    "    return 'works'\n"
    "def end(pid):\n"
    "    fd = os.pidfd_open(pid)\n"
    "    if not select.select([fd], [], [], 3)[0]:\n"
    "        os.kill(pid, 9)\n"
    "        return 'no end'\n"
    "    return f'exit status {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}'\n"
    "def raw(library):\n"
    "    pid = library.fork()\n"
    "    if pid == 0:\n"
    "        os._exit(3)\n"
    "    return end(pid)\n"
    "found = [f'os.fork: {attempt(os.fork)}', f'os.forkpty: {attempt(os.forkpty)}',\n"
    "         f'preexec_fn: {attempt(subprocess.run, [\"true\"], preexec_fn=int)}',\n"
    "         f'subprocess: {attempt(subprocess.run, [\"true\"])}',\n"
    "         f'fork() by C code: {raw(ctypes.CDLL(None))}',\n"
    "         f'with the GIL held: {raw(ctypes.PyDLL(None))}']\n"
    "os.write(int(sys.argv[1]), '; '.join(found).encode())\n";

static void run(int fd)
{
    subhost_host *host = subhost__hosted_open(fd, NULL);
    subhost__hosted_code(fd, host, code);
    _exit(0);
}

const struct probe subhost__probe_post_fork_refusal = {
    .id = "post-fork-refusal",
    .title = "forks of a program under subhost",
    .constraint =
        "what would fork a running Python is refused in the parent; the child of a fork "
        "by C code ends with status 126 before it runs Python",
    .source = "docs/design.md, \"The fork fence\", \"The guard\"; cpython#139759",
    .meaning = "no fork leaves a half-dead Python behind; subprocess, posix_spawn and "
               "isolation=\"process\" are the ways to another process",
    .expected =
        {{FROM(3, 13),
          "os.fork: RuntimeError; os.forkpty: RuntimeError; preexec_fn: RuntimeError; "
          "subprocess: works; fork() by C code: exit status 126; with the GIL held: exit "
          "status 126"}},
    .run = run,
};
