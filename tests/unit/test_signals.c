/* SPDX-License-Identifier: MIT
 *
 * What belongs to the embedder: its dispositions and its masks. */
#include "unit.h"

#include <signal.h>
#include <sys/time.h>

static volatile sig_atomic_t heard;

static void hear(int signo)
{
    (void)signo;
    heard++;
}

static struct sigaction disposition(int signo)
{
    struct sigaction action;
    assert_int_equal(sigaction(signo, NULL, &action), 0);
    return action;
}

static void set(int signo, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler};
    assert_int_equal(sigaction(signo, &action, NULL), 0);
}

static void expect(int signo, void (*handler)(int))
{
    assert_ptr_equal((void *)(uintptr_t)disposition(signo).sa_handler,
                     (void *)(uintptr_t)handler);
}

static subhost_interp *make(subhost_host *host, bool process)
{
    subhost_interp_options options = SUBHOST_INTERP_OPTIONS_INIT;
    options.isolation =
        process ? SUBHOST_ISOLATION_PROCESS : SUBHOST_ISOLATION_INTERPRETER;
    subhost_interp *interp;
    assert_int_equal(subhost_interp_create(host, &options, &interp, NULL), 0);
    return interp;
}

/* In an interpreter of its own, which is gone afterwards. */
static void run_in(subhost_host *host, bool process, const char *code)
{
    subhost_interp *interp = make(host, process);
    unit_run(interp, code, SUBHOST_RETURNED);
    subhost_interp_release(interp);
}

static int isolations(void) { return unit_can_fork() ? 2 : 1; }

/* ---- masks ---------------------------------------------------------------------- */

static void expect_interrupted(subhost_host *host, bool process, const char *code)
{
    subhost_interp *interp = make(host, process);
    subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
    options.timeout = unit_patience(1) / 5;
    options.grace = unit_patience(10);
    subhost_task *task = unit_submit(interp, code, &options);
    subhost_outcome outcome = unit_wait(task);
    unit_expect(&outcome, SUBHOST_TIMED_OUT);
    subhost_task_release(task);
    subhost_interp_release(interp);
}

static void blocked_signals_do_not_keep_from_interrupting(void **state)
{
    (void)state;
    static const char *const codes[] = {
        UNIT_QUIET "import time; time.sleep(3600)",
        UNIT_QUIET "import os; os.read(os.pipe()[0], 1)",
        UNIT_QUIET "import threading, time\n"
                   "t = threading.Thread(target=time.sleep, args=(3600,))\n"
                   "threading.excepthook = lambda *a: None\n"
                   "t.start(); t.join()",
    };
    sigset_t all, before, now;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    subhost_host *host = unit_open();
    for (int process = 0; process < isolations(); process++) {
        for (size_t i = 0; i < ARRAY_LENGTH(codes); i++)
            expect_interrupted(host, process, codes[i]);
    }
    if (unit_can_fork())
        run_in(host, true,
               "import signal\n"
               "assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])");
    unit_close(host);
    pthread_sigmask(SIG_SETMASK, &before, &now);
    assert_true(sigismember(&now, SUBHOST_KICK_SIGNAL) && sigismember(&now, SIGTERM));
}

/* ---- dispositions --------------------------------------------------------------- */

static void a_program_gives_back_what_it_takes(void **state)
{
    (void)state;
    static const char *const codes[] = {
        "import signal; signal.signal(signal.SIGHUP, lambda *a: None)",
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)",
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)",
    };
    struct sigaction action = {.sa_handler = hear, .sa_flags = SA_NODEFER};
    sigaddset(&action.sa_mask, SIGWINCH);
    assert_int_equal(sigaction(SIGHUP, &action, NULL), 0);
    subhost_host *host = unit_open();
    for (int process = 0; process < isolations(); process++) {
        for (size_t i = 0; i < ARRAY_LENGTH(codes); i++) {
            subhost_interp *interp = make(host, process);
            unit_run(interp, codes[i], SUBHOST_RETURNED);
            sig_atomic_t before = heard;
            raise(SIGHUP);
            assert_int_equal(heard, before + 1);
            struct sigaction now = disposition(SIGHUP);
            assert_true((now.sa_flags & SA_NODEFER) &&
                        sigismember(&now.sa_mask, SIGWINCH));
            subhost_interp_release(interp);
        }
    }
    unit_close(host);
    expect(SIGHUP, hear);
    set(SIGHUP, SIG_DFL);
}

/* Nobody has cleaned up behind it. */
static void a_killed_program_gives_back_what_it_took(void **state)
{
    (void)state;
    if (!unit_can_fork())
        skip();
    set(SIGHUP, hear);
    subhost_host *host = unit_open();
    subhost_interp *interp = make(host, true);
    unit_run(interp,
             "import os, signal, time\n"
             "signal.signal(signal.SIGHUP, lambda *a: None)\n"
             "time.sleep(0.1)\n"
             "os.kill(os.getpid(), signal.SIGKILL)",
             SUBHOST_KILLED);
    subhost_interp_release(interp);
    int64_t deadline = subhost__deadline(unit_patience(10));
    while (disposition(SIGHUP).sa_handler != hear && subhost__now() < deadline)
        assert_true(subhost_dispatch(host, SUBHOST_MSEC(10), NULL) >= 0);
    expect(SIGHUP, hear);
    unit_close(host);
    set(SIGHUP, SIG_DFL);
}

