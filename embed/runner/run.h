/* `subhost run`: see run.c. */
#ifndef RUNNER_RUN_H
#define RUNNER_RUN_H

#include "run_options.h"

/* Prints which of CPython's internals this machine's lets the host use. The exit status. */
int run_print_abilities(void);

/* The host's options as the environment has them. */
subhost_options run_host_options(void);
/* Before the first interpreter. */
int run_bind_natives(subhost_host *host, const struct natives *natives,
                     subhost_error **err);
/* The host's counters, on stderr. */
void run_print_stats(subhost_host *host);
/* Says on stderr what the trail lacks. */
void run_check_trail(subhost_host *host);

/* Runs the program and returns the exit status. */
int run_command(const struct options *options);

#endif
