/* The runner's command line: see options.c. */
#ifndef RUNNER_OPTIONS_H
#define RUNNER_OPTIONS_H

#include <stdbool.h>
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

struct options {
    enum subhost_program_kind kind;
    const char *source; /* FILE, MODULE or CODE */
    int argc;
    char **argv;
    int workers;
    enum subhost_isolation isolation;
    const char *policy; /* NULL: the default one */
    struct settings settings;
    struct natives natives;
    bool stats;
    bool help;
};

/* Parses what follows `subhost run`. 0, or an exit status after a message on stderr. */
int options_parse_run(int argc, char **argv, struct options *options);
void options_print_run_help(void);

/* "; did you mean X?" for the candidate that is nearest to `word`, or "". The result is
 * static. */
const char *options_did_you_mean(const char *word, const char *const *candidates);

/* "subhost: ..." on stderr, and a hint where to look. Returns STATUS_FAILED. */
int options_usage_error(const char *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
