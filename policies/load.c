/* Policy files: entries of TOML to values, and every problem of a file in one report. */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "embed/edit_distance.h"
#include "policies/policy.h"

#include <errno.h>
#include <marshal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "prelude_policy.h"
#include "presets.h"
#include "subhost_config.h"

#define FILE_MAX (1 << 20) /* bytes of a policy file */
#define PRESET_COUNT (sizeof presets / sizeof *presets)

/* ---- the report ------------------------------------------------------------------- */

void subhost__policy_complain(struct policy_report *report, const char *file, int line,
                              const char *key, const char *format, ...)
{
    char problem[400], whole[700];
    va_list args;
    va_start(args, format);
    vsnprintf(problem, sizeof problem, format, args);
    va_end(args);
    if (line > 0)
        snprintf(whole, sizeof whole, "%.160s:%d: %.80s%s%s", file, line, key,
                 *key ? ": " : "", problem);
    else
        snprintf(whole, sizeof whole, "%.160s: %.80s%s%s", file, key, *key ? ": " : "",
                 problem);
    report->count++;
    if (report->problem)
        report->problem(whole, report->data);
}

/* ---- presets ---------------------------------------------------------------------- */

const struct policy_preset *subhost__policy_preset(const char *name)
{
    for (size_t i = 0; i < PRESET_COUNT; i++) {
        if (strcmp(presets[i].name, name) == 0)
            return &presets[i];
    }
    return NULL;
}

const char *subhost_policy_preset_at(size_t index, const char **serves)
{
    if (index >= PRESET_COUNT)
        return NULL;
    if (serves)
        *serves = presets[index].serves;
    return presets[index].name;
}

static void list_presets(char *buffer, size_t size)
{
    size_t used = 0;
    buffer[0] = '\0';
    for (size_t i = 0; i < PRESET_COUNT && used < size; i++)
        used += (size_t)snprintf(buffer + used, size - used, "%s%s", used ? ", " : "",
                                 presets[i].name);
}

static bool apply_preset(subhost_policy *policy, const struct policy_preset *preset,
                         struct policy_report *report)
{
    char origin[80];
    snprintf(origin, sizeof origin, "preset %s", preset->name);
    return subhost__policy_apply(policy, origin, preset->entries, preset->count, report);
}

/* ---- entries ---------------------------------------------------------------------- */

/* What a misspelt word may be meant for: at most so far from it. */
#define NEAR 2

static const char *nearer(const char *word, const char *known, const char *best)
{
    size_t before = best ? edit_distance(word, best) : NEAR + 1;
    return edit_distance(word, known) < before ? known : best;
}

static void complain_unknown(struct policy_report *report, const char *file,
                             const struct policy_entry *entry, const char *what,
                             const char *near)
{
    subhost__policy_complain(report, file, entry->line, entry->key, "unknown %s%s%s%s",
                             what, near ? "; did you mean " : "", near ? near : "",
                             near ? "?" : "");
}

static bool is_second(const struct policy_entry *entry)
{
    return strcmp(entry->kind, "second one") == 0;
}

static void complain_second(struct policy_report *report, const char *file,
                            const struct policy_entry *entry)
{
    subhost__policy_complain(report, file, entry->line, entry->key, "given twice");
}

static void complain_kind(struct policy_report *report, const char *file,
                          const struct policy_entry *entry, const char *expected)
{
    subhost__policy_complain(report, file, entry->line, entry->key,
                             "expected %s, found %s %s", expected,
                             strchr("aeiou", *entry->kind) ? "an" : "a", entry->kind);
}

/* A table without keys: only its name can be wrong. */
static void check_table(const char *file, const struct policy_entry *entry,
                        struct policy_report *report)
{
    char groups[POLICY_KEY_COUNT][EDIT_DISTANCE_MAX];
    const char *near = NULL;
    for (size_t key = 0; key < POLICY_KEY_COUNT; key++) {
        const char *name = subhost__policy_rows[key].name;
        snprintf(groups[key], sizeof *groups, "%.*s", (int)strcspn(name, "."), name);
        if (strcmp(groups[key], entry->key) == 0)
            return;
        near = nearer(entry->key, groups[key], near);
    }
    complain_unknown(report, file, entry, "table", near);
}

