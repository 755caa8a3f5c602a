/* SPDX-License-Identifier: MIT
 *
 * What the unit programs share. A cmocka assertion leaves by longjmp: only on the thread
 * that runs the tests. Other threads count what goes wrong. */
#ifndef UNIT_H
#define UNIT_H

#include "interp.h" /* first: it includes Python.h */

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif
#ifndef RUNNING_ON_VALGRIND
#define RUNNING_ON_VALGRIND 0
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define UNIT_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define UNIT_SANITIZED 1
#endif
#endif
#ifndef UNIT_SANITIZED
#define UNIT_SANITIZED 0
#endif

static inline bool unit_on_valgrind(void)
{
    const char *wrapper = getenv("SUBHOST_TEST_WRAPPER");
    return RUNNING_ON_VALGRIND || (wrapper && *wrapper);
}

/* ThreadSanitizer gives up on a child that starts threads after a fork of a process with
 * several ("starting new threads after multi-threaded fork is not supported"), and valgrind
 * does not know pidfd_open(2) (3.19). AddressSanitizer of gcc 12 leaves its allocator's locks
 * as they are at a fork, so that children of a busy parent hang; that of gcc 16 does not. */
static inline bool unit_can_fork(void)
{
#if defined(__SANITIZE_THREAD__)
    return false;
#elif defined(__SANITIZE_ADDRESS__) && defined(__GNUC__) && __GNUC__ < 16
    return false;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
    return false;
#endif
#endif
    return !unit_on_valgrind();
}

/* How often, how many: as many as natively, or fewer where all is slow. */
static inline int unit_count(int natively, int sanitized, int on_valgrind)
{
    return unit_on_valgrind() ? on_valgrind : UNIT_SANITIZED ? sanitized : natively;
}

/* Figures of memory mean nothing where the allocator is another one. */
static inline bool unit_memory_counts(void)
{
    return !UNIT_SANITIZED && !unit_on_valgrind();
}

/* A limit on what must happen: generous, and more so where all is slow. */
static inline int64_t unit_patience(int64_t seconds)
{
    const char *text = getenv("SUBHOST_TEST_PATIENCE");
    long factor = text ? atol(text) : 1;
    if (factor < 1)
        factor = 1;
    return SUBHOST_MSEC(1000) * seconds * factor * unit_count(1, 4, 10);
}

