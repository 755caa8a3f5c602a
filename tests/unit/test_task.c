/* SPDX-License-Identifier: MIT
 *
 * timeout: 180
 * Tasks: outcomes, the one terminal event, queues, cancels and their races. */
#define _GNU_SOURCE
#include "unit.h"

static subhost_host *host;
static subhost_interp *interp; /* one that most tests share */

static int open_host(void **state)
{
    (void)state;
    if (subhost_open(NULL, &host, NULL) ||
        subhost_interp_create(host, NULL, &interp, NULL))
        return -1;
    return 0;
}

static int muted = -1;

static int open_host_muted(void **state)
{
    muted = unit_mute();
    return open_host(state);
}

static int close_host(void **state)
{
    unit_unmute(muted);
    muted = -1;
    subhost_interp_release(interp);
    return unit_close_left(state);
}

#define ENDLESS UNIT_QUIET "while True: pass"
#define ASLEEP UNIT_QUIET "import time\ntime.sleep(3600)"

/* ---- outcomes ------------------------------------------------------------------- */

/* Runs it to its end; `detail` is copied, for the task is gone when this returns. */
static subhost_outcome run(const char *code, int64_t timeout, char *detail, size_t size)
{
    struct unit_events events = {0, 0};
    subhost_task_options options = unit_options(&events);
    options.timeout = timeout;
    subhost_task *task = unit_submit(interp, code, &options);
    subhost_outcome outcome = unit_wait(task);
    unit_expect_events(host, &events, 1);
    assert_int_equal(outcome.size, sizeof outcome);
    assert_true(outcome.duration > 0);
    snprintf(detail, size, "%s", outcome.detail);
    outcome.detail = detail;
    subhost_task_release(task);
    return outcome;
}

static void a_program_returns(void **state)
{
    (void)state;
    char detail[200];
    subhost_outcome outcome = run("x = 1", 0, detail, sizeof detail);
    unit_expect(&outcome, SUBHOST_RETURNED);
    assert_int_equal(outcome.status, 0);
    assert_int_equal(outcome.code, 0);
    assert_int_equal(outcome.cancel_reason, -1);
    assert_string_equal(detail, "");
}

static void a_program_raises(void **state)
{
    (void)state;
    char detail[200];
    subhost_outcome outcome =
        run(UNIT_QUIET "raise ValueError('not that')", 0, detail, sizeof detail);
    unit_expect(&outcome, SUBHOST_RAISED);
    assert_int_equal(outcome.status, 1);
    assert_int_equal(outcome.code, 1);
    assert_int_equal(outcome.cancel_reason, -1);
    assert_string_equal(detail, "ValueError: not that");

    outcome = run("1 +", 0, detail, sizeof detail);
    unit_expect(&outcome, SUBHOST_RAISED);
    assert_non_null(strstr(detail, "SyntaxError: "));
}

static void a_program_exits(void **state)
{
    (void)state;
    static const struct {
        const char *code;
        int status;
    } programs[] = {
        {"import sys; sys.exit(7)", 7},   {"import sys; sys.exit()", 0},
        {"import sys; sys.exit(256)", 0}, {"import sys; sys.exit(-1)", 255},
        {"raise SystemExit(3)", 3},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(programs); i++) {
        char detail[200];
        subhost_outcome outcome = run(programs[i].code, 0, detail, sizeof detail);
        unit_expect(&outcome, SUBHOST_EXITED);
        assert_int_equal(outcome.code, programs[i].status);
        assert_int_equal(outcome.status, programs[i].status);
    }
}

static void a_program_times_out(void **state)
{
    (void)state;
    static const char *const programs[] = {ENDLESS, ASLEEP};
    for (size_t i = 0; i < ARRAY_LENGTH(programs); i++) {
        char detail[200];
        subhost_outcome outcome =
            run(programs[i], SUBHOST_MSEC(50), detail, sizeof detail);
        unit_expect(&outcome, SUBHOST_TIMED_OUT);
        assert_int_equal(outcome.status, 124);
        assert_int_equal(outcome.cancel_reason, SUBHOST_BY_DEADLINE);
        assert_true(outcome.duration >= SUBHOST_MSEC(50));
    }
}

