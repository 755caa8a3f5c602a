/* SPDX-License-Identifier: MIT
 *
 * timeout: 240
 *
 * Bindings and callbacks by the public API; threads that call into interpreters which are
 * cancelled, end and begin meanwhile. SUBHOST_TEST_CALLBACKS: how many calls each of these
 * threads makes (100000 for a long run). */
#include "unit.h"

#include <math.h>
#include <sys/stat.h>

#define THREADS 8
#define INTERPS 4

/* A module for the interpreters, in a folder of its own on PYTHONPATH. */
static char folder[] = "/tmp/subhost-callbacks-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    char path[128];
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/unit_callbacks.py", folder);
    FILE *file = fopen(path, "w");
    if (!file)
        return -1;
    fputs("def work(value):\n"
          "    return sum([value, 1])\n"
          "class Deep:\n"
          "    @staticmethod\n"
          "    def fails(value):\n"
          "        raise ValueError(value)\n"
          "def slow(value):\n"
          "    import time\n"
          "    time.sleep(0.2)\n"
          "    return value\n",
          file);
    fclose(file);
    setenv("PYTHONDONTWRITEBYTECODE", "1", 1);
    return setenv("PYTHONPATH", folder, 1);
}

static int remove_folder(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/unit_callbacks.py", folder);
    unlink(path);
    return rmdir(folder);
}

static int64_t call(const subhost_callback *callback, int64_t value)
{
    return ((int64_t(*)(int64_t))subhost_callback_function(callback))(value);
}

static subhost_callback *make(subhost_interp *interp, const char *callable)
{
    subhost_callback *callback = NULL;
    assert_int_equal(
        subhost_callback_create(interp, callable, "i64(i64) = -7", &callback, NULL), 0);
    return callback;
}

static uint64_t defaulted(subhost_host *host)
{
    subhost_stats stats = {.size = sizeof stats};
    subhost_get_stats(host, &stats);
    return stats.callbacks_defaulted;
}

/* ---- binding ---------------------------------------------------------------------- */

static void bindings(void **state)
{
    (void)state;
    subhost_host *host = unit_open();
    subhost_interp *interp = unit_interp(host);
    unit_run(interp, "import subhost.native\n", SUBHOST_RETURNED);
    unit_run(interp, "from subhost import native\nassert not hasattr(native, 'power')\n",
             SUBHOST_RETURNED);
    subhost_bind_options options = SUBHOST_BIND_OPTIONS_INIT;
    options.doc = "x to the power of y.";
    assert_int_equal(subhost_bind(host, "power", (subhost_native_function)pow,
                                  "f64(f64 x, f64 y)", &options, NULL),
                     0);
    unit_run(interp,
             "import subhost\n"
             "power = subhost.native.power\n"
             "assert power(2, y=3) == 8\n"
             "assert power.__doc__ == 'x to the power of y.\\n\\nC: f64(f64 x, f64 y)'\n",
             SUBHOST_RETURNED);
    /* An older, shorter struct. */
    options.size = sizeof(size_t);
    assert_int_equal(subhost_bind(host, NULL, (subhost_native_function)sqrt,
                                  "f64 root(f64)", &options, NULL),
                     0);
    unit_run(
        interp,
        "from subhost import native\nassert native.root.__doc__ == 'C: f64 root(f64)'",
        SUBHOST_RETURNED);
    subhost_interp_release(interp);
    unit_close(host);
}

static void bad_bindings(void **state)
{
    (void)state;
    static const struct {
        const char *name, *signature, *message;
        size_t size;
        int code;
    } rows[] = {
        {"f", NULL, "subhost_bind: f: signature is NULL", 16, SUBHOST_EINVAL},
        {"f", "f64(f64",
         "subhost_bind: f: signature \"f64(f64\": column 8: expected ')' or "
         "',' behind a parameter, found the end",
         16, SUBHOST_EINVAL},
        {NULL, "f64(f64)",
         "subhost_bind: signature \"f64(f64)\": it has no name; write it "
         "behind the result's type, as in f64 pow(f64, f64)",
         16, SUBHOST_EINVAL},
        {"1f", "f64(f64)", "subhost_bind: 1f: '1f' cannot be a name in subhost.native",
         16, SUBHOST_EINVAL},
        {"callback", "f64(f64)",
         "subhost_bind: callback: 'callback' cannot be a name in "
         "subhost.native: it is taken",
         16, SUBHOST_EINVAL},
        {"taken", "f64(f64)", "subhost_bind: taken: taken is bound already", 16,
         SUBHOST_ESTATE},
        {"f", "f64(f64)",
         "subhost_bind: f: subhost_bind_options: its size field is 3; its "
         "INIT macro sets it",
         3, SUBHOST_EINVAL},
    };
    subhost_host *host = unit_open();
    assert_int_equal(subhost_bind(host, "taken", (subhost_native_function)sqrt,
                                  "f64(f64)", NULL, NULL),
                     0);
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        subhost_error *err = NULL;
        subhost_bind_options options = {.size = rows[i].size};
        assert_int_equal(subhost_bind(host, rows[i].name, (subhost_native_function)sqrt,
                                      rows[i].signature, &options, &err),
                         rows[i].code);
        assert_string_equal(subhost_error_message(err), rows[i].message);
        subhost_error_free(err);
    }
    subhost_error *err = NULL;
    assert_int_equal(
        subhost_bind(NULL, "f", (subhost_native_function)sqrt, "f64(f64)", NULL, &err),
        SUBHOST_EINVAL);
    assert_string_equal(subhost_error_message(err), "subhost_bind: f: host is NULL");
    subhost_error_free(err);
    assert_int_equal(subhost_bind(host, "f", NULL, "f64(f64)", NULL, NULL),
                     SUBHOST_EINVAL);
    unit_close(host);
}

