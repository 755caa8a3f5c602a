/* Plain CPython for the probes, as an embedder has it. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "probe.h"
#include "subhost_config.h"

#define CHILD_LIMIT SUBHOST_MSEC(5000)
#define THREAD_LIMIT SUBHOST_MSEC(8000)

void subhost__plain_python(int fd)
{
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    PyStatus status = PyConfig_SetBytesString(&config, &config.program_name,
                                              SUBHOST_BUILD_PYTHON_EXECUTABLE);
    if (!PyStatus_Exception(status))
        status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status))
        subhost__see_failed(fd, "CPython does not start: %s",
                            status.err_msg ? status.err_msg : "?");
}

/* ---- interpreters ----------------------------------------------------------------- */

PyThreadState *subhost__plain_interpreter(int fd, enum plain_config kind)
{
    PyInterpreterConfig config = {.use_main_obmalloc = kind != PLAIN_OWN_GIL,
                                  .allow_fork = kind == PLAIN_LEGACY,
                                  .allow_exec = kind == PLAIN_LEGACY,
                                  .allow_threads = 1,
                                  .allow_daemon_threads = kind == PLAIN_LEGACY,
                                  .check_multi_interp_extensions = kind != PLAIN_LEGACY,
                                  .gil = kind == PLAIN_OWN_GIL
                                             ? PyInterpreterConfig_OWN_GIL
                                             : PyInterpreterConfig_SHARED_GIL};
    PyThreadState *tstate = NULL;
    PyStatus status = Py_NewInterpreterFromConfig(&tstate, &config);
    if (PyStatus_Exception(status))
        subhost__see_failed(fd, "no interpreter: %s",
                            status.err_msg ? status.err_msg : "?");
    return tstate;
}

struct sibling {
    int fd;
    enum plain_config config;
    const char *code;
    int ready[2];
};

static void *run_sibling(void *arg)
{
    struct sibling *sibling = arg;
    PyThreadState *mine = PyThreadState_New(PyInterpreterState_Main());
    PyEval_RestoreThread(mine);
    subhost__plain_interpreter(sibling->fd, sibling->config);
    char *code = NULL;
    if (asprintf(&code, "import os\nready = %d\n%s", sibling->ready[1], sibling->code) <
        0)
        subhost__see_failed(sibling->fd, "out of memory");
    PyRun_SimpleString(code);
    PyEval_SaveThread();
    for (;;)
        pause(); /* the interpreter stays */
    return NULL;
}

void subhost__plain_sibling(int fd, enum plain_config config, const char *code)
{
    static struct sibling siblings[64]; /* they outlive this call */
    static unsigned count;
    if (count == ARRAY_LENGTH(siblings))
        subhost__see_failed(fd, "too many siblings");
    struct sibling *sibling = &siblings[count++];
    *sibling = (struct sibling){.fd = fd, .config = config, .code = code};
    pthread_t thread;
    if (pipe(sibling->ready) != 0 ||
        pthread_create(&thread, NULL, run_sibling, sibling) != 0)
        subhost__see_failed(fd, "no thread for a sibling");
    pthread_detach(thread);
    struct pollfd poll_fd = {.fd = sibling->ready[0], .events = POLLIN};
    if (poll(&poll_fd, 1, (int)(THREAD_LIMIT / 1000000)) != 1)
        subhost__see_failed(fd, "a sibling does not start");
}

/* ---- code ------------------------------------------------------------------------- */

void subhost__plain_code(int fd, const char *code)
{
    PyObject *main_module = PyImport_AddModuleRef("__main__");
    PyObject *dict = main_module ? PyModule_GetDict(main_module) : NULL; /* borrowed */
    PyObject *result = dict ? PyRun_String(code, Py_file_input, dict, dict) : NULL;
    if (!result) {
        PyObject *exception = PyErr_GetRaisedException();
        PyObject *text = PyObject_Repr(exception);
        const char *utf8 = text ? PyUnicode_AsUTF8(text) : NULL;
        PyErr_DisplayException(exception);
        subhost__see_failed(fd, "the probe's code raised %s", utf8 ? utf8 : "?");
    }
    Py_DECREF(result);
    PyObject *seen = PyDict_GetItemString(dict, "seen"); /* borrowed */
    if (seen && PyUnicode_Check(seen)) {
        subhost__see(fd, "%s", PyUnicode_AsUTF8(seen));
        PyDict_DelItemString(dict, "seen");
    }
    Py_DECREF(main_module);
}

/* ---- processes and threads -------------------------------------------------------- */

pid_t subhost__plain_fork(int fd)
{
    PyOS_BeforeFork();
    pid_t pid = fork();
    if (pid == 0) {
        PyOS_AfterFork_Child();
        return 0;
    }
    PyOS_AfterFork_Parent();
    if (pid < 0)
        subhost__see_failed(fd, "fork: %s", strerror(errno));
    return pid;
}

const char *subhost__plain_wait(pid_t pid)
{
    static char text[64];
    int pid_fd = (int)syscall(SYS_pidfd_open, pid, 0), status;
    struct pollfd poll_fd = {.fd = pid_fd, .events = POLLIN};
    bool ended = poll(&poll_fd, 1, (int)(CHILD_LIMIT / 1000000)) == 1;
    if (!ended)
        kill(pid, SIGKILL);
    close(pid_fd);
    waitpid(pid, &status, 0);
    if (!ended)
        return "no end";
    subhost__describe_status(status, text, sizeof text);
    return text;
}

struct thread_start {
    int fd;
    void (*function)(int fd);
};

static void *run_thread(void *arg)
{
    struct thread_start *start = arg;
    start->function(start->fd);
    return NULL;
}

void subhost__plain_thread(int fd, void (*function)(int fd))
{
    struct thread_start start = {fd, function};
    pthread_t thread;
    if (pthread_create(&thread, NULL, run_thread, &start) != 0)
        subhost__see_failed(fd, "no thread");
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += THREAD_LIMIT / 1000000000;
    if (pthread_timedjoin_np(thread, NULL, &until) != 0)
        subhost__see_failed(fd, "a thread does not end");
}