static void a_program_is_cancelled(void **state)
{
    (void)state;
    static const char *const programs[] = {ENDLESS, ASLEEP};
    for (size_t i = 0; i < ARRAY_LENGTH(programs); i++) {
        struct unit_events events = {0, 0};
        subhost_task_options options = unit_options(&events);
        subhost_task *task = unit_submit(interp, programs[i], &options);
        unit_until_running(host, task);
        subhost_task_cancel(task, SUBHOST_BY_REQUEST, "enough");
        /* A second request changes nothing. */
        subhost_task_cancel(task, SUBHOST_BY_SIGTERM, "more");
        subhost_outcome outcome = unit_wait(task);
        unit_expect(&outcome, SUBHOST_CANCELLED);
        assert_int_equal(outcome.cancel_reason, SUBHOST_BY_REQUEST);
        assert_int_equal(outcome.status, 137);
        assert_non_null(strstr(outcome.detail, "enough"));
        unit_expect_events(host, &events, 1);
        subhost_task_release(task);
    }
    unit_run(interp, "x = 1", SUBHOST_RETURNED);
}

/* A program that makes something else of its cancel: told by reason, not by kind. */
static void a_cancelled_program_may_exit(void **state)
{
    (void)state;
    struct unit_events events = {0, 0};
    subhost_task_options options = unit_options(&events);
    int inside[2];
    char code[300], byte;
    assert_int_equal(pipe2(inside, O_CLOEXEC | O_NONBLOCK), 0);
    /* It says when it is inside of its try: before that the cancel would end it. */
    snprintf(code, sizeof code,
             "import os, subhost, sys, time\n"
             "try:\n"
             "    os.write(%d, b'x')\n"
             "    time.sleep(3600)\n"
             "except subhost.Cancelled: sys.exit(9)\n",
             inside[1]);
    subhost_task *task = unit_submit(interp, code, &options);
    int64_t deadline = subhost__deadline(unit_patience(20));
    ssize_t got;
    while ((got = read(inside[0], &byte, 1)) != 1 && subhost__now() < deadline)
        assert_true(subhost_dispatch(host, SUBHOST_MSEC(1), NULL) >= 0);
    assert_int_equal(got, 1);
    close(inside[0]);
    close(inside[1]);
    subhost_task_cancel(task, SUBHOST_BY_REQUEST, NULL);
    subhost_outcome outcome = unit_wait(task);
    unit_expect(&outcome, SUBHOST_EXITED);
    assert_int_equal(outcome.code, 9);
    assert_int_equal(outcome.cancel_reason, SUBHOST_BY_REQUEST);
    unit_expect_events(host, &events, 1);
    subhost_task_release(task);
}

/* ---- waiting -------------------------------------------------------------------- */

static void a_wait_has_its_timeout(void **state)
{
    (void)state;
    subhost_task *task = unit_submit(interp, ASLEEP, NULL);
    subhost_outcome outcome = {.size = sizeof outcome, .code = 77};
    subhost_error *err = NULL;
    int64_t began = subhost__now();
    assert_int_equal(subhost_task_wait(task, 0, &outcome, &err), SUBHOST_ETIMEDOUT);
    assert_int_equal(subhost_error_code(err), SUBHOST_ETIMEDOUT);
    subhost_error_free(err);
    assert_true(subhost__now() - began < unit_patience(1));
    began = subhost__now();
    assert_int_equal(subhost_task_wait(task, SUBHOST_MSEC(60), &outcome, NULL),
                     SUBHOST_ETIMEDOUT);
    assert_true(subhost__now() - began >= SUBHOST_MSEC(60));
    assert_int_equal(outcome.code, 77);
    subhost_task_cancel(task, SUBHOST_BY_REQUEST, NULL);
    outcome = unit_wait(task);
    unit_expect(&outcome, SUBHOST_CANCELLED);
    /* Afterwards it answers at once, and the same. */
    for (int i = 0; i < 3; i++) {
        subhost_outcome again = {.size = sizeof again};
        assert_int_equal(subhost_task_wait(task, 0, &again, NULL), 0);
        assert_int_equal(again.kind, outcome.kind);
        assert_int_equal(subhost_task_wait(task, SUBHOST_FOREVER, NULL, NULL), 0);
    }
    subhost_task_release(task);
}

