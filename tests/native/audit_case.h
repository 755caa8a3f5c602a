/* Extension modules that tests/audit/modules.t examines: multi-phase, with `prepare` as their
 * exec function, and with a slot that says what they claim. */
#include <Python.h>

#define MODULE(name, prepare, ...)                                                       \
    static PyModuleDef_Slot slots[] = {{Py_mod_exec, prepare}, __VA_ARGS__{0, NULL}};    \
    static struct PyModuleDef definition = {                                             \
        PyModuleDef_HEAD_INIT,                                                           \
        .m_name = #name,                                                                 \
        .m_slots = slots,                                                                \
    };                                                                                   \
    PyMODINIT_FUNC PyInit_##name(void);                                                  \
    PyMODINIT_FUNC PyInit_##name(void) { return PyModuleDef_Init(&definition); }

#define CLAIMS_OWN_GIL                                                                   \
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#define CLAIMS_SHARED                                                                    \
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_SUPPORTED},
#define CLAIMS_NONE                                                                      \
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
