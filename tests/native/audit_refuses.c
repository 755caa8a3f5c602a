/* Says itself that it cannot be in a subinterpreter, whichever GIL that has. */
#include "audit_case.h"

static int prepare(PyObject *module)
{
    (void)module;
    if (PyInterpreterState_Get() == PyInterpreterState_Main())
        return 0;
    PyErr_SetString(PyExc_ImportError, "only once in a process, please");
    return -1;
}

MODULE(audit_refuses, prepare, CLAIMS_NONE)
