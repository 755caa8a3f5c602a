/* SPDX-License-Identifier: MIT
 *
 * What `audit modules --resume FILE` keeps: wherever the file was cut off, what is whole stays;
 * a file that is not its own is left as it is. */
#include "unit.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "audit/modules_kept.h"

static char path[64];

static int name_file(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/subhost-kept-%d", (int)getpid());
    return 0;
}

static int remove_file(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

/* Their ends are in them: an empty key. */
#define RECORD(text)                                                                     \
    {                                                                                    \
        (char *)(text), sizeof(text)                                                     \
    }
static const struct kept results[] = {
    RECORD("of\0json\0stage\0main\0result\0ok\0"),
    RECORD("of\0_json\0stage\0own\0result\0crash\0signal\0SIGSEGV\0"),
    RECORD("of\0\xff\n\0empty\0\0result\0error\0"),
};

static struct keeper open_keeper(void)
{
    struct keeper keeper;
    subhost_error *err = NULL;
    if (subhost__kept_open(&keeper, path, &err) != 0)
        print_error("%s\n", subhost_error_message(err));
    assert_true(keeper.fd >= 0);
    return keeper;
}

static void assert_refused(const char *file, int code, const char *words)
{
    struct keeper keeper;
    subhost_error *err = NULL;
    assert_int_equal(subhost__kept_open(&keeper, file, &err), code);
    assert_int_equal(keeper.fd, -1);
    assert_non_null(strstr(subhost_error_message(err), words));
    assert_non_null(strstr(subhost_error_message(err), file));
    subhost_error_free(err);
    assert_int_equal(subhost__kept_open(&keeper, file, NULL), code);
}

static size_t read_file(char *text, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t n = read(fd, text, room);
    close(fd);
    assert_true(n >= 0 && (size_t)n < room);
    return (size_t)n;
}

static void write_file(const char *text, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, size), size);
    close(fd);
}

/* Adds the results from `first` on. */
static void add(struct keeper *keeper, size_t first)
{
    for (size_t i = first; i < ARRAY_LENGTH(results); i++)
        assert_int_equal(subhost__kept_add(keeper, &results[i], NULL), 0);
}

/* How many results the file held, which must be the first ones; without its head. */
static size_t count(const struct keeper *keeper)
{
    struct kept view;
    size_t at = 0, found = 0;
    assert_true(subhost__kept_next(keeper, &at, &view));
    assert_non_null(subhost__record_field(view.data, view.size, "subhost audit modules"));
    for (; subhost__kept_next(keeper, &at, &view); found++) {
        assert_true(found < ARRAY_LENGTH(results));
        assert_int_equal(view.size, results[found].size);
        assert_memory_equal(view.data, results[found].data, view.size);
    }
    return found;
}

static void records_are_read(void **state)
{
    (void)state;
    const struct kept *record = &results[2];
    struct field field = {0};
    assert_true(subhost__next_field(record->data, record->size, &field));
    assert_string_equal(field.key, "of");
    assert_string_equal(field.value, "\xff\n");
    assert_true(subhost__next_field(record->data, record->size, &field));
    assert_string_equal(field.value, "");
    assert_true(subhost__next_field(record->data, record->size, &field));
    assert_false(subhost__next_field(record->data, record->size, &field));
    assert_string_equal(subhost__record_field(record->data, record->size, "result"),
                        "error");
    assert_null(subhost__record_field(record->data, record->size, "signal"));
    static const char twice[] = "a\0001\0a\0002\0";
    assert_string_equal(subhost__record_field(twice, sizeof twice, "a"), "2");
    for (size_t i = 0; i < ARRAY_LENGTH(results); i++)
        for (size_t size = 0; size <= results[i].size; size++) {
            /* The sanitizers see a look beyond its end. */
            char *cut = malloc(size + !size);
            assert_non_null(cut);
            memcpy(cut, results[i].data, size);
            assert_int_equal(subhost__record_length(cut, size),
                             size == results[i].size ? size : 0);
            free(cut);
        }
}

static void nothing_is_kept_without_a_path(void **state)
{
    (void)state;
    struct keeper keeper;
    struct kept view;
    size_t at = 0;
    assert_int_equal(subhost__kept_open(&keeper, NULL, NULL), 0);
    assert_int_equal(subhost__kept_add(&keeper, &results[0], NULL), 0);
    assert_false(subhost__kept_next(&keeper, &at, &view));
    subhost__kept_close(&keeper);
}

