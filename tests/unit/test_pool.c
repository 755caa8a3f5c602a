/* Pools: values through Python and back, how calls end, and that each is told once. */
#include "unit_pool.h"

static const char module_text[] = "import os\n"
                                  "def same(x): return x\n"
                                  "def spin(x):\n"
                                  "    while x: pass\n"
                                  "def swallow(x):\n"
                                  "    end = time.monotonic() + x\n"
                                  "    while time.monotonic() < end:\n"
                                  "        try:\n"
                                  "            while time.monotonic() < end: pass\n"
                                  "        except BaseException: pass\n"
                                  "def stuck(x): re.match(r'(a+)+$', 'a' * x + 'b')\n"
                                  "def fails(x): raise ValueError(x)\n"
                                  "def ident(x): return threading.get_ident()\n"
                                  "def pid(x): return os.getpid()\n"
                                  "def die(x): os.kill(os.getpid(), 9)\n"
                                  "class A:\n"
                                  "    @staticmethod\n"
                                  "    def b(x): return x + 1\n"
                                  "number = 3\n";

static char folder[] = "/tmp/subhost-pool-XXXXXX";

static int make_module(void **state)
{
    (void)state;
    return unit_make_module(folder, "poolmod", module_text);
}

static int remove_module(void **state)
{
    (void)state;
    return unit_remove_folder(folder);
}

static struct unit_pool open_pool(const subhost_pool_options *given)
{
    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    if (given)
        options = *given;
    options.path0 = folder;
    if (options.workers == 0)
        options.workers = 2;
    return unit_pool_open(&options);
}

/* ---- values through Python --------------------------------------------------------- */

typedef void (*filler)(subhost_value *value);

static void fill_none(subhost_value *value) { subhost_value_add_none(value); }
static void fill_int(subhost_value *value) { subhost_value_add_int(value, INT64_MIN); }
static void fill_float(subhost_value *value) { subhost_value_add_float(value, -0.0); }
static void fill_bigint(subhost_value *value)
{
    subhost_value_add_bigint(value, "\1\2\3\4\5\6\7\x88\x99", 9);
}
static void fill_surrogates(subhost_value *value)
{
    subhost_value_add_str(value, "x\xED\xA0\x80\xF0\x9F\x98\x80\0y", 10);
}
static void fill_long_str(subhost_value *value)
{
    static char text[70000];
    memset(text, 'x', sizeof text);
    subhost_value_add_str(value, text, sizeof text);
}
static void fill_bytes(subhost_value *value)
{
    subhost_value_add_bytes(value, "\0\xFF", 2);
}
static void fill_nested(subhost_value *value)
{
    for (int i = 0; i < 500; i++)
        subhost_value_begin(value, i % 2 ? SUBHOST_VALUE_LIST : SUBHOST_VALUE_TUPLE);
    subhost_value_begin(value, SUBHOST_VALUE_DICT);
    subhost_value_add_int(value, 1);
    subhost_value_add_bool(value, 0);
    subhost_value_add_none(value);
    subhost_value_add_bytes(value, NULL, 0);
    subhost_value_end(value);
    for (int i = 0; i < 500; i++)
        subhost_value_end(value);
}

static void test_values(void **state)
{
    (void)state;
    static const filler fillers[] = {fill_none,   fill_int,        fill_float,
                                     fill_bigint, fill_surrogates, fill_long_str,
                                     fill_bytes,  fill_nested};
    struct unit_pool p = open_pool(NULL);
    subhost_call *call = unit_call_new(&p, "poolmod:same");
    for (size_t i = 0; i < ARRAY_LENGTH(fillers); i++) {
        subhost_value *argument = subhost_call_argument(call);
        subhost_value_clear(argument);
        fillers[i](argument);
        assert_int_equal(unit_call(&p, call).kind, SUBHOST_RETURNED);
        size_t n, m;
        const void *sent = subhost_value_data(argument, &n);
        const void *got = subhost_value_data(subhost_call_result(call), &m);
        assert_int_equal(n, m);
        assert_memory_equal(sent, got, n);
    }
    subhost_call_free(call);
    unit_pool_close(&p);
}