struct waiter {
    subhost_task *task;
    int64_t timeout;
    pthread_t thread;
    int code;
    subhost_outcome outcome;
    atomic_int done;
};

static void *wait_elsewhere(void *arg)
{
    struct waiter *waiter = arg;
    waiter->outcome.size = sizeof waiter->outcome;
    waiter->code =
        subhost_task_wait(waiter->task, waiter->timeout, &waiter->outcome, NULL);
    atomic_store(&waiter->done, 1);
    return NULL;
}

static void other_threads_wait_too(void **state)
{
    (void)state;
    struct waiter waiters[4];
    subhost_task *task = unit_submit(interp, ASLEEP, NULL);
    unit_until_running(host, task);
    for (size_t i = 0; i < ARRAY_LENGTH(waiters); i++) {
        /* The first one gives up before it ends. */
        waiters[i] = (struct waiter){.task = task,
                                     .timeout = i ? unit_patience(20) : SUBHOST_MSEC(20)};
        assert_int_equal(
            pthread_create(&waiters[i].thread, NULL, wait_elsewhere, &waiters[i]), 0);
    }
    assert_true(unit_reaches(host, &waiters[0].done, 1));
    for (size_t i = 1; i < ARRAY_LENGTH(waiters); i++)
        assert_int_equal(atomic_load(&waiters[i].done), 0);
    subhost_task_cancel(task, SUBHOST_BY_REQUEST, NULL);
    for (size_t i = 0; i < ARRAY_LENGTH(waiters); i++) {
        assert_true(unit_reaches(host, &waiters[i].done, 1));
        assert_int_equal(pthread_join(waiters[i].thread, NULL), 0);
        assert_int_equal(waiters[i].code, i ? 0 : SUBHOST_ETIMEDOUT);
        if (i)
            unit_expect(&waiters[i].outcome, SUBHOST_CANCELLED);
    }
    subhost_task_release(task);
}

/* The wake-up of a task that ends before the first look of subhost_dispatch() must not be
 * spent on that look: subhost_task_wait() slept on to its timeout. */
static void a_wake_before_the_wait_counts(void **state)
{
    (void)state;
    subhost_task *task = unit_submit(interp, "pass", NULL);
    unit_wait(task);
    subhost_task_release(task);
    /* Nobody dispatches until the second one has ended. */
    task = unit_submit(interp, "pass", NULL);
    struct waiter waiter = {.task = task, .timeout = unit_patience(20)};
    assert_int_equal(pthread_create(&waiter.thread, NULL, wait_elsewhere, &waiter), 0);
    assert_int_equal(pthread_join(waiter.thread, NULL), 0);
    assert_int_equal(waiter.code, 0);
    int64_t began = subhost__now();
    assert_int_equal(subhost_dispatch(host, unit_patience(60), NULL), 0);
    assert_true(subhost__now() - began < unit_patience(20));
    subhost_task_release(task);
}

/* ---- the queue ------------------------------------------------------------------ */

static void a_queued_task_is_cancelled(void **state)
{
    (void)state;
    struct unit_events events[4] = {{0, 0}};
    subhost_task *tasks[4];
    for (size_t i = 0; i < ARRAY_LENGTH(tasks); i++) {
        subhost_task_options options = unit_options(&events[i]);
        tasks[i] = unit_submit(interp, i ? "x = 1" : ASLEEP, &options);
    }
    unit_until_running(host, tasks[0]);
    /* From the middle, then the last one: the queue's tail must follow. */
    static const size_t victims[] = {2, 3};
    for (size_t i = 0; i < ARRAY_LENGTH(victims); i++) {
        subhost_task *task = tasks[victims[i]];
        subhost_task_cancel(task, SUBHOST_BY_REQUEST, "not needed");
        subhost_outcome outcome = {.size = sizeof outcome};
        assert_int_equal(subhost_task_wait(task, 0, &outcome, NULL), 0);
        unit_expect(&outcome, SUBHOST_CANCELLED);
        assert_string_equal(outcome.detail, "not needed");
        assert_int_equal(outcome.cancel_reason, SUBHOST_BY_REQUEST);
        assert_int_equal(outcome.duration, 0);
        unit_expect_events(host, &events[victims[i]], 1);
    }
    struct unit_events late = {0, 0};
    subhost_task_options options = unit_options(&late);
    subhost_task *last = unit_submit(interp, "x = 1", &options);
    subhost_task_cancel(tasks[0], SUBHOST_BY_REQUEST, NULL);
    subhost_outcome outcome = unit_wait(tasks[1]);
    unit_expect(&outcome, SUBHOST_RETURNED);
    outcome = unit_wait(last);
    unit_expect(&outcome, SUBHOST_RETURNED);
    unit_expect_events(host, &late, 1);
    for (size_t i = 0; i < ARRAY_LENGTH(tasks); i++) {
        assert_int_equal(events[i].count, 1);
        subhost_task_release(tasks[i]);
    }
    subhost_task_release(last);
}

