/* SPDX-License-Identifier: MIT
 *
 * What tests/bench/trail measures: runs tasks, or a module, in a host with or without a trail,
 * and prints how long they took, in nanoseconds, without the opening and closing of the host.
 *
 *   trail [-t FILE] [-e PREFIX]... [-n TASKS] [-m MODULE [ARG...]]
 *
 * -n: so many programs, one after the other, each waited for. -m: one program. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <subhost.h>

#define PREFIXES_MAX 16
#define WARM_UP 20

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void check(int code, subhost_error *err)
{
    if (code >= 0)
        return;
    fprintf(stderr, "trail: %s\n", subhost_error_message(err));
    exit(125);
}

static void run(subhost_interp *interp, const subhost_program *program)
{
    subhost_error *err = NULL;
    subhost_task *task = NULL;
    subhost_outcome outcome = {.size = sizeof outcome};
    check(subhost_submit(interp, program, NULL, &task, &err), err);
    check(subhost_task_wait(task, SUBHOST_FOREVER, &outcome, &err), err);
    subhost_task_release(task);
    if (outcome.status != 0) {
        fprintf(stderr, "trail: the program ended with %d: %s\n", outcome.status,
                subhost_outcome_name(outcome.kind));
        exit(125);
    }
}

int main(int argc, char **argv)
{
    subhost_options options = SUBHOST_OPTIONS_INIT;
    subhost_program program = SUBHOST_PROGRAM_INIT;
    const char *prefixes[PREFIXES_MAX + 1] = {NULL};
    size_t count = 0;
    long tasks = 1;
    program.kind = SUBHOST_PROGRAM_CODE;
    program.source = "pass";
    for (int c; (c = getopt(argc, argv, "+t:e:n:m:")) != -1;) {
        if (c == 't')
            options.trail = optarg;
        else if (c == 'e' && count < PREFIXES_MAX)
            prefixes[count++] = optarg;
        else if (c == 'n')
            tasks = atol(optarg);
        else if (c != 'm')
            return 125;
        if (c != 'm')
            continue;
        program.kind = SUBHOST_PROGRAM_MODULE;
        program.source = optarg;
        break;
    }
    program.argc = argc - optind;
    program.argv = (const char *const *)argv + optind;
    if (count > 0)
        options.trail_python_events = prefixes;
    subhost_error *err = NULL;
    subhost_host *host = NULL;
    subhost_interp *interp = NULL;
    check(subhost_open(&options, &host, &err), err);
    check(subhost_interp_create(host, NULL, &interp, &err), err);
    for (int i = 0; i < WARM_UP && program.kind == SUBHOST_PROGRAM_CODE; i++)
        run(interp, &program);
    int64_t begun = now();
    for (long i = 0; i < tasks; i++)
        run(interp, &program);
    printf("%lld\n", (long long)(now() - begun));
    subhost_interp_release(interp);
    check(subhost_close(host, SUBHOST_CLOSE_EXITING, SUBHOST_MSEC(2000), &err), err);
    return 0;
}
