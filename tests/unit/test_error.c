/* SPDX-License-Identifier: MIT
 *
 * The error convention: codes, messages, context on the way up. */
#include "unit.h"

#include <errno.h>

static const int codes[] = {
#define CODE(name, value, text) name,
    SUBHOST_CODES(CODE)
#undef CODE
};

static void each_code_has_a_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(codes); i++) {
        const char *text = subhost_code_text(codes[i]);
        assert_non_null(text);
        assert_true(strlen(text) > 0);
        assert_string_not_equal(text, subhost_code_text(1));
        assert_true(codes[i] < 0);
        for (size_t j = 0; j < i; j++) {
            assert_int_not_equal(codes[i], codes[j]);
            assert_string_not_equal(text, subhost_code_text(codes[j]));
        }
    }
    assert_string_equal(subhost_code_text(SUBHOST_OK), "no error");
    assert_string_equal(subhost_code_text(1), "unknown code");
    assert_string_equal(subhost_code_text(INT32_MIN), "unknown code");
    assert_string_equal(subhost_code_text(SUBHOST_EAGAIN),
                        "full at the moment; try again");
}

static void no_error_object_is_no_error(void **state)
{
    (void)state;
    assert_int_equal(subhost_error_code(NULL), SUBHOST_OK);
    assert_string_equal(subhost_error_message(NULL), subhost_code_text(SUBHOST_OK));
    subhost_error_free(NULL);
}

static void a_failure_has_code_and_message(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(codes); i++) {
        subhost_error *err = NULL;
        assert_int_equal(subhost__fail(&err, codes[i], "%s %d", "number", 7), codes[i]);
        assert_int_equal(subhost_error_code(err), codes[i]);
        assert_string_equal(subhost_error_message(err), "number 7");
        subhost_error_free(err);
    }
}

static void a_long_message_is_kept_whole(void **state)
{
    (void)state;
    static char text[100000];
    memset(text, 'x', sizeof text - 1);
    subhost_error *err = NULL;
    assert_int_equal(subhost__fail(&err, SUBHOST_EINVAL, "%s", text), SUBHOST_EINVAL);
    assert_int_equal(subhost__context(&err, SUBHOST_EINVAL, "%s", "outside"),
                     SUBHOST_EINVAL);
    assert_int_equal(strlen(subhost_error_message(err)),
                     sizeof text - 1 + strlen("outside: "));
    subhost_error_free(err);
}

static void errno_is_told(void **state)
{
    (void)state;
    subhost_error *err = NULL;
    char expected[256];
    assert_int_equal(subhost__fail_errno(&err, ENOENT, "opening %s", "it"),
                     SUBHOST_ESYSTEM);
    snprintf(expected, sizeof expected, "opening it: %s", strerror(ENOENT));
    assert_string_equal(subhost_error_message(err), expected);
    assert_int_equal(subhost_error_code(err), SUBHOST_ESYSTEM);
    subhost_error_free(err);
    assert_int_equal(subhost__fail_errno(NULL, ENOENT, "opening"), SUBHOST_ESYSTEM);
}

static void context_goes_in_front(void **state)
{
    (void)state;
    subhost_error *err = NULL;
    int code = subhost__fail(&err, SUBHOST_EPYTHON, "no memory for a dict");
    assert_int_equal(subhost__context(&err, code, "booting %s", "CPython"),
                     SUBHOST_EPYTHON);
    assert_int_equal(subhost__context(&err, code, "opening the host"), SUBHOST_EPYTHON);
    assert_string_equal(subhost_error_message(err),
                        "opening the host: booting CPython: no memory for a dict");
    assert_int_equal(subhost_error_code(err), SUBHOST_EPYTHON);
    subhost_error_free(err);
}

static void context_of_nothing_is_nothing(void **state)
{
    (void)state;
    subhost_error *err = NULL;
    assert_int_equal(subhost__context(&err, SUBHOST_EINVAL, "outside"), SUBHOST_EINVAL);
    assert_null(err);
    assert_int_equal(subhost__context(NULL, SUBHOST_EINVAL, "outside"), SUBHOST_EINVAL);
}

