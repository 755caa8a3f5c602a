/* `subhost audit modules`: finds the modules, and runs each stage over all of them, in
 * throwaway children. See modules.h. */
#define _GNU_SOURCE
#include "modules.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "embed/interp.h"
#include "modules_kept.h"
#include "report.h"
#include "throwaway.h"

#define DEFAULT_LIMIT SUBHOST_MSEC(10000)
#define FIND_LIMIT SUBHOST_MSEC(60000)
#define MANY_FACTOR 6    /* 20 rounds may take longer than one import */
#define OUTPUT_MOST 4000 /* of what a child printed, its end */

static const struct stage {
    const char *name;
    enum module_stage needs;
} stages[STAGES] = {
#define STAGE_ROW(id, text, own, at_once, rounds, before) [id] = {text, before},
    MODULE_STAGES(STAGE_ROW)
#undef STAGE_ROW
};

/* A module, with what has come of it. */
struct subject {
    struct module module;
    const char *record, *identity, *misfit;
    size_t size; /* of the record */
    struct kept results[STAGES];
};

struct audit {
    const subhost_audit_options *options;
    struct subject *subjects; /* the first is no module: for comparison */
    unsigned count;
    char *found; /* the finder's records */
    size_t found_size;
    struct keeper keeper;
    unsigned done, total;
    subhost_error **err;
    int code; /* of what went wrong in a callback */
};

struct child {
    struct module_task task;
    struct subject *subject;
    struct audit *audit;
};

/* ---- finding ---------------------------------------------------------------------- */

static int count_modules(const char *data, size_t size)
{
    int count = 0;
    size_t record = 0, length;
    for (size_t at = 0; (length = subhost__record_length(data + at, size - at)) > 0;
         at += record) {
        record = length;
        count += subhost__record_field(data + at, length, "module") != NULL;
    }
    return count;
}

static void take_module(struct subject *subject, const char *record, size_t size)
{
    const char *fields[] = {"module", "root", "path", "hook", "identity", "misfit"};
    const char *values[ARRAY_LENGTH(fields)];
    for (size_t i = 0; i < ARRAY_LENGTH(fields); i++) {
        const char *value = subhost__record_field(record, size, fields[i]);
        values[i] = value ? value : "";
    }
    *subject = (struct subject){.module = {.name = values[0],
                                           .root = values[1],
                                           .path = values[2],
                                           .hook = values[3]},
                                .identity = values[4],
                                .misfit = values[5],
                                .record = record,
                                .size = size};
}

static int take_found(struct audit *audit)
{
    int modules = count_modules(audit->found, audit->found_size);
    audit->subjects = calloc((size_t)modules + 1, sizeof *audit->subjects);
    if (!audit->subjects)
        return subhost__fail(audit->err, SUBHOST_ENOMEM, "the modules: out of memory");
    take_module(&audit->subjects[audit->count++], "", 0);
    size_t length;
    for (size_t at = 0;
         (length = subhost__record_length(audit->found + at, audit->found_size - at)) > 0;
         at += length)
        if (subhost__record_field(audit->found + at, length, "module"))
            take_module(&audit->subjects[audit->count++], audit->found + at, length);
    return 0;
}

/* The whole of a memory file, owned. */
static char *read_memory(int fd, size_t *size)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return NULL;
    *size = (size_t)status.st_size;
    char *data = malloc(*size + 1);
    for (size_t at = 0; data && at < *size;) {
        ssize_t n = pread(fd, data + at, *size - at, (off_t)at);
        if (n <= 0) {
            free(data);
            return NULL;
        }
        at += (size_t)n;
    }
    return data;
}

static int find(struct audit *audit)
{
    struct module_search search = {.count = audit->options->count,
                                   .names = audit->options->names,
                                   .out = memfd_create("modules", MFD_CLOEXEC)};
    if (search.out < 0)
        return subhost__fail_errno(audit->err, errno, "finding the modules");
    struct throwaway child = {.name = "finding the modules",
                              .run = subhost__module_finder,
                              .data = &search,
                              .limit = FIND_LIMIT};
    int code = subhost__throwaway_run(&child, 1, 1, NULL, NULL, audit->err);
    char ending[64];
    subhost__throwaway_describe(&child, ending, sizeof ending);
    if (!code && (child.hung || child.status != 0))
        code = subhost__fail(audit->err, SUBHOST_EPYTHON, "finding the modules: %s\n%s",
                             ending, child.output ? child.output : "");
    subhost__throwaway_free(&child);
    if (!code) {
        audit->found = read_memory(search.out, &audit->found_size);
        code = audit->found ? take_found(audit)
                            : subhost__fail(audit->err, SUBHOST_ENOMEM,
                                            "finding the modules: out of memory");
    }
    close(search.out);
    return code;
}

