/* JSON texts, read by yyjson: several times as fast as jansson. */
#include "json_read.h"

#include <string.h>

#include <yyjson.h>

/* False: a number that only Python has. */
static bool add(subhost_value *value, yyjson_val *json)
{
    size_t i, n;
    yyjson_val *key, *item;
    bool ok = true;
    switch (yyjson_get_type(json)) {
    case YYJSON_TYPE_OBJ:
        /* What is nested too deep fails here. */
        if (subhost_value_begin(value, SUBHOST_VALUE_DICT) != 0)
            return true;
        yyjson_obj_foreach(json, i, n, key, item)
        {
            subhost_value_add_str(value, yyjson_get_str(key), yyjson_get_len(key));
            ok = ok && add(value, item);
        }
        subhost_value_end(value);
        return ok;
    case YYJSON_TYPE_ARR:
        if (subhost_value_begin(value, SUBHOST_VALUE_LIST) != 0)
            return true;
        yyjson_arr_foreach(json, i, n, item) { ok = ok && add(value, item); }
        subhost_value_end(value);
        return ok;
    case YYJSON_TYPE_STR:
        subhost_value_add_str(value, yyjson_get_str(json), yyjson_get_len(json));
        return true;
    case YYJSON_TYPE_NUM:
        if (yyjson_is_real(json))
            subhost_value_add_float(value, yyjson_get_real(json));
        else if (yyjson_is_uint(json) && yyjson_get_uint(json) > INT64_MAX)
            return false;
        else
            subhost_value_add_int(value, yyjson_get_sint(json));
        return true;
    case YYJSON_TYPE_BOOL:
        subhost_value_add_bool(value, yyjson_get_bool(json));
        return true;
    case YYJSON_TYPE_NULL:
        subhost_value_add_none(value);
        return true;
    default: /* YYJSON_TYPE_RAW: no double and no integer of 64 bits */
        return false;
    }
}

enum json_read json_read(const char *data, size_t size, subhost_value *value,
                         struct text *error)
{
    yyjson_read_err problem;
    /* Without YYJSON_READ_INSITU the text stays as it is. */
    yyjson_doc *doc =
        yyjson_read_opts((char *)data, size, YYJSON_READ_BIGNUM_AS_RAW, NULL, &problem);
    if (doc) {
        bool ok = add(value, yyjson_doc_get_root(doc));
        yyjson_doc_free(doc);
        return ok ? JSON_READ : JSON_READ_OTHER;
    }
    if (problem.code == YYJSON_READ_ERROR_INVALID_STRING &&
        strstr(problem.msg, "surrogate"))
        return JSON_READ_OTHER;
    error->failed = problem.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION;
    text_format(error, "invalid JSON: %s, at column %zu", problem.msg, problem.pos + 1);
    return JSON_READ_BAD;
}
