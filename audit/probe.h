/* The probes of `subhost audit host`: one file each in probes/, which defines
 *
 *     const struct probe subhost__probe_NAME = {...};
 *
 * for probes/NAME.c; the build lists them (AUDIT_PROBES). A probe states a constraint and what
 * is expected on this CPython, and runs in a throwaway child: plain CPython, which libsubhost
 * leaves alone as long as no host is open (its replacements of libc's functions pass through
 * threads that are not hosted), or a host, for what subhost promises. What it sees is said in
 * words that are equal to the expectation where that holds; what differs from one run to the
 * next, as times, is a detail. How the child ends belongs to what is seen. */
#ifndef SUBHOST_PROBE_H
#define SUBHOST_PROBE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

#include "embed/interp.h"
#include "throwaway.h"

/* Py_Version of a minor version's first pre-release. */
#define FROM(major, minor)                                                               \
    (((unsigned long)(major) << 24) | ((unsigned long)(minor) << 16))

/* What is expected from a version on, until the next row. */
struct expectation {
    unsigned long from;
    const char *seen;
};

struct probe {
    const char *id;
    const char *title;              /* what is examined, in a line */
    const char *constraint;         /* the rule, as its source has it */
    const char *source;             /* section of the documentation, issue, function */
    const char *meaning;            /* what follows for who embeds CPython */
    struct expectation expected[4]; /* ends with a row without `seen` */
    void (*run)(int fd);            /* the child; `fd`: for the functions below */
    int64_t limit;                  /* of the child, ns; 0: the default */
    bool alone;                     /* it measures time: nothing else runs beside it */
};

/* ---- in the probe's child: what was seen (probe.c) -------------------------------- */

/* Adds a clause to what was seen; "; " comes between two, unless the first ends with ':'. */
void subhost__see(int fd, const char *format, ...) SUBHOST_PRINTF(2, 3);
/* A detail, as a measured time. */
void subhost__see_detail(int fd, const char *key, const char *format, ...)
    SUBHOST_PRINTF(3, 4);
/* The probe ends here: it cannot run on this system, or something else failed. */
_Noreturn void subhost__see_skip(int fd, const char *format, ...) SUBHOST_PRINTF(2, 3);
_Noreturn void subhost__see_failed(int fd, const char *format, ...) SUBHOST_PRINTF(2, 3);

/* ---- plain CPython (plain.c) ------------------------------------------------------ */

/* Initializes CPython on this thread as an embedder does; without handlers of signals. */
void subhost__plain_python(int fd);

enum plain_config {
    PLAIN_OWN_GIL,    /* the documented isolated configuration */
    PLAIN_SHARED_GIL, /* the same with the main interpreter's GIL */
    PLAIN_LEGACY,     /* what Py_NewInterpreter() makes: everything is allowed */
};
/* A new interpreter; its first thread state is the current one then. */
PyThreadState *subhost__plain_interpreter(int fd, enum plain_config config);
/* The same on a thread of its own, which runs the code and then stays to the end of the process.
 * Returns when the code has written a byte to the descriptor `ready`, a variable that it has.
 * Called without a GIL. */
void subhost__plain_sibling(int fd, enum plain_config config, const char *code);
/* Runs code in the __main__ of the current interpreter. What it stores in `seen` is added to
 * what was seen; an uncaught exception ends the probe as failed. */
void subhost__plain_code(int fd, const char *code);

/* Between them stands a fork as os.fork() makes it. -1: the fork failed. */
pid_t subhost__plain_fork(int fd);
/* Waits for a child of the probe's: "exit status 0", "SIGSEGV", "no end" (then it has been
 * killed). The text is static. */
const char *subhost__plain_wait(pid_t pid);
/* Starts a thread and joins it; one that does not end ends the probe as failed. */
void subhost__plain_thread(int fd, void (*function)(int fd));

/* ---- a host (hosted.c) ------------------------------------------------------------ */

/* Opens a host; options may be NULL. */
subhost_host *subhost__hosted_open(int fd, const subhost_options *options);
/* Runs code as a program in a new interpreter and waits for its end. sys.argv[1] is the number
 * of a descriptor; what is written to it is added to what was seen. */
void subhost__hosted_code(int fd, subhost_host *host, const char *code);
/* Submits code and goes on; sys.argv[1] is the number `output`. Options may be NULL. */
subhost_task *subhost__hosted_submit(int fd, subhost_host *host, const char *code,
                                     int output, const subhost_interp_options *options,
                                     const subhost_task_options *task_options);
/* Dispatches until there is a byte to read, and takes it. */
void subhost__hosted_await(int fd, subhost_host *host, int ready);

#endif
