/* SPDX-License-Identifier: MIT
 *
 * Structs of an older and of a newer header: every struct that a caller fills or has filled.
 * Each is in memory of exactly its size, so that a sanitizer sees what is read beyond. */
#include "unit.h"

#define NEWER 40 /* bytes that a newer header has more */

/* Of one struct: what the library says to it. Leaves nothing behind. */
typedef int (*user)(const void *given, subhost_error **err);

static subhost_host *host;
static subhost_interp *interp;

static int use_options(const void *given, subhost_error **err)
{
    subhost_host *opened = NULL;
    int code = subhost_open(given, &opened, err);
    if (!code) {
        assert_int_equal(opened->options.size, sizeof(subhost_options));
        assert_true(!opened->options.take_signals && !opened->options.trail);
        unit_close(opened);
    }
    return code;
}

static int use_interp_options(const void *given, subhost_error **err)
{
    subhost_interp *made = NULL;
    int code = subhost_interp_create(host, given, &made, err);
    if (!code) {
        assert_true(made->worker == 0 && !made->policy);
        unit_run(made, "pass", SUBHOST_RETURNED);
    }
    subhost_interp_release(made);
    return code;
}

static int wait_and_release(int code, subhost_task *task)
{
    if (!code) {
        subhost_outcome outcome = unit_wait(task);
        unit_expect(&outcome, SUBHOST_RETURNED);
        assert_true(task->timeout == SUBHOST_FOREVER && !task->fresh);
    }
    subhost_task_release(task);
    return code;
}

static int use_program(const void *given, subhost_error **err)
{
    subhost_task *task = NULL;
    int code = subhost_submit(interp, given, NULL, &task, err);
    return wait_and_release(code, task);
}

static int use_task_options(const void *given, subhost_error **err)
{
    subhost_task *task = NULL;
    int code = unit_try_submit(interp, "pass", given, &task, err);
    return wait_and_release(code, task);
}

static int use_pool_options(const void *given, subhost_error **err)
{
    subhost_pool *pool = NULL;
    int code = subhost_pool_open(host, given, &pool, err);
    assert_int_equal(subhost_pool_close(pool, unit_patience(2), NULL), 0);
    return code;
}

static int use_bind_options(const void *given, subhost_error **err)
{
    static int n;
    char name[16];
    snprintf(name, sizeof name, "f%d", n++);
    return subhost_bind(host, name, (subhost_native_function)abs, "i32(i32)", given, err);
}

static int use_memory(const void *given, subhost_error **err)
{
    subhost_buffer *buffer = NULL;
    int code = subhost_buffer_new(given, NULL, NULL, &buffer, err);
    subhost_buffer_release(buffer);
    return code;
}

/* A trail that is not there: no host is opened for it, and the options have been taken. */
static int use_audit_options(const void *given, subhost_error **err)
{
    subhost_error *own = NULL;
    int code = subhost_audit(given, &own);
    if (code && strstr(subhost_error_message(own), "subhost_audit_options")) {
        *err = own;
        return code;
    }
    subhost_error_free(own);
    return 0;
}

static const char *const no_trail[] = {"/nonexistent/trail"};
static const subhost_program program = {
    .size = sizeof program, .kind = SUBHOST_PROGRAM_CODE, .source = "pass"};
static const subhost_audit_options audit = {.size = sizeof audit,
                                            .kind = SUBHOST_AUDIT_TRAIL,
                                            .format = SUBHOST_FORMAT_JSON,
                                            .count = 1,
                                            .names = no_trail};

/* One list: struct, the least of it that can be used, what it has set, without a host. */
#define FILLED(X)                                                                        \
    X(options, sizeof(size_t), NULL, true)                                               \
    X(interp_options, sizeof(size_t), NULL, false)                                       \
    X(program, offsetof(subhost_program, argc), &program, false)                         \
    X(task_options, sizeof(size_t), NULL, false)                                         \
    X(pool_options, sizeof(size_t), NULL, false)                                         \
    X(bind_options, sizeof(size_t), NULL, false)                                         \
    X(memory, sizeof(size_t), NULL, false)                                               \
    X(audit_options, offsetof(subhost_audit_options, jobs), &audit, true)

struct filled {
    const char *name;
    size_t size, least;
    user use;
    const void *set;
    bool alone;
};

