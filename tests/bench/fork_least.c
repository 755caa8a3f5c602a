/* SPDX-License-Identifier: MIT
 *
 * A contestant of tests/bench/fork that nobody could use: the least that a function in a forked
 * child takes where other interpreters live in the parent. CPython alone, without a host: fork,
 * the siblings taken off the list, PyOS_AfterFork_Child(), a thread (the task's; the first one
 * has the child's main loop), the call, _exit(). Nothing is sent, nobody supervises, no
 * descriptor is closed.
 *
 *   fork_least INTERPRETERS      that live besides the main one
 *
 * As fork_program.py: a number of measurements a line on stdin, a line of milliseconds back. */
#include "interp.h"
#include "siblings.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static PyObject *nothing;

static void die(const char *what)
{
    fprintf(stderr, "fork_least: %s\n", what);
    exit(2);
}

static void *run(void *arg)
{
    (void)arg;
    PyThreadState *tstate = PyThreadState_New(PyInterpreterState_Main());
    PyEval_RestoreThread(tstate);
    _exit(PyObject_CallNoArgs(nothing) ? 0 : 1);
}

static _Noreturn void be_child(void)
{
    pthread_t thread;
    subhost__siblings_detach();
    PyOS_AfterFork_Child();
    PyEval_SaveThread();
    if (pthread_create(&thread, NULL, run, NULL) == 0)
        pthread_join(thread, NULL); /* it ends the process */
    _exit(1);
}

/* Milliseconds. */
static double fork_once(void)
{
    int64_t started = subhost__now();
    int status = -1;
    PyOS_BeforeFork();
    pid_t pid = fork();
    if (pid == 0)
        be_child();
    PyOS_AfterFork_Parent();
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
        die("the child failed");
    return (double)(subhost__now() - started) / 1e6;
}

static void create_interpreters(int count)
{
    PyThreadState *main_tstate = PyThreadState_Get();
    PyInterpreterConfig config = {
        .use_main_obmalloc = 0,
        .allow_threads = 1,
        .check_multi_interp_extensions = 1,
        .gil = PyInterpreterConfig_OWN_GIL,
    };
    for (int i = 0; i < count; i++) {
        PyThreadState *tstate;
        if (PyStatus_Exception(Py_NewInterpreterFromConfig(&tstate, &config)))
            die("an interpreter cannot be created");
        PyEval_SaveThread();
        PyEval_RestoreThread(main_tstate);
    }
}

int main(int argc, char **argv)
{
    char line[64];
    Py_Initialize();
    if (PyRun_SimpleString("import site, threading\ndef nothing(): pass\n") < 0)
        die("preparing the main interpreter");
    PyObject *main_module = PyImport_AddModule("__main__");
    nothing = main_module ? PyObject_GetAttrString(main_module, "nothing") : NULL;
    create_interpreters(argc > 1 ? atoi(argv[1]) : 0);
    if (!nothing || subhost__siblings_check(false))
        die("the list of interpreters cannot be found");
    while (fgets(line, sizeof line, stdin)) {
        for (int i = atoi(line); i > 0; i--)
            printf("%.6f ", fork_once());
        puts("");
        fflush(stdout);
    }
    /* The interpreters, of which no thread is in one, go with the process. */
    _exit(0);
}
