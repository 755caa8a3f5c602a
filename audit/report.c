/* subhost_audit(): gathers, then makes the report in an interpreter of its own. See
 * report.h for the parts. */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <marshal.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "audit_python.h"
#include "embed/interp.h"
#include "embed/options.h"
#include "report.h"

#define GRACE SUBHOST_MSEC(1000)

/* One row for each kind that examines before Python is there. */
static subhost__gather *const gatherers[] = {
    [SUBHOST_AUDIT_HOST] = subhost__audit_host,
    [SUBHOST_AUDIT_MODULES] = subhost__audit_modules,
};

static const char *const kind_names[] = {
#define KIND_NAME(name, text) [name] = text,
    SUBHOST_AUDITS(KIND_NAME)
#undef KIND_NAME
};

static const char *const format_names[] = {
#define FORMAT_NAME(name, text) [name] = text,
    SUBHOST_FORMATS(FORMAT_NAME)
#undef FORMAT_NAME
};

/* The one audit that is under way; main thread, and the interpreter that makes its report. */
static struct {
    const subhost_audit_options *options;
    const struct records *records;
    subhost_error *error;
    int findings; /* -1: no answer yet */
} audit;

/* ---- _subhost_audit, what the report's Python gets from C ------------------------- */

PyObject *subhost__audit_code(const char *name)
{
#define FROZEN(module_name, magic, code, code_size, source)                              \
    if (strcmp(name, #module_name) == 0)                                                 \
        return PyImport_GetMagicNumber() == (magic)                                      \
                   ? PyMarshal_ReadObjectFromString((const char *)(code),                \
                                                    (Py_ssize_t)(code_size))             \
                   : Py_CompileString((source), "<subhost." #module_name ">",            \
                                      Py_file_input);
    AUDIT_PYTHON(FROZEN)
#undef FROZEN
    return PyErr_Format(PyExc_KeyError, "no frozen code of that name: %s", name);
}

static PyObject *module_code(PyObject *module, PyObject *arg)
{
    (void)module;
    const char *name = PyUnicode_AsUTF8(arg);
    return name ? subhost__audit_code(name) : NULL;
}

static PyObject *module_names(PyObject *module, PyObject *ignored)
{
    (void)module, (void)ignored;
    return Py_BuildValue("["
#define FROZEN_FORMAT(name, magic, code, code_size, source) "s"
                         AUDIT_PYTHON(FROZEN_FORMAT)
#undef FROZEN_FORMAT
                             "]"
#define FROZEN_NAME(name, magic, code, code_size, source) , #name
                         AUDIT_PYTHON(FROZEN_NAME)
#undef FROZEN_NAME
    );
}

static int processors(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

int subhost__audit_jobs(const subhost_audit_options *options)
{
    return options->jobs > 0 ? options->jobs : processors();
}

static PyObject *module_request(PyObject *module, PyObject *ignored)
{
    (void)module, (void)ignored;
    const subhost_audit_options *o = audit.options;
    PyObject *names = PyList_New(0);
    for (int i = 0; names && i < o->count; i++) {
        PyObject *name = PyUnicode_DecodeFSDefault(o->names[i]);
        if (!name || PyList_Append(names, name) < 0)
            Py_CLEAR(names);
        Py_XDECREF(name);
    }
    PyObject *output = o->output ? PyUnicode_DecodeFSDefault(o->output) : Py_None;
    if (!names || !output) {
        Py_XDECREF(names);
        return NULL;
    }
    return Py_BuildValue(
        "{s:s, s:s, s:N, s:N, s:i, s:i, s:y#, s:s, s:s}", "kind", kind_names[o->kind],
        "format", format_names[o->format], "output", output, "names", names, "jobs",
        subhost__audit_jobs(o), "verbose", o->verbose, "records",
        audit.records->data ? audit.records->data : "", (Py_ssize_t)audit.records->size,
        "version", subhost_version(), "details", subhost_version_details());
}

/* answer(findings): the report is written. */
static PyObject *module_answer(PyObject *module, PyObject *arg)
{
    (void)module;
    long findings = PyLong_AsLong(arg);
    if (findings == -1 && PyErr_Occurred())
        return NULL;
    audit.findings = findings > INT_MAX ? INT_MAX : (int)findings;
    Py_RETURN_NONE;
}

/* fail(message): it could not be made, through no fault of this program's. */
static PyObject *module_fail(PyObject *module, PyObject *arg)
{
    (void)module;
    PyObject *bytes = PyUnicode_EncodeFSDefault(arg);
    if (!bytes)
        return NULL;
    subhost_error_free(audit.error);
    audit.error = NULL;
    subhost__fail(&audit.error, SUBHOST_ESYSTEM, "%s", PyBytes_AS_STRING(bytes));
    Py_DECREF(bytes);
    Py_RETURN_NONE;
}

/* progress(done, total, name) */
static PyObject *module_progress(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned done, total;
    const char *name;
    if (!PyArg_ParseTuple(args, "IIs", &done, &total, &name))
        return NULL;
    if (audit.options->on_progress)
        audit.options->on_progress(done, total, name, audit.options->on_progress_data);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"code", module_code, METH_O, NULL},
    {"names", module_names, METH_NOARGS, NULL},
    {"request", module_request, METH_NOARGS, NULL},
    {"answer", module_answer, METH_O, NULL},
    {"fail", module_fail, METH_O, NULL},
    {"progress", module_progress, METH_VARARGS, NULL},
    {NULL},
};

static PyModuleDef_Slot slots[] = {
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_subhost_audit",
    .m_methods = methods,
    .m_slots = slots,
};

static PyObject *module_init(void) { return PyModuleDef_Init(&definition); }

/* ---- the report ------------------------------------------------------------------- */

/* Waits for the program; 0, a code, or the number of the signal that ended it. */
static int finish(subhost_host *host, subhost_task *task, subhost_error **err)
{
    subhost_outcome outcome = {.size = sizeof outcome};
    int code = subhost_task_wait(task, SUBHOST_FOREVER, &outcome, err);
    (void)host;
    if (code)
        return code;
    if (outcome.cancel_reason == SUBHOST_BY_SIGINT)
        return SIGINT;
    if (outcome.cancel_reason == SUBHOST_BY_SIGTERM)
        return SIGTERM;
    if (audit.error) {
        code = subhost_error_code(audit.error);
        if (err) {
            *err = audit.error;
            audit.error = NULL;
        }
        return code;
    }
    if (audit.findings < 0)
        return subhost__fail(err, SUBHOST_EPYTHON, "making the report: %s%s%s",
                             subhost_outcome_name(outcome.kind),
                             *outcome.detail ? ": " : "", outcome.detail);
    return 0;
}

static int run_program(subhost_host *host, subhost_error **err)
{
    subhost_interp_options interp_options = SUBHOST_INTERP_OPTIONS_INIT;
    interp_options.name = "audit";
    subhost_interp *interp = NULL;
    int code = subhost_interp_create(host, &interp_options, &interp, err);
    if (code)
        return code;
    subhost_program program = SUBHOST_PROGRAM_INIT;
    program.kind = SUBHOST_PROGRAM_CODE;
    program.source = "import _subhost_audit; exec(_subhost_audit.code('program'))";
    subhost_task_options task_options = SUBHOST_TASK_OPTIONS_INIT;
    task_options.name = "audit";
    subhost_task *task = NULL;
    code = subhost_submit(interp, &program, &task_options, &task, err);
    subhost_interp_release(interp);
    if (!code)
        code = finish(host, task, err);
    subhost_task_release(task);
    return code;
}

static int make_report(subhost_error **err)
{
    static bool registered; /* the table of builtin modules outlives Py_Finalize() */
    if (!registered && PyImport_AppendInittab("_subhost_audit", module_init) != 0)
        return subhost__fail(err, SUBHOST_ENOMEM, "out of memory");
    registered = true;
    subhost_options options = SUBHOST_OPTIONS_INIT;
    options.take_signals = 1;
    subhost_host *host = NULL;
    int code = subhost_open(&options, &host, err);
    if (code)
        return code;
    code = run_program(host, err);
    subhost_error *closing = NULL;
    int closed = subhost_close(host, SUBHOST_CLOSE_FINALIZE, GRACE, &closing);
    if (code == 0 && closed != 0) {
        if (err)
            *err = closing;
        return closed;
    }
    subhost_error_free(closing);
    return code;
}

/* ---- the audit -------------------------------------------------------------------- */

static int check_options(const subhost_audit_options *given, subhost_audit_options *o,
                         subhost_error **err)
{
    *o = (subhost_audit_options)SUBHOST_AUDIT_OPTIONS_INIT;
    if (!given)
        return subhost__fail(err, SUBHOST_EINVAL, "subhost_audit: options is NULL");
    int code = subhost__options_take(o, sizeof *o, given, "subhost_audit_options", err);
    if (code)
        return code;
    if ((unsigned)o->kind >= ARRAY_LENGTH(kind_names) ||
        (unsigned)o->format >= ARRAY_LENGTH(format_names) || o->count < 0 ||
        (o->count > 0 && !o->names))
        return subhost__fail(err, SUBHOST_EINVAL,
                             "subhost_audit: a bad kind or format, or names that are "
                             "missing");
    if (subhost__host() || Py_IsInitialized())
        return subhost__fail(err, SUBHOST_ESTATE,
                             "subhost_audit: CPython runs in this process already; audit "
                             "before a host is opened, or in another process");
    return 0;
}

int subhost_audit(const subhost_audit_options *given, subhost_error **err)
{
    subhost_audit_options options;
    struct records records = {0};
    int code = check_options(given, &options, err);
    if (code)
        return code;
    subhost__gather *gather =
        (unsigned)options.kind < ARRAY_LENGTH(gatherers) ? gatherers[options.kind] : NULL;
    if (gather) {
        code = subhost__records_open(&records, err);
        if (code)
            return code;
        code = gather(&options, &records, err);
        subhost_error **late = code ? NULL : err;
        int finished = subhost__records_finish(&records, late);
        code = code ? code : finished;
    }
    audit.options = &options;
    audit.records = &records;
    audit.error = NULL;
    audit.findings = -1;
    if (!code)
        code = make_report(err);
    free(records.data);
    subhost_error_free(audit.error);
    audit.options = NULL;
    if (code > 0) {
        /* Taken by our host, which is gone: it now has the effect that it would have had. */
        raise(code);
        return subhost__fail(err, SUBHOST_ESTATE, "the audit was ended by %s",
                             strsignal(code));
    }
    return code ? code : audit.findings;
}
