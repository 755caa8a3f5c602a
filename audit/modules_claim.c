/* What an extension module claims: its entry point is called, as an import would, and the
 * slots that it returns are read. By public names of Python.h only. */
#define _GNU_SOURCE
#include "modules.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* A slot, of whatever table. */
struct slot {
    int id;
    const void *value;
};

/* Numbers of slots as modules for CPython up to 3.14, and for the stable ABI, have them; 3.15
 * gave them new ones. */
enum { OLD_MULTIPLE_INTERPRETERS = 3, OLD_GIL = 4 };

static void say_slot(int fd, struct slot slot)
{
    if (slot.id == Py_mod_multiple_interpreters || slot.id == OLD_MULTIPLE_INTERPRETERS) {
        const char *value =
            slot.value == Py_MOD_PER_INTERPRETER_GIL_SUPPORTED     ? "per-interpreter-gil"
            : slot.value == Py_MOD_MULTIPLE_INTERPRETERS_SUPPORTED ? "supported"
            : slot.value == Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED ? "not-supported"
                                                                       : "unknown";
        subhost__module_say(fd, "multiple_interpreters", "%s", value);
    } else if (slot.id == Py_mod_gil || slot.id == OLD_GIL) {
        subhost__module_say(fd, "gil", "%s",
                            slot.value == Py_MOD_GIL_NOT_USED ? "not-used" : "used");
    }
}

static void say_definition(int fd, const PyModuleDef *definition)
{
    subhost__module_say(fd, "init", "multi-phase");
    for (const PyModuleDef_Slot *slot = definition->m_slots; slot && slot->slot; slot++)
        say_slot(fd, (struct slot){slot->slot, slot->value});
}

/* ---- PEP 793, from 3.15 on --------------------------------------------------------- */

#ifdef Py_mod_slots
static void say_slots(int fd, const PySlot *slot, int depth)
{
    for (; depth < 4 && slot && slot->sl_id != Py_slot_end; slot++) {
        if (slot->sl_id == Py_slot_subslots) {
            say_slots(fd, slot->sl_ptr, depth + 1);
        } else if (slot->sl_id == Py_mod_slots) {
            for (const PyModuleDef_Slot *old = slot->sl_ptr; old && old->slot; old++)
                say_slot(fd, (struct slot){old->slot, old->value});
        } else {
            say_slot(fd, (struct slot){slot->sl_id, slot->sl_ptr});
        }
    }
}

static bool say_export(int fd, void *library, const char *hook)
{
    char name[300];
    snprintf(name, sizeof name, "PyModExport%s", hook);
    PySlot *(*export)(void) = NULL;
    *(void **)&export = dlsym(library, name);
    if (!export)
        return false;
    PySlot *slots = export();
    if (slots) {
        subhost__module_say(fd, "init", "slots");
        say_slots(fd, slots, 0);
    } else {
        subhost__module_say(fd, "claim_error", "%s() failed", name);
        PyErr_Clear();
    }
    return true;
}
#else
static bool say_export(int fd, void *library, const char *hook)
{
    (void)fd, (void)library, (void)hook;
    return false;
}
#endif

/* ---- PyInit_ ---------------------------------------------------------------------- */

typedef PyObject *init_function(void);

/* The init function of a file, or of a builtin module. NULL: said why. */
static init_function *find_init(int fd, const struct module *module, void *library)
{
    char name[300];
    if (library) {
        init_function *init = NULL;
        snprintf(name, sizeof name, "PyInit%s", module->hook);
        *(void **)&init = dlsym(library, name);
        if (!init)
            subhost__module_say(fd, "no_entry", "it exports no %s", name);
        return init;
    }
    for (const struct _inittab *row = PyImport_Inittab; row && row->name; row++)
        if (strcmp(row->name, module->name) == 0) {
            if (!row->initfunc)
                subhost__module_say(fd, "init", "core");
            return row->initfunc;
        }
    return NULL;
}

static void say_init(int fd, init_function *init, PyObject *loaded)
{
    PyModuleDef *definition =
        loaded && PyModule_Check(loaded) ? PyModule_GetDef(loaded) : NULL;
    if (definition && definition->m_slots) {
        say_definition(fd, definition);
        return;
    }
    PyErr_Clear();
    /* Said before the call: such a function need not stand a second one. */
    if (definition)
        subhost__module_say(fd, "init", "single-phase");
    PyObject *result = init();
    if (!result) {
        PyObject *exception = PyErr_GetRaisedException();
        PyObject *text = exception ? PyObject_Str(exception) : NULL;
        const char *utf8 = text ? PyUnicode_AsUTF8(text) : NULL;
        subhost__module_say(fd, "claim_error", "its init function failed: %s",
                            utf8 ? utf8 : "no exception is set");
        PyErr_Clear();
    } else if (Py_IS_TYPE(result, &PyModuleDef_Type)) {
        say_definition(fd, (PyModuleDef *)result);
    } else if (!definition) {
        subhost__module_say(fd, "init", "single-phase");
    }
}

void subhost__module_claim(int fd, const struct module *module, PyObject *loaded)
{
    void *library = NULL;
    if (!*module->hook)
        return;
    if (*module->path) {
        library = dlopen(module->path, RTLD_NOW);
        if (!library) {
            subhost__module_say(fd, "claim_error", "%s", dlerror());
            return;
        }
        if (say_export(fd, library, module->hook))
            return;
    }
    init_function *init = find_init(fd, module, library);
    if (init)
        say_init(fd, init, loaded);
    /* The library stays: what it has made lives on. */
}
