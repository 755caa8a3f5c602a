/* Running a program as `python` would: FILE, -m, -c, standard input; what follows its
 * end; and what it ended with. Driver thread, GIL held throughout.
 *
 * The order is that of CPython's Modules/main.c (pymain_run_python) and of
 * Py_FinalizeEx(): program, traceback, threads, atexit, flush. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "interp.h"
#include "module.h"
#include "pool.h"
#include "policing.h"

#include <marshal.h> /* after Python.h */

#define STATUS_FLUSH_FAILED 120 /* Py_RunMain(3): the exit status of a failed flush */
/* How long a program that has returned waits for another thread to have begun its cancel. */
#define BEGIN_TIMEOUT SUBHOST_MSEC(50)

/* ---- sys.argv, sys.path[0], __main__ -------------------------------------------- */

/* What python would have been started with. */
static int set_orig_argv(const subhost_task *task)
{
    const char *option = task->kind == SUBHOST_PROGRAM_CODE     ? "-c"
                         : task->kind == SUBHOST_PROGRAM_MODULE ? "-m"
                                                                : NULL;
    const char *source = task->kind == SUBHOST_PROGRAM_INPUT ? "-" : task->source;
    const char *const start[] = {task->interp->host->executable, option, source};
    PyObject *argv = PyList_New(0);
    for (int i = 0; argv && i < (int)ARRAY_LENGTH(start) + task->argc; i++) {
        int behind = i - (int)ARRAY_LENGTH(start);
        const char *text = behind < 0 ? start[i] : task->argv[behind];
        PyObject *arg = text ? PyUnicode_DecodeFSDefault(text) : NULL;
        if (text && (!arg || PyList_Append(argv, arg) < 0))
            Py_CLEAR(argv);
        Py_XDECREF(arg);
    }
    int result = argv ? PySys_SetObject("orig_argv", argv) : -1;
    Py_XDECREF(argv);
    return result;
}

static int set_argv(const subhost_task *task, const char *argv0)
{
    if (set_orig_argv(task) < 0)
        return -1;
    PyObject *argv = PyList_New(0);
    for (int i = -1; argv && i < task->argc; i++) {
        PyObject *arg = PyUnicode_DecodeFSDefault(i < 0 ? argv0 : task->argv[i]);
        if (!arg || PyList_Append(argv, arg) < 0)
            Py_CLEAR(argv);
        Py_XDECREF(arg);
    }
    int result = argv ? PySys_SetObject("argv", argv) : -1;
    Py_XDECREF(argv);
    return result;
}

/* Puts it in front of sys.path, unless PYTHONSAFEPATH forbids; "" stands for the current
 * directory, whatever that will be. */
int subhost__program_path0(const char *path0)
{
    PyObject *flags = PySys_GetObject("flags"), *path = PySys_GetObject("path");
    PyObject *safe = flags ? PyObject_GetAttrString(flags, "safe_path") : NULL;
    if (!safe || !path || !PyList_Check(path)) {
        Py_XDECREF(safe);
        PyErr_Clear();
        return 0;
    }
    int is_safe = PyObject_IsTrue(safe);
    Py_DECREF(safe);
    if (is_safe)
        return 0;
    PyObject *entry = PyUnicode_DecodeFSDefault(path0);
    int result = entry ? PyList_Insert(path, 0, entry) : -1;
    Py_XDECREF(entry);
    return result;
}

/* As python names the script to itself: absolute, nothing resolved. */
static void absolute_path(const char *path, char *buffer, size_t size)
{
    char cwd[PATH_MAX];
    if (path[0] == '/' || !getcwd(cwd, sizeof cwd))
        snprintf(buffer, size, "%s", path);
    else
        snprintf(buffer, size, "%s/%s", cwd, path);
}

