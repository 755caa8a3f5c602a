/* SPDX-License-Identifier: MIT
 *
 * The language of signatures: what it takes, and what it says of what it does not. */
#include "unit.h"

#include <locale.h>
#include <math.h>

#include "signature.h"

static struct signature *parse(const char *text, enum sig_use use)
{
    struct signature *signature = NULL;
    subhost_error *err = NULL;
    int code = subhost__signature_parse(text, use, &signature, &err);
    if (code)
        print_error("%s\n", subhost_error_message(err));
    assert_int_equal(code, 0);
    assert_null(err);
    return signature;
}

static void the_parts(void **state)
{
    (void)state;
    struct signature *s =
        parse("  i32\tread ( i32 fd,mut buf to , len<u32>,\n out i64 left ) "
              "errno gil ",
              SIG_FOR_FUNCTION);
    assert_string_equal(s->text,
                        "i32 read ( i32 fd,mut buf to , len<u32>, out i64 left ) "
                        "errno gil");
    assert_string_equal(s->name, "read");
    assert_int_equal(s->result.kind, SIG_I32);
    assert_int_equal(s->n_params, 4);
    assert_int_equal(s->n_arguments, 2);
    assert_int_equal(s->n_positional, 0);
    assert_int_equal(s->n_results, 1);
    assert_int_equal(s->n_buffers, 1);
    assert_true(s->keep_gil);
    assert_int_equal(s->error, SIG_ERRNO);
    assert_string_equal(s->params[0].name, "fd");
    assert_int_equal(s->params[1].type.kind, SIG_BUF);
    assert_true(s->params[1].type.writable);
    assert_int_equal(s->params[2].type.kind, SIG_LEN);
    assert_int_equal(s->params[2].type.item, SIG_U32);
    assert_int_equal(s->params[2].buffer, 1);
    assert_int_equal(s->params[2].number, 0);
    assert_int_equal(s->params[3].way, SIG_OUT);
    assert_true(s->params[3].type.ffi == &ffi_type_sint64);
    subhost__signature_free(s);
}

static void every_word(void **state)
{
    (void)state;
    static const struct {
        const char *word;
        enum sig_kind kind;
        size_t size;
    } scalars[] = {
#define ROW(kind, word, type, ffi) {word, kind, sizeof(type)},
        SIG_SCALARS(ROW)
#undef ROW
    };
    for (size_t i = 0; i < ARRAY_LENGTH(scalars); i++) {
        char text[64];
        snprintf(text, sizeof text, "%s(%s, in %s)", scalars[i].word, scalars[i].word,
                 scalars[i].word);
        struct signature *s = parse(text, SIG_FOR_CALLBACK);
        assert_int_equal(s->result.kind, scalars[i].kind);
        assert_int_equal(s->result.ffi->size, scalars[i].size);
        assert_true(s->ffi_params[0] == s->result.ffi);
        assert_true(s->ffi_params[1] == &ffi_type_pointer);
        assert_string_equal(subhost__sig_word(scalars[i].kind), scalars[i].word);
        subhost__signature_free(s);
    }
}

static void structs_have_the_layout_of_c(void **state)
{
    (void)state;
    struct inner {
        double x, y;
    };
    struct outer {
        int8_t a;
        int64_t b;
        float c;
        void *d;
        struct inner e;
    };
    struct signature *s =
        parse("{i8 a, i64 b, f32 c, ptr<node>? d, {f64, f64} e}()", SIG_FOR_FUNCTION);
    assert_int_equal(s->result.ffi->size, sizeof(struct outer));
    static const size_t offsets[] = {offsetof(struct outer, a), offsetof(struct outer, b),
                                     offsetof(struct outer, c), offsetof(struct outer, d),
                                     offsetof(struct outer, e)};
    assert_int_equal(s->result.n_fields, ARRAY_LENGTH(offsets));
    for (size_t i = 0; i < ARRAY_LENGTH(offsets); i++)
        assert_int_equal(s->result.fields[i].offset, offsets[i]);
    assert_string_equal(s->result.fields[3].type.tag, "node");
    assert_true(s->result.fields[3].type.nullable);
    subhost__signature_free(s);
}

