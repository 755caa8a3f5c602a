/* SPDX-License-Identifier: MIT
 *
 * timeout: 120
 * The host: opening, closing, its descriptor, its doorbells, and who may do what. */
#include "unit.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>

/* ---- open and close ------------------------------------------------------------- */

static void it_opens_and_closes(void **state)
{
    (void)state;
    unit_close(unit_open());
    assert_null(subhost__host());
    assert_false(Py_IsInitialized());
}

/* Py_FinalizeEx() and another Py_InitializeFromConfig(): on every version we support. */
static void it_opens_again_after_close(void **state)
{
    (void)state;
    int rounds = unit_count(6, 4, 2);
    for (int round = 0; round < rounds; round++) {
        subhost_host *host = unit_open();
        subhost_interp *interp = unit_interp(host);
        unit_run(interp, "import json, threading; assert json.loads('[1]') == [1]",
                 SUBHOST_RETURNED);
        unit_run(interp, "import asyncio; asyncio.run(asyncio.sleep(0))",
                 SUBHOST_RETURNED);
        unit_ping(host, interp);
        subhost_interp_release(interp);
        unit_close(host);
    }
}

static void a_second_one_is_refused(void **state)
{
    (void)state;
    subhost_host *host = unit_open(), *second = NULL;
    subhost_error *err = NULL;
    assert_int_equal(subhost_open(NULL, &second, &err), SUBHOST_ESTATE);
    assert_int_equal(subhost_error_code(err), SUBHOST_ESTATE);
    assert_string_equal(subhost_error_message(err),
                        "subhost_open: a host is open already in this process");
    assert_null(second);
    subhost_error_free(err);
    /* The first one is none the worse. */
    subhost_interp *interp = unit_interp(host);
    unit_run(interp, "pass", SUBHOST_RETURNED);
    subhost_interp_release(interp);
    unit_close(host);
}

static void it_closes_while_interpreters_start(void **state)
{
    (void)state;
    int rounds = unit_count(20, 5, 2);
    for (int round = 0; round < rounds; round++) {
        subhost_host *host = unit_open();
        subhost_interp *interps[3];
        for (size_t i = 0; i < ARRAY_LENGTH(interps); i++)
            interps[i] = unit_interp(host);
        usleep((useconds_t)(round * 1000));
        for (size_t i = 0; i < ARRAY_LENGTH(interps); i++)
            subhost_interp_release(interps[i]);
        unit_close(host);
    }
}

/* Handles outlive the host: they are given back afterwards. */
static void it_closes_with_handles_out(void **state)
{
    (void)state;
    subhost_host *host = unit_open();
    subhost_interp *interp = unit_interp(host), *idle = unit_interp(host);
    subhost_task *task = unit_submit(interp, "\npass\npass\n", NULL);
    unit_wait(task);
    unit_close(host);
    assert_string_equal(subhost_task_name(task), "pass");
    subhost_task_release(task);
    subhost_interp_release(interp);
    subhost_interp_release(idle);
}

static void closing_cancels_what_runs(void **state)
{
    (void)state;
    static const char *const programs[] = {
        UNIT_QUIET "while True: pass",
        UNIT_QUIET "import time\ntime.sleep(3600)",
        UNIT_QUIET "import threading\nthreading.Event().wait()",
    };
    struct unit_events events = {0, 0};
    subhost_task_options options = unit_options(&events);
    subhost_host *host = unit_open();
    subhost_task *tasks[ARRAY_LENGTH(programs)];
    for (size_t i = 0; i < ARRAY_LENGTH(programs); i++) {
        subhost_interp *interp = unit_interp(host);
        tasks[i] = unit_submit(interp, programs[i], &options);
        unit_until_running(host, tasks[i]);
        subhost_interp_release(interp);
    }
    unit_close(host);
    assert_int_equal(events.count, ARRAY_LENGTH(programs));
    assert_int_equal(events.wrong, 0);
    for (size_t i = 0; i < ARRAY_LENGTH(programs); i++) {
        subhost_outcome outcome = unit_wait(tasks[i]);
        unit_expect(&outcome, SUBHOST_CANCELLED);
        assert_int_equal(outcome.cancel_reason, SUBHOST_BY_CLOSE);
        subhost_task_release(tasks[i]);
    }
}

