/* Parsing of the command line. Options stand before FILE, -m or -c, as python's do; what
 * follows belongs to the program. */
#define _GNU_SOURCE
#include "options.h"

#include "../edit_distance.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WORKERS 1024

/* One list: short name (0: none), long name, argument's name (NULL: none), help. */
#define RUN_OPTIONS(X)                                                                   \
    X('c', NULL, "CODE", "run this code; what follows are its arguments")                \
    X('m', NULL, "MODULE", "run a module as a program")                                  \
    X('n', "workers", "N", "run N copies, each in an interpreter of its own")            \
    X(0, "gil", "own|shared", "a GIL of its own (default), or the main one's")           \
    X(0, "isolation", "interpreter|process",                                             \
      "in this process (default), or in a forked child: every module loads there")       \
    X(0, "timeout", "DUR", "a deadline: 500ms, 1.5s, 2m; a bare number is seconds")      \
    X(0, "grace", "DUR", "how long a cancelled program may take (default 2s)")           \
    X(0, "policy", "NAME|FILE", "a preset or a TOML file: what programs may do")         \
    X(0, "set", "KEY=VALUE", "one key of the policy; `subhost policy --help` has all")   \
    X(0, "native", "LIB:SIGNATURE",                                                      \
      "bind a C function for subhost.native: 'libm.so.6:f64 pow(f64, f64)'")             \
    X(0, "trail", "FILE", "write what the host does and why, one JSON object a line")    \
    X(0, "capture", NULL, "output of workers and tasks line by line, with their names")  \
    X(0, "stats", NULL, "at the end: interpreters, tasks, cancels, peak RSS")            \
    X('h', "help", NULL, "this text")

#define OPTION_COUNT_ONE(s, l, a, h) +1
enum { OPTION_COUNT = 0 RUN_OPTIONS(OPTION_COUNT_ONE) };

struct option_row {
    char short_name;
    const char *long_name, *argument, *help;
};

static const struct option_row rows[] = {
#define OPTION_ROW(s, l, a, h) {s, l, a, h},
    RUN_OPTIONS(OPTION_ROW)
#undef OPTION_ROW
};

int options_usage_error(const char *command, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("subhost: ", stderr);
    if (*command)
        fprintf(stderr, "%s: ", command);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\nTry `subhost %s%s--help`.\n", command, *command ? " " : "");
    va_end(args);
    return STATUS_FAILED;
}

void options_print_run_help(void)
{
    puts("Usage: subhost run [OPTION...] FILE|- [ARG...]\n"
         "       subhost run [OPTION...] -m MODULE [ARG...]\n"
         "       subhost run [OPTION...] -c CODE [ARG...]\n\n"
         "Runs a Python program in an interpreter of its own inside this process, as\n"
         "`python` would run it.\n\nOptions:");
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        char name[64];
        snprintf(name, sizeof name, "%c%c%s%s%s%s%s", rows[i].short_name ? '-' : ' ',
                 rows[i].short_name ? rows[i].short_name : ' ',
                 rows[i].long_name && rows[i].short_name ? ", " : "  ",
                 rows[i].long_name ? "--" : "",
                 rows[i].long_name ? rows[i].long_name : "", rows[i].argument ? " " : "",
                 rows[i].argument ? rows[i].argument : "");
        printf("  %-22s %s\n", name, rows[i].help);
    }
    puts("\nExit status: the program's; 124 its deadline passed; 130, 143 ended by "
         "SIGINT,\n"
         "SIGTERM; 137 it had to be abandoned; 125 subhost failed; 126 the program "
         "cannot\n"
         "be run; 127 not found. With several workers: the first failure's.\n\n"
         "The first SIGINT or SIGTERM cancels within the grace period, the second ends "
         "the\n"
         "process at once. SIGUSR1 prints the Python stacks of all interpreters.");
}

/* ---- values --------------------------------------------------------------------- */

void settings_add(struct settings *settings, const char *assignment, const char *origin)
{
    size_t size = (size_t)(settings->count + 1) * sizeof *settings->items;
    struct setting *items = assignment ? realloc(settings->items, size) : NULL;
    if (!items) {
        fputs("subhost: out of memory\n", stderr);
        exit(STATUS_FAILED);
    }
    items[settings->count++] = (struct setting){assignment, origin};
    settings->items = items;
}

/* An option that stands for a key: --grace 1s is --set cancel.grace=1s. */
static void set_key(struct options *options, const char *key, const char *value,
                    const char *origin)
{
    char *assignment = NULL;
    if (asprintf(&assignment, "%s=%s", key, value) < 0)
        assignment = NULL;
    settings_add(&options->settings, assignment, origin); /* lives as long as we do */
}

static bool parse_count(const char *text, long max, long *value)
{
    char *end;
    errno = 0;
    *value = strtol(text, &end, 10);
    return *text && !*end && !errno && *value >= 1 && *value <= max;
}

/* ---- names ---------------------------------------------------------------------- */

const char *options_did_you_mean(const char *word, const char *const *candidates)
{
    static char text[80];
    const char *best = NULL;
    size_t best_distance = 3;
    for (; *candidates; candidates++) {
        size_t d = edit_distance(word, *candidates);
        /* `time` for `timeout`: what is typed may also be a beginning. */
        if (strlen(word) >= 2 && strncmp(word, *candidates, strlen(word)) == 0)
            d = 1;
        if (d < best_distance) {
            best_distance = d;
            best = *candidates;
        }
    }
    text[0] = '\0';
    if (best)
        snprintf(text, sizeof text, "; did you mean %s?", best);
    return text;
}

