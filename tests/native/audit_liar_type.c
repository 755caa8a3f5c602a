/* Claims a GIL of its own, and has a static type: its methods are objects that all share. */
#include "audit_case.h"

static PyObject *method(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return Py_NewRef(self);
}

static PyMethodDef methods[] = {{"method", method, METH_NOARGS, NULL},
                                {NULL, NULL, 0, NULL}};

static PyTypeObject type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "audit_liar_type.Type",
    .tp_basicsize = sizeof(PyObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_methods = methods,
};

static int prepare(PyObject *module) { return PyModule_AddType(module, &type); }

MODULE(audit_liar_type, prepare, CLAIMS_OWN_GIL)
