/* `subhost audit KIND [OPTION...] [NAME...]`: options may stand anywhere. */
#define _GNU_SOURCE
#include "audit.h"

#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
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

static const struct audit_option {
    char short_name;
    const char *long_name, *argument, *help;
} rows[] = {
#define OPTION_ROW(s, l, a, h) {s, l, a, h},
    AUDIT_OPTIONS(OPTION_ROW)
#undef OPTION_ROW
};

#define ROWS (sizeof rows / sizeof *rows)

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
    for (size_t i = 0; i < ROWS; i++) {
        char name[64];
        snprintf(name, sizeof name, "%c%c%s--%s%s%s", rows[i].short_name ? '-' : ' ',
                 rows[i].short_name ? rows[i].short_name : ' ',
                 rows[i].short_name ? ", " : "  ", rows[i].long_name,
                 rows[i].argument ? " " : "", rows[i].argument ? rows[i].argument : "");
        printf("  %-31s %s\n", name, rows[i].help);
    }
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

static int unknown_option(const char *arg)
{
    static char dashed[ROWS][32];
    const char *names[ROWS + 1] = {NULL};
    for (size_t i = 0; i < ROWS; i++) {
        snprintf(dashed[i], sizeof dashed[i], "--%s", rows[i].long_name);
        names[i] = dashed[i];
    }
    char word[32];
    snprintf(word, sizeof word, "%s", arg);
    word[strcspn(word, "=")] = '\0';
    return options_usage_error(
        "audit", "unknown option %s%s", arg,
        strncmp(arg, "--", 2) == 0 ? options_did_you_mean(word, names) : "");
}

static int take_option(subhost_audit_options *options, const struct audit_option *row,
                       const char *value, bool *help)
{
    if (strcmp(row->long_name, "format") == 0) {
        int format = index_of(value, format_names);
        if (format < 0)
            return unknown("format", value, format_names);
        options->format = (enum subhost_format)format;
    } else if (strcmp(row->long_name, "output") == 0) {
        options->output = value;
    } else if (strcmp(row->long_name, "verbose") == 0) {
        options->verbose = 1;
    } else if (strcmp(row->long_name, "jobs") == 0) {
        char *end;
        errno = 0;
        long jobs = strtol(value, &end, 10);
        if (!*value || *end || errno || jobs < 1 || jobs > MAX_JOBS)
            return options_usage_error(
                "audit", "--jobs: '%s' is not a number from 1 to %d", value, MAX_JOBS);
        options->jobs = (int)jobs;
    } else if (strcmp(row->long_name, "timeout") == 0) {
        if (subhost_duration(value, &options->timeout) != 0 || options->timeout == 0)
            return options_usage_error(
                "audit",
                "--timeout: '%s' is not a duration (500ms, 1.5s, 2m, or seconds)", value);
    } else if (strcmp(row->long_name, "resume") == 0) {
        options->resume = value;
    } else {
        *help = true;
    }
    return 0;
}

static const struct audit_option *find_row(int c)
{
    if (c >= 256)
        return &rows[c - 256];
    for (size_t i = 0; i < ROWS; i++)
        if (rows[i].short_name == c)
            return &rows[i];
    return NULL;
}

/* 0, or an exit status after a message; *help: only that is wanted. */
static int parse(int argc, char **argv, subhost_audit_options *options, bool *help)
{
    struct option long_options[ROWS + 1] = {{0}};
    char short_options[2 * ROWS + 2] = ":"; /* ':' when an argument is missing */
    for (size_t i = 0, at = 1; i < ROWS; i++) {
        long_options[i] = (struct option){
            rows[i].long_name, rows[i].argument ? required_argument : no_argument, NULL,
            256 + (int)i};
        if (rows[i].short_name) {
            short_options[at++] = rows[i].short_name;
            if (rows[i].argument)
                short_options[at++] = ':';
        }
    }
    opterr = 0;
    optind = 0; /* anew, and with the arguments permuted */
    for (int c; (c = getopt_long(argc, argv, short_options, long_options, NULL)) != -1;) {
        if (c == '?')
            return unknown_option(argv[optind - 1]);
        if (c == ':')
            return options_usage_error("audit", "%s needs an argument", argv[optind - 1]);
        int status = take_option(options, find_row(c), optarg, help);
        if (status || *help)
            return status;
    }
    if (optind >= argc)
        return unknown("audit", "", kind_names);
    int kind = index_of(argv[optind], kind_names);
    if (kind < 0)
        return unknown("audit", argv[optind], kind_names);
    options->kind = (enum subhost_audit_kind)kind;
    options->count = argc - optind - 1;
    options->names = (const char *const *)argv + optind + 1;
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
    subhost_audit_options options = SUBHOST_AUDIT_OPTIONS_INIT;
    bool help = false;
    int status = parse(argc, argv, &options, &help);
    if (status)
        return status;
    if (help) {
        print_help();
        return 0;
    }
    if (isatty(STDERR_FILENO))
        options.on_progress = show_progress;
    subhost_error *err = NULL;
    int findings = subhost_audit(&options, &err);
    if (findings < 0) {
        fprintf(stderr, "subhost: audit %s: %s\n", kind_names[options.kind],
                subhost_error_message(err));
        subhost_error_free(err);
        return STATUS_FAILED;
    }
    return findings > 0 ? STATUS_FINDINGS : 0;
}
