/* Policies: making them, looking into them, laying one over another.
 *
 * A policy has a value for each key that was given, and else the default of keys.h. It does
 * not change any more once somebody else has a reference: the host, its interpreters and
 * tasks keep copies. */
#define _GNU_SOURCE
#include "embed/edit_distance.h"
#include "policies/policy.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct policy_value defaults[POLICY_KEY_COUNT];
static pthread_once_t defaults_once = PTHREAD_ONCE_INIT;
static const char empty[] = "";

static void parse_defaults(void)
{
    char problem[160];
    for (enum policy_key key = 0; key < POLICY_KEY_COUNT; key++) {
        const char *text = subhost__policy_rows[key].value;
        if (!subhost__policy_parse(key, text, &defaults[key], problem, sizeof problem))
            defaults[key].number = 0; /* out of memory; tests parse all of them */
        defaults[key].given = false;
    }
}

/* ---- life ------------------------------------------------------------------------- */

subhost_policy *subhost__policy_new(const char *name)
{
    subhost_policy *policy = calloc(1, sizeof *policy);
    if (!policy)
        return NULL;
    atomic_init(&policy->refs, 1);
    policy->name = strdup(name);
    if (!policy->name) {
        free(policy);
        return NULL;
    }
    return policy;
}

subhost_policy *subhost__policy_ref(const subhost_policy *policy)
{
    subhost_policy *p = (subhost_policy *)(uintptr_t)policy;
    if (p)
        atomic_fetch_add(&p->refs, 1);
    return p;
}

void subhost_policy_free(subhost_policy *policy)
{
    if (!policy || atomic_fetch_sub(&policy->refs, 1) != 1)
        return;
    for (int key = 0; key < POLICY_KEY_COUNT; key++) {
        free(policy->values[key].text);
        free(policy->values[key].origin);
        free(policy->answers[key]);
    }
    free(policy->shown);
    free(policy->name);
    free(policy);
}

bool subhost__policy_put(subhost_policy *policy, enum policy_key key,
                         struct policy_value *value, const char *origin)
{
    struct policy_value *to = &policy->values[key];
    char *copy = strdup(origin);
    if (!copy) {
        free(value->text);
        return false;
    }
    free(to->text);
    free(to->origin);
    *to = *value;
    to->given = true;
    to->origin = copy;
    return true;
}

static bool put_copy(subhost_policy *policy, enum policy_key key,
                     const struct policy_value *value)
{
    struct policy_value copy = *value;
    copy.text = value->text ? strdup(value->text) : NULL;
    if (value->text && !copy.text)
        return false;
    return subhost__policy_put(policy, key, &copy, value->origin);
}

subhost_policy *subhost__policy_overlay(const subhost_policy *base,
                                        const subhost_policy *over)
{
    subhost_policy *policy =
        subhost__policy_new(subhost__policy_name(over ? over : base));
    for (int key = 0; policy && key < POLICY_KEY_COUNT; key++) {
        bool takes = over && over->values[key].given &&
                     subhost__policy_rows[key].scope != SCOPE_HOST;
        const struct policy_value *value = takes  ? &over->values[key]
                                           : base ? &base->values[key]
                                                  : NULL;
        if (value && value->given && !put_copy(policy, (enum policy_key)key, value)) {
            subhost_policy_free(policy);
            return NULL;
        }
    }
    return policy;
}

subhost_policy *subhost__policy_copy(const subhost_policy *policy)
{
    return subhost__policy_overlay(policy, NULL);
}

/* ---- looking into it -------------------------------------------------------------- */

const struct policy_value *subhost__policy_value(const subhost_policy *policy,
                                                 enum policy_key key)
{
    if (policy && policy->values[key].given)
        return &policy->values[key];
    pthread_once(&defaults_once, parse_defaults);
    return &defaults[key];
}

bool subhost__policy_gives(const subhost_policy *policy)
{
    for (int key = 0; policy && key < POLICY_KEY_COUNT; key++) {
        if (policy->values[key].given)
            return true;
    }
    return false;
}

int64_t subhost__policy_number(const subhost_policy *policy, enum policy_key key)
{
    return subhost__policy_value(policy, key)->number;
}

const char *subhost__policy_text(const subhost_policy *policy, enum policy_key key)
{
    const char *text = subhost__policy_value(policy, key)->text;
    return text ? text : empty;
}

bool subhost__policy_lists(const subhost_policy *policy, enum policy_key key,
                           const char *word)
{
    size_t length = strlen(word);
    for (const char *at = subhost__policy_text(policy, key); *at;) {
        size_t n = strcspn(at, ",");
        if (n == length && memcmp(at, word, n) == 0)
            return true;
        at += n + (at[n] == ',');
    }
    return false;
}

const char *subhost__policy_name(const subhost_policy *policy)
{
    return policy ? policy->name : "default";
}

const char *subhost__policy_origin(const subhost_policy *policy, enum policy_key key)
{
    return policy && policy->values[key].given ? policy->values[key].origin : "default";
}

