/* Policies at work: which policy holds for whom, and what it refuses.
 *
 *   host    the caller's, with what its other options say
 *   interp  the host's, with what is given for the interpreter
 *   task    the interpreter's, narrowed; a nursery's task has an interpreter of its own, whose
 *           policy is that of the task that starts it, narrowed
 *
 * Python code is refused things by the audit hook (fence.c), which CPython calls before it
 * does them, on the thread that asks. C code raises no events and is not held by any of this:
 * a policy is no sandbox. */
#define _GNU_SOURCE
#include "policing.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "boot.h"
#include "module.h"

/* Some policy of this process has something given: else no event is looked at. */
static atomic_bool in_use;

static bool is_word(const subhost_policy *policy, enum policy_key key, const char *word)
{
    const char *words = subhost__policy_rows[key].allowed;
    return subhost__policy_number(policy, key) ==
           subhost__word_place(words, word, strlen(word));
}

static int forbidden(const subhost_policy *policy, enum policy_key key, const char *what,
                     subhost_error **err)
{
    char *value = subhost__policy_format(key, subhost__policy_value(policy, key));
    int code = subhost__fail(err, SUBHOST_EFORBIDDEN,
                             "%s: the policy '%s' forbids it (%s = %s, from %s)", what,
                             subhost__policy_name(policy), subhost__policy_rows[key].name,
                             value ? value : "?", subhost__policy_origin(policy, key));
    free(value);
    return code;
}

/* ---- the host --------------------------------------------------------------------- */

/* What the struct's other fields say, as if it had been set in the policy. */
static int take_fields(subhost_policy *policy, const subhost_options *options,
                       subhost_error **err)
{
    static const char origin[] = "subhost_options";
    int code = 0;
    if (options->no_interruptible_calls)
        code =
            subhost_policy_set(policy, "cancel.interruptible_calls=false", origin, err);
    if (!code && options->no_sibling_detach)
        code = subhost_policy_set(policy, "fork.siblings=false", origin, err);
    if (!code && options->orphan != SUBHOST_ORPHAN_CANCEL)
        code = subhost_policy_set(policy,
                                  options->orphan == SUBHOST_ORPHAN_DETACH
                                      ? "fork.orphan=detach"
                                      : "fork.orphan=kill",
                                  origin, err);
    return code;
}

int subhost__policing_open(subhost_host *host, subhost_error **err)
{
    subhost_options *options = &host->options;
    bool fields = options->no_interruptible_calls || options->no_sibling_detach ||
                  options->orphan != SUBHOST_ORPHAN_CANCEL;
    if (options->policy && !subhost__policy_gives(options->policy))
        options->policy = NULL; /* then no event needs to be looked at */
    host->policy = NULL;
    if (options->policy || fields) {
        host->policy = subhost__policy_copy(options->policy);
        if (!host->policy)
            return subhost__fail(err, SUBHOST_ENOMEM, "out of memory");
        int code = take_fields(host->policy, options, err);
        if (!code)
            code = subhost_policy_is_valid(host->policy, err);
        if (code)
            return code;
    }
    options->policy = NULL; /* the caller's */
    const subhost_policy *policy = host->policy;
    atomic_store(&in_use, policy != NULL);
    host->interruptible =
        subhost__policy_number(policy, POLICY_CANCEL_INTERRUPTIBLE_CALLS);
    options->no_sibling_detach = !subhost__policy_number(policy, POLICY_FORK_SIBLINGS);
    if (!subhost__policy_number(policy, POLICY_SIGNALS_TAKE))
        options->take_signals = 0;
    const char *trail = subhost__policy_text(policy, POLICY_AUDIT_TRAIL);
    if (!options->trail && *trail)
        options->trail = trail;
    if (!options->trail_limit)
        options->trail_limit = subhost__policy_number(policy, POLICY_AUDIT_ROTATE_SIZE);
    if (!options->trail_files)
        options->trail_files =
            (unsigned)subhost__policy_number(policy, POLICY_AUDIT_ROTATE_FILES);
    return 0;
}

/* ---- interpreters ------------------------------------------------------------------ */

enum subhost_gil subhost__policing_gil(const subhost_policy *policy)
{
    return is_word(policy, POLICY_INTERPRETER_GIL, "own") ? SUBHOST_GIL_OWN
                                                          : SUBHOST_GIL_SHARED;
}

