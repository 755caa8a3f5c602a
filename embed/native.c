/* C functions that Python may call: the table of bindings, subhost_bind(). */
#define _GNU_SOURCE
#include "native.h"

#include "options.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the table: a list that only grows, read without a lock ----------------------- */

static const struct binding *find(struct binding *list, const char *name)
{
    while (list && strcmp(list->name, name) != 0)
        list = list->next;
    return list;
}

const struct binding *subhost__native_find(subhost_host *host, const char *name)
{
    return find(atomic_load(&host->bindings), name);
}

static void free_binding(struct binding *binding)
{
    if (!binding)
        return;
    free(binding->name);
    free(binding->doc);
    subhost__signature_free(binding->signature);
    free(binding);
}

void subhost__native_free(subhost_host *host)
{
    struct binding *list = atomic_exchange(&host->bindings, NULL);
    while (list) {
        struct binding *next = list->next;
        free_binding(list);
        list = next;
    }
}

static int add(subhost_host *host, struct binding *binding, subhost_error **err)
{
    struct binding *head = atomic_load(&host->bindings);
    do {
        if (find(head, binding->name))
            return subhost__fail(err, SUBHOST_ESTATE, "%s is bound already",
                                 binding->name);
        binding->next = head;
    } while (!atomic_compare_exchange_weak(&host->bindings, &head, binding));
    return 0;
}

/* ---- the docstring ---------------------------------------------------------------- */

/* "(x, y, /, z)": what Python's callers see of the parameters. */
static void print_parameters(FILE *to, const struct signature *s)
{
    fputs("(", to);
    size_t shown = 0;
    for (size_t i = 0; i < s->n_params; i++) {
        const struct sig_param *param = &s->params[i];
        if (!param->number)
            continue;
        if (shown++)
            fputs(", ", to);
        if (param->name)
            fputs(param->name, to);
        else
            fprintf(to, "arg%zu", param->number);
        if (param->number == s->n_positional)
            fputs(", /", to);
    }
    fputs(s->variadic ? (shown ? ", *args)" : "*args)") : ")", to);
}

