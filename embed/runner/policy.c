/* `subhost policy`: lists, shows and checks policies. */
#include "policy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- list ------------------------------------------------------------------------- */

static int list(void)
{
    const char *name, *serves;
    for (size_t i = 0; (name = subhost_policy_preset_at(i, &serves)); i++)
        printf("%-8s  %s\n", name, serves);
    return 0;
}

/* ---- check ------------------------------------------------------------------------ */

static void print_problem(const char *line, void *data) { fprintf(data, "%s\n", line); }

static int check(const char *name)
{
    subhost_error *err = NULL;
    int count = subhost_policy_check(name, print_problem, stdout, &err);
    if (count >= 0)
        return count > 0 ? 1 : 0;
    fprintf(stderr, "subhost: policy check: %s\n", subhost_error_message(err));
    subhost_error_free(err);
    return STATUS_FAILED;
}

/* ---- show ------------------------------------------------------------------------- */

static const char *nearest_preset(const char *name)
{
    const char *names[17] = {NULL};
    for (size_t i = 0; i < 16; i++)
        names[i] = subhost_policy_preset_at(i, NULL);
    return options_did_you_mean(name, names);
}

static void explain_load(const char *command, const char *name, subhost_error *err)
{
    const char *hint = strpbrk(name, "./") ? "" : nearest_preset(name);
    fprintf(stderr, "subhost: %s: %s%s\n", command, subhost_error_message(err), hint);
}

subhost_policy *policy_of_options(const char *command, const char *name,
                                  const struct settings *settings)
{
    subhost_policy *policy = NULL;
    subhost_error *err = NULL;
    if (subhost_policy_load(name, &policy, &err)) {
        explain_load(command, name ? name : "default", err);
        subhost_error_free(err);
        return NULL;
    }
    int code = 0;
    const char *origin = NULL;
    for (int i = 0; i < settings->count && !code; i++) {
        origin = settings->items[i].origin;
        code = subhost_policy_set(policy, settings->items[i].assignment, origin, &err);
    }
    if (!code) {
        origin = name ? "--policy" : "--set";
        code = subhost_policy_is_valid(policy, &err);
    }
    if (!code)
        return policy;
    fprintf(stderr, "subhost: %s: %s: %s\n", command, origin, subhost_error_message(err));
    subhost_error_free(err);
    subhost_policy_free(policy);
    return NULL;
}

static int show(const char *name, const struct settings *settings)
{
    subhost_policy *policy = policy_of_options("policy show", name, settings);
    if (!policy)
        return STATUS_FAILED;
    const char *text = subhost_policy_show(policy);
    if (text)
        fputs(text, stdout);
    else
        fprintf(stderr, "subhost: policy show: out of memory\n");
    subhost_policy_free(policy);
    return text ? 0 : STATUS_FAILED;
}

/* ---- the command line --------------------------------------------------------------- */

static void print_help(void)
{
    puts("Usage: subhost policy list\n"
         "       subhost policy show [--set KEY=VALUE]... NAME|FILE\n"
         "       subhost policy check FILE...\n\n"
         "A policy says what hosted code may do and how the host treats it: a preset, or "
         "a\n"
         "TOML file with `version = 1` and, if need be, `extends = \"PRESET\"`.\n\n"
         "  list    the presets, and whom they serve\n"
         "  show    every key, its value, and where that comes from\n"
         "  check   every problem of a file, without running anything: status 0 none, 1 "
         "some,\n"
         "          125 it could not be read\n\n"
         "Keys, their defaults, and what they may be:");
    subhost_policy_key key = SUBHOST_POLICY_KEY_INIT;
    for (size_t i = 0; subhost_policy_key_at(i, &key) == 0; i++) {
        const char *allowed = *key.allowed ? key.allowed : key.type;
        printf("\n  %s = %s  (%s)\n      %s\n", key.name, *key.value ? key.value : "\"\"",
               allowed, key.help);
    }
}

static int unknown_word(const char *what, const char *word)
{
    static const char *const words[] = {"list", "show", "check", "--set", "--help", NULL};
    return options_usage_error("policy", "unknown %s %s%s", what, word,
                               options_did_you_mean(word, words));
}

/* Takes --set out of the arguments; what is left, or -1 after a message. */
static int take_settings(int argc, char **argv, struct settings *settings)
{
    int left = 0;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "--set=", 6) == 0) {
            settings_add(settings, argv[i] + 6, "--set");
        } else if (strcmp(argv[i], "--set") == 0) {
            if (++i == argc)
                return options_usage_error("policy", "--set needs an argument"), -1;
            settings_add(settings, argv[i], "--set");
        } else if (argv[i][0] == '-' && argv[i][1]) {
            return unknown_word("option", argv[i]), -1;
        } else {
            argv[left++] = argv[i];
        }
    }
    return left;
}

static int run(const char *word, int argc, char **argv, const struct settings *settings)
{
    bool is_show = strcmp(word, "show") == 0, is_check = strcmp(word, "check") == 0;
    if (!is_show && settings->count > 0)
        return options_usage_error("policy", "--set belongs to `policy show`");
    if (strcmp(word, "list") == 0)
        return argc ? options_usage_error("policy", "list takes no argument: %s", argv[0])
                    : list();
    if (is_show)
        return argc == 1 ? show(argv[0], settings)
                         : options_usage_error("policy", "show takes one NAME or FILE");
    if (!is_check)
        return unknown_word("command", word);
    if (argc == 0)
        return options_usage_error("policy", "check takes a FILE");
    int worst = 0;
    for (int i = 0; i < argc; i++) {
        int status = check(argv[i]);
        worst = status > worst ? status : worst;
    }
    return worst;
}

int policy_command(int argc, char **argv)
{
    struct settings settings = {0};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help();
            return 0;
        }
    }
    if (argc < 2)
        return options_usage_error("policy", "list, show or check?");
    int left = take_settings(argc - 2, argv + 2, &settings);
    int status = left < 0 ? STATUS_FAILED : run(argv[1], left, argv + 2, &settings);
    free(settings.items);
    return status;
}
