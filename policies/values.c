/* Values of policy keys: parsing, formatting, and which of two is the narrower one. */
#define _GNU_SOURCE
#include "policies/policy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_MAX 4096 /* bytes of a list or a text */

const struct policy_row subhost__policy_rows[POLICY_KEY_COUNT] = {
#define POLICY_ROW(id, name, type, value, allowed, narrower, scope, help)                \
    [POLICY_##id] = {name,          TYPE_##type, value, allowed, NARROWER_##narrower,    \
                     SCOPE_##scope, help},
    POLICY_KEYS(POLICY_ROW)
#undef POLICY_ROW
};

/* ---- words ------------------------------------------------------------------------ */

int subhost__word_place(const char *words, const char *word, size_t length)
{
    for (int place = 0; *words; place++) {
        size_t n = strcspn(words, "|");
        if (n == length && memcmp(words, word, n) == 0)
            return place;
        words += n + (words[n] == '|');
    }
    return -1;
}

/* The word at that place of "a|b|c". */
static int word_at(const char *words, int64_t place, const char **word)
{
    while (place-- > 0)
        words += strcspn(words, "|") + 1;
    *word = words;
    return (int)strcspn(words, "|");
}

/* "a, b or c" of "a|b|c". */
static void spell_words(const char *words, char *buffer, size_t size)
{
    size_t used = 0;
    buffer[0] = '\0';
    while (*words && used < size) {
        size_t n = strcspn(words, "|");
        const char *rest = words[n] ? words + n + 1 : words + n;
        const char *between = !used ? "" : *rest ? ", " : " or ";
        used += (size_t)snprintf(buffer + used, size - used, "%s%.*s", between, (int)n,
                                 words);
        words = rest;
    }
}

/* ---- numbers with units ----------------------------------------------------------- */

struct unit {
    const char *suffix;
    double factor;
};

static const struct unit time_units[] = {{"", 1e9},   {"ms", 1e6},   {"s", 1e9},
                                         {"m", 60e9}, {"h", 3600e9}, {"d", 86400e9}};
static const struct unit size_units[] = {{"", 1},
                                         {"B", 1},
                                         {"KiB", 1024.0},
                                         {"MiB", 1048576.0},
                                         {"GiB", 1073741824.0},
                                         {"TiB", 1099511627776.0},
                                         {"K", 1024.0},
                                         {"M", 1048576.0},
                                         {"G", 1073741824.0}};

static bool parse_units(const char *text, const struct unit *units, size_t n,
                        int64_t *result)
{
    /* strtod() takes more than a user means: a sign, inf, nan, hexadecimal. */
    if (strspn(text, "0123456789.") == 0)
        return false;
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || errno == ERANGE || memchr(text, 'x', (size_t)(end - text)))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(end, units[i].suffix) != 0)
            continue;
        double scaled = value * units[i].factor;
        if (!(scaled >= 0) || scaled >= 9.2e18)
            return false;
        *result = (int64_t)scaled;
        return true;
    }
    return false;
}

int subhost_duration(const char *text, int64_t *ns)
{
    bool ok = text && ns &&
              parse_units(text, time_units, sizeof time_units / sizeof *time_units, ns);
    return ok ? 0 : SUBHOST_EINVAL;
}

static bool parse_integer(const char *text, int64_t *result)
{
    char *end;
    errno = 0;
    if (strspn(text, "0123456789") == 0 && *text != '-')
        return false;
    long long value = strtoll(text, &end, 10);
    *result = value;
    return end != text && !*end && !errno;
}

static bool parse_number(enum policy_type type, const char *text, int64_t *result)
{
    if (type == TYPE_DURATION)
        return subhost_duration(text, result) == 0;
    if (type == TYPE_SIZE)
        return parse_units(text, size_units, sizeof size_units / sizeof *size_units,
                           result);
    return parse_integer(text, result);
}

