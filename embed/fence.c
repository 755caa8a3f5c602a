/* The fork fence: os.fork() and os.forkpty() are refused in the parent, before anything
 * is forked.
 *
 * A child of such a fork would die inside PyOS_AfterFork_Child(), before a line of Python
 * runs in it, because subinterpreters are alive (cpython#139759, #101437), and whoever
 * waits for that child would wait for ever. PySys_AddAuditHook() holds for the whole
 * process and all its interpreters (PEP 578); os.fork raises its event before the fork.
 */
#define _GNU_SOURCE
#include "fence.h"

#include <stdio.h>
#include <string.h>

#include "interp.h"

/* "who forked": the topmost Python frames, innermost first. */
static void describe_stack(char *buffer, size_t size)
{
    PyFrameObject *frame = PyThreadState_GetFrame(PyThreadState_Get());
    size_t used = 0;
    buffer[0] = '\0';
    while (frame && used < size) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        const char *file = PyUnicode_AsUTF8(code->co_filename);
        int n = snprintf(buffer + used, size - used, "%s%s:%d", used ? " < " : "",
                         file ? file : "?", PyFrame_GetLineNumber(frame));
        used += n > 0 ? (size_t)n : 0;
        PyFrameObject *back = PyFrame_GetBack(frame);
        Py_DECREF(code);
        Py_DECREF(frame);
        frame = back;
    }
    Py_XDECREF(frame);
    PyErr_Clear();
}

int subhost__fence_refuse(const char *what)
{
    struct thread *self = subhost__thread_self();
    if (self) {
        char stack[160];
        describe_stack(stack, sizeof stack);
        NOTE(self->interp, "fork-refused", "%s, tid %d, at %s", what, (int)self->tid,
             stack);
    }
    PyErr_Format(PyExc_RuntimeError,
                 "%s() is refused: this program runs under subhost, and the child of a "
                 "fork with live subinterpreters dies before it runs any Python. Use "
                 "subprocess, os.posix_spawn, or multiprocessing with the 'spawn' or "
                 "'forkserver' start method%s",
                 what,
                 strcmp(what, "os.forkpty") == 0 ? "; pty.openpty() for a terminal" : "");
    return -1;
}

static int on_audit_event(const char *event, PyObject *args, void *data)
{
    (void)args, (void)data;
    if (event[0] == 'c' && strcmp(event, "cpython.PyInterpreterState_Clear") == 0)
        subhost__driver_interp_clears();
    /* Nearly every event ends here: the hook is on the path of each import and open. */
    if (event[0] != 'o' || strncmp(event, "os.fork", 7) != 0)
        return 0;
    if (strcmp(event, "os.fork") != 0 && strcmp(event, "os.forkpty") != 0)
        return 0;
    return subhost__fence_refuse(event);
}

int subhost__fence_install(subhost_error **err)
{
    /* Py_FinalizeEx() clears the hooks, so each host sets it anew. */
    if (PySys_AddAuditHook(on_audit_event, NULL) < 0)
        return subhost__fail(err, SUBHOST_EPYTHON, "the audit hook was not accepted");
    return 0;
}
