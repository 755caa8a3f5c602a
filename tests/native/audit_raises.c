/* Cannot be imported anywhere. */
#include "audit_case.h"

static int prepare(PyObject *module)
{
    PyErr_Format(PyExc_OSError, "%R needs hardware that is not here", module);
    return -1;
}

MODULE(audit_raises, prepare, CLAIMS_OWN_GIL)
