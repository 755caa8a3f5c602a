/* Errors: see error.h. */
#define _GNU_SOURCE
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct subhost_error {
    int code;
    char message[];
};

/* What is handed out when not even an error object can be allocated. Never freed. */
static struct {
    int code;
    char message[sizeof "out of memory"];
} no_memory = {SUBHOST_ENOMEM, "out of memory"};

#define NO_MEMORY ((subhost_error *)&no_memory)

static subhost_error *make_error(int code, const char *context, const char *message)
{
    size_t size = strlen(context) + strlen(message) + 1;
    subhost_error *err = malloc(sizeof *err + size);
    if (!err)
        return NO_MEMORY;
    err->code = code;
    snprintf(err->message, size, "%s%s", context, message);
    return err;
}

int subhost__fail(subhost_error **err, int code, const char *format, ...)
{
    if (!err)
        return code;
    va_list args;
    char *text = NULL;
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    *err = length < 0 ? NO_MEMORY : make_error(code, text, "");
    if (length >= 0)
        free(text);
    return code;
}

int subhost__fail_errno(subhost_error **err, int errnum, const char *format, ...)
{
    if (!err)
        return SUBHOST_ESYSTEM;
    va_list args;
    char *text = NULL;
    char buffer[128];
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    if (length < 0) {
        *err = NO_MEMORY;
        return SUBHOST_ESYSTEM;
    }
    subhost__fail(err, SUBHOST_ESYSTEM, "%s: %s", text,
                  strerror_r(errnum, buffer, sizeof buffer));
    free(text);
    return SUBHOST_ESYSTEM;
}

int subhost__context(subhost_error **err, int code, const char *format, ...)
{
    if (!err || !*err || *err == NO_MEMORY)
        return code;
    va_list args;
    char *text = NULL;
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    if (length < 0)
        return code;
    subhost_error *inner = *err;
    char *context = NULL;
    if (asprintf(&context, "%s: ", text) >= 0) {
        *err = make_error(inner->code, context, inner->message);
        free(context);
        subhost_error_free(inner);
    }
    free(text);
    return code;
}

int subhost_error_code(const subhost_error *err) { return err ? err->code : SUBHOST_OK; }

const char *subhost_error_message(const subhost_error *err)
{
    return err ? err->message : subhost_code_text(SUBHOST_OK);
}

const char *subhost_code_text(int code)
{
    switch (code) {
    case SUBHOST_OK:
        return "no error";
#define SUBHOST_CODE_TEXT(name, value, text)                                             \
    case name:                                                                           \
        return text;
        SUBHOST_CODES(SUBHOST_CODE_TEXT)
#undef SUBHOST_CODE_TEXT
    }
    return "unknown code";
}

void subhost_error_free(subhost_error *err)
{
    if (err != NO_MEMORY)
        free(err);
}
