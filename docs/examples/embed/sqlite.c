/* SQLite with a function in Python, in two interpreters at once. Each has a database of its
 * own, and a scalar function that SQLite keeps: a subhost.native.callback().
 *
 *   cc sqlite.c $(pkg-config --cflags --libs subhost sqlite3) -o sqlite && ./sqlite */
#include <stdio.h>
#include <sqlite3.h>
#include <subhost.h>

enum { WORKERS = 2 };

/* What of SQLite Python may call, and as what. */
static const struct {
    subhost_native_function function;
    const char *signature;
} functions[] = {
    {(subhost_native_function)sqlite3_open,
     "i32 sqlite3_open(str name, out ptr<sqlite3> db) nonzero"},
    {(subhost_native_function)sqlite3_close,
     "i32 sqlite3_close(ptr<sqlite3> db) nonzero"},
    {(subhost_native_function)sqlite3_create_function,
     "i32 sqlite3_create_function(ptr<sqlite3> db, str name, i32 n, i32 encoding, ptr? "
     "data,"
     "  fn? void(ptr<context>, i32, ptr) function,"
     "  fn? void(ptr<context>, i32, ptr) step, fn? void(ptr<context>) final) nonzero"},
    {(subhost_native_function)sqlite3_exec,
     "i32 sqlite3_exec(ptr<sqlite3> db, str sql, fn? i32(ptr?, i32, ptr, ptr) row,"
     "  ptr? data, out str message) nonzero"},
    {(subhost_native_function)sqlite3_value_int64,
     "i64 sqlite3_value_int64(ptr<value>) gil"},
    {(subhost_native_function)sqlite3_result_int64,
     "void sqlite3_result_int64(ptr<context>, i64) gil"},
};

static const char program_text[] =
    "from subhost import current, native\n"
    "worker = current().worker\n"
    "def triple(context, n, values):\n"
    "    value = values.read('ptr<value>', 0)\n"
    "    native.sqlite3_result_int64(context, 3 * native.sqlite3_value_int64(value) + "
    "worker)\n"
    "rows = []\n"
    "def row(data, n, values, names):\n"
    "    rows.append([values.read('str', i) for i in range(n)])\n"
    "    return 0\n"
    "db = native.sqlite3_open(':memory:')\n"
    "with native.callback(triple, 'void(ptr<context>, i32, ptr)') as function:\n"
    "    native.sqlite3_create_function(db, 'triple', 1, 1, None, function, None, None)\n"
    "    native.sqlite3_exec(db, 'create table t(n); insert into t values (1), (2), "
    "(40)',\n"
    "                        None, None)\n"
    "    native.sqlite3_exec(db, 'select n, triple(n) from t order by n', row, None)\n"
    "    native.sqlite3_close(db)\n"
    "native.report(worker, repr(rows))\n";

static char reports[WORKERS][128];

/* Bound, too: each worker has its own line. */
static void report(int worker, const char *text)
{
    snprintf(reports[worker], sizeof reports[worker], "%s", text);
}

static int fail(const char *what, subhost_error *err)
{
    fprintf(stderr, "%s: %s\n", what, subhost_error_message(err));
    subhost_error_free(err);
    return 1;
}

int main(void)
{
    subhost_error *err = NULL;
    subhost_host *host;
    if (subhost_open(NULL, &host, &err))
        return fail("no host", err);
    int code = subhost_bind(host, "report", (subhost_native_function)report,
                            "void(i32, str)", NULL, &err);
    for (size_t i = 0; i < sizeof functions / sizeof *functions && !code; i++)
        code = subhost_bind(host, NULL, functions[i].function, functions[i].signature,
                            NULL, &err);
    if (code)
        return fail("not bound", err);

    subhost_program program = SUBHOST_PROGRAM_INIT;
    program.kind = SUBHOST_PROGRAM_CODE;
    program.source = program_text;
    subhost_task *tasks[WORKERS];
    for (int i = 0; i < WORKERS; i++) {
        subhost_interp_options options = SUBHOST_INTERP_OPTIONS_INIT;
        options.worker = i;
        subhost_interp *interp;
        if (subhost_interp_create(host, &options, &interp, &err) ||
            subhost_submit(interp, &program, NULL, &tasks[i], &err))
            return fail("not started", err);
        subhost_interp_release(interp); /* it ends after its task */
    }
    for (int i = 0; i < WORKERS; i++) {
        if (subhost_task_wait(tasks[i], SUBHOST_MSEC(20000), NULL, &err))
            return fail("no outcome", err);
        printf("worker %d: %s\n", i, reports[i]);
        subhost_task_release(tasks[i]);
    }
    if (subhost_close(host, SUBHOST_CLOSE_FINALIZE, SUBHOST_MSEC(2000), &err))
        return fail("not closed", err);
    return 0;
}
