/* Tasks: what was submitted, its outcome, and the one terminal event. */
#define _GNU_SOURCE
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "buffer.h"
#include "interp.h"
#include "options.h"
#include "policing.h"
#include "process.h"

static const char *const outcome_names[] = {
#define OUTCOME_NAME(name, text) [name] = text,
    SUBHOST_OUTCOMES(OUTCOME_NAME)
#undef OUTCOME_NAME
};

const char *subhost_outcome_name(enum subhost_outcome_kind kind)
{
    return (size_t)kind < ARRAY_LENGTH(outcome_names) ? outcome_names[kind] : "unknown";
}

const char *subhost_task_name(const subhost_task *task) { return task->name; }

void subhost__task_ref(subhost_task *task) { atomic_fetch_add(&task->refs, 1); }

void subhost_task_release(subhost_task *task)
{
    if (!task || atomic_fetch_sub(&task->refs, 1) != 1)
        return;
    subhost_interp *interp = task->interp;
    if (interp && !subhost__is_here(interp->home))
        return;
    for (int i = 0; i < task->argc; i++)
        free(task->argv[i]);
    free(task->argv);
    free(task->source);
    free(task->name);
    free(task->detail);
    free(task->words);
    free(task->payload);
    free(task->result);
    subhost__buffer_list_clear(&task->lent);
    subhost__buffer_list_clear(&task->returned);
    subhost_policy_free(task->policy);
    subhost_task_release(task->parent);
    subhost__nursery_unref(task->nursery);
    free(task);
    if (interp)
        subhost__interp_unref(interp);
}

/* ---- submitting ----------------------------------------------------------------- */

static int copy_program(subhost_task *task, const subhost_program *program)
{
    task->kind = program->kind;
    task->source = strdup(program->source);
    task->argv = calloc((size_t)program->argc + 1, sizeof *task->argv);
    if (!task->source || !task->argv)
        return -1;
    for (; task->argc < program->argc; task->argc++) {
        task->argv[task->argc] = strdup(program->argv[task->argc]);
        if (!task->argv[task->argc])
            return -1;
    }
    return 0;
}

/* With one reference, and nothing to run yet. */
static subhost_task *make_task(subhost_interp *interp, const char *name,
                               const subhost_task_options *options)
{
    subhost_task *task = calloc(1, sizeof *task);
    if (!task)
        return NULL;
    atomic_init(&task->refs, 1);
    subhost__interp_ref(interp);
    task->interp = interp;
    subhost__policing_task(task, options);
    task->deadline = SUBHOST_FOREVER;
    task->fresh = options->fresh;
    task->on_end = options->on_end;
    task->on_end_data = options->on_end_data;
    /* Else of a program's source the first line: names are part of lines. */
    name += strspn(name, " \t\n");
    task->name =
        options->name ? strdup(options->name) : strndup(name, strcspn(name, "\n"));
    if (!task->name) {
        subhost_task_release(task);
        return NULL;
    }
    for (char *c = task->name; *c; c++)
        if (iscntrl((unsigned char)*c))
            *c = '?';
    pthread_mutex_lock(&interp->host->lock);
    task->id = ++interp->host->next_task;
    pthread_mutex_unlock(&interp->host->lock);
    return task;
}

/* Takes a reference on success. */
static int enqueue(subhost_interp *interp, subhost_task *task, subhost_error **err)
{
    subhost__task_ref(task);
    pthread_mutex_lock(&interp->lock);
    enum interp_state state = interp->state;
    bool refused = interp->releasing || state == INTERP_QUARANTINED ||
                   state == INTERP_ENDED || state == INTERP_FAILED;
    if (!refused) {
        *interp->queue_tail = task;
        interp->queue_tail = &task->next;
        pthread_cond_signal(&interp->work);
    }
    /* Once it is set it stays. */
    const char *why =
        state == INTERP_FAILED || state == INTERP_ENDED ? interp->failure : NULL;
    if (state == INTERP_FAILED && !why)
        why = "out of memory"; /* there was none even for the reason */
    pthread_mutex_unlock(&interp->lock);
    if (!refused && interp->process)
        subhost__loop_wake(interp->host);
    if (!refused)
        return 0;
    subhost_task_release(task);
    if (!subhost__host_is_open(interp->host))
        return subhost__host_refuse(interp->host, "subhost_submit", err);
    return subhost__fail(
        err, state == INTERP_QUARANTINED ? SUBHOST_EQUARANTINED : SUBHOST_ESTATE,
        "subhost_submit: interpreter %u is %s%s%s", interp->serial,
        interp->releasing && !why ? "released" : subhost__interp_state_name(state),
        why ? ": " : "", why ? why : "");
}

