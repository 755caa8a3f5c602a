/* SPDX-License-Identifier: MIT
 *
 * timeout: 60
 * What cannot be interrupted, or cannot be begun. An abandoned interpreter stays to the
 * end of the process, so each of these tests has a process of its own. */
#include "unit.h"

#include <fcntl.h>
#include <sys/wait.h>

/* In a child, which has not started CPython: so it may. What the test asserts there is
 * told by its exit status; longjmp stays within the child's copy of cmocka. */
static void in_a_child(void (*test)(void))
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        test();
        /* As a program with abandoned threads leaves: without atexit, they still run. */
        _exit(0);
    }
    int status = 0;
    pid_t reaped = 0;
    int64_t deadline = subhost__deadline(unit_patience(30));
    while (reaped == 0 && subhost__now() < deadline) {
        usleep(1000);
        reaped = waitpid(pid, &status, WNOHANG);
    }
    if (reaped == 0) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    if (status)
        print_error("the child's wait status is 0x%x\n", (unsigned)status);
    assert_int_equal(reaped, pid);
    assert_int_equal(status, 0);
}

/* cmocka's assertions would go on with the parent's tests in the child. */
#define CHECK(condition)                                                                 \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);      \
            _exit(1);                                                                    \
        }                                                                                \
    } while (0)

static subhost_host *host;

static subhost_interp *open_with_interp(enum subhost_gil gil)
{
    subhost_interp *interp = NULL;
    subhost_interp_options options = SUBHOST_INTERP_OPTIONS_INIT;
    options.gil = gil;
    if (!host)
        CHECK(subhost_open(NULL, &host, NULL) == 0);
    CHECK(subhost_interp_create(host, &options, &interp, NULL) == 0);
    return interp;
}

/* A program that calls a C function which cannot be interrupted. */
static subhost_task *submit_blocker(subhost_interp *interp, const char *function,
                                    const subhost_task_options *options)
{
    char directory[4096], code[5000];
    unit_build_directory(directory, sizeof directory);
    snprintf(code, sizeof code,
             UNIT_QUIET "sys.path.insert(0, '%s/native')\n"
                        "import blocker\n"
                        "blocker.%s(3600.0)",
             directory, function);
    subhost_task *task = NULL;
    CHECK(unit_try_submit(interp, code, options, &task, NULL) == 0);
    return task;
}

static subhost_outcome wait_for(subhost_task *task)
{
    subhost_outcome outcome = {.size = sizeof outcome};
    CHECK(subhost_task_wait(task, unit_patience(20), &outcome, NULL) == 0);
    return outcome;
}

/* Until it hangs in the call: then messages are not answered any more. */
static void let_it_hang(subhost_task *task)
{
    int64_t deadline = subhost__deadline(unit_patience(20));
    for (bool running = false; !running && subhost__now() < deadline;) {
        pthread_mutex_lock(&task->interp->lock);
        running = task->interp->current == task;
        pthread_mutex_unlock(&task->interp->lock);
        CHECK(subhost_dispatch(host, SUBHOST_MSEC(1), NULL) >= 0);
    }
    int64_t until = subhost__now() + SUBHOST_MSEC(unit_count(100, 500, 3000));
    while (subhost__now() < until)
        CHECK(subhost_dispatch(host, SUBHOST_MSEC(10), NULL) >= 0);
}

static void expect_abandoned(enum subhost_gil gil, const char *function)
{
    subhost_interp *interp = open_with_interp(gil);
    struct unit_events events = {0, 0};
    subhost_task_options options = unit_options(&events);
    options.grace = SUBHOST_MSEC(200);
    subhost_task *task = submit_blocker(interp, function, &options);
    subhost_task *queued = NULL, *later = NULL;
    CHECK(unit_try_submit(interp, "x = 1", &options, &queued, NULL) == 0);
    let_it_hang(task);
    int64_t began = subhost__now();
    subhost_task_cancel(task, SUBHOST_BY_REQUEST, "enough");
    subhost_outcome outcome = wait_for(task);
    int64_t took = subhost__now() - began;
    CHECK(outcome.kind == SUBHOST_ABANDONED);
    CHECK(outcome.status == 137);
    CHECK(outcome.cancel_reason == SUBHOST_BY_REQUEST);
    CHECK(took >= options.grace && took < options.grace + unit_patience(1));

    /* Nobody else waits for it for ever. */
    outcome = wait_for(queued);
    CHECK(outcome.kind == SUBHOST_FAILED && outcome.status == 125);
    CHECK(strcmp(outcome.detail, "its interpreter was abandoned") == 0);
    CHECK(unit_try_submit(interp, "x = 1", NULL, &later, NULL) == SUBHOST_EQUARANTINED);
    CHECK(subhost_interp_send(interp, unit_count_message, NULL, NULL) ==
          SUBHOST_EQUARANTINED);
    subhost_stats stats = {.size = sizeof stats};
    subhost_get_stats(host, &stats);
    CHECK(stats.interpreters_abandoned == 1);
    int64_t until = subhost__now() + SUBHOST_MSEC(50);
    while (subhost__now() < until)
        CHECK(subhost_dispatch(host, SUBHOST_MSEC(10), NULL) >= 0);
    CHECK(events.count == 2 && events.wrong == 0);
    subhost_task_release(task);
    subhost_task_release(queued);
    subhost_interp_release(interp);
}