/* What of TOML's kinds a value of that type may be. */
static bool kind_fits(enum policy_type type, const char *kind, const char **expected)
{
    static const struct {
        const char *kinds, *expected;
    } fits[] = {
        [TYPE_BOOL] = {"boolean", "true or false"},
        [TYPE_CHOICE] = {"string", "a string"},
        [TYPE_INTEGER] = {"integer", "a whole number"},
        [TYPE_DURATION] = {"string|integer|float",
                           "a duration (\"500ms\", \"1.5s\", \"2m\", or seconds)"},
        [TYPE_SIZE] = {"string|integer", "a size (\"64MiB\", \"2GiB\", or bytes)"},
        [TYPE_LIST] = {"array", "an array of strings"},
        [TYPE_TEXT] = {"string", "a string"},
    };
    *expected = fits[type].expected;
    return subhost__word_place(fits[type].kinds, kind, strlen(kind)) >= 0;
}

/* The words of a list as --set has them; false: one of them has a comma. */
static char *joined(const char *text)
{
    char *copy = strchr(text, ',') ? NULL : strdup(text);
    for (char *at = copy; at && *at; at++)
        *at = *at == '\n' ? ',' : *at;
    return copy;
}

static bool apply_entry(subhost_policy *policy, const char *file,
                        const struct policy_entry *entry, struct policy_report *report)
{
    char problem[300], origin[240];
    const char *expected;
    int key = subhost__policy_find(entry->key, problem, sizeof problem);
    const char *of_file =
        nearer(entry->key, "extends", nearer(entry->key, "version", NULL));
    if (key < 0 && of_file) {
        complain_unknown(report, file, entry, "key", of_file);
        return true;
    }
    if (key < 0) {
        subhost__policy_complain(report, file, entry->line, entry->key, "%s", problem);
        return true;
    }
    enum policy_type type = subhost__policy_rows[key].type;
    if (is_second(entry)) {
        complain_second(report, file, entry);
        return true;
    }
    if (!kind_fits(type, entry->kind, &expected)) {
        complain_kind(report, file, entry, expected);
        return true;
    }
    char *list = type == TYPE_LIST ? joined(entry->text) : NULL;
    if (type == TYPE_LIST && !list) {
        subhost__policy_complain(report, file, entry->line, entry->key,
                                 "a word has a comma in it");
        return true;
    }
    struct policy_value value;
    bool good = subhost__policy_parse((enum policy_key)key, list ? list : entry->text,
                                      &value, problem, sizeof problem);
    free(list);
    if (!good) {
        subhost__policy_complain(report, file, entry->line, entry->key, "%s", problem);
        return true;
    }
    if (strncmp(file, "preset ", 7) == 0)
        snprintf(origin, sizeof origin, "%s", file);
    else
        snprintf(origin, sizeof origin, "%.200s:%d", file, entry->line);
    return subhost__policy_put(policy, (enum policy_key)key, &value, origin);
}

static void check_version(const char *file, const struct policy_entry *entries,
                          size_t count, struct policy_report *report)
{
    bool found = false;
    for (size_t i = 0; i < count; i++) {
        const struct policy_entry *entry = &entries[i];
        if (strcmp(entry->key, "version") != 0)
            continue;
        found = true;
        if (is_second(entry))
            complain_second(report, file, entry);
        else if (strcmp(entry->kind, "integer") != 0)
            complain_kind(report, file, entry, "a whole number");
        else if (strcmp(entry->text, "1") != 0)
            subhost__policy_complain(report, file, entry->line, "version",
                                     "%.40s is not a version that this subhost knows; it "
                                     "knows 1",
                                     entry->text);
        else if (i > 0)
            subhost__policy_complain(report, file, entry->line, "version",
                                     "must be the first key of the file");
    }
    if (!found)
        subhost__policy_complain(report, file, 1, "version",
                                 "missing; the first key must be version = 1");
}