subhost_task *subhost__task_make_program(subhost_interp *interp,
                                         const subhost_program *program,
                                         const subhost_task_options *options)
{
    subhost_task *task = make_task(interp, program->source, options);
    if (task && copy_program(task, program) < 0) {
        subhost_task_release(task);
        task = NULL;
    }
    return task;
}

static int check_program(const subhost_program *program, subhost_error **err)
{
    if (!program->source || program->argc < 0 || (program->argc > 0 && !program->argv) ||
        (unsigned)program->kind > SUBHOST_PROGRAM_INPUT)
        return subhost__fail(err, SUBHOST_EINVAL,
                             "subhost_submit: the program has no source, a bad kind, or "
                             "arguments that are missing");
    for (int i = 0; i < program->argc; i++)
        if (!program->argv[i])
            return subhost__fail(err, SUBHOST_EINVAL,
                                 "subhost_submit: argc is %d, but argv[%d] is NULL",
                                 program->argc, i);
    return 0;
}

static int check_options(const subhost_task_options *options, subhost_error **err)
{
    if (options->timeout >= 0 && options->grace >= 0)
        return 0;
    return subhost__fail(err, SUBHOST_EINVAL,
                         "subhost_task_options: %s is negative; 0 is %s",
                         options->timeout < 0 ? "timeout" : "grace",
                         options->timeout < 0 ? "no timeout" : "the policy's grace");
}

int subhost_submit(subhost_interp *interp, const subhost_program *program,
                   const subhost_task_options *options, subhost_task **result,
                   subhost_error **err)
{
    subhost_program p = SUBHOST_PROGRAM_INIT;
    subhost_task_options o = SUBHOST_TASK_OPTIONS_INIT;
    if (!interp || !program || !result)
        return subhost__fail(err, SUBHOST_EINVAL, "subhost_submit: %s is NULL",
                             !interp    ? "interp"
                             : !program ? "program"
                                        : "task");
    if (!subhost__is_here(interp->home))
        return subhost__refuse_copy(interp->home, "subhost_submit", err);
    int code = subhost__options_take(&p, sizeof p, program, "subhost_program", err);
    if (!code)
        code = subhost__options_take(&o, sizeof o, options, "subhost_task_options", err);
    if (!code)
        code = check_program(&p, err);
    if (!code)
        code = check_options(&o, err);
    if (code)
        return code;
    subhost_task *task = subhost__task_make_program(interp, &p, &o);
    if (!task)
        code = subhost__fail(err, SUBHOST_ENOMEM, "subhost_submit: out of memory");
    else if (o.policy)
        code = subhost__policing_narrow(task, o.policy, err);
    if (!code)
        code = enqueue(interp, task, err);
    if (code) {
        subhost_task_release(task);
        return code;
    }
    *result = task;
    return 0;
}

/* ---- calls ---------------------------------------------------------------------- */

subhost_task *subhost__task_make_call(subhost_interp *interp, const void *payload,
                                      size_t size, const subhost_task_options *options,
                                      subhost_task *parent)
{
    subhost_task *task = make_task(interp, "call", options);
    if (!task)
        return NULL;
    task->is_call = true;
    task->payload = malloc(size ? size : 1);
    if (!task->payload) {
        subhost_task_release(task);
        return NULL;
    }
    memcpy(task->payload, payload, size);
    task->payload_size = size;
    if (parent) {
        subhost__task_ref(parent);
        task->parent = parent;
        task->parent_id = parent->id;
    }
    return task;
}

subhost_task *subhost__task_make_worker(subhost_interp *interp, struct worker *worker,
                                        const subhost_task_options *options)
{
    subhost_task *task = make_task(interp, "worker", options);
    if (task)
        task->worker = worker;
    return task;
}