/* A sibling with a GIL of its own is none the worse. */
static void expect_healthy(void)
{
    subhost_interp *other = open_with_interp(SUBHOST_GIL_OWN);
    subhost_task *task = NULL;
    CHECK(unit_try_submit(other, "import json; json.loads('1')", NULL, &task, NULL) == 0);
    subhost_outcome outcome = wait_for(task);
    CHECK(outcome.kind == SUBHOST_RETURNED);
    subhost_task_release(task);
    subhost_interp_release(other);
}

static void expect_quarantined_at_close(void)
{
    subhost_error *err = NULL;
    int64_t began = subhost__now();
    CHECK(subhost_close(host, SUBHOST_CLOSE_FINALIZE, SUBHOST_MSEC(1000), &err) ==
          SUBHOST_EQUARANTINED);
    CHECK(strstr(subhost_error_message(err), "1 abandoned interpreter stays behind"));
    /* The exit does not wait for it. */
    CHECK(subhost__now() - began < unit_patience(2));
    subhost_error_free(err);
    subhost_host *another = NULL;
    CHECK(subhost_open(NULL, &another, &err) == SUBHOST_ESTATE && !another);
    CHECK(strcmp(subhost_error_message(err),
                 "subhost_open: the host that was closed left 1 abandoned interpreter "
                 "behind; another host needs a new process") == 0);
    subhost_error_free(err);
}

static void own_gil_held(void)
{
    expect_abandoned(SUBHOST_GIL_OWN, "hold_gil");
    expect_healthy();
    expect_quarantined_at_close();
}

static void own_gil_free(void)
{
    expect_abandoned(SUBHOST_GIL_OWN, "block_without_gil");
    expect_healthy();
    expect_quarantined_at_close();
}

static void shared_gil_free(void)
{
    expect_abandoned(SUBHOST_GIL_SHARED, "block_without_gil");
    expect_healthy();
    expect_quarantined_at_close();
}

static void shared_gil_held(void)
{
    expect_abandoned(SUBHOST_GIL_SHARED, "hold_gil");
    /* New interpreters need the main one's GIL: closing is all that is left. */
    expect_quarantined_at_close();
}

static void by_deadline(void)
{
    subhost_interp *interp = open_with_interp(SUBHOST_GIL_OWN);
    struct unit_events events = {0, 0};
    subhost_task_options options = unit_options(&events);
    options.timeout = SUBHOST_MSEC(unit_count(200, 1000, 5000));
    options.grace = SUBHOST_MSEC(100);
    subhost_task *task = submit_blocker(interp, "hold_gil", &options);
    subhost_outcome outcome = wait_for(task);
    CHECK(outcome.kind == SUBHOST_ABANDONED);
    CHECK(outcome.cancel_reason == SUBHOST_BY_DEADLINE);
    CHECK(subhost_dispatch(host, 0, NULL) >= 0);
    CHECK(events.count == 1 && events.wrong == 0);
    subhost_task_release(task);
    subhost_interp_release(interp);
    expect_quarantined_at_close();
}

static void by_close(void)
{
    subhost_interp *interp = open_with_interp(SUBHOST_GIL_OWN);
    struct unit_events events = {0, 0};
    subhost_task_options options = unit_options(&events);
    subhost_task *task = submit_blocker(interp, "hold_gil", &options);
    let_it_hang(task);
    expect_quarantined_at_close();
    CHECK(events.count == 1 && events.wrong == 0);
    CHECK(task->outcome.kind == SUBHOST_ABANDONED);
    subhost_task_release(task);
    subhost_interp_release(interp);
}

/* It comes back after all, when everybody has gone on without it: one event, no more, and
 * the interpreter is not used again. */