/* What still waits in a queue when the host closes is not run, and has its event. */
static void closing_ends_what_is_queued(void **state)
{
    (void)state;
    struct unit_events events = {0, 0};
    subhost_task_options options = unit_options(&events);
    subhost_host *host = unit_open();
    subhost_interp *interp = unit_interp(host);
    subhost_task *tasks[4];
    for (size_t i = 0; i < ARRAY_LENGTH(tasks); i++)
        tasks[i] =
            unit_submit(interp, UNIT_QUIET "import time\ntime.sleep(3600)", &options);
    unit_until_running(host, tasks[0]);
    unit_close(host);
    assert_int_equal(events.count, ARRAY_LENGTH(tasks));
    for (size_t i = 0; i < ARRAY_LENGTH(tasks); i++) {
        subhost_outcome outcome = unit_wait(tasks[i]);
        unit_expect(&outcome, SUBHOST_CANCELLED);
        assert_int_equal(outcome.cancel_reason, SUBHOST_BY_CLOSE);
        subhost_task_release(tasks[i]);
    }
    subhost_interp_release(interp);
}

static void expect_refused(int code, const char *function, subhost_error **err)
{
    char message[80];
    snprintf(message, sizeof message, "%s: the host is closed", function);
    assert_int_equal(code, SUBHOST_ESTATE);
    assert_string_equal(subhost_error_message(*err), message);
    subhost_error_free(*err);
    *err = NULL;
}

static void nothing(void *data) { (void)data; }

static void never_sent(void *data)
{
    (void)data;
    abort();
}

/* What a handle of a closed host is good for, and what not. */
static void use_handles(subhost_interp *interp, subhost_task *task)
{
    subhost_error *err = NULL;
    subhost_task *next = NULL;
    subhost_outcome outcome = unit_wait(task);
    unit_expect(&outcome, SUBHOST_CANCELLED);
    assert_string_equal(outcome.detail, "subhost.Cancelled: host closes");
    expect_refused(unit_try_submit(interp, "pass", NULL, &next, &err), "subhost_submit",
                   &err);
    assert_null(next);
    assert_int_equal(subhost_interp_send(interp, never_sent, NULL, NULL), SUBHOST_ESTATE);
    subhost_task_cancel(task, SUBHOST_BY_REQUEST, "late");
    outcome = unit_wait(task);
    assert_int_equal(outcome.cancel_reason, SUBHOST_BY_CLOSE);
}

static void handles_answer_after_the_close(void **state)
{
    (void)state;
    subhost_host *host = unit_open(), *other;
    subhost_interp *interp = unit_interp(host), *made = NULL;
    subhost_task *task = unit_submit(interp, UNIT_QUIET "while True: pass", NULL);
    unit_until_running(host, task);
    unit_close(host);
    use_handles(interp, task);
    other = unit_open();
    assert_true(other != host); /* for a handle refers to it */
    use_handles(interp, task);

    subhost_error *err = NULL;
    expect_refused(subhost_close(host, SUBHOST_CLOSE_FINALIZE, 0, &err), "subhost_close",
                   &err);
    expect_refused(subhost_dispatch(host, 0, &err), "subhost_dispatch", &err);
    expect_refused(subhost_interp_create(host, NULL, &made, &err),
                   "subhost_interp_create", &err);
    expect_refused(subhost_trail_flush(host, 0, &err), "subhost_trail_flush", &err);
    expect_refused(subhost_dump_stacks(host, 2, &err), "subhost_dump_stacks", &err);
    expect_refused(subhost_bind(host, NULL, (subhost_native_function)abs, "i32 abs(i32)",
                                NULL, &err),
                   "subhost_bind", &err);
    assert_null(made);
    subhost_interp_release(interp);
    unit_close(other);
    subhost_outcome outcome = unit_wait(task);
    unit_expect(&outcome, SUBHOST_CANCELLED);
    subhost_task_release(task);
}

struct user {
    subhost_interp *interp;
    subhost_task *task;
    atomic_bool stop;
    atomic_int rounds, wrong, refused;
};

