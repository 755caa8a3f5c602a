/* What is left to a healthy interpreter, and to Ctrl-C, beside interpreters that were
 * abandoned in busy loops.
 *
 *   starvation [--count N] [--gil own|shared] [--sibling own|shared] [--seconds S] [--hold]
 *
 * Counts what a sibling does in S seconds alone, then beside N abandoned interpreters whose
 * GIL is GIL: "alone X", "beside X", "ratio X" (of three turns the best each, so that other
 * load on the machine counts less). With --hold it says "holding" instead of measuring, and
 * runs until a SIGINT, which ends it with status 130. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "subhost.h"

#define GRACE SUBHOST_MSEC(300)
#define PATIENCE SUBHOST_MSEC(60000)
#define TURNS 3

/* Swallows whatever is raised (what hits a handler is caught by the next one out), and never
 * gives up its CPU of its own will. */
static const char STUBBORN[] =
    "import os, sys\n"
    "def spin(depth):\n"
    "    while True:\n"
    "        try:\n"
    "            if not depth: os.write(int(sys.argv[1]), b'R')\n"
    "            while not depth: pass\n"
    "            spin(depth - 1)\n"
    "        except BaseException: pass\n"
    "spin(20)\n";
static const char NOTHING[] = "import os, sys\n"
                              "os.write(int(sys.argv[1]), b'R')\n";
static const char HEALTHY[] = "import os, sys, time\n"
                              "n, end = 0, time.monotonic() + float(sys.argv[2])\n"
                              "while time.monotonic() < end:\n"
                              "    for _ in range(1000): pass\n"
                              "    n += 1\n"
                              "os.write(int(sys.argv[1]), b'%d\\n' % n)\n";
static const char ENDLESS[] = "import os, sys, time\n"
                              "os.write(int(sys.argv[1]), b'R')\n"
                              "while True: time.sleep(0.01)\n";

struct bench {
    int count;
    enum subhost_gil gil, sibling_gil;
    const char *seconds;
    bool hold;
    subhost_host *host;
    int tell[2];
    int running, abandoned;
    int64_t interrupted_at;
};

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void die(const char *what, subhost_error *err)
{
    fprintf(stderr, "starvation: %s: %s\n", what,
            err ? subhost_error_message(err) : "timed out");
    _exit(2);
}

static void on_end(subhost_task *task, void *data)
{
    struct bench *bench = data;
    subhost_outcome outcome = {.size = sizeof outcome};
    subhost_task_wait(task, 0, &outcome, NULL);
    bench->running--;
    bench->abandoned += outcome.kind == SUBHOST_ABANDONED;
}

static void on_signal(subhost_host *host, const subhost_signal_event *event, void *data)
{
    (void)host;
    struct bench *bench = data;
    if (event->signo == SIGINT)
        bench->interrupted_at = now();
}

static subhost_interp *create(struct bench *bench, enum subhost_gil gil)
{
    subhost_interp_options options = SUBHOST_INTERP_OPTIONS_INIT;
    options.gil = gil;
    subhost_interp *interp;
    subhost_error *err = NULL;
    if (subhost_interp_create(bench->host, &options, &interp, &err))
        die("interpreter", err);
    return interp;
}

static subhost_task *submit(struct bench *bench, subhost_interp *interp, const char *code)
{
    char fd[16];
    snprintf(fd, sizeof fd, "%d", bench->tell[1]);
    const char *argv[] = {fd, bench->seconds};
    subhost_program program = SUBHOST_PROGRAM_INIT;
    program.kind = SUBHOST_PROGRAM_CODE;
    program.source = code;
    program.argc = 2;
    program.argv = argv;
    subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
    options.grace = GRACE;
    options.on_end = on_end;
    options.on_end_data = bench;
    subhost_task *task;
    subhost_error *err = NULL;
    if (subhost_submit(interp, &program, &options, &task, &err))
        die("submit", err);
    bench->running++;
    return task;
}

/* Collects what the programs say until END has come so many TIMES. */
static void hear(struct bench *bench, char end, int times, char *text, size_t size)
{
    int64_t until = now() + PATIENCE;
    size_t n = 0;
    while (times > 0) {
        if (now() > until)
            die("a program said nothing", NULL);
        struct pollfd fds[] = {{subhost_fd(bench->host), POLLIN, 0},
                               {bench->tell[0], POLLIN, 0}};
        poll(fds, 2, 100);
        subhost_dispatch(bench->host, 0, NULL);
        char c;
        while (times > 0 && read(bench->tell[0], &c, 1) == 1) {
            times -= c == end;
            if (n + 1 < size)
                text[n++] = c;
        }
    }
    text[n] = '\0';
}

