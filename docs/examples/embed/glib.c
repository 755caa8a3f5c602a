/* A program whose main loop is GLib's: two interpreters run while it goes on ticking.
 *
 * The host's descriptor is a source of the loop; when it is readable, subhost_dispatch()
 * with no timeout does what is due, the callbacks included.
 *
 *   cc glib.c $(pkg-config --cflags --libs subhost glib-2.0) -o glib && ./glib */
#include <stdio.h>

#include <glib-unix.h>
#include <glib.h>
#include <subhost.h>

enum { WORKERS = 2 };

struct program {
    GMainLoop *loop;
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

static gboolean on_readable(gint fd, GIOCondition condition, gpointer data)
{
    (void)fd, (void)condition;
    struct program *self = (struct program *)data;
    subhost_error *err = NULL;
    if (subhost_dispatch(self->host, 0, &err) < 0) {
        fail("dispatch", err);
        g_main_loop_quit(self->loop);
    }
    return G_SOURCE_CONTINUE;
}

/* What else the program does. */
static gboolean on_tick(gpointer data)
{
    ((struct program *)data)->ticks++;
    return G_SOURCE_CONTINUE;
}

/* On the main thread, out of subhost_dispatch(). */
static void on_end(subhost_task *task, void *data)
{
    struct program *self = (struct program *)data;
    subhost_outcome outcome = SUBHOST_OUTCOME_INIT;
    if (subhost_task_wait(task, 0, &outcome, NULL) == 0)
        printf("%s: %s with %d\n", subhost_task_name(task),
               subhost_outcome_name(outcome.kind), outcome.code);
    if (--self->running == 0)
        g_main_loop_quit(self->loop);
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
    struct program self = {g_main_loop_new(NULL, FALSE), NULL, 0, 0};
    if (subhost_open(NULL, &self.host, &err))
        return fail("no host", err);
    for (int worker = 0; worker < WORKERS; worker++)
        if (start(&self, worker, &err))
            return fail("not started", err);

    guint source = g_unix_fd_add(subhost_fd(self.host), G_IO_IN, on_readable, &self);
    guint timer = g_timeout_add(20, on_tick, &self);
    g_main_loop_run(self.loop);
    printf("the loop ticked meanwhile: %s\n", self.ticks >= 3 ? "yes" : "no");

    g_source_remove(timer);
    g_source_remove(source); /* before the host closes the descriptor */
    g_main_loop_unref(self.loop);
    if (subhost_close(self.host, SUBHOST_CLOSE_FINALIZE, SUBHOST_MSEC(2000), &err))
        return fail("not closed", err);
    return 0;
}