static void a_cancel_after_the_end_is_nothing(void **state)
{
    (void)state;
    struct unit_events events = {0, 0};
    subhost_task_options options = unit_options(&events);
    subhost_task *task = unit_submit(interp, "x = 1", &options);
    unit_wait(task);
    subhost_task_cancel(task, SUBHOST_BY_REQUEST, NULL);
    subhost_outcome outcome = unit_wait(task);
    unit_expect(&outcome, SUBHOST_RETURNED);
    assert_int_equal(outcome.cancel_reason, -1);
    unit_expect_events(host, &events, 1);
    /* Nor for the next task. */
    unit_run(interp, "import time; time.sleep(0.02)", SUBHOST_RETURNED);
    subhost_task_release(task);
}

/* The handle may go at any time: queued, running, ended. The event comes all the same. */
static void a_task_is_released_early(void **state)
{
    (void)state;
    struct unit_events events = {0, 0};
    subhost_task_options options = unit_options(&events);
    for (int i = 0; i < 10; i++) {
        subhost_task *task =
            unit_submit(interp, "import time; time.sleep(0.001)", &options);
        usleep((useconds_t)(i * 300));
        subhost_task_release(task);
    }
    unit_expect_events(host, &events, 10);
    subhost_task_release(unit_submit(interp, "x = 1", NULL));
    unit_run(interp, "x = 1", SUBHOST_RETURNED);
}

static void tasks_share_modules_but_not_main(void **state)
{
    (void)state;
    subhost_interp *own = unit_interp(host);
    unit_run(own, "import sys, json\njson.mark = 'left'\nleft = 1\nsys.modules['m'] = 1",
             SUBHOST_RETURNED);
    unit_run(own,
             "import sys, json\n"
             "assert json.mark == 'left' and sys.modules['m'] == 1\n"
             "assert 'left' not in globals(), sorted(globals())\n"
             "assert __name__ == '__main__' and sys.modules['__main__'].__dict__ is "
             "globals()",
             SUBHOST_RETURNED);
    subhost_interp *other = unit_interp(host);
    unit_run(other, "import sys, json\nassert not hasattr(json, 'mark')",
             SUBHOST_RETURNED);
    subhost_interp_release(other);
    subhost_interp_release(own);
}

static void a_fresh_task_is_alone(void **state)
{
    (void)state;
    subhost_interp *own = unit_interp(host);
    subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
    options.fresh = 1;
    int rounds = unit_count(10, 5, 3);
    for (int i = 0; i < rounds; i++) {
        subhost_task *task = unit_submit(
            own, "import json\nassert not hasattr(json, 'mark')\njson.mark = 1",
            &options);
        subhost_outcome outcome = unit_wait(task);
        unit_expect(&outcome, SUBHOST_RETURNED);
        subhost_task_release(task);
    }
    /* After the last fresh one it is another interpreter again, and stays that. */
    unit_run(own, "import json\nassert not hasattr(json, 'mark')\njson.mark = 1",
             SUBHOST_RETURNED);
    unit_run(own, "import json\nassert json.mark == 1", SUBHOST_RETURNED);
    subhost_interp_release(own);
}