/* Out of host->live; false when it was not there. Under host->lock. */
static bool unlink_live(subhost_host *host, const subhost_task *task)
{
    for (subhost_task **at = &host->live; *at; at = &(*at)->live_next) {
        if (*at == task) {
            *at = task->live_next;
            if (task->nursery)
                task->nursery->live--;
            return true;
        }
    }
    return false;
}

int subhost__task_enqueue(subhost_task *task, subhost_error **err)
{
    subhost_host *host = task->interp->host;
    pthread_mutex_lock(&host->lock);
    /* Before it can run. A cancel from above either finds it here, or is found by us. */
    task->live_next = host->live;
    host->live = task;
    if (task->nursery)
        task->nursery->live++;
    bool too_late =
        (task->parent && (task->parent->cancel_asked || task->parent->ended)) ||
        (task->nursery && (task->nursery->failed || task->nursery->cancelled));
    pthread_mutex_unlock(&host->lock);
    int code = enqueue(task->interp, task, err);
    if (code) {
        pthread_mutex_lock(&host->lock);
        unlink_live(host, task);
        pthread_mutex_unlock(&host->lock);
        return code;
    }
    if (too_late) {
        subhost__task_expect_cancel(task);
        subhost_task_cancel(task, SUBHOST_BY_REQUEST, NULL);
    }
    return 0;
}

int subhost__submit_call(subhost_interp *interp, const void *payload, size_t size,
                         const subhost_task_options *options, subhost_task *parent,
                         subhost_task **result, subhost_error **err)
{
    subhost_task *task = subhost__task_make_call(interp, payload, size, options, parent);
    if (!task)
        return subhost__fail(err, SUBHOST_ENOMEM, "a call: out of memory");
    int code = subhost__task_enqueue(task, err);
    if (code)
        subhost_task_release(task);
    else
        *result = task;
    return code;
}

/* ---- to and from another process --------------------------------------------------- */

void subhost__task_pack(struct pack *pack, const subhost_task *task, bool last)
{
    subhost__pack_u64(pack, last);
    subhost__pack_u64(pack, (uint64_t)task->interp->worker);
    subhost__pack_u64(pack, task->parent_id);
    subhost__pack_u64(pack, (uint64_t)task->timeout);
    subhost__pack_u64(pack, (uint64_t)task->grace);
    subhost__pack_string(pack, task->name);
    subhost__policing_pack(pack, task->policy);
    subhost__pack_u64(pack, task->is_call);
    subhost__pack_u64(pack, task->calls_value);
    if (task->is_call) {
        subhost__pack_bytes(pack, task->payload, task->payload_size);
        subhost__buffer_list_pack(pack, &task->lent);
        return;
    }
    subhost__pack_u64(pack, (uint64_t)task->kind);
    subhost__pack_string(pack, task->source);
    subhost__pack_u64(pack, (uint64_t)task->argc);
    for (int i = 0; i < task->argc; i++)
        subhost__pack_string(pack, task->argv[i]);
}

static subhost_task *unpack_program(subhost_interp *interp, struct unpack *unpack,
                                    const subhost_task_options *options)
{
    subhost_program p = SUBHOST_PROGRAM_INIT;
    p.kind = (enum subhost_program_kind)subhost__unpack_u64(unpack);
    char *source = subhost__unpack_string(unpack);
    int argc = (int)subhost__unpack_u64(unpack);
    char **argv = calloc((size_t)argc + 1, sizeof *argv);
    for (; argv && p.argc < argc; p.argc++)
        argv[p.argc] = subhost__unpack_string(unpack);
    p.source = source;
    p.argv = (const char *const *)argv;
    subhost_task *task =
        argv && !unpack->failed ? subhost__task_make_program(interp, &p, options) : NULL;
    for (int i = 0; argv && i < p.argc; i++)
        free(argv[i]);
    free(argv);
    free(source);
    return task;
}

