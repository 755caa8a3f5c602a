/* A program with a main loop of its own: two interpreters run while it goes on ticking.
 *
 * The host's descriptor is one more in the set that the loop polls; when it is readable,
 * subhost_dispatch() with no timeout does what is due, the callbacks included. Nothing
 * here ever waits for a GIL.
 *
 *   cc poll_loop.c $(pkg-config --cflags --libs subhost) -o poll_loop && ./poll_loop */
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <subhost.h>

enum { WORKERS = 2 };

static int running;

static const char code[] = "import subhost, time\n"
                           "worker = subhost.current().worker\n"
                           "time.sleep(0.1 + 0.1 * worker)\n"
                           "raise SystemExit(10 + worker)\n";

static int fail(const char *what, subhost_error *err)
{
    fprintf(stderr, "%s: %s\n", what, subhost_error_message(err));
    subhost_error_free(err);
    return 1;
}

/* On the main thread, out of subhost_dispatch(). */
static void on_end(subhost_task *task, void *data)
{
    (void)data;
    subhost_outcome outcome = SUBHOST_OUTCOME_INIT;
    if (subhost_task_wait(task, 0, &outcome, NULL) == 0)
        printf("%s: %s with %d\n", subhost_task_name(task),
               subhost_outcome_name(outcome.kind), outcome.code);
    running--;
}

static int start(subhost_host *host, int worker, subhost_error **err)
{
    char name[16];
    snprintf(name, sizeof name, "worker/%d", worker);
    subhost_interp_options interp_options = SUBHOST_INTERP_OPTIONS_INIT;
    interp_options.name = name;
    interp_options.worker = worker;
    subhost_interp *interp;
    int status = subhost_interp_create(host, &interp_options, &interp, err);
    if (status)
        return status;

    subhost_program program = SUBHOST_PROGRAM_INIT;
    program.kind = SUBHOST_PROGRAM_CODE;
    program.source = code;
    subhost_task_options task_options = SUBHOST_TASK_OPTIONS_INIT;
    task_options.name = name;
    task_options.timeout = SUBHOST_MSEC(10000);
    task_options.on_end = on_end;
    subhost_task *task;
    status = subhost_submit(interp, &program, &task_options, &task, err);
    if (status == 0) {
        running++;
        subhost_task_release(task); /* the callback gets it all the same */
    }
    /* It ends when its queue is empty. */
    subhost_interp_release(interp);
    return status;
}

int main(void)
{
    subhost_error *err = NULL;
    subhost_host *host;
    if (subhost_open(NULL, &host, &err))
        return fail("no host", err);
    for (int worker = 0; worker < WORKERS; worker++)
        if (start(host, worker, &err))
            return fail("not started", err);

    /* What else the program does: here, a tick each 20 ms. */
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    const struct itimerspec each = {{0, 20000000}, {0, 20000000}};
    if (timer < 0 || timerfd_settime(timer, 0, &each, NULL) != 0)
        return 1;
    uint64_t ticks = 0;

    struct pollfd fds[] = {{subhost_fd(host), POLLIN, 0}, {timer, POLLIN, 0}};
    while (running > 0) {
        if (poll(fds, 2, -1) < 0)
            continue; /* EINTR */
        uint64_t expired;
        if (fds[1].revents && read(timer, &expired, sizeof expired) > 0)
            ticks += expired;
        if (fds[0].revents && subhost_dispatch(host, 0, &err) < 0)
            return fail("dispatch", err);
    }
    printf("the loop ticked meanwhile: %s\n", ticks >= 3 ? "yes" : "no");
    close(timer);
    if (subhost_close(host, SUBHOST_CLOSE_FINALIZE, SUBHOST_MSEC(2000), &err))
        return fail("not closed", err);
    return 0;
}