/* What is no plain value goes by pickle, and comes back as what it was. */
static void test_pickles(void **state)
{
    (void)state;
    struct unit_pool p = open_pool(NULL);
    subhost_call *make = unit_call_new(&p, "fractions:Fraction");
    subhost_value_add_str(subhost_call_argument(make), "3/4", 3);
    assert_int_equal(unit_call(&p, make).kind, SUBHOST_RETURNED);
    subhost_item item = SUBHOST_ITEM_INIT;
    size_t at = 0, size;
    assert_int_equal(subhost_value_next(subhost_call_result(make), &at, &item, NULL), 1);
    assert_int_equal(item.kind, SUBHOST_VALUE_PICKLE);
    subhost_call *print = unit_call_new(&p, "builtins:str");
    const void *data = subhost_value_data(subhost_call_result(make), &size);
    assert_int_equal(subhost_value_load(subhost_call_argument(print), data, size, NULL),
                     0);
    assert_int_equal(unit_call(&p, print).kind, SUBHOST_RETURNED);
    at = 0;
    subhost_value_next(subhost_call_result(print), &at, &item, NULL);
    assert_int_equal(item.length, 3);
    assert_memory_equal(item.data, "3/4", 3);
    subhost_call_free(make);
    subhost_call_free(print);
    unit_pool_close(&p);

    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    options.plain = 1;
    p = open_pool(&options);
    make = unit_call_new(&p, "fractions:Fraction");
    subhost_value_add_str(subhost_call_argument(make), "3/4", 3);
    subhost_outcome outcome = unit_call(&p, make);
    assert_int_equal(outcome.kind, SUBHOST_RAISED);
    assert_non_null(strstr(outcome.detail, "TypeError: an object of type"));
    subhost_call_free(make);
    unit_pool_close(&p);
}

/* ---- how calls end ----------------------------------------------------------------- */

static void check_endings(enum subhost_isolation isolation)
{
    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    options.isolation = isolation;
    struct unit_pool p = open_pool(&options);
    subhost_call *call;
    subhost_outcome outcome = unit_call_int(&p, "poolmod:A.b", 41, &call);
    assert_int_equal(outcome.kind, SUBHOST_RETURNED);
    assert_int_equal(unit_call_result_int(call), 42);
    subhost_call_free(call);
    outcome = unit_call_int(&p, "poolmod:fails", 7, &call);
    assert_int_equal(outcome.kind, SUBHOST_RAISED);
    assert_int_equal(outcome.code, 1);
    assert_string_equal(outcome.detail, "ValueError: 7");
    assert_non_null(strstr(subhost_call_traceback(call), "in fails\n"));
    subhost_call_free(call);
    outcome = unit_call_int(&p, "poolmod:nothing", 7, &call);
    assert_int_equal(outcome.kind, SUBHOST_FAILED);
    assert_int_equal(outcome.status, 127);
    subhost_call_free(call);
    outcome = unit_call_int(&p, "nosuchmodule:nothing", 7, &call);
    assert_int_equal(outcome.status, 127);
    subhost_call_free(call);
    outcome = unit_call_int(&p, "poolmod:number", 7, &call);
    assert_int_equal(outcome.kind, SUBHOST_FAILED);
    assert_int_equal(outcome.status, 126);
    subhost_call_free(call);
    call = unit_call_new(&p, "poolmod:same");
    subhost_value_add_json(subhost_call_argument(call), "[1, ", 4);
    outcome = unit_call(&p, call);
    assert_int_equal(outcome.kind, SUBHOST_RAISED);
    assert_int_equal(outcome.code, 2);
    subhost_call_free(call);
    unit_pool_close(&p);
}

static void test_endings(void **state)
{
    (void)state;
    check_endings(SUBHOST_ISOLATION_INTERPRETER);
    if (unit_can_fork())
        check_endings(SUBHOST_ISOLATION_PROCESS);
}