static atomic_bool in_shield;

static void enter_shield(void) { atomic_store(&in_shield, true); }

static void cancel_is_asked_for(void **state)
{
    (void)state;
    atomic_store(&in_shield, false);
    subhost_host *host = unit_open();
    assert_int_equal(subhost_bind(host, "shielded", (subhost_native_function)enter_shield,
                                  "void()", NULL, NULL),
                     0);
    assert_int_equal(subhost_cancel_requested(), 0); /* not hosted */
    assert_int_equal(subhost_bind(host, "asked",
                                  (subhost_native_function)subhost_cancel_requested,
                                  "i32() gil", NULL, NULL),
                     0);
    subhost_interp *interp = unit_interp(host);
    subhost_task *task = unit_submit(interp,
                                     "import subhost\n"
                                     "assert subhost.native.asked() == 0\n"
                                     "with subhost.shield():\n"
                                     "    subhost.native.shielded()\n"
                                     "    while not subhost.native.asked(): pass\n"
                                     "    raise SystemExit(7)\n",
                                     NULL);
    unit_until_running(host, task);
    int64_t deadline = subhost__deadline(unit_patience(20));
    while (!atomic_load(&in_shield) && subhost__now() < deadline)
        subhost_dispatch(host, SUBHOST_MSEC(1), NULL);
    subhost_task_cancel(task, SUBHOST_BY_REQUEST, NULL);
    subhost_outcome outcome = unit_wait(task);
    assert_int_equal(outcome.code, 7);
    subhost_task_release(task);
    subhost_interp_release(interp);
    unit_close(host);
}

/* ---- callbacks of C --------------------------------------------------------------- */

static void from_any_thread(void **state)
{
    (void)state;
    subhost_host *host = unit_open();
    subhost_interp *interp = unit_interp(host);
    subhost_callback *callback = make(interp, "unit_callbacks:work");
    subhost_callback *fails = make(interp, "unit_callbacks:Deep.fails");
    unit_run(interp,
             "import sys\nsys.unraisablehook = lambda info: seen.append(info)\n"
             "import builtins\nseen = builtins.seen = []",
             SUBHOST_RETURNED);
    uint64_t before = defaulted(host);
    assert_int_equal(call(callback, 41), 42);
    assert_int_equal(call(fails, 41), -7);
    assert_int_equal(defaulted(host), before + 1);
    unit_run(interp, "assert len(seen) == 1 and seen[0].exc_type is ValueError",
             SUBHOST_RETURNED);
    /* It waits its turn while the interpreter computes. */
    subhost_task *task = unit_submit(interp, "while True: pass", NULL);
    unit_until_running(host, task);
    assert_int_equal(call(callback, 1), 2);
    subhost_task_cancel(task, SUBHOST_BY_REQUEST, NULL);
    unit_wait(task);
    subhost_task_release(task);
    /* A fresh interpreter in the same place. */
    subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
    options.fresh = 1;
    task = unit_submit(interp, "pass", &options);
    unit_wait(task);
    subhost_task_release(task);
    unit_run(interp, "pass", SUBHOST_RETURNED);
    assert_int_equal(call(callback, 2), 3);
    subhost_interp_release(interp);
    unit_close(host);
    assert_int_equal(call(callback, 1), -7);
    subhost_callback_release(callback);
    subhost_callback_release(fails);
    subhost_callback_release(NULL);
}

