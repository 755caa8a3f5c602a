/* Functions of every type that the signature language has, for native.t. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SAME(name, type)                                                                 \
    type same_##name(type value);                                                        \
    type same_##name(type value) { return value; }                                       \
    void through_##name(type const *in, type *out);                                      \
    void through_##name(type const *in, type *out) { *out = *in; }
SAME(i8, int8_t)
SAME(u8, uint8_t)
SAME(i16, int16_t)
SAME(u16, uint16_t)
SAME(i32, int32_t)
SAME(u32, uint32_t)
SAME(i64, int64_t)
SAME(u64, uint64_t)
SAME(size, size_t)
SAME(ssize, ssize_t)
SAME(f32, float)
SAME(f64, double)
SAME(bool, bool)
SAME(ptr, void *)

/* Functions that only this file's users know. */
#define FUNCTION(type, name, params)                                                     \
    type name params;                                                                    \
    type name params

FUNCTION(int, string_length, (const char *text)) { return text ? (int)strlen(text) : -1; }
FUNCTION(const char *, constant, (int which)) { return which ? "caf\xc3\xa9" : NULL; }
FUNCTION(char *, copied, (const char *text)) { return strdup(text); }
FUNCTION(void, find_name, (int which, const char **name))
{
    *name = which ? "one" : NULL;
}

FUNCTION(uint64_t, sum_bytes, (const unsigned char *bytes, size_t n))
{
    uint64_t sum = 0;
    while (n > 0)
        sum += bytes[--n];
    return sum;
}

FUNCTION(double, sum_doubles, (const double *values, int32_t n))
{
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += values[i];
    return sum;
}

FUNCTION(void, fill, (unsigned char *bytes, size_t n, int value))
{
    memset(bytes, value, n);
}
FUNCTION(int, tiny_length, (const void *bytes, uint8_t n)) { return bytes ? n : -1; }

/* Structs: small ones travel in registers, the large one in memory. */
struct point {
    double x, y;
};
struct mixed {
    int8_t a;
    int64_t b;
    float c;
    void *d;
    struct point e;
};
FUNCTION(struct point, swap, (struct point p)) { return (struct point){p.y, p.x}; }
FUNCTION(struct mixed, negate, (struct mixed m))
{
    return (struct mixed){(int8_t)-m.a, -m.b, -m.c, m.d, {-m.e.x, -m.e.y}};
}
FUNCTION(void, move, (struct point * p, const struct point *by))
{
    p->x += by->x;
    p->y += by->y;
}

/* Out-parameters. */
FUNCTION(int, divide, (int a, int b, int *quotient, int *remainder))
{
    if (b == 0)
        return -1;
    *quotient = a / b;
    *remainder = a % b;
    return 0;
}
FUNCTION(void, increment, (int32_t * value)) { ++*value; }

/* Errors. */
FUNCTION(int, fail_errno, (int number))
{
    errno = number;
    return number ? -1 : 5;
}
FUNCTION(void *, null_errno, (int number))
{
    errno = number;
    return number ? NULL : (void *)&errno;
}
FUNCTION(int, give, (int value)) { return value; }

/* Handles. */
struct node {
    int value;
};
FUNCTION(struct node *, node_new, (int value))
{
    struct node *node = malloc(sizeof *node);
    if (node)
        node->value = value;
    return node;
}
FUNCTION(int, node_value, (const struct node *node)) { return node ? node->value : -1; }
FUNCTION(void, node_free, (struct node * node)) { free(node); }

/* Many arguments, so that some are on the stack. */
FUNCTION(double, sum_all,
         (int8_t a, double b, uint16_t c, float d, int64_t e, double f, int32_t g,
          int32_t h, int32_t i, int32_t j, int32_t k, double l))
{
    return a + b + c + (double)d + (double)e + f + g + h + i + j + k + l;
}

FUNCTION(int, join, (char *to, size_t size, const char *format, ...))
{
    va_list list;
    va_start(list, format);
    int n = vsnprintf(to, size, format, list);
    va_end(list);
    return n;
}

/* Blocking: in libc, and computing. */
FUNCTION(ssize_t, read_pipe, (int fd, void *to, size_t n)) { return read(fd, to, n); }
extern int subhost_cancel_requested(void) __attribute__((weak));
FUNCTION(int, spin, (void))
{
    int rounds = 0;
    while (!subhost_cancel_requested || !subhost_cancel_requested()) {
        usleep(1000);
        if (++rounds > 20000)
            return -1;
    }
    return rounds;
}
