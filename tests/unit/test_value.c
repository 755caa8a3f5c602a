/* Values, without Python: what is put in comes out, mistakes are named, and no bytes whatever
 * are read beyond their end. */
#include "unit.h"

#include "value.h"

static subhost_value *new_value(void)
{
    subhost_value *value = NULL;
    assert_int_equal(subhost_value_new(&value, NULL), 0);
    return value;
}

static subhost_item next(const subhost_value *value, size_t *at)
{
    subhost_item item = SUBHOST_ITEM_INIT;
    assert_int_equal(subhost_value_next(value, at, &item, NULL), 1);
    return item;
}

/* [None, True, -5, 2**40, 1.5, "aé", b"\0", (), {"k": [1]}] */
static void fill(subhost_value *value)
{
    subhost_value_begin(value, SUBHOST_VALUE_LIST);
    subhost_value_add_none(value);
    subhost_value_add_bool(value, 1);
    subhost_value_add_int(value, -5);
    subhost_value_add_int(value, INT64_C(1) << 40);
    subhost_value_add_float(value, 1.5);
    subhost_value_add_str(value, "a\xC3\xA9", 3);
    subhost_value_add_bytes(value, "", 1);
    subhost_value_begin(value, SUBHOST_VALUE_TUPLE);
    subhost_value_end(value);
    subhost_value_begin(value, SUBHOST_VALUE_DICT);
    subhost_value_add_str(value, "k", 1);
    subhost_value_begin(value, SUBHOST_VALUE_LIST);
    subhost_value_add_bigint(value, "\1\0\0\0\0\0\0\0\1", 9);
    subhost_value_end(value);
    subhost_value_end(value);
    subhost_value_end(value);
}

static void test_round_trip(void **state)
{
    (void)state;
    subhost_value *value = new_value(), *copy = new_value();
    size_t size, at = 0;
    fill(value);
    assert_int_equal(subhost_value_check(value, NULL), 0);
    const void *data = subhost_value_data(value, &size);
    assert_int_equal(subhost_value_load(copy, data, size, NULL), 0);
    subhost_item item = next(copy, &at);
    assert_int_equal(item.kind, SUBHOST_VALUE_LIST);
    assert_int_equal(item.length, 9);
    assert_int_equal(next(copy, &at).kind, SUBHOST_VALUE_NONE);
    item = next(copy, &at);
    assert_true(item.kind == SUBHOST_VALUE_BOOL && item.integer == 1);
    assert_int_equal(next(copy, &at).integer, -5);
    assert_int_equal(next(copy, &at).integer, INT64_C(1) << 40);
    assert_true(next(copy, &at).number == 1.5);
    item = next(copy, &at);
    assert_int_equal(item.length, 3);
    assert_memory_equal(item.data, "a\xC3\xA9", 3);
    assert_int_equal(next(copy, &at).length, 1);
    assert_int_equal(next(copy, &at).kind, SUBHOST_VALUE_TUPLE);
    item = next(copy, &at);
    assert_true(item.kind == SUBHOST_VALUE_DICT && item.length == 1);
    assert_int_equal(next(copy, &at).kind, SUBHOST_VALUE_STR);
    assert_int_equal(next(copy, &at).kind, SUBHOST_VALUE_LIST);
    assert_int_equal(next(copy, &at).kind, SUBHOST_VALUE_BIGINT);
    assert_int_equal(subhost_value_next(copy, &at, &item, NULL), 0);
    subhost_value_free(value);
    subhost_value_free(copy);
}

static void assert_wrong(const subhost_value *value, const char *text)
{
    subhost_error *err = NULL;
    assert_int_equal(subhost_value_check(value, &err), SUBHOST_EINVAL);
    if (!strstr(subhost_error_message(err), text))
        fail_msg("'%s' has no '%s'", subhost_error_message(err), text);
    subhost_error_free(err);
}

static void test_mistakes(void **state)
{
    (void)state;
    subhost_value *value = new_value();
    assert_wrong(value, "0 values");
    subhost_value_add_none(value);
    subhost_value_add_none(value);
    assert_wrong(value, "2 values");
    subhost_value_clear(value);
    subhost_value_begin(value, SUBHOST_VALUE_LIST);
    assert_wrong(value, "1 lists, tuples or dicts are not ended");
    subhost_value_clear(value);
    subhost_value_begin(value, SUBHOST_VALUE_DICT);
    subhost_value_add_none(value);
    assert_int_equal(subhost_value_end(value), SUBHOST_EINVAL);
    assert_wrong(value, "the last key of a dict has no value");
    /* The first failure stays. */
    assert_int_equal(subhost_value_add_none(value), SUBHOST_EINVAL);
    assert_wrong(value, "the last key");
    subhost_value_clear(value);
    assert_int_equal(subhost_value_end(value), SUBHOST_EINVAL);
    assert_wrong(value, "without a begin");
    subhost_value_clear(value);
    assert_int_equal(subhost_value_begin(value, SUBHOST_VALUE_STR), SUBHOST_EINVAL);
    subhost_value_clear(value);
    assert_int_equal(subhost_value_add_str(value, NULL, 3), SUBHOST_EINVAL);
    subhost_value_clear(value);
    for (int i = 0; i <= SUBHOST_VALUE_DEPTH; i++)
        subhost_value_begin(value, SUBHOST_VALUE_LIST);
    assert_wrong(value, "nested too deep");
    subhost_value_clear(value);
    subhost_value_add_none(value);
    assert_int_equal(subhost_value_check(value, NULL), 0);
    subhost_value_free(value);
    subhost_value_free(NULL);
}

