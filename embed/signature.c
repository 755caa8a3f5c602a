/* The signature language: its parser. docs/native.md has the grammar.
 *
 * A recursive descent over the text. The first error ends it: `fail()` notes it with its
 * column, and every function above returns false. */
#define _GNU_SOURCE
#include "signature.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARRAY_LENGTH(a) (sizeof(a) / sizeof *(a))

struct parser {
    const char *text, *at;
    enum sig_use use;
    int depth;
    int code;
    subhost_error **err;
};

static const struct {
    const char *word;
    enum sig_kind kind;
} words[] = {
#define WORD(kind, word, type, ffi) {word, kind},
    SIG_SCALARS(WORD)
#undef WORD
        {"void", SIG_VOID},
    {"str", SIG_STR},
    {"ptr", SIG_PTR},
    {"buf", SIG_BUF},
    {"buffer", SIG_BUFFER},
    {"len", SIG_LEN},
    {"fn", SIG_FN},
};

/* What people write first, and what it is called here (LP64). */
static const struct {
    const char *word, *ours;
} foreign[] = {
    {"char", "i8, or str for char *"},
    {"short", "i16"},
    {"int", "i32"},
    {"unsigned", "u32"},
    {"uint", "u32"},
    {"long", "i64"},
    {"ulong", "u64"},
    {"float", "f32"},
    {"double", "f64"},
    {"size_t", "size"},
    {"ssize_t", "ssize"},
    {"int8_t", "i8"},
    {"uint8_t", "u8"},
    {"int16_t", "i16"},
    {"uint16_t", "u16"},
    {"int32_t", "i32"},
    {"uint32_t", "u32"},
    {"int64_t", "i64"},
    {"uint64_t", "u64"},
    {"cstr", "str"},
    {"string", "str"},
    {"bytes", "buf"},
    {"pointer", "ptr"},
    {"callback", "fn"},
    {"struct", "{TYPE, TYPE ...}"},
    {"const", "nothing: leave it out"},
};

const char *subhost__sig_word(enum sig_kind kind)
{
    for (size_t i = 0; i < ARRAY_LENGTH(words); i++)
        if (words[i].kind == kind)
            return words[i].word;
    return "struct";
}

/* ---- errors ----------------------------------------------------------------------- */

static bool fail_at(struct parser *p, const char *where, const char *format, ...)
    SUBHOST_PRINTF(3, 4);

static bool fail_at(struct parser *p, const char *where, const char *format, ...)
{
    char message[256];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (!p->code)
        p->code = subhost__fail(p->err, SUBHOST_EINVAL, "column %zu: %s",
                                (size_t)(where - p->text) + 1, message);
    return false;
}

static bool no_memory(struct parser *p)
{
    if (!p->code)
        p->code = subhost__fail(p->err, SUBHOST_ENOMEM, "out of memory");
    return false;
}

/* ---- words ------------------------------------------------------------------------ */

static void skip_space(struct parser *p)
{
    while (*p->at && isspace((unsigned char)*p->at))
        p->at++;
}

static bool at_char(struct parser *p, char c)
{
    skip_space(p);
    return *p->at == c;
}

static bool take_char(struct parser *p, char c)
{
    if (!at_char(p, c))
        return false;
    p->at++;
    return true;
}

static bool is_word_char(char c) { return isalnum((unsigned char)c) || c == '_'; }

/* The length of the word that comes next; 0: none does. */
static size_t word_length(struct parser *p)
{
    skip_space(p);
    size_t n = 0;
    if (isdigit((unsigned char)*p->at))
        return 0;
    while (is_word_char(p->at[n]))
        n++;
    return n;
}

static bool word_is(const char *at, size_t n, const char *word)
{
    return strlen(word) == n && strncmp(at, word, n) == 0;
}

static bool take_word(struct parser *p, const char *word)
{
    size_t n = word_length(p);
    if (!word_is(p->at, n, word))
        return false;
    p->at += n;
    return true;
}

/* Whether a character of UTF-8 goes on there. */
static bool goes_on(const char *at) { return ((unsigned char)*at & 0xC0) == 0x80; }

/* What stands there, for a message. */
static const char *found(struct parser *p, char *buffer, size_t size)
{
    skip_space(p);
    size_t n = word_length(p);
    if (!*p->at)
        return "the end";
    if (n == 0) /* a character that is in no word */
        for (n = 1; n < 4 && goes_on(p->at + n);)
            n++;
    snprintf(buffer, size, "'%.*s'", (int)(n > 32 ? 32 : n), p->at);
    return buffer;
}

