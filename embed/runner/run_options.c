/* The command line of `subhost run`. Options stand before FILE, -m or -c, as python's do; what
 * follows belongs to the program. */
#define _GNU_SOURCE
#include "run_options.h"

#include <getopt.h>
#include <stdio.h>
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

static const struct option_row rows[] = {RUN_OPTIONS(OPTION_ROW)};

static const struct option_table table = {
    .command = "run",
    .rows = rows,
    .count = sizeof rows / sizeof *rows,
    .help_column = 25,
    .stop_early = true,
};

void options_print_run_help(void)
{
    puts("Usage: subhost run [OPTION...] FILE|- [ARG...]\n"
         "       subhost run [OPTION...] -m MODULE [ARG...]\n"
         "       subhost run [OPTION...] -c CODE [ARG...]\n\n"
         "Runs a Python program in an interpreter of its own inside this process, as\n"
         "`python` would run it.\n\nOptions:");
    options_print(&table);
    puts("\nExit status: the program's; 124 its deadline passed; 130, 143 ended by "
         "SIGINT,\n"
         "SIGTERM; 137 it had to be abandoned; 125 subhost failed; 126 the program "
         "cannot\n"
         "be run; 127 not found. With several workers: the first failure's.\n\n"
         "The first SIGINT or SIGTERM cancels within the grace period, the second ends "
         "the\n"
         "process at once. SIGUSR1 prints the Python stacks of all interpreters.");
}

/* ---- parsing -------------------------------------------------------------------- */

static int take(void *data, const struct option_row *row, char *value, const char *typed)
{
    struct options *options = data;
    struct settings *settings = &options->settings;
    const char *name = row->long_name;
    long count = 0;
    bool second = false;
    int status = 0;
    if (!name) { /* -c or -m: the rest is the program's, dashes or not */
        options->kind =
            row->short_name == 'c' ? SUBHOST_PROGRAM_CODE : SUBHOST_PROGRAM_MODULE;
        options->source = value;
        return OPTIONS_STOP;
    }
    if (strcmp(name, "workers") == 0) {
        status = options_take_count("run", typed, value, 1, MAX_WORKERS, &count);
        options->workers = (int)count;
    } else if (strcmp(name, "gil") == 0) {
        status = options_take_choice("run", typed, value, "own", "shared", &second);
        settings_set(settings, "interpreter.gil", value, "--gil");
    } else if (strcmp(name, "isolation") == 0) {
        status =
            options_take_choice("run", typed, value, "interpreter", "process", &second);
        options->isolation =
            second ? SUBHOST_ISOLATION_PROCESS : SUBHOST_ISOLATION_INTERPRETER;
    } else if (strcmp(name, "timeout") == 0) {
        status = options_check_duration("run", typed, value);
        settings_set(settings, "limits.timeout", value, "--timeout");
    } else if (strcmp(name, "grace") == 0) {
        status = options_check_duration("run", typed, value);
        settings_set(settings, "cancel.grace", value, "--grace");
    } else if (strcmp(name, "policy") == 0) {
        options->policy = value;
    } else if (strcmp(name, "set") == 0) {
        settings_add(settings, value, "--set");
    } else if (strcmp(name, "native") == 0) {
        status = options_add_native("run", &options->natives, value);
    } else if (strcmp(name, "trail") == 0) {
        settings_set(settings, "audit.trail", value, "--trail");
    } else if (strcmp(name, "stats") == 0) {
        options->stats = true;
    } else if (strcmp(name, "capture") == 0) {
        settings_set(settings, "output.capture", "true", "--capture");
    } else {
        options->help = true;
        status = OPTIONS_STOP;
    }
    return status;
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
    *options = (struct options){.workers = 1};
    int status = options_read(&table, argc, argv, take, options);
    return status || options->help ? status : take_program(argc, argv, optind, options);
}