static void without_an_object_the_code_is_left(void **state)
{
    (void)state;
    assert_int_equal(subhost__fail(NULL, SUBHOST_ESTATE, "%s", "lost"), SUBHOST_ESTATE);
    assert_int_equal(subhost_interp_create(NULL, NULL, NULL, NULL), SUBHOST_EINVAL);
    assert_int_equal(subhost_submit(NULL, NULL, NULL, NULL, NULL), SUBHOST_EINVAL);
    assert_int_equal(subhost_task_wait(NULL, 0, NULL, NULL), SUBHOST_EINVAL);
    assert_int_equal(subhost_dispatch(NULL, 0, NULL), SUBHOST_EINVAL);
    assert_int_equal(subhost_interp_send(NULL, NULL, NULL, NULL), SUBHOST_EINVAL);
    assert_int_equal(subhost_dump_stacks(NULL, 1, NULL), SUBHOST_EINVAL);
}

/* Every function that has an `err`, with bad arguments: a code, and a message. */
static void public_functions_keep_the_convention(void **state)
{
    (void)state;
    subhost_error *err = NULL;
#define REFUSED(call)                                                                    \
    err = NULL;                                                                          \
    assert_int_equal(call, SUBHOST_EINVAL);                                              \
    assert_int_equal(subhost_error_code(err), SUBHOST_EINVAL);                           \
    assert_true(strlen(subhost_error_message(err)) > 0);                                 \
    assert_null(strchr(subhost_error_message(err), '\n'));                               \
    subhost_error_free(err);
    REFUSED(subhost_open(NULL, NULL, &err))
    REFUSED(subhost_interp_create(NULL, NULL, NULL, &err))
    REFUSED(subhost_submit(NULL, NULL, NULL, NULL, &err))
    REFUSED(subhost_task_wait(NULL, 0, NULL, &err))
    REFUSED(subhost_dispatch(NULL, 0, &err))
    REFUSED(subhost_interp_send(NULL, NULL, NULL, &err))
    REFUSED(subhost_dump_stacks(NULL, 1, &err))
#undef REFUSED
    /* Null handles are given back without effect. */
    subhost_interp_release(NULL);
    subhost_task_release(NULL);
    subhost_task_cancel(NULL, SUBHOST_BY_REQUEST, NULL);
    assert_int_equal(subhost_close(NULL, SUBHOST_CLOSE_FINALIZE, 0, NULL), 0);
}

static void success_leaves_err_alone(void **state)
{
    (void)state;
    subhost_error *const mark = (subhost_error *)&codes;
    subhost_error *err = mark;
    subhost_host *host;
    subhost_interp *interp;
    subhost_task *task;
    subhost_program program = SUBHOST_PROGRAM_INIT;
    program.kind = SUBHOST_PROGRAM_CODE;
    program.source = "pass";
    assert_int_equal(subhost_open(NULL, &host, &err), 0);
    assert_ptr_equal(err, mark);
    assert_int_equal(subhost_interp_create(host, NULL, &interp, &err), 0);
    assert_ptr_equal(err, mark);
    assert_int_equal(subhost_submit(interp, &program, NULL, &task, &err), 0);
    assert_ptr_equal(err, mark);
    assert_int_equal(subhost_task_wait(task, unit_patience(20), NULL, &err), 0);
    assert_ptr_equal(err, mark);
    assert_true(subhost_dispatch(host, 0, &err) >= 0);
    assert_ptr_equal(err, mark);
    subhost_task_release(task);
    subhost_interp_release(interp);
    assert_int_equal(subhost_close(host, SUBHOST_CLOSE_FINALIZE, unit_patience(5), &err),
                     0);
    assert_ptr_equal(err, mark);
}

static void outcomes_have_names(void **state)
{
    (void)state;
#define NAMED(name, text) assert_string_equal(subhost_outcome_name(name), text);
    SUBHOST_OUTCOMES(NAMED)
#undef NAMED
    assert_string_equal(subhost_outcome_name((enum subhost_outcome_kind)99), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_code_has_a_text),
        cmocka_unit_test(no_error_object_is_no_error),
        cmocka_unit_test(a_failure_has_code_and_message),
        cmocka_unit_test(a_long_message_is_kept_whole),
        cmocka_unit_test(errno_is_told),
        cmocka_unit_test(context_goes_in_front),
        cmocka_unit_test(context_of_nothing_is_nothing),
        cmocka_unit_test(without_an_object_the_code_is_left),
        cmocka_unit_test(public_functions_keep_the_convention),
        UNIT_TEST(success_leaves_err_alone),
        cmocka_unit_test(outcomes_have_names),
    };
    return UNIT_MAIN(tests);
}
