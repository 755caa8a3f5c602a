/* SPDX-License-Identifier: MIT
 *
 * timeout: 300
 *
 * Each allocation of the library's fails in turn, from the opening of a host to its end: no
 * crash, no hang, nothing left behind, and the error says that it was memory. Those of CPython,
 * which ends the process over some of them, do not fail: what fails is the calls that are
 * linked into this program (--wrap), of the allocator's and of functions that allocate.
 *
 * SUBHOST_TEST_ROUNDS: at how many places, all (0) or so many; SUBHOST_TEST_PLACE: at this one
 * only, in this process, with a stack of where. */
#define _GNU_SOURCE
#include "unit.h"

#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <ffi.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "pool.h"

/* ---- what fails ------------------------------------------------------------------------ */

static atomic_long calls;
static long failing = -1; /* the call that fails; -1: none */
static bool and_after;    /* those after it, too */
static bool show;

static void show_stack(const char *name)
{
    void *frames[24];
    int n = backtrace(frames, 24);
    fprintf(stderr, "# %s fails:\n", name);
    backtrace_symbols_fd(frames, n, STDERR_FILENO);
}

static bool fails(const char *name)
{
    long nth = atomic_fetch_add(&calls, 1);
    bool is = failing >= 0 && (nth == failing || (and_after && nth > failing));
    if (is && show && nth == failing)
        show_stack(name);
    if (is)
        errno = ENOMEM;
    return is;
}

/* ---- what is left ---------------------------------------------------------------------- */

/* Memory that the library has now, by address: open addressing. */
#define SLOTS (1u << 16)
static void *live[SLOTS];
static size_t live_sizes[SLOTS];
static long live_count;
static pthread_mutex_t live_lock = PTHREAD_MUTEX_INITIALIZER;
#define GONE ((void *)-1)

static unsigned slot_of(const void *address)
{
    return (unsigned)((uintptr_t)address >> 4) * 2654435761u >> 16;
}

static void *note(void *address, size_t size)
{
    if (!address)
        return NULL;
    pthread_mutex_lock(&live_lock);
    unsigned i = slot_of(address);
    while (live[i % SLOTS] && live[i % SLOTS] != GONE)
        i++;
    live[i % SLOTS] = address;
    live_sizes[i % SLOTS] = size;
    live_count++;
    pthread_mutex_unlock(&live_lock);
    return address;
}

static void forget(const void *address)
{
    pthread_mutex_lock(&live_lock);
    for (unsigned i = slot_of(address); live[i % SLOTS]; i++) {
        if (live[i % SLOTS] == address) {
            live[i % SLOTS] = GONE;
            live_count--;
            break;
        }
    }
    pthread_mutex_unlock(&live_lock);
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void __real_free(void *address);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t n);
int __real_vasprintf(char **to, const char *format, va_list args);
FILE *__real_open_memstream(char **to, size_t *size);
void *__real_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
void *__real_ffi_closure_alloc(size_t size, void **code);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
                          void *(*function)(void *), void *arg);

void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
    return fails("malloc") ? NULL : note(__real_malloc(size), size);
}

void *__wrap_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size)
{
    return fails("calloc") ? NULL : note(__real_calloc(n, size), n * size);
}

void *__wrap_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size)
{
    if (fails("realloc"))
        return NULL;
    if (old)
        forget(old);
    return note(__real_realloc(old, size), size);
}

void __wrap_free(void *address);
void __wrap_free(void *address)
{
    if (address)
        forget(address);
    __real_free(address);
}

char *__wrap_strdup(const char *text);
char *__wrap_strdup(const char *text)
{
    return fails("strdup") ? NULL : note(__real_strdup(text), strlen(text) + 1);
}

char *__wrap_strndup(const char *text, size_t n);
char *__wrap_strndup(const char *text, size_t n)
{
    return fails("strndup") ? NULL : note(__real_strndup(text, n), n);
}

int __wrap_vasprintf(char **to, const char *format, va_list args);
int __wrap_vasprintf(char **to, const char *format, va_list args)
{
    int n = fails("vasprintf") ? -1 : __real_vasprintf(to, format, args);
    if (n >= 0)
        note(*to, (size_t)n + 1);
    return n;
}

int __wrap_asprintf(char **to, const char *format, ...);
int __wrap_asprintf(char **to, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = fails("asprintf") ? -1 : __real_vasprintf(to, format, args);
    va_end(args);
    if (n >= 0)
        note(*to, (size_t)n + 1);
    return n;
}

FILE *__wrap_open_memstream(char **to, size_t *size);
FILE *__wrap_open_memstream(char **to, size_t *size)
{
    return fails("open_memstream") ? NULL : __real_open_memstream(to, size);
}

void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    return fails("mmap") ? MAP_FAILED
                         : __real_mmap(at, size, protection, flags, fd, offset);
}

