/* Throwaway children: what may crash, hang or ruin its process is examined in one.
 *
 * Each is forked from a process without Python, has a process group of its own, a deadline,
 * and a pipe for what it reports; its standard output and error are kept (their end, when it
 * is long). How it ends is a result: an exit status, a signal, or the deadline, at which its
 * group is killed. Used by `audit host`; made for any other examination as well. */
#ifndef SUBHOST_THROWAWAY_H
#define SUBHOST_THROWAWAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "embed/error.h"

struct throwaway {
    /* Set by the caller. `run` is the child: it writes to `fd` and returns (then it ends with
     * status 0), or ends otherwise. */
    const char *name;
    void (*run)(void *data, int fd);
    void *data;
    int64_t limit; /* from its start, ns */

    /* The result. */
    bool hung;    /* it was killed at its deadline */
    int status;   /* as waitpid() has it */
    char *report; /* malloc'ed, terminated, of `report_size` bytes; caller frees */
    char *output; /* likewise: what it printed */
    size_t report_size, output_size;
    int64_t duration;

    /* Of throwaway.c alone. */
    pid_t pid;
    int pid_fd, report_fd, output_fd;
    int64_t started_at;
    bool done;
};

/* Runs all of them, at most `jobs` at the same time. `on_end(child, data)` is called after
 * each. A SIGINT or SIGTERM ends them; it then has the effect that the process set for it,
 * and SUBHOST_ESTATE is returned. Main thread, no Python in this process, blocks. */
int subhost__throwaway_run(struct throwaway *children, unsigned count, int jobs,
                           void (*on_end)(struct throwaway *child, void *data),
                           void *data, subhost_error **err);
/* What run() has stored, NULL in `report` and `output` is fine. */
void subhost__throwaway_free(struct throwaway *child);

/* "exit status 3", "SIGSEGV", "no end within 5.0 s": how a child ended. */
void subhost__throwaway_describe(const struct throwaway *child, char *text, size_t size);
/* The same of a status of waitpid()'s. */
void subhost__describe_status(int status, char *text, size_t size);

#endif