static void *use_until_stopped(void *arg)
{
    struct user *user = arg;
    while (!atomic_load(&user->stop) || !atomic_load(&user->refused)) {
        subhost_task *task = NULL;
        int code = unit_try_submit(user->interp, "pass", NULL, &task, NULL);
        if (code && code != SUBHOST_ESTATE)
            atomic_fetch_add(&user->wrong, 1);
        if (code)
            atomic_fetch_add(&user->refused, 1);
        else
            subhost_task_cancel(task, SUBHOST_BY_REQUEST, NULL);
        subhost_task_release(task);
        subhost_interp_send(user->interp, nothing, NULL, NULL);
        subhost_task_wait(user->task, SUBHOST_MSEC(1), NULL, NULL);
        atomic_fetch_add(&user->rounds, 1);
    }
    subhost_outcome outcome = SUBHOST_OUTCOME_INIT;
    if (subhost_task_wait(user->task, SUBHOST_FOREVER, &outcome, NULL) ||
        outcome.kind != SUBHOST_CANCELLED)
        atomic_fetch_add(&user->wrong, 1);
    return NULL;
}

/* And while it closes, on other threads. */
static void handles_are_used_while_it_closes(void **state)
{
    (void)state;
    int rounds = unit_count(6, 4, 2);
    for (int round = 0; round < rounds; round++) {
        subhost_host *host = unit_open();
        subhost_interp *busy = unit_interp(host);
        struct user user = {.interp = unit_interp(host)};
        pthread_t threads[2];
        user.task = unit_submit(busy, UNIT_QUIET "while True: pass", NULL);
        unit_until_running(host, user.task);
        for (size_t i = 0; i < ARRAY_LENGTH(threads); i++)
            assert_int_equal(pthread_create(&threads[i], NULL, use_until_stopped, &user),
                             0);
        while (atomic_load(&user.rounds) < 10)
            assert_true(subhost_dispatch(host, SUBHOST_MSEC(1), NULL) >= 0);
        unit_close(host);
        atomic_store(&user.stop, true);
        for (size_t i = 0; i < ARRAY_LENGTH(threads); i++)
            pthread_join(threads[i], NULL);
        assert_int_equal(user.wrong, 0);
        subhost_interp_release(busy);
        subhost_task_release(user.task);
        subhost_interp_release(user.interp);
    }
}

static void close_in_on_end(subhost_task *task, void *data)
{
    (void)task;
    int *codes = data;
    subhost_error *err = NULL;
    codes[0]++;
    codes[1] = subhost_close(subhost__host(), SUBHOST_CLOSE_FINALIZE, 0, &err);
    codes[2] = strstr(subhost_error_message(err), "not in a callback") != NULL;
    subhost_error_free(err);
}

/* What calls it needs the host afterwards: subhost_dispatch(), or subhost_close() itself. */
static void callbacks_do_not_close(void **state)
{
    (void)state;
    static const char *const programs[] = {"pass", UNIT_QUIET "while True: pass"};
    for (size_t i = 0; i < ARRAY_LENGTH(programs); i++) {
        int codes[3] = {0, 0, 0};
        subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
        options.on_end = close_in_on_end;
        options.on_end_data = codes;
        subhost_host *host = unit_open();
        subhost_interp *interp = unit_interp(host);
        subhost_task *task = unit_submit(interp, programs[i], &options);
        if (i == 0)
            unit_wait(task);
        else
            unit_until_running(host, task);
        unit_close(host);
        assert_int_equal(codes[0], 1);
        assert_int_equal(codes[1], SUBHOST_ESTATE);
        assert_true(codes[2]);
        subhost_task_release(task);
        subhost_interp_release(interp);
    }
}

static void on_end_of_close(subhost_task *task, void *data)
{
    (void)task;
    int *codes = data;
    subhost_interp *interp = NULL;
    subhost_task *next = NULL;
    codes[0] = subhost_interp_create(subhost__host(), NULL, &interp, NULL);
    codes[1] = unit_try_submit(task->interp, "pass", NULL, &next, NULL);
}

static void nothing_starts_while_it_closes(void **state)
{
    (void)state;
    int codes[2] = {0, 0};
    subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
    options.on_end = on_end_of_close;
    options.on_end_data = codes;
    subhost_host *host = unit_open();
    subhost_interp *interp = unit_interp(host);
    subhost_task *task = unit_submit(interp, UNIT_QUIET "while True: pass", &options);
    unit_until_running(host, task);
    unit_close(host);
    assert_int_equal(codes[0], SUBHOST_ESTATE);
    assert_int_equal(codes[1], SUBHOST_ESTATE);
    subhost_task_release(task);
    subhost_interp_release(interp);
}

