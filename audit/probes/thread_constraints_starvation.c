/* Thread-constraints: what busy siblings take from the main interpreter. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "audit/probe.h"

#define SIBLINGS 4
#define TURNS 7

/* Starts siblings that spin once the pipe is closed: created beside busy ones they would take
 * their time. Returns the end to close. */
static int start_siblings(int fd, enum plain_config config)
{
    char *code = NULL;
    int gate[2];
    if (pipe(gate) != 0 ||
        asprintf(&code, "os.write(ready, b'x')\nos.read(%d, 1)\nwhile True: pass",
                 gate[0]) < 0)
        subhost__see_failed(fd, "no gate for the siblings");
    for (int i = 0; i < SIBLINGS; i++)
        subhost__plain_sibling(fd, config, code);
    return gate[1]; /* the code stays, the siblings have it */
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The median time to get the main interpreter's GIL back, in ms. */
static double median_turn(PyThreadState *tstate)
{
    int64_t turns[TURNS];
    for (int i = 0; i < TURNS; i++) {
        int64_t since = subhost__now();
        PyEval_RestoreThread(tstate);
        PyEval_SaveThread();
        turns[i] = subhost__now() - since;
        usleep(1000); /* the others' turn */
    }
    qsort(turns, TURNS, sizeof *turns, compare);
    return (double)turns[TURNS / 2] / 1e6;
}

static void run(int fd)
{
    subhost__plain_python(fd);
    PyThreadState *tstate = PyEval_SaveThread();
    int own_gate = start_siblings(fd, PLAIN_OWN_GIL);
    int shared_gate = start_siblings(fd, PLAIN_SHARED_GIL);
    close(own_gate);
    usleep(50000);
    double own = median_turn(tstate);
    subhost__see(fd, "own GIL: %s", own < 1 ? "no wait" : "a wait");
    subhost__see_detail(fd, "own", "%.3f ms a turn", own);
    close(shared_gate);
    usleep(50000);
    double shared = median_turn(tstate);
    /* One switch interval is 5 ms. */
    subhost__see(fd, "shared GIL: %s",
                 shared > 4 ? "at least a switch interval" : "no wait");
    subhost__see_detail(fd, "shared", "%.3f ms a turn", shared);
    _exit(0);
}

const struct probe subhost__probe_thread_constraints_starvation = {
    .id = "thread-constraints-starvation",
    .title = "how long the main interpreter waits for its GIL beside four busy siblings",
    .constraint =
        "with a shared GIL every turn waits for a switch interval or more; with a GIL "
        "each nobody waits for anybody",
    .source = "PEP 684; sys.setswitchinterval()",
    .meaning =
        "the precaution against starvation is not needed with a GIL of its own; a main "
        "loop must not need a shared one",
    .expected = {{FROM(3, 13),
                  "own GIL: no wait; shared GIL: at least a switch interval"}},
    .run = run,
    .alone = true,
};
