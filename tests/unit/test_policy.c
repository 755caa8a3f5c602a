/* SPDX-License-Identifier: MIT
 *
 * Policies by the C interface: values, narrowing, hosts, interpreters, tasks. What Python code
 * sees of them is in tests/policy. */
#include "unit.h"

#include "policies/policy.h"

static subhost_policy *policy_with(const char *name, const char *const *assignments)
{
    subhost_policy *policy = NULL;
    subhost_error *err = NULL;
    int code = subhost_policy_load(name, &policy, &err);
    for (; !code && *assignments; assignments++)
        code = subhost_policy_set(policy, *assignments, NULL, &err);
    if (code)
        print_error("%s\n", subhost_error_message(err));
    assert_int_equal(code, 0);
    return policy;
}

#define WITH(...) policy_with(NULL, (const char *const[]){__VA_ARGS__, NULL})

static subhost_host *open_with(subhost_policy *policy)
{
    subhost_options options = SUBHOST_OPTIONS_INIT;
    subhost_host *host = NULL;
    options.policy = policy;
    assert_int_equal(subhost_open(&options, &host, NULL), 0);
    subhost_policy_free(policy); /* the host has a copy */
    return host;
}

/* ---- values ----------------------------------------------------------------------- */

static void test_defaults(void **state)
{
    (void)state;
    subhost_policy_key key = {.size = sizeof key};
    size_t count = 0;
    for (; subhost_policy_key_at(count, &key) == 0; count++) {
        struct policy_value value;
        char problem[240] = "";
        if (!subhost__policy_parse((enum policy_key)count, key.value, &value, problem,
                                   sizeof problem))
            fail_msg("%s: %s", key.name, problem);
        char *text = subhost__policy_format((enum policy_key)count, &value);
        assert_string_equal(text, key.value);
        assert_true(subhost__policy_is_within((enum policy_key)count, &value, &value));
        free(text);
        free(value.text);
    }
    assert_int_equal(count, POLICY_KEY_COUNT);
    subhost_policy *policy = WITH("cancel.grace=1500ms", "fork.pass=stdin,cwd,stdin");
    assert_string_equal(subhost_policy_get(policy, "cancel.grace"), "1500ms");
    assert_string_equal(subhost_policy_get(policy, "fork.pass"), "cwd,stdin");
    assert_string_equal(subhost_policy_get(policy, "exec.allow"), "true");
    assert_null(subhost_policy_get(policy, "exec.alow"));
    subhost_policy_free(policy);
    subhost_policy_free(NULL);
}

static void expect_problem(const char *assignment, const char *message)
{
    subhost_policy *policy = NULL;
    subhost_error *err = NULL;
    assert_int_equal(subhost_policy_load(NULL, &policy, NULL), 0);
    assert_int_equal(subhost_policy_set(policy, assignment, NULL, &err), SUBHOST_EINVAL);
    assert_string_equal(subhost_error_message(err), message);
    subhost_error_free(err);
    subhost_policy_free(policy);
}

static void test_bad_values(void **state)
{
    (void)state;
    expect_problem("exec.allow", "'exec.allow' is not KEY=VALUE");
    expect_problem("exec.alow=true", "exec.alow: unknown key; did you mean exec.allow?");
    expect_problem("exec.allow=yes", "exec.allow: 'yes' is neither true nor false");
    expect_problem("fork.mode=", "fork.mode: '' is not thread or deny");
    expect_problem("cancel.rungs=4", "cancel.rungs: 4 is out of range: 1 to 3");
    expect_problem("cancel.grace=-1s",
                   "cancel.grace: '-1s' is not a duration (500ms, 1.5s, 2m, or seconds)");
    expect_problem("fork.pass=cwd,home",
                   "fork.pass: 'home' is not cwd, environ or stdin");
}

/* ---- hosts and interpreters ---------------------------------------------------------- */

static void test_invalid_policies_are_refused(void **state)
{
    (void)state;
    subhost_options options = SUBHOST_OPTIONS_INIT;
    subhost_host *host = NULL;
    subhost_error *err = NULL;
    subhost_policy *policy = WITH("interpreter.obmalloc=main");
    options.policy = policy;
    assert_int_equal(subhost_open(&options, &host, &err), SUBHOST_EINVAL);
    assert_non_null(strstr(subhost_error_message(err), "interpreter.obmalloc: "));
    subhost_error_free(err);
    subhost_policy_free(policy);
    assert_null(subhost__host());
}