/* ---- options -------------------------------------------------------------------- */

static void bad_sizes_are_refused(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, sizeof(size_t) - 1, 4097, SIZE_MAX};
    subhost_host *host = NULL;
    for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++) {
        subhost_options options = SUBHOST_OPTIONS_INIT;
        subhost_error *err = NULL;
        options.size = sizes[i];
        assert_int_equal(subhost_open(&options, &host, &err), SUBHOST_EINVAL);
        assert_non_null(strstr(subhost_error_message(err), "size"));
        subhost_error_free(err);
        assert_null(host);
    }
    host = unit_open();
    subhost_interp *interp = unit_interp(host), *other = NULL;
    for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++) {
        subhost_interp_options options = SUBHOST_INTERP_OPTIONS_INIT;
        subhost_program program = SUBHOST_PROGRAM_INIT;
        subhost_task_options task_options = SUBHOST_TASK_OPTIONS_INIT;
        subhost_task *task = NULL;
        options.size = sizes[i];
        assert_int_equal(subhost_interp_create(host, &options, &other, NULL),
                         SUBHOST_EINVAL);
        assert_null(other);
        program.kind = SUBHOST_PROGRAM_CODE;
        program.source = "pass";
        task_options.size = sizes[i];
        assert_int_equal(subhost_submit(interp, &program, &task_options, &task, NULL),
                         SUBHOST_EINVAL);
        program.size = sizes[i];
        assert_int_equal(subhost_submit(interp, &program, NULL, &task, NULL),
                         SUBHOST_EINVAL);
        assert_null(task);
    }
    subhost_interp_release(interp);
    unit_close(host);
}

static void never_called(subhost_host *host, const subhost_signal_event *event,
                         void *data)
{
    (void)host, (void)event, (void)data;
    abort();
}

/* An older struct was shorter: what lies behind it is not looked at. */
static void a_shorter_struct_has_the_defaults(void **state)
{
    (void)state;
    subhost_options options = SUBHOST_OPTIONS_INIT;
    options.executable = "nonsense";
    options.take_signals = 1;
    options.on_signal = never_called;
    options.doorbell = SUBHOST_DOORBELL_ATTACH;
    options.no_interruptible_calls = 1;
    subhost_host *host;
    options.size = sizeof options.size;
    assert_int_equal(subhost_open(&options, &host, NULL), 0);
    assert_null(host->options.executable);
    assert_int_equal(host->options.take_signals, 0);
    assert_null((void *)(uintptr_t)host->options.on_signal);
    assert_true(host->interruptible);
    assert_string_equal(subhost_doorbell_name(host), "pending-call");

    subhost_interp_options interp_options = SUBHOST_INTERP_OPTIONS_INIT;
    interp_options.gil = (enum subhost_gil)77;
    interp_options.name = "short";
    interp_options.size = offsetof(subhost_interp_options, gil);
    subhost_interp *interp;
    assert_int_equal(subhost_interp_create(host, &interp_options, &interp, NULL), 0);
    assert_int_equal(interp->gil, SUBHOST_GIL_OWN);
    assert_string_equal(interp->name, "short");

    subhost_task_options task_options = SUBHOST_TASK_OPTIONS_INIT;
    task_options.name = "a name";
    task_options.timeout = 1;
    task_options.fresh = 1;
    task_options.size = offsetof(subhost_task_options, timeout);
    subhost_task *task = unit_submit(interp, "pass", &task_options);
    assert_string_equal(subhost_task_name(task), "a name");

    subhost_outcome outcome;
    memset(&outcome, 0x55, sizeof outcome);
    outcome.size = offsetof(subhost_outcome, code);
    assert_int_equal(subhost_task_wait(task, unit_patience(20), &outcome, NULL), 0);
    assert_int_equal(outcome.kind, SUBHOST_RETURNED);
    assert_int_equal(outcome.size, offsetof(subhost_outcome, code));
    assert_int_equal(outcome.code, 0x55555555);
    subhost_outcome no_size = {.size = 0};
    assert_int_equal(subhost_task_wait(task, 0, &no_size, NULL), SUBHOST_EINVAL);
    subhost_task_release(task);

    subhost_stats stats;
    memset(&stats, 0x55, sizeof stats);
    stats.size = offsetof(subhost_stats, interpreters_ended);
    subhost_get_stats(host, &stats);
    assert_int_equal(stats.interpreters_created, 1);
    assert_true(stats.interpreters_ended == UINT64_C(0x5555555555555555));
    subhost_interp_release(interp);
    unit_close(host);
}

