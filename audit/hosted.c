/* A host for the probes of what subhost promises. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "probe.h"

#define LIMIT SUBHOST_MSEC(12000)

subhost_host *subhost__hosted_open(int fd, const subhost_options *options)
{
    subhost_host *host = NULL;
    subhost_error *err = NULL;
    if (subhost_open(options, &host, &err) != 0)
        subhost__see_failed(fd, "%s", subhost_error_message(err));
    return host;
}

/* A file of the code that has a name for as long as this process lives: functions of a script
 * can be tasks, in forked children too. The text is static. */
static const char *script(int fd, const char *code)
{
    static char path[64];
    size_t size = strlen(code);
    int file = memfd_create("probe.py", MFD_CLOEXEC);
    if (file < 0 || write(file, code, size) != (ssize_t)size)
        subhost__see_failed(fd, "a file for the probe's code: %s", strerror(errno));
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)getpid(), file);
    return path;
}

subhost_task *subhost__hosted_submit(int fd, subhost_host *host, const char *code,
                                     int output, const subhost_interp_options *options,
                                     const subhost_task_options *task_options)
{
    subhost_interp *interp = NULL;
    subhost_task *task = NULL;
    subhost_error *err = NULL;
    char number[16];
    const char *argv[] = {number};
    snprintf(number, sizeof number, "%d", output);
    subhost_program program = SUBHOST_PROGRAM_INIT;
    program.kind = SUBHOST_PROGRAM_FILE;
    program.source = script(fd, code);
    program.argc = 1;
    program.argv = argv;
    int failed = subhost_interp_create(host, options, &interp, &err);
    if (!failed)
        failed = subhost_submit(interp, &program, task_options, &task, &err);
    if (failed)
        subhost__see_failed(fd, "%s", subhost_error_message(err));
    subhost_interp_release(interp);
    return task;
}

void subhost__hosted_code(int fd, subhost_host *host, const char *code)
{
    int ends[2];
    char text[2048] = "";
    size_t size = 0;
    subhost_outcome outcome = {.size = sizeof outcome};
    subhost_error *err = NULL;
    if (pipe2(ends, O_CLOEXEC) != 0)
        subhost__see_failed(fd, "pipe: %s", strerror(errno));
    subhost_task *task = subhost__hosted_submit(fd, host, code, ends[1], NULL, NULL);
    if (subhost_task_wait(task, LIMIT, &outcome, &err) != 0)
        subhost__see_failed(fd, "the probe's program: %s", subhost_error_message(err));
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    for (ssize_t n; size < sizeof text - 1 &&
                    (n = read(ends[0], text + size, sizeof text - 1 - size)) > 0;)
        size += (size_t)n;
    close(ends[0]);
    close(ends[1]);
    if (size > 0)
        subhost__see(fd, "%s", text);
    if (outcome.status != 0)
        subhost__see(fd, "the program: %s %s", subhost_outcome_name(outcome.kind),
                     outcome.detail);
    subhost_task_release(task);
}

void subhost__hosted_await(int fd, subhost_host *host, int ready)
{
    int64_t deadline = subhost__now() + LIMIT;
    char byte;
    struct pollfd poll_fd = {.fd = ready, .events = POLLIN};
    while (poll(&poll_fd, 1, 0) != 1) {
        if (subhost__now() > deadline)
            subhost__see_failed(fd, "the probe's program does not begin");
        subhost_dispatch(host, SUBHOST_MSEC(1), NULL);
    }
    if (read(ready, &byte, 1) != 1)
        subhost__see_failed(fd, "the probe's program closed its pipe");
}