/* ---- parsing ---------------------------------------------------------------------- */

static bool parse_bool(const char *text, struct policy_value *value, char *problem,
                       size_t size)
{
    value->number = strcmp(text, "true") == 0;
    if (value->number || strcmp(text, "false") == 0)
        return true;
    snprintf(problem, size, "'%.60s' is neither true nor false", text);
    return false;
}

static bool parse_choice(const struct policy_row *row, const char *text,
                         struct policy_value *value, char *problem, size_t size)
{
    char words[160];
    value->number = subhost__word_place(row->allowed, text, strlen(text));
    if (value->number >= 0)
        return true;
    spell_words(row->allowed, words, sizeof words);
    snprintf(problem, size, "'%.60s' is not %s", text, words);
    return false;
}

static bool parse_range(const struct policy_row *row, const char *text,
                        struct policy_value *value, char *problem, size_t size)
{
    static const char *const kinds[] = {
        [TYPE_INTEGER] = "a number",
        [TYPE_DURATION] = "a duration (500ms, 1.5s, 2m, or seconds)",
        [TYPE_SIZE] = "a size (64MiB, 2GiB, or bytes)",
    };
    char least_text[32];
    int64_t least = 0, most = 0;
    const char *dots = strstr(row->allowed, "..");
    snprintf(least_text, sizeof least_text, "%.*s", (int)(dots - row->allowed),
             row->allowed);
    if (!parse_number(row->type, text, &value->number)) {
        snprintf(problem, size, "'%.60s' is not %s", text, kinds[row->type]);
        return false;
    }
    if (parse_number(row->type, least_text, &least) &&
        parse_number(row->type, dots + 2, &most) && value->number >= least &&
        value->number <= most)
        return true;
    snprintf(problem, size, "%.60s is out of range: %s to %s", text, least_text,
             dots + 2);
    return false;
}

static int compare_words(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted and each once, so that equal lists are equal texts. `copy` is taken apart. */
static char *normalise(char *copy, char **words, size_t count)
{
    char *text = malloc(strlen(copy) + LIST_MAX + 2);
    if (!text)
        return NULL;
    qsort(words, count, sizeof *words, compare_words);
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && strcmp(words[i - 1], words[i]) == 0)
            continue;
        used += (size_t)sprintf(text + used, "%s%s", used ? "," : "", words[i]);
    }
    return text;
}

static bool check_words(const struct policy_row *row, char **words, size_t count,
                        char *problem, size_t size)
{
    char known[160];
    for (size_t i = 0; *row->allowed && i < count; i++) {
        if (subhost__word_place(row->allowed, words[i], strlen(words[i])) >= 0)
            continue;
        spell_words(row->allowed, known, sizeof known);
        snprintf(problem, size, "'%.60s' is not %s", words[i], known);
        return false;
    }
    return true;
}

static bool parse_list(const struct policy_row *row, const char *text,
                       struct policy_value *value, char *problem, size_t size)
{
    char *copy = strdup(text), **words = calloc(LIST_MAX / 2 + 1, sizeof *words);
    char *at = copy, *save = NULL;
    size_t count = 0;
    bool ok = copy && words;
    while (ok && (at = strtok_r(count ? NULL : copy, ",", &save))) {
        at += strspn(at, " ");
        at[strcspn(at, " ")] = '\0';
        words[count++] = at;
    }
    ok = ok && check_words(row, words, count, problem, size);
    value->text = ok ? normalise(text ? copy : NULL, words, count) : NULL;
    if (ok && !value->text)
        snprintf(problem, size, "out of memory");
    free(words);
    free(copy);
    return value->text != NULL;
}

