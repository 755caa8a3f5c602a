/* What a JSON library is for: json_read_yyjson.c, or json_read_jansson.c where there is none. */
#ifndef RUNNER_JSON_READ_H
#define RUNNER_JSON_READ_H

#include "json.h"

enum json_read {
    JSON_READ,     /* the value has it */
    JSON_READ_BAD, /* it is no JSON: `error` says why */
    JSON_READ_OTHER, /* Python may take it all the same: integers beyond 64 bits, floats that
                        overflow, surrogates that stand alone */
};

/* Adds what the text stands for to the value. It has no NUL byte. */
enum json_read json_read(const char *data, size_t size, subhost_value *value,
                         struct text *error);

#endif