static void a_fresh_task_is_cancelled(void **state)
{
    (void)state;
    subhost_interp *own = unit_interp(host);
    struct unit_events events = {0, 0};
    subhost_task_options options = unit_options(&events);
    options.fresh = 1;
    int rounds = unit_count(10, 4, 2);
    for (int i = 0; i < rounds; i++) {
        subhost_task *task = unit_submit(own, ASLEEP, &options);
        /* Sometimes while the interpreter is being replaced. */
        usleep((useconds_t)(i * 2000));
        subhost_task_cancel(task, SUBHOST_BY_REQUEST, NULL);
        subhost_outcome outcome = unit_wait(task);
        unit_expect(&outcome, SUBHOST_CANCELLED);
        subhost_task_release(task);
    }
    unit_expect_events(host, &events, rounds);
    unit_run(own, "x = 1", SUBHOST_RETURNED);
    subhost_interp_release(own);
}

static atomic_int c_thread_calls, c_thread_strays;
static int64_t c_thread_home;

static void *call_on(void *unused)
{
    (void)unused;
    int64_t home = c_thread_home;
    for (;; usleep(100)) {
        PyGILState_STATE state = PyGILState_Ensure();
        if (PyInterpreterState_GetID(PyInterpreterState_Get()) != home)
            atomic_fetch_add(&c_thread_strays, 1);
        Py_XDECREF(PyUnicode_FromString("something to allocate"));
        PyGILState_Release(state);
        atomic_fetch_add(&c_thread_calls, 1);
    }
    return NULL;
}

/* Called by ctypes; waits until the thread has been in the interpreter. */
int start_calling_on(long long home);
int start_calling_on(long long home)
{
    pthread_t thread;
    int before = atomic_load(&c_thread_calls);
    c_thread_home = home;
    if (pthread_create(&thread, NULL, call_on, NULL) != 0)
        return -1;
    pthread_detach(thread);
    while (atomic_load(&c_thread_calls) < before + 10)
        usleep(1000);
    return 0;
}

/* Threads of C code stay out of the interpreters that come after theirs. */
static void a_c_thread_outlives_a_fresh_task(void **state)
{
    (void)state;
    subhost_interp *own = unit_interp(host);
    subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
    options.fresh = 1;
    for (int i = 0; i < 3; i++) {
        subhost_task *task =
            unit_submit(own,
                        "import _interpreters, ctypes\n"
                        "home = ctypes.c_longlong(_interpreters.get_current()[0])\n"
                        "assert ctypes.CDLL(None).start_calling_on(home) == 0\n",
                        &options);
        subhost_outcome outcome = unit_wait(task);
        unit_expect(&outcome, SUBHOST_RETURNED);
        subhost_task_release(task);
    }
    /* Now the last one's interpreter has been replaced, too. */
    unit_run(own, "x = 1", SUBHOST_RETURNED);
    int calls = atomic_load(&c_thread_calls);
    usleep(20000);
    assert_int_equal(atomic_load(&c_thread_calls), calls);
    assert_int_equal(atomic_load(&c_thread_strays), 0);
    subhost_interp_release(own);
}

/* ---- several interpreters ------------------------------------------------------- */

static void interpreters_run_in_parallel(void **state)
{
    (void)state;
    subhost_interp *interps[4];
    subhost_task *tasks[ARRAY_LENGTH(interps)];
    struct unit_events events = {0, 0};
    subhost_task_options options = unit_options(&events);
    for (size_t i = 0; i < ARRAY_LENGTH(interps); i++) {
        subhost_interp_options interp_options = SUBHOST_INTERP_OPTIONS_INIT;
        interp_options.gil = i % 2 ? SUBHOST_GIL_SHARED : SUBHOST_GIL_OWN;
        interp_options.worker = (int)i;
        assert_int_equal(subhost_interp_create(host, &interp_options, &interps[i], NULL),
                         0);
        tasks[i] = unit_submit(interps[i], ENDLESS, &options);
    }
    /* All at work at the same time: each answers before any of them ends. */
    for (size_t i = 0; i < ARRAY_LENGTH(interps); i++)
        unit_until_running(host, tasks[i]);
    assert_int_equal(events.count, 0);
    for (size_t i = 0; i < ARRAY_LENGTH(interps); i++)
        subhost_task_cancel(tasks[i], SUBHOST_BY_REQUEST, NULL);
    for (size_t i = 0; i < ARRAY_LENGTH(interps); i++) {
        subhost_outcome outcome = unit_wait(tasks[i]);
        unit_expect(&outcome, SUBHOST_CANCELLED);
        subhost_task_release(tasks[i]);
        subhost_interp_release(interps[i]);
    }
    unit_expect_events(host, &events, ARRAY_LENGTH(interps));
}