void *__wrap_ffi_closure_alloc(size_t size, void **code);
void *__wrap_ffi_closure_alloc(size_t size, void **code)
{
    return fails("ffi_closure_alloc") ? NULL : __real_ffi_closure_alloc(size, code);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
                          void *(*function)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
                          void *(*function)(void *), void *arg)
{
    return fails("pthread_create") ? EAGAIN
                                   : __real_pthread_create(thread, attr, function, arg);
}

/* ---- one life of a host ---------------------------------------------------------------- */

static const char *step;
static int failures;

static int report_fd = STDERR_FILENO;

static void complain(const char *text)
{
    dprintf(report_fd, "# place %ld%s, %s: %s\n", failing,
            and_after ? " and all after" : "", step, text);
    failures++;
}

/* 0 or a failure that has been looked at. */
static bool ok(int code, subhost_error *err)
{
    if (code >= 0)
        return true;
    const char *text = err ? subhost_error_message(err) : "no error object";
    /* A thread that cannot be started is the system's; each tells what was being done, but
     * where there is no memory even for that. */
    bool right = code == SUBHOST_ENOMEM || code == SUBHOST_ESYSTEM ||
                 (code == SUBHOST_ESTATE && strstr(text, "memory")); /* said later */
    bool names = and_after || strlen(text) > strlen("out of memory");
    if (failing < 0 || !right || !names || !err)
        complain(text);
    subhost_error_free(err);
    return false;
}

static int answer;
#define TRY(name, call) (step = (name), err = NULL, answer = (call), ok(answer, err))

/* What ended for want of memory says so. */
static void look(const subhost_outcome *outcome)
{
    if (outcome->kind == SUBHOST_RETURNED)
        return;
    const char *detail = outcome->detail;
    if (failing < 0 || !(strcasestr(detail, "memory") || strstr(detail, "thread")))
        complain(*detail ? detail : subhost_outcome_name(outcome->kind));
}

static void run_program(subhost_interp *interp)
{
    static const char *const argv[] = {"an argument"};
    subhost_program program = SUBHOST_PROGRAM_INIT;
    subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
    subhost_task *task = NULL;
    subhost_error *err;
    program.kind = SUBHOST_PROGRAM_CODE;
    program.source = "import sys; sys.excepthook = lambda *a: None\n"
                     "import threading\n"
                     "from subhost import native\n"
                     "assert getattr(native, 'bound', abs)(-4) == 4\n"
                     "data = bytearray(b'3142')\n"
                     "if hasattr(native, 'qsort'):\n"
                     "    native.qsort(data, 1, lambda a, b: (a > b) - (a < b))\n"
                     "    assert data == b'1234', data\n"
                     "with native.callback(abs, 'i32(i32)') as back: back.pointer\n"
                     "threading.Thread(target=len, args=('',)).start()\n";
    program.argc = 1;
    program.argv = argv;
    options.name = "task";
    if (!TRY("submit", subhost_submit(interp, &program, &options, &task, &err)))
        return;
    subhost_outcome outcome = {.size = sizeof outcome};
    if (TRY("wait", subhost_task_wait(task, unit_patience(10), &outcome, &err)))
        look(&outcome);
    subhost_task_release(task);
}

static void release_nothing(void *address, int in_use, void *data)
{
    (void)address, (void)in_use;
    ++*(int *)data;
}

static void fill(subhost_value *value, int *released)
{
    static char bytes[8];
    subhost_error *err;
    subhost_memory memory = SUBHOST_MEMORY_INIT;
    subhost_buffer *buffer = NULL;
    memory.address = bytes;
    memory.length = sizeof bytes;
    subhost_value_begin(value, SUBHOST_VALUE_LIST);
    subhost_value_add_str(value, "text", 4);
    if (TRY("buffer",
            subhost_buffer_new(&memory, release_nothing, released, &buffer, &err)))
        subhost_value_add_buffer(value, buffer);
    else
        ++*released;
    subhost_buffer_release(buffer);
    subhost_value_end(value);
}

static void take(subhost_host *host, subhost_pool *pool)
{
    subhost_call *taken = NULL;
    subhost_outcome outcome = {.size = sizeof outcome};
    int64_t deadline = subhost__now() + unit_patience(10);
    while (subhost_pool_take(pool, &taken, 1, 0, NULL) == 0) {
        if (subhost__now() > deadline) {
            complain("a call has not ended");
            return;
        }
        subhost_dispatch(host, SUBHOST_MSEC(5), NULL);
    }
    subhost_call_outcome(taken, &outcome);
    look(&outcome);
}

static void run_calls(subhost_host *host)
{
    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    subhost_pool *pool = NULL;
    subhost_function *function = NULL;
    subhost_call *call = NULL;
    subhost_error *err;
    int released = 0;
    options.workers = 1;
    if (!TRY("pool", subhost_pool_open(host, &options, &pool, &err)))
        return;
    if (TRY("function", subhost_pool_function(pool, "builtins:list", &function, &err)) &&
        TRY("call", subhost_call_new(function, NULL, &call, &err))) {
        fill(subhost_call_argument(call), &released);
        if (TRY("pool submit", subhost_pool_submit(pool, &call, 1, 0, &err)))
            take(host, pool);
        else
            released += released == 0 && !call;
    }
    TRY("pool close", subhost_pool_close(pool, unit_patience(2), &err));
    subhost_call_free(call);
    step = "release";
    if (call && released != 1)
        complain("a buffer was not released once");
}