static void complain_preset(struct policy_report *report, const char *file,
                            const struct policy_entry *entry)
{
    char known[200];
    const char *near = NULL;
    for (size_t i = 0; i < PRESET_COUNT; i++)
        near = nearer(entry->text, presets[i].name, near);
    list_presets(known, sizeof known);
    subhost__policy_complain(report, file, entry->line, "extends",
                             "'%.60s' is not a preset; %s%s%sthere are %s", entry->text,
                             near ? "did you mean " : "", near ? near : "",
                             near ? "? " : "", known);
}

static bool extend(subhost_policy *policy, const char *file,
                   const struct policy_entry *entry, struct policy_report *report)
{
    const struct policy_preset *preset = subhost__policy_preset(entry->text);
    if (is_second(entry))
        complain_second(report, file, entry);
    else if (strcmp(entry->kind, "string") != 0)
        complain_kind(report, file, entry, "a string");
    else if (preset)
        return apply_preset(policy, preset, report);
    else
        complain_preset(report, file, entry);
    return true;
}

bool subhost__policy_apply(subhost_policy *policy, const char *file,
                           const struct policy_entry *entries, size_t count,
                           struct policy_report *report)
{
    bool ok = true;
    check_version(file, entries, count, report);
    for (size_t i = 0; ok && i < count; i++) {
        if (strcmp(entries[i].key, "extends") == 0)
            ok = extend(policy, file, &entries[i], report);
    }
    for (size_t i = 0; ok && i < count; i++) {
        const struct policy_entry *entry = &entries[i];
        bool empty_table = strcmp(entry->kind, "table") == 0 && !*entry->text;
        if (strcmp(entry->key, "version") == 0 || strcmp(entry->key, "extends") == 0)
            continue;
        if (empty_table && !strchr(entry->key, '.'))
            check_table(file, entry, report);
        else
            ok = apply_entry(policy, file, entry, report);
    }
    return ok;
}

/* ---- TOML ------------------------------------------------------------------------- */

static PyObject *reader_code(void)
{
    if (PyImport_GetMagicNumber() == PRELUDE_POLICY_MAGIC)
        return PyMarshal_ReadObjectFromString((const char *)prelude_policy_code,
                                              (Py_ssize_t)sizeof prelude_policy_code);
    return Py_CompileString(prelude_policy_source, "<subhost.policy>", Py_file_input);
}

/* What embed/python/policy.py reads: (entries, problems). A new reference, or NULL with an
 * exception set. */
static PyObject *read_document(const char *text, size_t size)
{
    PyObject *dict = PyDict_New(), *code = reader_code(), *done = NULL, *result = NULL;
    PyObject *name = PyUnicode_FromString("subhost.policy");
    if (dict && code && name && PyDict_SetItemString(dict, "__name__", name) == 0 &&
        PyDict_SetItemString(dict, "__builtins__", PyEval_GetBuiltins()) == 0)
        done = PyEval_EvalCode(code, dict, dict);
    PyObject *read = done ? PyDict_GetItemString(dict, "read") : NULL;
    if (read)
        result = PyObject_CallFunction(read, "y#", text, (Py_ssize_t)size);
    if (dict)
        PyDict_Clear(dict); /* its functions refer to it: no work for the collector */
    Py_XDECREF(done);
    Py_XDECREF(name);
    Py_XDECREF(code);
    Py_XDECREF(dict);
    return result;
}

/* The entries point into the document's strings. */
static struct policy_entry *take_entries(PyObject *list, size_t *count)
{
    *count = (size_t)PyList_Size(list);
    struct policy_entry *entries = calloc(*count + 1, sizeof *entries);
    for (size_t i = 0; entries && i < *count; i++) {
        struct policy_entry *e = &entries[i];
        if (!PyArg_ParseTuple(PyList_GetItem(list, (Py_ssize_t)i), "sssi", &e->key,
                              &e->kind, &e->text, &e->line)) {
            free(entries);
            return NULL;
        }
    }
    if (!entries)
        PyErr_NoMemory();
    return entries;
}

