/* A forked child whose parent is killed. */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "audit/probe.h"

static const char code[] =
    "import asyncio, os, sys\n"
    "import subhost\n"
    "def child(pipe):\n"
    "    with open(pipe, 'w') as file: print(os.getpid(), file=file)\n"
    "    asyncio.run(asyncio.sleep(60))\n"
    "if __name__ == '__main__':\n"
    "    pipe = f'/proc/{os.getpid()}/fd/{sys.argv[1]}'\n"
    "    with subhost.open_nursery() as nursery:\n"
    "        nursery.start(child, pipe, isolation='process')\n";

/* The process that will be an orphan's parent; its child's pid comes through `said`. */
static void parent(int fd, int said)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    subhost_host *host = subhost__hosted_open(fd, NULL);
    subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
    options.grace = SUBHOST_MSEC(500);
    subhost_task *task = subhost__hosted_submit(fd, host, code, said, NULL, &options);
    subhost_task_wait(task, SUBHOST_MSEC(20000), NULL, NULL);
    _exit(0);
}

static void run(int fd)
{
    int said[2];
    char text[32] = "";
    if (pipe(said) != 0)
        subhost__see_failed(fd, "no pipe");
    pid_t parent_pid = fork();
    if (parent_pid == 0)
        parent(fd, said[1]);
    close(said[1]);
    struct pollfd poll_fd = {.fd = said[0], .events = POLLIN};
    if (poll(&poll_fd, 1, 6000) != 1 || read(said[0], text, sizeof text - 1) <= 0)
        subhost__see_failed(fd, "the child does not begin");
    usleep(100000); /* it runs its loop now */
    int orphan = (int)syscall(SYS_pidfd_open, atoi(text), 0);
    if (orphan < 0)
        subhost__see_failed(fd, "the child is gone before its parent");
    int64_t since = subhost__now();
    kill(parent_pid, SIGKILL);
    waitpid(parent_pid, NULL, 0);
    poll_fd = (struct pollfd){.fd = orphan, .events = POLLIN};
    bool ended = poll(&poll_fd, 1, 3000) == 1;
    subhost__see(fd, "the orphan: %s", ended ? "ends" : "stays");
    subhost__see_detail(fd, "after", "%.0f ms", (double)(subhost__now() - since) / 1e6);
    if (!ended)
        kill(atoi(text), SIGKILL);
    _exit(0);
}

const struct probe subhost__probe_orphan_sigint = {
    .id = "orphan-sigint",
    .title = "a forked child with an event loop whose parent is killed by SIGKILL",
    .constraint = "an orphan notices the loss of its parent and ends by policy",
    .source = "docs/design.md, \"Forked children\"; docs/cancel.md",
    .meaning =
        "a child of plain CPython's fork inherits descriptors and handlers, and stays",
    .expected = {{FROM(3, 13), "the orphan: ends"}},
    .run = run,
};