bool subhost__policing_own_obmalloc(const subhost_policy *policy)
{
    return is_word(policy, POLICY_INTERPRETER_OBMALLOC, "own");
}

int subhost__policing_preload(const subhost_policy *policy)
{
    char name[256];
    for (const char *at = subhost__policy_text(policy, POLICY_INTERPRETER_PRELOAD);
         *at;) {
        size_t n = strcspn(at, ",");
        snprintf(name, sizeof name, "%.*s", (int)n, at);
        PyObject *module = PyImport_ImportModule(name);
        if (!module)
            return -1;
        Py_DECREF(module);
        at += n + (at[n] == ',');
    }
    return 0;
}

static int overlay(subhost_host *host, const subhost_interp_options *options,
                   subhost_policy **policy, subhost_error **err)
{
    *policy = subhost__policy_ref(host->policy);
    if (!options->policy && options->gil == SUBHOST_GIL_OWN)
        return 0;
    subhost_policy_free(*policy);
    *policy = subhost__policy_overlay(host->policy, options->policy);
    if (!*policy)
        return subhost__fail(err, SUBHOST_ENOMEM, "out of memory");
    atomic_store(&in_use, true);
    if (options->gil == SUBHOST_GIL_SHARED)
        return subhost_policy_set(*policy, "interpreter.gil=shared",
                                  "subhost_interp_options", err);
    return 0;
}

int subhost__policing_interp(subhost_host *host, const subhost_interp_options *options,
                             subhost_policy **result, subhost_error **err)
{
    subhost_policy *policy = NULL;
    int code = overlay(host, options, &policy, err);
    if (!code)
        code = subhost_policy_is_valid(policy, err);
    if (!code && options->isolation == SUBHOST_ISOLATION_PROCESS &&
        is_word(policy, POLICY_FORK_MODE, "deny"))
        code = forbidden(policy, POLICY_FORK_MODE, "isolation \"process\"", err);
    if (code) {
        subhost_policy_free(policy);
        return code;
    }
    *result = policy;
    return 0;
}

/* ---- tasks ------------------------------------------------------------------------ */

static void keep_times(subhost_task *task)
{
    const subhost_policy *policy = task->policy;
    int64_t timeout = subhost__policy_number(policy, POLICY_LIMITS_TIMEOUT);
    if (timeout > 0 && timeout < task->timeout)
        task->timeout = timeout;
    int64_t grace = subhost__policy_number(policy, POLICY_CANCEL_GRACE);
    bool given = subhost__policy_value(policy, POLICY_CANCEL_GRACE)->given;
    if (task->grace <= 0 || (given && grace < task->grace))
        task->grace = grace > 0 ? grace : 1;
}

void subhost__policing_task(subhost_task *task, const subhost_task_options *options)
{
    task->timeout = options->timeout ? options->timeout : SUBHOST_FOREVER;
    task->grace = options->grace;
    task->policy = subhost__policy_ref(task->interp->policy);
    keep_times(task);
}

int subhost__policing_narrow(subhost_task *task, const subhost_policy *policy,
                             subhost_error **err)
{
    subhost_policy *narrowed;
    int code = subhost__policy_narrow(task->policy, policy, SCOPE_TASK, &narrowed, err);
    if (code)
        return code;
    subhost_policy_free(task->policy);
    task->policy = narrowed;
    atomic_store(&in_use, true);
    keep_times(task);
    return 0;
}

enum subhost_orphan subhost__policing_orphan(const subhost_policy *policy)
{
    if (is_word(policy, POLICY_FORK_ORPHAN, "detach"))
        return SUBHOST_ORPHAN_DETACH;
    return is_word(policy, POLICY_FORK_ORPHAN, "kill") ? SUBHOST_ORPHAN_KILL
                                                       : SUBHOST_ORPHAN_CANCEL;
}

/* ---- to and from another process ---------------------------------------------------- */

void subhost__policing_pack(struct pack *pack, const subhost_policy *policy)
{
    subhost__pack_string(pack, policy ? policy->name : NULL);
    for (int key = 0; policy && key < POLICY_KEY_COUNT; key++) {
        const struct policy_value *value = &policy->values[key];
        if (!value->given)
            continue;
        subhost__pack_u64(pack, (uint64_t)key + 1);
        subhost__pack_u64(pack, (uint64_t)value->number);
        subhost__pack_string(pack, value->text);
        subhost__pack_string(pack, value->origin);
    }
    subhost__pack_u64(pack, 0);
}

