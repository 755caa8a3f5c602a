/* Whom an audit hook hears. */
#define _GNU_SOURCE
#include <string.h>
#include <unistd.h>

#include "audit/probe.h"

static int heard;

static int hook(const char *event, PyObject *args, void *data)
{
    (void)args, (void)data;
    heard += strcmp(event, "probe") == 0;
    return 0;
}

static const char emit[] = "import sys\nsys.audit('probe')";

static void run(int fd)
{
    PySys_AddAuditHook(hook, NULL); /* allowed before the start */
    subhost__plain_python(fd);
    PyThreadState *main_tstate = PyThreadState_Get();
    subhost__plain_code(
        fd, "import sys\nheard = []\n"
            "sys.addaudithook(lambda e, a: e == 'probe' and heard.append(e))");
    PyThreadState *tstate = subhost__plain_interpreter(fd, PLAIN_OWN_GIL);
    subhost__plain_code(fd, emit);
    PyThreadState_Swap(main_tstate);
    subhost__see(fd, "PySys_AddAuditHook hears a subinterpreter: %s",
                 heard ? "yes" : "no");
    subhost__plain_code(fd, "seen = 'sys.addaudithook of main hears it: ' + "
                            "('yes' if heard else 'no')");
    subhost__plain_code(fd, emit);
    subhost__plain_code(fd, "seen = 'sys.addaudithook of main hears main: ' + "
                            "('yes' if heard else 'no')");
    PyThreadState_Swap(tstate);
    _exit(0);
}

const struct probe subhost__probe_audit_hooks = {
    .id = "audit-hooks",
    .title = "audit hooks: of the process and of one interpreter",
    .constraint =
        "PySys_AddAuditHook() holds for every interpreter and may come before the "
        "start; sys.addaudithook() is for its own interpreter alone",
    .source = "C API, PySys_AddAuditHook(); PEP 578",
    .meaning = "what must hold for all interpreters is a hook in C, added first",
    .expected = {{FROM(3, 13),
                  "PySys_AddAuditHook hears a subinterpreter: yes; sys.addaudithook "
                  "of main hears it: no; sys.addaudithook of main hears main: yes"}},
    .run = run,
};