/* A cancel concerns one interpreter. */
static void siblings_are_left_alone(void **state)
{
    (void)state;
    subhost_interp *other = unit_interp(host);
    subhost_task *healthy =
        unit_submit(other, "import time\nfor _ in range(100): time.sleep(0.001)", NULL);
    for (int i = 0; i < 5; i++) {
        subhost_task *task = unit_submit(interp, ENDLESS, NULL);
        unit_until_running(host, task);
        subhost_task_cancel(task, SUBHOST_BY_REQUEST, NULL);
        unit_wait(task);
        subhost_task_release(task);
    }
    subhost_outcome outcome = unit_wait(healthy);
    unit_expect(&outcome, SUBHOST_RETURNED);
    subhost_task_release(healthy);
    subhost_interp_release(other);
}

/* Released with a queue: what it has got is still run, nothing more is accepted. */
static void a_released_interpreter_runs_its_queue(void **state)
{
    (void)state;
    subhost_interp *own = unit_interp(host);
    subhost__interp_ref(own); /* to try it after the release */
    struct unit_events events = {0, 0};
    subhost_task_options options = unit_options(&events);
    subhost_task *tasks[5], *refused = NULL;
    for (size_t i = 0; i < ARRAY_LENGTH(tasks); i++)
        tasks[i] = unit_submit(own, "import time; time.sleep(0.005)", &options);
    subhost_interp_release(own);
    assert_int_equal(unit_try_submit(own, "x = 1", NULL, &refused, NULL), SUBHOST_ESTATE);
    assert_null(refused);
    for (size_t i = 0; i < ARRAY_LENGTH(tasks); i++) {
        subhost_outcome outcome = unit_wait(tasks[i]);
        unit_expect(&outcome, SUBHOST_RETURNED);
        subhost_task_release(tasks[i]);
    }
    unit_expect_events(host, &events, ARRAY_LENGTH(tasks));
    subhost__interp_unref(own);
}

/* ---- callbacks ------------------------------------------------------------------ */

struct chain {
    int left, ended, failed;
};

static void submit_next(subhost_task *task, void *data)
{
    struct chain *chain = data;
    subhost_outcome outcome = {.size = sizeof outcome};
    subhost_task_wait(task, 0, &outcome, NULL);
    chain->ended++;
    chain->failed += outcome.kind != SUBHOST_RETURNED;
    if (--chain->left == 0)
        return;
    subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
    options.on_end = submit_next;
    options.on_end_data = chain;
    subhost_task *next = NULL;
    if (unit_try_submit(interp, "x = 1", &options, &next, NULL))
        chain->failed++;
    subhost_task_release(next);
}

static void a_callback_submits_the_next(void **state)
{
    (void)state;
    int length = unit_count(300, 100, 20);
    struct chain chain = {.left = length};
    subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
    options.on_end = submit_next;
    options.on_end_data = &chain;
    subhost_task_release(unit_submit(interp, "x = 1", &options));
    int64_t deadline = subhost__deadline(unit_patience(20));
    while (chain.left > 0 && subhost__now() < deadline)
        assert_true(subhost_dispatch(host, SUBHOST_MSEC(100), NULL) >= 0);
    assert_int_equal(chain.ended, length);
    assert_int_equal(chain.failed, 0);
}

/* A callback may wait for another task: it dispatches inside of a dispatch. */
static void wait_inside(subhost_task *task, void *data)
{
    int *good = data;
    subhost_outcome outcome = {.size = sizeof outcome};
    subhost_task *other = NULL;
    (void)task;
    if (unit_try_submit(interp, "import time; time.sleep(0.01)", NULL, &other, NULL))
        return;
    if (subhost_task_wait(other, unit_patience(20), &outcome, NULL) == 0)
        *good += outcome.kind == SUBHOST_RETURNED;
    subhost_task_release(other);
}