subhost_task *subhost__task_unpack(subhost_interp *interp, struct unpack *unpack,
                                   const subhost_task_options *options, bool *last)
{
    subhost_task_options o = *options;
    subhost_task *task = NULL;
    *last = subhost__unpack_u64(unpack);
    interp->worker = (int)subhost__unpack_u64(unpack);
    unsigned parent_id = (unsigned)subhost__unpack_u64(unpack);
    o.timeout = (int64_t)subhost__unpack_u64(unpack);
    o.grace = (int64_t)subhost__unpack_u64(unpack);
    char *name = subhost__unpack_string(unpack);
    o.name = name;
    subhost__policing_child(interp, subhost__policing_unpack(unpack));
    bool is_call = subhost__unpack_u64(unpack);
    bool calls_value = subhost__unpack_u64(unpack);
    if (is_call) {
        size_t size;
        const unsigned char *payload = subhost__unpack_bytes(unpack, &size);
        if (!unpack->failed)
            task = subhost__task_make_call(interp, payload, size, &o, NULL);
        if (task)
            task->calls_value = calls_value;
        if (task && !subhost__buffer_list_unpack(unpack, &task->lent)) {
            subhost_task_release(task);
            task = NULL;
        }
    } else {
        task = unpack_program(interp, unpack, &o);
    }
    free(name);
    if (task) {
        task->parent_id = parent_id;
        task->timeout = o.timeout; /* the policy's is in it, where it counts */
    }
    return task;
}

/* ---- the start ------------------------------------------------------------------ */

subhost_task *subhost__task_begin(subhost_interp *interp)
{
    subhost_task *task = interp->queue;
    if (!task || !subhost__interp_enter(interp, INTERP_RUNNING))
        return NULL;
    interp->queue = task->next;
    if (!interp->queue)
        interp->queue_tail = &interp->queue;
    task->next = NULL;
    task->started_at = subhost__now();
    task->deadline = subhost__deadline(task->timeout);
    interp->current = task;
    atomic_store(&interp->running_task, task->id);
    return task;
}

/* ---- the terminal event --------------------------------------------------------- */

void subhost__task_note_name(subhost_interp *interp, const subhost_task *task)
{
    char *name = interp->capture ? strdup(task->name) : NULL;
    pthread_mutex_lock(&interp->lock);
    free(interp->last_task);
    interp->last_task = name;
    pthread_mutex_unlock(&interp->lock);
}

static const char *isolation_name(const subhost_interp *interp)
{
    return interp->process || interp->is_main ? "process" : "interpreter";
}

void subhost__task_note_start(const subhost_task *task)
{
    const subhost_interp *interp = task->interp;
    if (task->ends)
        return;
    NOTE_EVENT(interp->host->trail, TASK_STARTED, interp->serial, task->id,
               TRAIL_TEXT(NAME, task->name), TRAIL_NUMBER(PARENT, task->parent_id),
               TRAIL_TEXT(KIND, task->is_call ? "call" : "program"),
               TRAIL_TEXT(ISOLATION, isolation_name(interp)),
               TRAIL_NUMBER(WORKER, interp->worker),
               TRAIL_NUMBER(TIMEOUT, task->timeout));
}

static void note_end(const subhost_task *task)
{
    const subhost_outcome *outcome = &task->outcome;
    if (task->ends)
        return;
    NOTE_EVENT(task->interp->host->trail, TASK_ENDED, task->interp->serial, task->id,
               TRAIL_TEXT(NAME, task->name), TRAIL_NUMBER(PARENT, task->parent_id),
               TRAIL_TEXT(OUTCOME, subhost_outcome_name(outcome->kind)),
               TRAIL_NUMBER(CODE, outcome->code), TRAIL_NUMBER(STATUS, outcome->status),
               TRAIL_TEXT(REASON, outcome->cancel_reason < 0
                                      ? NULL
                                      : subhost__reason_name(
                                            (enum subhost_reason)outcome->cancel_reason)),
               TRAIL_TEXT(DETAIL, outcome->detail),
               TRAIL_NUMBER(DURATION, task->started_at ? outcome->duration : -1));
}

const char *subhost__detail_missing(enum subhost_outcome_kind kind, const char *detail)
{
    bool has_one = kind == SUBHOST_RAISED || kind == SUBHOST_FAILED;
    return (detail && *detail) || (!detail && has_one) ? "out of memory" : "";
}