static double best(struct bench *bench, subhost_interp *interp)
{
    double most = 0;
    for (int turn = 0; turn < TURNS; turn++) {
        char text[64];
        subhost_task *task = submit(bench, interp, HEALTHY);
        hear(bench, '\n', 1, text, sizeof text);
        if (subhost_task_wait(task, PATIENCE, NULL, NULL))
            die("the sibling does not end", NULL);
        subhost_task_release(task);
        if (atof(text) > most)
            most = atof(text);
    }
    return most;
}

/* Those that share a GIL are all made before the first one spins: making one beside them
 * takes very long. */
static void make_all(struct bench *bench, subhost_interp **interps)
{
    char text[8];
    for (int i = 0; i < bench->count; i++) {
        interps[i] = create(bench, bench->gil);
        subhost_task_release(submit(bench, interps[i], NOTHING));
    }
    hear(bench, 'R', bench->count, text, sizeof text);
}

static void abandon_all(struct bench *bench)
{
    subhost_interp **interps = calloc((size_t)bench->count, sizeof *interps);
    subhost_task **tasks = calloc((size_t)bench->count, sizeof *tasks);
    char text[8];
    if (!interps || !tasks)
        die("out of memory", NULL);
    make_all(bench, interps);
    for (int i = 0; i < bench->count; i++)
        tasks[i] = submit(bench, interps[i], STUBBORN);
    hear(bench, 'R', bench->count, text, sizeof text);
    for (int i = 0; i < bench->count; i++)
        subhost_task_cancel(tasks[i], SUBHOST_BY_REQUEST, NULL);
    int64_t until = now() + PATIENCE;
    while (bench->running > 0 && now() < until)
        subhost_dispatch(bench->host, SUBHOST_MSEC(100), NULL);
    if (bench->abandoned != bench->count)
        die("not all were abandoned", NULL);
    for (int i = 0; i < bench->count; i++) {
        subhost_task_release(tasks[i]);
        subhost_interp_release(interps[i]);
    }
    free(tasks);
    free(interps);
}

static int hold(struct bench *bench, subhost_interp *sibling)
{
    char text[8];
    subhost_task *task = submit(bench, sibling, ENDLESS);
    hear(bench, 'R', 1, text, sizeof text);
    puts("holding");
    fflush(stdout);
    while (bench->running > 0)
        subhost_dispatch(bench->host, SUBHOST_FOREVER, NULL);
    int64_t ended_at = now();
    subhost_outcome outcome = {.size = sizeof outcome};
    subhost_task_wait(task, 0, &outcome, NULL);
    subhost_close(bench->host, SUBHOST_CLOSE_EXITING, 0, NULL);
    int64_t closed_at = now();
    printf("sibling ended after %.1f ms, closed after %.1f ms\n",
           (double)(ended_at - bench->interrupted_at) / 1e6,
           (double)(closed_at - bench->interrupted_at) / 1e6);
    fflush(stdout);
    return bench->interrupted_at ? outcome.status : 1;
}

static enum subhost_gil gil_of(const char *word)
{
    return strcmp(word, "shared") == 0 ? SUBHOST_GIL_SHARED : SUBHOST_GIL_OWN;
}

static void parse(struct bench *bench, int argc, char **argv)
{
    static const struct option options[] = {
        {"count", required_argument, NULL, 'c'},
        {"gil", required_argument, NULL, 'g'},
        {"sibling", required_argument, NULL, 's'},
        {"seconds", required_argument, NULL, 'S'},
        {"hold", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'c')
            bench->count = atoi(optarg);
        else if (option == 'g')
            bench->gil = gil_of(optarg);
        else if (option == 's')
            bench->sibling_gil = gil_of(optarg);
        else if (option == 'S')
            bench->seconds = optarg;
        else if (option == 'h')
            bench->hold = true;
        else
            exit(2);
    }
}

int main(int argc, char **argv)
{
    struct bench bench = {.count = 25, .seconds = "1"};
    parse(&bench, argc, argv);
    subhost_error *err = NULL;
    subhost_options options = SUBHOST_OPTIONS_INIT;
    options.take_signals = 1;
    options.on_signal = on_signal;
    options.on_signal_data = &bench;
    if (pipe2(bench.tell, O_CLOEXEC | O_NONBLOCK) ||
        subhost_open(&options, &bench.host, &err))
        die("host", err);
    subhost_interp *sibling = create(&bench, bench.sibling_gil);
    double alone = bench.hold ? 0 : best(&bench, sibling);
    abandon_all(&bench);
    if (bench.hold)
        _exit(hold(&bench, sibling));
    double beside = best(&bench, sibling);
    printf("alone %.0f\nbeside %.0f\nratio %.3f\n", alone, beside, beside / alone);
    fflush(stdout);
    /* What was abandoned runs on; exit() would take the ground from under it. */
    _exit(0);
}