static void bad_callbacks(void **state)
{
    (void)state;
    static const struct {
        const char *callable, *signature, *message;
    } rows[] = {
        {"json", "i32()",
         "subhost_callback_create: 'json' is not MODULE:NAME, as json:loads"},
        {":x", "i32()",
         "subhost_callback_create: ':x' is not MODULE:NAME, as json:loads"},
        {NULL, "i32()", "subhost_callback_create: callable is NULL"},
        {"a:b", NULL, "subhost_callback_create: signature is NULL"},
        {"a:b", "i32(fn i8())",
         "subhost_callback_create: signature \"i32(fn i8())\": column 5: "
         "a callback cannot take functions; use ptr"},
    };
    subhost_host *host = unit_open();
    subhost_interp *interp = unit_interp(host);
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        subhost_callback *callback = NULL;
        subhost_error *err = NULL;
        assert_int_equal(subhost_callback_create(interp, rows[i].callable,
                                                 rows[i].signature, &callback, &err),
                         SUBHOST_EINVAL);
        assert_string_equal(subhost_error_message(err), rows[i].message);
        assert_null(callback);
        subhost_error_free(err);
    }
    subhost_interp_options options = SUBHOST_INTERP_OPTIONS_INIT;
    options.isolation = SUBHOST_ISOLATION_PROCESS;
    subhost_interp *process = NULL;
    subhost_callback *callback = NULL;
    assert_int_equal(subhost_interp_create(host, &options, &process, NULL), 0);
    assert_int_equal(subhost_callback_create(process, "a:b", "i32()", &callback, NULL),
                     SUBHOST_ESTATE);
    subhost_interp_release(process);
    subhost_interp_release(interp);
    unit_close(host);
}

/* From one interpreter into another, and back into the first. */
static subhost_callback *there, *back;

static int64_t hop(int64_t value) { return value > 0 ? call(there, value) : 0; }
static int64_t hop_back(int64_t value) { return call(back, value); }

static void through_two_interpreters(void **state)
{
    (void)state;
    static const char *const attributes[] = {"", " gil"};
    for (size_t i = 0; i < ARRAY_LENGTH(attributes); i++) {
        subhost_host *host = unit_open();
        char text[64];
        snprintf(text, sizeof text, "i64(i64)%s", attributes[i]);
        assert_int_equal(
            subhost_bind(host, "hop", (subhost_native_function)hop, text, NULL, NULL), 0);
        assert_int_equal(subhost_bind(host, "hop_back", (subhost_native_function)hop_back,
                                      text, NULL, NULL),
                         0);
        subhost_interp *first = unit_interp(host), *second = unit_interp(host);
        unit_run(second,
                 "import sys, types, subhost\nsys.modules['second'] = m = "
                 "types.ModuleType('second')\n"
                 "m.step = lambda v: subhost.native.hop_back(v - 1) + 100\n",
                 SUBHOST_RETURNED);
        there = make(second, "second:step");
        back = make(first, "first:step");
        unit_run(first,
                 "import sys, types, subhost\nsys.modules['first'] = m = "
                 "types.ModuleType('first')\n"
                 "m.step = lambda v: subhost.native.hop(v) + 1\n"
                 "assert subhost.native.hop(3) == 303, subhost.native.hop(3)\n"
                 "import threading\n"
                 "ids = []\n"
                 "def more():\n"
                 "    ids.append(subhost.native.hop(5))\n"
                 "threads = [threading.Thread(target=more) for _ in range(4)]\n"
                 "for t in threads: t.start()\n"
                 "for t in threads: t.join()\n"
                 "assert ids == [505] * 4, ids\n",
                 SUBHOST_RETURNED);
        subhost_interp_release(first);
        subhost_interp_release(second);
        unit_close(host);
        subhost_callback_release(there);
        subhost_callback_release(back);
    }
}

/* ---- the storm -------------------------------------------------------------------- */

/* Function pointers, which threads take as they find them: old ones, too. */
typedef int64_t (*function)(int64_t);
static function _Atomic pointers[2 * INTERPS];
static atomic_int running, wrong, registered[INTERPS];
static atomic_ullong calls, defaults_seen;
static int calls_each;

/* subhost.native.register(worker, callback): a callback of Python's. */
static void register_callback(int worker, function f)
{
    atomic_store(&pointers[INTERPS + worker], f);
    atomic_fetch_add(&registered[worker], 1);
}

static void *storm(void *arg)
{
    unsigned random = (unsigned)(uintptr_t)arg * 2654435761u + 1;
    for (int i = 0; i < calls_each; i++) {
        random = random * 1103515245u + 12345;
        function f = atomic_load(&pointers[(random >> 16) % ARRAY_LENGTH(pointers)]);
        if (!f) {
            usleep(1000);
            i--;
            continue;
        }
        int64_t result = f(i);
        atomic_fetch_add(&calls, 1);
        if (result == -7) {
            atomic_fetch_add(&defaults_seen, 1);
            usleep(50); /* an interpreter's end should not be all that is met */
        } else if (result != i + 1)
            atomic_fetch_add(&wrong, 1);
    }
    atomic_fetch_sub(&running, 1);
    return NULL;
}