/* Before its end can be known: what it was lent is its lender's alone again. */
static void give_back(subhost_task *task)
{
    subhost_interp *interp = task->interp;
    pthread_mutex_lock(&interp->lock);
    struct buffer_list lent = task->lent;
    task->lent = (struct buffer_list){0};
    pthread_mutex_unlock(&interp->lock);
    subhost__buffer_list_clear(&lent);
}

bool subhost__task_finish(subhost_task *task, const subhost_outcome *outcome,
                          const char *detail)
{
    subhost_host *host = task->interp->host;
    give_back(task);
    char *copy = detail && *detail ? strdup(detail) : NULL;
    pthread_mutex_lock(&host->lock);
    bool first = !task->ended, first_failure = false;
    if (first) {
        task->ended = true;
        task->outcome = *outcome;
        task->outcome.size = sizeof task->outcome;
        task->detail = copy;
        task->outcome.detail =
            copy ? copy : subhost__detail_missing(outcome->kind, detail);
        task->outcome.duration = task->started_at ? subhost__now() - task->started_at : 0;
        host->stats.tasks_ended++;
        note_end(
            task); /* before anybody can know of it: what follows from it comes later */
        if (task->on_end) {
            subhost__task_ref(task);
            task->next = NULL;
            *host->ended_tail = task;
            host->ended_tail = &task->next;
        }
        if (unlink_live(host, task) && task->nursery) {
            first_failure = !task->nursery->failed && subhost__task_failed(task);
            task->nursery->failed = task->nursery->failed || first_failure;
            subhost__nursery_wake(task->nursery);
        }
        pthread_cond_broadcast(&host->ended_cond);
    }
    pthread_mutex_unlock(&host->lock);
    if (first) {
        /* Whoever waits for siblings of the one that failed, or started more and did not
         * wait for it, is not asked: they end now. */
        if (first_failure)
            subhost__task_cancel_nursery(host, task->nursery, NULL, "a sibling failed");
        subhost__task_cancel_children(task, 0, SUBHOST_BY_REQUEST,
                                      "its parent has ended");
        subhost__loop_wake(host);
    } else {
        free(copy);
    }
    return first;
}

int subhost__task_run_callbacks(subhost_host *host)
{
    int count = 0;
    pthread_mutex_lock(&host->lock);
    while (host->ended) {
        subhost_task *task = host->ended;
        host->ended = task->next;
        if (!host->ended)
            host->ended_tail = &host->ended;
        pthread_mutex_unlock(&host->lock);
        task->on_end(task, task->on_end_data);
        subhost_task_release(task);
        count++;
        pthread_mutex_lock(&host->lock);
    }
    pthread_mutex_unlock(&host->lock);
    return count;
}

void subhost__task_end_queue(subhost_interp *interp, enum subhost_outcome_kind kind,
                             int reason, const char *why)
{
    pthread_mutex_lock(&interp->lock);
    subhost_task *task = interp->queue;
    interp->queue = NULL;
    interp->queue_tail = &interp->queue;
    pthread_mutex_unlock(&interp->lock);
    while (task) {
        subhost_task *next = task->next;
        subhost_outcome outcome = {
            .kind = kind,
            .cancel_reason = reason,
            .status =
                reason < 0 ? 125 : subhost__cancel_status((enum subhost_reason)reason)};
        subhost__task_finish(task, &outcome, why);
        subhost_task_release(task);
        task = next;
    }
}

/* ---- waiting and cancelling ----------------------------------------------------- */

static bool ended(subhost_task *task, subhost_outcome *outcome)
{
    subhost_host *host = task->interp->host;
    pthread_mutex_lock(&host->lock);
    bool is = task->ended;
    if (is && outcome) {
        size_t size = outcome->size < sizeof *outcome ? outcome->size : sizeof *outcome;
        memcpy(outcome, &task->outcome, size);
        outcome->size = size;
    }
    pthread_mutex_unlock(&host->lock);
    return is;
}

