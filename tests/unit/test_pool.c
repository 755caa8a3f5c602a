/* Pools: values through Python and back, how calls end, and that each is told once. */
#include "unit_pool.h"

static const char module_text[] = "import os, time\n"
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
                                  "def tidies(x):\n"
                                  "    try: time.sleep(100)\n"
                                  "    finally: time.sleep(x)\n"
                                  "def fails(x): raise ValueError(x)\n"
                                  "def ident(x): return threading.get_ident()\n"
                                  "def pid(x): return os.getpid()\n"
                                  "def die(x): os.kill(os.getpid(), 9)\n"
                                  "class A:\n"
                                  "    @staticmethod\n"
                                  "    def b(x): return x + 1\n"
                                  "number = 3\n"
                                  "seen = []\n"
                                  "def sees(x): seen.append(x); return len(seen)\n";

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
    assert_non_null(strstr(
        outcome.detail, "TypeError: what the function returned has an object of type"));
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

/* The worker is cancelled while the cancel of a call of its is under way. */
static void test_cancel_behind_a_deadline(void **state)
{
    (void)state;
    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    options.workers = 1;
    options.timeout = unit_patience(1) / 5;
    options.grace = unit_patience(10);
    struct unit_pool p = open_pool(&options);
    subhost_call *calls[2], *taken[2];
    for (int i = 0; i < 2; i++) {
        calls[i] = unit_call_new(&p, i ? "poolmod:same" : "poolmod:tidies");
        subhost_value_add_float(subhost_call_argument(calls[i]), 0.3);
    }
    assert_int_equal(subhost_pool_submit(p.pool, calls, 2, 0, NULL), 2);
    int64_t deadline = subhost__now() + unit_patience(20);
    bool cancelled = false;
    for (int n = 0; n < 2;) {
        subhost_dispatch(p.host, SUBHOST_MSEC(5), NULL);
        n += subhost_pool_take(p.pool, taken, 2, 0, NULL);
        struct worker *worker = n == 0 ? p.pool->workers : NULL;
        if (worker && !cancelled && atomic_load(&worker->interp->cancel.requested)) {
            subhost_task_cancel(worker->task, SUBHOST_BY_SIGTERM, NULL);
            cancelled = true;
        }
        assert_true(subhost__now() < deadline);
    }
    assert_true(cancelled);
    static const enum subhost_reason reasons[] = {SUBHOST_BY_DEADLINE,
                                                  SUBHOST_BY_SIGTERM};
    for (int i = 0; i < 2; i++) {
        subhost_outcome outcome = {.size = sizeof outcome};
        subhost_call_outcome(calls[i], &outcome);
        assert_int_equal(outcome.kind, i ? SUBHOST_CANCELLED : SUBHOST_TIMED_OUT);
        assert_int_equal(outcome.cancel_reason, reasons[i]);
        subhost_call_free(calls[i]);
    }
    unit_pool_close(&p);
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

/* ---- how many interpreters, and how old ---------------------------------------------- */

static unsigned count_workers(struct unit_pool *p)
{
    subhost_pool_stats stats = {.size = sizeof stats};
    subhost_pool_get_stats(p->pool, &stats);
    return stats.workers;
}

static void dispatch_for(struct unit_pool *p, int64_t duration)
{
    int64_t deadline = subhost__now() + duration;
    while (subhost__now() < deadline)
        subhost_dispatch(p->host, SUBHOST_MSEC(5), NULL);
}

/* Those that are to be ahead of the first call are, with their functions; no more are. */
static void test_warm(void **state)
{
    (void)state;
    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    options.workers = 3;
    options.warm = 2;
    struct unit_pool p = open_pool(&options);
    subhost_function *function = NULL;
    assert_int_equal(subhost_pool_function(p.pool, "poolmod:same", &function, NULL), 0);
    assert_int_equal(count_workers(&p), 0);
    int64_t deadline = subhost__now() + unit_patience(20);
    while (count_workers(&p) < 2 && subhost__now() < deadline)
        subhost_dispatch(p.host, SUBHOST_MSEC(5), NULL);
    dispatch_for(&p, SUBHOST_MSEC(50));
    assert_int_equal(count_workers(&p), 2);
    unit_pool_close(&p);

    subhost_error *err = NULL;
    p.host = unit_open();
    options.warm = -1;
    assert_int_equal(subhost_pool_open(p.host, &options, &p.pool, &err), SUBHOST_EINVAL);
    assert_string_equal(subhost_error_message(err),
                        "subhost_pool_options: warm is -1: from 0 to workers");
    subhost_error_free(err);
    unit_close(p.host);
}

static void test_warm_without_calls(void **state)
{
    (void)state;
    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    options.warm = 9; /* all of them */
    struct unit_pool p = open_pool(&options);
    dispatch_for(&p, SUBHOST_MSEC(1)); /* and it is closed while they are made */
    unit_pool_close(&p);
}

#define CALLS_APART 20

/* Calls of which each must find nothing of another's; how many workers that took. */
static unsigned make_calls_apart(const subhost_pool_options *options)
{
    struct unit_pool p = open_pool(options);
    subhost_call *calls[CALLS_APART], *taken[CALLS_APART];
    for (int i = 0; i < CALLS_APART; i++) {
        calls[i] = unit_call_new(&p, "poolmod:sees");
        subhost_value_add_int(subhost_call_argument(calls[i]), i);
    }
    assert_int_equal(subhost_pool_submit(p.pool, calls, CALLS_APART, 0, NULL),
                     CALLS_APART);
    int64_t deadline = subhost__now() + unit_patience(30);
    int n = 0;
    while (n < CALLS_APART && subhost__now() < deadline) {
        subhost_dispatch(p.host, SUBHOST_MSEC(5), NULL);
        n += subhost_pool_take(p.pool, taken + n, (size_t)(CALLS_APART - n), 0, NULL);
    }
    assert_int_equal(n, CALLS_APART);
    for (int i = 0; i < CALLS_APART; i++) {
        assert_int_equal(unit_call_result_int(calls[i]), 1);
        subhost_call_free(calls[i]);
    }
    subhost_pool_stats stats = {.size = sizeof stats};
    subhost_pool_get_stats(p.pool, &stats);
    unit_pool_close(&p);
    return stats.recycled;
}

static void make_fresh_calls(enum subhost_isolation isolation)
{
    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    options.isolation = isolation;
    options.fresh = 1;
    options.spares = 1;
    assert_int_equal(make_calls_apart(&options), CALLS_APART);
}

/* No call finds what another has left. */
static void test_fresh(void **state)
{
    (void)state;
    make_fresh_calls(SUBHOST_ISOLATION_INTERPRETER);
}

static void test_fresh_processes(void **state)
{
    (void)state;
    if (!unit_can_fork())
        skip();
    make_fresh_calls(SUBHOST_ISOLATION_PROCESS);
}

static void make_reset_calls(enum subhost_isolation isolation)
{
    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    options.isolation = isolation;
    options.reset = 1;
    assert_int_equal(make_calls_apart(&options), 0);
}

static void test_reset(void **state)
{
    (void)state;
    make_reset_calls(SUBHOST_ISOLATION_INTERPRETER);
}

static void test_reset_processes(void **state)
{
    (void)state;
    if (!unit_can_fork())
        skip();
    make_reset_calls(SUBHOST_ISOLATION_PROCESS);
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

/* ---- who waits ---------------------------------------------------------------------- */

struct waiting {
    struct unit_pool *p;
    subhost_call *call;
    atomic_int result; /* of what it waits for; 100: it still does */
};

static struct waiting waits(struct unit_pool *p)
{
    struct waiting waiting = {.p = p, .call = unit_call_new(p, "poolmod:same")};
    subhost_value_add_int(subhost_call_argument(waiting.call), 1);
    atomic_init(&waiting.result, 100);
    return waiting;
}

static void *submit_one(void *arg)
{
    struct waiting *w = arg;
    w->result = subhost_pool_submit(w->p->pool, &w->call, 1, SUBHOST_FOREVER, NULL);
    return NULL;
}

static void *take_one(void *arg)
{
    struct waiting *w = arg;
    subhost_call *call;
    w->result = subhost_pool_take(w->p->pool, &call, 1, SUBHOST_FOREVER, NULL);
    return NULL;
}

/* Two threads wait for room, of which each call that is taken makes some for one of them. */
static void test_room(void **state)
{
    (void)state;
    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    options.workers = options.calls = 1;
    struct unit_pool p = open_pool(&options);
    struct waiting first = waits(&p), w[2] = {waits(&p), waits(&p)};
    pthread_t threads[2];
    submit_one(&first);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, submit_one, &w[i]), 0);
    int64_t deadline = subhost__now() + unit_patience(10);
    for (int taken = 0; taken < 3;) {
        subhost_call *call;
        usleep(50000); /* whoever is to wait does */
        subhost_dispatch(p.host, 0, NULL);
        taken += subhost_pool_take(p.pool, &call, 1, 0, NULL);
        if (subhost__now() > deadline)
            fail_msg("%d of 3 calls were submitted and made", taken);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(w[i].result, 1);
        subhost_call_free(w[i].call);
    }
    subhost_call_free(first.call);
    unit_pool_close(&p);
}

