/* JSON texts, read by jansson. */
#include "json_read.h"

#include <string.h>

#include <jansson.h>

static void add(subhost_value *value, json_t *json)
{
    const char *key;
    size_t key_size, i;
    json_t *item;
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        subhost_value_begin(value, SUBHOST_VALUE_DICT);
        json_object_keylen_foreach(json, key, key_size, item)
        {
            subhost_value_add_str(value, key, key_size);
            add(value, item);
        }
        subhost_value_end(value);
        break;
    case JSON_ARRAY:
        subhost_value_begin(value, SUBHOST_VALUE_LIST);
        json_array_foreach(json, i, item) { add(value, item); }
        subhost_value_end(value);
        break;
    case JSON_STRING:
        subhost_value_add_str(value, json_string_value(json), json_string_length(json));
        break;
    case JSON_INTEGER:
        subhost_value_add_int(value, json_integer_value(json));
        break;
    case JSON_REAL:
        subhost_value_add_float(value, json_real_value(json));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        subhost_value_add_bool(value, json_is_true(json));
        break;
    case JSON_NULL:
        subhost_value_add_none(value);
        break;
    }
}

/* Also U+0000 in a key, and what is nested too deep for jansson. */
static bool python_may_take(const json_error_t *error)
{
    return json_error_code(error) == json_error_numeric_overflow ||
           json_error_code(error) == json_error_null_byte_in_key ||
           json_error_code(error) == json_error_stack_overflow ||
           strncmp(error->text, "invalid Unicode '\\u", strlen("invalid Unicode '\\u")) ==
               0;
}

enum json_read json_read(const char *data, size_t size, subhost_value *value,
                         struct text *error)
{
    json_error_t problem;
    json_t *json = json_loadb(data, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &problem);
    if (json) {
        add(value, json);
        json_decref(json);
        return JSON_READ;
    }
    if (python_may_take(&problem))
        return JSON_READ_OTHER;
    error->failed = json_error_code(&problem) == json_error_out_of_memory;
    text_format(error, "invalid JSON: %s, at column %d", problem.text, problem.column);
    return JSON_READ_BAD;
}
