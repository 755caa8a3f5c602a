/* What a probe's child says to the audit: fields as in records.h, each in one write, so that
 * what was seen before a crash is kept. */
#define _GNU_SOURCE
#include "probe.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FIELD_SIZE 4000 /* at most PIPE_BUF: such a write is not divided */

static void say(int fd, const char *key, const char *format, va_list args)
{
    char field[FIELD_SIZE];
    int head = snprintf(field, sizeof field, "%s", key) + 1;
    int body = vsnprintf(field + head, sizeof field - (size_t)head, format, args);
    if (body < 0)
        return;
    size_t size = (size_t)head + (size_t)body + 1;
    if (size > sizeof field)
        size = sizeof field; /* cut; vsnprintf() has terminated it */
    (void)!write(fd, field, size);
}

void subhost__see(int fd, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(fd, "seen", format, args);
    va_end(args);
}

void subhost__see_detail(int fd, const char *key, const char *format, ...)
{
    char name[64];
    va_list args;
    va_start(args, format);
    snprintf(name, sizeof name, "detail.%s", key);
    say(fd, name, format, args);
    va_end(args);
}

void subhost__see_skip(int fd, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(fd, "skip", format, args);
    va_end(args);
    _exit(0);
}

void subhost__see_failed(int fd, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(fd, "failed", format, args);
    va_end(args);
    _exit(0);
}