struct order {
    struct unit_pool *p;
    subhost_call *before, *brief, *slow;
    atomic_int n_before, n_slow,
        late; /* taken; of the brief ones, with the one behind it */
    atomic_bool over;
};

static void *take_in_order(void *arg)
{
    struct order *o = arg;
    while (!o->over) {
        subhost_call *calls[3];
        int n = subhost_pool_take(o->p->pool, calls, 3, SUBHOST_FOREVER, NULL);
        bool brief = false;
        for (int i = 0; i < n; i++) {
            brief = brief || calls[i] == o->brief;
            o->late += calls[i] == o->slow && brief;
            o->n_before += calls[i] == o->before;
            o->n_slow += calls[i] == o->slow;
        }
    }
    return NULL;
}

static void *submit_in_order(void *arg)
{
    struct order *o = arg;
    for (int round = 0; round < 4; round++) {
        subhost_pool_submit(o->p->pool, &o->before, 1, 0, NULL);
        while (o->n_before == round)
            ;
        int64_t now = subhost__now();
        while (subhost__now() < now + 15000)
            ; /* who takes has gone to sleep */
        subhost_pool_submit(o->p->pool, (subhost_call *[]){o->brief, o->slow}, 2, 0,
                            NULL);
        while (o->n_slow == round)
            usleep(1000);
    }
    o->over = true;
    subhost_pool_wake(o->p->pool);
    return NULL;
}

