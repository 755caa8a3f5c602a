/* Values become JSON texts: to the byte those that Python's json.dumps() prints. */
#define _GNU_SOURCE
#include "json.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Python refuses to print larger integers (sys.set_int_max_str_digits()). */
#define INT_DIGITS_MAX 4300

/* The next code point of UTF-8 in which surrogates may stand. What is no UTF-8 at all comes
 * as a surrogate, as Python's surrogateescape has it. */
static uint32_t code_point(const unsigned char *data, size_t size, size_t *at)
{
    unsigned char first = data[(*at)++];
    unsigned more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : first >= 0xC2 ? 1 : 0;
    if (first < 0x80)
        return first;
    if (more == 0 || first > 0xF4 || size - *at < more)
        return 0xDC00u + first;
    uint32_t point = first & (0x3Fu >> more);
    for (unsigned i = 0; i < more; i++) {
        if ((data[*at + i] & 0xC0) != 0x80)
            return 0xDC00u + first;
        point = point << 6 | (data[*at + i] & 0x3Fu);
    }
    *at += more;
    return point;
}

static void print_escaped(struct text *text, uint32_t point)
{
    static const char short_escapes[] = "\bb\ff\nn\rr\tt\"\"\\\\";
    for (const char *c = short_escapes; *c; c += 2) {
        if ((uint32_t)(unsigned char)*c == point) {
            const char pair[2] = {'\\', c[1]};
            text_add(text, pair, 2);
            return;
        }
    }
    if (point >= 0x10000) {
        point -= 0x10000;
        text_format(text, "\\u%04x\\u%04x", 0xD800 + (point >> 10),
                    0xDC00 + (point & 0x3FF));
    } else {
        text_format(text, "\\u%04x", point);
    }
}

void json_print_string(struct text *text, const char *data, size_t size)
{
    const unsigned char *bytes = (const unsigned char *)data;
    text_add(text, "\"", 1);
    for (size_t at = 0; at < size;) {
        size_t start = at;
        while (at < size && bytes[at] >= ' ' && bytes[at] <= '~' && bytes[at] != '"' &&
               bytes[at] != '\\')
            at++;
        text_add(text, data + start, at - start);
        if (at < size)
            print_escaped(text, code_point(bytes, size, &at));
    }
    text_add(text, "\"", 1);
}

/* The shortest digits that are this number again, as "%.*e" prints them. */
static void shortest(double number, char *buffer, size_t size)
{
    /* A normal number of up to 15 digits has them in "%.14e", with zeros behind. */
    int precision = fabs(number) < 2.3e-308 ? 0 : 14;
    for (; precision <= 16; precision++) {
        snprintf(buffer, size, "%.*e", precision, number);
        if (strtod(buffer, NULL) == number)
            return;
        /* Below a power of two doubles are twice as dense as above: the number that is
         * nearest among those of so many digits may be the wrong one, the next may not. */
        int exponent;
        if (frexp(number, &exponent) != 0.5 && frexp(number, &exponent) != -0.5)
            continue;
        char *mark = strchr(buffer, 'e'), *last = mark - 1;
        if (*last == '9' || *last == '.')
            continue;
        ++*last;
        if (strtod(buffer, NULL) == number)
            return;
    }
}

static void print_digits(struct text *text, unsigned long long number, int least)
{
    char digits[20], *end = digits + sizeof digits, *first = end;
    do
        *--first = (char)('0' + number % 10);
    while ((number /= 10) || end - first < least);
    text_add(text, first, (size_t)(end - first));
}

static void print_int(struct text *text, long long number)
{
    if (number < 0)
        text_add(text, "-", 1);
    print_digits(
        text, number < 0 ? -(unsigned long long)number : (unsigned long long)number, 1);
}

/* Most numbers that people write down have few decimals: as repr() then, in one step. False:
 * not this one.
 * A decimal number of at most 15 digits is the quotient of two integers that doubles hold
 * exactly, so the division gives the double that is nearest to it. Two of them never have the
 * same (DBL_DIG), so one that is found is the shortest, but for zeros at its end; and there
 * are none as long as fewer decimals do not do. */
