/* Audit events of Python's (PEP 578) in the trail, as the options select them.
 *
 * The hook is there only when some are selected: else an event costs what it does without
 * this. It must not run Python code, in which anything could happen (a cancel, further
 * events), so of the arguments only plain ones are shown; of others the class. */
#define _GNU_SOURCE
#include "python_events.h"

#include "policing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIXES_MAX 64
#define ARGS_SIZE 1800
#define ARG_MAX_SIZE 400

/* Set while the host is opened; read by the hook on all threads. */
static struct {
    char *names; /* one after the other, TRAIL_NEXT in between; owned */
    struct {
        const char *name;
        size_t length;
    } prefixes[PREFIXES_MAX];
    size_t count;
    bool starts[256]; /* by first character: nearly every event ends there */
} selected;

static atomic_bool noting;

/* ---- what an event says ----------------------------------------------------------- */

/* The bytes of a str in UTF-8; what is no text (surrogates, of names that are bytes to the
 * system) as these bytes. A new reference, or NULL without an exception. */
static PyObject *bytes_of(PyObject *text)
{
    PyObject *bytes = PyUnicode_AsEncodedString(text, "utf-8", "surrogateescape");
    if (!bytes) {
        PyErr_Clear();
        bytes = PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace");
    }
    PyErr_Clear();
    return bytes;
}

static bool is_plain(PyObject *object)
{
    return PyLong_CheckExact(object) || PyFloat_CheckExact(object) ||
           PyBool_Check(object) || Py_IsNone(object);
}

static void show_bytes(char *buffer, size_t size, PyObject *bytes)
{
    size_t length = (size_t)PyBytes_GET_SIZE(bytes), at = 0;
    const char *text = PyBytes_AS_STRING(bytes);
    for (size_t i = 0; i < length && at + 4 < size; i++) {
        bool ends = text[i] == '\0' || text[i] == TRAIL_NEXT;
        buffer[at++] = ends ? '?' : text[i];
        if (at + 4 == size) {
            memcpy(buffer + at, "...", 3);
            at += 3;
        }
    }
    buffer[at] = '\0';
}

/* GIL held; leaves no exception. */
static void show(char *buffer, size_t size, PyObject *object)
{
    PyObject *bytes = NULL, *text = NULL;
    if (PyUnicode_CheckExact(object))
        bytes = bytes_of(object);
    else if (PyBytes_CheckExact(object))
        bytes = Py_NewRef(object);
    else if (is_plain(object) && (text = PyObject_Repr(object)))
        bytes = bytes_of(text);
    if (bytes)
        show_bytes(buffer, size, bytes);
    else
        snprintf(buffer, size, "<%.100s>", Py_TYPE(object)->tp_name);
    PyErr_Clear(); /* an int of too many digits */
    Py_XDECREF(text);
    Py_XDECREF(bytes);
}

static void show_args(char *buffer, size_t size, PyObject *args)
{
    size_t used = 0;
    Py_ssize_t count = PyTuple_Check(args) ? PyTuple_GET_SIZE(args) : 0;
    buffer[0] = '\0';
    for (Py_ssize_t i = 0; i < count; i++) {
        char text[ARG_MAX_SIZE];
        show(text, sizeof text, PyTuple_GET_ITEM(args, i));
        size_t length = strlen(text);
        if (used + length + 2 > size)
            break;
        if (i > 0)
            buffer[used++] = TRAIL_NEXT;
        memcpy(buffer + used, text, length + 1);
        used += length;
    }
}

static void show_frame(char *buffer, size_t size)
{
    PyFrameObject *frame = PyThreadState_GetFrame(PyThreadState_Get());
    buffer[0] = '\0';
    if (!frame)
        return;
    PyCodeObject *code = PyFrame_GetCode(frame);
    char file[ARG_MAX_SIZE];
    show(file, sizeof file, code->co_filename);
    snprintf(buffer, size, "%s:%d", file, PyFrame_GetLineNumber(frame));
    Py_DECREF(code);
    Py_DECREF(frame);
}

