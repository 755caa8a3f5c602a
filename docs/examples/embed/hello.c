/* The smallest embedding: one interpreter, one task.
 *
 *   cc hello.c $(pkg-config --cflags --libs subhost) -o hello && ./hello */
#include <stdio.h>
#include <subhost.h>

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

    subhost_interp *interp;
    if (subhost_interp_create(host, NULL, &interp, &err))
        return fail("no interpreter", err);

    subhost_program program = SUBHOST_PROGRAM_INIT;
    program.kind = SUBHOST_PROGRAM_CODE;
    program.source = "import sys\n"
                     "print('hello from', sys.implementation.name)\n"
                     "sys.exit(7)\n";
    subhost_task *task;
    if (subhost_submit(interp, &program, NULL, &task, &err))
        return fail("not submitted", err);

    subhost_outcome outcome = SUBHOST_OUTCOME_INIT;
    if (subhost_task_wait(task, SUBHOST_MSEC(10000), &outcome, &err))
        return fail("no outcome", err);
    printf("outcome: %s, status %d\n", subhost_outcome_name(outcome.kind),
           outcome.status);

    subhost_task_release(task);
    subhost_interp_release(interp);
    if (subhost_close(host, SUBHOST_CLOSE_FINALIZE, SUBHOST_MSEC(2000), &err))
        return fail("not closed", err);
    return 0;
}