bool subhost__policy_parse(enum policy_key key, const char *text,
                           struct policy_value *value, char *problem, size_t size)
{
    const struct policy_row *row = &subhost__policy_rows[key];
    *value = (struct policy_value){.given = true};
    snprintf(problem, size, "out of memory");
    switch (row->type) {
    case TYPE_BOOL:
        return parse_bool(text, value, problem, size);
    case TYPE_CHOICE:
        return parse_choice(row, text, value, problem, size);
    case TYPE_INTEGER:
    case TYPE_DURATION:
    case TYPE_SIZE:
        return parse_range(row, text, value, problem, size);
    case TYPE_LIST:
    case TYPE_TEXT:
        break;
    }
    if (strlen(text) >= LIST_MAX) {
        snprintf(problem, size, "more than %d bytes", LIST_MAX - 1);
        return false;
    }
    if (row->type == TYPE_LIST)
        return parse_list(row, text, value, problem, size);
    value->text = strdup(text);
    return value->text != NULL;
}

/* ---- formatting ------------------------------------------------------------------- */

static char *format_units(int64_t number, const struct unit *units, size_t n)
{
    char *text = NULL;
    const struct unit *best = &units[0];
    for (size_t i = 1; i < n; i++) {
        int64_t factor = (int64_t)units[i].factor;
        if (number % factor == 0 && number >= factor && factor >= (int64_t)best->factor)
            best = factor > (int64_t)best->factor || !*best->suffix ? &units[i] : best;
    }
    int length = number == 0 ? asprintf(&text, "0")
                             : asprintf(&text, "%.10g%s", (double)number / best->factor,
                                        best->suffix);
    return length < 0 ? NULL : text;
}

static char *format_duration(int64_t ns)
{
    static const struct unit shown[] = {{"ms", 1e6}, {"ms", 1e6},   {"s", 1e9},
                                        {"m", 60e9}, {"h", 3600e9}, {"d", 86400e9}};
    return format_units(ns, shown, sizeof shown / sizeof *shown);
}

char *subhost__policy_format(enum policy_key key, const struct policy_value *value)
{
    const struct policy_row *row = &subhost__policy_rows[key];
    char *text = NULL;
    const char *word;
    int length = -1;
    switch (row->type) {
    case TYPE_BOOL:
        return strdup(value->number ? "true" : "false");
    case TYPE_CHOICE:
        length = word_at(row->allowed, value->number, &word);
        return strndup(word, (size_t)length);
    case TYPE_INTEGER:
        length = asprintf(&text, "%" PRId64, value->number);
        return length < 0 ? NULL : text;
    case TYPE_DURATION:
        return format_duration(value->number);
    case TYPE_SIZE:
        return format_units(value->number, size_units, 6);
    case TYPE_LIST:
    case TYPE_TEXT:
        break;
    }
    return strdup(value->text ? value->text : "");
}

/* ---- narrowing -------------------------------------------------------------------- */

static bool is_subset(const char *part, const char *whole)
{
    while (part && *part) {
        size_t n = strcspn(part, ",");
        bool found = false;
        for (const char *at = whole; at && *at && !found;) {
            size_t m = strcspn(at, ",");
            found = n == m && memcmp(part, at, n) == 0;
            at += m + (at[m] == ',');
        }
        if (!found)
            return false;
        part += n + (part[n] == ',');
    }
    return true;
}

bool subhost__policy_is_within(enum policy_key key, const struct policy_value *allowed,
                               const struct policy_value *wanted)
{
    int64_t a = allowed->number, w = wanted->number;
    switch (subhost__policy_rows[key].narrower) {
    case NARROWER_FREE:
        return true;
    case NARROWER_FALSE:
    case NARROWER_LESS:
        return w <= a;
    case NARROWER_LESS_0:
        return a == 0 || (w != 0 && w <= a);
    case NARROWER_TRUE:
    case NARROWER_LATER:
    case NARROWER_MORE:
        return w >= a;
    case NARROWER_SUBSET:
        return is_subset(wanted->text, allowed->text);
    case NARROWER_SUPERSET:
        return is_subset(allowed->text, wanted->text);
    }
    return false;
}
