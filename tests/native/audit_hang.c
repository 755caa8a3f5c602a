/* Does not come back from its import in a subinterpreter, and keeps the GIL. */
#include "audit_case.h"

#include <unistd.h>

static int prepare(PyObject *module)
{
    (void)module;
    while (PyInterpreterState_Get() != PyInterpreterState_Main())
        pause();
    return 0;
}

MODULE(audit_hang, prepare, CLAIMS_OWN_GIL)
