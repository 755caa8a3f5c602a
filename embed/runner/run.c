/* `subhost run`: a program in one interpreter or in several at once. */
#define _GNU_SOURCE
#include "run.h"

#include "clock.h"
#include "input.h"
#include "output.h"
#include "policy.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a trail that is a slow pipe has, at the end, to take what has been noted. */
#define TRAIL_PATIENCE SUBHOST_MSEC(2000)

struct run {
    const struct options *options;
    const subhost_policy *policy;
    int64_t grace;
    subhost_host *host;
    subhost_task **tasks;
    subhost_interp *only; /* the one worker's */
    int running;
    int status;     /* of the first worker that failed */
    int failed;     /* workers that did not end with 0 */
    bool recycle;   /* it was said that the process should be replaced */
    bool abandoned; /* a thread is still in there: no orderly exit of the process */
    bool signalled; /* a SIGINT or SIGTERM has begun the end */
    int ended_by;   /* the one that came after the programs' end */
};

/* ---- before anything is started ------------------------------------------------- */

static bool is_fifo(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISFIFO(st.st_mode);
}

/* 0, or the status with which a FILE cannot be run, after a message. */
static int check_file(const char *path)
{
    struct stat st;
    /* A FIFO that is opened and closed has lost its writer. */
    if (is_fifo(path))
        return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        int error = errno;
        output_say("subhost: can't open file '%s': %s\n", path, strerror(error));
        return error == ENOENT || error == ENOTDIR ? STATUS_NOT_FOUND : STATUS_CANNOT_RUN;
    }
    int status = 0;
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
        if (faccessat(fd, "__main__.py", F_OK, 0) != 0 &&
            faccessat(fd, "__main__.pyc", F_OK, 0) != 0) {
            output_say(
                "subhost: '%s' is a directory without a __main__.py: name the program "
                "in it, or use -m\n",
                path);
            status = STATUS_CANNOT_RUN;
        }
    }
    close(fd);
    return status;
}

/* ---- events --------------------------------------------------------------------- */

static void on_end(subhost_task *task, void *data)
{
    struct run *run = data;
    subhost_outcome outcome = SUBHOST_OUTCOME_INIT;
    subhost_task_wait(task, 0, &outcome, NULL);
    run->running--;
    /* One program's end is our status. Of several it says neither which nor how many. */
    bool crashed = outcome.kind == SUBHOST_KILLED && outcome.cancel_reason < 0;
    if (outcome.kind == SUBHOST_FAILED || (crashed && run->options->workers > 1))
        output_say("subhost: %s: %s\n", subhost_task_name(task), outcome.detail);
    if (outcome.kind == SUBHOST_ABANDONED) {
        run->abandoned = true;
        output_say("subhost: %s could not be interrupted within the grace period and was "
                   "abandoned\n",
                   subhost_task_name(task));
    }
    if (outcome.kind == SUBHOST_KILLED && !crashed && outcome.code == SIGKILL)
        output_say("subhost: %s could not be interrupted within the grace period and was "
                   "killed\n",
                   subhost_task_name(task));
    if (!run->recycle && subhost_recycle_wanted(run->host)) {
        run->recycle = true;
        output_say("subhost: quarantine.limit is reached: this process should be "
                   "replaced\n");
    }
    int status = outcome.status;
    if (status && run->failed++ == 0)
        run->status = status;
}

static void on_signal(subhost_host *host, const subhost_signal_event *event, void *data)
{
    struct run *run = data;
    (void)host;
    if (event->signo != SIGINT && event->signo != SIGTERM)
        return;
    /* The second one, while the first is being obeyed: at once, and without waiting for
     * anybody. */
    bool over = run->running == 0;
    if ((event->waiting > 0 && event->cancelled == 0) || (over && run->signalled))
        _exit(128 + event->signo);
    run->signalled |= over || event->cancelled > 0;
    if (over)
        run->ended_by = event->signo;
}

/* ---- the end -------------------------------------------------------------------- */

