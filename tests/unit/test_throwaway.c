/* SPDX-License-Identifier: MIT
 *
 * Throwaway children: whatever they do is a result, and nothing of them stays. */
#include "unit.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "audit/throwaway.h"

/* valgrind does not know pidfd_open(2) (3.19). */
#define NEEDS_PIDFD()                                                                    \
    if (unit_on_valgrind())                                                              \
    skip()
#define LIMIT unit_patience(20)
#define SHORT SUBHOST_MSEC(300)

static void says(void *data, int fd)
{
    const char *text = data;
    if (write(fd, text, strlen(text)) < 0)
        _exit(9);
    puts("on stdout");
    fputs("on stderr\n", stderr);
    fflush(stdout);
}

static void exits(void *data, int fd)
{
    (void)fd;
    _exit(*(int *)data);
}

static void crashes(void *data, int fd)
{
    (void)data;
    if (write(fd, "before", 6) != 6)
        _exit(9);
    prctl(PR_SET_DUMPABLE, 0); /* no core file */
    signal(SIGSEGV, SIG_DFL);  /* a sanitizer's handler would exit instead */
    raise(SIGSEGV);
}

static void hangs(void *data, int fd)
{
    (void)data, (void)fd;
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    for (;;)
        pause();
}

/* Ends, but leaves a process that holds its pipes. */
static void leaves(void *data, int fd)
{
    (void)data;
    pid_t pid = fork();
    if (pid == 0)
        hangs(NULL, fd);
    if (write(fd, &pid, sizeof pid) != sizeof pid)
        _exit(9);
}

static void floods(void *data, int fd)
{
    (void)data, (void)fd;
    char block[8192];
    memset(block, 'x', sizeof block);
    for (int i = 0; i < 512; i++)
        if (write(1, block, sizeof block) < 0)
            _exit(9);
    if (write(1, "the end", 7) != 7)
        _exit(9);
}

static struct throwaway child_of(void (*run)(void *, int), void *data, int64_t limit)
{
    return (struct throwaway){.name = "test", .run = run, .data = data, .limit = limit};
}

static void run_one(struct throwaway *child)
{
    subhost_error *err = NULL;
    int code = subhost__throwaway_run(child, 1, 1, NULL, NULL, &err);
    assert_string_equal(subhost_error_message(err), "no error");
    assert_int_equal(code, 0);
}

static void assert_described(const struct throwaway *child, const char *text)
{
    char words[64];
    subhost__throwaway_describe(child, words, sizeof words);
    assert_string_equal(words, text);
}

static void what_it_says_is_kept(void **state)
{
    (void)state;
    NEEDS_PIDFD();
    char text[] = "seen";
    struct throwaway child = child_of(says, text, LIMIT);
    run_one(&child);
    assert_described(&child, "exit status 0");
    assert_string_equal(child.report, "seen");
    assert_int_equal(child.report_size, 4);
    assert_non_null(strstr(child.output, "on stdout"));
    assert_non_null(strstr(child.output, "on stderr"));
    subhost__throwaway_free(&child);
}

static void a_status_a_signal_and_a_hang_are_results(void **state)
{
    (void)state;
    NEEDS_PIDFD();
    int status = 7;
    struct throwaway children[] = {child_of(exits, &status, LIMIT),
                                   child_of(crashes, NULL, LIMIT),
                                   child_of(hangs, NULL, SHORT)};
    int64_t since = subhost__now();
    subhost_error *err = NULL;
    assert_int_equal(subhost__throwaway_run(children, 3, 2, NULL, NULL, &err), 0);
    assert_true(subhost__now() - since < LIMIT);
    assert_described(&children[0], "exit status 7");
    assert_described(&children[1], "SIGSEGV");
    assert_string_equal(children[1].report, "before");
    assert_true(children[2].hung);
    assert_described(&children[2], "no end within 0.3 s");
    for (size_t i = 0; i < ARRAY_LENGTH(children); i++) {
        assert_int_equal(kill(children[i].pid, 0), -1); /* reaped */
        assert_int_equal(errno, ESRCH);
        subhost__throwaway_free(&children[i]);
    }
}

