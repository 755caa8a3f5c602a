/* The command line of `subhost map`. Options may stand before and behind the function. */
#define _GNU_SOURCE
#include "map.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_JOBS 1024
#define MAX_RETRY 1000000

/* One list: short name (0: none), long name, argument's name (NULL: none), help. */
#define MAP_OPTIONS(X)                                                                   \
    X('j', "jobs", "N", "so many items at a time (default: the CPUs)")                   \
    X(0, "unordered", NULL, "results as they come, not in the input's order")            \
    X(0, "timeout", "DUR", "for each item: 500ms, 1.5s, 2m; a bare number is seconds")   \
    X(0, "grace", "DUR", "how long an item may take to end after that (default 2s)")     \
    X(0, "retry", "N", "try an item that failed up to N times more")                     \
    X(0, "resume", "FILE", "go on where a run that was stopped has left off")            \
    X(0, "recycle", "N", "a fresh interpreter after N items of one (default: never)")    \
    X(0, "gil", "own|shared", "a GIL of its own (default), or the main one's")           \
    X(0, "isolation", "interpreter|process",                                             \
      "in this process (default), or in forked children")                                \
    X(0, "policy", "NAME|FILE", "a preset or a TOML file: what the function may do")     \
    X(0, "set", "KEY=VALUE", "one key of the policy; `subhost policy --help` has all")   \
    X(0, "native", "LIB:SIGNATURE",                                                      \
      "bind a C function for subhost.native: 'libm.so.6:f64 pow(f64, f64)'")             \
    X(0, "trail", "FILE", "write what the host does and why, one JSON object a line")    \
    X(0, "stats", NULL, "at the end: items, workers, cancels, peak RSS")                 \
    X('h', "help", NULL, "this text")

#define OPTION_COUNT_ONE(s, l, a, h) +1
enum { OPTION_COUNT = 0 MAP_OPTIONS(OPTION_COUNT_ONE) };

static const struct option_row {
    char short_name;
    const char *long_name, *argument, *help;
} rows[] = {
#define OPTION_ROW(s, l, a, h) {s, l, a, h},
    MAP_OPTIONS(OPTION_ROW)
#undef OPTION_ROW
};

void map_print_help(void)
{
    puts("Usage: subhost map [OPTION...] MODULE:FUNCTION [FILE...]\n\n"
         "Reads one JSON value a line from the files, or from standard input, calls\n"
         "FUNCTION(value) in several interpreters at once, and writes one JSON object a "
         "line:\n\n"
         "  {\"index\": 0, \"ok\": true, \"value\": ...}\n"
         "  {\"index\": 7, \"ok\": false, \"kind\": "
         "\"raised|timed-out|killed|bad-input\",\n"
         "   \"error\": \"...\", \"traceback\": \"...\"}\n\nOptions:");
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        char name[64];
        snprintf(name, sizeof name, "%c%c%s--%s%s%s", rows[i].short_name ? '-' : ' ',
                 rows[i].short_name ? rows[i].short_name : ' ',
                 rows[i].short_name ? ", " : "  ", rows[i].long_name,
                 rows[i].argument ? " " : "", rows[i].argument ? rows[i].argument : "");
        printf("  %-22s %s\n", name, rows[i].help);
    }
    puts(
        "\nThe current directory is on sys.path. What the function prints goes to "
        "standard\nerror.\n\n"
        "Exit status: 0 every item was ok; 1 some were not; 125 subhost failed; 126 the\n"
        "function cannot be imported or called; 127 there is none of that name; 130, "
        "143\n"
        "ended by SIGINT, SIGTERM.");
}

static bool parse_count(const char *text, long min, long max, long *value)
{
    char *end;
    errno = 0;
    *value = strtol(text, &end, 10);
    return *text && !*end && !errno && *value >= min && *value <= max;
}

static int bad_count(const char *typed, const char *value, long min, long max)
{
    return options_usage_error("map", "%s: '%s' is not a number from %ld to %ld", typed,
                               value, min, max);
}

static int take_choice(const char *name, const char *value, const char *first,
                       const char *second, bool *is_second)
{
    *is_second = strcmp(value, second) == 0;
    if (*is_second || strcmp(value, first) == 0)
        return 0;
    return options_usage_error("map", "--%s: '%s' is neither %s nor %s", name, value,
                               first, second);
}

/* An option that stands for a key: --grace 1s is --set cancel.grace=1s. */
static void set_key(struct map_options *options, const char *key, const char *value,
                    const char *origin)
{
    char *assignment = NULL;
    if (asprintf(&assignment, "%s=%s", key, value) < 0)
        assignment = NULL;
    settings_add(&options->settings, assignment, origin); /* lives as long as we do */
}

