/* One stage of one module, in a throwaway child with a plain CPython: see modules.h. */
#define _GNU_SOURCE
#include "modules.h"

#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "embed/boot.h"
#include "embed/interp.h"
#include "report.h"

#define AT_ONCE_MAX 8
#define FIELD_SIZE 4000 /* at most PIPE_BUF: such a write is not divided */
#define SHARED_MOST 5   /* so many objects in common are named */
#define SAID_ROUNDS 2   /* in so many rounds all is said and compared */
/* So much before the deadline a child that hangs shows its stacks. */
#define LAST_WORDS SUBHOST_MSEC(400)

static const struct stage {
    const char *name;
    bool own;
    unsigned at_once, rounds;
} stages[] = {
#define STAGE_ROW(id, text, own_gil, threads, times, needs)                              \
    [id] = {.name = text, .own = own_gil, .at_once = threads, .rounds = times},
    MODULE_STAGES(STAGE_ROW)
#undef STAGE_ROW
};

void subhost__module_say(int fd, const char *key, const char *format, ...)
{
    char field[FIELD_SIZE];
    va_list args;
    int head = snprintf(field, sizeof field, "%s", key) + 1;
    va_start(args, format);
    int body = vsnprintf(field + head, sizeof field - (size_t)head, format, args);
    va_end(args);
    size_t size = (size_t)head + (size_t)(body > 0 ? body : 0) + 1;
    (void)!write(fd, field, size < sizeof field ? size : sizeof field);
}

/* ---- plain CPython ---------------------------------------------------------------- */

/* With site as `python` has it in the main interpreter. The others do without, which makes
 * them a quarter cheaper, and get its sys.path; unless what site has run does more than that,
 * as the import hooks of editable installations. */
static bool site_everywhere;

static bool start_site(int fd)
{
    Py_ssize_t before = PyList_Size(PySys_GetObject("meta_path"));
    bool done = subhost__boot_site() == 0;
    if (!done) {
        subhost__module_say(fd, "error", "site cannot be imported");
        PyErr_Print();
    }
    site_everywhere = PyList_Size(PySys_GetObject("meta_path")) != before;
    return done;
}

static bool start_python(int fd)
{
    char *executable = subhost__boot_executable(NULL);
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    config.parse_argv = 0;
    config.write_bytecode = 0;
    config.pathconfig_warnings = 0;
    config.site_import = 0;
    PyStatus status = PyStatus_NoMemory();
    if (executable)
        status = PyConfig_SetBytesString(&config, &config.program_name, executable);
    if (!PyStatus_Exception(status))
        status = PyConfig_SetBytesString(&config, &config.executable, executable);
    if (!PyStatus_Exception(status))
        status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    free(executable);
    if (PyStatus_Exception(status))
        subhost__module_say(fd, "error", "CPython does not start: %s",
                            status.err_msg ? status.err_msg : "it asked to exit");
    return !PyStatus_Exception(status) && start_site(fd);
}

/* The sys.path of the main interpreter, as one text; owned, never freed. */
static char *path_text(void)
{
    PyObject *separator = PyUnicode_FromString("\n");
    PyObject *joined =
        separator ? PyUnicode_Join(separator, PySys_GetObject("path")) : NULL;
    PyObject *bytes = joined ? PyUnicode_EncodeFSDefault(joined) : NULL;
    char *text = bytes ? strdup(PyBytes_AS_STRING(bytes)) : NULL;
    Py_XDECREF(bytes);
    Py_XDECREF(joined);
    Py_XDECREF(separator);
    PyErr_Clear();
    return text;
}

/* A fatal signal, and SIGUSR2, show the Python stack of the thread that gets them. */
static void show_stacks(void)
{
    PyObject *faulthandler = PyImport_ImportModule("faulthandler");
    PyObject *enabled =
        faulthandler ? PyObject_CallMethod(faulthandler, "enable", "ii", 2, 0) : NULL;
    PyObject *done =
        enabled ? PyObject_CallMethod(faulthandler, "register", "iii", SIGUSR2, 2, 0)
                : NULL;
    Py_XDECREF(done);
    Py_XDECREF(enabled);
    Py_XDECREF(faulthandler);
    PyErr_Clear();
}