/* A call that has ended is told before the next one of its worker has, however soon it came
 * after the last one. */
static void test_told(void **state)
{
    (void)state;
    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    options.workers = 1;
    struct unit_pool p = open_pool(&options);
    struct order o = {.p = &p};
    subhost_call **calls[] = {&o.before, &o.brief, &o.slow};
    for (int i = 0; i < 3; i++) {
        *calls[i] = unit_call_new(&p, "time:sleep");
        subhost_value_add_float(subhost_call_argument(*calls[i]), i == 2 ? 0.2 : 0);
    }
    pthread_t threads[2];
    assert_int_equal(pthread_create(&threads[0], NULL, take_in_order, &o), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, submit_in_order, &o), 0);
    int64_t deadline = subhost__now() + unit_patience(20);
    while (!o.over && subhost__now() < deadline)
        subhost_dispatch(p.host, SUBHOST_MSEC(10), NULL);
    assert_true(o.over);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(o.late, 0);
    for (int i = 0; i < 3; i++)
        subhost_call_free(*calls[i]);
    unit_pool_close(&p);
}

/* ---- the end ------------------------------------------------------------------------- */

/* Threads that wait in a pool hear of its end: the one for room, the other for a call. */
static void check_waiting(bool by_host)
{
    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    options.workers = options.calls = 1;
    struct unit_pool p = open_pool(&options);
    subhost_call *call = unit_call_new(&p, "time:sleep"), *none;
    subhost_value_add_int(subhost_call_argument(call), 100);
    assert_int_equal(subhost_pool_submit(p.pool, &call, 1, 0, NULL), 1);
    struct waiting w[2] = {waits(&p), waits(&p)};
    pthread_t threads[2];
    assert_int_equal(pthread_create(&threads[0], NULL, submit_one, &w[0]), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, take_one, &w[1]), 0);
    for (int i = 0; i < 10; i++)
        subhost_dispatch(p.host, SUBHOST_MSEC(10), NULL);
    assert_int_equal(w[0].result, 100);
    assert_int_equal(w[1].result, 100);
    if (by_host) {
        unit_close(p.host);
        assert_int_equal(subhost_pool_submit(p.pool, &w[0].call, 1, 0, NULL),
                         SUBHOST_ESTATE);
        assert_int_equal(subhost_pool_take(p.pool, &none, 1, 0, NULL), SUBHOST_ESTATE);
    }
    assert_int_equal(subhost_pool_close(p.pool, unit_patience(2), NULL), 0);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(w[i].result, SUBHOST_ESTATE);
        subhost_call_free(w[i].call);
    }
    subhost_outcome outcome = {.size = sizeof outcome};
    subhost_call_outcome(call, &outcome);
    assert_int_equal(outcome.kind, SUBHOST_CANCELLED);
    subhost_call_free(call);
    if (!by_host)
        unit_close(p.host);
}