/* ---- a result --------------------------------------------------------------------- */

/* Those who were being loaded at the end, and not what was loaded before. */
static void put_report(struct records *records, const char *report, size_t size)
{
    const char *pending[32];
    unsigned count = 0;
    struct field field = {0};
    while (subhost__next_field(report, size, &field)) {
        if (strcmp(field.key, "loading") == 0) {
            if (count < ARRAY_LENGTH(pending))
                pending[count++] = field.value;
        } else if (strcmp(field.key, "loaded") == 0) {
            for (unsigned i = count; i > 0; i--)
                if (strcmp(pending[i - 1], field.value) == 0) {
                    memmove(&pending[i - 1], &pending[i], (count - i) * sizeof *pending);
                    count--;
                    break;
                }
        } else {
            subhost__records_put(records, field.key, field.value);
        }
    }
    for (unsigned i = 0; i < count; i++)
        subhost__records_put(records, "loading", pending[i]);
}

static int make_result(const struct child *child, const struct throwaway *ended,
                       struct kept *result, subhost_error **err)
{
    struct records records;
    const struct subject *subject = child->subject;
    int code = subhost__records_open(&records, err);
    if (code)
        return code;
    subhost__records_put(&records, "of", subject->module.name);
    subhost__records_put(&records, "stage", stages[child->task.stage].name);
    subhost__records_put(&records, "file", subject->module.path);
    subhost__records_put(&records, "identity", subject->identity);
    put_report(&records, ended->report, ended->report_size);
    char ending[64];
    subhost__throwaway_describe(ended, ending, sizeof ending);
    subhost__records_put(&records, "ending", ending);
    if (ended->hung)
        subhost__records_put(&records, "hung", "1");
    else if (WIFSIGNALED(ended->status))
        subhost__records_put(&records, "signal", ending);
    size_t skip = ended->output_size > OUTPUT_MOST ? ended->output_size - OUTPUT_MOST : 0;
    if (ended->output && strlen(ended->output) == ended->output_size)
        subhost__records_put(&records, "output", ended->output + skip);
    subhost__records_print(&records, "milliseconds", "%lld",
                           (long long)(ended->duration / 1000000));
    subhost__records_end(&records);
    code = subhost__records_finish(&records, err);
    if (code)
        return code;
    result->data = records.data;
    result->size = records.size;
    return 0;
}

/* Somebody has ended it, and not what it did: it says nothing of the module. */
static bool was_ended_from_outside(const struct throwaway *ended)
{
    if (ended->hung || !WIFSIGNALED(ended->status))
        return false;
    int signo = WTERMSIG(ended->status);
    return signo == SIGKILL || signo == SIGTERM || signo == SIGINT || signo == SIGHUP;
}

static void on_end(struct throwaway *ended, void *data)
{
    struct audit *audit = data;
    struct child *child = ended->data;
    struct kept *result = &child->subject->results[child->task.stage];
    if (!audit->code)
        audit->code = make_result(child, ended, result, audit->err);
    if (!audit->code && !was_ended_from_outside(ended))
        audit->code = subhost__kept_add(&audit->keeper, result, audit->err);
    subhost__throwaway_free(ended);
    audit->done++;
    if (audit->options->on_progress)
        audit->options->on_progress(audit->done, audit->total,
                                    child->subject->module.name,
                                    audit->options->on_progress_data);
}

/* ---- the stages ------------------------------------------------------------------- */

static const char *result_of(const struct subject *subject, enum module_stage stage,
                             const char *key)
{
    const struct kept *result = &subject->results[stage];
    return result->data ? subhost__record_field(result->data, result->size, key) : NULL;
}

static bool went_well(const struct subject *subject, enum module_stage stage)
{
    const char *result = result_of(subject, stage, "result");
    return result && strcmp(result, "ok") == 0;
}

static bool is_due(const struct subject *subject, enum module_stage stage)
{
    if (subject->results[stage].data || *subject->misfit)
        return false;
    if (!*subject->module.name)
        return stage == STAGE_MANY;
    if (stage == STAGE_CLAIM)
        return *subject->module.hook && !result_of(subject, STAGE_MAIN, "init") &&
               !went_well(subject, STAGE_MAIN);
    /* What each interpreter has from its start is tried by the one for comparison. */
    if (stage == STAGE_MANY && result_of(subject, STAGE_OWN, "preloaded"))
        return false;
    enum module_stage needs = stages[stage].needs;
    return needs == STAGE_NONE || went_well(subject, needs);
}