subhost_policy *subhost__policing_unpack(struct unpack *unpack)
{
    char *name = subhost__unpack_string(unpack);
    subhost_policy *policy = name ? subhost__policy_new(name) : NULL;
    if (name && !policy)
        unpack->failed = true;
    free(name);
    for (;;) {
        uint64_t key = subhost__unpack_u64(unpack);
        if (unpack->failed || key == 0 || key > POLICY_KEY_COUNT || !policy)
            return policy;
        struct policy_value value = {.number = (int64_t)subhost__unpack_u64(unpack)};
        value.text = subhost__unpack_string(unpack);
        char *origin = subhost__unpack_string(unpack);
        if (!subhost__policy_put(policy, (enum policy_key)(key - 1), &value,
                                 origin ? origin : ""))
            unpack->failed = true;
        free(origin);
    }
}

void subhost__policing_child(subhost_interp *interp, subhost_policy *policy)
{
    atomic_store(&in_use, policy != NULL || atomic_load(&in_use));
    pthread_mutex_lock(&interp->lock);
    subhost_policy *before = interp->policy;
    interp->policy = policy;
    pthread_mutex_unlock(&interp->lock);
    subhost_policy_free(before);
}

/* ---- what is refused ---------------------------------------------------------------- */

/* A reference to the interpreter that the calling thread runs; NULL: not a hosted one. */
static subhost_interp *current_interp(void)
{
    const struct thread *self = subhost__thread_self();
    subhost_host *host = subhost__host();
    if (self) {
        subhost__interp_ref(self->interp);
        return self->interp;
    }
    /* A thread that C code has brought along. */
    int64_t id = PyInterpreterState_GetID(PyInterpreterState_Get());
    subhost_interp *found = NULL;
    if (!host)
        return NULL;
    pthread_mutex_lock(&host->lock);
    for (subhost_interp *i = host->interps; i && !found; i = i->next) {
        if (atomic_load(&i->life) == id)
            found = i;
    }
    if (found)
        subhost__interp_ref(found);
    pthread_mutex_unlock(&host->lock);
    return found;
}

subhost_policy *subhost__policing_current(void)
{
    subhost_interp *interp = atomic_load(&in_use) ? current_interp() : NULL;
    if (!interp)
        return NULL;
    pthread_mutex_lock(&interp->lock);
    subhost_policy *policy =
        subhost__policy_ref(interp->current ? interp->current->policy : interp->policy);
    pthread_mutex_unlock(&interp->lock);
    subhost__interp_unref(interp);
    return policy;
}

int subhost__policing_refuse(const subhost_policy *policy, enum policy_key key,
                             PyObject *type, const char *what)
{
    subhost_error *err = NULL;
    forbidden(policy, key, what, &err);
    const struct thread *self = subhost__thread_self();
    if (self)
        NOTE(self->interp, POLICY_REFUSED, TRAIL_TEXT(WHAT, what),
             TRAIL_TEXT(WHY, subhost_error_message(err)));
    PyErr_SetString(type, subhost_error_message(err));
    subhost_error_free(err);
    return -1;
}

/* One list: event, key, exception. What CPython or a library may well catch keeps the type
 * that it would have without a policy. */
#define EVENTS(X)                                                                        \
    X("subprocess.Popen", POLICY_EXEC_ALLOW, PyExc_PermissionError)                      \
    X("os.exec", POLICY_EXEC_ALLOW, PyExc_PermissionError)                               \
    X("os.posix_spawn", POLICY_EXEC_ALLOW, PyExc_PermissionError)                        \
    X("os.system", POLICY_EXEC_ALLOW, PyExc_PermissionError)                             \
    X("_thread.start_new_thread", POLICY_THREADS_ALLOW, PyExc_RuntimeError)              \
    X("_thread.start_joinable_thread", POLICY_THREADS_ALLOW, PyExc_RuntimeError)         \
    X("_thread.start_new_thread", POLICY_THREADS_DAEMON, PyExc_RuntimeError)             \
    X("_thread.start_joinable_thread", POLICY_THREADS_DAEMON, PyExc_RuntimeError)        \
    X("import", POLICY_INTERPRETER_CREATE, PyExc_PermissionError)

