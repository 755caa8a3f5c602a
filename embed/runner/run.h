/* `subhost run`: see run.c. */
#ifndef RUNNER_RUN_H
#define RUNNER_RUN_H

#include "options.h"

/* Runs the program and returns the exit status. */
int run_command(const struct options *options);

#endif
