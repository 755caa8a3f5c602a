/* Ready, and with the entry point of PEP 793 where CPython has it. */
#include "audit_case.h"

static int prepare(PyObject *module) { return PyModule_AddIntConstant(module, "one", 1); }

#ifdef Py_mod_slots
PyABIInfo_VAR(abi_info);
static PySlot export_slots[] = {
    PySlot_DATA(Py_mod_abi, &abi_info),
    PySlot_DATA(Py_mod_name, "audit_slots"),
    PySlot_FUNC(Py_mod_exec, prepare),
    PySlot_DATA(Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED),
    PySlot_DATA(Py_mod_gil, Py_MOD_GIL_NOT_USED),
    PySlot_END,
};

PyMODEXPORT_FUNC PyModExport_audit_slots(void);
PyMODEXPORT_FUNC PyModExport_audit_slots(void) { return export_slots; }
#else
MODULE(audit_slots, prepare, CLAIMS_OWN_GIL{Py_mod_gil, Py_MOD_GIL_NOT_USED}, )
#endif
