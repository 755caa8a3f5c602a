/* The `subhost` Python module of one interpreter: see module.c. */
#ifndef SUBHOST_MODULE_H
#define SUBHOST_MODULE_H

#include "interp.h"

struct module_state {
    subhost_interp *interp; /* NULL: imported in an interpreter that is not hosted */
    PyObject *cancelled;    /* subhost.Cancelled */
    PyObject *interrupted;  /* Cancelled for SIGINT: a KeyboardInterrupt as well */
    PyObject *deliver;      /* the class that stands in for an exception to raise */
    PyObject *prelude;      /* the prelude's namespace, a dict */
    PyObject *nursery;      /* nursery.py's namespace, a dict; NULL: not needed yet */
    PyObject *restore;      /* reset.py's; NULL: not a pool's that resets */
    PyObject *module;       /* the module itself, borrowed */
    int armed;              /* threads whose early ended call is on its way out */
    int tool;               /* of sys.monitoring, while armed > 0 */
    PyObject *handlers;     /* signal handlers of the program, {number: callable} */
    PyObject *native;       /* subhost.native */
    PyObject *native_types; /* native_module.c; NULL: not needed yet */
    PyObject *buffer_type;  /* buffer_python.c; NULL: not needed yet */
};

/* Makes the module importable. Main thread, before CPython is initialized. */
int subhost__module_register(void);
/* Imports it in the current interpreter and runs the prelude. Driver, GIL held. 0 or -1
 * with an exception set. */
int subhost__module_boot(subhost_interp *interp);

/* Calls a function of the prelude's, during which nothing is raised in this thread; a new
 * reference or NULL with an exception set. GIL held. `format` as in Py_BuildValue(), always
 * a tuple: "(i)". */
PyObject *subhost__prelude_call(subhost_interp *interp, const char *name,
                                const char *format, ...);
/* The same for what runs code of the program's, which can be interrupted. */
PyObject *subhost__prelude_run(subhost_interp *interp, const char *name,
                               const char *format, ...);

/* nursery.c: a name of nursery.py's, which is run when it is first needed; a new reference,
 * or NULL with an exception set. GIL held. */
PyObject *subhost__nursery_get(subhost_interp *interp, const char *name);

/* unflushed.c: of (TextIOWrapper, BufferedWriter, BufferedRandom) all that there are, but for the
 * standard streams, as a list with those of text last. */
PyObject *subhost__unflushed(PyObject *module, PyObject *args);

/* frames.c: sys._current_frames() and sys._current_exceptions() of this interpreter. */
PyObject *subhost__current_frames(PyObject *module, PyObject *ignored);
PyObject *subhost__current_exceptions(PyObject *module, PyObject *ignored);
/* Whether that thread is just now in the part of importlib that takes and gives back locks. GIL
 * held; runs no Python code. */
bool subhost__frames_at_import_lock(subhost_interp *interp, unsigned long ident);

/* deliver.c: the class to give to PyThreadState_SetAsyncExc(); a new reference. */
PyObject *subhost__deliver_type(PyObject *module);

/* The exception that a cancel of `interp` raises: a new reference. GIL held. */
PyObject *subhost__module_cancelled(subhost_interp *interp);
/* True when the exception is what a cancel leaves behind. GIL held. */
bool subhost__module_is_cancel(subhost_interp *interp, PyObject *exception);
/* Calls the program's handler of a signal with the interrupted frame. GIL held. -1: it
 * raised. */
int subhost__module_run_handler(subhost_interp *interp, int signo);
/* Wakes the calling thread out of Condition.wait(), if it is in one. GIL held. */
void subhost__module_release_waiter(subhost_interp *interp);

#endif