/* The script's directory, its links resolved. */
static int set_script_path0(const char *script)
{
    char resolved[PATH_MAX];
    if (!realpath(script, resolved))
        return subhost__program_path0("");
    char *slash = strrchr(resolved, '/');
    if (slash)
        slash[slash == resolved] = '\0';
    else
        resolved[0] = '\0';
    return subhost__program_path0(resolved);
}

/* A new __main__ with what python's has; a borrowed reference to its dict. */
static PyObject *new_main(void)
{
    PyObject *modules = PySys_GetObject("modules");
    if (modules && PyDict_Check(modules))
        (void)PyDict_DelItemString(modules, "__main__");
    PyErr_Clear();
    PyObject *module = PyImport_AddModule("__main__"); /* borrowed */
    PyObject *dict = module ? PyModule_GetDict(module) : NULL;
    if (!dict ||
        PyDict_SetItemString(dict, "__builtins__", PyImport_AddModule("builtins")))
        return NULL;
    PyObject *importlib = PyImport_ImportModule("_frozen_importlib");
    PyObject *loader =
        importlib ? PyObject_GetAttrString(importlib, "BuiltinImporter") : NULL;
    int result = loader ? PyDict_SetItemString(dict, "__loader__", loader) : -1;
    Py_XDECREF(loader);
    Py_XDECREF(importlib);
    return result < 0 ? NULL : dict;
}

/* __main__ as the interpreter was created with it, for its first program. */
static PyObject *main_dict(subhost_interp *interp)
{
    if (interp->programs_run++ > 0)
        return new_main();
    PyObject *module = PyImport_AddModule("__main__");
    return module ? PyModule_GetDict(module) : NULL;
}

/* ---- the four kinds of program -------------------------------------------------- */

/* __file__, and __cached__ where there still is one. */
static int set_file(PyObject *dict, const char *path)
{
    PyObject *name = PyUnicode_DecodeFSDefault(path);
    int result = name ? PyDict_SetItemString(dict, "__file__", name) : -1;
    if (result == 0 && Py_Version < 0x030F0000)
        result = PyDict_SetItemString(dict, "__cached__", Py_None);
    Py_XDECREF(name);
    return result;
}

/* That and the __loader__ of a script, as CPython's pythonrun.c sets them. */
static int describe_script(PyObject *dict, const char *path, bool compiled)
{
    PyObject *name = PyUnicode_DecodeFSDefault(path);
    PyObject *external = PyImport_ImportModule("_frozen_importlib_external");
    PyObject *loader = NULL;
    if (name && external && set_file(dict, path) == 0)
        loader = PyObject_CallMethod(
            external, compiled ? "SourcelessFileLoader" : "SourceFileLoader", "sO",
            "__main__", name);
    int result = loader ? PyDict_SetItemString(dict, "__loader__", loader) : -1;
    Py_XDECREF(loader);
    Py_XDECREF(external);
    Py_XDECREF(name);
    return result;
}

static PyObject *read_compiled(FILE *stream)
{
    /* Magic number, flags, and 8 bytes of source stamp or hash (PEP 552). */
    if (PyMarshal_ReadLongFromFile(stream) != PyImport_GetMagicNumber()) {
        PyErr_SetString(PyExc_RuntimeError, "Bad magic number in .pyc file");
        return NULL;
    }
    for (int i = 0; i < 3; i++)
        (void)PyMarshal_ReadLongFromFile(stream);
    return PyErr_Occurred() ? NULL : PyMarshal_ReadLastObjectFromFile(stream);
}

/* Closes the stream. */
static PyObject *run_compiled(FILE *stream, PyObject *dict)
{
    PyObject *code = read_compiled(stream);
    fclose(stream);
    if (code && !PyCode_Check(code)) {
        PyErr_SetString(PyExc_RuntimeError, "Bad code object in .pyc file");
        Py_CLEAR(code);
    }
    PyObject *result = code ? PyEval_EvalCode(code, dict, dict) : NULL;
    Py_XDECREF(code);
    return result;
}