/* As CPython's own builtins have it: the first line becomes __text_signature__. */
static char *make_doc(const struct binding *binding, const char *doc)
{
    char *text = NULL;
    size_t size;
    const struct signature *s = binding->signature;
    FILE *to = open_memstream(&text, &size);
    if (!to)
        return NULL;
    fputs(binding->name, to);
    print_parameters(to, s);
    fputs("\n--\n\n", to);
    if (doc && *doc)
        fprintf(to, "%s\n\n", doc);
    fprintf(to, "C: %s", s->text);
    if (fclose(to) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

/* ---- binding ---------------------------------------------------------------------- */

/* What subhost.native has of its own. */
static bool is_reserved(const char *name)
{
    static const char *const reserved[] = {"callback", "Callback", "Pointer"};
    for (size_t i = 0; i < ARRAY_LENGTH(reserved); i++)
        if (strcmp(name, reserved[i]) == 0)
            return true;
    return strncmp(name, "__", 2) == 0;
}

static bool is_identifier(const char *name)
{
    return *name && !strchr("0123456789", *name) &&
           name[strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                             "0123456789_")] == '\0';
}

static int choose_name(const char *name, const struct signature *s, struct binding *b,
                       subhost_error **err)
{
    name = name ? name : s->name;
    if (!name)
        return subhost__fail(err, SUBHOST_EINVAL,
                             "signature \"%s\": it has no name; write it behind the "
                             "result's type, as in f64 pow(f64, f64)",
                             s->text);
    if (!is_identifier(name) || is_reserved(name))
        return subhost__fail(err, SUBHOST_EINVAL,
                             "'%s' cannot be a name in subhost.native%s", name,
                             is_identifier(name) ? ": it is taken" : "");
    b->name = strdup(name);
    return b->name ? 0 : subhost__fail(err, SUBHOST_ENOMEM, "out of memory");
}

/* Takes the signature over. */
static int bind(subhost_host *host, const char *name, subhost_native_function function,
                struct signature *signature, const subhost_bind_options *options,
                subhost_error **err)
{
    struct binding *b = calloc(1, sizeof *b);
    if (!b) {
        subhost__signature_free(signature);
        return subhost__fail(err, SUBHOST_ENOMEM, "out of memory");
    }
    b->signature = signature;
    b->function = function;
    int code = choose_name(name, signature, b, err);
    if (!code && !(b->doc = make_doc(b, options->doc)))
        code = subhost__fail(err, SUBHOST_ENOMEM, "out of memory");
    if (!code) {
        b->method = (PyMethodDef){b->name, subhost__native_method(signature),
                                  METH_FASTCALL | METH_KEYWORDS, b->doc};
        code = add(host, b, err);
    }
    if (code)
        free_binding(b);
    return code;
}

static int check(subhost_host *host, const char *signature,
                 const subhost_bind_options *options, subhost_bind_options *copy,
                 subhost_error **err)
{
    *copy = (subhost_bind_options)SUBHOST_BIND_OPTIONS_INIT;
    if (!host || !signature)
        return subhost__fail(err, SUBHOST_EINVAL, "%s is NULL",
                             host ? "signature" : "host");
    if (!subhost__host_is_open(host))
        return subhost__fail(err, SUBHOST_ESTATE, "the host is closed");
    return subhost__options_take(copy, sizeof *copy, options, "subhost_bind_options",
                                 err);
}

int subhost_bind(subhost_host *host, const char *name, subhost_native_function function,
                 const char *signature, const subhost_bind_options *options,
                 subhost_error **err)
{
    subhost_bind_options o;
    struct signature *parsed = NULL;
    int code = check(host, signature, options, &o, err);
    if (!code && !function)
        code = subhost__fail(err, SUBHOST_EINVAL, "function is NULL");
    if (!code)
        code = subhost__signature_parse(signature, SIG_FOR_FUNCTION, &parsed, err);
    if (!code)
        code = bind(host, name, function, parsed, &o, err);
    if (code)
        subhost__context(err, code, "subhost_bind%s%s", name ? ": " : "",
                         name ? name : "");
    return code;
}

/* ---- from a shared library -------------------------------------------------------- */

/* The library stays loaded: Python may have pointers into it. */
static int open_library(const char *library, void **handle, subhost_error **err)
{
    *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (*handle)
        return 0;
    const char *why = dlerror();
    size_t n = strlen(library);
    if (why && strncmp(why, library, n) == 0 && strncmp(why + n, ": ", 2) == 0)
        why += n + 2; /* the caller names it */
    return subhost__fail(err, SUBHOST_ESYSTEM,
                         "%s; name an installed library (libm.so.6) or a path with a "
                         "slash (./libmine.so)",
                         why ? why : library);
}

int subhost_bind_library(subhost_host *host, const char *library, const char *signature,
                         const subhost_bind_options *options, subhost_error **err)
{
    subhost_bind_options o;
    struct signature *parsed = NULL;
    void *handle = NULL, *symbol = NULL;
    subhost_native_function function;
    int code = check(host, signature, options, &o, err);
    if (!code && (!library || !*library))
        code = subhost__fail(err, SUBHOST_EINVAL, "no library is named");
    if (!code)
        code = subhost__signature_parse(signature, SIG_FOR_FUNCTION, &parsed, err);
    if (!code && !parsed->name)
        code =
            subhost__fail(err, SUBHOST_EINVAL,
                          "signature \"%s\": which function? Write its name behind the "
                          "result's type, as in f64 pow(f64, f64)",
                          parsed->text);
    if (!code)
        code = open_library(library, &handle, err);
    if (!code && !(symbol = dlsym(handle, parsed->name)))
        code = subhost__fail(err, SUBHOST_ESYSTEM,
                             "it has no function %s; `nm -D` lists what a library has",
                             parsed->name);
    if (!code) {
        memcpy(&function, &symbol, sizeof function);
        code = bind(host, NULL, function, parsed, &o, err);
    } else {
        subhost__signature_free(parsed);
    }
    if (code && handle)
        dlclose(handle);
    if (code)
        subhost__context(err, code, "binding a function of %s",
                         library ? library : "NULL");
    return code;
}