static bool print_few_decimals(struct text *text, double number)
{
    double size = fabs(number), power = 1;
    for (int decimals = 0; decimals <= 4; decimals++, power *= 10) {
        double whole = nearbyint(size * power);
        if (whole >= 1e15)
            return false;
        if (whole / power != size)
            continue;
        if (signbit(number))
            text_add(text, "-", 1);
        unsigned long long digits = (unsigned long long)whole, unit = (unsigned)power;
        print_digits(text, digits / unit, 1);
        text_add(text, ".", 1);
        print_digits(text, digits % unit, decimals);
        return true;
    }
    return false;
}

/* As repr(): 1.0, 1e+16, 1e-05. */
static void print_float(struct text *text, double number)
{
    if (print_few_decimals(text, number))
        return;
    char buffer[64], digits[32];
    shortest(number, buffer, sizeof buffer);
    char *mark = strchr(buffer, 'e');
    int exponent = atoi(mark + 1), n = 0;
    for (const char *c = buffer; c < mark; c++) {
        if (*c >= '0' && *c <= '9')
            digits[n++] = *c;
    }
    while (n > 1 && digits[n - 1] == '0')
        n--;
    if (buffer[0] == '-')
        text_add(text, "-", 1);
    if (exponent < -4 || exponent >= 16) {
        text_add(text, digits, 1);
        if (n > 1)
            text_add(text, ".", 1);
        text_add(text, digits + 1, (size_t)n - 1);
        text_format(text, "e%+03d", exponent);
    } else if (exponent < 0) {
        text_add(text, "0.000", (size_t)(1 - exponent));
        text_add(text, digits, (size_t)n);
    } else {
        for (int i = 0; i <= exponent || i < n; i++) {
            if (i == exponent + 1)
                text_add(text, ".", 1);
            text_add(text, i < n ? &digits[i] : "0", 1);
        }
        if (n <= exponent + 1)
            text_add(text, ".0", 2);
    }
}

/* Two's complement in little-endian bytes, by repeated division. */
static bool print_bigint(struct text *text, const unsigned char *bytes, size_t size,
                         struct text *error)
{
    size_t n = (size + 3) / 4, digits = 0;
    bool negative = bytes[size - 1] & 0x80;
    uint32_t *limbs = size < INT_DIGITS_MAX ? calloc(n, sizeof *limbs) : NULL;
    /* Nine digits each. */
    uint32_t *chunks = limbs ? calloc(n * 32 / 29 + 2, sizeof *chunks) : NULL;
    uint64_t carry = negative;
    for (size_t i = 0; chunks && i < 4 * n; i++) {
        unsigned char byte = i < size ? bytes[i] : negative ? 0xFF : 0;
        carry += negative ? (unsigned char)~byte : byte;
        limbs[i / 4] |= (uint32_t)(carry & 0xFF) << (8 * (i % 4));
        carry >>= 8;
    }
    size_t n_chunks = 0;
    while (chunks && n > 0) {
        uint64_t rest = 0;
        for (size_t i = n; i > 0; i--) {
            rest = rest << 32 | limbs[i - 1];
            limbs[i - 1] = (uint32_t)(rest / 1000000000);
            rest %= 1000000000;
        }
        chunks[n_chunks++] = (uint32_t)rest;
        while (n > 0 && limbs[n - 1] == 0)
            n--;
    }
    for (size_t i = 9 * n_chunks; chunks && i > 0 && digits == 0; i--) {
        uint32_t chunk = chunks[(i - 1) / 9];
        for (size_t j = (i - 1) % 9; j > 0; j--)
            chunk /= 10;
        digits = chunk ? i : 0;
    }
    bool ok = chunks && digits <= INT_DIGITS_MAX;
    if (ok) {
        text_format(text, "%s%u", negative ? "-" : "", chunks[n_chunks - 1]);
        for (size_t i = n_chunks - 1; i > 0; i--)
            text_format(text, "%09u", chunks[i - 1]);
    } else {
        text_format(error,
                    "ValueError: Exceeds the limit (%d digits) for integer string "
                    "conversion; use sys.set_int_max_str_digits() to increase the limit",
                    INT_DIGITS_MAX);
    }
    free(chunks);
    free(limbs);
    return ok;
}