static void an_ignored_sigchld_hides_nothing(void **state)
{
    (void)state;
    NEEDS_PIDFD();
    struct sigaction ignored = {.sa_handler = SIG_IGN}, before, after;
    sigaction(SIGCHLD, &ignored, &before);
    int status = 7;
    struct throwaway child = child_of(exits, &status, LIMIT);
    run_one(&child);
    sigaction(SIGCHLD, &before, &after);
    assert_described(&child, "exit status 7");
    assert_ptr_equal(after.sa_handler, SIG_IGN);
    subhost__throwaway_free(&child);
}

static void what_it_leaves_behind_is_killed(void **state)
{
    (void)state;
    NEEDS_PIDFD();
    struct throwaway child = child_of(leaves, NULL, LIMIT);
    int64_t since = subhost__now();
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* so that this process can see the end */
    run_one(&child);
    assert_true(subhost__now() - since < LIMIT); /* the open pipe was not waited for */
    assert_described(&child, "exit status 0");
    assert_int_equal(child.report_size, sizeof(pid_t));
    pid_t left;
    memcpy(&left, child.report, sizeof left);
    int status = 0;
    assert_int_equal(waitpid(left, &status, 0), left);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    subhost__throwaway_free(&child);
}

static void of_much_output_the_end_is_kept(void **state)
{
    (void)state;
    NEEDS_PIDFD();
    struct throwaway child = child_of(floods, NULL, LIMIT);
    run_one(&child);
    assert_described(&child, "exit status 0");
    assert_true(child.output_size >= 64 * 1024 && child.output_size <= 128 * 1024);
    assert_string_equal(child.output + child.output_size - 7, "the end");
    subhost__throwaway_free(&child);
}

static void count_end(struct throwaway *child, void *data)
{
    (void)child;
    ++*(unsigned *)data;
}

static void all_of_many_run(void **state)
{
    (void)state;
    NEEDS_PIDFD();
    enum { MANY = 40 };
    static struct throwaway children[MANY];
    int status = 3;
    unsigned ended = 0;
    for (int i = 0; i < MANY; i++)
        children[i] = child_of(exits, &status, LIMIT);
    subhost_error *err = NULL;
    assert_int_equal(subhost__throwaway_run(children, MANY, 8, count_end, &ended, &err),
                     0);
    assert_int_equal(ended, MANY);
    for (int i = 0; i < MANY; i++) {
        assert_described(&children[i], "exit status 3");
        subhost__throwaway_free(&children[i]);
    }
}

static volatile sig_atomic_t interrupts;

static void on_interrupt(int signo)
{
    (void)signo;
    interrupts++;
}

static void sends(void *data, int fd)
{
    (void)data, (void)fd;
    kill(getppid(), SIGINT);
    hangs(NULL, fd);
}

static void a_signal_ends_them_and_is_delivered(void **state)
{
    (void)state;
    NEEDS_PIDFD();
    struct sigaction action = {.sa_handler = on_interrupt}, before;
    sigaction(SIGINT, &action, &before);
    struct throwaway children[] = {child_of(hangs, NULL, LIMIT),
                                   child_of(sends, NULL, LIMIT)};
    subhost_error *err = NULL;
    int code = subhost__throwaway_run(children, 2, 2, NULL, NULL, &err);
    sigaction(SIGINT, &before, NULL);
    assert_int_equal(code, SUBHOST_ESTATE);
    assert_string_equal(subhost_error_message(err), "the audit was ended by a signal");
    assert_int_equal(interrupts, 1);
    for (size_t i = 0; i < ARRAY_LENGTH(children); i++) {
        assert_int_equal(kill(children[i].pid, 0), -1);
        subhost__throwaway_free(&children[i]);
    }
    subhost_error_free(err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_it_says_is_kept),
        cmocka_unit_test(a_status_a_signal_and_a_hang_are_results),
        cmocka_unit_test(an_ignored_sigchld_hides_nothing),
        cmocka_unit_test(what_it_leaves_behind_is_killed),
        cmocka_unit_test(of_much_output_the_end_is_kept),
        cmocka_unit_test(all_of_many_run),
        cmocka_unit_test(a_signal_ends_them_and_is_delivered),
    };
    return UNIT_MAIN(tests);
}