static void test_no_value(void **state)
{
    (void)state;
    subhost_memory memory = SUBHOST_MEMORY_INIT;
    subhost_buffer *buffer;
    assert_int_equal(subhost_buffer_new(&memory, NULL, NULL, &buffer, NULL), 0);
    const int codes[] = {
        subhost_value_add_none(NULL),
        subhost_value_add_bool(NULL, 1),
        subhost_value_add_int(NULL, 1),
        subhost_value_add_int(NULL, 1000),
        subhost_value_add_bigint(NULL, "1", 1),
        subhost_value_add_bigint(NULL, NULL, 0),
        subhost_value_add_float(NULL, 1),
        subhost_value_add_str(NULL, "", 0),
        subhost_value_add_str(NULL, NULL, 3),
        subhost_value_add_bytes(NULL, "a", 1),
        subhost_value_add_json(NULL, "1", 1),
        subhost_value_add_buffer(NULL, buffer),
        subhost_value_add_buffer(NULL, NULL),
        subhost_value_end(NULL),
        subhost_value_check(NULL, NULL),
        subhost_value_begin(NULL, SUBHOST_VALUE_LIST),
    };
    for (size_t i = 0; i < ARRAY_LENGTH(codes); i++)
        assert_int_equal(codes[i], SUBHOST_EINVAL);
    subhost_buffer_release(buffer);
}

static void assert_refused(const void *data, size_t size, const char *text)
{
    subhost_value *value = new_value();
    subhost_error *err = NULL;
    assert_int_equal(subhost_value_load(value, data, size, &err), SUBHOST_EINVAL);
    if (!strstr(subhost_error_message(err), text))
        fail_msg("'%s' has no '%s'", subhost_error_message(err), text);
    subhost_error_free(err);
    subhost_value_free(value);
}

static void test_bad_bytes(void **state)
{
    (void)state;
    char deep[5 * (SUBHOST_VALUE_DEPTH + 2)];
    assert_refused("", 0, "it is empty");
    assert_refused("?", 1, "a tag that is none");
    assert_refused("NN", 2, "something follows its end");
    assert_refused("I\1\2", 3, "in the middle of a value");
    assert_refused("s\5ab", 4, "in the middle of a value");
    assert_refused("l\xFF\xFF\xFF\xFF", 5, "a count is larger than what follows");
    assert_refused("l\2\0\0\0N?", 7, "a tag that is none");
    for (size_t i = 0; i < sizeof deep; i++)
        deep[i] = i % 5 == 0 ? 'l' : i % 5 == 1;
    assert_refused(deep, sizeof deep, "nested too deep");
}

/* Whatever they are: refused, or a value that can be read to its end. */
static void test_random_bytes(void **state)
{
    (void)state;
    static const char tags[] = "NTFiIGdsSBltmpj";
    subhost_value *value = new_value();
    unsigned seed = 1, taken = 0;
    for (int round = 0; round < unit_count(200000, 20000, 2000); round++) {
        unsigned char data[64];
        size_t size = (size_t)rand_r(&seed) % sizeof data, at = 0;
        for (size_t i = 0; i < size; i++)
            data[i] = rand_r(&seed) % 3 ? (unsigned char)tags[(size_t)rand_r(&seed) % 15]
                                        : (unsigned char)(rand_r(&seed) % 6);
        /* On the heap, of just that size: a read beyond its end is seen by a sanitizer. */
        unsigned char *copy = malloc(size ? size : 1);
        assert_non_null(copy);
        memcpy(copy, data, size);
        if (subhost_value_load(value, copy, size, NULL) == 0) {
            subhost_item item = SUBHOST_ITEM_INIT;
            int code;
            while ((code = subhost_value_next(value, &at, &item, NULL)) == 1)
                ;
            assert_int_equal(code, 0);
            taken++;
        }
        free(copy);
    }
    assert_true(taken > 0);
    subhost_value_free(value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_no_value),     cmocka_unit_test(test_bad_bytes),
        cmocka_unit_test(test_random_bytes),
    };
    return UNIT_MAIN(tests);
}
