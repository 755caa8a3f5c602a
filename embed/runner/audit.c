/* `subhost audit KIND [OPTION...] [NAME...]`: options may stand anywhere. */
#define _GNU_SOURCE
#include "audit.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <subhost.h>

#include "options.h"

#define STATUS_FINDINGS 1
#define MAX_JOBS 1024

/* One list: short name (0: none), long name, argument's name (NULL: none), help. */
#define AUDIT_OPTIONS(X)                                                                 \
    X(0, "format", "text|json|tap|html|chrome",                                          \
      "what the report is written as (default text)")                                    \
    X('o', "output", "FILE", "write it to FILE, which is replaced when it is complete")  \
    X('v', "verbose", NULL, "in text: all that is known of each item")                   \
    X('j', "jobs", "N", "examine N at the same time (default: the processors)")          \
    X(0, "timeout", "DUR", "of modules: how long one import may take (default 10s)")     \
    X(0, "resume", "FILE", "of modules: keep results there; go on where it was ended")   \
    X('h', "help", NULL, "this text")

static const struct option_row rows[] = {AUDIT_OPTIONS(OPTION_ROW)};

static const struct option_table table = {
    .command = "audit",
    .rows = rows,
    .count = sizeof rows / sizeof *rows,
    .help_column = 34,
};

/* One list: audit, what its names are, help. Its name is in SUBHOST_AUDITS. */
static const struct audit_row {
    const char *names, *help;
} kinds[] = {
    [SUBHOST_AUDIT_HOST] =
        {"[PROBE...]", "which documented constraints of CPython hold on this machine"},
    [SUBHOST_AUDIT_MODULES] =
        {"[NAME...]",
         "which extension modules are ready for a GIL of their own; a NAME is "
         "a\n           module, a distribution or a file, none: all there are"},
    [SUBHOST_AUDIT_TRAIL] = {"FILE", "what a run did, by its trail (run --trail FILE)"},
};

static const char *const kind_names[] = {
#define KIND_NAME(name, text) text,
    SUBHOST_AUDITS(KIND_NAME)
#undef KIND_NAME
        NULL};

static const char *const format_names[] = {
#define FORMAT_NAME(name, text) text,
    SUBHOST_FORMATS(FORMAT_NAME)
#undef FORMAT_NAME
        NULL};

/* ---- help ------------------------------------------------------------------------- */

static void print_help(void)
{
    for (size_t i = 0; kind_names[i]; i++)
        printf("%s subhost audit %s [OPTION...] %s\n",
               i ? "      " : "Usage:", kind_names[i], kinds[i].names);
    puts("\nExamines, in throwaway processes, and writes a report.\n");
    for (size_t i = 0; kind_names[i]; i++)
        printf("  %-8s %s\n", kind_names[i], kinds[i].help);
    puts("\nOptions:");
    options_print(&table);
    puts("\nExit status: 0 all is as it should be, 1 there are findings, 125 it could "
         "not be "
         "done.");
}

/* ---- parsing ---------------------------------------------------------------------- */

static int index_of(const char *word, const char *const *names)
{
    for (int i = 0; names[i]; i++)
        if (strcmp(word, names[i]) == 0)
            return i;
    return -1;
}

/* "no kind X; did you mean Y? There are: ..." */
static int unknown(const char *what, const char *word, const char *const *names)
{
    char list[256] = "";
    for (size_t i = 0; names[i]; i++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "",
                 names[i]);
    const char *guess = options_did_you_mean(word, names);
    if (!*word)
        return options_usage_error("audit", "which %s? There are: %s", what, list);
    return options_usage_error("audit", "unknown %s %s%s%s There are: %s", what, word,
                               guess, *guess ? "" : ".", list);
}

/* What the options say; the rest is in `audit`. */
struct request {
    subhost_audit_options audit;
    bool help;
};

static int take(void *data, const struct option_row *row, char *value, const char *typed)
{
    struct request *request = data;
    subhost_audit_options *options = &request->audit;
    const char *name = row->long_name;
    long jobs = 0;
    int status = 0;
    if (strcmp(name, "format") == 0) {
        int format = index_of(value, format_names);
        if (format < 0)
            return unknown("format", value, format_names);
        options->format = (enum subhost_format)format;
    } else if (strcmp(name, "output") == 0) {
        options->output = value;
    } else if (strcmp(name, "verbose") == 0) {
        options->verbose = 1;
    } else if (strcmp(name, "jobs") == 0) {
        status = options_take_count("audit", typed, value, 1, MAX_JOBS, &jobs);
        options->jobs = (int)jobs;
    } else if (strcmp(name, "timeout") == 0) {
        status = options_check_duration("audit", typed, value);
        if (!status)
            subhost_duration(value, &options->timeout);
        if (!status && options->timeout == 0)
            status = options_usage_error("audit", "%s: '%s' leaves an import no time",
                                         typed, value);
    } else if (strcmp(name, "resume") == 0) {
        options->resume = value;
    } else {
        request->help = true;
        status = OPTIONS_STOP;
    }
    return status;
}

/* 0, or an exit status after a message. */
static int parse(int argc, char **argv, struct request *request)
{
    subhost_audit_options *options = &request->audit;
    int status = options_read(&table, argc, argv, take, request);
    if (status || request->help)
        return status;
    if (optind >= argc)
        return unknown("audit", "", kind_names);
    int kind = index_of(argv[optind], kind_names);
    if (kind < 0)
        return unknown("audit", argv[optind], kind_names);
    options->kind = (enum subhost_audit_kind)kind;
    options->count = argc - optind - 1;
    options->names = (const char *const *)argv + optind + 1;
    for (int i = 0; options->kind == SUBHOST_AUDIT_MODULES && i < options->count; i++)
        if (!*options->names[i])
            return options_usage_error("audit", "modules: '' is the name of nothing");
    return 0;
}

/* ---- running ---------------------------------------------------------------------- */

/* On a terminal: a line that is written over. */
static void show_progress(unsigned done, unsigned total, const char *name, void *data)
{
    (void)data;
    fprintf(stderr, "\r\033[K[%u/%u] %s", done, total, name);
    if (done == total)
        fputs("\r\033[K", stderr);
}

int audit_command(int argc, char **argv)
{
    struct request request = {.audit = SUBHOST_AUDIT_OPTIONS_INIT};
    int status = parse(argc, argv, &request);
    if (status)
        return status;
    if (request.help) {
        print_help();
        return 0;
    }
    if (isatty(STDERR_FILENO))
        request.audit.on_progress = show_progress;
    subhost_error *err = NULL;
    int findings = subhost_audit(&request.audit, &err);
    if (findings < 0) {
        fprintf(stderr, "subhost: audit %s: %s\n", kind_names[request.audit.kind],
                subhost_error_message(err));
        subhost_error_free(err);
        return STATUS_FAILED;
    }
    return findings > 0 ? STATUS_FINDINGS : 0;
}