static void run_callback(subhost_interp *interp)
{
    subhost_callback *callback = NULL;
    subhost_error *err;
    if (!TRY("callback", subhost_callback_create(interp, "builtins:abs", "i32(i32) = -1",
                                                 &callback, &err)))
        return;
    int result = ((int (*)(int))subhost_callback_function(callback))(-5);
    if (result != 5 && (result != -1 || failing < 0))
        complain("a callback gave neither its result nor its default");
    subhost_callback_release(callback);
}

static void run_host(void)
{
    subhost_options options = SUBHOST_OPTIONS_INIT;
    subhost_interp_options interp_options = SUBHOST_INTERP_OPTIONS_INIT;
    subhost_bind_options bind_options = SUBHOST_BIND_OPTIONS_INIT;
    subhost_host *host = NULL;
    subhost_interp *interp = NULL;
    subhost_policy *policy = NULL;
    subhost_error *err;
    options.trail = "/dev/null";
    bind_options.doc = "A function.";
    interp_options.name = "interp";
    if (TRY("policy", subhost_policy_load("default", &policy, &err)))
        TRY("policy set", subhost_policy_set(policy, "cancel.grace=1s", NULL, &err));
    interp_options.policy = policy;
    if (TRY("open", subhost_open(&options, &host, &err))) {
        TRY("bind", subhost_bind(host, "bound", (subhost_native_function)abs,
                                 "i32(i32 x)", &bind_options, &err));
        TRY("bind library",
            subhost_bind_library(host, "libc.so.6",
                                 "void qsort(mut buf base, len n, size width, "
                                 "fn i32(in u8, in u8) compare)",
                                 NULL, &err));
        if (TRY("interp", subhost_interp_create(host, &interp_options, &interp, &err))) {
            run_program(interp);
            run_callback(interp);
            subhost_interp_release(interp);
        }
        run_calls(host);
        TRY("close", subhost_close(host, SUBHOST_CLOSE_FINALIZE, unit_patience(5), &err));
    }
    subhost_policy_free(policy);
}

/* ---- in turn ----------------------------------------------------------------------------- */

struct figures {
    long calls, left;
};

/* The host's life, with one failure, in a child. False: it crashed, hung, or complained. */
static bool in_a_child(long place, bool after, struct figures *figures)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm((unsigned)(unit_patience(60) / SUBHOST_MSEC(1000)));
        report_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
        if (!show)
            unit_mute();
        atomic_store(&calls, 0);
        failing = place;
        and_after = after;
        run_host();
        struct figures own = {atomic_load(&calls), live_count};
        failing = -1;
        step = "end";
        if (figures->left && own.left > figures->left) {
            char text[80];
            snprintf(text, sizeof text, "%ld blocks are left, and not %ld", own.left,
                     figures->left);
            complain(text);
        }
        if (write(ends[1], &own, sizeof own) != sizeof own)
            failures++;
        exit(failures ? 1 : 0);
    }
    close(ends[1]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (place < 0)
        assert_int_equal(read(ends[0], figures, sizeof *figures), sizeof *figures);
    close(ends[0]);
    if (WIFSIGNALED(status))
        print_error("place %ld%s: signal %d%s\n", place, after ? " and all after" : "",
                    WTERMSIG(status), WTERMSIG(status) == SIGALRM ? " (it hung)" : "");
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void in_turn(bool after)
{
    const char *rounds_text = getenv("SUBHOST_TEST_ROUNDS");
    const char *place_text = getenv("SUBHOST_TEST_PLACE");
    long rounds = rounds_text ? atol(rounds_text) : unit_count(24, 8, 0);
    struct figures figures = {0};
    unsigned bad = 0, done = 0;
    if (unit_on_valgrind())
        skip(); /* it finds nothing that counting does not */
    show = place_text != NULL;
    if (!in_a_child(-1, false, &figures))
        fail_msg("it fails when no allocation does");
    assert_true(figures.calls > 50);
    if (place_text) {
        assert_true(in_a_child(atol(place_text), after, &figures));
        return;
    }
    /* Other places each time, and all of them in the long run. */
    long step_size = rounds > 0 && figures.calls > rounds ? figures.calls / rounds : 1;
    for (long place = getpid() % step_size; place < figures.calls; place += step_size) {
        bad += !in_a_child(place, after, &figures);
        done++;
    }
    print_message("%u of %ld places, %u bad\n", done, figures.calls, bad);
    assert_int_equal(bad, 0);
}

static void one_fails(void **state)
{
    (void)state;
    in_turn(false);
}

static void all_fail_from_there_on(void **state)
{
    (void)state;
    in_turn(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(one_fails),
        UNIT_TEST(all_fail_from_there_on),
    };
    return UNIT_MAIN(tests);
}