/* The option at argv[index] that getopt did not know. */
static int unknown_option(const char *arg)
{
    const char *names[OPTION_COUNT + 1] = {NULL};
    static char dashed[OPTION_COUNT][32];
    size_t count = 0;
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (!rows[i].long_name)
            continue;
        snprintf(dashed[i], sizeof dashed[i], "--%s", rows[i].long_name);
        names[count++] = dashed[i];
    }
    char word[32];
    snprintf(word, sizeof word, "%s", arg);
    word[strcspn(word, "=")] = '\0';
    return options_usage_error(
        "run", "unknown option %s%s", arg,
        strncmp(arg, "--", 2) == 0 ? options_did_you_mean(word, names) : "");
}

/* ---- parsing -------------------------------------------------------------------- */

static int add_native(struct options *options, char *value)
{
    char *colon = strchr(value, ':');
    if (!colon || colon == value || !colon[1])
        return options_usage_error("run",
                                   "--native: '%s' is not LIB:SIGNATURE, as "
                                   "'libm.so.6:f64 pow(f64, f64)'",
                                   value);
    if (options->n_natives == MAX_NATIVES)
        return options_usage_error("run", "--native: at most %d functions", MAX_NATIVES);
    *colon = '\0';
    options->natives[options->n_natives++] =
        (struct option_native){.library = value, .signature = colon + 1};
    return 0;
}

/* `typed`: the option as the user wrote it. */
static int take_value(struct options *options, const char *name, char *value,
                      const char *typed)
{
    long count;
    if (strcmp(name, "workers") == 0) {
        if (!parse_count(value, MAX_WORKERS, &count))
            return options_usage_error("run", "%s: '%s' is not a number from 1 to %d",
                                       typed, value, MAX_WORKERS);
        options->workers = (int)count;
    } else if (strcmp(name, "gil") == 0) {
        if (strcmp(value, "own") != 0 && strcmp(value, "shared") != 0)
            return options_usage_error("run", "--gil: '%s' is neither own nor shared",
                                       value);
        set_key(options, "interpreter.gil", value, "--gil");
    } else if (strcmp(name, "isolation") == 0) {
        if (strcmp(value, "interpreter") != 0 && strcmp(value, "process") != 0)
            return options_usage_error(
                "run", "--isolation: '%s' is neither interpreter nor process", value);
        options->isolation =
            value[0] == 'p' ? SUBHOST_ISOLATION_PROCESS : SUBHOST_ISOLATION_INTERPRETER;
    } else if (strcmp(name, "timeout") == 0 || strcmp(name, "grace") == 0) {
        bool is_timeout = name[0] == 't';
        int64_t ns;
        if (subhost_duration(value, &ns))
            return options_usage_error(
                "run", "--%s: '%s' is not a duration (500ms, 1.5s, 2m, or seconds)", name,
                value);
        set_key(options, is_timeout ? "limits.timeout" : "cancel.grace", value,
                is_timeout ? "--timeout" : "--grace");
    } else if (strcmp(name, "policy") == 0) {
        options->policy = value;
    } else if (strcmp(name, "set") == 0) {
        settings_add(&options->settings, value, "--set");
    } else if (strcmp(name, "native") == 0) {
        return add_native(options, value);
    } else if (strcmp(name, "trail") == 0) {
        set_key(options, "audit.trail", value, "--trail");
    } else if (strcmp(name, "stats") == 0) {
        options->stats = true;
    } else if (strcmp(name, "capture") == 0) {
        set_key(options, "output.capture", "true", "--capture");
    } else {
        options->help = true;
    }
    return 0;
}

static const struct option_row *find_short(int c)
{
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (rows[i].short_name == c)
            return &rows[i];
    return NULL;
}

/* What stands behind the options: the program and its arguments. */
static int take_program(int argc, char **argv, int index, struct options *options)
{
    if (!options->source) {
        if (index >= argc)
            return options_usage_error("run",
                                       "no program: FILE, -, -m MODULE or -c CODE");
        options->kind = SUBHOST_PROGRAM_FILE;
        options->source = argv[index++];
    }
    options->argc = argc - index;
    options->argv = argv + index;
    return 0;
}

int options_parse_run(int argc, char **argv, struct options *options)
{
    struct option long_options[OPTION_COUNT + 1] = {{0}};
    char short_options[2 * OPTION_COUNT + 3] = "+:"; /* stop at FILE; ':' when missing */
    size_t long_count = 0, at = 2;
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (rows[i].long_name)
            long_options[long_count++] = (struct option){
                rows[i].long_name, rows[i].argument ? required_argument : no_argument,
                NULL, 256 + (int)i};
        if (rows[i].short_name) {
            short_options[at++] = rows[i].short_name;
            if (rows[i].argument)
                short_options[at++] = ':';
        }
    }
    *options = (struct options){.workers = 1};
    opterr = 0;
    optind = 1;
    for (;;) {
        int index = optind;
        int c = getopt_long(argc, argv, short_options, long_options, NULL);
        if (c == -1)
            break;
        if (c == '?')
            return unknown_option(argv[index]);
        if (c == ':')
            return options_usage_error("run", "%s needs an argument", argv[index]);
        if (c == 'c' || c == 'm') {
            options->kind = c == 'c' ? SUBHOST_PROGRAM_CODE : SUBHOST_PROGRAM_MODULE;
            options->source = optarg;
            break; /* the rest is the program's, dashes or not */
        }
        const struct option_row *row = c >= 256 ? &rows[c - 256] : find_short(c);
        char typed[32] = {'-', (char)c};
        if (c >= 256)
            snprintf(typed, sizeof typed, "--%s", row->long_name);
        int status = take_value(options, row->long_name, optarg, typed);
        if (status)
            return status;
        if (options->help)
            return 0;
    }
    return take_program(argc, argv, optind, options);
}
