/* Which waits of a thread that is not the main one a signal ends, an asynchronous exception
 * being due there. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "audit/probe.h"

/* So long the waits last, and so early one must end to have been ended. */
#define LASTS "2.4"
#define EARLY SUBHOST_MSEC(1500)

static struct wait {
    const char *name, *code;
    pthread_t thread;
    _Atomic(unsigned long) ident;
    _Atomic int64_t ended_at;
} waits[] = {
    {.name = "time.sleep", .code = "time.sleep(" LASTS ")"},
    {.name = "Event.wait", .code = "threading.Event().wait(" LASTS ")"},
    {.name = "os.read", .code = "os.read(pipe, 1)"},
    {.name = "select", .code = "select.select([], [], [], " LASTS ")"},
};

static PyInterpreterState *interp;

static void on_signal(int signo) { (void)signo; }

static void *waiter(void *arg)
{
    struct wait *wait = arg;
    PyThreadState *tstate = PyThreadState_New(interp);
    PyEval_RestoreThread(tstate);
    atomic_store(&wait->ident, PyThread_get_thread_ident());
    PyRun_SimpleString(wait->code);
    atomic_store(&wait->ended_at, subhost__now());
    PyThreadState_Clear(tstate);
    PyThreadState_DeleteCurrent();
    return NULL;
}

static void start_all(int fd)
{
    /* A pipe that somebody else writes to after a while; no word of KeyErrors. */
    subhost__plain_code(fd, "import os, select, subprocess, sys, threading, time\n"
                            "pipe, end = os.pipe()\n"
                            "subprocess.Popen(['sh', '-c', 'sleep " LASTS
                            "; echo'], stdout=end)\n"
                            "sys.stderr = None\n");
    for (size_t i = 0; i < ARRAY_LENGTH(waits); i++)
        if (pthread_create(&waits[i].thread, NULL, waiter, &waits[i]) != 0)
            subhost__see_failed(fd, "no thread");
    PyThreadState *tstate = PyEval_SaveThread();
    usleep(400000); /* they wait now */
    PyEval_RestoreThread(tstate);
}

static void run(int fd)
{
    subhost__plain_python(fd);
    interp = PyInterpreterState_Get();
    struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART */
    sigaction(SIGUSR1, &action, NULL);
    start_all(fd);
    int64_t since = subhost__now();
    for (size_t i = 0; i < ARRAY_LENGTH(waits); i++)
        if (PyThreadState_SetAsyncExc(atomic_load(&waits[i].ident), PyExc_KeyError) != 1)
            subhost__see_failed(fd, "%s: its thread was not found", waits[i].name);
    PyEval_SaveThread();
    for (int round = 0; round < 40; round++, usleep(5000))
        for (size_t i = 0; i < ARRAY_LENGTH(waits); i++)
            if (!atomic_load(&waits[i].ended_at))
                pthread_kill(waits[i].thread, SIGUSR1);
    for (size_t i = 0; i < ARRAY_LENGTH(waits); i++) {
        pthread_join(waits[i].thread, NULL);
        int64_t took = atomic_load(&waits[i].ended_at) - since;
        subhost__see(fd, "%s: %s", waits[i].name, took < EARLY ? "ends" : "goes on");
        subhost__see_detail(fd, waits[i].name, "%.0f ms", (double)took / 1e6);
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
        "looks for asynchronous exceptions, but only from 3.15 on, and a wait for a "
        "lock does not ask it",
    .source = "PEP 475; cpython#145178; PyErr_CheckSignals()",
    .meaning = "neither an exception nor a signal stops every thread that waits: subhost "
               "ends the "
               "call itself",
    .expected = {{FROM(3, 13),
                  "time.sleep: goes on; Event.wait: goes on; os.read: goes on; "
                  "select: goes on"},
                 {FROM(3, 15),
                  "time.sleep: ends; Event.wait: goes on; os.read: ends; select: ends"}},
    .run = run,
};