static void defaults(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double number;
        int64_t integer;
    } rows[] = {
        {"i32(ptr) = -1", -1, -1},
        {"u64() = 18446744073709551615", 1.8446744073709552e19, -1},
        {"f64() = 2.5", 2.5, 2},
        {"i8(i8)", 0, 0},
        {"void()", 0, 0},
        {"u8() = 0x10", 16, 16},
        {"f32(void) = -1e3", -1000, -1},
        {"i8() = -128", -128, -128},
        {"i64() = -9223372036854775808", -9223372036854775808.0, INT64_MIN},
        {"bool() = 1", 1, 1},
        {"f32() = inf", INFINITY, 0},
        {"f64() = 1e300", 1e300, 1},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        struct signature *s = parse(rows[i].text, SIG_FOR_CALLBACK);
        assert_true(s->default_float == rows[i].number);
        assert_int_equal(s->default_integer, rows[i].integer);
        subhost__signature_free(s);
    }
}

static void same_functions(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        bool same;
    } rows[] = {
        {"i32(ptr, ptr)", "i32 ( ptr a, ptr b ) = -1", true},
        {"i32(ptr, ptr)", "i32(ptr)", false},
        {"i32(ptr<x>)", "i32(ptr<x>)", true},
        {"i32(ptr<x>)", "i32(ptr<y>)", false},
        {"i32(i32)", "u32(i32)", false},
        {"i32(in i32)", "i32(i32)", false},
        {"void({f64, i8})", "void({f64 x, i8 y})", true},
        {"void({f64, i8})", "void({f64, u8})", false},
        {"void(buf, len)", "void(mut buf, len)", false},
        {"void(buf, len)", "void(buf, len<i32>)", false},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        struct signature *a = parse(rows[i].a, SIG_FOR_CALLBACK);
        struct signature *b = parse(rows[i].b, SIG_FOR_CALLBACK);
        if (subhost__signature_same(a, b) != rows[i].same)
            fail_msg("%s, %s", rows[i].a, rows[i].b);
        subhost__signature_free(a);
        subhost__signature_free(b);
    }
}

static void expect_error(const char *text, enum sig_use use, const char *message)
{
    struct signature *untouched = (struct signature *)&untouched, *s = untouched;
    subhost_error *err = NULL;
    char whole[512];
    snprintf(whole, sizeof whole, "signature \"%s\": %s", text, message);
    assert_int_equal(subhost__signature_parse(text, use, &s, &err), SUBHOST_EINVAL);
    assert_string_equal(subhost_error_message(err), whole);
    assert_true(s == untouched);
    subhost_error_free(err);
    assert_int_equal(subhost__signature_parse(text, use, &s, NULL), SUBHOST_EINVAL);
}