static void results_are_kept(void **state)
{
    (void)state;
    struct keeper keeper = open_keeper();
    add(&keeper, 0);
    subhost__kept_close(&keeper);
    keeper = open_keeper();
    assert_int_equal(count(&keeper), ARRAY_LENGTH(results));
    struct kept view, copy;
    size_t at = 0;
    assert_true(subhost__kept_next(&keeper, &at, &view));
    assert_true(subhost__kept_next(&keeper, &at, &view));
    assert_true(subhost__kept_copy(&view, &copy));
    subhost__kept_close(&keeper);
    assert_memory_equal(copy.data, results[0].data, results[0].size);
    subhost__kept_free(&copy);
    assert_null(copy.data);
}

/* Killed in a write: at each place where the file can end. */
static void a_file_that_was_cut_off(void **state)
{
    (void)state;
    static char whole[1024], after[1024];
    struct keeper keeper = open_keeper();
    size_t head = read_file(whole, sizeof whole);
    add(&keeper, 0);
    subhost__kept_close(&keeper);
    size_t size = read_file(whole, sizeof whole);
    size_t end = head, kept = 0;
    for (size_t cut = head; cut <= size; cut++) {
        write_file(whole, cut);
        keeper = open_keeper();
        if (kept < ARRAY_LENGTH(results) && cut == end + results[kept].size)
            end += results[kept++].size;
        assert_int_equal(count(&keeper), kept);
        assert_int_equal(read_file(after, sizeof after), end);
        add(&keeper, kept);
        subhost__kept_close(&keeper);
        assert_int_equal(read_file(after, sizeof after), size);
        assert_memory_equal(after, whole, size);
    }
    assert_int_equal(kept, ARRAY_LENGTH(results));
}

/* Another subhost's, or another CPython's: its results mean nothing here. */
static void another_version_is_dropped(void **state)
{
    (void)state;
    static const char other[] = "subhost audit modules\0subhost 0.0.1 (CPython 2.7)\0\0"
                                "of\0json\0stage\0main\0result\0ok\0";
    write_file(other, sizeof other);
    struct keeper keeper = open_keeper();
    assert_int_equal(keeper.size, 0);
    add(&keeper, 0);
    subhost__kept_close(&keeper);
    keeper = open_keeper();
    assert_int_equal(count(&keeper), ARRAY_LENGTH(results));
    subhost__kept_close(&keeper);
}

static void what_is_refused(void **state)
{
    (void)state;
    static const char precious[] = "precious, and as long as what begins such a file\n";
    char text[128];
    write_file(precious, sizeof precious - 1);
    assert_refused(path, SUBHOST_EINVAL, "is no file of `audit modules --resume`");
    assert_int_equal(read_file(text, sizeof text), sizeof precious - 1);
    assert_memory_equal(text, precious, sizeof precious - 1);
    assert_refused("/dev/full", SUBHOST_EINVAL, "is no regular file");
    assert_refused("/tmp", SUBHOST_ESYSTEM, "Is a directory");
    assert_refused("/nowhere/kept", SUBHOST_ESYSTEM, "No such file or directory");
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_refused(path, SUBHOST_EINVAL, "is no regular file");
    unlink(path);
    struct keeper keeper = open_keeper();
    assert_refused(path, SUBHOST_ESTATE, "is in use by another audit");
    subhost__kept_close(&keeper);
}

static void a_full_disk_is_said(void **state)
{
    (void)state;
    struct rlimit old, small;
    struct keeper keeper = open_keeper();
    subhost_error *err = NULL;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = read_file((char[1024]){0}, 1024) + 10;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int code = subhost__kept_add(&keeper, &results[0], &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(code, SUBHOST_ESYSTEM);
    assert_non_null(strstr(subhost_error_message(err), "File too large"));
    assert_non_null(strstr(subhost_error_message(err), path));
    subhost_error_free(err);
    subhost__kept_close(&keeper);
    keeper = open_keeper(); /* half a result is none */
    assert_int_equal(count(&keeper), 0);
    subhost__kept_close(&keeper);
}

#define KEPT_TEST(test) cmocka_unit_test_setup_teardown(test, name_file, remove_file)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_are_read),
        cmocka_unit_test(nothing_is_kept_without_a_path),
        KEPT_TEST(results_are_kept),
        KEPT_TEST(a_file_that_was_cut_off),
        KEPT_TEST(another_version_is_dropped),
        KEPT_TEST(what_is_refused),
        KEPT_TEST(a_full_disk_is_said),
    };
    return UNIT_MAIN(tests);
}
