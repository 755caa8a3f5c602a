/* Cancels a program again and again; tests/bench/cancel makes a table of what it prints.
 *
 *   cancel [--rounds N] [--grace MS] [--settle MS] [--delay US] [--gil own|shared]
 *          [--fresh] [--terminal] [--trail FILE] PROGRAM [ARG...]
 *
 * In each round PROGRAM runs with the ARGs and the number of a descriptor, onto which it
 * writes R when it is where it is to be cancelled. SETTLE and up to DELAY later the cancel is
 * asked for. A thread that waits for the task takes the time. A line a round, with tabs:
 *
 *   OUTCOME  MICROSECONDS  RAISED-AFTER  END-CALLBACKS  BYTES-WRITTEN  DETAIL
 *
 * The times are from the request to the waiter's return and to the first exception raised
 * (0: none was); between them the program ends, and prints its traceback. OUTCOME is also "hang" (no terminal
 * event), or "unready". The interpreter is used again as long as it is not abandoned. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "subhost.h"

#define READY_TIMEOUT SUBHOST_MSEC(60000)
#define HANG_TIMEOUT SUBHOST_MSEC(15000)
#define MAX_ARGS 16

struct bench {
    int rounds;
    int64_t grace;
    int64_t settle; /* from ready to the cancel, at least */
    long delay;     /* and up to this longer, us */
    enum subhost_gil gil;
    int fresh;
    int terminal;
    const char *trail;
    const char *program;
    const char *args[MAX_ARGS];
    int argc;
    subhost_host *host;
    subhost_interp *interp;
    int tell[2]; /* the pipe between the program and us */
    char fd_text[16];
    FILE *report;
};

struct round {
    struct bench *bench;
    subhost_task *task;
    subhost_outcome outcome;
    int code;
    int64_t asked_at, ended_at;
    atomic_int waited, ended;
    char said[32];
    size_t n_said;
};

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void die(const char *what, subhost_error *err)
{
    fprintf(stderr, "cancel: %s: %s\n", what,
            err ? subhost_error_message(err) : strerror(errno));
    _exit(2);
}

/* ---- what the program says ------------------------------------------------------ */

static void listen_to(struct round *round)
{
    char bytes[32];
    ssize_t n = read(round->bench->tell[0], bytes, sizeof bytes);
    for (ssize_t i = 0; i < n && round->n_said + 1 < sizeof round->said; i++)
        round->said[round->n_said++] = bytes[i];
}

/* Lets the host do its work until something is said, `until` or the task's end. */
static void attend(struct round *round, int64_t until)
{
    size_t before = round->n_said;
    while (round->n_said == before && now() < until && !atomic_load(&round->ended)) {
        struct pollfd fds[] = {{subhost_fd(round->bench->host), POLLIN, 0},
                               {round->bench->tell[0], POLLIN, 0}};
        int64_t left = until - now();
        struct timespec timeout = {left / 1000000000, left % 1000000000};
        if (left > 0)
            ppoll(fds, 2, &timeout, NULL);
        subhost_dispatch(round->bench->host, 0, NULL);
        listen_to(round);
    }
}

/* ---- a round -------------------------------------------------------------------- */

static void on_end(subhost_task *task, void *data)
{
    struct round *round = data;
    (void)task;
    atomic_fetch_add(&round->ended, 1);
}

static void *wait_for_task(void *data)
{
    struct round *round = data;
    round->code = subhost_task_wait(round->task, READY_TIMEOUT + HANG_TIMEOUT,
                                    &round->outcome, NULL);
    round->ended_at = now();
    atomic_store(&round->waited, 1);
    return NULL;
}

static void start(struct round *round)
{
    struct bench *bench = round->bench;
    subhost_error *err = NULL;
    if (!bench->interp) {
        subhost_interp_options options = SUBHOST_INTERP_OPTIONS_INIT;
        options.gil = bench->gil;
        if (subhost_interp_create(bench->host, &options, &bench->interp, &err))
            die("interpreter", err);
    }
    subhost_program program = SUBHOST_PROGRAM_INIT;
    program.kind = SUBHOST_PROGRAM_FILE;
    program.source = bench->program;
    program.argc = bench->argc;
    program.argv = bench->args;
    subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
    options.grace = bench->grace;
    options.on_end = on_end;
    options.on_end_data = round;
    options.fresh = bench->fresh;
    round->outcome.size = sizeof round->outcome;
    if (subhost_submit(bench->interp, &program, &options, &round->task, &err))
        die("submit", err);
}

static const char *outcome_name(const struct round *round)
{
    if (!strchr(round->said, 'R') && !strchr(round->said, 'S'))
        return "unready";
    if (!atomic_load(&round->waited) || round->code)
        return "hang";
    return subhost_outcome_name(round->outcome.kind);
}

static void report(struct round *round)
{
    char detail[200];
    snprintf(detail, sizeof detail, "%s",
             round->outcome.detail ? round->outcome.detail : "");
    for (char *c = detail; *c; c++)
        *c = *c == '\t' || *c == '\n' ? ' ' : *c;
    subhost_stats stats = {.size = sizeof stats};
    subhost_get_stats(round->bench->host, &stats);
    bool raised = round->outcome.kind != SUBHOST_ABANDONED;
    fprintf(round->bench->report, "%s\t%.1f\t%.1f\t%d\t%s\t%s\n", outcome_name(round),
            (double)(round->ended_at - round->asked_at) / 1e3,
            raised ? (double)stats.cancel_latency_last / 1e3 : 0.0,
            atomic_load(&round->ended), round->n_said ? round->said : "-", detail);
    fflush(round->bench->report);
}

