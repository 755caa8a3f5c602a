/* SPDX-License-Identifier: MIT
 *
 * What belongs to the embedder: its dispositions and its masks. */
#include "unit.h"

#include <signal.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(blocked_signals_do_not_keep_from_interrupting),
    };
    return UNIT_MAIN(tests);
}
