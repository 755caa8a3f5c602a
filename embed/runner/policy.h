/* `subhost policy`, and --policy and --set of the other commands: see policy.c. */
#ifndef RUNNER_POLICY_H
#define RUNNER_POLICY_H

#include <subhost.h>

#include "options.h"

/* Parses what follows `subhost policy`, and does it. An exit status. */
int policy_command(int argc, char **argv);

/* The policy of --policy with what --set and the options that stand for keys say; NULL after
 * a message on stderr. `command` is for that message. The caller frees it. */
subhost_policy *policy_of_options(const char *command, const char *name,
                                  const struct settings *settings);

#endif