static void check_timeouts(enum subhost_isolation isolation)
{
    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    options.isolation = isolation;
    options.workers = 1;
    options.timeout = unit_patience(1) / 5;
    options.grace = unit_patience(1) / 5;
    struct unit_pool p = open_pool(&options);
    subhost_call *call;
    subhost_outcome outcome = unit_call_int(&p, "poolmod:spin", 1, &call);
    assert_int_equal(outcome.kind, SUBHOST_TIMED_OUT);
    assert_int_equal(outcome.cancel_reason, SUBHOST_BY_DEADLINE);
    subhost_call_free(call);
    outcome = unit_call_int(&p, "time:sleep", 100, &call);
    assert_int_equal(outcome.kind, SUBHOST_TIMED_OUT);
    subhost_call_free(call);
    outcome = unit_call_int(&p, "poolmod:same", 5, &call);
    assert_int_equal(outcome.kind, SUBHOST_RETURNED);
    subhost_call_free(call);
    subhost_pool_stats stats = {.size = sizeof stats};
    subhost_pool_get_stats(p.pool, &stats);
    assert_int_equal(stats.timeouts, 2);
    assert_int_equal(stats.calls, 3);
    assert_int_equal(stats.replaced, 0);
    unit_pool_close(&p);
}

static void test_timeouts(void **state)
{
    (void)state;
    check_timeouts(SUBHOST_ISOLATION_INTERPRETER);
    if (unit_can_fork())
        check_timeouts(SUBHOST_ISOLATION_PROCESS);
}

static void test_killed(void **state)
{
    (void)state;
    if (!unit_can_fork())
        skip();
    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    options.isolation = SUBHOST_ISOLATION_PROCESS;
    options.workers = 1;
    struct unit_pool p = open_pool(&options);
    subhost_call *call;
    subhost_outcome outcome = unit_call_int(&p, "poolmod:die", 1, &call);
    assert_int_equal(outcome.kind, SUBHOST_KILLED);
    assert_int_equal(outcome.code, 9);
    subhost_call_free(call);
    outcome = unit_call_int(&p, "poolmod:same", 5, &call);
    assert_int_equal(outcome.kind, SUBHOST_RETURNED);
    subhost_call_free(call);
    unit_pool_close(&p);
}

/* ---- many -------------------------------------------------------------------------- */

#define CALLS 500

static void *submit_all(void *arg)
{
    struct unit_pool *p = arg;
    long rounds = unit_count(100, 20, 4), bad = 0;
    subhost_function *function = NULL;
    subhost_call *calls[CALLS], *taken[CALLS];
    bad += subhost_pool_function(p->pool, "poolmod:same", &function, NULL) != 0;
    for (int i = 0; i < CALLS; i++)
        bad += subhost_call_new(function, NULL, &calls[i], NULL) != 0;
    for (long round = 0; !bad && (round < rounds || !p->recycled); round++) {
        for (int i = 0; i < CALLS; i++) {
            subhost_value *argument = subhost_call_argument(calls[i]);
            subhost_value_clear(argument);
            subhost_value_add_int(argument, round * CALLS + i);
        }
        int64_t sum = 0;
        for (int in = 0, out = 0; out < CALLS && !bad;) {
            int more =
                subhost_pool_submit(p->pool, calls + in, (size_t)(CALLS - in), 0, NULL);
            in += more > 0 ? more : 0;
            int n = subhost_pool_take(p->pool, taken, CALLS, unit_patience(20), NULL);
            bad += more < 0 || n <= 0;
            for (int i = 0; i < n; i++) {
                subhost_item item = SUBHOST_ITEM_INIT;
                size_t at = 0;
                bad += subhost_value_next(subhost_call_result(taken[i]), &at, &item,
                                          NULL) != 1;
                sum += item.integer - round * CALLS;
            }
            out += n;
        }
        bad += sum != CALLS * (CALLS - 1) / 2;
    }
    for (int i = 0; i < CALLS; i++)
        subhost_call_free(calls[i]);
    atomic_store(&p->done, true);
    return (void *)bad;
}