/* runpy's own way into a module, a directory or a zip file, as pymain_run_module(). */
static PyObject *run_module(const char *name, bool set_argv0)
{
    PyObject *runpy = PyImport_ImportModule("runpy");
    PyObject *module = runpy ? PyUnicode_DecodeFSDefault(name) : NULL;
    PyObject *result = module
                           ? PyObject_CallMethod(runpy, "_run_module_as_main", "OO",
                                                 module, set_argv0 ? Py_True : Py_False)
                           : NULL;
    Py_XDECREF(module);
    Py_XDECREF(runpy);
    return result;
}

static bool has_suffix(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);
    return n >= m && strcmp(text + n - m, suffix) == 0;
}

/* True where one of sys.path_hooks knows the path: a directory, a zip file. */
static bool is_importable_path(const char *path)
{
    PyObject *hooks = PySys_GetObject("path_hooks");
    PyObject *name = PyUnicode_DecodeFSDefault(path);
    PyObject *finder = NULL;
    if (name && hooks && PyList_Check(hooks)) {
        for (Py_ssize_t i = 0; !finder && i < PyList_GET_SIZE(hooks); i++) {
            finder = PyObject_CallOneArg(PyList_GET_ITEM(hooks, i), name);
            PyErr_Clear(); /* ImportError: not of its kind */
        }
    }
    Py_XDECREF(name);
    Py_XDECREF(finder);
    return finder != NULL;
}

static PyObject *run_script(const subhost_task *task, PyObject *dict)
{
    char path[2 * PATH_MAX];
    struct stat st;
    absolute_path(task->source, path, sizeof path);
    FILE *stream = fopen(path, "rbe");
    bool directory = stream && fstat(fileno(stream), &st) == 0 && S_ISDIR(st.st_mode);
    if (!stream) {
        PyObject *name = PyUnicode_DecodeFSDefault(path);
        PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, name);
        Py_XDECREF(name);
        return NULL;
    }
    if (set_argv(task, task->source) < 0) {
        fclose(stream);
        return NULL;
    }
    if (directory || (!has_suffix(path, ".py") && is_importable_path(path))) {
        fclose(stream);
        return subhost__program_path0(path) < 0 ? NULL : run_module("__main__", false);
    }
    bool compiled = has_suffix(path, ".pyc");
    if (set_script_path0(path) < 0 || describe_script(dict, path, compiled) < 0) {
        fclose(stream);
        return NULL;
    }
    /* Closed once it is read, as python does: the program may want its number. */
    return compiled ? run_compiled(stream, dict)
                    : PyRun_FileExFlags(stream, path, Py_file_input, dict, dict, 1, NULL);
}

static PyObject *run_stdin(const subhost_task *task, PyObject *dict)
{
    if (set_argv(task, "-") < 0 || subhost__program_path0("") < 0 ||
        set_file(dict, "<stdin>") < 0)
        return NULL;
    size_t size = strlen(task->source);
    const char *text = task->kind == SUBHOST_PROGRAM_INPUT
                           ? task->source
                           : subhost__standard_input(&size);
    /* Of no bytes there is no memory stream; there is one of an empty line. */
    FILE *stream =
        text ? fmemopen((void *)(uintptr_t)(size ? text : "\n"), size ? size : 1, "r")
             : NULL;
    if (!stream)
        return PyErr_SetFromErrno(PyExc_OSError);
    PyObject *result =
        PyRun_FileExFlags(stream, "<stdin>", Py_file_input, dict, dict, 0, NULL);
    fclose(stream);
    return result;
}