/* Each sort of program that an interpreter runs meanwhile. */
static const char *const programs[] = {
    "while True: pass",
    "while True: time.sleep(0.001)",
    "while True: threading.Event().wait(1)",
    "while True: gc.collect()",
};

struct place {
    subhost_interp *interp;
    subhost_task *task;
    int worker, generation;
};

/* A cancel in the middle of an import would be another test. */
static void until_registered(subhost_host *host, const struct place *place)
{
    assert_true(unit_reaches(host, &registered[place->worker], place->generation));
}

static void begin_place(subhost_host *host, struct place *place, int worker,
                        subhost_callback **made)
{
    subhost_interp_options options = SUBHOST_INTERP_OPTIONS_INIT;
    options.worker = place->worker = worker;
    place->generation++;
    char code[512];
    snprintf(
        code, sizeof code,
        "import gc, subhost, sys, threading, time, unit_callbacks\nsys.unraisablehook = "
        "lambda info: None\n"
        "sys.excepthook = lambda *a: None\n"
        "native = subhost.native\n"
        "native.register(%d, native.callback(unit_callbacks.work, 'i64(i64) = -7'))\n"
        "%s",
        worker, programs[(unsigned)rand() % ARRAY_LENGTH(programs)]);
    assert_int_equal(subhost_interp_create(host, &options, &place->interp, NULL), 0);
    /* Eight threads are at it: on a busy machine two seconds are short. */
    subhost_task_options task_options = SUBHOST_TASK_OPTIONS_INIT;
    task_options.grace = unit_patience(2);
    place->task = unit_submit(place->interp, code, &task_options);
    *made = make(place->interp, "unit_callbacks:work");
    atomic_store(&pointers[worker], (function)subhost_callback_function(*made));
}

static void end_place(struct place *place)
{
    subhost_task_cancel(place->task, SUBHOST_BY_REQUEST, NULL);
    subhost_interp_release(place->interp);
    subhost_outcome outcome = unit_wait(place->task);
    unit_expect(&outcome, SUBHOST_CANCELLED);
    subhost_task_release(place->task);
}

static void callbacks_in_a_storm(void **state)
{
    (void)state;
    enum { MOST = 4096 };
    static subhost_callback *made[MOST];
    size_t n = 0;
    const char *text = getenv("SUBHOST_TEST_CALLBACKS");
    calls_each = text ? atoi(text) : unit_count(2000, 300, 60);
    int saved = unit_mute();
    subhost_host *host = unit_open();
    assert_int_equal(subhost_bind(host, "register",
                                  (subhost_native_function)register_callback,
                                  "void(i32, fn i64(i64) = -7)", NULL, NULL),
                     0);
    struct place places[INTERPS] = {{0}};
    for (int i = 0; i < INTERPS; i++)
        begin_place(host, &places[i], i, &made[n++]);
    pthread_t threads[THREADS];
    for (int i = 0; i < INTERPS; i++)
        until_registered(host, &places[i]);
    atomic_store(&running, THREADS);
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, storm, (void *)i), 0);
    for (int at = 0; atomic_load(&running) > 0; at = (at + 1) % INTERPS) {
        assert_true(subhost_dispatch(host, SUBHOST_MSEC(20), NULL) >= 0);
        if (n == MOST)
            continue;
        until_registered(host, &places[at]);
        end_place(&places[at]);
        begin_place(host, &places[at], at, &made[n++]);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    subhost_stats stats = {.size = sizeof stats};
    subhost_get_stats(host, &stats);
    for (int i = 0; i < INTERPS; i++) {
        until_registered(host, &places[i]);
        end_place(&places[i]);
    }
    unit_close(host);
    unit_unmute(saved);
    print_message("%llu calls, %llu defaults, %zu interpreters\n",
                  (unsigned long long)calls, (unsigned long long)defaults_seen, n);
    assert_int_equal(stats.callbacks, calls);
    assert_int_equal(stats.callbacks_defaulted, defaults_seen);
    assert_int_equal(wrong, 0);
    assert_true(calls > 0 && defaults_seen < calls);
    /* All of them, after the end of everything. */
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(call(made[i], 1), -7);
        subhost_callback_release(made[i]);
    }
    for (int i = INTERPS; i < 2 * INTERPS; i++)
        if (pointers[i])
            assert_int_equal(pointers[i](1), -7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(bindings),
        UNIT_TEST(bad_bindings),
        UNIT_TEST(cancel_is_asked_for),
        UNIT_TEST(from_any_thread),
        UNIT_TEST(bad_callbacks),
        UNIT_TEST(through_two_interpreters),
        UNIT_TEST(callbacks_in_a_storm),
    };
    cmocka_set_test_filter(getenv("UNIT_FILTER"));
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