bool subhost__policy_agrees(const subhost_policy *policy, enum policy_key *key,
                            char *problem, size_t size)
{
    const char *own = subhost__policy_rows[POLICY_INTERPRETER_GIL].allowed;
    bool own_gil = subhost__policy_number(policy, POLICY_INTERPRETER_GIL) ==
                   subhost__word_place(own, "own", 3);
    if (own_gil && subhost__policy_number(policy, POLICY_INTERPRETER_OBMALLOC) == 0) {
        *key = POLICY_INTERPRETER_OBMALLOC;
        snprintf(problem, size,
                 "the main interpreter's allocator cannot be used with a GIL of its own "
                 "(interpreter.gil = \"own\")");
        return false;
    }
    return true;
}

/* ---- names ------------------------------------------------------------------------ */

int subhost__policy_find(const char *name, char *problem, size_t size)
{
    const char *best = NULL;
    size_t best_distance = 7;
    for (int key = 0; key < POLICY_KEY_COUNT; key++) {
        const char *known = subhost__policy_rows[key].name;
        if (strcmp(known, name) == 0)
            return key;
        size_t d = edit_distance(name, known);
        /* Its last part alone, or with another group: what was meant is clear enough. */
        const char *part = strrchr(name, '.');
        if (strcmp(strchr(known, '.') + 1, part ? part + 1 : name) == 0 && d > 2)
            d = 2;
        if (d < best_distance) {
            best_distance = d;
            best = known;
        }
    }
    snprintf(problem, size, "unknown key%s%s%s", best ? "; did you mean " : "",
             best ? best : "", best ? "?" : "");
    return -1;
}

/* ---- narrowing -------------------------------------------------------------------- */

static int forbid(enum policy_key key, const subhost_policy *base,
                  const struct policy_value *wanted, subhost_error **err)
{
    char *is = subhost__policy_format(key, subhost__policy_value(base, key));
    char *asked = subhost__policy_format(key, wanted);
    int code = subhost__fail(err, SUBHOST_EFORBIDDEN,
                             "%s = %s would widen what the policy '%s' allows: %s = %s "
                             "(from %s); a task can only "
                             "narrow it",
                             subhost__policy_rows[key].name, asked ? asked : "?",
                             subhost__policy_name(base), subhost__policy_rows[key].name,
                             is ? is : "?", subhost__policy_origin(base, key));
    free(is);
    free(asked);
    return code;
}

bool subhost__policy_contains(const subhost_policy *outer, const subhost_policy *inner)
{
    for (int key = 0; outer && outer != inner && key < POLICY_KEY_COUNT; key++) {
        if (!subhost__policy_is_within(
                (enum policy_key)key, subhost__policy_value(outer, (enum policy_key)key),
                subhost__policy_value(inner, (enum policy_key)key)))
            return false;
    }
    return true;
}

int subhost__policy_narrow(const subhost_policy *base, const subhost_policy *over,
                           enum policy_scope least, subhost_policy **result,
                           subhost_error **err)
{
    subhost_policy *policy = subhost__policy_copy(base);
    /* Single keys have no name of their own: the policy is still the one that it was. */
    if (policy && over && strcmp(over->name, "default") != 0) {
        char *name = strdup(over->name);
        free(policy->name);
        policy->name = name;
    }
    bool ok = policy && policy->name;
    for (int k = 0; ok && over && k < POLICY_KEY_COUNT; k++) {
        enum policy_key key = (enum policy_key)k;
        const struct policy_value *wanted = &over->values[key];
        if (!wanted->given || subhost__policy_rows[key].scope < least)
            continue;
        if (!subhost__policy_is_within(key, subhost__policy_value(base, key), wanted)) {
            subhost_policy_free(policy);
            return forbid(key, base, wanted, err);
        }
        ok = put_copy(policy, key, wanted);
    }
    if (!ok) {
        if (policy && !policy->name)
            policy->name = strdup(empty);
        subhost_policy_free(policy);
        return subhost__fail(err, SUBHOST_ENOMEM, "a policy: out of memory");
    }
    *result = policy;
    return 0;
}

int subhost__policy_set_below_host(subhost_policy *policy, const char *assignment,
                                   const char *origin, subhost_error **err)
{
    char name[80], problem[160];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(assignment, "="), assignment);
    int key = subhost__policy_find(name, problem, sizeof problem);
    if (key >= 0 && subhost__policy_rows[key].scope == SCOPE_HOST)
        return subhost__fail(err, SUBHOST_EINVAL,
                             "%s is the host's and cannot be set for a task", name);
    return subhost_policy_set(policy, assignment, origin, err);
}

/* ---- the public view -------------------------------------------------------------- */