static PyObject *run_code(const subhost_task *task, PyObject *dict)
{
    if (set_argv(task, "-c") < 0 || subhost__program_path0("") < 0)
        return NULL;
    PyObject *given = PyUnicode_DecodeFSDefault(task->source);
    PyObject *source =
        given ? subhost__prelude_call(task->interp, "prepare_command", "(O)", given)
              : NULL;
    Py_XDECREF(given);
    /* Compiled here and not in Python, so that a SyntaxError has no traceback. */
    const char *utf8 = source ? PyUnicode_AsUTF8(source) : NULL;
    if (source && !utf8)
        PySys_FormatStderr("Unable to decode the command from the command line:\n");
    PyCompilerFlags flags = {PyCF_SOURCE_IS_UTF8 | PyCF_IGNORE_COOKIE, PY_MINOR_VERSION};
    PyObject *code =
        utf8 ? Py_CompileStringFlags(utf8, "<string>", Py_file_input, &flags) : NULL;
    PyObject *done = code ? subhost__prelude_call(task->interp, "register_command",
                                                  "(OO)", code, source)
                          : NULL;
    PyObject *result = done ? PyEval_EvalCode(code, dict, dict) : NULL;
    Py_XDECREF(done);
    Py_XDECREF(code);
    Py_XDECREF(source);
    return result;
}

/* `*status`: what a module that is not there, or cannot be run, is reported with. */
static PyObject *run_named_module(const subhost_task *task, int *status)
{
    char cwd[PATH_MAX];
    if (set_argv(task, "-m") < 0 ||
        subhost__program_path0(getcwd(cwd, sizeof cwd) ? cwd : "") < 0)
        return NULL;
    PyObject *result = run_module(task->source, true);
    if (!result && PyErr_ExceptionMatches(PyExc_SystemExit)) {
        /* runpy says that there is no such module by sys.exit(MESSAGE). */
        PyObject *exception = PyErr_GetRaisedException();
        PyObject *found =
            subhost__prelude_call(task->interp, "module_status", "(O)", exception);
        int module_status = found ? (int)PyLong_AsLong(found) : 0;
        Py_XDECREF(found);
        PyErr_Clear();
        if (module_status > 0)
            *status = module_status;
        PyErr_SetRaisedException(exception);
    }
    return result;
}

static PyObject *run(subhost_interp *interp, subhost_task *task, int *status)
{
    if (task->worker)
        return subhost__worker_run(interp, task);
    if (task->ends)
        return Py_NewRef(Py_None);
    if (task->calls_value)
        return subhost__value_call_run(interp, task);
    if (task->is_call)
        return subhost__call_run(interp, task);
    PyObject *dict = main_dict(interp);
    if (!dict)
        return NULL;
    Py_INCREF(dict);
    PyObject *result = NULL;
    switch (task->kind) {
    case SUBHOST_PROGRAM_FILE:
        result = strcmp(task->source, "-") == 0 ? run_stdin(task, dict)
                                                : run_script(task, dict);
        break;
    case SUBHOST_PROGRAM_MODULE:
        result = run_named_module(task, status);
        break;
    case SUBHOST_PROGRAM_CODE:
        result = run_code(task, dict);
        break;
    case SUBHOST_PROGRAM_INPUT:
        result = run_stdin(task, dict);
        break;
    }
    Py_DECREF(dict);
    return result;
}

/* ---- what it ended with --------------------------------------------------------- */

/* SystemExit's code as python's exit status (CPython's _Py_HandleSystemExit): an int,
 * None for 0, anything else is printed and is 1. */
static int exit_status(PyObject *exception)
{
    PyObject *code = PyObject_GetAttrString(exception, "code");
    int status = 1;
    if (!code) {
        PyErr_Clear();
    } else if (code == Py_None) {
        status = 0;
    } else if (PyLong_Check(code)) {
        /* Out of range is -1, as there; the kernel keeps the low eight bits. */
        status = (int)PyLong_AsLong(code);
        PyErr_Clear();
    } else {
        PyObject *stream = PySys_GetObject("stderr");
        if (stream && stream != Py_None) {
            PyFile_WriteObject(code, stream, Py_PRINT_RAW);
            PyErr_Clear();
            PyFile_WriteString("\n", stream);
        } else {
            PyObject_Print(code, stderr, Py_PRINT_RAW);
            fputc('\n', stderr);
        }
        PyErr_Clear();
    }
    Py_XDECREF(code);
    return status & 0xFF;
}

