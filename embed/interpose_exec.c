/* Other programs, where exec.allow of a policy forbids them.
 *
 * Python's ways raise audit events, and are refused there with words (policing.c). Not so
 * _posixsubprocess.fork_exec(), which a program can call itself: its child, between vfork()
 * or fork() and here, finds that it must not. Async-signal-safe. */
#define _GNU_SOURCE
#include <errno.h>
#include <spawn.h>
#include <unistd.h>

#include "interp.h"
#include "interpose.h"
#include "interpose_real.h"

#define EXPORT __attribute__((visibility("default")))

/* This is the child of a fork() by a thread that must not. */
static bool is_child;

static bool is_forbidden(void)
{
    const struct thread *self = subhost__thread_self();
    return is_child || (self && atomic_load(&self->interp->no_exec));
}

void subhost__exec_after_fork(void) { is_child = is_forbidden(); }

#define WRAPPED(X) X(execve) X(execv) X(fexecve) X(posix_spawn) X(posix_spawnp)

FIND_REAL(WRAPPED)

#define WRAP(name, params, args, forbidden)                                              \
    EXPORT int name params                                                               \
    {                                                                                    \
        REAL(name)                                                                       \
        return is_forbidden() ? (forbidden) : real_##name args;                          \
    }

#define FAIL (errno = EACCES, -1)

/* clang-format off */
WRAP(execve, (const char *path, char *const argv[], char *const envp[]), (path, argv, envp), FAIL)
WRAP(execv, (const char *path, char *const argv[]), (path, argv), FAIL)
WRAP(fexecve, (int fd, char *const argv[], char *const envp[]), (fd, argv, envp), FAIL)
WRAP(posix_spawn,
     (pid_t *restrict pid, const char *restrict path,
      const posix_spawn_file_actions_t *restrict actions,
      const posix_spawnattr_t *restrict attributes, char *const argv[restrict],
      char *const envp[restrict]),
     (pid, path, actions, attributes, argv, envp), EACCES)
WRAP(posix_spawnp,
     (pid_t *restrict pid, const char *restrict file,
      const posix_spawn_file_actions_t *restrict actions,
      const posix_spawnattr_t *restrict attributes, char *const argv[restrict],
      char *const envp[restrict]),
     (pid, file, actions, attributes, argv, envp), EACCES)
/* clang-format on */