static bool expect(struct parser *p, char c, const char *what)
{
    char buffer[48];
    if (take_char(p, c))
        return true;
    const char *there = found(p, buffer, sizeof buffer);
    return fail_at(p, p->at, "expected '%c' %s, found %s", c, what, there);
}

/* An optional name; false: out of memory. */
static bool take_name(struct parser *p, char **name)
{
    size_t n = word_length(p);
    if (!n)
        return true;
    *name = strndup(p->at, n);
    if (!*name)
        return no_memory(p);
    p->at += n;
    return true;
}

/* ---- tags ------------------------------------------------------------------------- */

/* Handles compare their tags by address. The tags of all signatures, for the life of the
 * process; a list that only grows, and so needs no lock in a forked child. */
struct tag {
    struct tag *next;
    char text[];
};
static struct tag *_Atomic tags;

static const char *intern(const char *text, size_t n)
{
    struct tag *made = NULL, *head = atomic_load(&tags);
    for (;;) {
        for (struct tag *tag = head; tag; tag = tag->next) {
            if (word_is(text, n, tag->text)) {
                free(made);
                return tag->text;
            }
        }
        if (!made && !(made = malloc(sizeof *made + n + 1)))
            return NULL;
        memcpy(made->text, text, n);
        made->text[n] = '\0';
        made->next = head;
        if (atomic_compare_exchange_weak(&tags, &head, made))
            return made->text;
    }
}

/* ---- types ------------------------------------------------------------------------ */

static bool parse_type(struct parser *p, struct sig_type *type);
static struct signature *parse_signature(struct parser *p, enum sig_use use);

static bool unknown_type(struct parser *p)
{
    char buffer[48];
    size_t n = word_length(p);
    for (size_t i = 0; i < ARRAY_LENGTH(foreign); i++)
        if (word_is(p->at, n, foreign[i].word))
            return fail_at(p, p->at, "unknown type '%s'; here it is %s", foreign[i].word,
                           foreign[i].ours);
    const char *there = found(p, buffer, sizeof buffer);
    if (n)
        return fail_at(p, p->at,
                       "unknown type %s; the types are listed in docs/native.md", there);
    return fail_at(p, p->at, "expected a type, found %s", there);
}

static bool find_word(struct parser *p, enum sig_kind *kind)
{
    size_t n = word_length(p);
    for (size_t i = 0; n && i < ARRAY_LENGTH(words); i++) {
        if (word_is(p->at, n, words[i].word)) {
            *kind = words[i].kind;
            p->at += n;
            return true;
        }
    }
    return unknown_type(p);
}

/* What stands in <> behind buf and len. */
static bool parse_item(struct parser *p, struct sig_type *type)
{
    if (!take_char(p, '<'))
        return true;
    skip_space(p);
    const char *start = p->at;
    if (!find_word(p, &type->item))
        return false;
    if (type->kind == SIG_LEN && !subhost__sig_is_integer(type->item))
        return fail_at(p, start, "a length is an integer, as len<i32>");
    if (type->item > SIG_BOOL)
        return fail_at(p, start, "a buffer has numbers, as buf<f64>");
    return expect(p, '>', "behind the type");
}

static bool parse_tag(struct parser *p, struct sig_type *type)
{
    char buffer[48];
    if (!take_char(p, '<'))
        return true;
    size_t n = word_length(p);
    if (!n)
        return fail_at(p, p->at, "expected a tag, as ptr<node>, found %s",
                       found(p, buffer, sizeof buffer));
    type->tag = intern(p->at, n);
    if (!type->tag)
        return no_memory(p);
    p->at += n;
    return expect(p, '>', "behind the tag");
}

/* Behind the '{'. */
static bool parse_fields(struct parser *p, struct sig_type *type)
{
    type->fields = calloc(SIG_MAX_FIELDS, sizeof *type->fields);
    if (!type->fields)
        return no_memory(p);
    do {
        skip_space(p);
        const char *start = p->at;
        if (type->n_fields == SIG_MAX_FIELDS)
            return fail_at(p, start, "a struct has at most %d fields", SIG_MAX_FIELDS);
        struct sig_field *field = &type->fields[type->n_fields++];
        if (!parse_type(p, &field->type))
            return false;
        if (field->type.kind > SIG_BOOL && field->type.kind != SIG_PTR &&
            field->type.kind != SIG_STRUCT)
            return fail_at(p, start, "a struct cannot have a field of type %s%s",
                           subhost__sig_word(field->type.kind),
                           field->type.kind == SIG_STR ? "; use ptr" : "");
        if (!take_name(p, &field->name))
            return false;
    } while (take_char(p, ','));
    return expect(p, '}', "or ',' in a struct");
}