/* sys.excepthook, as PyErr_Print() but without its exit() on a SystemExit. Takes the
 * exception over. Returns the exit status. */
static int print_exception(PyObject *exception)
{
    PySys_SetObject("last_exc", exception);
    PySys_SetObject("last_type", (PyObject *)Py_TYPE(exception));
    PySys_SetObject("last_value", exception);
    PyObject *traceback = PyException_GetTraceback(exception);
    PySys_SetObject("last_traceback", traceback ? traceback : Py_None);
    PyObject *hook = PySys_GetObject("excepthook");
    int status = 1;
    if (PySys_Audit("sys.excepthook", "OOOO", hook ? hook : Py_None,
                    (PyObject *)Py_TYPE(exception), exception,
                    traceback ? traceback : Py_None) < 0)
        PyErr_Clear();
    if (hook) {
        Py_INCREF(hook);
        PyObject *result =
            PyObject_CallFunctionObjArgs(hook, (PyObject *)Py_TYPE(exception), exception,
                                         traceback ? traceback : Py_None, NULL);
        Py_XDECREF(result);
        Py_DECREF(hook);
        PyObject *second = result ? NULL : PyErr_GetRaisedException();
        if (second && PyErr_GivenExceptionMatches(second, PyExc_SystemExit)) {
            status = exit_status(second);
        } else if (second) {
            PySys_WriteStderr("Error in sys.excepthook:\n");
            PyErr_DisplayException(second);
            PySys_WriteStderr("\nOriginal exception was:\n");
            PyErr_DisplayException(exception);
        }
        Py_XDECREF(second);
    } else {
        PySys_WriteStderr("sys.excepthook is missing\n");
        PyErr_DisplayException(exception);
    }
    PyErr_Clear();
    Py_XDECREF(traceback);
    return status;
}

static char *describe(PyObject *exception)
{
    char *detail = NULL;
    PyObject *type = PyType_GetFullyQualifiedName(Py_TYPE(exception));
    PyObject *text = type ? PyObject_Str(exception) : NULL;
    const char *name = type ? PyUnicode_AsUTF8(type) : NULL;
    const char *utf8 = text ? PyUnicode_AsUTF8(text) : NULL;
    if (!name)
        name = "an exception whose type has no name";
    else if (strncmp(name, "builtins.", strlen("builtins.")) == 0)
        name += strlen("builtins.");
    if (asprintf(&detail, "%s%s%s", name, utf8 && *utf8 ? ": " : "", utf8 ? utf8 : "") <
        0)
        detail = NULL;
    PyErr_Clear();
    Py_XDECREF(text);
    Py_XDECREF(type);
    return detail;
}

/* Where a program was when its deadline came, without the imports that sys.excepthook begins
 * with: its waiters want to know at once. Who asked for a cancel by himself, or by SIGTERM,
 * is told nothing, as by python. */
static void print_cancelled(PyObject *exception, enum subhost_reason reason)
{
    PyObject *out = PySys_GetObject("stderr");
    if (reason != SUBHOST_BY_DEADLINE || !out || out == Py_None)
        return;
    PyObject *traceback = PyException_GetTraceback(exception);
    if (traceback)
        PyTraceBack_Print(traceback, out);
    Py_XDECREF(traceback);
    PyErr_Clear();
    char *text = describe(exception);
    PySys_FormatStderr("%s\n", text ? text : "cancelled");
    free(text);
}

static void explain(subhost_interp *interp, PyObject *exception)
{
    PyObject *line = subhost__prelude_call(interp, "explain", "(O)", exception);
    if (line && PyUnicode_Check(line)) {
        PyObject *stream = PySys_GetObject("stderr");
        if (stream && stream != Py_None) {
            PyFile_WriteObject(line, stream, Py_PRINT_RAW);
            PyErr_Clear();
            PyFile_WriteString("\n", stream);
        }
    }
    PyErr_Clear();
    Py_XDECREF(line);
}