static void test_an_interpreter_of_its_own_policy(void **state)
{
    (void)state;
    subhost_host *host = open_with(NULL);
    subhost_policy *policy = WITH("exec.allow=false", "limits.interpreters=1");
    subhost_interp_options options = SUBHOST_INTERP_OPTIONS_INIT;
    subhost_interp *strict, *other = unit_interp(host);
    options.policy = policy;
    assert_int_equal(subhost_interp_create(host, &options, &strict, NULL), 0);
    subhost_policy_free(policy);
    static const char code[] = "import os\n"
                               "try: os.system('true')\n"
                               "except PermissionError: raise SystemExit(3)\n";
    unit_run(strict, code, SUBHOST_EXITED);
    unit_run(other, code, SUBHOST_RETURNED);
    subhost_interp_release(strict);
    subhost_interp_release(other);
    unit_close(host);
}

/* "reuse": what one task leaves behind is there for the next one, or not. */
static void test_reuse(void **state)
{
    (void)state;
    for (int reuse = 0; reuse <= 2; reuse++) {
        char assignment[40];
        snprintf(assignment, sizeof assignment, "interpreter.reuse=%d", reuse);
        subhost_host *host = open_with(WITH(assignment));
        subhost_interp *interp = unit_interp(host);
        static const char code[] = "import sys\n"
                                   "sys.runs = getattr(sys, 'runs', 0) + 1\n"
                                   "raise SystemExit(sys.runs)\n";
        for (int run = 0; run < 4; run++) {
            subhost_task *task = unit_submit(interp, code, NULL);
            subhost_outcome outcome = unit_wait(task);
            assert_int_equal(outcome.code, reuse ? run % reuse + 1 : run + 1);
            subhost_task_release(task);
        }
        subhost_interp_release(interp);
        unit_close(host);
    }
}

/* ---- tasks ------------------------------------------------------------------------- */

static void test_tasks_narrow(void **state)
{
    (void)state;
    subhost_host *host = open_with(WITH("threads.daemon=false"));
    subhost_interp *interp = unit_interp(host);
    subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
    subhost_task *task = NULL;
    subhost_error *err = NULL;
    subhost_policy *wider = WITH("threads.daemon=true");
    options.policy = wider;
    assert_int_equal(unit_try_submit(interp, "pass", &options, &task, &err),
                     SUBHOST_EFORBIDDEN);
    assert_string_equal(subhost_error_message(err),
                        "threads.daemon = true would widen what the policy 'default' "
                        "allows: threads.daemon = false (from --set); a task can only "
                        "narrow it");
    subhost_error_free(err);
    subhost_policy_free(wider);

    subhost_policy *narrower = WITH("threads.allow=false"), *brief;
    options.policy = narrower;
    static const char code[] = "import threading\n"
                               "threading.Thread(target=int).start()\n";
    task = unit_submit(interp, UNIT_QUIET, NULL);
    unit_wait(task);
    subhost_task_release(task);
    task = unit_submit(interp, code, &options);
    subhost_outcome outcome = unit_wait(task);
    unit_expect(&outcome, SUBHOST_RAISED);
    subhost_task_release(task);
    options.policy = brief = WITH("limits.timeout=20ms");
    task = unit_submit(interp, "while True: pass", &options);
    outcome = unit_wait(task);
    unit_expect(&outcome, SUBHOST_TIMED_OUT);
    subhost_task_release(task);
    unit_run(interp, code, SUBHOST_RETURNED); /* it held for that task alone */
    subhost_policy_free(brief);
    subhost_policy_free(narrower);
    subhost_interp_release(interp);
    unit_close(host);
}

/* A thread that outlives its task is held by that task's policy, as well as by the next one's. */
static void test_threads_keep_their_policy(void **state)
{
    (void)state;
    subhost_host *host = open_with(NULL);
    subhost_interp *interp = unit_interp(host);
    subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
    subhost_policy *narrow = WITH("exec.allow=false", "cancel.grace=1s");
    options.policy = narrow;
    static const char begin[] = "import os, subhost, sys, threading\n"
                                "sys.go, sys.found = threading.Event(), []\n"
                                "def tried(function, *args):\n"
                                "    try: function(*args); return 'done'\n"
                                "    except BaseException as error: return str(error)\n"
                                "def nursery():\n"
                                "    with subhost.open_nursery() as n: n.start(int)\n"
                                "def late():\n"
                                "    sys.go.wait(20)\n"
                                "    sys.found.append(tried(os.system, 'true'))\n"
                                "    sys.found.append(tried(nursery))\n"
                                "sys.late = threading.Thread(target=late, daemon=True)\n"
                                "sys.late.start()\n";
    static const char end[] = "import os, sys\n"
                              "assert os.system('true') == 0\n"
                              "sys.go.set()\n"
                              "sys.late.join(20)\n"
                              "assert 'exec.allow = false' in sys.found[0], sys.found\n"
                              "assert sys.found[1] != 'done', sys.found\n";
    subhost_task *task = unit_submit(interp, begin, &options);
    subhost_outcome outcome = unit_wait(task);
    unit_expect(&outcome, SUBHOST_RETURNED);
    subhost_task_release(task);
    unit_run(interp, end, SUBHOST_RETURNED);
    subhost_policy_free(narrow);
    subhost_interp_release(interp);
    unit_close(host);
}