void run_print_stats(subhost_host *host)
{
    subhost_stats stats = SUBHOST_STATS_INIT;
    struct rusage usage;
    subhost_get_stats(host, &stats);
    getrusage(RUSAGE_SELF, &usage);
    output_say(
        "subhost: interpreters %llu created, %llu abandoned; tasks %llu started, %llu "
        "ended; forks %llu\n"
        "subhost: cancels %llu, latency last %.3f ms, max %.3f ms; signals %llu; "
        "messages %llu; doorbell %s\n"
        "subhost: trail %llu events, %llu lost\n"
        "subhost: peak RSS %.1f MiB, CPU %.3f s user, %.3f s system\n",
        (unsigned long long)stats.interpreters_created,
        (unsigned long long)stats.interpreters_abandoned,
        (unsigned long long)stats.tasks_started, (unsigned long long)stats.tasks_ended,
        (unsigned long long)stats.forks, (unsigned long long)stats.cancels,
        (double)stats.cancel_latency_last / 1e6, (double)stats.cancel_latency_max / 1e6,
        (unsigned long long)stats.signals, (unsigned long long)stats.messages,
        subhost_doorbell_name(host), (unsigned long long)stats.trail_events,
        (unsigned long long)stats.trail_lost, (double)usage.ru_maxrss / 1024,
        (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6,
        (double)usage.ru_stime.tv_sec + (double)usage.ru_stime.tv_usec / 1e6);
}

/* Nobody should take a trail with holes for a whole one. */
void run_check_trail(subhost_host *host)
{
    subhost_stats stats = SUBHOST_STATS_INIT;
    subhost_error *err = NULL;
    if (subhost_trail_flush(host, TRAIL_PATIENCE, &err) != 0)
        output_say("subhost: the trail is not complete: %s\n",
                   subhost_error_message(err));
    subhost_error_free(err);
    subhost_get_stats(host, &stats);
    if (stats.trail_lost > 0)
        output_say("subhost: the trail: %llu of %llu events were lost\n",
                   (unsigned long long)stats.trail_lost,
                   (unsigned long long)stats.trail_events);
}

static int fail(subhost_error *err)
{
    output_say("subhost: %s\n", subhost_error_message(err));
    subhost_error_free(err);
    return STATUS_FAILED;
}

/* What the environment says of the host's options: for tests, and to find out whether one
 * of these mechanisms is what a program stumbles over. */
subhost_options run_host_options(void)
{
    subhost_options options = SUBHOST_OPTIONS_INIT;
    const char *doorbell = getenv("SUBHOST_DOORBELL");
    if (doorbell && strcmp(doorbell, "attach") == 0)
        options.doorbell = SUBHOST_DOORBELL_ATTACH;
    const char *calls = getenv("SUBHOST_INTERRUPTIBLE_CALLS");
    options.no_interruptible_calls = calls && strcmp(calls, "off") == 0;
    const char *siblings = getenv("SUBHOST_SIBLING_DETACH");
    options.no_sibling_detach = siblings && strcmp(siblings, "off") == 0;
    return options;
}

int run_print_abilities(void)
{
    subhost_options options = run_host_options();
    subhost_host *host;
    subhost_error *err = NULL;
    if (subhost_open(&options, &host, &err))
        return fail(err);
    printf("doorbell: %s\ninterruptible calls: %s\n", subhost_doorbell_name(host),
           subhost_interruptible_calls(host));
    subhost_close(host, SUBHOST_CLOSE_EXITING, 0, NULL);
    return 0;
}

int run_bind_natives(subhost_host *host, const struct natives *natives,
                     subhost_error **err)
{
    int code = 0;
    for (int i = 0; i < natives->count && !code; i++)
        code = subhost_bind_library(host, natives->items[i].library,
                                    natives->items[i].signature, NULL, err);
    return code;
}

static const char *program_name(const struct options *options)
{
    if (options->kind == SUBHOST_PROGRAM_CODE)
        return "-c";
    if (options->kind == SUBHOST_PROGRAM_INPUT)
        return "-";
    const char *slash = strrchr(options->source, '/');
    return slash && slash[1] ? slash + 1 : options->source;
}

static int start_worker(struct run *run, int worker, subhost_error **err)
{
    const struct options *o = run->options;
    char name[64];
    if (o->workers > 1)
        snprintf(name, sizeof name, "%.48s/%d", program_name(o), worker);
    else
        snprintf(name, sizeof name, "%.63s", program_name(o));
    subhost_interp_options interp_options = SUBHOST_INTERP_OPTIONS_INIT;
    interp_options.name = name;
    interp_options.worker = worker;
    interp_options.isolation = o->isolation;
    subhost_interp *interp;
    int code = subhost_interp_create(run->host, &interp_options, &interp, err);
    if (code)
        return code;
    subhost_program program = SUBHOST_PROGRAM_INIT;
    program.kind = o->kind;
    program.source = o->source;
    program.argc = o->argc;
    program.argv = (const char *const *)o->argv;
    subhost_task_options task_options = SUBHOST_TASK_OPTIONS_INIT;
    task_options.name = name;
    task_options.on_end = on_end;
    task_options.on_end_data = run;
    code = subhost_submit(interp, &program, &task_options, &run->tasks[worker], err);
    if (!code)
        run->running++;
    /* Among several it ends after its task. The only one ends with the process, which has
     * less to do then, and whose daemon threads run to the end, as python's. */
    if (o->workers == 1)
        run->only = interp;
    else
        subhost_interp_release(interp);
    return code;
}

static bool is_true(subhost_policy *policy, const char *key)
{
    const char *value = subhost_policy_get(policy, key);
    return value && strcmp(value, "true") == 0;
}

/* Ends the interpreters. What they finalize, flushes among it, has the grace period: a reader
 * that takes nothing would hold it for ever. False: threads run on in there. */
static bool close_host(struct run *run, int *status)
{
    int64_t grace = run->abandoned ? 0 : run->grace, start = clock_now();
    bool orderly = subhost_close(run->host, SUBHOST_CLOSE_EXITING, grace, NULL) == 0;
    /* Sooner it is left behind for its daemon threads, which are of no account. */
    if (!orderly && !run->abandoned && clock_now() - start >= grace)
        output_say(
            "subhost: an interpreter could not be ended within the grace period and "
            "was abandoned\n");
    if (run->ended_by)
        *status = 128 + run->ended_by;
    return orderly;
}

static int run_under(subhost_policy *policy, const struct options *options)
{
    struct run run = {.options = options, .policy = policy};
    const char *grace = subhost_policy_get(policy, "cancel.grace");
    if (grace)
        subhost_duration(grace, &run.grace);
    subhost_error *err = NULL;
    subhost_options host_options = run_host_options();
    host_options.policy = policy;
    host_options.take_signals = 1;
    host_options.on_signal = on_signal;
    host_options.on_signal_data = &run;
    if (is_true(policy, "output.capture"))
        host_options.on_output = output_line;
    if (subhost_open(&host_options, &run.host, &err))
        return fail(err);
    run.tasks = calloc((size_t)options->workers, sizeof *run.tasks);
    if (!run.tasks) {
        subhost_close(run.host, SUBHOST_CLOSE_EXITING, 0, NULL);
        output_say("subhost: out of memory\n");
        return STATUS_FAILED;
    }
    int code = run_bind_natives(run.host, &options->natives, &err);
    for (int worker = 0; worker < options->workers && !code; worker++)
        code = start_worker(&run, worker, &err);
    while (run.running > 0 && !code) {
        /* Output that its reader does not take is tried again. */
        int64_t timeout = output_write() ? SUBHOST_MSEC(10) : SUBHOST_FOREVER;
        int events = subhost_dispatch(run.host, timeout, &err);
        if (events < 0)
            code = events;
    }
    int status = code ? fail(err) : run.status;
    if (options->stats)
        run_print_stats(run.host);
    run_check_trail(run.host);
    for (int worker = 0; worker < options->workers; worker++)
        subhost_task_release(run.tasks[worker]);
    free(run.tasks);
    bool orderly = close_host(&run, &status);
    /* Of a run that was cut short the end is near: its output gets the grace period. */
    bool cut_short = status >= STATUS_TIMED_OUT;
    if (!output_finish(cut_short ? run.grace : 0) && status == 0)
        status = STATUS_FLUSH_FAILED;
    bool flushed = output_flush();
    if (!flushed && status == 0)
        status = STATUS_FLUSH_FAILED;
    /* Threads that cannot be stopped run on: exit() would take the ground from under them. And
     * it would wait for a reader that there may never be. */
    if (!orderly || !flushed)
        _exit(status);
    subhost_interp_release(run.only);
    return status;
}

static bool is_standard_input(const struct options *options)
{
    return options->kind == SUBHOST_PROGRAM_FILE && strcmp(options->source, "-") == 0;
}

/* Interpreters read standard input as one. Of several processes only one could, as of any that
 * read a FIFO, which a process does not even inherit by number (`<(...)` of a shell). */
static bool is_read_once(const struct options *options)
{
    bool apart = options->isolation == SUBHOST_ISOLATION_PROCESS;
    if (is_standard_input(options))
        return apart;
    return options->kind == SUBHOST_PROGRAM_FILE && (apart || options->workers > 1) &&
           is_fifo(options->source);
}

/* Each gets the text; a policy may keep standard input itself from all of them. */
static int run_input(subhost_policy *policy, const struct options *options)
{
    struct options text = *options;
    const char *value = subhost_policy_get(policy, "limits.timeout");
    int64_t timeout = 0;
    if (value)
        subhost_duration(value, &timeout);
    char *source;
    int status =
        input_read(is_standard_input(options) ? NULL : options->source, timeout, &source);
    if (status)
        return status;
    text.kind = SUBHOST_PROGRAM_INPUT;
    text.source = source;
    status = run_under(policy, &text);
    free(source);
    return status;
}

int run_command(const struct options *options)
{
    if (options->kind == SUBHOST_PROGRAM_FILE && !is_standard_input(options)) {
        int status = check_file(options->source);
        if (status)
            return status;
    }
    subhost_policy *policy =
        policy_of_options("run", options->policy, &options->settings);
    if (!policy)
        return STATUS_FAILED;
    int status =
        is_read_once(options) ? run_input(policy, options) : run_under(policy, options);
    subhost_policy_free(policy);
    return status;
}