/* The process's resident memory, in bytes. */
static inline size_t unit_rss(void)
{
    unsigned long total = 0, resident = 0;
    FILE *stream = fopen("/proc/self/statm", "re");
    if (!stream)
        return 0;
    if (fscanf(stream, "%lu %lu", &total, &resident) != 2)
        resident = 0;
    fclose(stream);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

static inline subhost_host *unit_open(void)
{
    subhost_options options = SUBHOST_OPTIONS_INIT;
    subhost_host *host = NULL;
    subhost_error *err = NULL;
    int code = subhost_open(&options, &host, &err);
    if (code)
        print_error("subhost_open: %s\n", subhost_error_message(err));
    assert_int_equal(code, 0);
    return host;
}

static inline void unit_close(subhost_host *host)
{
    subhost_error *err = NULL;
    int code = subhost_close(host, SUBHOST_CLOSE_FINALIZE, unit_patience(5), &err);
    if (code)
        print_error("subhost_close: %s\n", subhost_error_message(err));
    assert_int_equal(code, 0);
    assert_null(err);
}

/* Closes what a failed test left open, so that the next one can open its own. */
static inline int unit_close_left(void **state)
{
    (void)state;
    if (subhost__host())
        subhost_close(subhost__host(), SUBHOST_CLOSE_FINALIZE, SUBHOST_MSEC(2000), NULL);
    return 0;
}

#define UNIT_TEST(test) cmocka_unit_test_teardown(test, unit_close_left)

/* UNIT_FILTER: run the tests whose names match this pattern (* and ?) only. */
#define UNIT_MAIN(tests)                                                                 \
    (cmocka_set_test_filter(getenv("UNIT_FILTER")),                                      \
     cmocka_run_group_tests(tests, NULL, NULL))

static inline subhost_interp *unit_interp(subhost_host *host)
{
    subhost_interp *interp = NULL;
    assert_int_equal(subhost_interp_create(host, NULL, &interp, NULL), 0);
    return interp;
}

/* Tracebacks that a test provokes are not to be seen. */
#define UNIT_QUIET "import sys; sys.excepthook = lambda *a: None\n"

/* Not for the main thread only: hence no assertion. */
static inline int unit_try_submit(subhost_interp *interp, const char *code,
                                  const subhost_task_options *options,
                                  subhost_task **task, subhost_error **err)
{
    subhost_program program = SUBHOST_PROGRAM_INIT;
    program.kind = SUBHOST_PROGRAM_CODE;
    program.source = code;
    return subhost_submit(interp, &program, options, task, err);
}

static inline subhost_task *unit_submit(subhost_interp *interp, const char *code,
                                        const subhost_task_options *options)
{
    subhost_task *task = NULL;
    assert_int_equal(unit_try_submit(interp, code, options, &task, NULL), 0);
    return task;
}

static inline subhost_outcome unit_wait(subhost_task *task)
{
    subhost_outcome outcome = {.size = sizeof outcome};
    subhost_error *err = NULL;
    int code = subhost_task_wait(task, unit_patience(20), &outcome, &err);
    if (code)
        print_error("subhost_task_wait: %s\n", subhost_error_message(err));
    assert_int_equal(code, 0);
    return outcome;
}

static inline void unit_expect(const subhost_outcome *outcome,
                               enum subhost_outcome_kind kind)
{
    if (outcome->kind != kind)
        print_error("%s: %s\n", subhost_outcome_name(outcome->kind), outcome->detail);
    assert_string_equal(subhost_outcome_name(outcome->kind), subhost_outcome_name(kind));
}

/* Submits, waits, compares the kind of the outcome. */
static inline void unit_run(subhost_interp *interp, const char *code,
                            enum subhost_outcome_kind kind)
{
    subhost_task *task = unit_submit(interp, code, NULL);
    subhost_outcome outcome = unit_wait(task);
    unit_expect(&outcome, kind);
    subhost_task_release(task);
}

/* Standard error goes nowhere: for a test that provokes tracebacks where it cannot set a
 * hook. What sanitizers and valgrind have to say is never withheld. */
static inline int unit_mute(void)
{
    int null = unit_memory_counts() ? open("/dev/null", O_WRONLY | O_CLOEXEC) : -1;
    if (null < 0)
        return -1;
    int saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    dup2(null, STDERR_FILENO);
    close(null);
    return saved;
}

static inline void unit_unmute(int saved)
{
    if (saved < 0)
        return;
    dup2(saved, STDERR_FILENO);
    close(saved);
}

/* on_end events: how many, and whether they came as promised. */
struct unit_events {
    int count; /* written on the main thread alone, as the callback is */
    int wrong; /* on another thread, or without an outcome */
};

static inline void unit_on_end(subhost_task *task, void *data)
{
    struct unit_events *events = data;
    subhost_outcome outcome = {.size = sizeof outcome};
    events->count++;
    if (!pthread_equal(pthread_self(), subhost__host()->main_thread) ||
        subhost_task_wait(task, 0, &outcome, NULL) != 0)
        events->wrong++;
}

static inline subhost_task_options unit_options(struct unit_events *events)
{
    subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
    options.on_end = unit_on_end;
    options.on_end_data = events;
    return options;
}

/* Dispatches until as many events have come, then a little longer: none may follow. */
static inline void unit_expect_events(subhost_host *host, struct unit_events *events,
                                      int count)
{
    int64_t deadline = subhost__deadline(unit_patience(20));
    while (events->count < count && subhost__now() < deadline)
        assert_true(subhost_dispatch(host, SUBHOST_MSEC(100), NULL) >= 0);
    for (int i = 0; i < 3; i++)
        assert_true(subhost_dispatch(host, SUBHOST_MSEC(1), NULL) >= 0);
    assert_int_equal(events->count, count);
    assert_int_equal(events->wrong, 0);
}

/* Waits for `*flag` while it dispatches. */
static inline bool unit_reaches(subhost_host *host, atomic_int *flag, int value)
{
    int64_t deadline = subhost__deadline(unit_patience(20));
    while (atomic_load(flag) < value && subhost__now() < deadline)
        assert_true(subhost_dispatch(host, SUBHOST_MSEC(10), NULL) >= 0);
    return atomic_load(flag) >= value;
}

/* A message that counts itself. */
static inline void unit_count_message(void *data)
{
    atomic_fetch_add((atomic_int *)data, 1);
}

/* Sends a message that counts itself, and waits until it has run: the program is at work. */
static inline void unit_ping(subhost_host *host, subhost_interp *interp)
{
    atomic_int count = 0;
    assert_int_equal(subhost_interp_send(interp, unit_count_message, &count, NULL), 0);
    assert_true(unit_reaches(host, &count, 1));
}

/* Waits until a task has left the queue. */
static inline void unit_until_running(subhost_host *host, subhost_task *task)
{
    int64_t deadline = subhost__deadline(unit_patience(20));
    for (bool running = false; !running && subhost__now() < deadline;) {
        pthread_mutex_lock(&task->interp->lock);
        running = task->interp->current == task;
        pthread_mutex_unlock(&task->interp->lock);
        assert_true(subhost_dispatch(host, SUBHOST_MSEC(1), NULL) >= 0);
    }
    unit_ping(host, task->interp);
}

/* The directory of what tests/CMakeLists.txt builds; this program is in its unit/. */
static inline void unit_build_directory(char *buffer, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", buffer, size - 1);
    buffer[n > 0 ? n : 0] = '\0';
    for (int i = 0; i < 2 && strrchr(buffer, '/'); i++)
        *strrchr(buffer, '/') = '\0';
}

#endif
