/* Claims a GIL of its own, and keeps an object in static memory, where no one can reach it from
 * Python: of whichever interpreter was the last to import it. */
#include "audit_case.h"

PyObject *audit_liar_last;

static int prepare(PyObject *module)
{
    (void)module;
    audit_liar_last = PyList_New(0);
    return audit_liar_last ? 0 : -1;
}

MODULE(audit_liar_static, prepare, CLAIMS_OWN_GIL)
