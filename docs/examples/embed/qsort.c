/* The C library's qsort() with a comparison in Python, in two interpreters at once.
 *
 *   cc qsort.c $(pkg-config --cflags --libs subhost) -o qsort && ./qsort */
#include <stdio.h>
#include <stdlib.h>
#include <subhost.h>

enum { WORKERS = 2 };

static const char program_text[] =
    "import array, random, subhost\n"
    "random.seed(subhost.current().worker)\n"
    "numbers = array.array('i', random.choices(range(1000), k=5000))\n"
    "expected = sorted(numbers, key=lambda n: (n % 10, n))\n"
    "calls = 0\n"
    "def compare(a, b):\n"
    "    global calls\n"
    "    calls += 1\n"
    "    a, b = (a % 10, a), (b % 10, b)\n"
    "    return (a > b) - (a < b)\n"
    "subhost.native.qsort(base=numbers, n=len(numbers), width=4, compare=compare)\n"
    "raise SystemExit(0 if calls and numbers.tolist() == expected else 1)\n";

static int fail(const char *what, subhost_error *err)
{
    fprintf(stderr, "%s: %s\n", what, subhost_error_message(err));
    subhost_error_free(err);
    return 1;
}

int main(void)
{
    subhost_error *err = NULL;
    subhost_host *host;
    if (subhost_open(NULL, &host, &err))
        return fail("no host", err);
    if (subhost_bind(host, NULL, (subhost_native_function)qsort,
                     "void qsort(mut buf base, size n, size width,"
                     "           fn i32(in i32, in i32) compare)",
                     NULL, &err))
        return fail("not bound", err);

    subhost_program program = SUBHOST_PROGRAM_INIT;
    program.kind = SUBHOST_PROGRAM_CODE;
    program.source = program_text;
    subhost_task *tasks[WORKERS];
    for (int i = 0; i < WORKERS; i++) {
        subhost_interp_options options = SUBHOST_INTERP_OPTIONS_INIT;
        options.worker = i;
        subhost_interp *interp;
        if (subhost_interp_create(host, &options, &interp, &err) ||
            subhost_submit(interp, &program, NULL, &tasks[i], &err))
            return fail("not started", err);
        subhost_interp_release(interp); /* it ends after its task */
    }
    for (int i = 0; i < WORKERS; i++) {
        subhost_outcome outcome = SUBHOST_OUTCOME_INIT;
        if (subhost_task_wait(tasks[i], SUBHOST_MSEC(20000), &outcome, &err))
            return fail("no outcome", err);
        printf("worker %d: %s\n", i, outcome.status == 0 ? "sorted" : "not sorted");
        subhost_task_release(tasks[i]);
    }
    if (subhost_close(host, SUBHOST_CLOSE_FINALIZE, SUBHOST_MSEC(2000), &err))
        return fail("not closed", err);
    return 0;
}
