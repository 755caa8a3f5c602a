/* The command line of `subhost run`: see run_options.c. */
#ifndef RUNNER_RUN_OPTIONS_H
#define RUNNER_RUN_OPTIONS_H

#include "options.h"

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

#endif