/* A newer one is longer. */
static void a_longer_struct_is_accepted(void **state)
{
    (void)state;
    struct {
        subhost_options options;
        char more[64];
    } newer;
    memset(&newer, 0, sizeof newer);
    newer.options.size = sizeof newer;
    subhost_host *host;
    assert_int_equal(subhost_open(&newer.options, &host, NULL), 0);
    struct {
        subhost_outcome outcome;
        char more[64];
    } outcome = {.outcome.size = sizeof outcome};
    subhost_interp *interp = unit_interp(host);
    subhost_task *task = unit_submit(interp, "pass", NULL);
    assert_int_equal(subhost_task_wait(task, unit_patience(20), &outcome.outcome, NULL),
                     0);
    assert_int_equal(outcome.outcome.size, sizeof(subhost_outcome));
    subhost_task_release(task);
    subhost_interp_release(interp);
    unit_close(host);
}

static void bad_programs_are_refused(void **state)
{
    (void)state;
    subhost_host *host = unit_open();
    subhost_interp *interp = unit_interp(host);
    const subhost_program bad[] = {
        {.size = sizeof(subhost_program)},
        {.size = sizeof(subhost_program),
         .source = "x",
         .kind = (enum subhost_program_kind)(SUBHOST_PROGRAM_INPUT + 1)},
        {.size = sizeof(subhost_program), .source = "x", .argc = -1},
        {.size = sizeof(subhost_program), .source = "x", .argc = 1},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        subhost_task *task = NULL;
        assert_int_equal(subhost_submit(interp, &bad[i], NULL, &task, NULL),
                         SUBHOST_EINVAL);
        assert_null(task);
    }
    subhost_interp_options options = SUBHOST_INTERP_OPTIONS_INIT;
    subhost_interp *other = NULL;
    options.gil = (enum subhost_gil)2;
    assert_int_equal(subhost_interp_create(host, &options, &other, NULL), SUBHOST_EINVAL);
    assert_null(other);
    subhost_interp_release(interp);
    unit_close(host);
}

static void expect_invalid(int code, subhost_error **err, const char *message)
{
    assert_int_equal(code, SUBHOST_EINVAL);
    assert_string_equal(subhost_error_message(*err), message);
    subhost_error_free(*err);
}

static void bad_options_are_refused(void **state)
{
    (void)state;
    subhost_host *host = NULL;
    subhost_error *err = NULL;
    subhost_options options = SUBHOST_OPTIONS_INIT;
    options.doorbell = (enum subhost_doorbell)77;
    expect_invalid(
        subhost_open(&options, &host, &err), &err,
        "subhost_options: doorbell is 77; SUBHOST_DOORBELL_AUTO is the default");
    options.doorbell = SUBHOST_DOORBELL_AUTO;
    options.orphan = (enum subhost_orphan)99;
    expect_invalid(subhost_open(&options, &host, &err), &err,
                   "subhost_options: orphan is 99; SUBHOST_ORPHAN_CANCEL is the default");
    assert_null(host);
    host = unit_open();
    subhost_interp *interp = unit_interp(host);
    subhost_task *task = NULL;
    subhost_task_options task_options = SUBHOST_TASK_OPTIONS_INIT;
    task_options.timeout = -5;
    expect_invalid(unit_try_submit(interp, "pass", &task_options, &task, &err), &err,
                   "subhost_task_options: timeout is negative; 0 is no timeout");
    task_options.timeout = 0;
    task_options.grace = -1;
    expect_invalid(unit_try_submit(interp, "pass", &task_options, &task, &err), &err,
                   "subhost_task_options: grace is negative; 0 is the policy's grace");
    static const char *const gap[] = {"a", NULL, "b"};
    subhost_program program = SUBHOST_PROGRAM_INIT;
    program.source = "x";
    program.argc = 3;
    program.argv = gap;
    expect_invalid(subhost_submit(interp, &program, NULL, &task, &err), &err,
                   "subhost_submit: argc is 3, but argv[1] is NULL");
    assert_null(task);
    subhost_interp_release(interp);
    unit_close(host);
}

