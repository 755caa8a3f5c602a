/* Claims nothing, and crashes in any subinterpreter that lets it in. */
#include "audit_case.h"

#include <signal.h>

static int prepare(PyObject *module)
{
    (void)module;
    return PyInterpreterState_Get() != PyInterpreterState_Main() ? raise(SIGSEGV) : 0;
}

MODULE(audit_crash_sub, prepare, CLAIMS_SHARED)
