/* Thread-constraints: what busy siblings take from the main interpreter. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

#define SIBLINGS 4
#define TURNS 10

static const char busy[] = "os.write(ready, b'x')\nwhile True: pass";

/* The mean time to get the main interpreter's GIL back, in ms. */
static double mean_turn(PyThreadState *tstate)
{
    int64_t waited = 0;
    for (int i = 0; i < TURNS; i++) {
        int64_t since = subhost__now();
        PyEval_RestoreThread(tstate);
        PyEval_SaveThread();
        waited += subhost__now() - since;
        usleep(1000); /* the others' turn */
    }
    return (double)waited / 1e6 / TURNS;
}

static void run(int fd)
{
    subhost__plain_python(fd);
    PyThreadState *tstate = PyEval_SaveThread();
    for (int i = 0; i < SIBLINGS; i++)
        subhost__plain_sibling(fd, PLAIN_OWN_GIL, busy);
    double own = mean_turn(tstate);
    subhost__see(fd, "own GIL: %s", own < 1 ? "no wait" : "a wait");
    subhost__see_detail(fd, "own", "%.3f ms a turn", own);
    for (int i = 0; i < SIBLINGS; i++)
        subhost__plain_sibling(fd, PLAIN_SHARED_GIL, busy);
    double shared = mean_turn(tstate);
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