/* Whether it is or can become due in the stages behind `stage`. */
static bool may_come(const struct subject *subject, enum module_stage stage,
                     enum module_stage next)
{
    if (next == STAGE_CLAIM)
        return false; /* rare */
    return is_due(subject, next) || (stage == STAGE_MAIN && is_due(subject, stage)) ||
           (stage == STAGE_OWN && next == STAGE_MANY && is_due(subject, stage));
}

static int run_children(struct audit *audit, struct child *children, unsigned count)
{
    struct throwaway *throwaways = calloc(count, sizeof *throwaways);
    if (!throwaways)
        return subhost__fail(audit->err, SUBHOST_ENOMEM, "the modules: out of memory");
    for (unsigned i = 0; i < count; i++)
        throwaways[i] = (struct throwaway){.name = children[i].subject->module.name,
                                           .run = subhost__module_child,
                                           .data = &children[i],
                                           .limit = children[i].task.limit};
    int code =
        subhost__throwaway_run(throwaways, count, subhost__audit_jobs(audit->options),
                               on_end, audit, audit->err);
    free(throwaways);
    return code ? code : audit->code;
}

static int run_stage(struct audit *audit, enum module_stage stage)
{
    struct child *children = calloc(audit->count, sizeof *children);
    if (!children)
        return subhost__fail(audit->err, SUBHOST_ENOMEM, "the modules: out of memory");
    int64_t limit = audit->options->timeout > 0 ? audit->options->timeout : DEFAULT_LIMIT;
    if (stage == STAGE_MANY)
        limit = limit > INT64_MAX / MANY_FACTOR ? INT64_MAX / 2 : limit * MANY_FACTOR;
    unsigned count = 0, later = 0;
    for (unsigned i = 0; i < audit->count; i++) {
        struct subject *subject = &audit->subjects[i];
        if (is_due(subject, stage))
            children[count++] = (struct child){
                .task = {.module = &subject->module, .stage = stage, .limit = limit},
                .subject = subject,
                .audit = audit};
    }
    /* Of the later stages as many as can still be due. */
    for (enum module_stage next = stage + 1; next < STAGES; next++)
        for (unsigned i = 0; i < audit->count; i++)
            later += may_come(&audit->subjects[i], stage, next);
    audit->total = audit->done + count + later;
    int code = count ? run_children(audit, children, count) : 0;
    free(children);
    return code;
}

static bool says(const struct kept *result, const char *key, const char *value)
{
    const char *found = subhost__record_field(result->data, result->size, key);
    return strcmp(found ? found : "", value) == 0;
}

/* What an earlier audit has found out of the same files. */
static void take_kept(struct audit *audit)
{
    struct kept view;
    for (size_t at = 0; subhost__kept_next(&audit->keeper, &at, &view);) {
        enum module_stage stage = 0;
        while (stage < STAGES && !says(&view, "stage", stages[stage].name))
            stage++;
        for (unsigned i = 0; stage < STAGES && i < audit->count; i++) {
            struct subject *subject = &audit->subjects[i];
            if (!says(&view, "of", subject->module.name) ||
                !says(&view, "file", subject->module.path) ||
                !says(&view, "identity", subject->identity))
                continue;
            subhost__kept_free(&subject->results[stage]);
            /* Out of memory: it is examined again. */
            (void)subhost__kept_copy(&view, &subject->results[stage]);
            break;
        }
    }
}

static int examine(struct audit *audit)
{
    take_kept(audit);
    int code = 0;
    for (enum module_stage stage = 0; !code && stage < STAGES; stage++)
        code = run_stage(audit, stage);
    if (!code && audit->done && audit->options->on_progress)
        audit->options->on_progress(audit->done, audit->done, "",
                                    audit->options->on_progress_data);
    return code;
}

/* ---- all of it -------------------------------------------------------------------- */

int subhost__audit_modules(const subhost_audit_options *options, struct records *records,
                           subhost_error **err)
{
    struct audit audit = {.options = options, .err = err};
    int code = subhost__kept_open(&audit.keeper, options->resume, err);
    if (code)
        return code;
    code = find(&audit);
    bool named = !code && audit.count > 1;
    if (named)
        code = examine(&audit);
    if (!code)
        fwrite(audit.found, 1, audit.found_size, records->out);
    for (unsigned i = 0; i < audit.count; i++)
        for (enum module_stage stage = 0; stage < STAGES; stage++) {
            struct kept *result = &audit.subjects[i].results[stage];
            if (!code && result->data)
                fwrite(result->data, 1, result->size, records->out);
            subhost__kept_free(result);
        }
    subhost__kept_close(&audit.keeper);
    free(audit.subjects);
    free(audit.found);
    return code;
}