/* A program's exception is shown as python would. Takes nothing over. */
static void show(subhost_interp *interp, PyObject *exception, bool is_cancel,
                 subhost_outcome *outcome)
{
    struct cancel *cancel = &interp->cancel;
    explain(interp, exception);
    if (is_cancel && cancel->reason != SUBHOST_BY_SIGINT)
        print_cancelled(exception, cancel->reason);
    else
        outcome->status = print_exception(exception);
}

/* The program has ended with `exception` (taken over; NULL: it returned). */
static void conclude(subhost_interp *interp, subhost_task *task, PyObject *exception,
                     subhost_outcome *outcome, char **detail)
{
    struct cancel *cancel = &interp->cancel;
    bool cancelled = atomic_load(&cancel->requested);
    outcome->kind = SUBHOST_RETURNED;
    if (exception && PyErr_GivenExceptionMatches(exception, PyExc_SystemExit)) {
        outcome->kind = SUBHOST_EXITED;
        outcome->code = outcome->status = exit_status(exception);
    } else if (exception) {
        bool is_cancel = cancelled && subhost__module_is_cancel(interp, exception);
        outcome->kind = is_cancel ? SUBHOST_CANCELLED : SUBHOST_RAISED;
        outcome->code = outcome->status = 1;
        *detail = describe(exception);
        bool interrupt = PyErr_GivenExceptionMatches(exception, PyExc_KeyboardInterrupt);
        if (task->is_call)
            subhost__call_failed(interp, task, exception);
        else if (!task->worker) /* whose calls have told theirs */
            show(interp, exception, is_cancel, outcome);
        if (is_cancel)
            outcome->status = subhost__cancel_status(cancel->reason);
        else if (interrupt)
            outcome->status = 130; /* python ends by SIGINT then */
    }
    Py_XDECREF(exception);
}

/* ---- what follows --------------------------------------------------------------- */

/* CPython's flush_std_files(): what cannot be written to stdout is said, and is 120. */
static int flush_stream(subhost_interp *interp, const char *name, bool say)
{
    PyObject *stream = PySys_GetObject(name);
    if (!stream || stream == Py_None)
        return 0;
    Py_INCREF(stream);
    int status = 0;
    PyObject *closed = PyObject_GetAttrString(stream, "closed");
    int is_closed = closed ? PyObject_IsTrue(closed) : 0;
    Py_XDECREF(closed);
    PyErr_Clear();
    if (is_closed <= 0) {
        PyObject *result = PyObject_CallMethod(stream, "flush", NULL);
        if (!result) {
            PyObject *exception = PyErr_GetRaisedException();
            say = say && !(atomic_load(&interp->cancel.requested) &&
                           subhost__module_is_cancel(interp, exception));
            PyErr_SetRaisedException(exception);
            if (!say)
                PyErr_Clear();
            else
                PyErr_FormatUnraisable(Py_Version >= 0x030E0000
                                           ? "Exception ignored while flushing sys.%s"
                                           : "Exception ignored on flushing sys.%s",
                                       name);
            status = -1;
        }
        Py_XDECREF(result);
    }
    Py_DECREF(stream);
    return status;
}

/* As at python's end: where the program has put something else in their place, what it had
 * written to the first ones is flushed as well, of whose errors nothing is said. */
static int flush_streams(subhost_interp *interp)
{
    int flushed = flush_stream(interp, "stdout", true);
    flushed |= flush_stream(interp, "stderr", false);
    int first = 0;
    if (PySys_GetObject("stdout") != PySys_GetObject("__stdout__"))
        first |= flush_stream(interp, "__stdout__", false);
    if (PySys_GetObject("stderr") != PySys_GetObject("__stderr__"))
        first |= flush_stream(interp, "__stderr__", false);
    return atomic_load(&interp->cancel.requested) ? flushed | first : flushed;
}