static void errors_of_functions(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"", "column 1: expected a type, found the end"},
        {"f64", "column 4: expected '(' behind the result's type, found the end"},
        {"f64 pow", "column 8: expected '(' behind the result's type, found the end"},
        {"f64 pow 3", "column 9: expected '(' behind the result's type, found '3'"},
        {"f64(", "column 5: expected a type, found the end"},
        {"f64(f64", "column 8: expected ')' or ',' behind a parameter, found the end"},
        {"f64(f64,)", "column 9: expected a type, found ')'"},
        {"f64(f64 x y)", "column 11: expected ')' or ',' behind a parameter, found 'y'"},
        {"f64(f64 x, i8 x)", "column 12: there are two parameters 'x'"},
        {"f64(flot)", "column 5: unknown type 'flot'; the types are listed in "
                      "docs/native.md"},
        {"double(f64)", "column 1: unknown type 'double'; here it is f64"},
        {"void(int)", "column 6: unknown type 'int'; here it is i32"},
        {"void(const ptr)",
         "column 6: unknown type 'const'; here it is nothing: leave it "
         "out"},
        {"void(void, i8)", "column 6: a parameter cannot be void"},
        {"void(out void)",
         "column 10: a parameter cannot be void; a pointer to anything is "
         "ptr"},
        {"void(in buf)", "column 9: a pointer to buf is not supported"},
        {"void(in str)",
         "column 9: a pointer to str is not supported but for out; use ptr"},
        {"void(len)", "column 6: no buf stands in front of this len"},
        {"void(len, buf)", "column 6: no buf stands in front of this len"},
        {"void(buf, len<f64>)", "column 15: a length is an integer, as len<i32>"},
        {"void(buf<str>)", "column 10: a buffer has numbers, as buf<f64>"},
        {"void(buf<f64)", "column 13: expected '>' behind the type, found ')'"},
        {"void(mut i8)", "column 10: only a buf can be mut"},
        {"void(i8?)", "column 8: '?' is for what can be NULL: str, ptr, buf, buffer, fn"},
        {"void(ptr<>)", "column 10: expected a tag, as ptr<node>, found '>'"},
        {"void(ptr<a b>)", "column 12: expected '>' behind the tag, found 'b'"},
        {"void({})", "column 7: expected a type, found '}'"},
        {"void({i8, str})",
         "column 11: a struct cannot have a field of type str; use ptr"},
        {"void({i8, fn i8()})", "column 11: a struct cannot have a field of type fn"},
        {"void({i8", "column 9: expected '}' or ',' in a struct, found the end"},
        {"buf(i8)", "column 1: a function cannot return buf; use ptr"},
        {"fn i8()()", "column 1: a function cannot return fn; use ptr"},
        {"void(...)", "column 6: '...' needs a parameter in front of it"},
        {"void(i8, ..., i8)", "column 13: expected ')' behind '...', found ','"},
        {"i8(i8) = 3", "column 8: only a callback has a default result"},
        {"i8(i8) fast",
         "column 8: expected the end, gil, nogil, errno, negerrno, negative, "
         "nonzero or free"},
        {"i8(i8) gil;", "column 11: expected the end, gil, nogil, errno, negerrno, "
                        "negative, nonzero or free"},
        {"i8(i8) free", "column 8: free is for a result of type str"},
        {"i8() errno negative", "column 12: one convention for errors is enough"},
        {"u8() errno", "column 6: a result of type u8 cannot be an error in this way"},
        {"f64() nonzero",
         "column 7: a result of type f64 cannot be an error in this way"},
        {"ptr() negative",
         "column 7: a result of type ptr cannot be an error in this way"},
        {"void(fn i8(fn i8()))", "column 12: a callback cannot take functions; use ptr"},
        {"void(fn str())", "column 9: a callback cannot return str; use ptr"},
        {"void({{{{{{{{{i8}}}}}}}}})", "column 14: more than 8 levels deep"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++)
        expect_error(rows[i][0], SIG_FOR_FUNCTION, rows[i][1]);
}

static void errors_of_callbacks(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"i8(fn i8())", "column 4: a callback cannot take functions; use ptr"},
        {"i8(out i8)",
         "column 8: a callback's parameters cannot be out or inout; use ptr"},
        {"i8(i8, ...)", "column 8: a callback cannot be variadic"},
        {"i8(buf, i8)", "column 4: a buf of a callback needs a len behind it, or is ptr"},
        {"i8() gil", "column 6: expected the end, found 'gil'"},
        {"i8() = x", "column 8: expected an integer behind '='"},
        {"i8() = 1.5", "column 8: expected an integer behind '='"},
        {"f64() = ", "column 9: expected a number behind '='"},
        {"i8() = 300", "column 8: the default does not fit i8 (-128 to 127)"},
        {"i8() = -129", "column 8: the default does not fit i8 (-128 to 127)"},
        {"u8() = -1", "column 8: the default does not fit u8 (0 to 255)"},
        {"i32() = 99999999999",
         "column 9: the default does not fit i32 (-2147483648 to 2147483647)"},
        {"i64() = 9223372036854775808",
         "column 9: the default does not fit i64 (-9223372036854775808 to "
         "9223372036854775807)"},
        {"u64() = 18446744073709551616",
         "column 9: the default does not fit u64 (0 to 18446744073709551615)"},
        {"i64() = -9223372036854775809",
         "column 9: the default does not fit i64 (-9223372036854775808 to "
         "9223372036854775807)"},
        {"bool() = 256", "column 10: the default does not fit bool (0 or 1)"},
        {"f32() = 1e300", "column 9: the default does not fit f32"},
        {"f64() = -1e999", "column 9: the default does not fit f64"},
        {"\xC3\xA9()", "column 1: expected a type, found '\xC3\xA9'"},
        {"i8(\xE2\x82\xAC)", "column 4: expected a type, found '\xE2\x82\xAC'"},
        {"ptr() = 0",
         "column 7: only numbers have a default result; NULL or zeros are the "
         "others'"},
        {"buf()", "column 1: a callback cannot return buf; use ptr"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++)
        expect_error(rows[i][0], SIG_FOR_CALLBACK, rows[i][1]);
}