static bool parse_function(struct parser *p, const char *start, struct sig_type *type)
{
    if (p->use == SIG_FOR_CALLBACK)
        return fail_at(p, start, "a callback cannot take functions; use ptr");
    enum sig_use use = p->use;
    p->use = SIG_FOR_CALLBACK;
    type->function = parse_signature(p, SIG_FOR_CALLBACK);
    p->use = use;
    return type->function != NULL;
}

static bool parse_suffix(struct parser *p, struct sig_type *type)
{
    if (!at_char(p, '?'))
        return true;
    if (type->kind != SIG_STR && type->kind != SIG_PTR && type->kind != SIG_BUF &&
        type->kind != SIG_BUFFER && type->kind != SIG_FN)
        return fail_at(p, p->at,
                       "'?' is for what can be NULL: str, ptr, buf, buffer, fn");
    p->at++;
    type->nullable = true;
    return true;
}

static bool parse_type_inner(struct parser *p, struct sig_type *type)
{
    skip_space(p);
    const char *start = p->at;
    if (take_char(p, '{')) {
        type->kind = SIG_STRUCT;
        return parse_fields(p, type);
    }
    type->writable = take_word(p, "mut");
    skip_space(p);
    const char *word = p->at;
    if (!find_word(p, &type->kind))
        return false;
    if (type->writable && type->kind != SIG_BUF)
        return fail_at(p, word, "only a buf can be mut");
    type->item = type->kind == SIG_LEN ? SIG_SIZE : SIG_VOID;
    switch (type->kind) {
    case SIG_BUF:
    case SIG_LEN:
        return parse_item(p, type) && parse_suffix(p, type);
    case SIG_PTR:
        return parse_tag(p, type) && parse_suffix(p, type);
    case SIG_FN:
        /* Before the function's own type: what follows that is the parameter's name. */
        return parse_suffix(p, type) && parse_function(p, start, type);
    default:
        return parse_suffix(p, type);
    }
}

static bool parse_type(struct parser *p, struct sig_type *type)
{
    if (++p->depth > SIG_MAX_DEPTH)
        return fail_at(p, p->at, "more than %d levels deep", SIG_MAX_DEPTH);
    bool ok = parse_type_inner(p, type);
    p->depth--;
    return ok;
}

/* ---- parameters ------------------------------------------------------------------- */

static bool check_way(struct parser *p, const char *start, const struct sig_param *param)
{
    enum sig_kind kind = param->type.kind;
    if (kind <= SIG_BOOL || kind == SIG_PTR || kind == SIG_STRUCT)
        return true;
    if (kind == SIG_STR && param->way == SIG_OUT)
        return true;
    return fail_at(p, start, "a pointer to %s is not supported%s",
                   subhost__sig_word(kind),
                   kind == SIG_STR ? " but for out; use ptr" : "");
}

/* Which parameter a length is the length of: the buffer in front of it. */
static bool find_buffer(struct parser *p, const char *start, struct signature *s,
                        struct sig_param *param)
{
    for (size_t i = (size_t)(param - s->params); i-- > 0;) {
        if (s->params[i].type.kind == SIG_BUF) {
            param->buffer = i;
            return true;
        }
    }
    return fail_at(p, start, "no buf stands in front of this len");
}

static bool check_param(struct parser *p, const char *start, struct signature *s,
                        struct sig_param *param)
{
    enum sig_kind kind = param->type.kind;
    if (kind == SIG_VOID)
        return fail_at(p, start, "a parameter cannot be void%s",
                       param->way == SIG_VALUE ? "" : "; a pointer to anything is ptr");
    if (param->way != SIG_VALUE && !check_way(p, start, param))
        return false;
    if (p->use == SIG_FOR_CALLBACK && (param->way == SIG_OUT || param->way == SIG_INOUT))
        return fail_at(p, start,
                       "a callback's parameters cannot be out or inout; use ptr");
    if (kind == SIG_LEN && !find_buffer(p, start, s, param))
        return false;
    if (kind == SIG_BUF)
        param->extra = s->n_buffers++;
    if (kind == SIG_FN)
        param->extra = s->n_functions++;
    if (kind == SIG_BUFFER)
        s->n_held++;
    return true;
}

