#!/usr/bin/env python3
"""The shared library in a plugin: opened with RTLD_LOCAL, and closed while an abandoned
interpreter's thread is still in it."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import BUILD, PATIENCE, SOURCE, equal, main, ok, run, skip, test

SANITIZED = any(line.startswith("SUBHOST_SANITIZE:STRING=") and not line.rstrip().endswith("=")
                for line in (BUILD / "CMakeCache.txt").read_text().splitlines())

PLUGIN = r"""
#include <subhost.h>
#include <stdio.h>

static void run(subhost_host *host, int isolation, const char *code, int64_t timeout)
{
    subhost_interp_options interp_options = SUBHOST_INTERP_OPTIONS_INIT;
    subhost_program program = SUBHOST_PROGRAM_INIT;
    subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
    subhost_outcome outcome = SUBHOST_OUTCOME_INIT;
    subhost_interp *interp = NULL;
    subhost_task *task = NULL;
    interp_options.isolation = isolation;
    program.kind = SUBHOST_PROGRAM_CODE;
    program.source = code;
    options.timeout = timeout;
    options.grace = timeout;
    if (subhost_interp_create(host, &interp_options, &interp, NULL) ||
        subhost_submit(interp, &program, &options, &task, NULL) ||
        subhost_task_wait(task, SUBHOST_MSEC(1000) * PATIENCE, &outcome, NULL))
        printf("failed\n");
    else
        printf("%s\n", subhost_outcome_name(outcome.kind));
    subhost_task_release(task);
    subhost_interp_release(interp);
}

int plugin_run(int abandon)
{
    subhost_host *host = NULL;
    if (subhost_open(NULL, &host, NULL))
        return 1;
    if (abandon) {
        run(host, SUBHOST_ISOLATION_INTERPRETER, "import time; time.sleep(4)", SUBHOST_MSEC(100));
    } else {
        run(host, SUBHOST_ISOLATION_INTERPRETER, "import ctypes, select, subprocess", 0);
        run(host, SUBHOST_ISOLATION_PROCESS, "pass", 0);
    }
    return subhost_close(host, SUBHOST_CLOSE_FINALIZE, SUBHOST_MSEC(500), NULL) ? 2 : 0;
}
"""

PROGRAM = r"""
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int abandon = argc > 2 && atoi(argv[2]);
    setvbuf(stdout, NULL, _IONBF, 0); /* nothing of it is a forked child's to write */
    for (int round = 0; round < (abandon ? 1 : 2); round++) {
        void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
        int (*run)(int) = plugin ? (int (*)(int))dlsym(plugin, "plugin_run") : NULL;
        if (!run) {
            puts(dlerror());
            return 1;
        }
        printf("closed: %d\n", run(abandon));
        dlclose(plugin);
    }
    if (abandon)
        sleep(4);
    puts("alive");
    return 0;
}
"""


def build(folder):
    """The program and the plugin."""
    (folder / "plugin.c").write_text(PLUGIN)
    (folder / "program.c").write_text(PROGRAM)
    library = BUILD / "lib"
    built = run(["cc", f"-DPATIENCE={int(PATIENCE)}", "-shared", "-fPIC", f"-I{SOURCE}/embed",
                 folder / "plugin.c", "-o", folder / "plugin.so", f"-L{library}", "-lsubhost",
                 f"-Wl,-rpath,{library}"])
    equal((built.status, built.err), (0, ""), "the plugin", result=built)
    built = run(["cc", folder / "program.c", "-o", folder / "program", "-ldl"])
    equal((built.status, built.err), (0, ""), "the program", result=built)
    return folder / "program", folder / "plugin.so"


@test
def plugin(folder):
    if SANITIZED:
        skip("a plugin", "a sanitizer's runtime must be in the program")
        return
    program, plugin = build(folder)
    result = run([program, plugin], timeout=60)
    equal((result.status, result.out), (0, "returned\nreturned\nclosed: 0\n" * 2 + "alive\n"),
          "with RTLD_LOCAL: extension modules are loaded, processes forked", result=result)
    result = run([program, plugin, "1"], timeout=60)
    lines = result.out.splitlines()
    equal((result.status, lines[1:]), (0, ["closed: 2", "alive"]),
          "an abandoned interpreter's thread outlives dlclose()", result=result)


main()
