/* A module without multi-phase initialisation in interpreters of each kind. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "probe_single",
                                        .m_size = -1};

static PyObject *init_single(void) { return PyModule_Create(&definition); }

static void attempt(int fd, enum plain_config config, const char *name)
{
    PyThreadState *main_tstate = PyThreadState_Get();
    PyThreadState *tstate = subhost__plain_interpreter(fd, config);
    subhost__see(fd, "%s:", name);
    subhost__plain_code(fd, "try: import probe_single; seen = 'imports'\n"
                            "except ImportError as e: seen = type(e).__name__");
    Py_EndInterpreter(tstate);
    PyThreadState_Swap(main_tstate);
}

static void run(int fd)
{
    PyImport_AppendInittab("probe_single", init_single);
    subhost__plain_python(fd);
    subhost__plain_code(fd, "import probe_single; seen = 'main: imports'");
    attempt(fd, PLAIN_OWN_GIL, "own GIL");
    attempt(fd, PLAIN_SHARED_GIL, "shared GIL, checked");
    attempt(fd, PLAIN_LEGACY, "legacy");
    _exit(0);
}

const struct probe subhost__probe_single_phase_module = {
    .id = "single-phase-module",
    .title = "an extension module with single-phase initialisation, by interpreter",
    .constraint = "where extension modules are checked, it is refused; only the legacy "
                  "configuration lets it in",
    .source = "PEP 489, PEP 684; Py_mod_multiple_interpreters",
    .meaning =
        "`subhost audit modules` says which; --gil shared or --isolation process is the "
        "way out",
    .expected = {{FROM(3, 13), "main: imports; own GIL: ImportError; shared GIL, "
                               "checked: ImportError; legacy: imports"}},
    .run = run,
};
