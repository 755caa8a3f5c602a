/* Which waits of a thread that is not the main one a signal ends, an asynchronous exception
 * being due there. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "audit/probe.h"

struct wait {
    const char *name, *code;
};

static const struct wait waits[] = {
    {"time.sleep", "time.sleep(1.2)"},
    {"Event.wait", "threading.Event().wait(1.2)"},
    {"os.read", "r, w = os.pipe(); threading.Timer(1.2, os.write, (w, b'x')).start(); "
                "os.read(r, 1)"},
    {"select", "select.select([], [], [], 1.2)"},
};

static struct {
    PyInterpreterState *interp;
    const struct wait *wait;
    _Atomic(unsigned long) ident;
    atomic_bool done;
} shared;

static void on_signal(int signo) { (void)signo; }

static void *waiter(void *unused)
{
    (void)unused;
    PyThreadState *tstate = PyThreadState_New(shared.interp);
    PyEval_RestoreThread(tstate);
    PyRun_SimpleString("import os, select, sys, threading, time\n"
                       "sys.stderr = None\n");
    atomic_store(&shared.ident, PyThread_get_thread_ident());
    PyRun_SimpleString(shared.wait->code);
    PyThreadState_Clear(tstate);
    PyThreadState_DeleteCurrent();
    atomic_store(&shared.done, true);
    return NULL;
}

/* Seconds from the exception's order to the end of the wait. */
static double measure(int fd, const struct wait *wait)
{
    pthread_t thread;
    shared.wait = wait;
    atomic_store(&shared.ident, 0);
    atomic_store(&shared.done, false);
    PyEval_SaveThread();
    if (pthread_create(&thread, NULL, waiter, NULL) != 0)
        subhost__see_failed(fd, "no thread");
    while (!atomic_load(&shared.ident))
        usleep(1000);
    usleep(150000); /* it waits now */
    PyThreadState *tstate = PyThreadState_New(shared.interp);
    PyEval_RestoreThread(tstate);
    int64_t since = subhost__now();
    PyThreadState_SetAsyncExc(atomic_load(&shared.ident), PyExc_KeyError);
    PyEval_SaveThread();
    for (int i = 0; i < 40 && !atomic_load(&shared.done); i++) {
        pthread_kill(thread, SIGUSR1);
        usleep(5000);
    }
    pthread_join(thread, NULL);
    double seconds = (double)(subhost__now() - since) / 1e9;
    PyEval_RestoreThread(tstate);
    return seconds;
}

static void run(int fd)
{
    subhost__plain_python(fd);
    shared.interp = PyInterpreterState_Get();
    struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART */
    sigaction(SIGUSR1, &action, NULL);
    for (size_t i = 0; i < ARRAY_LENGTH(waits); i++) {
        double seconds = measure(fd, &waits[i]);
        subhost__see(fd, "%s: %s", waits[i].name, seconds < 0.6 ? "ends" : "goes on");
        subhost__see_detail(fd, waits[i].name, "%.0f ms", seconds * 1e3);
    }
    _exit(0);
}

const struct probe subhost__probe_signal_breaks_waits = {
    .id = "signal-breaks-waits",
    .title = "which blocking waits a signal ends in a thread that has an asynchronous "
             "exception "
             "due",
    .constraint =
        "an interrupted call is repeated (PEP 475); before that PyErr_CheckSignals() "
        "looks for asynchronous exceptions, but only from 3.15 on",
    .source = "PEP 475; cpython#145178; PyErr_CheckSignals()",
    .meaning =
        "up to 3.14 neither an exception nor a signal stops a thread that waits: subhost "
        "ends the call itself",
    .expected = {{FROM(3, 13),
                  "time.sleep: goes on; Event.wait: goes on; os.read: goes on; "
                  "select: goes on"},
                 {FROM(3, 15),
                  "time.sleep: ends; Event.wait: goes on; os.read: ends; select: ends"}},
    .run = run,
    .limit = SUBHOST_MSEC(15000),
};