static void a_callback_waits_for_another(void **state)
{
    (void)state;
    int good = 0;
    subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
    options.on_end = wait_inside;
    options.on_end_data = &good;
    subhost_task *tasks[3];
    for (size_t i = 0; i < ARRAY_LENGTH(tasks); i++)
        tasks[i] = unit_submit(interp, "x = 1", &options);
    int64_t deadline = subhost__deadline(unit_patience(20));
    while (good < (int)ARRAY_LENGTH(tasks) && subhost__now() < deadline)
        assert_true(subhost_dispatch(host, SUBHOST_MSEC(100), NULL) >= 0);
    assert_int_equal(good, ARRAY_LENGTH(tasks));
    for (size_t i = 0; i < ARRAY_LENGTH(tasks); i++)
        subhost_task_release(tasks[i]);
}

/* ---- several threads at once ---------------------------------------------------- */

enum { SUBMITTERS = 4 };

struct submitter {
    pthread_t thread;
    subhost_interp *interps[2];
    int count;
    struct unit_events *events;
    int failed;
};

static atomic_int submitters_done;

static void *submit_many(void *arg)
{
    struct submitter *self = arg;
    subhost_task_options options = unit_options(self->events);
    for (int i = 0; i < self->count; i++) {
        subhost_task *task = NULL;
        subhost_outcome outcome = {.size = sizeof outcome};
        if (unit_try_submit(self->interps[i % 2], "x = 1", &options, &task, NULL)) {
            self->failed++;
            continue;
        }
        /* Now and then one waits for it here, and one cancels it. */
        if (i % 5 == 4)
            subhost_task_cancel(task, SUBHOST_BY_REQUEST, NULL);
        if (i % 3 == 2 &&
            (subhost_task_wait(task, unit_patience(20), &outcome, NULL) ||
             (outcome.kind != SUBHOST_RETURNED && outcome.kind != SUBHOST_CANCELLED)))
            self->failed++;
        subhost_task_release(task);
    }
    atomic_fetch_add(&submitters_done, 1);
    return NULL;
}

static void threads_submit_at_once(void **state)
{
    (void)state;
    int count = unit_count(300, 100, 15);
    struct unit_events events = {0, 0};
    struct submitter submitters[SUBMITTERS];
    subhost_interp *other = unit_interp(host);
    atomic_store(&submitters_done, 0);
    for (size_t i = 0; i < SUBMITTERS; i++) {
        submitters[i] = (struct submitter){
            .interps = {interp, other}, .count = count, .events = &events};
        assert_int_equal(
            pthread_create(&submitters[i].thread, NULL, submit_many, &submitters[i]), 0);
    }
    assert_true(unit_reaches(host, &submitters_done, SUBMITTERS));
    for (size_t i = 0; i < SUBMITTERS; i++) {
        assert_int_equal(pthread_join(submitters[i].thread, NULL), 0);
        assert_int_equal(submitters[i].failed, 0);
    }
    unit_expect_events(host, &events, SUBMITTERS * count);
    subhost_interp_release(other);
}

struct canceller {
    subhost_task *_Atomic task;
    unsigned delay; /* us */
    atomic_int round, done;
    bool stop;
};

static void *cancel_each(void *arg)
{
    struct canceller *canceller = arg;
    for (int round = 1;; round++) {
        while (atomic_load(&canceller->round) < round)
            sched_yield();
        if (canceller->stop)
            return NULL;
        int64_t until = subhost__now() + (int64_t)canceller->delay * 1000;
        while (subhost__now() < until)
            sched_yield();
        subhost_task_cancel(atomic_load(&canceller->task), SUBHOST_BY_REQUEST, NULL);
        atomic_store(&canceller->done, round);
        subhost__loop_wake(host); /* it waits for that */
    }
}

/* A cancel that comes at the very end: the task ends once, as returned or as cancelled,
 * and the one behind it never feels it. */
