/* Forked children that end before they have said anything, and at once. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "probe_dies",
                                        .m_size = -1};

/* Imported into the image that is forked: its children end inside the fork. */
static PyObject *init_dies(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module && PyRun_SimpleString("import os\n"
                                     "os.register_at_fork(after_in_child=lambda: "
                                     "os._exit(5))") != 0)
        Py_CLEAR(module);
    return module;
}

static const char code[] =
    "import os, sys, time\n"
    "import subhost\n"
    "def nothing(): pass\n"
    "if __name__ == '__main__':\n"
    "    since = time.monotonic()\n"
    "    try:\n"
    "        with subhost.open_nursery() as nursery:\n"
    "            task = nursery.start(nothing, isolation='process')\n"
    "            task.result()\n"
    "        found = 'it lives'\n"
    "    except BaseException as error: found = f'an error, {task.outcome}'\n"
    "    if time.monotonic() - since > 2: found += ', late'\n"
    "    os.write(int(sys.argv[1]), found.encode())\n";

static void run(int fd)
{
    static const char *const preload[] = {"probe_dies", NULL};
    PyImport_AppendInittab("probe_dies", init_dies);
    subhost_options options = SUBHOST_OPTIONS_INIT;
    options.preload = preload;
    subhost_host *host = subhost__hosted_open(fd, &options);
    subhost__hosted_code(fd, host, code);
    _exit(0);
}

const struct probe subhost__probe_boot_death = {
    .id = "boot-death",
    .title = "a forked child that ends before its first word",
    .constraint = "it is an error to who waits for it, at once, with its exit status",
    .source = "docs/design.md, \"Forked children\"; tests/fork/boot_death.t",
    .meaning = "nobody waits for the call of a child that has died",
    .expected = {{FROM(3, 13), "an error, exited(5)"}},
    .run = run,
};
