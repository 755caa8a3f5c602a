/* CPython's configuration, start and end. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "arenas.h"
#include "boot.h"
#include "fence.h"
#include "guard.h"
#include "importer.h"
#include "interp.h"
#include "module.h"
#include "python_events.h"
#include "siblings.h"
#include "prelude_main.h"
#include "subhost_config.h"

/* ---- which python sys.executable names ------------------------------------------ */

/* The "3.14" of this CPython. */
static void minor_version(char *buffer, size_t size)
{
    snprintf(buffer, size, "%lu.%lu", Py_Version >> 24, (Py_Version >> 16) & 0xFF);
}

/* $VIRTUAL_ENV/bin/python when that environment is of the same minor version: another
 * one's packages would not fit. */
static char *virtual_env_python(void)
{
    const char *env = getenv("VIRTUAL_ENV");
    char version[32], *path = NULL;
    if (!env || !*env)
        return NULL;
    minor_version(version, sizeof version);
    if (asprintf(&path, "%s/lib/python%s/site-packages", env, version) < 0)
        return NULL;
    bool same = access(path, F_OK) == 0;
    free(path);
    if (!same || asprintf(&path, "%s/bin/python", env) < 0)
        return NULL;
    if (access(path, X_OK) == 0)
        return path;
    free(path);
    return NULL;
}

/* python3.14 on PATH, for a build whose interpreter has moved. */
static char *path_python(void)
{
    const char *path = getenv("PATH");
    char version[32], *found = NULL;
    minor_version(version, sizeof version);
    while (path && *path) {
        int length = (int)strcspn(path, ":");
        if (asprintf(&found, "%.*s/python%s", length, path, version) < 0)
            return NULL;
        if (access(found, X_OK) == 0)
            return found;
        free(found);
        path += length + (path[length] == ':');
    }
    return NULL;
}

char *subhost__boot_executable(const char *given)
{
    if (given)
        return strdup(given);
    char *path = virtual_env_python();
    if (!path && access(SUBHOST_BUILD_PYTHON_EXECUTABLE, X_OK) != 0)
        path = path_python();
    return path ? path : strdup(SUBHOST_BUILD_PYTHON_EXECUTABLE);
}

/* ---- start ---------------------------------------------------------------------- */

static int fail_status(subhost_error **err, const char *what, PyStatus status)
{
    return subhost__fail(err, SUBHOST_EPYTHON, "%s: %s%s%s", what,
                         status.func ? status.func : "", status.func ? ": " : "",
                         status.err_msg ? status.err_msg : "it asked to exit");
}

static PyStatus configure(PyConfig *config, subhost_host *host)
{
    /* As `python` would be configured, environment variables included ... */
    PyConfig_InitPythonConfig(config);
    config->parse_argv = 0;
    /* ... but signals are ours, and so is the moment at which site is imported: the main
     * interpreter runs no program, so it can do without (boot_site). */
    config->install_signal_handlers = 0;
    config->site_import = 0;
    config->pathconfig_warnings = 0;
    PyStatus status =
        PyConfig_SetBytesString(config, &config->program_name, host->executable);
    if (!PyStatus_Exception(status))
        status = PyConfig_SetBytesString(config, &config->executable, host->executable);
    return status;
}

/* ---- what the main interpreter does without --------------------------------------- */

/* True where prelude_main_code is bytecode of this libpython's: its magic number cannot be
 * asked for before the start, and it changes only before a minor version's first release. */
static bool bytecode_fits(void)
{
    unsigned long built = PY_VERSION_HEX;
    bool both_final = ((built & Py_Version) & 0xF0) == 0xF0;
    return built == Py_Version || (both_final && built >> 16 == Py_Version >> 16);
}

/* True where CPython imports nothing at its start that embed/python/main.py has not. */
static bool starts_plainly(const PyConfig *config)
{
    return wcscasecmp(config->filesystem_encoding, L"utf-8") == 0 &&
           wcscasecmp(config->stdio_encoding, L"utf-8") == 0 &&
           config->warnoptions.length == 0 && !config->verbose && !config->import_time;
}

/* The module that embed/python/main.py stands in for. */
#define EXTERNAL "_frozen_importlib_external"

/* A copy of CPython's table of frozen modules, owned, with our code for EXTERNAL; NULL where
 * that is not in it. */
static struct _frozen *with_understudy(const struct _frozen *table)
{
    size_t length = 0;
    bool found = false;
    while (table[length].name)
        found |= strcmp(table[length++].name, EXTERNAL) == 0;
    struct _frozen *copy = found ? calloc(length + 1, sizeof *copy) : NULL;
    for (size_t i = 0; copy && i < length; i++) {
        copy[i] = table[i];
        if (strcmp(copy[i].name, EXTERNAL) == 0) {
            copy[i].code = prelude_main_code;
            copy[i].size = (int)sizeof prelude_main_code;
        }
    }
    return copy;
}

static bool understudy_retires(void)
{
    PyObject *module = PyImport_ImportModule(EXTERNAL);
    PyObject *result = module ? PyObject_CallMethod(module, "started", NULL) : NULL;
    bool ok = result != NULL;
    Py_XDECREF(module);
    Py_XDECREF(result);
    PyErr_Clear();
    return ok;
}

/* Py_InitializeFromConfig() with embed/python/main.py in the place of importlib's external
 * half. Hosted interpreters, which come later, find CPython's own table again. */