/* threading.Thread(daemon=False).start() waits for the thread; all others do not. */
static bool is_waited_for(PyObject *args)
{
    PyObject *daemon = PyTuple_Check(args) && PyTuple_GET_SIZE(args) == 3
                           ? PyTuple_GET_ITEM(args, 1)
                           : NULL;
    return daemon && PyLong_Check(daemon) && PyLong_AsLong(daemon) == 0;
}

/* The limits of a policy are rlimits, which root may raise: but for the policy's. What is asked
 * for must not change between this look and CPython's. */
static bool is_raised(int resource, PyObject *limits)
{
    struct rlimit now;
    long long soft, hard;
    if (!PyTuple_CheckExact(limits) || PyTuple_GET_SIZE(limits) != 2 ||
        !PyLong_CheckExact(PyTuple_GET_ITEM(limits, 0)) ||
        !PyLong_CheckExact(PyTuple_GET_ITEM(limits, 1)) ||
        getrlimit((__rlimit_resource_t)resource, &now) != 0)
        return true;
    soft = PyLong_AsLongLong(PyTuple_GET_ITEM(limits, 0));
    hard = PyLong_AsLongLong(PyTuple_GET_ITEM(limits, 1));
    PyErr_Clear(); /* too large for it: -1, which is no limit */
    return (rlim_t)soft > now.rlim_max || (rlim_t)hard > now.rlim_max;
}

static int check_rlimit(const subhost_policy *policy, const char *event, PyObject *args)
{
    static const struct {
        int resource;
        enum policy_key key;
    } limits[] = {{RLIMIT_DATA, POLICY_LIMITS_MEMORY},
                  {RLIMIT_CPU, POLICY_LIMITS_CPU},
                  {RLIMIT_NOFILE, POLICY_LIMITS_OPEN_FILES}};
    int resource, pid = 0;
    PyObject *wanted;
    bool is_own = strcmp(event, "resource.setrlimit") == 0;
    if (is_own ? !PyArg_ParseTuple(args, "iO", &resource, &wanted)
               : !PyArg_ParseTuple(args, "iiO", &pid, &resource, &wanted))
        return -1;
    if (Py_IsNone(wanted))
        return 0; /* prlimit(), and only to know */
    for (size_t i = 0; i < ARRAY_LENGTH(limits); i++) {
        if (limits[i].resource == resource &&
            subhost__policy_number(policy, limits[i].key) > 0 &&
            ((pid != 0 && pid != getpid()) || is_raised(resource, wanted)))
            return subhost__policing_refuse(policy, limits[i].key, PyExc_PermissionError,
                                            event);
    }
    return 0;
}

/* CPython says nothing of a new interpreter, but its start imports: this is one of the
 * program's own, which has no policy. In the main interpreter init functions of extension
 * modules run (PEP 489). */
static bool is_in_foreign(void)
{
    const struct thread *self = subhost__thread_self();
    int64_t life = self ? atomic_load(&self->interp->life) : -1;
    int64_t id = PyInterpreterState_GetID(PyInterpreterState_Get());
    return life >= 0 && id != life && id != 0;
}

static int check_event(const subhost_policy *policy, const char *event, PyObject *args)
{
    if (strncmp(event, "resource.", 9) == 0)
        return strcmp(event, "resource.setrlimit") == 0 ||
                       strcmp(event, "resource.prlimit") == 0
                   ? check_rlimit(policy, event, args)
                   : 0;
    const struct {
        const char *event;
        enum policy_key key;
        PyObject *type;
    } events[] = {
#define EVENT_ROW(event, key, type) {event, key, type},
        EVENTS(EVENT_ROW)
#undef EVENT_ROW
    };
    for (size_t i = 0; i < ARRAY_LENGTH(events); i++) {
        if (strcmp(events[i].event, event) != 0 ||
            subhost__policy_number(policy, events[i].key))
            continue;
        if (events[i].key == POLICY_THREADS_DAEMON && is_waited_for(args))
            continue;
        if (events[i].key == POLICY_INTERPRETER_CREATE && !is_in_foreign())
            continue;
        const char *what = events[i].key == POLICY_THREADS_DAEMON ? "a daemon thread"
                           : events[i].key == POLICY_INTERPRETER_CREATE
                               ? "an interpreter of the program's own"
                               : event;
        return subhost__policing_refuse(policy, events[i].key, events[i].type, what);
    }
    return 0;
}

