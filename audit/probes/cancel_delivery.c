/* Cancel of a task that never reaches a checkpoint. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

static const char code[] = "import os, sys, threading\n"
                           "os.write(int(sys.argv[1]), b'x')\n"
                           "while True: threading.Event().wait(1.0)\n";

static void run(int fd)
{
    int ready[2];
    subhost_host *host = subhost__hosted_open(fd, NULL);
    if (pipe(ready) != 0)
        subhost__see_failed(fd, "no pipe");
    subhost_task *task = subhost__hosted_submit(fd, host, code, ready[1], NULL, NULL);
    subhost__hosted_await(fd, host, ready[0]);
    usleep(50000); /* it waits now */
    subhost_outcome outcome = {.size = sizeof outcome};
    int64_t since = subhost__now();
    subhost_task_cancel(task, SUBHOST_BY_REQUEST, "the probe");
    int code_of_wait = subhost_task_wait(task, SUBHOST_MSEC(5000), &outcome, NULL);
    double ms = (double)(subhost__now() - since) / 1e6;
    subhost__see(fd, "%s", code_of_wait ? "no end" : subhost_outcome_name(outcome.kind));
    subhost__see(fd, "%s", ms < 500 ? "before its wait is over" : "late");
    subhost__see_detail(fd, "latency", "%.1f ms", ms);
    _exit(0);
}

const struct probe subhost__probe_cancel_delivery = {
    .id = "cancel-delivery",
    .title = "a cancel of a task that blocks in Event.wait(1.0) in a loop",
    .constraint =
        "a blocked task is interrupted, and who waits for it gets one terminal event",
    .source = "docs/cancel.md",
    .meaning =
        "plain CPython delivers nothing until the wait is over (signal-breaks-waits)",
    .expected = {{FROM(3, 13), "cancelled; before its wait is over"}},
    .run = run,
};