static void a_cancel_races_with_the_end(void **state)
{
    (void)state;
    int rounds = unit_count(500, 200, 20);
    struct canceller canceller = {.task = NULL};
    struct unit_events first = {0, 0}, second = {0, 0};
    subhost_task_options first_options = unit_options(&first);
    subhost_task_options second_options = unit_options(&second);
    /* Short: were it abandoned by mistake, we should hear of it. */
    first_options.grace = unit_patience(2);
    pthread_t thread;
    int cancelled = 0;
    int64_t typical = SUBHOST_MSEC(1) / 5;
    assert_int_equal(pthread_create(&thread, NULL, cancel_each, &canceller), 0);
    for (int round = 1; round <= rounds; round++) {
        subhost_task *task = unit_submit(interp, "x = 1", &first_options);
        subhost_task *behind =
            unit_submit(interp, "for _ in range(500): pass", &second_options);
        atomic_store(&canceller.task, task);
        canceller.delay = (unsigned)(typical / 1000 * (round % 40) / 20);
        atomic_store(&canceller.round, round);
        subhost_outcome outcome = unit_wait(task);
        assert_true(outcome.kind == SUBHOST_RETURNED ||
                    outcome.kind == SUBHOST_CANCELLED);
        cancelled += outcome.kind == SUBHOST_CANCELLED;
        if (outcome.kind == SUBHOST_RETURNED)
            typical = (typical * 7 + outcome.duration) / 8;
        outcome = unit_wait(behind);
        unit_expect(&outcome, SUBHOST_RETURNED);
        assert_int_equal(outcome.cancel_reason, -1);
        assert_true(unit_reaches(host, &canceller.done, round));
        subhost_task_release(task);
        subhost_task_release(behind);
    }
    canceller.stop = true;
    atomic_fetch_add(&canceller.round, 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    unit_expect_events(host, &first, rounds);
    unit_expect_events(host, &second, rounds);
    print_message("# %d of %d were cancelled\n", cancelled, rounds);
}

/* A deadline at the very end, likewise. */
static void a_deadline_races_with_the_end(void **state)
{
    (void)state;
    int rounds = unit_count(200, 100, 10);
    struct unit_events events = {0, 0};
    subhost_task_options options = unit_options(&events);
    int late = 0;
    for (int round = 0; round < rounds; round++) {
        options.timeout = 50000 + round * 20000 % 2000000;
        subhost_task *task =
            unit_submit(interp, "import time; time.sleep(0.001)", &options);
        subhost_task *behind = unit_submit(interp, "x = 1", NULL);
        subhost_outcome outcome = unit_wait(task);
        assert_true(outcome.kind == SUBHOST_RETURNED ||
                    outcome.kind == SUBHOST_TIMED_OUT);
        late += outcome.kind == SUBHOST_TIMED_OUT;
        outcome = unit_wait(behind);
        unit_expect(&outcome, SUBHOST_RETURNED);
        subhost_task_release(task);
        subhost_task_release(behind);
    }
    unit_expect_events(host, &events, rounds);
    print_message("# %d of %d came too late\n", late, rounds);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, open_host, close_host)
/* Those in which a cancel may come before the program's first line. */
#define MUTED(test) cmocka_unit_test_setup_teardown(test, open_host_muted, close_host)
    const struct CMUnitTest tests[] = {
        TEST(a_program_returns),
        TEST(a_program_raises),
        TEST(a_program_exits),
        TEST(a_program_times_out),
        TEST(a_program_is_cancelled),
        TEST(a_cancelled_program_may_exit),
        MUTED(a_wait_has_its_timeout),
        TEST(other_threads_wait_too),
        TEST(a_wake_before_the_wait_counts),
        TEST(a_queued_task_is_cancelled),
        TEST(a_cancel_after_the_end_is_nothing),
        TEST(a_task_is_released_early),
        TEST(tasks_share_modules_but_not_main),
        TEST(a_fresh_task_is_alone),
        TEST(a_c_thread_outlives_a_fresh_task),
        MUTED(a_fresh_task_is_cancelled),
        TEST(interpreters_run_in_parallel),
        TEST(siblings_are_left_alone),
        TEST(a_released_interpreter_runs_its_queue),
        TEST(a_callback_submits_the_next),
        TEST(a_callback_waits_for_another),
        MUTED(threads_submit_at_once),
        MUTED(a_cancel_races_with_the_end),
        MUTED(a_deadline_races_with_the_end),
    };
    return UNIT_MAIN(tests);
}