/* A thread may outlive the task that started it, and is held by that one's policy, too. */
static const subhost_policy *of_thread(void)
{
    const struct thread *self = subhost__thread_self();
    return self ? self->policy : NULL;
}

int subhost__policing_event(const char *event, PyObject *args)
{
    subhost_policy *policy = subhost__policing_current();
    const subhost_policy *own = of_thread();
    int result = policy ? check_event(policy, event, args) : 0;
    if (result == 0 && own && own != policy)
        result = check_event(own, event, args);
    subhost_policy_free(policy);
    return result;
}

int subhost__policing_check(enum policy_key key, PyObject *type, const char *what)
{
    subhost_policy *policy = subhost__policing_current();
    const subhost_policy *own = of_thread(), *no = NULL;
    if (policy && !subhost__policy_number(policy, key))
        no = policy;
    else if (own && !subhost__policy_number(own, key))
        no = own;
    int result = no ? subhost__policing_refuse(no, key, type, what) : 0;
    subhost_policy_free(policy);
    return result;
}

bool subhost__policing_may_start(const subhost_policy *policy)
{
    return subhost__policy_contains(of_thread(), policy);
}

/* ---- before a task ------------------------------------------------------------------- */

/* A process is forked with what the host's policy has imported; its task may want less, or
 * more. */
static int set_image_right(subhost_interp *interp, const subhost_policy *policy)
{
    PyObject *modules = PySys_GetObject("modules"); /* borrowed */
    bool has = modules && PyMapping_HasKeyString(modules, "site");
    bool wanted = subhost__policy_number(policy, POLICY_INTERPRETER_SITE);
    if (has != wanted &&
        (wanted ? subhost__boot_site() : subhost__boot_without_site(interp)) < 0)
        return -1;
    return subhost__policing_preload(policy);
}

int subhost__policing_begin(subhost_interp *interp, const subhost_task *task)
{
    const subhost_policy *policy = task->policy;
    bool no_exec = !subhost__policy_number(policy, POLICY_EXEC_ALLOW);
    bool confined =
        interp->is_main && subhost__policy_value(policy, POLICY_FORK_PASS)->given;
    atomic_store(&interp->no_exec, no_exec);
    if (interp->is_main && set_image_right(interp, policy) < 0)
        return -1;
    if (!no_exec && !confined)
        return 0;
    PyObject *done = subhost__prelude_call(
        interp, "confine", "(iz)", (int)no_exec,
        confined ? subhost__policy_text(policy, POLICY_FORK_PASS) : NULL);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

enum policing_anew subhost__policing_anew(const subhost_interp *interp,
                                          const subhost_task *task)
{
    /* A pool's worker has begun with others' calls, which are not to be done again. */
    if (interp->is_main || task->worker)
        return ANEW_NOT;
    if (is_word(interp->policy, POLICY_IMPORTS_UNSUPPORTED, "shared"))
        return interp->gil == SUBHOST_GIL_OWN ? ANEW_SHARED : ANEW_NOT;
    return subhost__policing_moves(interp->policy) &&
                   !is_word(task->policy, POLICY_FORK_MODE, "deny")
               ? ANEW_PROCESS
               : ANEW_NOT;
}

bool subhost__policing_moves(const subhost_policy *policy)
{
    return is_word(policy, POLICY_IMPORTS_UNSUPPORTED, "process");
}

bool subhost__policing_loads_anything(const subhost_interp *interp)
{
    return is_word(interp->policy, POLICY_IMPORTS_UNSUPPORTED, "warn");
}

static void limit(int resource, rlim_t soft, rlim_t hard)
{
    struct rlimit now;
    if (getrlimit(resource, &now) != 0)
        return;
    now.rlim_max = hard < now.rlim_max ? hard : now.rlim_max;
    now.rlim_cur = soft < now.rlim_max ? soft : now.rlim_max;
    setrlimit(resource, &now);
}

/* What RLIMIT_DATA counts, as far as it is in use already; 0: not known. */
static rlim_t data_in_use(void)
{
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file)
        return 0;
    if (fscanf(file, "%*u %*u %*u %*u %*u %llu", &pages) != 1)
        pages = 0;
    fclose(file);
    return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

void subhost__policing_confine(const subhost_policy *policy)
{
    int64_t memory = subhost__policy_number(policy, POLICY_LIMITS_MEMORY);
    int64_t cpu = subhost__policy_number(policy, POLICY_LIMITS_CPU);
    int64_t files = subhost__policy_number(policy, POLICY_LIMITS_OPEN_FILES);
    if (cpu > 0) {
        /* In whole seconds, at least one; a program that handles SIGXCPU has one more. */
        rlim_t seconds = (rlim_t)((cpu + SUBHOST_MSEC(1000) - 1) / SUBHOST_MSEC(1000));
        limit(RLIMIT_CPU, seconds, seconds + 1);
    }
    if (files > 0)
        limit(RLIMIT_NOFILE, (rlim_t)files, (rlim_t)files);
    if (!subhost__policy_lists(policy, POLICY_FORK_PASS, "stdin")) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (fd >= 0)
            dup2(fd, STDIN_FILENO);
        if (fd > STDIN_FILENO)
            close(fd);
    }
    if (memory > 0)
        limit(RLIMIT_DATA, data_in_use() + (rlim_t)memory,
              data_in_use() + (rlim_t)memory);
}

