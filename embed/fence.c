/* The fork fence: os.fork(), os.forkpty() and subprocess's preexec_fn are refused in the
 * parent, before anything is forked.
 *
 * A child of such a fork would die inside PyOS_AfterFork_Child(), before a line of Python
 * runs in it, because subinterpreters are alive (cpython#139759, #101437), and whoever
 * waits for that child would wait for ever. PySys_AddAuditHook() holds for the whole
 * process and all its interpreters (PEP 578); os.fork raises its event before the fork.
 *
 * preexec_fn has no event of its own: the child runs Python before it execs. subprocess.Popen
 * raises its event in the function that has it as a parameter, so that is where it is looked
 * up. Who calls _posixsubprocess directly is met by CPython (in a subinterpreter) or by the
 * guard (guard.c).
 *
 * The hook also notes that a program has opened something for writing (unflushed.c). */
#define _GNU_SOURCE
#include "fence.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "policing.h"

#define STACK_SIZE 1600 /* of text; the trail keeps as much */

/* "who forked": the topmost Python frames, innermost first, in whole ones, as a list for the
 * trail. */
static void describe_stack(char *buffer, size_t size)
{
    PyFrameObject *frame = PyThreadState_GetFrame(PyThreadState_Get());
    size_t used = 0;
    buffer[0] = '\0';
    while (frame) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        const char *file = PyUnicode_AsUTF8(code->co_filename);
        const char *name = PyUnicode_AsUTF8(code->co_qualname);
        char line[512];
        size_t n =
            (size_t)snprintf(line, sizeof line, "%.300s:%d in %.150s", file ? file : "?",
                             PyFrame_GetLineNumber(frame), name ? name : "?");
        PyFrameObject *back = PyFrame_GetBack(frame);
        Py_DECREF(code);
        Py_DECREF(frame);
        frame = back;
        if (used > 0)
            buffer[used++] = TRAIL_NEXT;
        if (used + n + sizeof "?..." > size) {
            snprintf(buffer + used, size - used, "...");
            break;
        }
        memcpy(buffer + used, line, n + 1);
        used += n;
    }
    Py_XDECREF(frame);
    PyErr_Clear(); /* of names that are not UTF-8 */
}

/* In the trail: which interpreter, thread and code. */
static void note(const char *what)
{
    subhost_host *host = subhost__host();
    if (!host || !host->trail)
        return;
    const struct thread *self = subhost__thread_self();
    char name[17] = "", stack[STACK_SIZE];
    prctl(PR_GET_NAME, name);
    describe_stack(stack, sizeof stack);
    NOTE_EVENT(host->trail, FORK_REFUSED, self ? self->interp->serial : 0,
               self ? atomic_load(&self->interp->running_task) : 0,
               TRAIL_TEXT(WHAT, what), TRAIL_TEXT(THREAD_NAME, name),
               TRAIL_TEXT(STACK, stack));
}

int subhost__fence_refuse(const char *what)
{
    note(what);
    PyErr_Format(PyExc_RuntimeError,
                 "%s() is refused: this program runs under subhost, and the child of a "
                 "fork with live subinterpreters dies before it runs any Python. Use "
                 "subprocess, os.posix_spawn, multiprocessing with the 'spawn' or "
                 "'forkserver' start method, or subhost.open_nursery() with "
                 "isolation='process'%s",
                 what,
                 strcmp(what, "os.forkpty") == 0 ? "; pty.openpty() for a terminal" : "");
    return -1;
}

/* In the frame that raised "subprocess.Popen". */
static int refuse_preexec_fn(void)
{
    PyFrameObject *frame = PyThreadState_GetFrame(PyThreadState_Get());
    PyObject *function = frame ? PyFrame_GetVarString(frame, "preexec_fn") : NULL;
    Py_XDECREF(frame);
    if (!function) {
        /* Not subprocess's own: there is no such variable. */
        if (PyErr_ExceptionMatches(PyExc_NameError))
            PyErr_Clear();
        return PyErr_Occurred() ? -1 : 0;
    }
    bool given = !Py_IsNone(function);
    Py_DECREF(function);
    if (!given)
        return 0;
    note("subprocess preexec_fn");
    PyErr_SetString(
        PyExc_RuntimeError,
        "subprocess with preexec_fn is refused: this program runs under "
        "subhost, and the child of a fork with live subinterpreters dies "
        "before it runs any Python. Use start_new_session, process_group, "
        "user=, group=, umask= or pass_fds instead, or subhost.open_nursery() "
        "with isolation='process'");
    return -1;
}

/* Somewhere to write to: at the program's end what is left in its buffer is looked for. */
static void note_opened(void)
{
    const struct thread *self = subhost__thread_self();
    if (self)
        atomic_store(&self->interp->opened, true);
}

/* "open" has a path, a mode (None: os.open()) and flags; for a descriptor as well. */
static void look_at_open(PyObject *args)
{
    PyObject *flags = PyTuple_Check(args) && PyTuple_GET_SIZE(args) == 3
                          ? PyTuple_GET_ITEM(args, 2)
                          : NULL;
    if (!flags || !PyLong_CheckExact(flags) || Py_IsNone(PyTuple_GET_ITEM(args, 1)))
        return;
    int overflow;
    if ((PyLong_AsLongAndOverflow(flags, &overflow) & O_ACCMODE) != O_RDONLY)
        note_opened();
}

static int on_audit_event(const char *event, PyObject *args, void *data)
{
    (void)data;
    /* Nearly every event ends here: the hook is on the path of each import and open. */
    if (event[0] == 's') {
        if (strcmp(event, "socket.__new__") == 0)
            note_opened(); /* makefile() has no event */
        if (strcmp(event, "subprocess.Popen") != 0)
            return 0;
        return subhost__policing_event(event, args) < 0 ? -1 : refuse_preexec_fn();
    }
    if (strcmp(event, "open") == 0) {
        look_at_open(args);
        return 0;
    }
    if (strncmp(event, "_thread.", 8) == 0 || strncmp(event, "resource.", 9) == 0 ||
        strcmp(event, "import") == 0)
        return subhost__policing_event(event, args);
    if (strncmp(event, "os.", 3) != 0)
        return 0;
    if (strcmp(event, "os.fork") == 0 || strcmp(event, "os.forkpty") == 0)
        return subhost__fence_refuse(event);
    return subhost__policing_event(event, args);
}

int subhost__fence_install(subhost_error **err)
{
    /* Py_FinalizeEx() clears the hooks, so each host sets it anew. */
    if (PySys_AddAuditHook(on_audit_event, NULL) < 0)
        return subhost__fail(err, SUBHOST_EPYTHON, "the audit hook was not accepted");
    return 0;
}
