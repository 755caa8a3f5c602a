/* A task that blocks, cancelled after 100 ms.
 *
 *   cc cancel.c $(pkg-config --cflags --libs subhost) -o cancel && ./cancel */
#include <stdio.h>

#include <subhost.h>

static const char code[] = "import subhost, threading\n"
                           "try:\n"
                           "    threading.Event().wait()\n"
                           "except subhost.Cancelled as error:\n"
                           "    print('cleaning up:', error.reason, flush=True)\n"
                           "    raise\n";

static int fail(const char *what, subhost_error *err)
{
    fprintf(stderr, "%s: %s\n", what, subhost_error_message(err));
    subhost_error_free(err);
    return 1;
}

/* Runs the code to its end: an interpreter needs some 10 ms to start, and the 100 ms below
 * are meant for the task alone. */
static int warm_up(subhost_interp *interp, const char *text, subhost_error **err)
{
    subhost_program program = SUBHOST_PROGRAM_INIT;
    program.kind = SUBHOST_PROGRAM_CODE;
    program.source = text;
    subhost_task *task;
    int status = subhost_submit(interp, &program, NULL, &task, err);
    if (status)
        return status;
    status = subhost_task_wait(task, SUBHOST_MSEC(10000), NULL, err);
    subhost_task_release(task);
    return status;
}

int main(void)
{
    subhost_error *err = NULL;
    subhost_host *host;
    subhost_interp *interp;
    subhost_task *task;
    if (subhost_open(NULL, &host, &err) ||
        subhost_interp_create(host, NULL, &interp, &err) ||
        warm_up(interp, "import threading", &err))
        return fail("no interpreter", err);

    subhost_program program = SUBHOST_PROGRAM_INIT;
    program.kind = SUBHOST_PROGRAM_CODE;
    program.source = code;
    subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
    options.grace = SUBHOST_MSEC(500); /* after that it would be abandoned */
    if (subhost_submit(interp, &program, &options, &task, &err))
        return fail("not submitted", err);

    /* It does not end by itself. Waiting on the main thread dispatches as well. */
    int status = subhost_task_wait(task, SUBHOST_MSEC(100), NULL, &err);
    printf("after 100 ms: %s\n", subhost_code_text(status));
    fflush(stdout); /* Python's sys.stdout has a buffer of its own */
    subhost_error_free(err);
    err = NULL;

    subhost_task_cancel(task, SUBHOST_BY_REQUEST, "no longer needed");
    subhost_outcome outcome = SUBHOST_OUTCOME_INIT;
    if (subhost_task_wait(task, SUBHOST_MSEC(5000), &outcome, &err))
        return fail("no outcome", err);
    printf("outcome: %s (%s)\n", subhost_outcome_name(outcome.kind), outcome.detail);

    subhost_task_release(task);
    subhost_interp_release(interp);
    if (subhost_close(host, SUBHOST_CLOSE_FINALIZE, SUBHOST_MSEC(2000), &err))
        return fail("not closed", err);
    return outcome.kind == SUBHOST_CANCELLED ? 0 : 1;
}