struct printer {
    struct text *text, *error;
    const subhost_value *value;
    size_t at;
};

static bool next(struct printer *printer, subhost_item *item)
{
    *item = (subhost_item)SUBHOST_ITEM_INIT;
    if (subhost_value_next(printer->value, &printer->at, item, NULL) == 1)
        return true;
    text_add_string(printer->error, "the result makes no sense");
    return false;
}

static bool print_number(struct printer *printer, const subhost_item *item)
{
    if (item->kind == SUBHOST_VALUE_INT) {
        print_int(printer->text, item->integer);
        return true;
    }
    if (item->kind == SUBHOST_VALUE_BIGINT)
        return print_bigint(printer->text, item->data, item->length, printer->error);
    if (isfinite(item->number)) {
        print_float(printer->text, item->number);
        return true;
    }
    text_format(printer->error,
                "ValueError: Out of range float values are not JSON compliant: %s",
                isnan(item->number) ? "nan"
                : item->number > 0  ? "inf"
                                    : "-inf");
    return false;
}

static void print_constant(struct text *text, const subhost_item *item)
{
    text_add_string(text, item->kind == SUBHOST_VALUE_NONE ? "null"
                          : item->integer                  ? "true"
                                                           : "false");
}

/* Keys are strings in JSON; json.dumps() makes them of numbers and constants. */
static bool print_key(struct printer *printer)
{
    subhost_item item;
    if (!next(printer, &item))
        return false;
    bool ok = true;
    switch (item.kind) {
    case SUBHOST_VALUE_STR:
        json_print_string(printer->text, item.data, item.length);
        return true;
    case SUBHOST_VALUE_NONE:
    case SUBHOST_VALUE_BOOL:
    case SUBHOST_VALUE_INT:
    case SUBHOST_VALUE_BIGINT:
    case SUBHOST_VALUE_FLOAT:
        text_add(printer->text, "\"", 1);
        if (item.kind == SUBHOST_VALUE_NONE || item.kind == SUBHOST_VALUE_BOOL)
            print_constant(printer->text, &item);
        else
            ok = print_number(printer, &item);
        text_add(printer->text, "\"", 1);
        return ok;
    default:
        text_format(printer->error,
                    "TypeError: keys must be str, int, float, bool or None, not %s",
                    subhost_value_kind_name(item.kind));
        return false;
    }
}

static bool print(struct printer *printer)
{
    subhost_item item;
    if (!next(printer, &item))
        return false;
    bool is_dict = item.kind == SUBHOST_VALUE_DICT;
    switch (item.kind) {
    case SUBHOST_VALUE_NONE:
    case SUBHOST_VALUE_BOOL:
        print_constant(printer->text, &item);
        return true;
    case SUBHOST_VALUE_INT:
    case SUBHOST_VALUE_BIGINT:
    case SUBHOST_VALUE_FLOAT:
        return print_number(printer, &item);
    case SUBHOST_VALUE_STR:
        json_print_string(printer->text, item.data, item.length);
        return true;
    case SUBHOST_VALUE_LIST:
    case SUBHOST_VALUE_TUPLE:
    case SUBHOST_VALUE_DICT:
        text_add(printer->text, is_dict ? "{" : "[", 1);
        for (size_t i = 0; i < item.length; i++) {
            if (i > 0)
                text_add(printer->text, ", ", 2);
            if (is_dict && !print_key(printer))
                return false;
            if (is_dict)
                text_add(printer->text, ": ", 2);
            if (!print(printer))
                return false;
        }
        text_add(printer->text, is_dict ? "}" : "]", 1);
        return true;
    default:
        text_format(printer->error,
                    "TypeError: Object of type %s is not JSON serializable",
                    subhost_value_kind_name(item.kind));
        return false;
    }
}

bool json_print(struct text *text, const subhost_value *value, struct text *error)
{
    struct printer printer = {.text = text, .error = error, .value = value};
    size_t before = text->size;
    if (print(&printer))
        return true;
    text->size = before;
    return false;
}
