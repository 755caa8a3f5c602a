/* SPDX-License-Identifier: MIT
 *
 * timeout: 120
 * Interpreters in forked children, by the public API. */
#define _GNU_SOURCE
#include "unit.h"
#include "unit_pool.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static subhost_host *open_with(const char *const *preload, int no_siblings)
{
    subhost_options options = SUBHOST_OPTIONS_INIT;
    options.preload = preload;
    options.no_sibling_detach = no_siblings;
    subhost_host *host;
    assert_int_equal(subhost_open(&options, &host, NULL), 0);
    return host;
}

static subhost_interp *new_process(subhost_host *host)
{
    subhost_interp_options options = SUBHOST_INTERP_OPTIONS_INIT;
    options.isolation = SUBHOST_ISOLATION_PROCESS;
    subhost_interp *interp;
    assert_int_equal(subhost_interp_create(host, &options, &interp, NULL), 0);
    return interp;
}

static void no_child_is_left(void)
{
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static int count_descriptors(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

/* No message says it, for there are none to another process: for as long as it should take. */
static void until_it_runs(subhost_host *host)
{
    int64_t deadline = subhost__now() + unit_patience(1) / 4;
    while (subhost__now() < deadline)
        assert_true(subhost_dispatch(host, SUBHOST_MSEC(20), NULL) >= 0);
}

static subhost_outcome run(subhost_interp *interp, const char *code, subhost_task **task)
{
    *task = unit_submit(interp, code, NULL);
    return unit_wait(*task);
}

static void dispositions_stay(void **state)
{
    (void)state;
    struct sigaction before[NSIG], now;
    for (int signo = 1; signo < NSIG; signo++)
        sigaction(signo, NULL, &before[signo]);
    subhost_host *host = open_with(NULL, 0); /* take_signals is 0 */
    subhost_interp *interp = new_process(host);
    subhost_task *task;
    assert_int_equal(run(interp, "pass", &task).kind, SUBHOST_RETURNED);
    for (int signo = 1; signo < NSIG; signo++) {
        if (signo != SIGURG && sigaction(signo, NULL, &now) == 0)
            assert_ptr_equal(now.sa_handler, before[signo].sa_handler);
    }
    subhost_task_release(task);
    subhost_interp_release(interp);
    unit_close(host);
}

static void outcomes(void **state)
{
    (void)state;
    static const struct {
        const char *code;
        enum subhost_outcome_kind kind;
        int number, status;
    } cases[] = {
        {"pass", SUBHOST_RETURNED, 0, 0},
        {UNIT_QUIET "1 / 0", SUBHOST_RAISED, 1, 1},
        {"raise SystemExit(7)", SUBHOST_EXITED, 7, 7},
        {"import os; os._exit(9)", SUBHOST_EXITED, 9, 9},
        {"import os; os.kill(os.getpid(), 9)", SUBHOST_KILLED, SIGKILL, 137},
    };
    subhost_host *host = open_with(NULL, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        subhost_interp *interp = new_process(host);
        subhost_task *task;
        subhost_outcome outcome = run(interp, cases[i].code, &task);
        assert_int_equal(outcome.kind, cases[i].kind);
        assert_int_equal(outcome.code, cases[i].number);
        assert_int_equal(outcome.status, cases[i].status);
        subhost_task_release(task);
        subhost_interp_release(interp);
    }
    unit_close(host);
    no_child_is_left();
}

static void several_tasks_in_one(void **state)
{
    (void)state;
    subhost_host *host = open_with(NULL, 0);
    subhost_interp *interp = new_process(host);
    for (int i = 0; i < 5; i++) {
        subhost_task *task;
        subhost_outcome outcome =
            run(interp,
                "import sys; n = sys.modules.setdefault('n', [0]); n[0] += 1\n"
                "raise SystemExit(n[0])",
                &task);
        assert_int_equal(outcome.code, i + 1);
        subhost_task_release(task);
    }
    subhost_interp_release(interp);
    unit_close(host);
    no_child_is_left();
}

static void preloaded_modules(void **state)
{
    (void)state;
    static const char *const names[] = {"json", "random", NULL};
    subhost_host *host = open_with(names, 0);
    subhost_interp *interp = new_process(host);
    subhost_task *task;
    subhost_outcome outcome =
        run(interp, "import sys; raise SystemExit('json' in sys.modules and 3)", &task);
    assert_int_equal(outcome.code, 3);
    subhost_task_release(task);
    subhost_interp_release(interp);
    unit_close(host);

    static const char *const missing[] = {"there_is_no_such_module", NULL};
    host = open_with(missing, 0);
    interp = new_process(host);
    outcome = run(interp, "pass", &task);
    assert_int_equal(outcome.kind, SUBHOST_FAILED);
    assert_non_null(strstr(outcome.detail, "there_is_no_such_module"));
    subhost_task_release(task);
    subhost_interp_release(interp);
    unit_close(host);
}

/* Closes while what is preloaded is being imported; whether that had begun, in "begun". */
static void close_beside_import(const char *text)
{
    char folder[] = "/tmp/test_process.XXXXXX", begun[80], module[400];
    static const char *const names[] = {"preload_slowly", NULL};
    snprintf(
        module, sizeof module,
        "import os, time\nopen(os.path.dirname(__file__) + '/begun', 'w').close()\n%s",
        text);
    assert_int_equal(unit_make_module(folder, names[0], module), 0);
    snprintf(begun, sizeof begun, "%s/begun", folder);
    setenv("PYTHONPATH", folder, 1);
    subhost_host *host = open_with(names, 0);
    unsetenv("PYTHONPATH");
    subhost_interp *interp = new_process(host);
    subhost_task *task = unit_submit(interp, "pass", NULL);
    int64_t end = subhost__now() + unit_patience(10);
    while (access(begun, F_OK) != 0 && subhost__now() < end)
        subhost_dispatch(host, SUBHOST_MSEC(5), NULL);
    assert_int_equal(access(begun, F_OK), 0);

    int64_t start = subhost__now();
    subhost_error *err = NULL;
    if (subhost_close(host, SUBHOST_CLOSE_FINALIZE, unit_patience(1), &err) != 0)
        fail_msg("%s", subhost_error_message(err));
    assert_true(subhost__now() - start < unit_patience(1));
    subhost_task_release(task);
    subhost_interp_release(interp);
    assert_int_equal(unit_remove_folder(folder), 0);
}

static void closed_while_it_preloads(void **state)
{
    (void)state;
    close_beside_import("while True: pass\n");
    close_beside_import("while True: time.sleep(60)\n");
    close_beside_import("import threading; threading.Event().wait()\n");
    preloaded_modules(state); /* and hosts after it work */
}

static void refused_with_siblings(void **state)
{
    (void)state;
    subhost_host *host = open_with(NULL, 1);
    subhost_interp *process = new_process(host);
    subhost_task *task;
    subhost_outcome outcome = run(process, "pass", &task);
    unit_expect(&outcome, SUBHOST_RETURNED); /* nobody else is there */
    subhost_task_release(task);
    subhost_interp_release(process);

    subhost_interp *sibling = unit_interp(host);
    unit_run(sibling, "pass", SUBHOST_RETURNED);
    process = new_process(host);
    outcome = run(process, "pass", &task);
    unit_expect(&outcome, SUBHOST_FAILED);
    assert_non_null(strstr(outcome.detail, "other interpreters are alive"));
    subhost_task_release(task);
    subhost_interp_release(process);
    subhost_interp_release(sibling);
    unit_close(host);
    no_child_is_left();
}

static void cancelled_and_killed(void **state)
{
    (void)state;
    subhost_host *host = open_with(NULL, 0);
    static const struct {
        const char *code;
        enum subhost_outcome_kind kind;
    } cases[] = {
        {UNIT_QUIET "import time; time.sleep(3600)", SUBHOST_CANCELLED},
        {UNIT_QUIET "while True:\n try:\n  while True: pass\n except BaseException: pass",
         SUBHOST_KILLED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        subhost_interp *interp = new_process(host);
        subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
        options.grace = SUBHOST_MSEC(300);
        subhost_task *task = unit_submit(interp, cases[i].code, &options);
        until_it_runs(host);
        subhost_task_cancel(task, SUBHOST_BY_REQUEST, NULL);
        subhost_outcome outcome = unit_wait(task);
        unit_expect(&outcome, cases[i].kind);
        assert_int_equal(outcome.cancel_reason, SUBHOST_BY_REQUEST);
        subhost_task_release(task);
        subhost_interp_release(interp);
    }
    unit_close(host);
    no_child_is_left();
}

static void closing_ends_them(void **state)
{
    (void)state;
    int before = count_descriptors();
    for (int round = 0; round < 3; round++) {
        subhost_host *host = open_with(NULL, 0);
        subhost_task *tasks[3];
        for (int i = 0; i < 3; i++) {
            subhost_interp *interp = new_process(host);
            tasks[i] =
                unit_submit(interp, UNIT_QUIET "import time; time.sleep(3600)", NULL);
            subhost_interp_release(interp);
        }
        if (round > 0)
            until_it_runs(host);
        assert_int_equal(
            subhost_close(host, SUBHOST_CLOSE_FINALIZE, SUBHOST_MSEC(5000), NULL), 0);
        for (int i = 0; i < 3; i++)
            subhost_task_release(tasks[i]);
        no_child_is_left();
    }
    assert_int_equal(count_descriptors(), before);
}

/* The kernel has no room for what is sent, for a while: nothing of it is lost. */
static atomic_int no_room;

ssize_t __real_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags)
{
    static const int errors[] = {ENOBUFS, ENOMEM, ETOOMANYREFS};
    int left = atomic_load(&no_room);
    if (left == 0)
        return __real_sendmsg(fd, message, flags);
    atomic_store(&no_room, left - 1);
    errno = errors[left % 3];
    return -1;
}

static void no_room_in_the_kernel(void **state)
{
    (void)state;
    subhost_host *host = open_with(NULL, 0);
    subhost_interp *interp = new_process(host);
    for (int i = 0; i < 2; i++) {
        atomic_store(&no_room, 9); /* the second time the child is there already */
        subhost_task *task;
        subhost_outcome outcome = run(interp, "raise SystemExit(4)", &task);
        assert_int_equal(outcome.code, 4);
        assert_int_equal(atomic_load(&no_room), 0);
        subhost_task_release(task);
    }
    subhost_interp_release(interp);
    unit_close(host);
}

static atomic_bool waiting; /* atfork handlers stay */
static atomic_int waits, strangers;

static void wait_for_any(void)
{
    int saved_errno = errno;
    atomic_fetch_add(&waits, 1);
    while (waitpid(-1, NULL, WNOHANG) > 0)
        atomic_fetch_add(&strangers, 1);
    errno = saved_errno;
}

static void wait_around_fork(void)
{
    if (atomic_load(&waiting))
        wait_for_any();
}

static void wait_in_handler(int signo)
{
    (void)signo;
    wait_for_any();
}

/* A wait is async-signal-safe, and no lock is held while handlers of the program's run. */
static void waits_anywhere(void **state)
{
    (void)state;
    struct sigaction action = {.sa_handler = wait_in_handler, .sa_flags = SA_RESTART},
                     before;
    assert_int_equal(sigaction(SIGCHLD, &action, &before), 0);
    assert_int_equal(pthread_atfork(wait_around_fork, wait_around_fork, NULL), 0);
    atomic_store(&waiting, true);
    subhost_host *host = open_with(NULL, 0);
    for (int round = 0; round < unit_count(40, 5, 5); round++) {
        subhost_interp *interps[6];
        subhost_task *tasks[6];
        for (int i = 0; i < 6; i++) {
            interps[i] = new_process(host);
            tasks[i] = unit_submit(interps[i], "import os; os._exit(5)", NULL);
        }
        for (int i = 0; i < 6; i++) {
            subhost_outcome outcome = unit_wait(tasks[i]);
            assert_int_equal(outcome.kind, SUBHOST_EXITED);
            assert_int_equal(outcome.code, 5);
            subhost_task_release(tasks[i]);
            subhost_interp_release(interps[i]);
        }
    }
    atomic_store(&waiting, false);
    unit_close(host);
    assert_int_equal(sigaction(SIGCHLD, &before, NULL), 0);
    assert_true(atomic_load(&waits) > 0);
    assert_int_equal(atomic_load(&strangers), 0);
}

static void messages_are_refused(void **state)
{
    (void)state;
    subhost_host *host = open_with(NULL, 0);
    subhost_interp *interp = new_process(host);
    subhost_error *err = NULL;
    atomic_int seen = 0;
    assert_int_equal(subhost_interp_send(interp, unit_count_message, &seen, &err),
                     SUBHOST_ESTATE);
    assert_non_null(strstr(subhost_error_message(err), "another process"));
    subhost_error_free(err);
    subhost_interp_release(interp);
    unit_close(host);
}

/* Of the process as it is when the child is forked, and not as it was when the first one was. */
static void environment(void **state)
{
    (void)state;
    setenv("SUBHOST_TEST_OLD", "old", 1);
    unsetenv("SUBHOST_TEST_NEW");
    subhost_host *host = open_with(NULL, 0);
    subhost_interp *interps[2] = {new_process(host)};
    subhost_task *tasks[2];
    tasks[0] = unit_submit(interps[0], "import os; os.environ['SUBHOST_TEST_OLD']", NULL);
    assert_int_equal(unit_wait(tasks[0]).kind, SUBHOST_RETURNED);
    setenv("SUBHOST_TEST_NEW", "new", 1);
    unsetenv("SUBHOST_TEST_OLD");
    interps[1] = new_process(host);
    tasks[1] = unit_submit(interps[1],
                           "import os\n"
                           "assert os.environ['SUBHOST_TEST_NEW'] == 'new'\n"
                           "assert 'SUBHOST_TEST_OLD' not in os.environ\n",
                           NULL);
    assert_int_equal(unit_wait(tasks[1]).kind, SUBHOST_RETURNED);
    for (int i = 0; i < 2; i++) {
        subhost_task_release(tasks[i]);
        subhost_interp_release(interps[i]);
    }
    unsetenv("SUBHOST_TEST_NEW");
    unit_close(host);
}

/* 0: each of them was refused, at once. */
static int use_copies(subhost_host *host, subhost_interp *interp, subhost_pool *pool,
                      subhost_task *task)
{
    int wrong = 0;
    subhost_program program = SUBHOST_PROGRAM_INIT;
    program.source = "pass";
    subhost_task *other;
    subhost_interp *another;
    subhost_host *anew;
    subhost_call *call;
    wrong += subhost_dispatch(host, SUBHOST_MSEC(100), NULL) != SUBHOST_ESTATE;
    wrong += subhost_submit(interp, &program, NULL, &other, NULL) != SUBHOST_ESTATE;
    wrong += subhost_task_wait(task, SUBHOST_FOREVER, NULL, NULL) != SUBHOST_ESTATE;
    wrong += subhost_interp_create(host, NULL, &another, NULL) != SUBHOST_ESTATE;
    wrong += subhost_pool_take(pool, &call, 1, SUBHOST_FOREVER, NULL) != SUBHOST_ESTATE;
    subhost_pool_wake(pool);
    subhost_task_cancel(task, SUBHOST_BY_REQUEST, NULL);
    subhost_task_release(task);
    subhost_interp_release(interp);
    wrong += subhost_pool_close(pool, 0, NULL) != SUBHOST_ESTATE;
    wrong += subhost_close(host, SUBHOST_CLOSE_FINALIZE, 0, NULL) != SUBHOST_ESTATE;
    wrong += subhost_open(NULL, &anew, NULL) != SUBHOST_ESTATE;
    return wrong;
}

/* A program's own fork() has the handles as well, and the descriptors behind them. */
static void copies_are_refused(void **state)
{
    (void)state;
    subhost_host *host = open_with(NULL, 0);
    subhost_interp *interps[] = {unit_interp(host), new_process(host)};
    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    subhost_pool *pool;
    assert_int_equal(subhost_pool_open(host, &options, &pool, NULL), 0);
    for (int i = 0; i < 2; i++) {
        subhost_task *task =
            unit_submit(interps[i], "import time; time.sleep(0.5)", NULL);
        until_it_runs(host);
        pid_t pid = fork();
        if (pid == 0)
            _exit(use_copies(host, interps[i], pool, task));
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_int_equal(unit_wait(task).kind, SUBHOST_RETURNED);
        subhost_task_release(task);
        subhost_interp_release(interps[i]);
    }
    assert_int_equal(subhost_pool_close(pool, SUBHOST_MSEC(1000), NULL), 0);
    unit_close(host);
}

/* A root with a task in a process, and a child of its own fork() that lives on. Says both pids. */
static _Noreturn void root_with_a_helper(int out)
{
    unsigned limit = (unsigned)(unit_patience(30) / SUBHOST_MSEC(1000));
    alarm(limit); /* where the test fails, nobody ends these two */
    subhost_host *host = open_with(NULL, 0);
    subhost_interp *interp = new_process(host);
    dup2(out, STDOUT_FILENO);
    unit_submit(interp,
                "import os, time; print(os.getpid(), flush=True); time.sleep(600)", NULL);
    until_it_runs(host);
    pid_t helper = fork();
    if (helper == 0) {
        alarm(limit);
        pause();
    }
    dprintf(out, "%d\n", (int)helper);
    for (;;)
        subhost_dispatch(host, SUBHOST_MSEC(100), NULL);
}

static void orphans_with_a_helper(void **state)
{
    (void)state;
    int out[2], pids[2];
    assert_int_equal(pipe(out), 0);
    pid_t root = fork();
    if (root == 0)
        root_with_a_helper(out[1]);
    close(out[1]);
    FILE *lines = fdopen(out[0], "r");
    assert_int_equal(fscanf(lines, "%d %d", &pids[0], &pids[1]), 2);
    int pidfd = (int)syscall(SYS_pidfd_open, pids[0], 0);
    assert_true(pidfd >= 0);
    kill(root, SIGKILL);
    waitpid(root, NULL, 0);
    struct pollfd orphan = {.fd = pidfd, .events = POLLIN};
    int gone = poll(&orphan, 1, (int)(unit_patience(10) / SUBHOST_MSEC(1)));
    kill(pids[1], SIGKILL);
    if (gone != 1)
        kill(pids[0], SIGKILL);
    assert_int_equal(gone, 1);
    close(pidfd);
    fclose(lines);
}

int main(void)
{
    const struct CMUnitTest everywhere[] = {
        UNIT_TEST(messages_are_refused),
    };
    const struct CMUnitTest forking[] = {
        UNIT_TEST(messages_are_refused),
        UNIT_TEST(dispositions_stay),
        UNIT_TEST(outcomes),
        UNIT_TEST(several_tasks_in_one),
        UNIT_TEST(preloaded_modules),
        UNIT_TEST(closed_while_it_preloads),
        UNIT_TEST(refused_with_siblings),
        UNIT_TEST(cancelled_and_killed),
        UNIT_TEST(closing_ends_them),
        UNIT_TEST(no_room_in_the_kernel),
        UNIT_TEST(environment),
        UNIT_TEST(copies_are_refused),
        UNIT_TEST(orphans_with_a_helper),
        UNIT_TEST(waits_anywhere),
    };
    return unit_can_fork() ? UNIT_MAIN(forking) : UNIT_MAIN(everywhere);
}