static PyObject *run_frozen(const char *name, PyObject *dict)
{
    PyObject *code = subhost__audit_code(name);
    PyObject *result = code ? PyEval_EvalCode(code, dict, dict) : NULL;
    Py_XDECREF(code);
    return result;
}

static bool set(PyObject *dict, const char *key, PyObject *value)
{
    int failed = value ? PyDict_SetItemString(dict, key, value) : -1;
    Py_XDECREF(value);
    return failed == 0;
}

/* The helper's namespace in the current interpreter; owned, NULL: said why. */
static PyObject *helper(int fd, const struct module *module, const char *path, bool quiet)
{
    PyObject *dict = PyDict_New();
    PyObject *result = NULL;
    if (dict && set(dict, "FD", PyLong_FromLong(fd)) &&
        set(dict, "__builtins__", Py_XNewRef(PyEval_GetBuiltins())) &&
        set(dict, "NAME", PyUnicode_DecodeFSDefault(module->name)) &&
        set(dict, "ROOT", PyUnicode_DecodeFSDefault(module->root)) &&
        set(dict, "PATH", PyUnicode_DecodeFSDefault(module->path)) &&
        set(dict, "SYS_PATH", PyUnicode_DecodeFSDefault(path)) &&
        set(dict, "QUIET", PyBool_FromLong(quiet)))
        result = run_frozen("modules_load", dict);
    if (!result) {
        subhost__module_say(fd, "error", "the examination's own code failed");
        PyErr_Print();
        Py_CLEAR(dict);
    }
    Py_XDECREF(result);
    return dict;
}

static PyObject *call(PyObject *dict, const char *name, PyObject *args)
{
    PyObject *function = PyDict_GetItemString(dict, name); /* borrowed */
    return function ? PyObject_Call(function, args, NULL) : NULL;
}

static PyObject *call0(PyObject *dict, const char *name)
{
    PyObject *args = PyTuple_New(0);
    PyObject *result = args ? call(dict, name, args) : NULL;
    Py_XDECREF(args);
    return result;
}

static bool load(int fd, PyObject *dict)
{
    PyObject *result = call0(dict, "load");
    if (!result) {
        subhost__module_say(fd, "error", "the examination's own code failed");
        PyErr_Print();
    }
    bool loaded = result == Py_True;
    Py_XDECREF(result);
    return loaded;
}

/* ---- the main interpreter --------------------------------------------------------- */

static void examine_main(int fd, const struct module *module)
{
    PyObject *dict = helper(fd, module, "", false);
    bool loaded = dict && load(fd, dict);
    if (loaded)
        subhost__module_say(fd, "result", "ok");
    PyObject *found = NULL;
    if (loaded) {
        PyObject *modules = PyImport_GetModuleDict(); /* borrowed */
        found = Py_XNewRef(PyMapping_GetItemString(modules, module->name));
        PyErr_Clear();
    }
    /* What could be imported is asked second: a slot says less than the import. */
    if (loaded)
        subhost__module_claim(fd, module, found);
}

/* ---- interpreters ----------------------------------------------------------------- */

struct rounds {
    int fd;
    const struct module *module;
    const struct stage *stage;
    const char *path; /* sys.path; "": it is complete */
    unsigned round;
    pthread_mutex_t creation; /* of interpreters, and their ends: CPython's own affair */
    pthread_barrier_t barrier;
    atomic_bool failed;
    struct objects objects[AT_ONCE_MAX];
};

struct one {
    struct rounds *rounds;
    unsigned index;
    PyObject *helper;
};

