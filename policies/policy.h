/* Policies: values of the keys in keys.h, each with where it came from. See policy.c. */
#ifndef SUBHOST_POLICY_H
#define SUBHOST_POLICY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "embed/error.h"
#include "policies/keys.h"

enum policy_key {
#define POLICY_ENUM(id, name, type, value, allowed, narrower, scope, help) POLICY_##id,
    POLICY_KEYS(POLICY_ENUM)
#undef POLICY_ENUM
        POLICY_KEY_COUNT,
};

enum policy_type {
    TYPE_BOOL,
    TYPE_CHOICE,
    TYPE_INTEGER,
    TYPE_DURATION,
    TYPE_SIZE,
    TYPE_LIST,
    TYPE_TEXT,
};

enum policy_narrower {
    NARROWER_FREE,
    NARROWER_FALSE,
    NARROWER_TRUE,
    NARROWER_LATER,
    NARROWER_LESS,
    NARROWER_LESS_0,
    NARROWER_MORE,
    NARROWER_SUBSET,
    NARROWER_SUPERSET,
};

enum policy_scope { SCOPE_HOST, SCOPE_INTERP, SCOPE_TASK };

struct policy_row {
    const char *name;
    enum policy_type type;
    const char *value, *allowed; /* value: the default */
    enum policy_narrower narrower;
    enum policy_scope scope;
    const char *help;
};

extern const struct policy_row subhost__policy_rows[POLICY_KEY_COUNT];

struct policy_value {
    bool given;     /* else it has its default */
    int64_t number; /* BOOL 0 or 1, CHOICE the word's place, DURATION ns, SIZE bytes */
    char *text;     /* LIST: sorted words with commas between them; TEXT. Owned */
    char *origin;   /* where it came from, owned */
};

struct subhost_policy {
    atomic_int refs;
    char *name;
    struct policy_value values[POLICY_KEY_COUNT];
    char *shown;                     /* subhost_policy_show()'s last answer */
    char *answers[POLICY_KEY_COUNT]; /* subhost_policy_get()'s */
};

/* ---- values (values.c) ------------------------------------------------------------ */

/* Parses what is written behind `key=`. On failure `problem` says what is wrong. The caller
 * frees value->text. */
bool subhost__policy_parse(enum policy_key key, const char *text,
                           struct policy_value *value, char *problem, size_t size);
/* As it would be written with --set. malloc'ed, NULL: no memory. */
char *subhost__policy_format(enum policy_key key, const struct policy_value *value);
/* The place of a word in "a|b|c", or -1. */
int subhost__word_place(const char *words, const char *word, size_t length);
/* Whether `wanted` takes nothing that `allowed` does not give. */
bool subhost__policy_is_within(enum policy_key key, const struct policy_value *allowed,
                               const struct policy_value *wanted);

/* ---- policies (policy.c); NULL stands for one with nothing given ------------------- */

subhost_policy *subhost__policy_new(const char *name);
subhost_policy *subhost__policy_ref(const subhost_policy *policy);
subhost_policy *subhost__policy_copy(const subhost_policy *policy);
/* The key of that name, or -1 with the nearest known one in `problem`. */
int subhost__policy_find(const char *name, char *problem, size_t size);
/* Takes the value over, with a copy of its origin. False: no memory. */
bool subhost__policy_put(subhost_policy *policy, enum policy_key key,
                         struct policy_value *value, const char *origin);
/* What cannot be together; false with the key and `problem`. */
bool subhost__policy_agrees(const subhost_policy *policy, enum policy_key *key,
                            char *problem, size_t size);

/* Whether any key was given. */
bool subhost__policy_gives(const subhost_policy *policy);
const struct policy_value *subhost__policy_value(const subhost_policy *policy,
                                                 enum policy_key key);
int64_t subhost__policy_number(const subhost_policy *policy, enum policy_key key);
/* LIST: the words with commas between them; TEXT. Never NULL. */
const char *subhost__policy_text(const subhost_policy *policy, enum policy_key key);
bool subhost__policy_lists(const subhost_policy *policy, enum policy_key key,
                           const char *word);
const char *subhost__policy_name(const subhost_policy *policy);
const char *subhost__policy_origin(const subhost_policy *policy, enum policy_key key);

/* Whether `inner` takes nothing that `outer` does not give. */
bool subhost__policy_contains(const subhost_policy *outer, const subhost_policy *inner);

/* subhost_policy_set(), but not for keys of the host. */
int subhost__policy_set_below_host(subhost_policy *policy, const char *assignment,
                                   const char *origin, subhost_error **err);
/* `base` with what is given in `over`, but for keys of the host. NULL: no memory. */
subhost_policy *subhost__policy_overlay(const subhost_policy *base,
                                        const subhost_policy *over);
/* The same for a task: what is given may only narrow; keys whose scope is wider than `least`
 * stay as they are. SUBHOST_EFORBIDDEN names key, values and who forbids it. */
int subhost__policy_narrow(const subhost_policy *base, const subhost_policy *over,
                           enum policy_scope least, subhost_policy **result,
                           subhost_error **err);

/* ---- loading (load.c) ------------------------------------------------------------- */

/* A key as it stands in a file. */
struct policy_entry {
    const char *key, *kind,
        *text; /* kind: "boolean", "string" ... ; LIST: words with \n */
    int line;
};

struct policy_report {
    void (*problem)(const char *line, void *data);
    void *data;
    int count;
};

/* What embed/cmake/presets.py has made of policies/NAME.toml. */
struct policy_preset {
    const char *name, *serves;
    const struct policy_entry *entries;
    size_t count;
};

const struct policy_preset *subhost__policy_preset(const char *name);
/* Adds a file's entries to the policy. Every problem is reported. False: no memory. */
bool subhost__policy_apply(subhost_policy *policy, const char *file,
                           const struct policy_entry *entries, size_t count,
                           struct policy_report *report);
void subhost__policy_complain(struct policy_report *report, const char *file, int line,
                              const char *key, const char *format, ...)
    SUBHOST_PRINTF(5, 6);
/* Reads TOML in the current interpreter, GIL held; `size` bytes. False: it could not be done
 * (an exception is set). */
bool subhost__policy_read_toml(subhost_policy *policy, const char *file, const char *text,
                               size_t size, struct policy_report *report);

#endif