/* From a thread of the embedder's, with interpreters that are recycled meanwhile. */
static void test_many(void **state)
{
    (void)state;
    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    options.calls = 300; /* fewer than are submitted at a time */
    options.recycle_calls = (uint64_t)unit_count(5000, 1000, 200);
    struct unit_pool p = open_pool(&options);
    pthread_t thread;
    void *bad = NULL;
    assert_int_equal(pthread_create(&thread, NULL, submit_all, &p), 0);
    subhost_pool_stats stats = {.size = sizeof stats};
    int64_t deadline = subhost__now() + unit_patience(60);
    while (!atomic_load(&p.done)) {
        subhost_dispatch(p.host, SUBHOST_MSEC(10), NULL);
        subhost_pool_get_stats(p.pool, &stats);
        if (stats.recycled > 0 || subhost__now() > deadline)
            atomic_store(&p.recycled, true);
    }
    pthread_join(thread, &bad);
    assert_null(bad);
    assert_int_equal(stats.calls % CALLS, 0);
    assert_true(stats.recycled > 0);
    unit_pool_close(&p);
}

/* What is in the pool when it is closed is the caller's again. */
static void test_close(void **state)
{
    (void)state;
    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    options.workers = 1;
    struct unit_pool p = open_pool(&options);
    subhost_call *calls[3];
    for (int i = 0; i < 3; i++) {
        calls[i] = unit_call_new(&p, "time:sleep");
        subhost_value_add_int(subhost_call_argument(calls[i]), 100);
    }
    assert_int_equal(subhost_pool_submit(p.pool, calls, 3, 0, NULL), 3);
    for (int i = 0; i < 20; i++)
        subhost_dispatch(p.host, SUBHOST_MSEC(10), NULL);
    assert_int_equal(subhost_pool_close(p.pool, unit_patience(2), NULL), 0);
    for (int i = 0; i < 3; i++) {
        subhost_outcome outcome = {.size = sizeof outcome};
        subhost_call_outcome(calls[i], &outcome);
        assert_int_equal(outcome.kind, SUBHOST_CANCELLED);
        subhost_call_free(calls[i]);
    }
    unit_close(p.host);
}

static void test_mistakes(void **state)
{
    (void)state;
    struct unit_pool p = open_pool(NULL);
    subhost_function *function = NULL;
    static const char *const names[] = {"",      "a",    ":a",   "a:",    "a:b:c",
                                        "a b:c", "a.:b", "a:.b", "a:b-c", "1a:b"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
        assert_int_equal(subhost_pool_function(p.pool, names[i], &function, NULL),
                         SUBHOST_EINVAL);
    subhost_call *call = unit_call_new(&p, "poolmod:same");
    assert_int_equal(subhost_pool_submit(p.pool, &call, 1, 0, NULL), SUBHOST_EINVAL);
    subhost_call_free(call);
    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    subhost_pool *other = NULL;
    options.workers = -1;
    assert_int_equal(subhost_pool_open(p.host, &options, &other, NULL), SUBHOST_EINVAL);
    options.workers = 1;
    options.timeout = -1;
    assert_int_equal(subhost_pool_open(p.host, &options, &other, NULL), SUBHOST_EINVAL);
    assert_int_equal(subhost_pool_take(p.pool, &call, 1, SUBHOST_MSEC(1), NULL), 0);
    subhost_pool_wake(p.pool);
    assert_int_equal(subhost_pool_take(p.pool, &call, 1, SUBHOST_FOREVER, NULL), 0);
    unit_pool_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(test_values),   UNIT_TEST(test_pickles),  UNIT_TEST(test_endings),
        UNIT_TEST(test_timeouts), UNIT_TEST(test_killed),   UNIT_TEST(test_many),
        UNIT_TEST(test_close),    UNIT_TEST(test_mistakes),
    };
    return cmocka_run_group_tests(tests, make_module, remove_module);
}
