/* Ctrl-C beside abandoned interpreters. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "audit/probe.h"

#define OWN 15
#define SHARED 10

static const char code[] = "import os, sys\n"
                           "def spin(depth):\n"
                           "    while True:\n"
                           "        try:\n"
                           "            while not depth: pass\n"
                           "            spin(depth - 1)\n"
                           "        except BaseException: pass\n"
                           "os.write(int(sys.argv[1]), b'x')\n"
                           "spin(20)\n";

static int64_t *sent_at; /* shared with the sender */
static int64_t seen_at;

static void on_signal(subhost_host *host, const subhost_signal_event *event, void *data)
{
    (void)host, (void)data;
    if (event->signo == SIGINT)
        seen_at = subhost__now();
}

/* A process that sends SIGINT when it is told to: this one sleeps then. */
static int start_sender(int fd)
{
    int go[2];
    pid_t parent = getpid();
    sent_at = mmap(NULL, sizeof *sent_at, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (sent_at == MAP_FAILED || pipe(go) != 0)
        subhost__see_failed(fd, "no sender");
    if (fork() == 0) {
        char byte;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(go[1]);
        if (read(go[0], &byte, 1) == 1) {
            usleep(200000);
            *sent_at = subhost__now();
            kill(parent, SIGINT);
        }
        _exit(0);
    }
    close(go[0]);
    return go[1];
}

static unsigned abandon_all(int fd, subhost_host *host)
{
    static subhost_task *tasks[OWN + SHARED];
    subhost_interp_options options = SUBHOST_INTERP_OPTIONS_INIT;
    subhost_task_options task_options = SUBHOST_TASK_OPTIONS_INIT;
    task_options.grace = SUBHOST_MSEC(100);
    int ready[2];
    unsigned abandoned = 0;
    if (pipe(ready) != 0)
        subhost__see_failed(fd, "no pipe");
    for (size_t i = 0; i < ARRAY_LENGTH(tasks); i++) {
        options.gil = i < OWN ? SUBHOST_GIL_OWN : SUBHOST_GIL_SHARED;
        tasks[i] =
            subhost__hosted_submit(fd, host, code, ready[1], &options, &task_options);
        subhost__hosted_await(fd, host, ready[0]);
        subhost_outcome outcome = {.size = sizeof outcome};
        subhost_task_cancel(tasks[i], SUBHOST_BY_REQUEST, NULL);
        subhost_task_wait(tasks[i], SUBHOST_MSEC(5000), &outcome, NULL);
        abandoned += outcome.kind == SUBHOST_ABANDONED;
    }
    return abandoned;
}

static void run(int fd)
{
    int go = start_sender(fd);
    subhost_options options = SUBHOST_OPTIONS_INIT;
    options.take_signals = 1;
    options.on_signal = on_signal;
    subhost_host *host = subhost__hosted_open(fd, &options);
    subhost__see(fd, "%u abandoned", abandon_all(fd, host));
    if (write(go, "x", 1) != 1)
        subhost__see_failed(fd, "no sender");
    int64_t deadline = subhost__now() + SUBHOST_MSEC(5000);
    while (!seen_at && subhost__now() < deadline)
        subhost_dispatch(host, SUBHOST_MSEC(1000), NULL);
    double ms = (double)(seen_at - *sent_at) / 1e6;
    subhost__see(fd, "SIGINT: %s",
                 !seen_at   ? "lost"
                 : ms < 500 ? "within 500 ms"
                            : "late");
    subhost__see_detail(fd, "latency", "%.1f ms", ms);
    _exit(0);
}

const struct probe subhost__probe_sigint_starvation = {
    .id = "sigint-starvation",
    .title = "Ctrl-C beside 25 abandoned interpreters in busy loops, 15 with a GIL of "
             "their own "
             "and 10 with the main one's",
    .constraint = "signals are taken in C on the main thread, which needs no GIL",
    .source = "docs/design.md, \"The event loop\"; docs/cancel.md",
    .meaning = "a main thread that runs Python would have to win its GIL first",
    .expected = {{FROM(3, 13), "25 abandoned; SIGINT: within 500 ms"}},
    .run = run,
    .limit = SUBHOST_MSEC(30000),
    .alone = true,
};