static bool take_problems(const char *file, PyObject *list, struct policy_report *report)
{
    for (Py_ssize_t i = 0; i < PyList_Size(list); i++) {
        int line;
        const char *key, *problem;
        if (!PyArg_ParseTuple(PyList_GetItem(list, i), "iss", &line, &key, &problem))
            return false;
        subhost__policy_complain(report, file, line, key, "%s", problem);
    }
    return true;
}

bool subhost__policy_read_toml(subhost_policy *policy, const char *file, const char *text,
                               size_t size, struct policy_report *report)
{
    PyObject *document = read_document(text, size), *list, *problems;
    if (!document)
        return false;
    bool ok = PyArg_ParseTuple(document, "O!O!", &PyList_Type, &list, &PyList_Type,
                               &problems) &&
              take_problems(file, problems, report);
    size_t count;
    struct policy_entry *entries = ok ? take_entries(list, &count) : NULL;
    ok = entries != NULL;
    /* Of what is not TOML nothing else can be said. */
    if (ok && PyList_Size(problems) == 0 &&
        !subhost__policy_apply(policy, file, entries, count, report)) {
        PyErr_NoMemory();
        ok = false;
    }
    free(entries);
    Py_DECREF(document);
    enum policy_key key;
    char problem[240];
    if (ok && report->count == 0 &&
        !subhost__policy_agrees(policy, &key, problem, sizeof problem))
        subhost__policy_complain(report, file, 0, subhost__policy_rows[key].name, "%s",
                                 problem);
    return ok;
}

/* ---- an interpreter to read it in --------------------------------------------------- */

static int fail_with_exception(const char *file, subhost_error **err)
{
    PyObject *exception = PyErr_GetRaisedException();
    PyObject *text = exception ? PyObject_Repr(exception) : NULL;
    const char *utf8 = text ? PyUnicode_AsUTF8(text) : NULL;
    int code = subhost__fail(err, SUBHOST_EPYTHON, "%s: it could not be read: %s", file,
                             utf8 ? utf8 : "an exception that cannot be shown");
    Py_XDECREF(text);
    Py_XDECREF(exception);
    PyErr_Clear();
    return code;
}

struct source {
    const char *name;
    char *text;
    size_t size;
};

static int read_here(subhost_policy *policy, const struct source *source,
                     struct policy_report *report, subhost_error **err)
{
    bool ok = subhost__policy_read_toml(policy, source->name, source->text, source->size,
                                        report);
    return ok ? 0 : fail_with_exception(source->name, err);
}

/* CPython for this one purpose: no program, no site, nothing of the environment. */
static int read_in_fresh(subhost_policy *policy, const struct source *source,
                         struct policy_report *report, subhost_error **err)
{
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    config.write_bytecode = 0;
    config.pathconfig_warnings = 0;
    PyStatus status = PyConfig_SetBytesString(&config, &config.program_name,
                                              SUBHOST_BUILD_PYTHON_EXECUTABLE);
    if (!PyStatus_Exception(status))
        status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status))
        return subhost__fail(err, SUBHOST_EPYTHON, "%s: CPython did not start: %s",
                             source->name, status.err_msg ? status.err_msg : "it exited");
    int code = read_here(policy, source, report, err);
    if (Py_FinalizeEx() < 0 && !code)
        code = subhost__fail(err, SUBHOST_EPYTHON, "%s: CPython did not end in order",
                             source->name);
    return code;
}

/* The main interpreter of the open host. */
static int read_in_main(subhost_policy *policy, const struct source *source,
                        struct policy_report *report, subhost_error **err)
{
    PyThreadState *tstate = PyThreadState_New(PyInterpreterState_Main());
    if (!tstate)
        return subhost__fail(err, SUBHOST_ENOMEM, "%s: out of memory", source->name);
    PyEval_RestoreThread(tstate);
    int code = read_here(policy, source, report, err);
    PyThreadState_Clear(tstate);
    PyThreadState_DeleteCurrent();
    return code;
}

