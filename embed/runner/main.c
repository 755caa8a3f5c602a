/* The runner: a command line over subhost.h and nothing else. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

#include <subhost.h>

#include "audit.h"
#include "map.h"
#include "run_options.h"
#include "policy.h"
#include "run.h"

/* Output that could not be written is a failure, and not silence. */
static int flushed(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    perror("subhost: standard output");
    return STATUS_FAILED;
}

static int main_run(int argc, char **argv)
{
    static struct options options; /* with what it owns as long as the process */
    int status = options_parse_run(argc, argv, &options);
    if (status)
        return status;
    if (options.help) {
        options_print_run_help();
        return flushed(0);
    }
    return run_command(&options);
}

static int main_policy(int argc, char **argv)
{
    return flushed(policy_command(argc, argv));
}

static int main_audit(int argc, char **argv)
{
    return flushed(audit_command(argc, argv));
}

static int main_map(int argc, char **argv)
{
    static struct map_options options; /* with what it owns as long as the process */
    int status = map_parse(argc, argv, &options);
    if (status)
        return status;
    if (options.help) {
        map_print_help();
        return flushed(0);
    }
    return map_command(&options);
}

/* One list: command, its function, help. */
#define COMMANDS(X)                                                                      \
    X(run, "run a Python program in an interpreter of its own")                          \
    X(map, "call a function for each of many JSON lines, several at once")               \
    X(audit, "examine CPython, and what the host does with it, on this machine")         \
    X(policy, "list, show or check policies: what programs may do")

static void print_help(void)
{
    puts("Usage: subhost COMMAND [OPTION...] ...\n"
         "       subhost --version | --help | COMMAND --help\n\n"
         "Runs Python programs in subinterpreters of one process, with deadlines that "
         "hold\n"
         "and a Ctrl-C that always works.\n\nCommands:");
#define COMMAND_HELP(name, help) printf("  %-8s %s\n", #name, help);
    COMMANDS(COMMAND_HELP)
#undef COMMAND_HELP
}

int main(int argc, char **argv)
{
    static const char *const names[] = {
#define COMMAND_NAME(name, help) #name,
        COMMANDS(COMMAND_NAME)
#undef COMMAND_NAME
            "--version",
        "--help", NULL};
    if (argc < 2)
        return options_usage_error("", "no command");
    const char *command = argv[1];
    if (strcmp(command, "--help") == 0 || strcmp(command, "-h") == 0) {
        print_help();
        return flushed(0);
    }
    if (strcmp(command, "--version") == 0) {
        puts(subhost_version_details());
        return flushed(run_print_abilities());
    }
#define COMMAND_MAIN(name, help)                                                         \
    if (strcmp(command, #name) == 0)                                                     \
        return main_##name(argc - 1, argv + 1);
    COMMANDS(COMMAND_MAIN)
#undef COMMAND_MAIN
    return options_usage_error("", "unknown %s %s%s",
                               command[0] == '-' ? "option" : "command", command,
                               options_did_you_mean(command, names));
}