/* Its name must be its own; what is passed by Python is counted. */
static bool count_param(struct parser *p, const char *start, struct signature *s,
                        struct sig_param *param)
{
    for (struct sig_param *other = s->params; param->name && other < param; other++)
        if (other->name && strcmp(other->name, param->name) == 0)
            return fail_at(p, start, "there are two parameters '%s'", param->name);
    if (param->way == SIG_OUT || param->way == SIG_INOUT)
        s->n_results++;
    if (param->way == SIG_OUT || param->type.kind == SIG_LEN)
        return true;
    param->number = ++s->n_arguments;
    if (!param->name)
        s->n_positional = s->n_arguments;
    return true;
}

static bool parse_param(struct parser *p, struct signature *s)
{
    skip_space(p);
    const char *start = p->at;
    if (s->n_params == SIG_MAX_PARAMS)
        return fail_at(p, start, "a function has at most %d parameters", SIG_MAX_PARAMS);
    struct sig_param *param = &s->params[s->n_params++];
    param->way = take_word(p, "inout") ? SIG_INOUT
                 : take_word(p, "in")  ? SIG_IN
                 : take_word(p, "out") ? SIG_OUT
                                       : SIG_VALUE;
    skip_space(p);
    const char *type = p->at;
    return parse_type(p, &param->type) && check_param(p, type, s, param) &&
           take_name(p, &param->name) && count_param(p, start, s, param);
}

/* A buffer whose length nobody tells cannot be given to Python. */
static bool check_lengths(struct parser *p, const char *start, const struct signature *s)
{
    for (size_t i = 0; i < s->n_params && p->use == SIG_FOR_CALLBACK; i++) {
        bool known = s->params[i].type.kind != SIG_BUF;
        for (size_t j = 0; j < s->n_params; j++)
            known =
                known || (s->params[j].type.kind == SIG_LEN && s->params[j].buffer == i);
        if (!known)
            return fail_at(p, start,
                           "a buf of a callback needs a len behind it, or is ptr");
    }
    return true;
}

/* Behind the '('. */
static bool parse_params(struct parser *p, struct signature *s)
{
    skip_space(p);
    const char *start = p->at;
    if (take_char(p, ')'))
        return true;
    if (take_word(p, "void") && take_char(p, ')'))
        return true;
    p->at = start;
    do {
        skip_space(p);
        if (strncmp(p->at, "...", 3) == 0) {
            if (p->use == SIG_FOR_CALLBACK)
                return fail_at(p, p->at, "a callback cannot be variadic");
            if (!s->n_params)
                return fail_at(p, p->at, "'...' needs a parameter in front of it");
            p->at += 3;
            s->variadic = true;
            break;
        }
        if (!parse_param(p, s))
            return false;
    } while (take_char(p, ','));
    return expect(p, ')', s->variadic ? "behind '...'" : "or ',' behind a parameter") &&
           check_lengths(p, start, s);
}

/* ---- the whole -------------------------------------------------------------------- */

static bool check_result(struct parser *p, const char *start, const struct sig_type *type)
{
    enum sig_kind kind = type->kind;
    bool callback = p->use == SIG_FOR_CALLBACK;
    if (kind == SIG_BUF || kind == SIG_LEN || kind == SIG_FN ||
        (callback && kind == SIG_STR))
        return fail_at(p, start, "a %s cannot return %s; use ptr",
                       callback ? "callback" : "function", subhost__sig_word(kind));
    return true;
}

/* Both leave the end where they begin when there is no number, and return whether the result's
 * type can hold it. */
static bool read_integer(const char *at, struct signature *s, const char **end)
{
    enum sig_kind kind = s->result.kind;
    bool is_integer = kind <= SIG_BOOL && kind != SIG_F32 && kind != SIG_F64;
    uint64_t largest = kind == SIG_BOOL ? 1 : is_integer ? subhost__sig_largest(kind) : 0;
    char *stop;
    errno = 0;
    if (*at == '-') {
        int64_t value = strtoll(at, &stop, 0);
        s->default_integer = value;
        *end = stop;
        return errno != ERANGE && is_integer &&
               value >= (subhost__sig_is_signed(kind) ? -(int64_t)largest - 1 : 0);
    }
    uint64_t value = strtoull(at, &stop, 0);
    s->default_integer = (int64_t)value; /* a u64 as well */
    *end = stop;
    return errno != ERANGE && is_integer && value <= largest;
}

