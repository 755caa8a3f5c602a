/* Crashes wherever it is imported. */
#include "audit_case.h"

#include <signal.h>

static int prepare(PyObject *module)
{
    (void)module;
    return raise(SIGSEGV);
}

MODULE(audit_crash, prepare, CLAIMS_OWN_GIL)