static void note(subhost_host *host, const char *event, PyObject *args)
{
    const struct thread *self = subhost__thread_self();
    char shown[ARGS_SIZE], at[ARG_MAX_SIZE + 16];
    PyObject *outer = PyErr_GetRaisedException();
    show_args(shown, sizeof shown, args);
    show_frame(at, sizeof at);
    PyErr_SetRaisedException(outer);
    NOTE_EVENT(host->trail, PYTHON_EVENT, self ? self->interp->serial : 0,
               self ? atomic_load(&self->interp->running_task) : 0,
               TRAIL_TEXT(NAME, event), TRAIL_TEXT(ARGS, shown), TRAIL_TEXT(AT, at));
}

/* ---- the hook --------------------------------------------------------------------- */

static bool is_selected(const char *event)
{
    if (!selected.starts[(unsigned char)event[0]])
        return false;
    for (size_t i = 0; i < selected.count; i++)
        if (strncmp(event, selected.prefixes[i].name, selected.prefixes[i].length) == 0)
            return true;
    return false;
}

static int on_event(const char *event, PyObject *args, void *data)
{
    (void)data;
    if (!is_selected(event) || !atomic_load_explicit(&noting, memory_order_acquire))
        return 0;
    subhost_host *host = subhost__host();
    /* Events that CPython raises before it has a thread state are nobody's. */
    if (host && host->trail && PyThreadState_GetUnchecked())
        note(host, event, args);
    return 0;
}

static int copy_selection(const char *const *names, subhost_error **err)
{
    size_t size = 1;
    for (const char *const *name = names; *name; name++) {
        if (!**name || strchr(*name, TRAIL_NEXT))
            return subhost__fail(err, SUBHOST_EINVAL,
                                 "audit events of Python's: '%s' is no beginning of an "
                                 "event's name; leave it out",
                                 *name);
        if ((size_t)(name - names) >= PREFIXES_MAX)
            return subhost__fail(err, SUBHOST_EINVAL,
                                 "audit events of Python's: more than %d names",
                                 PREFIXES_MAX);
        size += strlen(*name) + 1;
    }
    selected.names = malloc(size);
    if (!selected.names)
        return subhost__fail(err, SUBHOST_ENOMEM,
                             "audit events of Python's: out of memory");
    char *at = selected.names;
    *at = '\0';
    for (const char *const *name = names; *name; name++) {
        size_t length = strlen(*name);
        if (name != names)
            *at++ = TRAIL_NEXT;
        memcpy(at, *name, length + 1);
        selected.prefixes[selected.count].name = at;
        selected.prefixes[selected.count++].length = length;
        selected.starts[(unsigned char)*at] = true;
        at += length;
    }
    return 0;
}

/* The policy's, which has commas between them, as a list. */
static int select_from_policy(subhost_host *host, subhost_error **err)
{
    const char *names[PREFIXES_MAX + 2] = {NULL};
    char *text = strdup(subhost__policy_text(host->policy, POLICY_AUDIT_PYTHON_EVENTS));
    if (!text)
        return subhost__fail(err, SUBHOST_ENOMEM, "audit.python_events: out of memory");
    size_t count = 0;
    for (char *at = text; at && *text && count <= PREFIXES_MAX;)
        names[count++] = strsep(&at, ",");
    int code = copy_selection(names, err);
    free(text);
    return code;
}

int subhost__python_events_install(subhost_host *host, subhost_error **err)
{
    const char *const *names = host->options.trail_python_events;
    int code = names ? copy_selection(names, err) : select_from_policy(host, err);
    if (code || selected.count == 0)
        return code;
    if (!host->trail)
        return subhost__fail(
            err, SUBHOST_EINVAL,
            "audit events of Python's are selected, but there is no trail "
            "that they could be noted in: name its file, too");
    if (PySys_AddAuditHook(on_event, NULL) < 0)
        code = subhost__fail(err, SUBHOST_EPYTHON, "the audit hook was not accepted");
    return code;
}

const char *subhost__python_events_list(void)
{
    return selected.names ? selected.names : "";
}

void subhost__python_events_begin(void)
{
    atomic_store_explicit(&noting, selected.count > 0, memory_order_release);
}

void subhost__python_events_end(void)
{
    atomic_store(&noting, false);
    /* The hook may still be called; what it reads stays until the next host is opened. */
    selected.count = 0;
    memset(selected.starts, 0, sizeof selected.starts);
    free(selected.names);
    selected.names = NULL;
}
