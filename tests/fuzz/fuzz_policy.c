/* SPDX-License-Identifier: MIT
 *
 * libFuzzer over what users write of policies: files, --set, and what travels to processes.
 * `.ci/run fuzz` runs it for a minute; by hand, for longer:
 *
 *     cmake --preset fuzz && cmake --build --preset fuzz
 *     build/fuzz/tests/fuzz/fuzz_policy -max_total_time=1800 -dict=tests/fuzz/policy.dict \
 *         CORPUS tests/fuzz/policies policies
 */
#include "interp.h" /* first: it includes Python.h */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policing.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.install_signal_handlers = 0;
    PyStatus status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status))
        abort();
    return 0;
}

static void expect(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "fuzz_policy: %s\n", what);
    abort();
}

static void check_line(const char *line, void *data)
{
    expect(*line && strlen(line) < 700, "a problem's line");
    ++*(int *)data;
}

static subhost_policy *make(void)
{
    subhost_policy *policy = subhost__policy_new("fuzz");
    expect(policy != NULL, "out of memory");
    return policy;
}

/* As it was packed it is unpacked, and it lies within itself. */
static void travel(const subhost_policy *policy)
{
    struct pack pack = {0};
    subhost__policing_pack(&pack, policy);
    struct unpack unpack = {.data = pack.data, .size = pack.size};
    subhost_policy *there = subhost__policing_unpack(&unpack), *narrowed = NULL;
    expect(there && !unpack.failed && unpack.size == 0, "unpacking");
    for (int key = 0; key < POLICY_KEY_COUNT; key++) {
        const struct policy_value *a = &policy->values[key], *b = &there->values[key];
        expect(a->given == b->given && (!a->given || a->number == b->number), "a number");
        expect(!a->text == !b->text && (!a->text || strcmp(a->text, b->text) == 0),
               "a text");
    }
    expect(subhost__policy_narrow(policy, there, SCOPE_HOST, &narrowed, NULL) == 0,
           "a policy within itself");
    subhost_policy_free(narrowed);
    subhost_policy_free(there);
    free(pack.data);
}

/* What show prints is a file with the same values. */
static void reread(subhost_policy *policy)
{
    int problems = 0;
    struct policy_report report = {check_line, &problems, 0};
    subhost_policy *again = make();
    const char *text = subhost_policy_show(policy);
    expect(text != NULL, "show");
    expect(subhost__policy_read_toml(again, "shown", text, strlen(text), &report),
           "reading what was shown");
    expect(report.count == 0, "a problem of what was shown");
    for (int key = 0; key < POLICY_KEY_COUNT; key++) {
        char *a = subhost__policy_format(
            (enum policy_key)key, subhost__policy_value(policy, (enum policy_key)key));
        char *b = subhost__policy_format(
            (enum policy_key)key, subhost__policy_value(again, (enum policy_key)key));
        expect(a && b && strcmp(a, b) == 0, subhost__policy_rows[key].name);
        free(a);
        free(b);
    }
    subhost_policy_free(again);
}

static void fuzz_file(const char *text, size_t size)
{
    int problems = 0;
    struct policy_report report = {check_line, &problems, 0};
    subhost_policy *policy = make();
    if (!subhost__policy_read_toml(policy, "fuzz.toml", text, size, &report)) {
        PyErr_Print();
        expect(false, "an exception");
    }
    expect(problems == report.count, "as many lines as problems");
    if (problems == 0) {
        travel(policy);
        reread(policy);
    }
    subhost_policy_free(policy);
}

static void fuzz_settings(const char *text, size_t size)
{
    subhost_policy *policy = make();
    char *copy = strndup(text, size), *save = NULL;
    for (char *line = strtok_r(copy, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        subhost_error *err = NULL;
        if (subhost_policy_set(policy, line, NULL, &err))
            expect(err != NULL, "an error without words");
        subhost_error_free(err);
    }
    free(copy);
    travel(policy);
    if (subhost_policy_is_valid(policy, NULL) == 0)
        reread(policy);
    subhost_policy_free(policy);
}

/* What comes over a wire from a process that went mad. */
static void fuzz_wire(const uint8_t *data, size_t size)
{
    struct unpack unpack = {.data = data, .size = size};
    subhost_policy_free(subhost__policing_unpack(&unpack));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0 && data[0] == '=')
        fuzz_settings((const char *)data + 1, size - 1);
    else if (size > 0 && data[0] == 0xFF)
        fuzz_wire(data + 1, size - 1);
    else
        fuzz_file((const char *)data, size);
    return 0;
}