/* ---- threads -------------------------------------------------------------------- */

static int wrong_codes[3];

static void *call_from_wrong_thread(void *arg)
{
    subhost_host *host = arg;
    wrong_codes[0] = subhost_dispatch(host, 0, NULL);
    wrong_codes[1] = subhost_close(host, SUBHOST_CLOSE_FINALIZE, 0, NULL);
    wrong_codes[2] = subhost_dump_stacks(host, STDERR_FILENO, NULL);
    return NULL;
}

static void other_threads_are_refused(void **state)
{
    (void)state;
    subhost_host *host = unit_open();
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, call_from_wrong_thread, host), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    for (size_t i = 0; i < ARRAY_LENGTH(wrong_codes); i++)
        assert_int_equal(wrong_codes[i], SUBHOST_ETHREAD);
    unit_close(host);
}

/* ---- the descriptor ------------------------------------------------------------- */

/* What a foreign event loop does: poll, and dispatch without waiting. */
static void poll_until(subhost_host *host, struct unit_events *events, int count)
{
    int64_t deadline = subhost__deadline(unit_patience(20));
    while (events->count < count && subhost__now() < deadline) {
        struct pollfd fd = {.fd = subhost_fd(host), .events = POLLIN};
        int ready = poll(&fd, 1, (int)(unit_patience(20) / 1000000));
        assert_int_equal(ready, 1);
        assert_int_equal(fd.revents, POLLIN);
        assert_true(subhost_dispatch(host, 0, NULL) >= 0);
    }
    assert_int_equal(events->count, count);
    assert_int_equal(events->wrong, 0);
}

static void *cancel_soon(void *arg)
{
    usleep(20000);
    subhost_task_cancel(arg, SUBHOST_BY_REQUEST, NULL);
    return NULL;
}

static void a_foreign_loop_drives_it(void **state)
{
    (void)state;
    subhost_host *host = unit_open();
    assert_true(subhost_fd(host) > STDERR_FILENO);
    assert_int_equal(fcntl(subhost_fd(host), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    subhost_interp *interp = unit_interp(host);
    struct unit_events events = {0, 0};
    subhost_task_options options = unit_options(&events);
    subhost_task *returns = unit_submit(interp, "x = 1", &options);
    poll_until(host, &events, 1);
    assert_int_equal(returns->outcome.kind, SUBHOST_RETURNED);

    /* Deadlines are the host's own; nothing else wakes the loop then. */
    options.timeout = SUBHOST_MSEC(50);
    subhost_task *late =
        unit_submit(interp, UNIT_QUIET "import time\ntime.sleep(3600)", &options);
    poll_until(host, &events, 2);
    assert_int_equal(late->outcome.kind, SUBHOST_TIMED_OUT);

    options.timeout = 0;
    subhost_task *cancelled =
        unit_submit(interp, UNIT_QUIET "import time\ntime.sleep(3600)", &options);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, cancelled), 0);
    poll_until(host, &events, 3);
    assert_int_equal(cancelled->outcome.kind, SUBHOST_CANCELLED);
    assert_int_equal(pthread_join(thread, NULL), 0);

    subhost_task_release(returns);
    subhost_task_release(late);
    subhost_task_release(cancelled);
    subhost_interp_release(interp);
    unit_close(host);
}

/* With nothing to do the descriptor falls silent, and dispatch keeps to its timeout. */
static void an_idle_host_is_silent(void **state)
{
    (void)state;
    subhost_host *host = unit_open();
    subhost_interp *interp = unit_interp(host);
    unit_run(interp, "pass", SUBHOST_RETURNED);
    int64_t deadline = subhost__deadline(unit_patience(5));
    struct pollfd fd = {.fd = subhost_fd(host), .events = POLLIN};
    while (poll(&fd, 1, 100) != 0 && subhost__now() < deadline)
        assert_true(subhost_dispatch(host, 0, NULL) >= 0);
    assert_int_equal(poll(&fd, 1, 0), 0);
    int64_t began = subhost__now();
    assert_int_equal(subhost_dispatch(host, SUBHOST_MSEC(60), NULL), 0);
    assert_true(subhost__now() - began >= SUBHOST_MSEC(60));
    subhost_interp_release(interp);
    unit_close(host);
}