static void test_close_wakes(void **state)
{
    (void)state;
    check_waiting(false);
    check_waiting(true);
}

static void close_it(subhost_pool *pool, void *data)
{
    struct waiting *w = data;
    if (w->result != 100)
        return;
    w->result = subhost_pool_take(pool, &w->call, 1, 0, NULL);
    assert_int_equal(subhost_pool_close(pool, unit_patience(2), NULL), 0);
}

/* The second one is behind the first in the host's list, and goes with it. */
static void close_both(subhost_pool *pool, void *data)
{
    struct waiting *w = data;
    close_it(pool, data);
    assert_int_equal(subhost_pool_close(w->p->pool, unit_patience(2), NULL), 0);
}

static void test_close_in_callback(void **state)
{
    (void)state;
    struct unit_pool p = open_pool(NULL);
    struct waiting w = {.p = &p};
    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    options.workers = 1;
    options.path0 = folder;
    options.on_done_data = &w;
    for (int i = 0; i < 2; i++) {
        subhost_function *function = NULL;
        subhost_call *call = NULL;
        subhost_pool *pool = NULL;
        options.on_done = i == 0 ? close_it : close_both;
        w.result = 100;
        assert_int_equal(subhost_pool_open(p.host, &options, &pool, NULL), 0);
        assert_int_equal(subhost_pool_function(pool, "poolmod:same", &function, NULL), 0);
        assert_int_equal(subhost_call_new(function, NULL, &call, NULL), 0);
        subhost_value_add_int(subhost_call_argument(call), 1);
        assert_int_equal(subhost_pool_submit(pool, &call, 1, 0, NULL), 1);
        int64_t deadline = subhost__now() + unit_patience(20);
        while (w.result == 100 && subhost__now() < deadline)
            subhost_dispatch(p.host, SUBHOST_MSEC(10), NULL);
        assert_int_equal(w.result, 1);
        assert_ptr_equal(w.call, call);
        subhost_call_free(call);
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

    options.timeout = 0;
    assert_int_equal(subhost_pool_open(p.host, &options, &other, NULL), 0);
    subhost_call *twice[2];
    twice[0] = twice[1] = unit_call_new(&p, "builtins:str");
    subhost_value_add_int(subhost_call_argument(twice[0]), 1);
    assert_int_equal(subhost_pool_submit(other, twice, 1, 0, NULL), SUBHOST_EINVAL);
    assert_int_equal(subhost_pool_submit(p.pool, twice, 2, 0, NULL), SUBHOST_ESTATE);
    assert_int_equal(unit_call(&p, twice[0]).kind, SUBHOST_RETURNED);
    assert_int_equal(subhost_pool_submit(p.pool, twice, 1, 0, NULL), 1);
    assert_int_equal(subhost_pool_submit(p.pool, twice, 1, 0, NULL), SUBHOST_ESTATE);
    unit_call_wait(&p, twice[0]);
    subhost_call_free(twice[0]);
    assert_int_equal(subhost_pool_close(other, 0, NULL), 0);
    unit_pool_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(test_values),
        UNIT_TEST(test_pickles),
        UNIT_TEST(test_endings),
        UNIT_TEST(test_timeouts),
        UNIT_TEST(test_cancel_behind_a_deadline),
        UNIT_TEST(test_killed),
        UNIT_TEST(test_warm),
        UNIT_TEST(test_warm_without_calls),
        UNIT_TEST(test_fresh),
        UNIT_TEST(test_fresh_processes),
        UNIT_TEST(test_reset),
        UNIT_TEST(test_reset_processes),
        UNIT_TEST(test_many),
        UNIT_TEST(test_room),
        UNIT_TEST(test_told),
        UNIT_TEST(test_close),
        UNIT_TEST(test_close_wakes),
        UNIT_TEST(test_close_in_callback),
        UNIT_TEST(test_mistakes),
    };
    return cmocka_run_group_tests(tests, make_module, remove_module);
}