static bool read_float(const char *at, struct signature *s, const char **end)
{
    /* With a point, whatever the program's locale has. glibc's is static. */
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    char *stop = (char *)(uintptr_t)at;
    if (plain) {
        errno = 0;
        s->default_float = strtod_l(at, &stop, plain);
        freelocale(plain);
    }
    *end = stop;
    return !(errno == ERANGE && isinf(s->default_float)) &&
           !(s->result.kind == SIG_F32 && !isinf(s->default_float) &&
             isinf((float)s->default_float));
}

static bool does_not_fit(struct parser *p, const char *where, enum sig_kind kind)
{
    const char *word = subhost__sig_word(kind);
    if (kind == SIG_F32 || kind == SIG_F64)
        return fail_at(p, where, "the default does not fit %s", word);
    if (kind == SIG_BOOL)
        return fail_at(p, where, "the default does not fit bool (0 or 1)");
    uint64_t largest = subhost__sig_largest(kind);
    return fail_at(p, where, "the default does not fit %s (%" PRId64 " to %" PRIu64 ")",
                   word, subhost__sig_is_signed(kind) ? -(int64_t)largest - 1 : 0,
                   largest);
}

/* "= -1": what a callback returns when Python cannot be asked. */
static bool parse_default(struct parser *p, struct signature *s)
{
    skip_space(p);
    const char *start = p->at;
    if (!take_char(p, '='))
        return true;
    if (p->use != SIG_FOR_CALLBACK)
        return fail_at(p, start, "only a callback has a default result");
    if (s->result.kind > SIG_BOOL)
        return fail_at(p, start,
                       "only numbers have a default result; NULL or zeros are "
                       "the others'");
    skip_space(p);
    start = p->at;
    bool is_float = s->result.kind == SIG_F32 || s->result.kind == SIG_F64;
    const char *end_integer, *end_float;
    bool fits_integer = read_integer(start, s, &end_integer);
    bool fits_float = read_float(start, s, &end_float);
    const char *end = is_float ? end_float : end_integer;
    if (end == start || is_word_char(*end) || *end == '.')
        return fail_at(p, start, "expected %s behind '='",
                       is_float ? "a number" : "an integer");
    p->at = end;
    return (is_float ? fits_float : fits_integer) ||
           does_not_fit(p, start, s->result.kind);
}

static bool set_error(struct parser *p, const char *start, struct signature *s,
                      enum sig_error error)
{
    enum sig_kind kind = s->result.kind;
    bool pointer = kind == SIG_PTR || kind == SIG_STR;
    if (s->error)
        return fail_at(p, start, "one convention for errors is enough");
    if (error == SIG_ERRNO && pointer) {
        s->error = error;
        return true;
    }
    if (!subhost__sig_is_integer(kind) ||
        (error != SIG_NONZERO && !subhost__sig_is_signed(kind)))
        return fail_at(p, start, "a result of type %s cannot be an error in this way",
                       subhost__sig_word(kind));
    s->error = error;
    return true;
}

/* One list: word, what it sets. */
static bool parse_attribute(struct parser *p, struct signature *s, bool *more)
{
    static const struct {
        const char *word;
        enum sig_error error;
    } conventions[] = {{"errno", SIG_ERRNO},
                       {"negerrno", SIG_NEGERRNO},
                       {"negative", SIG_NEGATIVE},
                       {"nonzero", SIG_NONZERO}};
    skip_space(p);
    const char *start = p->at;
    *more = *start != '\0';
    for (size_t i = 0; i < ARRAY_LENGTH(conventions); i++)
        if (take_word(p, conventions[i].word))
            return set_error(p, start, s, conventions[i].error);
    if (take_word(p, "gil"))
        s->keep_gil = true;
    else if (take_word(p, "nogil"))
        s->keep_gil = false;
    else if (take_word(p, "free"))
        s->free_result = true;
    else if (*more)
        return fail_at(p, start,
                       "expected the end, gil, nogil, errno, negerrno, negative, "
                       "nonzero or free");
    if (s->free_result && s->result.kind != SIG_STR)
        return fail_at(p, start, "free is for a result of type str");
    return true;
}

static struct signature *parse_signature(struct parser *p, enum sig_use use)
{
    struct signature *s = calloc(1, sizeof *s);
    if (!s) {
        no_memory(p);
        return NULL;
    }
    skip_space(p);
    const char *start = p->at;
    bool nested = p->depth > 0;
    bool ok = parse_type(p, &s->result) && check_result(p, start, &s->result) &&
              (nested || take_name(p, &s->name)) &&
              expect(p, '(', "behind the result's type") && parse_params(p, s) &&
              parse_default(p, s);
    for (bool more = true; ok && more && use == SIG_FOR_FUNCTION;)
        ok = parse_attribute(p, s, &more);
    if (ok)
        return s;
    subhost__signature_free(s);
    return NULL;
}