/* ---- the doorbells -------------------------------------------------------------- */

static void everything_works_with(enum subhost_doorbell doorbell, const char *name)
{
    subhost_options options = SUBHOST_OPTIONS_INIT;
    options.doorbell = doorbell;
    subhost_host *host;
    assert_int_equal(subhost_open(&options, &host, NULL), 0);
    assert_string_equal(subhost_doorbell_name(host), name);
    subhost_interp *interp = unit_interp(host);
    unit_run(interp, "x = 1", SUBHOST_RETURNED);
    static const char *const endless[] = {
        UNIT_QUIET "while True: pass",
        UNIT_QUIET "import time\ntime.sleep(3600)",
        UNIT_QUIET "import threading\nthreading.Event().wait()",
        UNIT_QUIET "import os\nr, w = os.pipe()\nos.read(r, 1)",
    };
    for (size_t i = 0; i < ARRAY_LENGTH(endless); i++) {
        subhost_task *task = unit_submit(interp, endless[i], NULL);
        unit_until_running(host, task);
        for (int n = 0; n < 5; n++)
            unit_ping(host, interp);
        subhost_task_cancel(task, SUBHOST_BY_REQUEST, "enough");
        subhost_outcome outcome = unit_wait(task);
        unit_expect(&outcome, SUBHOST_CANCELLED);
        assert_int_equal(outcome.cancel_reason, SUBHOST_BY_REQUEST);
        assert_int_equal(outcome.status, 137);
        subhost_task_release(task);
        unit_run(interp, "x = 1", SUBHOST_RETURNED);
    }
    subhost_stats stats = {.size = sizeof stats};
    subhost_get_stats(host, &stats);
    assert_int_equal(stats.cancels, ARRAY_LENGTH(endless));
    assert_int_equal(stats.tasks_started, 1 + 2 * ARRAY_LENGTH(endless));
    assert_int_equal(stats.tasks_ended, 1 + 2 * ARRAY_LENGTH(endless));
    assert_int_equal(stats.interpreters_created, 1);
    assert_true(stats.cancel_latency_last > 0);
    assert_true(stats.cancel_latency_max >= stats.cancel_latency_last);
    /* Each ping is one, the one in unit_until_running() included. */
    assert_int_equal(stats.messages, 6 * ARRAY_LENGTH(endless));
    subhost_interp_release(interp);
    unit_close(host);
}

static void the_pending_call_works(void **state)
{
    (void)state;
    everything_works_with(SUBHOST_DOORBELL_AUTO, "pending-call");
}

static void attaching_works(void **state)
{
    (void)state;
    everything_works_with(SUBHOST_DOORBELL_ATTACH, "attach: asked for");
}

/* ---- signals, stacks ------------------------------------------------------------ */

static struct sigaction disposition(int signo)
{
    struct sigaction action;
    assert_int_equal(sigaction(signo, NULL, &action), 0);
    return action;
}

static void dispositions_are_the_embedders(void **state)
{
    (void)state;
    static const int signals[] = {SIGINT, SIGTERM, SIGUSR1, SIGPIPE, SIGXFSZ, SIGCHLD};
    struct sigaction before[ARRAY_LENGTH(signals)];
    for (int take = 0; take < 2; take++) {
        subhost_options options = SUBHOST_OPTIONS_INIT;
        options.take_signals = take;
        subhost_host *host;
        for (size_t i = 0; i < ARRAY_LENGTH(signals); i++)
            before[i] = disposition(signals[i]);
        assert_int_equal(subhost_open(&options, &host, NULL), 0);
        subhost_interp *interp = unit_interp(host);
        unit_run(interp, "import asyncio; asyncio.run(asyncio.sleep(0))",
                 SUBHOST_RETURNED);
        for (size_t i = 0; !take && i < ARRAY_LENGTH(signals); i++)
            assert_ptr_equal((void *)(uintptr_t)disposition(signals[i]).sa_handler,
                             (void *)(uintptr_t)before[i].sa_handler);
        subhost_interp_release(interp);
        unit_close(host);
        for (size_t i = 0; i < ARRAY_LENGTH(signals); i++)
            assert_ptr_equal((void *)(uintptr_t)disposition(signals[i]).sa_handler,
                             (void *)(uintptr_t)before[i].sa_handler);
    }
}