static int take_value(struct map_options *options, const char *name, char *value,
                      const char *typed)
{
    long count;
    bool second = false;
    int status = 0;
    if (strcmp(name, "jobs") == 0) {
        if (!parse_count(value, 1, MAX_JOBS, &count))
            return bad_count(typed, value, 1, MAX_JOBS);
        options->jobs = (int)count;
    } else if (strcmp(name, "retry") == 0) {
        if (!parse_count(value, 0, MAX_RETRY, &count))
            return bad_count(typed, value, 0, MAX_RETRY);
        options->retry = (int)count;
    } else if (strcmp(name, "recycle") == 0) {
        if (!parse_count(value, 1, INT32_MAX, &count))
            return bad_count(typed, value, 1, INT32_MAX);
        options->recycle = (uint64_t)count;
    } else if (strcmp(name, "timeout") == 0 || strcmp(name, "grace") == 0) {
        int64_t ns;
        bool is_timeout = name[0] == 't';
        if (subhost_duration(value, &ns))
            return options_usage_error(
                "map", "--%s: '%s' is not a duration (500ms, 1.5s, 2m, or seconds)", name,
                value);
        set_key(options, is_timeout ? "limits.timeout" : "cancel.grace", value,
                is_timeout ? "--timeout" : "--grace");
    } else if (strcmp(name, "gil") == 0) {
        status = take_choice(name, value, "own", "shared", &second);
        if (!status)
            set_key(options, "interpreter.gil", value, "--gil");
    } else if (strcmp(name, "policy") == 0) {
        options->policy = value;
    } else if (strcmp(name, "set") == 0) {
        settings_add(&options->settings, value, "--set");
    } else if (strcmp(name, "isolation") == 0) {
        status = take_choice(name, value, "interpreter", "process", &second);
        options->isolation =
            second ? SUBHOST_ISOLATION_PROCESS : SUBHOST_ISOLATION_INTERPRETER;
    } else if (strcmp(name, "native") == 0) {
        status = options_add_native("map", &options->natives, value);
    } else if (strcmp(name, "trail") == 0) {
        set_key(options, "audit.trail", value, "--trail");
    } else if (strcmp(name, "resume") == 0) {
        options->resume = value;
    } else if (strcmp(name, "unordered") == 0) {
        options->unordered = true;
    } else if (strcmp(name, "stats") == 0) {
        options->stats = true;
    } else {
        options->help = true;
    }
    return status;
}

static int unknown_option(const char *arg)
{
    const char *names[OPTION_COUNT + 1] = {NULL};
    static char dashed[OPTION_COUNT][32];
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        snprintf(dashed[i], sizeof dashed[i], "--%s", rows[i].long_name);
        names[i] = dashed[i];
    }
    char word[32];
    snprintf(word, sizeof word, "%s", arg);
    word[strcspn(word, "=")] = '\0';
    return options_usage_error(
        "map", "unknown option %s%s", arg,
        strncmp(arg, "--", 2) == 0 ? options_did_you_mean(word, names) : "");
}

static const struct option_row *find_row(int c)
{
    if (c >= 256)
        return &rows[c - 256];
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (rows[i].short_name == c)
            return &rows[i];
    return NULL;
}

/* The options as getopt_long() takes them. */
static void make_tables(struct option *long_options, char *short_options)
{
    size_t at = 1;
    short_options[0] = ':';
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        long_options[i] = (struct option){
            rows[i].long_name, rows[i].argument ? required_argument : no_argument, NULL,
            256 + (int)i};
        if (!rows[i].short_name)
            continue;
        short_options[at++] = rows[i].short_name;
        if (rows[i].argument)
            short_options[at++] = ':';
    }
}

int map_parse(int argc, char **argv, struct map_options *options)
{
    struct option long_options[OPTION_COUNT + 1] = {{0}};
    char short_options[2 * OPTION_COUNT + 2] = "";
    make_tables(long_options, short_options);
    *options = (struct map_options){0};
    opterr = 0;
    optind = 1;
    for (;;) {
        int c = getopt_long(argc, argv, short_options, long_options, NULL);
        if (c == -1)
            break;
        if (c == '?')
            return unknown_option(argv[optind - 1]);
        if (c == ':')
            return options_usage_error("map", "%s needs an argument", argv[optind - 1]);
        const struct option_row *row = find_row(c);
        char typed[40];
        snprintf(typed, sizeof typed, c >= 256 ? "--%s" : "-%.1s",
                 c >= 256 ? row->long_name : (char[]){(char)c, '\0'});
        int status = take_value(options, row->long_name, optarg, typed);
        if (status)
            return status;
        if (options->help)
            return 0;
    }
    if (optind >= argc)
        return options_usage_error("map", "no function: MODULE:FUNCTION, as json:dumps");
    options->function = argv[optind++];
    options->n_files = argc - optind;
    options->files = argv + optind;
    return 0;
}