/* False when the waiter hangs: nothing can be measured any more. */
static bool run_round(struct bench *bench, struct round *round)
{
    round->bench = bench;
    start(round);
    pthread_t waiter;
    if ((errno = pthread_create(&waiter, NULL, wait_for_task, round)) != 0)
        die("waiter", NULL);
    attend(round, now() + READY_TIMEOUT);
    if (strchr(round->said, 'R'))
        attend(round, now() + bench->settle +
                          (bench->delay ? random() % bench->delay * 1000 : 0));
    round->asked_at = now();
    subhost_task_cancel(round->task, SUBHOST_BY_REQUEST, "bench");
    int64_t limit = round->asked_at + bench->grace + HANG_TIMEOUT;
    while (!(atomic_load(&round->waited) && atomic_load(&round->ended)) && now() < limit)
        subhost_dispatch(bench->host, SUBHOST_MSEC(20), NULL);
    listen_to(round);
    report(round);
    if (!atomic_load(&round->waited))
        return false;
    pthread_join(waiter, NULL);
    if (round->outcome.kind == SUBHOST_ABANDONED) {
        subhost_interp_release(bench->interp);
        bench->interp = NULL;
    }
    subhost_task_release(round->task);
    return true;
}

/* ---- the whole ------------------------------------------------------------------ */

static void usage(void)
{
    fprintf(stderr, "usage: cancel [--rounds N] [--grace MS] [--settle MS] [--delay US] "
                    "[--gil own|shared] [--fresh] [--terminal] [--trail FILE] "
                    "PROGRAM [ARG...]\n");
    exit(2);
}

static void parse(struct bench *bench, int argc, char **argv)
{
    static const struct option options[] = {
        {"rounds", required_argument, NULL, 'r'},
        {"grace", required_argument, NULL, 'g'},
        {"settle", required_argument, NULL, 's'},
        {"delay", required_argument, NULL, 'd'},
        {"gil", required_argument, NULL, 'G'},
        {"fresh", no_argument, NULL, 'f'},
        {"terminal", no_argument, NULL, 't'},
        {"trail", required_argument, NULL, 'T'},
        {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "+", options, NULL)) != -1) {
        switch (option) {
        case 'r':
            bench->rounds = atoi(optarg);
            break;
        case 'g':
            bench->grace = SUBHOST_MSEC(atoi(optarg));
            break;
        case 's':
            bench->settle = SUBHOST_MSEC(atoi(optarg));
            break;
        case 'd':
            bench->delay = atol(optarg);
            break;
        case 'G':
            bench->gil = strcmp(optarg, "shared") ? SUBHOST_GIL_OWN : SUBHOST_GIL_SHARED;
            break;
        case 'f':
            bench->fresh = 1;
            break;
        case 't':
            bench->terminal = 1;
            break;
        case 'T':
            bench->trail = optarg;
            break;
        default:
            usage();
        }
    }
    if (optind >= argc || argc - optind > MAX_ARGS || bench->rounds < 1)
        usage();
    bench->program = argv[optind++];
    while (optind < argc)
        bench->args[bench->argc++] = argv[optind++];
    bench->args[bench->argc++] = bench->fd_text;
}

/* Standard input and output become a terminal on which nobody types. */
static void take_terminal(struct bench *bench)
{
    int copy = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    bench->report = copy < 0 ? NULL : fdopen(copy, "w");
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    char name[64];
    if (!bench->report || master < 0 || grantpt(master) || unlockpt(master) ||
        ptsname_r(master, name, sizeof name))
        die("terminal", NULL);
    int slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0 || dup2(slave, STDIN_FILENO) < 0 || dup2(slave, STDOUT_FILENO) < 0)
        die("terminal", NULL);
}

int main(int argc, char **argv)
{
    struct bench bench = {
        .rounds = 50, .grace = SUBHOST_MSEC(1000), .delay = 10000, .report = stdout};
    parse(&bench, argc, argv);
    signal(SIGPIPE, SIG_IGN); /* as python does; the host was not asked to take signals */
    if (bench.terminal)
        take_terminal(&bench);
    if (pipe2(bench.tell, O_CLOEXEC | O_NONBLOCK))
        die("pipe", NULL);
    snprintf(bench.fd_text, sizeof bench.fd_text, "%d", bench.tell[1]);
    subhost_error *err = NULL;
    subhost_options options = SUBHOST_OPTIONS_INIT;
    options.trail = bench.trail;
    const char *doorbell = getenv("SUBHOST_DOORBELL");
    if (doorbell && strcmp(doorbell, "attach") == 0)
        options.doorbell = SUBHOST_DOORBELL_ATTACH;
    const char *calls = getenv("SUBHOST_INTERRUPTIBLE_CALLS");
    options.no_interruptible_calls = calls && strcmp(calls, "off") == 0;
    if (subhost_open(&options, &bench.host, &err))
        die("host", err);
    srandom((unsigned)now());
    struct round *rounds = calloc((size_t)bench.rounds, sizeof *rounds);
    if (!rounds)
        die("rounds", NULL);
    for (int i = 0; i < bench.rounds; i++)
        if (!run_round(&bench, &rounds[i]) || strchr(rounds[i].said, 'S'))
            break;
    /* Whoever was told of an end once must not be told again. */
    subhost_dispatch(bench.host, SUBHOST_MSEC(50), NULL);
    int late = 0;
    for (int i = 0; i < bench.rounds; i++)
        late += atomic_load(&rounds[i].ended) > 1;
    if (late)
        fprintf(bench.report, "twice\t0\t0\t%d\t-\tterminal events came twice\n", late);
    fflush(bench.report);
    /* What was abandoned runs on; exit() would take the ground from under it. */
    _exit(late ? 1 : 0);
}
