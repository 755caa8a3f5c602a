/* A program whose main loop is libuv's: two interpreters run while it goes on ticking.
 *
 * The host's descriptor is a uv_poll_t of the loop; when it is readable, subhost_dispatch()
 * with no timeout does what is due, the callbacks included.
 *
 *   cc libuv.c $(pkg-config --cflags --libs subhost libuv) -o libuv && ./libuv */
#include <stdio.h>

#include <subhost.h>
#include <uv.h>

enum { WORKERS = 2 };

struct program {
    uv_loop_t loop;
    uv_poll_t poll;
    uv_timer_t timer;
    subhost_host *host;
    int running, ticks;
};

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

/* The loop ends when it has no handles any more. */
static void stop(struct program *self)
{
    uv_close((uv_handle_t *)&self->poll, NULL);
    uv_close((uv_handle_t *)&self->timer, NULL);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    struct program *self = (struct program *)poll->data;
    subhost_error *err = NULL;
    int code = subhost_dispatch(self->host, 0, &err);
    if (code < 0)
        fail("dispatch", err);
    if (code < 0 || self->running == 0)
        stop(self);
}

/* What else the program does. */
static void on_tick(uv_timer_t *timer) { ((struct program *)timer->data)->ticks++; }

/* On the main thread, out of subhost_dispatch(). */
static void on_end(subhost_task *task, void *data)
{
    struct program *self = (struct program *)data;
    subhost_outcome outcome = SUBHOST_OUTCOME_INIT;
    if (subhost_task_wait(task, 0, &outcome, NULL) == 0)
        printf("%s: %s with %d\n", subhost_task_name(task),
               subhost_outcome_name(outcome.kind), outcome.code);
    self->running--;
}

static int start(struct program *self, int worker, subhost_error **err)
{
    char name[16];
    snprintf(name, sizeof name, "worker/%d", worker);
    subhost_interp_options interp_options = SUBHOST_INTERP_OPTIONS_INIT;
    interp_options.name = name;
    interp_options.worker = worker;
    subhost_interp *interp;
    int status = subhost_interp_create(self->host, &interp_options, &interp, err);
    if (status)
        return status;

    subhost_program program = SUBHOST_PROGRAM_INIT;
    program.kind = SUBHOST_PROGRAM_CODE;
    program.source = code;
    subhost_task_options task_options = SUBHOST_TASK_OPTIONS_INIT;
    task_options.name = name;
    task_options.timeout = SUBHOST_MSEC(10000);
    task_options.on_end = on_end;
    task_options.on_end_data = self;
    subhost_task *task;
    status = subhost_submit(interp, &program, &task_options, &task, err);
    if (status == 0) {
        self->running++;
        subhost_task_release(task); /* on_end gets it all the same */
    }
    subhost_interp_release(interp); /* it ends when its queue is empty */
    return status;
}

int main(void)
{
    subhost_error *err = NULL;
    static struct program self;
    if (subhost_open(NULL, &self.host, &err))
        return fail("no host", err);
    for (int worker = 0; worker < WORKERS; worker++)
        if (start(&self, worker, &err))
            return fail("not started", err);

    self.poll.data = self.timer.data = &self;
    if (uv_loop_init(&self.loop) || uv_timer_init(&self.loop, &self.timer) ||
        uv_poll_init(&self.loop, &self.poll, subhost_fd(self.host)) ||
        uv_poll_start(&self.poll, UV_READABLE, on_readable) ||
        uv_timer_start(&self.timer, on_tick, 20, 20))
        return 1;
    uv_run(&self.loop, UV_RUN_DEFAULT);
    uv_loop_close(&self.loop);
    printf("the loop ticked meanwhile: %s\n", self.ticks >= 3 ? "yes" : "no");
    if (subhost_close(self.host, SUBHOST_CLOSE_FINALIZE, SUBHOST_MSEC(2000), &err))
        return fail("not closed", err);
    return 0;
}
