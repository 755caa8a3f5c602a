/* See leak.h. */
#define _GNU_SOURCE
#include "leak.h"

#include <stdio.h>
#include <unistd.h>

#include "probe.h"

static long resident_kib(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file && fscanf(file, "%*d %ld", &pages) != 1)
        pages = 0;
    if (file)
        fclose(file);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void rounds_of(int fd, const char *code, int rounds)
{
    PyThreadState *main_tstate = PyThreadState_Get();
    for (int i = 0; i < rounds; i++) {
        PyThreadState *tstate = subhost__plain_interpreter(fd, PLAIN_OWN_GIL);
        subhost__plain_code(fd, code);
        Py_EndInterpreter(tstate);
        PyThreadState_Swap(main_tstate);
    }
}

void subhost__see_leak(int fd, const char *code, int warm_up, int rounds)
{
    subhost__plain_python(fd);
    rounds_of(fd, code, warm_up);
    long before = resident_kib();
    rounds_of(fd, code, rounds);
    double each = (double)(resident_kib() - before) / rounds;
    subhost__see(fd, "%s a round",
                 each < 200    ? "less than 200 KiB"
                 : each < 800  ? "200 to 800 KiB"
                 : each < 3072 ? "0.8 to 3 MiB"
                               : "more than 3 MiB");
    subhost__see_detail(fd, "growth", "%.0f KiB a round, %d rounds", each, rounds);
}
