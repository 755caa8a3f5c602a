/* subprocess with preexec_fn in the main interpreter. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

static const char code[] =
    "import subprocess, sys\n"
    "events = []\n"
    "sys.addaudithook(lambda event, args: events.append(event))\n"
    "def start():\n"
    "    try: return subprocess.run(['true'], preexec_fn=int).returncode\n"
    "    except subprocess.SubprocessError as e: return type(e).__name__\n"
    "seen = f'%s: {start()}, os.fork event: {\"os.fork\" in events}'\n";

static void attempt(int fd, const char *when)
{
    char text[1024];
    snprintf(text, sizeof text, code, when);
    subhost__plain_code(fd, text);
}

static void run(int fd)
{
    subhost__plain_python(fd);
    attempt(fd, "alone");
    PyThreadState *tstate = PyEval_SaveThread();
    subhost__plain_sibling(fd, PLAIN_OWN_GIL,
                           "import time\nos.write(ready, b'x')\ntime.sleep(60)");
    PyEval_RestoreThread(tstate);
    attempt(fd, "with a sibling");
    _exit(0);
}

const struct probe subhost__probe_preexec_fn = {
    .id = "preexec-fn",
    .title =
        "subprocess with preexec_fn in the main interpreter, with and without a sibling",
    .constraint =
        "preexec_fn runs Python in the forked child, so a live subinterpreter kills it; "
        "no audit event tells of that fork",
    .source = "subprocess documentation, \"preexec_fn\"; _posixsubprocess.fork_exec()",
    .meaning =
        "an audit hook cannot refuse it by os.fork; subhost looks at subprocess.Popen",
    .expected = {{FROM(3, 13),
                  "alone: 0, os.fork event: False; with a sibling: -6, os.fork event: "
                  "False"},
                 {FROM(3, 14),
                  "alone: 0, os.fork event: False; with a sibling: -11, os.fork "
                  "event: False"}},
    .run = run,
};
