/* `subhost audit`: see audit.c. */
#ifndef RUNNER_AUDIT_H
#define RUNNER_AUDIT_H

/* What follows `subhost audit`; argv[0] is that word. Returns the exit status. */
int audit_command(int argc, char **argv);

#endif
