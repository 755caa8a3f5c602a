/* SPDX-License-Identifier: MIT
 *
 * subhost_audit() as an embedder calls it, before, between and after hosts. */
#include "unit.h"

#include <sys/stat.h>

/* A probe that is done at once. */
static const char *const quick[] = {"debug-offsets"};
static char path[64];

/* A place for the report; the caller reads it by report_text(). */
static subhost_audit_options quick_options(enum subhost_format format)
{
    subhost_audit_options options = SUBHOST_AUDIT_OPTIONS_INIT;
    snprintf(path, sizeof path, "/tmp/subhost-audit-%d", (int)getpid());
    options.format = format;
    options.output = path;
    options.names = quick;
    options.count = ARRAY_LENGTH(quick);
    return options;
}

static const char *report_text(void)
{
    static char text[8192];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t n = read(fd, text, sizeof text - 1);
    assert_true(n > 0);
    text[n] = '\0';
    close(fd);
    unlink(path);
    return text;
}

static void audit_quickly(enum subhost_format format)
{
    subhost_audit_options options = quick_options(format);
    subhost_error *err = NULL;
    int findings = subhost_audit(&options, &err);
    assert_string_equal(subhost_error_message(err), "no error");
    assert_int_equal(findings, 0);
}

static void assert_refused(const subhost_audit_options *options, int code,
                           const char *word)
{
    subhost_error *err = NULL;
    assert_int_equal(subhost_audit(options, &err), code);
    assert_non_null(strstr(subhost_error_message(err), word));
    subhost_error_free(err);
    assert_int_equal(subhost_audit(options, NULL), code);
}

static void bad_options_are_refused(void **state)
{
    (void)state;
    assert_refused(NULL, SUBHOST_EINVAL, "options is NULL");
    subhost_audit_options options = quick_options(SUBHOST_FORMAT_TEXT);
    options.size = 0;
    assert_refused(&options, SUBHOST_EINVAL, "size field");
    options = quick_options(SUBHOST_FORMAT_TEXT);
    options.kind = (enum subhost_audit_kind)99;
    assert_refused(&options, SUBHOST_EINVAL, "bad kind or format");
    options = quick_options((enum subhost_format)99);
    assert_refused(&options, SUBHOST_EINVAL, "bad kind or format");
    options = quick_options(SUBHOST_FORMAT_TEXT);
    options.names = NULL;
    assert_refused(&options, SUBHOST_EINVAL, "names that are missing");
    assert_int_equal(access(path, F_OK), -1);
}

static void an_unknown_probe_is_named(void **state)
{
    (void)state;
    if (unit_on_valgrind())
        skip();
    static const char *const names[] = {"debug-ofsets"};
    subhost_audit_options options = quick_options(SUBHOST_FORMAT_TEXT);
    options.names = names;
    assert_refused(&options, SUBHOST_ESYSTEM, "did you mean debug-offsets?");
    assert_int_equal(access(path, F_OK), -1);
}

static void progress(unsigned done, unsigned total, const char *name, void *data)
{
    *(unsigned *)data += done == 1 && total == 1 && strcmp(name, quick[0]) == 0;
}

static void a_report_in_each_format(void **state)
{
    (void)state;
    if (unit_on_valgrind())
        skip(); /* pidfd_open(2) */
    static const char *const begins[] = {
        [SUBHOST_FORMAT_TEXT] = "subhost audit host\n",
        [SUBHOST_FORMAT_JSON] = "{\n  \"report\": 1,\n  \"kind\": \"host\",",
        [SUBHOST_FORMAT_TAP] = "TAP version 1",
        [SUBHOST_FORMAT_HTML] = "<!DOCTYPE html>\n",
    };
    for (size_t format = 0; format < ARRAY_LENGTH(begins); format++) {
        audit_quickly((enum subhost_format)format);
        assert_memory_equal(report_text(), begins[format], strlen(begins[format]));
    }
    subhost_audit_options options = quick_options(SUBHOST_FORMAT_TEXT);
    unsigned called = 0;
    options.on_progress = progress;
    options.on_progress_data = &called;
    assert_int_equal(subhost_audit(&options, NULL), 0);
    assert_int_equal(called, 1);
    unlink(path);
}

static void not_beside_a_host(void **state)
{
    (void)state;
    subhost_host *host = NULL;
    assert_int_equal(subhost_open(NULL, &host, NULL), 0);
    subhost_audit_options options = quick_options(SUBHOST_FORMAT_TEXT);
    assert_refused(&options, SUBHOST_ESTATE, "CPython runs in this process already");
    assert_int_equal(subhost_close(host, SUBHOST_CLOSE_FINALIZE, unit_patience(10), NULL),
                     0);
    if (unit_on_valgrind())
        skip();
    /* Afterwards it may, and a host as well. */
    audit_quickly(SUBHOST_FORMAT_TEXT);
    unlink(path);
    assert_int_equal(subhost_open(NULL, &host, NULL), 0);
    assert_int_equal(subhost_close(host, SUBHOST_CLOSE_FINALIZE, unit_patience(10), NULL),
                     0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test(an_unknown_probe_is_named),
        cmocka_unit_test(a_report_in_each_format),
        cmocka_unit_test(not_beside_a_host),
    };
    return UNIT_MAIN(tests);
}
