/* SPDX-License-Identifier: MIT
 *
 * timeout: 180
 * Tasks leave no memory behind: tests/bench/memory, with fewer tasks. */
#include "unit.h"

static void tasks_leave_nothing_behind(void **state)
{
    (void)state;
    if (!unit_memory_counts())
        skip(); /* the resident set is the sanitizer's, or valgrind's */
    char command[4200], line[200];
    unit_build_directory(command, sizeof command - 100);
    /* Where each fresh interpreter leaks there is no limit to check. */
    int fresh = Py_Version >= 0x030E0000 ? 150 : 60;
    snprintf(command + strlen(command), 100, "/bench/memory 400 %d %d", fresh, fresh);
    FILE *stream = popen(command, "re");
    assert_non_null(stream);
    while (fgets(line, sizeof line, stream))
        print_message("# %s", line);
    assert_int_equal(pclose(stream), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(tasks_leave_nothing_behind)};
    return UNIT_MAIN(tests);
}
