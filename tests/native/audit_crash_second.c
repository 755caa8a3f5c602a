/* Crashes at its second import in a process. */
#include "audit_case.h"

#include <signal.h>

static int imports;

static int prepare(PyObject *module)
{
    (void)module;
    return ++imports > 1 ? raise(SIGABRT) : 0;
}

MODULE(audit_crash_second, prepare, CLAIMS_OWN_GIL)