int subhost_task_wait(subhost_task *task, int64_t timeout, subhost_outcome *outcome,
                      subhost_error **err)
{
    if (!task || (outcome && outcome->size < sizeof(size_t)))
        return subhost__fail(err, SUBHOST_EINVAL, "subhost_task_wait: %s",
                             task ? "the outcome's size field is not set" : "no task");
    if (!subhost__is_here(task->interp->home))
        return subhost__refuse_copy(task->interp->home, "subhost_task_wait", err);
    subhost_host *host = task->interp->host;
    int64_t deadline = subhost__deadline(timeout);
    bool on_main = pthread_equal(pthread_self(), host->main_thread);
    while (!ended(task, outcome)) {
        int64_t now = subhost__now();
        if (now >= deadline)
            return subhost__fail(err, SUBHOST_ETIMEDOUT, "task %s has not ended in time",
                                 task->name);
        if (on_main) {
            int code = subhost_dispatch(
                host, deadline == SUBHOST_FOREVER ? SUBHOST_FOREVER : deadline - now,
                err);
            if (code < 0)
                return code;
            continue;
        }
        pthread_mutex_lock(&host->lock);
        if (!task->ended)
            subhost__cond_wait(&host->ended_cond, &host->lock, deadline);
        pthread_mutex_unlock(&host->lock);
    }
    return 0;
}

/* Takes a task out of its queue; true when it was there: it will not run. */
static bool unqueue(subhost_interp *interp, subhost_task *task)
{
    for (subhost_task **at = &interp->queue; *at; at = &(*at)->next) {
        if (*at == task) {
            *at = task->next;
            if (!*at)
                interp->queue_tail = at;
            return true;
        }
    }
    return false;
}

void subhost__task_keep_words(subhost_task *task, const char *text)
{
    if (!task->words && text && *text)
        task->words = strdup(text); /* without memory the reason's name has to do */
}

static void cancel(subhost_task *task, enum subhost_reason reason, const char *text)
{
    subhost_interp *interp = task->interp;
    pthread_mutex_lock(&interp->lock);
    bool running = interp->current == task;
    bool queued = !running && unqueue(interp, task);
    if (queued)
        subhost__task_keep_words(task, text);
    pthread_mutex_unlock(&interp->lock);
    if (queued) {
        subhost_outcome outcome = {
            .kind = reason == SUBHOST_BY_DEADLINE ? SUBHOST_TIMED_OUT : SUBHOST_CANCELLED,
            .cancel_reason = (int)reason,
            .status = subhost__cancel_status(reason)};
        subhost__task_finish(task, &outcome, text ? text : subhost__reason_name(reason));
        subhost_task_release(task);
    } else if (running) {
        subhost__cancel_request(interp, task, reason, text);
    }
}

void subhost_task_cancel(subhost_task *task, enum subhost_reason reason, const char *text)
{
    if (task && subhost__is_here(task->interp->home))
        cancel(task, reason, text);
}

/* ---- trees ---------------------------------------------------------------------- */

/* A child's grace is a little shorter, so that its parent, which waits for it, still has
 * time to leave when a child had to be abandoned. */
#define GRACE_MARGIN SUBHOST_MSEC(500)

static int64_t grace_below(int64_t grace)
{
    return grace - (grace / 8 < GRACE_MARGIN ? grace / 8 : GRACE_MARGIN);
}

bool subhost__task_failed(const subhost_task *task)
{
    switch (task->outcome.kind) {
    case SUBHOST_RETURNED:
        return false;
    case SUBHOST_EXITED:
        /* With a detail it was the process that ended, without a word: os._exit(). */
        return task->outcome.code != 0 || task->detail;
    case SUBHOST_CANCELLED:
    case SUBHOST_TIMED_OUT:
        return !task->cancel_expected;
    case SUBHOST_RAISED:
    case SUBHOST_KILLED:
    case SUBHOST_ABANDONED:
    case SUBHOST_FAILED:
        break;
    }
    return true;
}

void subhost__task_expect_cancel(subhost_task *task)
{
    pthread_mutex_lock(&task->interp->host->lock);
    /* Of two requests the first one counts: a deadline that passed has passed. */
    if (!task->cancel_asked)
        task->cancel_asked = task->cancel_expected = true;
    pthread_mutex_unlock(&task->interp->host->lock);
}

