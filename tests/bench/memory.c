/* SPDX-License-Identifier: MIT
 *
 * What a task costs in memory that does not come back: acceptance item 5 of the
 * foundation. Tasks one after another in a reused interpreter, in fresh ones, and in
 * interpreters that are created and released; the growth of the resident set after the
 * first 50, per task.
 *
 *   memory [REUSED FRESH RELEASED]      how many of each (default: 1000 300 300)
 *
 * Status 1 when a figure is above its limit. CPython 3.13 leaks in every interpreter that
 * it ends, with or without us: there the figure is only printed. */
#include "interp.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define WARM_UP 50
#define LIMIT_KIB 16.0
#define TIMEOUT SUBHOST_MSEC(60000)

/* As a program does: imports, objects, a thread, output that is flushed. */
static const char program_code[] =
    "import json, threading\n"
    "rows = [{'n': n, 'text': 'x' * (n % 100)} for n in range(2000)]\n"
    "assert json.loads(json.dumps(rows)) == rows\n"
    "thread = threading.Thread(target=sorted, args=(range(1000),))\n"
    "thread.start()\n"
    "thread.join()\n";

static subhost_host *host;

static void die(const char *what, subhost_error *err)
{
    fprintf(stderr, "memory: %s: %s\n", what, subhost_error_message(err));
    exit(2);
}

static double resident_kib(void)
{
    unsigned long total = 0, resident = 0;
    FILE *stream = fopen("/proc/self/statm", "re");
    if (!stream || fscanf(stream, "%lu %lu", &total, &resident) != 2)
        resident = 0;
    if (stream)
        fclose(stream);
    return (double)resident * (double)sysconf(_SC_PAGESIZE) / 1024.0;
}

static subhost_interp *create(void)
{
    subhost_error *err = NULL;
    subhost_interp *interp;
    if (subhost_interp_create(host, NULL, &interp, &err))
        die("subhost_interp_create", err);
    return interp;
}

static void run(subhost_interp *interp, int fresh)
{
    subhost_program program = SUBHOST_PROGRAM_INIT;
    subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
    subhost_outcome outcome = {.size = sizeof outcome};
    subhost_error *err = NULL;
    subhost_task *task;
    program.kind = SUBHOST_PROGRAM_CODE;
    program.source = program_code;
    options.fresh = fresh;
    if (subhost_submit(interp, &program, &options, &task, &err))
        die("subhost_submit", err);
    if (subhost_task_wait(task, TIMEOUT, &outcome, &err))
        die("subhost_task_wait", err);
    if (outcome.kind != SUBHOST_RETURNED) {
        fprintf(stderr, "memory: a task has %s: %s\n", subhost_outcome_name(outcome.kind),
                outcome.detail);
        exit(2);
    }
    subhost_task_release(task);
}

static subhost_interp *reused;
static uint64_t created = 1;

static void in_reused(void) { run(reused, 0); }

static void in_fresh(void)
{
    created++;
    run(reused, 1);
}

static void in_released(void)
{
    subhost_interp *interp = create();
    created++;
    run(interp, 0);
    subhost_interp_release(interp);
}

/* Interpreters end, and are replaced, after their task has: until only one is there. */
static void settle(void)
{
    subhost_stats stats = {.size = sizeof stats};
    int64_t deadline = subhost__deadline(TIMEOUT);
    do {
        subhost_dispatch(host, SUBHOST_MSEC(5), NULL);
        subhost_get_stats(host, &stats);
    } while ((stats.interpreters_created < created ||
              stats.interpreters_ended + 1 < created) &&
             subhost__now() < deadline);
    subhost_dispatch(host, SUBHOST_MSEC(5), NULL); /* what has ended is freed here */
}

/* True when it is within the limit, or when there is none. */
static bool measure(const char *name, void (*task)(void), int count, bool limited)
{
    double before = 0;
    for (int i = 0; i < count; i++) {
        if (i == WARM_UP) {
            settle();
            before = resident_kib();
        }
        task();
    }
    if (count <= WARM_UP)
        return true;
    settle();
    double growth = (resident_kib() - before) / (count - WARM_UP);
    bool ok = !limited || growth < LIMIT_KIB;
    printf("%-10s %5d tasks  %8.2f KiB a task  %s\n", name, count, growth,
           !limited ? "(no limit: CPython's own leak)"
           : ok     ? "ok"
                    : "above the limit of 16 KiB");
    fflush(stdout);
    return ok;
}

int main(int argc, char **argv)
{
    int counts[] = {1000, 300, 300};
    for (int i = 0; i < 3 && i + 1 < argc; i++)
        counts[i] = atoi(argv[i + 1]);
    subhost_error *err = NULL;
    if (subhost_open(NULL, &host, &err))
        die("subhost_open", err);
    bool sound = Py_Version >= 0x030E0000;
    printf("CPython %lu.%lu\n", Py_Version >> 24, (Py_Version >> 16) & 0xFF);
    reused = create();
    bool ok = measure("reused", in_reused, counts[0], true);
    ok &= measure("fresh", in_fresh, counts[1], sound);
    ok &= measure("released", in_released, counts[2], sound);
    subhost_interp_release(reused);
    if (subhost_close(host, SUBHOST_CLOSE_FINALIZE, TIMEOUT, &err))
        die("subhost_close", err);
    return ok ? 0 : 1;
}
