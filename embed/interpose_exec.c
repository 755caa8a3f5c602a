/* The end of the process by exec or _exit(): what has been captured of the output is handed on
 * first. And other programs, where exec.allow of a policy forbids them.
 *
 * Python's ways raise audit events, and are refused there with words (policing.c). Not so
 * _posixsubprocess.fork_exec(), which a program can call itself: its child, between vfork()
 * or fork() and here, finds that it must not. Async-signal-safe. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <spawn.h>
#include <stdlib.h>
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

/* clang-format off */
#define WRAPPED(X)                                                                       \
    X(execve) X(execv) X(fexecve) X(posix_spawn) X(posix_spawnp) X(_exit) X(_Exit)
/* clang-format on */

FIND_REAL(WRAPPED)

/* What is still in the pipes ends with the main loop. Not in a child between fork and exec: that
 * has the record of the thread that forked it, and maybe its memory. */
static void finish_captures(void)
{
    const struct thread *self = subhost__thread_self();
    subhost_host *host = self ? self->interp->host : NULL;
    if (!host || !host->options.on_output || host->pid != getpid() ||
        pthread_equal(pthread_self(), host->main_thread))
        return;
    int saved_errno = errno;
    subhost__loop_finish_captures(host, SUBHOST_MSEC(100));
    errno = saved_errno;
}

#define WRAP_SPAWN(name, params, args)                                                   \
    EXPORT int name params                                                               \
    {                                                                                    \
        REAL(name)                                                                       \
        return is_forbidden() ? EACCES : real_##name args;                               \
    }

#define WRAP_EXEC(name, params, args)                                                    \
    EXPORT int name params                                                               \
    {                                                                                    \
        REAL(name)                                                                       \
        if (is_forbidden()) {                                                            \
            errno = EACCES;                                                              \
            return -1;                                                                   \
        }                                                                                \
        finish_captures();                                                               \
        return real_##name args;                                                         \
    }

/* clang-format off */
WRAP_EXEC(execve, (const char *path, char *const argv[], char *const envp[]), (path, argv, envp))
WRAP_EXEC(execv, (const char *path, char *const argv[]), (path, argv))
WRAP_EXEC(fexecve, (int fd, char *const argv[], char *const envp[]), (fd, argv, envp))
WRAP_SPAWN(posix_spawn,
     (pid_t *restrict pid, const char *restrict path,
      const posix_spawn_file_actions_t *restrict actions,
      const posix_spawnattr_t *restrict attributes, char *const argv[restrict],
      char *const envp[restrict]),
     (pid, path, actions, attributes, argv, envp))
WRAP_SPAWN(posix_spawnp,
     (pid_t *restrict pid, const char *restrict file,
      const posix_spawn_file_actions_t *restrict actions,
      const posix_spawnattr_t *restrict attributes, char *const argv[restrict],
      char *const envp[restrict]),
     (pid, file, actions, attributes, argv, envp))
/* clang-format on */

#define WRAP_EXIT(name)                                                                  \
    EXPORT _Noreturn void name(int status)                                               \
    {                                                                                    \
        REAL(name)                                                                       \
        finish_captures();                                                               \
        real_##name(status);                                                             \
        __builtin_unreachable();                                                         \
    }
WRAP_EXIT(_exit)
WRAP_EXIT(_Exit)
