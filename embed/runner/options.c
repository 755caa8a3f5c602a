/* What the runner's command lines have in common: reading options from a command's table, its
 * help, values, and what to say of mistakes. */
#define _GNU_SOURCE
#include "options.h"

#include "../edit_distance.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int options_usage_error(const char *command, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("subhost: ", stderr);
    if (*command)
        fprintf(stderr, "%s: ", command);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\nTry `subhost %s%s--help`.\n", command, *command ? " " : "");
    va_end(args);
    return STATUS_FAILED;
}

void options_print(const struct option_table *table)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct option_row *row = &table->rows[i];
        char name[64];
        snprintf(name, sizeof name, "%c%c%s%s%s%s%s", row->short_name ? '-' : ' ',
                 row->short_name ? row->short_name : ' ',
                 row->long_name && row->short_name ? ", " : "  ",
                 row->long_name ? "--" : "", row->long_name ? row->long_name : "",
                 row->argument ? " " : "", row->argument ? row->argument : "");
        printf("  %-*s %s\n", table->help_column - 3, name, row->help);
    }
}

/* ---- values --------------------------------------------------------------------- */

void settings_add(struct settings *settings, const char *assignment, const char *origin)
{
    size_t size = (size_t)(settings->count + 1) * sizeof *settings->items;
    struct setting *items = assignment ? realloc(settings->items, size) : NULL;
    if (!items) {
        fputs("subhost: out of memory\n", stderr);
        exit(STATUS_FAILED);
    }
    items[settings->count++] = (struct setting){assignment, origin};
    settings->items = items;
}

void settings_set(struct settings *settings, const char *key, const char *value,
                  const char *origin)
{
    char *assignment = NULL;
    if (asprintf(&assignment, "%s=%s", key, value) < 0)
        assignment = NULL;
    settings_add(settings, assignment, origin); /* lives as long as we do */
}

int options_take_count(const char *command, const char *typed, const char *value,
                       long min, long max, long *count)
{
    char *end;
    errno = 0;
    *count = strtol(value, &end, 10);
    if (*value && !*end && !errno && *count >= min && *count <= max)
        return 0;
    return options_usage_error(command, "%s: '%s' is not a number from %ld to %ld", typed,
                               value, min, max);
}

int options_take_choice(const char *command, const char *typed, const char *value,
                        const char *first, const char *second, bool *is_second)
{
    *is_second = strcmp(value, second) == 0;
    if (*is_second || strcmp(value, first) == 0)
        return 0;
    return options_usage_error(command, "%s: '%s' is neither %s nor %s", typed, value,
                               first, second);
}

int options_check_duration(const char *command, const char *typed, const char *value)
{
    int64_t ns;
    if (subhost_duration(value, &ns) == 0)
        return 0;
    return options_usage_error(command,
                               "%s: '%s' is not a duration (500ms, 1.5s, 2m, or seconds)",
                               typed, value);
}

int options_add_native(const char *command, struct natives *natives, char *value)
{
    char *colon = strchr(value, ':');
    if (!colon || colon == value || !colon[1])
        return options_usage_error(command,
                                   "--native: '%s' is not LIB:SIGNATURE, as "
                                   "'libm.so.6:f64 pow(f64, f64)'",
                                   value);
    if (natives->count == MAX_NATIVES)
        return options_usage_error(command, "--native: at most %d functions",
                                   MAX_NATIVES);
    *colon = '\0';
    natives->items[natives->count++] =
        (struct native){.library = value, .signature = colon + 1};
    return 0;
}

/* ---- names ---------------------------------------------------------------------- */

const char *options_did_you_mean(const char *word, const char *const *candidates)
{
    static char text[80];
    const char *best = NULL;
    size_t best_distance = 3;
    for (; *candidates; candidates++) {
        size_t d = edit_distance(word, *candidates);
        /* `time` for `timeout`: what is typed may also be a beginning. */
        if (strlen(word) >= 2 && strncmp(word, *candidates, strlen(word)) == 0)
            d = 1;
        if (d < best_distance) {
            best_distance = d;
            best = *candidates;
        }
    }
    text[0] = '\0';
    if (best)
        snprintf(text, sizeof text, "; did you mean %s?", best);
    return text;
}

/* ---- reading -------------------------------------------------------------------- */

static int unknown_option(const struct option_table *table, const char *typed)
{
    static char dashed[OPTION_ROWS_MAX][32];
    const char *names[OPTION_ROWS_MAX + 1] = {NULL};
    size_t count = 0;
    for (size_t i = 0; i < table->count; i++) {
        if (!table->rows[i].long_name)
            continue;
        snprintf(dashed[i], sizeof dashed[i], "--%s", table->rows[i].long_name);
        names[count++] = dashed[i];
    }
    char word[64];
    snprintf(word, sizeof word, "%s", typed);
    word[strcspn(word, "=")] = '\0';
    return options_usage_error(
        table->command, "unknown option %s%s", typed,
        strncmp(typed, "--", 2) == 0 ? options_did_you_mean(word, names) : "");
}

/* The options as getopt_long() takes them. */
static void make_tables(const struct option_table *table, struct option *long_options,
                        char *short_options)
{
    /* ':' is what it returns where an argument is missing. */
    short_options = stpcpy(short_options, table->stop_early ? "+:" : ":");
    for (size_t i = 0; i < table->count; i++) {
        const struct option_row *row = &table->rows[i];
        if (row->long_name)
            *long_options++ = (struct option){
                row->long_name, row->argument ? required_argument : no_argument, NULL,
                256 + (int)i};
        if (!row->short_name)
            continue;
        *short_options++ = row->short_name;
        if (row->argument)
            *short_options++ = ':';
    }
}

static const struct option_row *find_row(const struct option_table *table, int c)
{
    if (c >= 256)
        return &table->rows[c - 256];
    for (size_t i = 0; i < table->count; i++)
        if (table->rows[i].short_name == c)
            return &table->rows[i];
    return NULL;
}

int options_read(const struct option_table *table, int argc, char **argv,
                 int (*take)(void *data, const struct option_row *row, char *value,
                             const char *typed),
                 void *data)
{
    struct option long_options[OPTION_ROWS_MAX + 1] = {{0}};
    char short_options[2 * OPTION_ROWS_MAX + 3] = "";
    make_tables(table, long_options, short_options);
    opterr = 0;
    optind = 0; /* glibc's getopt(3): anew */
    for (int c; (c = getopt_long(argc, argv, short_options, long_options, NULL)) != -1;) {
        bool is_wrong = c == '?' || c == ':';
        int letter = is_wrong ? optopt : c;
        char typed[64] = {'-', (char)letter};
        if (letter <= 0 || letter >= 256) /* a long one, which getopt has passed by */
            snprintf(typed, sizeof typed, is_wrong ? "%s" : "--%s",
                     is_wrong ? argv[optind - 1] : find_row(table, c)->long_name);
        if (c == '?')
            return unknown_option(table, typed);
        if (c == ':')
            return options_usage_error(table->command, "%s needs an argument", typed);
        int status = take(data, find_row(table, c), optarg, typed);
        if (status)
            return status == OPTIONS_STOP ? 0 : status;
    }
    return 0;
}
