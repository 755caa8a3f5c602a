/* A text that grows. */
#define _GNU_SOURCE
#include "text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *extend(struct text *text, size_t more)
{
    if (text->failed)
        return NULL;
    if (text->size + more > text->room) {
        size_t room = text->room ? text->room : 256;
        while (room < text->size + more)
            room *= 2;
        char *data = realloc(text->data, room);
        if (!data) {
            text->failed = true;
            return NULL;
        }
        text->data = data;
        text->room = room;
    }
    char *to = text->data + text->size;
    text->size += more;
    return to;
}

void text_add(struct text *text, const char *data, size_t size)
{
    char *to = extend(text, size);
    if (to && size)
        memcpy(to, data, size);
}

void text_add_string(struct text *text, const char *string)
{
    text_add(text, string, strlen(string));
}

void text_format(struct text *text, const char *format, ...)
{
    char buffer[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(buffer, sizeof buffer, format, args);
    va_end(args);
    if (n > 0)
        text_add(text, buffer, (size_t)n < sizeof buffer ? (size_t)n : sizeof buffer - 1);
}

void text_free(struct text *text)
{
    free(text->data);
    *text = (struct text){0};
}