/* ---- enough is enough ---------------------------------------------------------------- */

int subhost__policing_room(subhost_host *host, const subhost_interp *interp,
                           subhost_error **err)
{
    const subhost_policy *policy = host->policy;
    int64_t most = subhost__policy_number(policy, POLICY_LIMITS_INTERPRETERS), alive = 0;
    int64_t abandoned = subhost__policy_number(policy, POLICY_QUARANTINE_LIMIT);
    if (abandoned > 0 && host->stats.interpreters_abandoned >= (uint64_t)abandoned &&
        is_word(policy, POLICY_QUARANTINE_ACTION, "refuse"))
        return subhost__fail(err, SUBHOST_EQUARANTINED,
                             "%llu interpreters were abandoned, and no more are created "
                             "(quarantine.limit = %lld, from %s)",
                             (unsigned long long)host->stats.interpreters_abandoned,
                             (long long)abandoned,
                             subhost__policy_origin(policy, POLICY_QUARANTINE_LIMIT));
    if (most == 0 || interp->isolation == SUBHOST_ISOLATION_PROCESS)
        return 0;
    for (subhost_interp *i = host->interps; i; i = i->next) {
        enum interp_state state = atomic_load(&i->state);
        alive += !i->process && state != INTERP_ENDED && state != INTERP_FAILED;
    }
    if (alive < most)
        return 0;
    return subhost__fail(err, SUBHOST_EFORBIDDEN,
                         "%lld interpreters are alive, which is all that the policy '%s' "
                         "allows (limits.interpreters = %lld, from %s)",
                         (long long)alive, subhost__policy_name(policy), (long long)most,
                         subhost__policy_origin(policy, POLICY_LIMITS_INTERPRETERS));
}

void subhost__policing_abandoned(subhost_host *host)
{
    const subhost_policy *policy = host->policy;
    int64_t most = subhost__policy_number(policy, POLICY_QUARANTINE_LIMIT);
    pthread_mutex_lock(&host->lock);
    uint64_t abandoned = ++host->stats.interpreters_abandoned;
    bool wanted = most > 0 && abandoned >= (uint64_t)most &&
                  is_word(policy, POLICY_QUARANTINE_ACTION, "recycle");
    bool first = wanted && !atomic_exchange(&host->recycle_wanted, true);
    pthread_mutex_unlock(&host->lock);
    if (first)
        NOTE_EVENT(host->trail, RECYCLE_WANTED, 0, 0, TRAIL_NUMBER(ABANDONED, abandoned),
                   TRAIL_NUMBER(LIMIT, most));
}

int subhost_recycle_wanted(const subhost_host *host)
{
    return atomic_load(&host->recycle_wanted);
}

bool subhost__policing_child_allowed(subhost_host *host, unsigned alive, char *why,
                                     size_t size)
{
    const subhost_policy *policy = host->policy;
    int64_t most = subhost__policy_number(policy, POLICY_LIMITS_CHILDREN);
    if (most == 0 || alive < (uint64_t)most)
        return true;
    snprintf(why, size,
             "%u processes are alive, which is all that the policy '%s' allows "
             "(limits.children = %lld, from %s)",
             alive, subhost__policy_name(policy), (long long)most,
             subhost__policy_origin(policy, POLICY_LIMITS_CHILDREN));
    return false;
}