/* Leaves its thread state current; false: said why, and none is. */
static bool new_interpreter(struct rounds *rounds)
{
    bool own = rounds->stage->own;
    PyInterpreterConfig config = {
        .use_main_obmalloc = !own,
        .allow_fork = 1,
        .allow_exec = 1,
        .allow_threads = 1,
        .allow_daemon_threads = 1,
        .check_multi_interp_extensions = own,
        .gil = own ? PyInterpreterConfig_OWN_GIL : PyInterpreterConfig_SHARED_GIL,
    };
    PyThreadState *main_tstate = PyThreadState_New(PyInterpreterState_Main());
    PyEval_RestoreThread(main_tstate);
    PyThreadState *tstate = NULL;
    PyStatus status = Py_NewInterpreterFromConfig(&tstate, &config);
    bool made = !PyStatus_Exception(status) && tstate;
    if (!made)
        subhost__module_say(rounds->fd, "error", "no interpreter: %s",
                            status.err_msg ? status.err_msg : "?");
    PyThreadState_Swap(main_tstate);
    PyThreadState_Clear(main_tstate);
    PyThreadState_DeleteCurrent();
    if (!made)
        return false;
    PyEval_RestoreThread(tstate);
    if (site_everywhere && subhost__boot_site() != 0)
        PyErr_Print();
    return true;
}

static void say_label(uintptr_t id, const char *where, void *data)
{
    struct one *one = data;
    PyObject *args = Py_BuildValue("(Ks)", (unsigned long long)id, where);
    PyObject *result = args ? call(one->helper, "label", args) : NULL;
    if (!result)
        PyErr_Print();
    Py_XDECREF(result);
    Py_XDECREF(args);
}

/* All of them are alive and stand still: what have they in common? */
static void compare(struct one *one)
{
    struct rounds *rounds = one->rounds;
    struct objects *mine = &rounds->objects[one->index];
    PyObject *bytes = one->helper ? call0(one->helper, "objects") : NULL;
    *mine = (struct objects){0};
    if (bytes)
        subhost__module_objects(PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes),
                                mine);
    else if (PyErr_Occurred())
        PyErr_Print();
    Py_XDECREF(bytes);
    pthread_barrier_wait(&rounds->barrier);
    if (one->index == 0 && one->helper)
        subhost__module_common(rounds->objects, rounds->stage->at_once,
                               rounds->module->path, SHARED_MOST, say_label, one);
    pthread_barrier_wait(&rounds->barrier);
    free(mine->ids);
}

static void *run_interpreter(void *arg)
{
    struct one *one = arg;
    struct rounds *rounds = one->rounds;
    pthread_mutex_lock(&rounds->creation);
    bool made = new_interpreter(rounds);
    pthread_mutex_unlock(&rounds->creation);
    if (!made)
        atomic_store(&rounds->failed, true);
    /* They import at the same time, and none is gone while another one imports. */
    pthread_barrier_wait(&rounds->barrier);
    bool quiet = rounds->round > SAID_ROUNDS;
    one->helper = made ? helper(rounds->fd, rounds->module, rounds->path, quiet) : NULL;
    if (!one->helper || !load(rounds->fd, one->helper))
        atomic_store(&rounds->failed, true);
    pthread_barrier_wait(&rounds->barrier);
    if (rounds->stage->at_once > 1 && !quiet)
        compare(one);
    Py_CLEAR(one->helper);
    pthread_mutex_lock(&rounds->creation);
    if (made)
        Py_EndInterpreter(PyThreadState_Get());
    pthread_mutex_unlock(&rounds->creation);
    return NULL;
}

/* False: it did not go well. */
static bool run_round(struct rounds *rounds)
{
    pthread_t threads[AT_ONCE_MAX];
    struct one ones[AT_ONCE_MAX];
    unsigned n = rounds->stage->at_once;
    subhost__module_say(rounds->fd, "round", "%u", rounds->round);
    pthread_barrier_init(&rounds->barrier, NULL, n);
    for (unsigned i = 0; i < n; i++) {
        ones[i] = (struct one){.rounds = rounds, .index = i};
        if (pthread_create(&threads[i], NULL, run_interpreter, &ones[i]) != 0) {
            /* The others would wait for this one. */
            subhost__module_say(rounds->fd, "error", "no thread can be started");
            _exit(0);
        }
    }
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&rounds->barrier);
    return !atomic_load(&rounds->failed);
}