/* A function of the prelude's for the program's end, which runs code of the program's. */
static void finish(subhost_interp *interp, const char *function)
{
    struct cancel *cancel = &interp->cancel;
    bool again = true;
    /* A cancel that arrives here interrupts what is waited for; the waiting goes on until
     * everything has ended, or the ladder has come to its last rung. */
    while (again) {
        PyObject *result = subhost__prelude_run(interp, function, "()");
        again = false;
        if (!result) {
            PyObject *exception = PyErr_GetRaisedException();
            again = atomic_load(&cancel->requested) &&
                    atomic_load(&interp->state) == INTERP_FINISHING &&
                    subhost__module_is_cancel(interp, exception);
            if (!again) {
                PyErr_SetRaisedException(exception);
                PyErr_FormatUnraisable("Exception ignored at the program's end");
            } else {
                Py_DECREF(exception);
            }
        }
        Py_XDECREF(result);
    }
}

/* Once more for threads that nobody has told yet: the program they belong to has ended.
 */
static void widen_cancel(subhost_interp *interp)
{
    struct cancel *cancel = &interp->cancel;
    if (!atomic_load(&cancel->requested))
        return;
    atomic_store(&cancel->scope, CANCEL_ALL);
    atomic_fetch_add(&cancel->raise_round, 1);
    subhost__cancel_service(interp);
    PyErr_Clear();
}

/* For another thread that is at rung 1 at this moment: what it tells an event loop may be what
 * the program has ended of. GIL held. */
static void await_begin(const struct cancel *cancel)
{
    int64_t deadline = subhost__now() + BEGIN_TIMEOUT;
    while (cancel->begin_started && !atomic_load(&cancel->begun) &&
           subhost__now() < deadline) {
        Py_BEGIN_ALLOW_THREADS nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        Py_END_ALLOW_THREADS
    }
}

/* The program has returned although its cancel was asked for, and had no part in it:
 *
 *   - a signal came just before, and no thread has looked at it yet; as under python, the
 *     program does not get away with it;
 *   - the event loop that was told ran in another thread, which the main thread has joined.
 *
 * -1: its exception is set. */
static int came_too_late(subhost_interp *interp)
{
    struct cancel *cancel = &interp->cancel;
    struct thread *self = subhost__thread_self();
    if (!atomic_load(&cancel->requested) || !self)
        return 0;
    await_begin(cancel);
    if (!atomic_load(&cancel->begun)) {
        if (cancel->reason != SUBHOST_BY_SIGINT && cancel->reason != SUBHOST_BY_SIGTERM)
            return 0;
        subhost__cancel_service(interp);
    } else if (atomic_load(&cancel->held_by_loop) && !self->runs_loop &&
               self->raised == 0) {
        subhost__raise_in(interp, self, NULL);
    }
    return subhost__raise_now(interp, self);
}

/* It needs a module that refuses this interpreter, and its policy lets it have another. */
static bool is_refused_module(subhost_interp *interp, const subhost_task *task,
                              PyObject *exception)
{
    enum policing_anew how = subhost__policing_anew(interp, task);
    if (how == ANEW_NOT || atomic_load(&interp->cancel.requested))
        return false;
    PyObject *line = subhost__prelude_call(interp, "explain", "(O)", exception);
    bool is = line && PyUnicode_Check(line);
    Py_XDECREF(line);
    PyErr_Clear();
    if (is) {
        char *text = describe(exception);
        NOTE(interp, BEGUN_ANEW,
             TRAIL_TEXT(ISOLATION, how == ANEW_PROCESS ? "process" : "interpreter"),
             TRAIL_TEXT(WHY, text ? text : "a module"));
        free(text);
    }
    return is;
}

/* What the program has printed past Python, in C. Left to exit() it would be the process's main
 * thread that waits for a slow reader, where no deadline and no signal ends that. */