static const struct filled filled[] = {
#define ROW(what, least, set, alone)                                                     \
    {"subhost_" #what, sizeof(subhost_##what), least, use_##what, set, alone},
    FILLED(ROW)
#undef ROW
};

/* As much of the struct as `size` has, zero beyond it; `tail`: but for the last byte. */
static int use(const struct filled *row, size_t size, char tail, subhost_error **err)
{
    char *given = calloc(1, size);
    assert_non_null(given);
    if (row->set)
        memcpy(given, row->set, size < row->size ? size : row->size);
    if (tail)
        given[size - 1] = tail;
    memcpy(given, &size, sizeof size);
    int code = row->use(given, err);
    free(given);
    return code;
}

static void check_wrong(const struct filled *row, size_t size)
{
    char given[4200] = {0};
    subhost_error *err = NULL;
    memcpy(given, &size, sizeof size);
    assert_int_equal(row->use(given, &err), SUBHOST_EINVAL);
    if (!strstr(subhost_error_message(err), row->name) ||
        !strstr(subhost_error_message(err), "size field is"))
        fail_msg("%s: %s", row->name, subhost_error_message(err));
    subhost_error_free(err);
}

static void check(const struct filled *row)
{
    static const size_t wrong[] = {0, 1, sizeof(size_t) - 1, 4097, SIZE_MAX};
    for (size_t i = 0; i < ARRAY_LENGTH(wrong); i++)
        check_wrong(row, wrong[i]);
    /* Opening a host takes its time: not each size. */
    size_t step = sizeof(size_t) * (row->use == use_options          ? 7
                                    : row->use == use_interp_options ? 3
                                                                     : 1);
    subhost_error *err = NULL;
    for (size_t size = row->least; size <= row->size; size += step)
        if (use(row, size, 0, &err))
            fail_msg("%s of %zu bytes: %s", row->name, size, subhost_error_message(err));
    if (use(row, row->size + NEWER, 0, &err))
        fail_msg("a newer %s: %s", row->name, subhost_error_message(err));
    assert_int_equal(use(row, row->size + NEWER, 1, &err), SUBHOST_EINVAL);
    assert_non_null(strstr(subhost_error_message(err), row->name));
    assert_non_null(strstr(subhost_error_message(err), "newer"));
    subhost_error_free(err);
}

static void what_a_caller_fills(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(filled); i++) {
        if (filled[i].alone) {
            check(&filled[i]);
            continue;
        }
        if (!host) {
            host = unit_open();
            interp = unit_interp(host);
        }
        check(&filled[i]);
        if (i + 1 == ARRAY_LENGTH(filled) || filled[i + 1].alone) {
            subhost_interp_release(interp);
            unit_close(host);
            host = NULL;
        }
    }
}

/* ---- what the library fills -------------------------------------------------------------- */

typedef void (*filler)(void *to);

static subhost_task *task;
static subhost_call *call;
static subhost_pool *pool;
static subhost_buffer *buffer;
static subhost_value *value;

static void fill_task_outcome(void *to)
{
    assert_int_equal(subhost_task_wait(task, unit_patience(20), to, NULL), 0);
}

static void fill_call_outcome(void *to) { subhost_call_outcome(call, to); }
static void fill_stats(void *to) { subhost_get_stats(host, to); }
static void fill_pool_stats(void *to) { subhost_pool_get_stats(pool, to); }
static void fill_key(void *to) { assert_int_equal(subhost_policy_key_at(0, to), 0); }
static void fill_memory(void *to) { subhost_buffer_get(buffer, to); }

static void fill_item(void *to)
{
    size_t at = 0;
    assert_int_equal(subhost_value_next(value, &at, to, NULL), 1);
}

/* Bytes beyond the caller's size stay as they are, those before are as in a whole one. */
static void check_filled(size_t whole, filler fill)
{
    char full[512] = {0}, part[512];
    assert_true(whole + NEWER <= sizeof full);
    memcpy(full, &whole, sizeof whole);
    fill(full);
    for (size_t size = sizeof(size_t); size <= whole + NEWER; size += sizeof(size_t)) {
        size_t known = size < whole ? size : whole;
        char *exact = malloc(size);
        assert_non_null(exact);
        memset(exact, 0x55, size);
        memcpy(exact, &size, sizeof size);
        fill(exact);
        memset(part, 0x55, sizeof part);
        assert_memory_equal(exact + sizeof(size_t), full + sizeof(size_t),
                            known - sizeof(size_t));
        assert_memory_equal(exact + known, part, size - known);
        free(exact);
    }
}

static void what_the_library_fills(void **state)
{
    (void)state;
    subhost_function *function;
    subhost_memory memory = SUBHOST_MEMORY_INIT;
    host = unit_open();
    interp = unit_interp(host);
    task = unit_submit(interp, "pass", NULL);
    unit_wait(task);
    assert_int_equal(subhost_pool_open(host, NULL, &pool, NULL), 0);
    assert_int_equal(subhost_pool_function(pool, "json:loads", &function, NULL), 0);
    assert_int_equal(subhost_call_new(function, NULL, &call, NULL), 0);
    assert_int_equal(subhost_buffer_new(&memory, NULL, NULL, &buffer, NULL), 0);
    assert_int_equal(subhost_value_new(&value, NULL), 0);
    subhost_value_add_buffer(value, buffer);
    check_filled(sizeof(subhost_outcome), fill_task_outcome);
    check_filled(sizeof(subhost_outcome), fill_call_outcome);
    check_filled(sizeof(subhost_stats), fill_stats);
    check_filled(sizeof(subhost_pool_stats), fill_pool_stats);
    check_filled(sizeof(subhost_policy_key), fill_key);
    check_filled(sizeof(subhost_memory), fill_memory);
    check_filled(sizeof(subhost_item), fill_item);
    subhost_item none = {.size = 0};
    size_t at = 0;
    assert_int_equal(subhost_value_next(value, &at, &none, NULL), SUBHOST_EINVAL);
    subhost_outcome no_size = {.size = 0};
    assert_int_equal(subhost_task_wait(task, 0, &no_size, NULL), SUBHOST_EINVAL);
    subhost_value_free(value);
    subhost_buffer_release(buffer);
    subhost_call_free(call);
    assert_int_equal(subhost_pool_close(pool, unit_patience(2), NULL), 0);
    subhost_task_release(task);
    subhost_interp_release(interp);
    unit_close(host);
    host = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(what_a_caller_fills),
        UNIT_TEST(what_the_library_fills),
    };
    return UNIT_MAIN(tests);
}