static void back_after_all(void)
{
    char directory[4096], code[5000];
    unit_build_directory(directory, sizeof directory);
    int held = unit_count(1, 3, 8);
    snprintf(code, sizeof code,
             UNIT_QUIET
             "sys.path.insert(0, '%s/native')\nimport blocker\nblocker.hold_gil(%d)",
             directory, held);
    subhost_interp *interp = open_with_interp(SUBHOST_GIL_OWN);
    struct unit_events events = {0, 0};
    subhost_task_options options = unit_options(&events);
    options.grace = SUBHOST_MSEC(50);
    subhost_task *task = NULL;
    CHECK(unit_try_submit(interp, code, &options, &task, NULL) == 0);
    let_it_hang(task);
    subhost_task_cancel(task, SUBHOST_BY_REQUEST, NULL);
    subhost_outcome outcome = wait_for(task);
    CHECK(outcome.kind == SUBHOST_ABANDONED);
    /* Whether its thread leaves or parks, and when it gets a CPU, is not promised. */
    int64_t until = subhost__now() + SUBHOST_MSEC(1000) * (held + 1);
    while (subhost__now() < until)
        CHECK(subhost_dispatch(host, SUBHOST_MSEC(10), NULL) >= 0);
    subhost_task *later = NULL;
    CHECK(unit_try_submit(interp, "x = 1", NULL, &later, NULL) == SUBHOST_EQUARANTINED);
    outcome = wait_for(task);
    CHECK(outcome.kind == SUBHOST_ABANDONED);
    CHECK(events.count == 1 && events.wrong == 0);
    subhost_task_release(task);
    subhost_interp_release(interp);
    expect_quarantined_at_close();
}

/* site lets a BaseException of sitecustomize out: the interpreter cannot be prepared. */
static void not_created(void)
{
    char directory[] = "/tmp/subhost-unit.XXXXXX", path[200];
    CHECK(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/sitecustomize.py", directory);
    FILE *stream = fopen(path, "we");
    CHECK(stream);
    fputs("import os\n"
          "if os.environ.get('UNIT_NO_SITE'): raise KeyboardInterrupt('no site')\n",
          stream);
    CHECK(fclose(stream) == 0);
    CHECK(setenv("PYTHONPATH", directory, 1) == 0);
    CHECK(setenv("PYTHONDONTWRITEBYTECODE", "1", 1) == 0);
    CHECK(setenv("UNIT_NO_SITE", "1", 1) == 0);

    struct unit_events events = {0, 0};
    subhost_task_options options = unit_options(&events);
    CHECK(subhost_open(NULL, &host, NULL) == 0);
    subhost_interp *interp = open_with_interp(SUBHOST_GIL_OWN);
    subhost_task *tasks[3] = {NULL};
    size_t submitted = 0;
    for (size_t i = 0; i < ARRAY_LENGTH(tasks); i++) {
        int code = unit_try_submit(interp, "x = 1", &options, &tasks[i], NULL);
        CHECK(code == 0 || code == SUBHOST_ESTATE);
        submitted += code == 0;
    }
    for (size_t i = 0; i < submitted; i++) {
        subhost_outcome outcome = wait_for(tasks[i]);
        CHECK(outcome.kind == SUBHOST_FAILED && outcome.status == 125);
        CHECK(strstr(outcome.detail, "the interpreter could not be created: "));
        CHECK(strstr(outcome.detail, "KeyboardInterrupt"));
    }
    CHECK(subhost_dispatch(host, 0, NULL) >= 0);
    CHECK(events.count == (int)submitted && events.wrong == 0);
    for (size_t i = 0; i < ARRAY_LENGTH(tasks); i++)
        subhost_task_release(tasks[i]);
    subhost_interp_release(interp);
    /* The host is none the worse. */
    CHECK(unsetenv("UNIT_NO_SITE") == 0);
    expect_healthy();
    subhost_error *err = NULL;
    int code = subhost_close(host, SUBHOST_CLOSE_FINALIZE, unit_patience(5), &err);
    if (code)
        fprintf(stderr, "subhost_close: %s\n", subhost_error_message(err));
    CHECK(code == 0);
    CHECK(unlink(path) == 0 && rmdir(directory) == 0);
}

#define IN_A_CHILD(test)                                                                 \
    static void test##_in_a_child(void **state)                                          \
    {                                                                                    \
        (void)state;                                                                     \
        in_a_child(test);                                                                \
    }
IN_A_CHILD(own_gil_held)
IN_A_CHILD(own_gil_free)
IN_A_CHILD(shared_gil_free)
IN_A_CHILD(shared_gil_held)
IN_A_CHILD(by_deadline)
IN_A_CHILD(by_close)
IN_A_CHILD(back_after_all)
IN_A_CHILD(not_created)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_gil_held_in_a_child),
        cmocka_unit_test(own_gil_free_in_a_child),
        cmocka_unit_test(shared_gil_free_in_a_child),
        cmocka_unit_test(shared_gil_held_in_a_child),
        cmocka_unit_test(by_deadline_in_a_child),
        cmocka_unit_test(by_close_in_a_child),
        cmocka_unit_test(back_after_all_in_a_child),
        cmocka_unit_test(not_created_in_a_child),
    };
    return UNIT_MAIN(tests);
}
