/* JSON texts and values. */
#ifndef RUNNER_JSON_H
#define RUNNER_JSON_H

#include <stdbool.h>
#include <stddef.h>

#include <subhost.h>

#include "text.h"

/* Puts what a JSON text stands for into the value. False: it is none; `error` says why, or is
 * `failed`: out of memory. */
bool json_parse(const char *data, size_t size, subhost_value *value, struct text *error);

/* Prints a value as Python's json.dumps() does. False: JSON has nothing for it; `error` says
 * what json.dumps() would raise, and the text is as it was. */
bool json_print(struct text *text, const subhost_value *value, struct text *error);
/* Prints a string of UTF-8, as json.dumps() does. */
void json_print_string(struct text *text, const char *data, size_t size);

#endif
