/* Combinations of a configuration that are refused. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

static void attempt(int fd, const char *name, int obmalloc, int check)
{
    PyInterpreterConfig config = {.use_main_obmalloc = obmalloc,
                                  .allow_threads = 1,
                                  .check_multi_interp_extensions = check,
                                  .gil = PyInterpreterConfig_OWN_GIL};
    PyThreadState *main_tstate = PyThreadState_Get(), *tstate = NULL;
    PyStatus status = Py_NewInterpreterFromConfig(&tstate, &config);
    bool refused = PyStatus_Exception(status);
    subhost__see(fd, "%s: %s", name, refused ? "refused" : "works");
    if (!refused)
        Py_EndInterpreter(tstate);
    PyThreadState_Swap(main_tstate);
}

static void run(int fd)
{
    subhost__plain_python(fd);
    attempt(fd, "main's obmalloc", 1, 1);
    attempt(fd, "without the check of extensions", 0, 0);
    attempt(fd, "its own obmalloc, with the check", 0, 1);
    _exit(0);
}

const struct probe subhost__probe_config_own_gil = {
    .id = "config-own-gil",
    .title = "what a GIL of its own asks of an interpreter's configuration",
    .constraint =
        "own memory and the check of extension modules; use_main_obmalloc=0 needs "
        "check_multi_interp_extensions=1",
    .source = "C API, PyInterpreterConfig; PEP 684",
    .meaning =
        "extension modules without support cannot be let in: they are refused, or the "
        "interpreter shares the main one's GIL",
    .expected = {{FROM(3, 13), "main's obmalloc: works; without the check of extensions: "
                               "refused; its own obmalloc, with the check: works"}},
    .run = run,
};