static void stacks_are_dumped(void **state)
{
    (void)state;
    subhost_host *host = unit_open();
    subhost_interp *busy = unit_interp(host), *asleep = unit_interp(host);
    subhost_task *a = unit_submit(busy,
                                  UNIT_QUIET "def turn():\n"
                                             "    while True: pass\n"
                                             "turn()",
                                  NULL);
    subhost_task *b = unit_submit(asleep,
                                  UNIT_QUIET "import time\n"
                                             "def rest():\n"
                                             "    time.sleep(3600)\n"
                                             "rest()",
                                  NULL);
    unit_until_running(host, a);
    unit_until_running(host, b);
    int fd = memfd_create("stacks", MFD_CLOEXEC);
    assert_true(fd >= 0);
    static char text[100000];
    bool both = false;
    int64_t deadline = subhost__deadline(unit_patience(10));
    /* Not at the first attempt where they have only just started. */
    while (!both && subhost__now() < deadline) {
        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
        assert_int_equal(subhost_dump_stacks(host, fd, NULL), 0);
        ssize_t n = pread(fd, text, sizeof text - 1, 0);
        assert_true(n > 0);
        text[n] = '\0';
        both = strstr(text, "in turn\n") && strstr(text, "in rest\n");
    }
    close(fd);
    assert_true(both);
    assert_non_null(strstr(text, "Interpreter 1 (py/1, running"));
    assert_non_null(strstr(text, "Interpreter 2 (py/2, running"));
    assert_int_equal(subhost_dump_stacks(host, -1, NULL), SUBHOST_EINVAL);
    subhost_task_release(a);
    subhost_task_release(b);
    subhost_interp_release(busy);
    subhost_interp_release(asleep);
    unit_close(host);
}

/* ---- the last one --------------------------------------------------------------- */

/* After SUBHOST_CLOSE_EXITING the process is meant to end: CPython stays as it is. */
static void exiting_leaves_cpython(void **state)
{
    (void)state;
    subhost_host *host = unit_open(), *again = NULL;
    subhost_interp *interp = unit_interp(host);
    unit_run(interp, "pass", SUBHOST_RETURNED);
    subhost_interp_release(interp);
    assert_int_equal(subhost_close(host, SUBHOST_CLOSE_EXITING, unit_patience(5), NULL),
                     0);
    assert_true(Py_IsInitialized());
    subhost_error *err = NULL;
    assert_int_equal(subhost_open(NULL, &again, &err), SUBHOST_ESTATE);
    assert_non_null(strstr(subhost_error_message(err), "opening the host: "));
    assert_non_null(strstr(subhost_error_message(err), "initialized already"));
    subhost_error_free(err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(it_opens_and_closes),
        UNIT_TEST(it_opens_again_after_close),
        UNIT_TEST(a_second_one_is_refused),
        UNIT_TEST(it_closes_while_interpreters_start),
        UNIT_TEST(it_closes_with_handles_out),
        UNIT_TEST(closing_cancels_what_runs),
        UNIT_TEST(closing_ends_what_is_queued),
        UNIT_TEST(handles_answer_after_the_close),
        UNIT_TEST(handles_are_used_while_it_closes),
        UNIT_TEST(callbacks_do_not_close),
        UNIT_TEST(nothing_starts_while_it_closes),
        UNIT_TEST(bad_sizes_are_refused),
        UNIT_TEST(a_shorter_struct_has_the_defaults),
        UNIT_TEST(a_longer_struct_is_accepted),
        UNIT_TEST(bad_programs_are_refused),
        UNIT_TEST(bad_options_are_refused),
        UNIT_TEST(other_threads_are_refused),
        UNIT_TEST(a_foreign_loop_drives_it),
        UNIT_TEST(an_idle_host_is_silent),
        UNIT_TEST(the_pending_call_works),
        UNIT_TEST(attaching_works),
        UNIT_TEST(dispositions_are_the_embedders),
        UNIT_TEST(stacks_are_dumped),
        UNIT_TEST(exiting_leaves_cpython),
    };
    return UNIT_MAIN(tests);
}