/* An error is one line, and UTF-8 where the signature is. */
static void errors_show_the_signature(void **state)
{
    (void)state;
    subhost_error *err = NULL;
    struct signature *s = NULL;
    assert_int_equal(
        subhost__signature_parse("f64\n\tsqrt(double)", SIG_FOR_FUNCTION, &s, &err),
        SUBHOST_EINVAL);
    assert_string_equal(subhost_error_message(err),
                        "signature \"f64  sqrt(double)\": column 11: unknown type "
                        "'double'; here it is f64");
    subhost_error_free(err);
    char text[256] = "i8(", shown[512];
    for (int i = 0; i < 80; i++)
        strcat(text, "\xE2\x82\xAC"); /* the 200th byte is inside one */
    snprintf(shown, sizeof shown,
             "signature \"%.198s\": column 4: expected a type, found '\xE2\x82\xAC'",
             text);
    assert_int_equal(subhost__signature_parse(text, SIG_FOR_FUNCTION, &s, &err),
                     SUBHOST_EINVAL);
    assert_string_equal(subhost_error_message(err), shown);
    subhost_error_free(err);
}

/* Not a comma, as the program's locale may have. */
static void defaults_have_a_point(void **state)
{
    (void)state;
    if (!setlocale(LC_NUMERIC, "de_DE.UTF-8"))
        skip(); /* it is not installed */
    struct signature *s = parse("f64() = 2.5", SIG_FOR_CALLBACK);
    assert_true(s->default_float == 2.5);
    subhost__signature_free(s);
    setlocale(LC_NUMERIC, "C");
}

static void limits(void **state)
{
    (void)state;
    char text[SIG_MAX_TEXT + 16] = "void(i8";
    for (int i = 1; i < SIG_MAX_PARAMS; i++)
        strcat(text, ",i8");
    size_t n = strlen(text);
    strcpy(text + n, ")");
    struct signature *s = parse(text, SIG_FOR_FUNCTION);
    assert_int_equal(s->n_params, SIG_MAX_PARAMS);
    subhost__signature_free(s);
    strcpy(text + n, ",i8)");
    char message[96];
    snprintf(message, sizeof message, "column %zu: a function has at most %d parameters",
             n + 2, SIG_MAX_PARAMS);
    expect_error(text, SIG_FOR_FUNCTION, message);

    subhost_error *err = NULL;
    memset(text, ' ', sizeof text - 1);
    text[SIG_MAX_TEXT + 1] = '\0';
    assert_int_equal(subhost__signature_parse(text, SIG_FOR_FUNCTION, &s, &err),
                     SUBHOST_EINVAL);
    assert_string_equal(subhost_error_message(err),
                        "a signature has at most 4096 characters");
    subhost_error_free(err);
}

/* Whatever is cut off a signature: an error, or another signature, and nothing lost. */
static void every_beginning(void **state)
{
    (void)state;
    static const char whole[] =
        "{i8 a, {f64, ptr<n>?} b} f(mut buf<i32> x, len<i16>, inout u8 n, out str s, "
        "fn? i32(in i32 a, {f64}, buf, len) = -3 g, str? t, ...) nogil";
    for (size_t n = 0; n < sizeof whole; n++) {
        char text[sizeof whole];
        snprintf(text, sizeof text, "%.*s", (int)n, whole);
        struct signature *s = NULL;
        subhost_error *err = NULL;
        int code = subhost__signature_parse(text, SIG_FOR_FUNCTION, &s, &err);
        assert_int_equal(code != 0, err != NULL);
        assert_int_equal(code == 0, s != NULL);
        subhost__signature_free(s);
        subhost_error_free(err);
    }
    subhost__signature_free(parse(whole, SIG_FOR_FUNCTION));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_parts),
        cmocka_unit_test(every_word),
        cmocka_unit_test(structs_have_the_layout_of_c),
        cmocka_unit_test(defaults),
        cmocka_unit_test(same_functions),
        cmocka_unit_test(errors_of_functions),
        cmocka_unit_test(errors_of_callbacks),
        cmocka_unit_test(errors_show_the_signature),
        cmocka_unit_test(defaults_have_a_point),
        cmocka_unit_test(limits),
        cmocka_unit_test(every_beginning),
    };
    return UNIT_MAIN(tests);
}
