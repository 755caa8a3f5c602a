/* What the runner's command lines have in common: see options.c. */
#ifndef RUNNER_OPTIONS_H
#define RUNNER_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <subhost.h>

/* Exit statuses of the runner's own (env(1), timeout(1), CONTRACT). */
enum {
    STATUS_FLUSH_FAILED =
        120, /* python's, for a standard stream that cannot be written */
    STATUS_TIMED_OUT = 124,
    STATUS_FAILED = 125,
    STATUS_CANNOT_RUN = 126,
    STATUS_NOT_FOUND = 127,
    STATUS_KILLED = 137,
};

/* Keys of the policy that the command line sets, in their order. */
struct settings {
    struct setting {
        const char *assignment, *origin; /* as long as the process */
    } * items;
    int count;
};

/* Adds one. Out of memory ends the process: there is nothing to give up yet. */
void settings_add(struct settings *settings, const char *assignment, const char *origin);
/* An option that stands for a key: --grace 1s is --set cancel.grace=1s. */
void settings_set(struct settings *settings, const char *key, const char *value,
                  const char *origin);

/* C functions to bind: `--native LIB:SIGNATURE`. */
enum { MAX_NATIVES = 256 };
struct natives {
    struct native {
        const char *library, *signature; /* as long as the process */
    } items[MAX_NATIVES];
    int count;
};

/* Adds what was typed, which is cut in two. 0, or an exit status after a message. */
int options_add_native(const char *command, struct natives *natives, char *value);

/* One option of a command: short name (0: none), long name (NULL: none), its argument's name
 * (NULL: none), help. */
struct option_row {
    char short_name;
    const char *long_name, *argument, *help;
};

/* A row of a command's list of options, which is X(short, long, argument, help). */
#define OPTION_ROW(s, l, a, h) {s, l, a, h},

struct option_table {
    const char *command;           /* in messages: "run" */
    const struct option_row *rows; /* at most OPTION_ROWS_MAX */
    size_t count;
    int help_column; /* where the help begins in print_help()'s lines */
    /* At the first word that is no option; else they may stand anywhere. */
    bool stop_early;
};

enum { OPTION_ROWS_MAX = 32, OPTIONS_STOP = -1 };

/* Reads the options; calls `take` for each, with the option as the user wrote it. `take`
 * returns 0, OPTIONS_STOP when the rest is none of its options, or an exit status after a
 * message. 0, with getopt's optind at the first word that is not an option's, or such an exit
 * status. */
int options_read(const struct option_table *table, int argc, char **argv,
                 int (*take)(void *data, const struct option_row *row, char *value,
                             const char *typed),
                 void *data);
/* A line for each option on standard output. */
void options_print(const struct option_table *table);

/* An option's value: 0, or STATUS_FAILED after a message which names `typed`. */
int options_take_count(const char *command, const char *typed, const char *value,
                       long min, long max, long *count);
int options_take_choice(const char *command, const char *typed, const char *value,
                        const char *first, const char *second, bool *is_second);
int options_check_duration(const char *command, const char *typed, const char *value);

/* "; did you mean X?" for the candidate that is nearest to `word`, or "". The result is
 * static. */
const char *options_did_you_mean(const char *word, const char *const *candidates);

/* "subhost: ..." on stderr, and a hint where to look. Returns STATUS_FAILED. */
int options_usage_error(const char *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