/* A timer of a program in a process is that process's. */
static void the_embedders_timer_goes_on(void **state)
{
    (void)state;
    if (!unit_can_fork())
        skip();
    struct itimerval timer = {.it_value.tv_sec = 3600};
    subhost_host *host = unit_open();
    assert_int_equal(setitimer(ITIMER_VIRTUAL, &timer, NULL), 0);
    subhost_interp *interp = make(host, true);
    unit_run(interp,
             "import os, signal, time\n"
             "signal.signal(signal.SIGVTALRM, lambda *a: None)\n"
             "time.sleep(0.1)\n"
             "os.kill(os.getpid(), signal.SIGKILL)",
             SUBHOST_KILLED);
    subhost_interp_release(interp);
    unit_close(host);
    assert_int_equal(getitimer(ITIMER_VIRTUAL, &timer), 0);
    assert_true(timer.it_value.tv_sec > 0);
    timer = (struct itimerval){0};
    setitimer(ITIMER_VIRTUAL, &timer, NULL);
}

static void what_the_host_ignores_stays_so(void **state)
{
    (void)state;
    subhost_options options = SUBHOST_OPTIONS_INIT;
    options.take_signals = 1;
    subhost_host *host;
    assert_int_equal(subhost_open(&options, &host, NULL), 0);
    run_in(host, false, "import signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL)");
    expect(SIGPIPE, SIG_IGN);
    unit_close(host);
    expect(SIGPIPE, SIG_DFL);
}

/* As by system(3) on another thread. */
static void what_the_host_has_not_changed_is_not_put_back(void **state)
{
    (void)state;
    for (int process = 0; process < isolations(); process++) {
        subhost_host *host = unit_open();
        set(SIGINT, SIG_IGN);
        run_in(host, process,
               "import signal\n"
               "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler");
        expect(SIGINT, SIG_IGN);
        set(SIGINT, SIG_DFL);
        unit_close(host);
        expect(SIGINT, SIG_DFL);
    }
}

static void what_the_embedder_sets_later_stays(void **state)
{
    (void)state;
    static const int signals[] = {SIGINT, SIGHUP, SIGUSR1, SIGCHLD};
    for (int take = 0; take < 2; take++) {
        for (int process = 0; process < isolations(); process++) {
            subhost_options options = SUBHOST_OPTIONS_INIT;
            options.take_signals = take;
            subhost_host *host;
            assert_int_equal(subhost_open(&options, &host, NULL), 0);
            run_in(host, process, "import signal");
            for (size_t i = 0; i < ARRAY_LENGTH(signals); i++)
                set(signals[i], hear);
            run_in(host, process,
                   "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)");
            unit_close(host);
            for (size_t i = 0; i < ARRAY_LENGTH(signals); i++) {
                expect(signals[i], hear);
                set(signals[i], SIG_DFL);
            }
        }
    }
}

static void handlers_are_not_the_childs(void **state)
{
    (void)state;
    if (!unit_can_fork() || UNIT_SANITIZED)
        skip(); /* a sanitizer has handlers of its own */
    static const int signals[] = {SIGHUP, SIGCHLD, SIGUSR2, SIGALRM};
    for (size_t i = 0; i < ARRAY_LENGTH(signals); i++)
        set(signals[i], hear);
    struct sigaction fault = disposition(SIGSEGV);
    set(SIGSEGV, hear);
    set(SIGWINCH, SIG_IGN);
    subhost_host *host = unit_open();
    run_in(
        host, true,
        "import re, signal\n"
        "status = open('/proc/self/status').read()\n"
        "def has(what, number):\n"
        "    mask = int(re.search(what + ':\\\\s*(\\\\w+)', status)[1], 16)\n"
        "    return mask >> number - 1 & 1\n"
        "for number in signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2, signal.SIGALRM:\n"
        "    assert not has('SigCgt', number), number\n"
        "    assert signal.getsignal(number) == signal.SIG_DFL, number\n"
        "assert has('SigCgt', signal.SIGSEGV)\n"
        "assert has('SigIgn', signal.SIGWINCH)");
    unit_close(host);
    for (size_t i = 0; i < ARRAY_LENGTH(signals); i++) {
        expect(signals[i], hear);
        set(signals[i], SIG_DFL);
    }
    set(SIGWINCH, SIG_DFL);
    sigaction(SIGSEGV, &fault, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(blocked_signals_do_not_keep_from_interrupting),
        UNIT_TEST(a_program_gives_back_what_it_takes),
        UNIT_TEST(a_killed_program_gives_back_what_it_took),
        UNIT_TEST(the_embedders_timer_goes_on),
        UNIT_TEST(what_the_host_ignores_stays_so),
        UNIT_TEST(what_the_host_has_not_changed_is_not_put_back),
        UNIT_TEST(what_the_embedder_sets_later_stays),
        UNIT_TEST(handlers_are_not_the_childs),
    };
    return UNIT_MAIN(tests);
}