static int read_somewhere(subhost_policy *policy, const struct source *source,
                          struct policy_report *report, subhost_error **err)
{
    if (!Py_IsInitialized())
        return read_in_fresh(policy, source, report, err);
    if (PyThreadState_GetUnchecked())
        return read_here(policy, source, report, err);
    return read_in_main(policy, source, report, err);
}

/* ---- loading ---------------------------------------------------------------------- */

static int read_file(struct source *source, subhost_error **err)
{
    FILE *file = fopen(source->name, "rbe");
    struct stat st;
    if (!file)
        return subhost__fail_errno(err, errno, "%s", source->name);
    if (fstat(fileno(file), &st) == 0 && S_ISDIR(st.st_mode)) {
        fclose(file);
        return subhost__fail_errno(err, EISDIR, "%s", source->name);
    }
    source->text = malloc(FILE_MAX + 1);
    source->size = source->text ? fread(source->text, 1, FILE_MAX + 1, file) : 0;
    int error = ferror(file) ? errno : 0;
    fclose(file);
    if (source->text && !error && source->size <= FILE_MAX)
        return 0;
    free(source->text);
    if (!source->text)
        return subhost__fail(err, SUBHOST_ENOMEM, "%s: out of memory", source->name);
    if (error)
        return subhost__fail_errno(err, error, "%s", source->name);
    return subhost__fail(err, SUBHOST_EINVAL, "%s: more than %d bytes for a policy",
                         source->name, FILE_MAX);
}

/* A path has a slash or the ending; anything else may be a preset's name. */
static bool is_path(const char *name)
{
    size_t length = strlen(name);
    return strchr(name, '/') || (length > 5 && strcmp(name + length - 5, ".toml") == 0) ||
           access(name, F_OK) == 0;
}

static int load(const char *name, subhost_policy *policy, struct policy_report *report,
                subhost_error **err)
{
    const struct policy_preset *preset = subhost__policy_preset(name);
    if (preset)
        return apply_preset(policy, preset, report)
                   ? 0
                   : subhost__fail(err, SUBHOST_ENOMEM, "a policy: out of memory");
    if (!is_path(name)) {
        char known[200];
        list_presets(known, sizeof known);
        return subhost__fail(err, SUBHOST_EINVAL,
                             "no policy is named '%.60s': there are %s, and files", name,
                             known);
    }
    struct source source = {.name = name};
    int code = read_file(&source, err);
    if (code)
        return code;
    code = read_somewhere(policy, &source, report, err);
    free(source.text);
    return code;
}

int subhost_policy_check(const char *name, void (*problem)(const char *line, void *data),
                         void *data, subhost_error **err)
{
    if (!name)
        return subhost__fail(err, SUBHOST_EINVAL, "subhost_policy_check: name is NULL");
    struct policy_report report = {.problem = problem, .data = data};
    subhost_policy *policy = subhost__policy_new(name);
    if (!policy)
        return subhost__fail(err, SUBHOST_ENOMEM, "a policy: out of memory");
    int code = load(name, policy, &report, err);
    subhost_policy_free(policy);
    return code ? code : report.count;
}

static void keep_first(const char *line, void *data)
{
    char *first = data;
    if (!*first)
        snprintf(first, 700, "%s", line);
}

int subhost_policy_load(const char *name, subhost_policy **result, subhost_error **err)
{
    char first[700] = "";
    struct policy_report report = {.problem = keep_first, .data = first};
    if (!result)
        return subhost__fail(err, SUBHOST_EINVAL, "subhost_policy_load: policy is NULL");
    subhost_policy *policy = subhost__policy_new(name ? name : "default");
    if (!policy)
        return subhost__fail(err, SUBHOST_ENOMEM, "a policy: out of memory");
    int code = load(policy->name, policy, &report, err);
    if (!code && report.count == 1)
        code = subhost__fail(err, SUBHOST_EINVAL, "%s", first);
    else if (!code && report.count > 1)
        code = subhost__fail(err, SUBHOST_EINVAL,
                             "%s (and %d more; `subhost policy check` lists them)", first,
                             report.count - 1);
    if (code) {
        subhost_policy_free(policy);
        return code;
    }
    *result = policy;
    return 0;
}
