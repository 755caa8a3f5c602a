/* JSON texts become values: those that a JSON library takes, and those that only Python does. */
#define _GNU_SOURCE
#include "json.h"

#include <string.h>

#include "json_read.h"

/* What Python takes and JSON has not: NaN, Infinity and -Infinity, outside of strings. */
static const char *find_constant(const char *data, size_t size)
{
    bool in_string = false;
    for (const char *c = data; c < data + size; c++) {
        if (*c == '"')
            in_string = !in_string;
        else if (in_string && *c == '\\')
            c++;
        else if (!in_string && (*c == 'N' || *c == 'I'))
            return c;
    }
    return NULL;
}

static bool is_blank(const char *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (!strchr(" \t\r", data[i]) || !data[i])
            return false;
    }
    return true;
}

bool json_parse(const char *data, size_t size, subhost_value *value, struct text *error)
{
    subhost_value_clear(value);
    if (is_blank(data, size)) {
        text_add_string(error, "there is no JSON value on this line");
        return false;
    }
    const char *nul = memchr(data, '\0', size);
    if (nul) {
        text_format(error, "invalid JSON: a NUL byte, at column %zu", nul - data + 1);
        return false;
    }
    const char *constant;
    switch (json_read(data, size, value, error)) {
    case JSON_READ:
        break;
    case JSON_READ_BAD:
        return false;
    case JSON_READ_OTHER:
        constant = find_constant(data, size);
        if (constant) {
            text_format(error, "invalid JSON: NaN or Infinity, at column %zu",
                        constant - data + 1);
            return false;
        }
        subhost_value_clear(value);
        subhost_value_add_json(value, data, size);
        break;
    }
    subhost_error *err = NULL;
    int code = subhost_value_check(value, &err);
    if (code == 0)
        return true;
    error->failed = code == SUBHOST_ENOMEM;
    text_add_string(error, subhost_error_message(err));
    subhost_error_free(err);
    return false;
}