static void flush_stdio(const subhost_interp *interp, const subhost_task *task)
{
    if (!interp->host->options.take_signals || task->is_call || task->worker)
        return;
    Py_BEGIN_ALLOW_THREADS fflush(stdout);
    Py_END_ALLOW_THREADS
}

/* The program had come to its last line, but not to its end, when the cancel came: its threads,
 * its atexit functions or its output were cut short, and it must not look as if all were well.
 * Under python SIGTERM ends the process then; a SIGINT that finds it joining threads or in
 * atexit leaves its status alone (Py_FinalizeEx()). */
static void cut_short(subhost_interp *interp, subhost_outcome *outcome, char **detail)
{
    if (outcome->kind != SUBHOST_RETURNED && outcome->kind != SUBHOST_EXITED)
        return;
    outcome->kind = SUBHOST_CANCELLED;
    outcome->code = 1;
    outcome->status = subhost__cancel_status(interp->cancel.reason);
    if (!*detail)
        *detail = strdup(subhost__reason_name(interp->cancel.reason));
}

void subhost__program_run(subhost_interp *interp, subhost_task *task,
                          subhost_outcome *outcome, char **detail)
{
    int status = 0;
    PyObject *result =
        subhost__policing_begin(interp, task) < 0 ? NULL : run(interp, task, &status);
    /* A call's parent hears of signals for itself. */
    if (interp->host->options.take_signals && !task->is_call && !task->worker) {
        /* A Ctrl-C that has ended the program's child, say, is on its way to the main loop. */
        Py_BEGIN_ALLOW_THREADS subhost__loop_barrier(interp->host, SUBHOST_MSEC(20));
        Py_END_ALLOW_THREADS
    }
    if (result && came_too_late(interp))
        Py_CLEAR(result);
    PyObject *exception = result ? NULL : PyErr_GetRaisedException();
    Py_XDECREF(result);
    pthread_mutex_lock(&interp->lock);
    bool ours = subhost__interp_enter(interp, INTERP_FINISHING);
    bool was_cancelled = atomic_load(&interp->cancel.requested);
    pthread_mutex_unlock(&interp->lock);
    task->anew = exception && is_refused_module(interp, task, exception);
    if (task->anew)
        Py_CLEAR(exception); /* nobody is told of it */
    conclude(interp, task, exception, outcome, detail);
    if (status)
        outcome->code = outcome->status = status;
    if (!ours)
        return; /* abandoned meanwhile */
    bool failing = task->is_call && (outcome->kind == SUBHOST_RAISED ||
                                     (outcome->kind == SUBHOST_EXITED && outcome->code));
    if (failing)
        subhost__task_failing(task);
    widen_cancel(interp);
    if (task->calls_value) {
        /* The next call finds what its module has made of this process. */
        if (atomic_load(&interp->cancel.requested))
            subhost__cancel_last_rounds(interp);
    } else {
        finish(interp, "finish");
    }
    int flushed = flush_streams(interp);
    if (flushed < 0 && !atomic_load(&interp->cancel.requested))
        outcome->status = STATUS_FLUSH_FAILED;
    flush_stdio(interp, task);
    if (!task->calls_value)
        finish(interp, "flush_files");
    PyObject *rearmed =
        task->calls_value ? NULL : subhost__prelude_call(interp, "rearm", "()");
    Py_XDECREF(rearmed);
    PyErr_Clear();
    if (atomic_load(&interp->cancel.requested)) {
        outcome->cancel_reason = (int)interp->cancel.reason;
        if (interp->cancel.reason == SUBHOST_BY_DEADLINE && !failing) {
            /* As timeout(1): whatever it made of it, its time was up. */
            outcome->kind = SUBHOST_TIMED_OUT;
            outcome->status = 124;
        } else if (!task->is_call && !task->worker &&
                   (flushed < 0 ||
                    (!was_cancelled && interp->cancel.reason != SUBHOST_BY_SIGINT))) {
            cut_short(interp, outcome, detail);
        }
    }
}
