/* JSON texts and values. */
#ifndef RUNNER_JSON_H
#define RUNNER_JSON_H

#include <stdbool.h>
#include <stddef.h>

#include <subhost.h>

/* A text that grows. */
struct text {
    char *data;
    size_t size, room;
    bool failed; /* out of memory; nothing is added any more */
};

void text_add(struct text *text, const char *data, size_t size);
void text_add_string(struct text *text, const char *string);
void text_format(struct text *text, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void text_free(struct text *text);

/* Puts what a JSON text stands for into the value. False: it is none; `error` says why. */
bool json_parse(const char *data, size_t size, subhost_value *value, struct text *error);

/* Prints a value as Python's json.dumps() does. False: JSON has nothing for it; `error` says
 * what json.dumps() would raise, and the text is as it was. */
bool json_print(struct text *text, const subhost_value *value, struct text *error);
/* Prints a string of UTF-8, as json.dumps() does. */
void json_print_string(struct text *text, const char *data, size_t size);

#endif