int subhost_policy_key_at(size_t index, subhost_policy_key *key)
{
    static const char *const types[] = {"true|false", "word",  "number", "duration",
                                        "size",       "words", "text"};
    static const char *const scopes[] = {"host", "interpreter", "task"};
    static const char *const narrower[] = {
        "-",           "false", "true",        "further right", "less",
        "less, but 0", "more",  "fewer words", "more words"};
    if (!key || index >= POLICY_KEY_COUNT)
        return SUBHOST_EINVAL;
    const struct policy_row *row = &subhost__policy_rows[index];
    subhost_policy_key full = {.size = sizeof full,
                               .name = row->name,
                               .type = types[row->type],
                               .allowed = row->allowed,
                               .value = row->value,
                               .narrower = narrower[row->narrower],
                               .scope = scopes[row->scope],
                               .help = row->help};
    size_t size = key->size < sizeof full ? key->size : sizeof full;
    full.size = size;
    memcpy(key, &full, size);
    return 0;
}

int subhost_policy_set(subhost_policy *policy, const char *assignment, const char *origin,
                       subhost_error **err)
{
    char name[80], problem[240];
    struct policy_value value;
    if (!policy || !assignment)
        return subhost__fail(err, SUBHOST_EINVAL, "subhost_policy_set: %s is NULL",
                             policy ? "assignment" : "policy");
    const char *equals = strchr(assignment, '=');
    if (!equals)
        return subhost__fail(err, SUBHOST_EINVAL, "'%.60s' is not KEY=VALUE", assignment);
    snprintf(name, sizeof name, "%.*s", (int)(equals - assignment), assignment);
    int key = subhost__policy_find(name, problem, sizeof problem);
    if (key < 0 || !subhost__policy_parse((enum policy_key)key, equals + 1, &value,
                                          problem, sizeof problem))
        return subhost__fail(err, SUBHOST_EINVAL, "%s: %s", name, problem);
    if (!subhost__policy_put(policy, (enum policy_key)key, &value,
                             origin ? origin : "--set"))
        return subhost__fail(err, SUBHOST_ENOMEM, "a policy: out of memory");
    return 0;
}

const char *subhost_policy_get(subhost_policy *policy, const char *key)
{
    char problem[160];
    int found = policy && key ? subhost__policy_find(key, problem, sizeof problem) : -1;
    if (found < 0)
        return NULL;
    char *text = subhost__policy_format(
        (enum policy_key)found, subhost__policy_value(policy, (enum policy_key)found));
    free(policy->answers[found]);
    policy->answers[found] = text;
    return text;
}

int subhost_policy_is_valid(const subhost_policy *policy, subhost_error **err)
{
    enum policy_key key;
    char problem[240];
    if (subhost__policy_agrees(policy, &key, problem, sizeof problem))
        return 0;
    return subhost__fail(err, SUBHOST_EINVAL, "%s: %s", subhost__policy_rows[key].name,
                         problem);
}

/* ---- show ------------------------------------------------------------------------- */

static bool quoted(enum policy_type type)
{
    return type == TYPE_CHOICE || type == TYPE_DURATION || type == TYPE_SIZE ||
           type == TYPE_TEXT;
}

/* As it would stand in a file: ["a", "b"], "2s", true. */
static void print_value(FILE *out, enum policy_key key, const char *text)
{
    enum policy_type type = subhost__policy_rows[key].type;
    if (type != TYPE_LIST) {
        const char *quote = quoted(type) && strcmp(text, "0") != 0 ? "\"" : "";
        fputs(quote, out);
        for (; *text; text++)
            fprintf(out, *quote && strchr("\"\\", *text) ? "\\%c" : "%c", *text);
        fputs(quote, out);
        return;
    }
    fputc('[', out);
    while (*text) {
        size_t n = strcspn(text, ",");
        fprintf(out, "\"%.*s\"%s", (int)n, text, text[n] ? ", " : "");
        text += n + (text[n] == ',');
    }
    fputc(']', out);
}

static void print_key(FILE *out, const subhost_policy *policy, enum policy_key key)
{
    char *text = subhost__policy_format(key, subhost__policy_value(policy, key)), *shown;
    size_t size;
    FILE *line = open_memstream(&shown, &size);
    if (!line || !text) {
        free(text);
        return;
    }
    const char *name = strchr(subhost__policy_rows[key].name, '.') + 1;
    fprintf(line, "%s = ", name);
    print_value(line, key, text);
    fclose(line);
    fprintf(out, "%-40s # %s\n", shown, subhost__policy_origin(policy, key));
    free(shown);
    free(text);
}

const char *subhost_policy_show(subhost_policy *policy)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = policy ? open_memstream(&text, &size) : NULL;
    if (!out)
        return NULL;
    fprintf(out, "# The policy '%s': every key, its value, and where that comes from.\n",
            subhost__policy_name(policy));
    fputs("version = 1\n", out);
    const char *group = "";
    for (int key = 0; key < POLICY_KEY_COUNT; key++) {
        const char *name = subhost__policy_rows[key].name;
        size_t length = strcspn(name, ".") + 1;
        if (strncmp(group, name, length) != 0)
            fprintf(out, "\n[%.*s]\n", (int)length - 1, name);
        group = name;
        print_key(out, policy, (enum policy_key)key);
    }
    fclose(out);
    free(policy->shown);
    policy->shown = text;
    return text;
}
