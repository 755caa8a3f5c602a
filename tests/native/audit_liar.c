/* Claims a GIL of its own, and gives all interpreters one list. */
#include "audit_case.h"

static PyObject *shared;

static int prepare(PyObject *module)
{
    if (!shared)
        shared = PyList_New(0);
    return shared ? PyModule_AddObjectRef(module, "cache", shared) : -1;
}

MODULE(audit_liar, prepare, CLAIMS_OWN_GIL)
