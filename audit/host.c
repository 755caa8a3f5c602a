/* `subhost audit host`: runs the probes in throwaway children and compares what they saw with
 * what is expected of this CPython. See probe.h. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "audit_probes.h"
#include "probe.h"
#include "report.h"

#define DEFAULT_LIMIT SUBHOST_MSEC(15000)

#define DECLARE_PROBE(name) extern const struct probe subhost__probe_##name;
AUDIT_PROBES(DECLARE_PROBE)
#undef DECLARE_PROBE

static const struct probe *const probes[] = {
#define PROBE_ROW(name) &subhost__probe_##name,
    AUDIT_PROBES(PROBE_ROW)
#undef PROBE_ROW
};

/* One probe that is asked for, and the child that ran it. */
struct attempt {
    const struct probe *probe;
    struct throwaway child;
};

struct progress {
    const subhost_audit_options *options;
    unsigned done, total;
};

/* ---- which ------------------------------------------------------------------------ */

static const struct probe *find(const char *id)
{
    for (size_t i = 0; i < ARRAY_LENGTH(probes); i++)
        if (strcmp(probes[i]->id, id) == 0)
            return probes[i];
    return NULL;
}

/* The names given, or all. False: one is not known; then the records say which there are, and
 * nothing is run. */
static bool choose(const subhost_audit_options *options, struct attempt *attempts,
                   unsigned *count, struct records *records)
{
    *count = 0;
    for (size_t i = 0; options->count == 0 && i < ARRAY_LENGTH(probes); i++)
        attempts[(*count)++].probe = probes[i];
    for (int i = 0; i < options->count; i++) {
        const struct probe *probe = find(options->names[i]);
        if (!probe) {
            subhost__records_print(records, "unknown", "%s", options->names[i]);
            for (size_t k = 0; k < ARRAY_LENGTH(probes); k++)
                subhost__records_put(records, "known", probes[k]->id);
            subhost__records_end(records);
            return false;
        }
        attempts[(*count)++].probe = probe;
    }
    return true;
}

/* ---- running ---------------------------------------------------------------------- */

static void run_probe(void *data, int fd) { ((const struct probe *)data)->run(fd); }

static void on_end(struct throwaway *child, void *data)
{
    struct progress *progress = data;
    progress->done++;
    if (progress->options->on_progress)
        progress->options->on_progress(progress->done, progress->total, child->name,
                                       progress->options->on_progress_data);
}

/* Those that measure time run by themselves, after the others. */
static int run_all(struct attempt *attempts, unsigned count, bool alone, int jobs,
                   struct progress *progress, subhost_error **err)
{
    struct throwaway *children = calloc(count, sizeof *children);
    unsigned n = 0;
    if (!children)
        return subhost__fail(err, SUBHOST_ENOMEM, "the probes: out of memory");
    for (unsigned i = 0; i < count; i++) {
        const struct probe *probe = attempts[i].probe;
        if (probe->alone == alone)
            children[n++] =
                (struct throwaway){.name = probe->id,
                                   .run = run_probe,
                                   .data = (void *)(uintptr_t)probe,
                                   .limit = probe->limit ? probe->limit : DEFAULT_LIMIT};
    }
    int code = subhost__throwaway_run(children, n, jobs, on_end, progress, err);
    n = 0;
    for (unsigned i = 0; i < count; i++)
        if (attempts[i].probe->alone == alone)
            attempts[i].child = children[n++];
    free(children);
    return code;
}

/* ---- what came of it -------------------------------------------------------------- */

static const char *expectation(const struct probe *probe)
{
    const char *seen = "";
    for (size_t i = 0; i < ARRAY_LENGTH(probe->expected) && probe->expected[i].seen; i++)
        if (Py_Version >= probe->expected[i].from)
            seen = probe->expected[i].seen;
    return seen;
}

static void record(const struct attempt *attempt, struct records *records)
{
    const struct probe *probe = attempt->probe;
    const struct throwaway *child = &attempt->child;
    char ending[64];
    subhost__records_put(records, "id", probe->id);
    subhost__records_put(records, "title", probe->title);
    subhost__records_put(records, "constraint", probe->constraint);
    subhost__records_put(records, "source", probe->source);
    subhost__records_put(records, "meaning", probe->meaning);
    subhost__records_put(records, "expected", expectation(probe));
    /* What the child reported are such fields, too (probe.c). One that was cut off by its end
     * has no terminator, and is left out. */
    size_t length = child->report_size;
    while (length > 0 && child->report[length - 1] != '\0')
        length--;
    if (length > 0)
        fwrite(child->report, 1, length, records->out);
    subhost__throwaway_describe(child, ending, sizeof ending);
    subhost__records_put(records, "ending", ending);
    subhost__records_put(records, "output", child->output);
    subhost__records_print(records, "milliseconds", "%lld",
                           (long long)(child->duration / 1000000));
    subhost__records_end(records);
}

int subhost__audit_host(const subhost_audit_options *options, struct records *records,
                        subhost_error **err)
{
    unsigned most =
        options->count > 0 ? (unsigned)options->count : (unsigned)ARRAY_LENGTH(probes);
    struct attempt *attempts = calloc(most, sizeof *attempts);
    if (!attempts)
        return subhost__fail(err, SUBHOST_ENOMEM, "the probes: out of memory");
    unsigned count;
    int code = 0;
    if (choose(options, attempts, &count, records)) {
        struct progress progress = {.options = options, .total = count};
        code =
            run_all(attempts, count, false, subhost__audit_jobs(options), &progress, err);
        if (!code)
            code = run_all(attempts, count, true, 1, &progress, err);
        for (unsigned i = 0; i < count; i++) {
            if (!code)
                record(&attempts[i], records);
            subhost__throwaway_free(&attempts[i].child);
        }
    }
    free(attempts);
    return code;
}