static void test_what_a_task_cannot_set(void **state)
{
    (void)state;
    subhost_policy *policy = WITH("exec.allow=false"), *narrowed = NULL;
    subhost_policy *file = WITH("limits.interpreters=1", "interpreter.gil=own");
    subhost_error *err = NULL;
    assert_int_equal(subhost__policy_narrow(policy, file, SCOPE_INTERP, &narrowed, &err),
                     0);
    assert_string_equal(subhost_policy_get(narrowed, "limits.interpreters"), "0");
    assert_string_equal(subhost_policy_get(narrowed, "exec.allow"), "false");
    subhost_policy_free(narrowed);
    subhost_policy_free(file);
    assert_int_equal(
        subhost__policy_set_below_host(policy, "limits.interpreters=1", "test", &err),
        SUBHOST_EINVAL);
    assert_string_equal(subhost_error_message(err),
                        "limits.interpreters is the host's and cannot be set for a task");
    subhost_error_free(err);
    subhost_policy_free(policy);
}

static void within(const char *key, const char *allowed, const char *wanted,
                   bool expected)
{
    char problem[240];
    struct policy_value a, w;
    int k = subhost__policy_find(key, problem, sizeof problem);
    assert_true(k >= 0);
    assert_true(
        subhost__policy_parse((enum policy_key)k, allowed, &a, problem, sizeof problem));
    assert_true(
        subhost__policy_parse((enum policy_key)k, wanted, &w, problem, sizeof problem));
    if (subhost__policy_is_within((enum policy_key)k, &a, &w) != expected)
        fail_msg("%s: %s within %s should be %d", key, wanted, allowed, expected);
    free(a.text);
    free(w.text);
}

static void test_narrowing_orders(void **state)
{
    (void)state;
    within("exec.allow", "true", "false", true);
    within("exec.allow", "false", "true", false);
    within("cancel.interruptible_calls", "false", "true", true);
    within("cancel.interruptible_calls", "true", "false", false);
    within("interpreter.gil", "shared", "own", true);
    within("interpreter.gil", "own", "shared", false);
    within("cancel.grace", "2s", "1s", true);
    within("cancel.grace", "1s", "2s", false);
    within("limits.memory", "0", "1GiB", true);
    within("limits.memory", "1GiB", "0", false);
    within("limits.memory", "1GiB", "2GiB", false);
    within("cancel.rungs", "2", "3", true);
    within("cancel.rungs", "3", "2", false);
    within("fork.pass", "cwd,stdin", "cwd", true);
    within("fork.pass", "cwd,stdin", "", true);
    within("fork.pass", "cwd,stdin", "environ", false);
    within("fork.pass", "", "cwd", false);
    within("interpreter.preload", "", "json", true);
}

/* ---- enough is enough -------------------------------------------------------------- */

static void test_as_many_interpreters_as_allowed(void **state)
{
    (void)state;
    subhost_host *host = open_with(WITH("limits.interpreters=2"));
    subhost_interp *first = unit_interp(host), *second = unit_interp(host), *third;
    subhost_error *err = NULL;
    assert_int_equal(subhost_interp_create(host, NULL, &third, &err), SUBHOST_EFORBIDDEN);
    assert_string_equal(
        subhost_error_message(err),
        "2 interpreters are alive, which is all that the policy 'default' "
        "allows (limits.interpreters = 2, from --set)");
    subhost_error_free(err);
    subhost_interp_release(first);
    int code = SUBHOST_EFORBIDDEN;
    int64_t deadline = subhost__deadline(unit_patience(20));
    while (code == SUBHOST_EFORBIDDEN && subhost__now() < deadline) {
        assert_true(subhost_dispatch(host, SUBHOST_MSEC(5), NULL) >= 0);
        code = subhost_interp_create(host, NULL, &third, NULL);
    }
    assert_int_equal(code, 0);
    subhost_interp_release(second);
    subhost_interp_release(third);
    unit_close(host);
}

#define TESTS(X)                                                                         \
    X(test_defaults)                                                                     \
    X(test_bad_values)                                                                   \
    X(test_invalid_policies_are_refused)                                                 \
    X(test_an_interpreter_of_its_own_policy)                                             \
    X(test_reuse)                                                                        \
    X(test_tasks_narrow)                                                                 \
    X(test_threads_keep_their_policy)                                                    \
    X(test_what_a_task_cannot_set)                                                       \
    X(test_narrowing_orders)                                                             \
    X(test_as_many_interpreters_as_allowed)

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST_ROW(name) UNIT_TEST(name),
        TESTS(TEST_ROW)
#undef TEST_ROW
    };
    return UNIT_MAIN(tests);
}