static PyStatus initialize(const PyConfig *config)
{
    const struct _frozen **table = dlsym(RTLD_DEFAULT, "_PyImport_FrozenBootstrap");
    const struct _frozen *own = table ? *table : NULL;
    struct _frozen *ours = NULL;
    if (own && bytecode_fits() && starts_plainly(config))
        ours = with_understudy(own);
    if (ours)
        *table = ours;
    PyStatus status = Py_InitializeFromConfig(config);
    if (!ours)
        return status;
    *table = own;
    free(ours);
    if (!PyStatus_Exception(status) && !understudy_retires())
        status = PyStatus_Error("the main interpreter's import system");
    return status;
}

/* Extension modules find CPython's functions in the global scope alone. libpython is not in it
 * where it came with a plugin, by dlopen() with RTLD_LOCAL. Nothing else can be done where this
 * fails, and nothing is to be done where libpython is the program's own. */
static void make_python_global(void)
{
    Dl_info info;
    if (dladdr(&PyExc_SystemError, &info) && info.dli_fname)
        (void)dlopen(info.dli_fname, RTLD_NOLOAD | RTLD_GLOBAL | RTLD_NOW);
}

int subhost__boot(subhost_host *host, subhost_error **err)
{
    host->executable = subhost__boot_executable(host->options.executable);
    if (!host->executable)
        return subhost__fail(err, SUBHOST_ENOMEM, "out of memory");
    if (Py_IsInitialized())
        return subhost__fail(err, SUBHOST_ESTATE,
                             "CPython is initialized already in this process; the host "
                             "must be the one that does it");
    make_python_global();
    /* The locale's encoding and UTF-8 mode, as python does it. */
    PyPreConfig preconfig;
    PyPreConfig_InitPythonConfig(&preconfig);
    preconfig.parse_argv = 0;
    PyStatus status = Py_PreInitialize(&preconfig);
    if (PyStatus_Exception(status))
        return fail_status(err, "pre-initializing CPython", status);
    subhost__arenas_install();
    int code = subhost__fence_install(err);
    if (!code)
        code = subhost__python_events_install(host, err);
    if (code)
        return code;
    static bool registered; /* the table of builtin modules outlives Py_Finalize() */
    if (!registered && subhost__module_register() != 0)
        return subhost__fail(err, SUBHOST_ENOMEM, "out of memory");
    registered = true;

    PyConfig config;
    status = configure(&config, host);
    if (!PyStatus_Exception(status))
        status = PyConfig_Read(&config);
    if (!PyStatus_Exception(status))
        status = initialize(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status))
        return fail_status(err, "initializing CPython", status);
    if (subhost__importer_install() < 0)
        return subhost__fail(err, SUBHOST_ENOMEM, "out of memory");
    subhost__channel_choose_doorbell(host);
    subhost__interpose_check();
    host->no_siblings = subhost__siblings_check(host->options.no_sibling_detach);
    code = subhost__guard_open(err);
    subhost__occupy();
    host->main_tstate = PyEval_SaveThread();
    return code;
}

int subhost__unboot(subhost_host *host, enum subhost_close_mode mode, subhost_error **err)
{
    free(host->executable);
    host->executable = NULL;
    if (mode == SUBHOST_CLOSE_EXITING || !host->main_tstate)
        return 0;
    PyEval_RestoreThread(host->main_tstate);
    host->main_tstate = NULL;
    subhost__vacate();
    subhost__guard_close();
    if (Py_FinalizeEx() < 0)
        return subhost__fail(err, SUBHOST_EPYTHON, "Py_FinalizeEx failed to flush");
    return 0;
}

/* ---- site ----------------------------------------------------------------------- */

/* The main interpreter starts without site, which saves its time, and every interpreter
 * copies its configuration. So sys.flags says no_site everywhere; where a program runs,
 * that is set right before site is imported, which looks at it. */
static int set_no_site(long value)
{
    PyObject *flags = PySys_GetObject("flags"); /* borrowed */
    if (!flags) {
        PyErr_SetString(PyExc_RuntimeError, "sys.flags is gone");
        return -1;
    }
    PyTypeObject *type = Py_TYPE(flags);
    PyObject *copy = PyStructSequence_New(type);
    PyObject *names = PyObject_GetAttrString((PyObject *)type, "__match_args__");
    /* With those that have a name and no place in the sequence, as `gil` (3.13). */
    PyObject *count = PyObject_GetAttrString((PyObject *)type, "n_fields");
    Py_ssize_t length = count ? PyLong_AsSsize_t(count) : -1;
    for (Py_ssize_t i = 0; copy && names && i < length; i++) {
        bool no_site = i < PyTuple_GET_SIZE(names) &&
                       PyUnicode_EqualToUTF8(PyTuple_GET_ITEM(names, i), "no_site");
        PyStructSequence_SetItem(copy, i,
                                 no_site
                                     ? PyLong_FromLong(value)
                                     : Py_XNewRef(PyStructSequence_GetItem(flags, i)));
    }
    int result = copy && names && length > 0 ? PySys_SetObject("flags", copy) : -1;
    Py_XDECREF(count);
    Py_XDECREF(names);
    Py_XDECREF(copy);
    return result;
}

int subhost__boot_site(void)
{
    if (set_no_site(0) < 0)
        return -1;
    PyObject *site = PyImport_ImportModule("site");
    Py_XDECREF(site);
    return site ? 0 : -1;
}

int subhost__boot_without_site(subhost_interp *interp)
{
    PyObject *done =
        set_no_site(1) < 0 ? NULL : subhost__prelude_call(interp, "forget_site", "()");
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* ---- versions ------------------------------------------------------------------- */

const char *subhost_version(void) { return SUBHOST_BUILD_VERSION; }