void subhost__task_forget_cancel(subhost_task *task)
{
    pthread_mutex_lock(&task->interp->host->lock);
    task->cancel_asked = false;
    atomic_fetch_add(&task->cancels_over, 1);
    pthread_mutex_unlock(&task->interp->host->lock);
}

void subhost__task_failing(subhost_task *task)
{
    subhost_host *host = task->interp->host;
    int64_t until = subhost__deadline(task->grace);
    pthread_mutex_lock(&host->lock);
    task->failing = true;
    if (until < task->deadline)
        task->deadline = until;
    struct nursery *nursery = task->nursery;
    bool first = nursery && !nursery->failed && !task->cancel_expected;
    if (first)
        nursery->failed = true;
    pthread_mutex_unlock(&host->lock);
    subhost__loop_wake(host); /* it sets its timer, or tells the supervisor */
    if (first)
        subhost__task_cancel_nursery(host, nursery, NULL, "a sibling failed");
}

/* A reference to a live task on that list, where it is no more; NULL: none is left. */
static subhost_task *next_ordered(subhost_host *host, const void *by)
{
    pthread_mutex_lock(&host->lock);
    subhost_task *task = host->live;
    while (task && task->ordered_by != by)
        task = task->live_next;
    if (task) {
        task->ordered_by = NULL;
        subhost__task_ref(task);
    }
    pthread_mutex_unlock(&host->lock);
    return task;
}

/* Cancels the live calls of a parent, or of a nursery. In two steps and without memory of
 * its own: cancelling takes locks that come after host->lock, and must not fail. */

/* The first one: they are on the list. Under host->lock. */
static void order_live(subhost_host *host, const subhost_task *parent,
                       const struct nursery *nursery, const void *list)
{
    for (subhost_task *task = host->live; task; task = task->live_next) {
        if ((parent && task->parent != parent) || (nursery && task->nursery != nursery) ||
            (nursery && (task->cancel_asked || task->failing)))
            continue;
        /* One that was asked before is asked again: it may have too much time for its parent,
         * which then has none left. */
        if (!task->cancel_asked)
            task->cancel_asked = task->cancel_expected = true;
        task->ordered_by = list;
    }
}

/* The second one. */
static void cancel_ordered(subhost_host *host, const void *list, int64_t grace,
                           enum subhost_reason reason, const char *text)
{
    subhost_task *task;
    while ((task = next_ordered(host, list))) {
        pthread_mutex_lock(&task->interp->lock);
        if (grace < task->grace)
            task->grace = grace;
        pthread_mutex_unlock(&task->interp->lock);
        cancel(task, reason, text);
        subhost_task_release(task);
    }
}

void subhost__task_cancel_children(subhost_task *task, unsigned over,
                                   enum subhost_reason reason, const char *text)
{
    subhost_host *host = task->interp->host;
    char list; /* its address is that of this call alone */
    pthread_mutex_lock(&host->lock);
    bool is_current = task->ended || atomic_load(&task->cancels_over) == over;
    if (is_current) {
        task->cancel_asked = true;
        order_live(host, task, NULL, &list);
    }
    pthread_mutex_unlock(&host->lock);
    if (is_current)
        cancel_ordered(host, &list, grace_below(task->grace), reason, text);
}

void subhost__task_cancel_nursery(subhost_host *host, struct nursery *nursery,
                                  subhost_interp *of, const char *text)
{
    char list;
    enum subhost_reason reason = SUBHOST_BY_REQUEST;
    int64_t grace = SUBHOST_FOREVER;
    if (of) {
        /* Its program may be faster here than the cancel of everything below it. */
        pthread_mutex_lock(&of->lock);
        const struct cancel *cancel = &of->cancel;
        if (atomic_load(&cancel->requested)) {
            int64_t left = cancel->grace - (subhost__now() - cancel->requested_at);
            reason = cancel->reason;
            grace = left > 0 ? grace_below(left) : 0;
        }
        pthread_mutex_unlock(&of->lock);
    }
    pthread_mutex_lock(&host->lock);
    nursery->cancelled = true;
    order_live(host, NULL, nursery, &list);
    pthread_mutex_unlock(&host->lock);
    cancel_ordered(host, &list, grace, reason, text);
}