/* Without what malloc() keeps for later. */
static long resident_kib(void)
{
    long pages = 0;
    malloc_trim(0);
    FILE *file = fopen("/proc/self/statm", "re");
    if (file) {
        if (fscanf(file, "%*d %ld", &pages) != 1)
            pages = 0;
        fclose(file);
    }
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void examine_interpreters(int fd, const struct module_task *task)
{
    static struct rounds rounds = {.creation = PTHREAD_MUTEX_INITIALIZER};
    int64_t half = subhost__now() + task->limit / 2;
    rounds.fd = fd;
    rounds.module = task->module;
    rounds.stage = &stages[task->stage];
    rounds.path = site_everywhere ? "" : path_text();
    if (!rounds.path) {
        subhost__module_say(fd, "error", "out of memory");
        return;
    }
    PyThreadState *tstate = PyEval_SaveThread();
    for (unsigned round = 1; round <= rounds.stage->rounds; round++) {
        rounds.round = round;
        if (!run_round(&rounds))
            return;
        subhost__module_say(fd, "resident", "%ld", resident_kib());
        struct mallinfo2 info = mallinfo2();
        subhost__module_say(fd, "allocated", "%zu", (info.uordblks + info.hblkhd) / 1024);
        /* A module that takes long to import: fewer rounds, and the report says so. */
        if (round > 2 && subhost__now() > half)
            break;
    }
    subhost__module_say(fd, "result", "ok");
    (void)tstate;
}

/* ---- the child -------------------------------------------------------------------- */

/* Before a hanging child is killed, each of its threads shows where it is. */
static void *watch(void *arg)
{
    struct module_task *task = arg;
    int64_t left =
        task->limit > 4 * LAST_WORDS ? task->limit - LAST_WORDS : task->limit * 3 / 4;
    struct timespec pause = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, &pause) == EINTR) {
    }
    DIR *directory = opendir("/proc/self/task");
    struct dirent *entry;
    while (directory && (entry = readdir(directory))) {
        int tid = atoi(entry->d_name);
        if (tid > 0 && tid != gettid()) {
            syscall(SYS_tgkill, getpid(), tid, SIGUSR2);
            nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL); /* one by one */
        }
    }
    if (directory)
        closedir(directory);
    return NULL;
}

static void start_watch(struct module_task *task)
{
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    if (pthread_create(&thread, NULL, watch, task) == 0)
        pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void subhost__module_child(void *data, int fd)
{
    struct module_task *task = data;
    setrlimit(RLIMIT_CORE, &(struct rlimit){0});
    /* A huge page is resident where a part of it is touched: growth would be rounded up. */
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    mallopt(M_MMAP_THRESHOLD, 128 * 1024); /* and not what the program makes of it */
    if (!start_python(fd))
        _exit(0);
    show_stacks();
    start_watch(task);
    if (task->stage == STAGE_MAIN)
        examine_main(fd, task->module);
    else if (task->stage == STAGE_CLAIM)
        subhost__module_claim(fd, task->module, NULL);
    else
        examine_interpreters(fd, task);
    /* Not through CPython's end: what ran belongs to others. */
    _exit(0);
}

/* ---- the child that finds the modules ---------------------------------------------- */

void subhost__module_finder(void *data, int fd)
{
    const struct module_search *search = data;
    if (!start_python(fd))
        _exit(0);
    PyObject *dict = PyDict_New();
    PyObject *names = PyList_New(0);
    for (int i = 0; names && i < search->count; i++) {
        PyObject *name = PyUnicode_DecodeFSDefault(search->names[i]);
        if (!name || PyList_Append(names, name) < 0)
            Py_CLEAR(names);
        Py_XDECREF(name);
    }
    PyObject *result = NULL;
    if (dict && set(dict, "OUT", PyLong_FromLong(search->out)) &&
        set(dict, "__builtins__", Py_XNewRef(PyEval_GetBuiltins())) &&
        set(dict, "NAMES", names))
        result = run_frozen("modules_find", dict);
    if (!result)
        PyErr_Print();
    _exit(result ? 0 : 1);
}