/* White space collapsed. */
static char *tidy(const char *text)
{
    char *copy = malloc(strlen(text) + 1), *to = copy;
    for (; copy && *text; text++) {
        bool space = isspace((unsigned char)*text);
        if (!space)
            *to++ = *text;
        else if (to > copy && to[-1] != ' ')
            *to++ = ' ';
    }
    if (copy) {
        while (to > copy && to[-1] == ' ')
            to--;
        *to = '\0';
    }
    return copy;
}

#define SHOWN_MAX 200

/* The beginning of a signature for a message, on one line: columns stay what they are. */
static void show(char *to, const char *text)
{
    size_t n = strnlen(text, SHOWN_MAX);
    while (n > 0 && goes_on(text + n))
        n--; /* not in the middle of a character */
    for (size_t i = 0; i < n; i++)
        to[i] = isspace((unsigned char)text[i]) ? ' ' : text[i];
    to[n] = '\0';
}

static int finish(struct parser *p, struct signature *s, struct signature **result)
{
    char buffer[48];
    skip_space(p);
    if (s && *p->at)
        fail_at(p, p->at, "expected the end, found %s", found(p, buffer, sizeof buffer));
    if (s && !p->code && !(s->text = tidy(p->text)))
        no_memory(p);
    if (!p->code)
        p->code = subhost__signature_prepare(s, p->err);
    if (!p->code) {
        *result = s;
        return 0;
    }
    subhost__signature_free(s);
    char shown[SHOWN_MAX + 1];
    show(shown, p->text);
    subhost__context(p->err, p->code, "signature \"%s\"", shown);
    return p->code;
}

int subhost__signature_parse(const char *text, enum sig_use use,
                             struct signature **result, subhost_error **err)
{
    struct parser p = {.text = text, .at = text, .use = use, .err = err};
    if (strlen(text) > SIG_MAX_TEXT)
        return subhost__fail(err, SUBHOST_EINVAL, "a signature has at most %d characters",
                             SIG_MAX_TEXT);
    return finish(&p, parse_signature(&p, use), result);
}

int subhost__signature_parse_type(const char *text, struct signature **result,
                                  subhost_error **err)
{
    struct parser p = {.text = text, .at = text, .use = SIG_FOR_FUNCTION, .err = err};
    struct signature *s = calloc(1, sizeof *s);
    if (!s)
        no_memory(&p);
    else if (parse_type(&p, &s->result) &&
             (s->result.kind == SIG_BUF || s->result.kind == SIG_BUFFER ||
              s->result.kind == SIG_LEN || s->result.kind == SIG_VOID ||
              s->result.kind == SIG_FN))
        fail_at(&p, text, "a value in memory cannot be %s",
                subhost__sig_word(s->result.kind));
    return finish(&p, s, result);
}

/* ---- freeing, comparing ----------------------------------------------------------- */

static void free_type(struct sig_type *type)
{
    for (size_t i = 0; i < type->n_fields; i++) {
        free_type(&type->fields[i].type);
        free(type->fields[i].name);
    }
    free(type->fields);
    subhost__signature_free(type->function);
    if (type->kind == SIG_STRUCT)
        free(type->ffi);
}

void subhost__signature_free(struct signature *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n_params; i++) {
        free_type(&s->params[i].type);
        free(s->params[i].name);
    }
    free_type(&s->result);
    free(s->name);
    free(s->text);
    free(s);
}

static bool same_type(const struct sig_type *a, const struct sig_type *b)
{
    if (a->kind != b->kind || a->item != b->item || a->tag != b->tag ||
        a->writable != b->writable || a->n_fields != b->n_fields)
        return false;
    for (size_t i = 0; i < a->n_fields; i++)
        if (!same_type(&a->fields[i].type, &b->fields[i].type))
            return false;
    return true;
}

bool subhost__signature_same(const struct signature *a, const struct signature *b)
{
    if (a->n_params != b->n_params || !same_type(&a->result, &b->result))
        return false;
    for (size_t i = 0; i < a->n_params; i++)
        if (a->params[i].way != b->params[i].way ||
            !same_type(&a->params[i].type, &b->params[i].type))
            return false;
    return true;
}
