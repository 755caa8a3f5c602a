/* The command line of `subhost map`. Options may stand before and behind the function. */
#define _GNU_SOURCE
#include "map.h"

#include <getopt.h>
#include <stdio.h>
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
    X(0, "fresh", NULL, "each item in an interpreter that has had none before")          \
    X(0, "reset", NULL, "after each item the program's modules are forgotten, and more") \
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

static const struct option_row rows[] = {MAP_OPTIONS(OPTION_ROW)};

static const struct option_table table = {
    .command = "map",
    .rows = rows,
    .count = sizeof rows / sizeof *rows,
    .help_column = 25,
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
    options_print(&table);
    puts(
        "\nThe current directory is on sys.path. What the function prints goes to "
        "standard\nerror.\n\n"
        "Exit status: 0 every item was ok; 1 some were not; 125 subhost failed; 126 the\n"
        "function cannot be imported or called; 127 there is none of that name; 130, "
        "143\n"
        "ended by SIGINT, SIGTERM.");
}

static int take(void *data, const struct option_row *row, char *value, const char *typed)
{
    struct map_options *options = data;
    struct settings *settings = &options->settings;
    const char *name = row->long_name;
    long count = 0;
    bool second = false;
    int status = 0;
    if (strcmp(name, "jobs") == 0) {
        status = options_take_count("map", typed, value, 1, MAX_JOBS, &count);
        options->jobs = (int)count;
    } else if (strcmp(name, "retry") == 0) {
        status = options_take_count("map", typed, value, 0, MAX_RETRY, &count);
        options->retry = (int)count;
    } else if (strcmp(name, "recycle") == 0) {
        status = options_take_count("map", typed, value, 1, INT32_MAX, &count);
        options->recycle = (uint64_t)count;
    } else if (strcmp(name, "timeout") == 0) {
        status = options_check_duration("map", typed, value);
        settings_set(settings, "limits.timeout", value, "--timeout");
    } else if (strcmp(name, "grace") == 0) {
        status = options_check_duration("map", typed, value);
        settings_set(settings, "cancel.grace", value, "--grace");
    } else if (strcmp(name, "fresh") == 0) {
        options->fresh = true;
    } else if (strcmp(name, "reset") == 0) {
        options->reset = true;
    } else if (strcmp(name, "gil") == 0) {
        status = options_take_choice("map", typed, value, "own", "shared", &second);
        settings_set(settings, "interpreter.gil", value, "--gil");
    } else if (strcmp(name, "policy") == 0) {
        options->policy = value;
    } else if (strcmp(name, "set") == 0) {
        settings_add(settings, value, "--set");
    } else if (strcmp(name, "isolation") == 0) {
        status =
            options_take_choice("map", typed, value, "interpreter", "process", &second);
        options->isolation =
            second ? SUBHOST_ISOLATION_PROCESS : SUBHOST_ISOLATION_INTERPRETER;
    } else if (strcmp(name, "native") == 0) {
        status = options_add_native("map", &options->natives, value);
    } else if (strcmp(name, "trail") == 0) {
        settings_set(settings, "audit.trail", value, "--trail");
    } else if (strcmp(name, "resume") == 0) {
        options->resume = value;
    } else if (strcmp(name, "unordered") == 0) {
        options->unordered = true;
    } else if (strcmp(name, "stats") == 0) {
        options->stats = true;
    } else {
        options->help = true;
        status = OPTIONS_STOP;
    }
    return status;
}

int map_parse(int argc, char **argv, struct map_options *options)
{
    *options = (struct map_options){0};
    int status = options_read(&table, argc, argv, take, options);
    if (status || options->help)
        return status;
    if (optind >= argc)
        return options_usage_error("map", "no function: MODULE:FUNCTION, as json:dumps");
    options->function = argv[optind++];
    options->n_files = argc - optind;
    options->files = argv + optind;
    return 0;
}
