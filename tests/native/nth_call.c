/* Preloaded: the Nth call into libc that a forked child makes ends it, fails, or ends its
 * parent. The calls are those of which a child becomes a host and serves its task.
 *
 *   NTH_CALL=kill:N    the child gets SIGKILL before its Nth call
 *   NTH_CALL=fail:N    the call returns what it returns when the system has no more of it
 *   NTH_CALL=parent:N  the parent gets SIGKILL before it
 *
 * What was hit is one line in the file NTH_CALL_LOG. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum mode { OFF, KILL, FAIL, PARENT };

static enum mode mode;
static long nth;
static char log_path[256];
static bool in_child;
static atomic_long calls;

/* Other libraries' constructors may come before ours. */
static long real_syscall(long number, long a, long b, long c, long d, long e, long f)
{
    static long (*real)(long number, ...);
    if (!real) {
        void *symbol = dlsym(RTLD_NEXT, "syscall");
        memcpy(&real, &symbol, sizeof symbol);
    }
    return real(number, a, b, c, d, e, f);
}
#define SYSCALL(number, a, b, c, d)                                                      \
    real_syscall(number, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)

static void after_fork(void)
{
    in_child = mode != OFF;
    atomic_store(&calls, 0);
}

__attribute__((constructor)) static void start(void)
{
    static const char *const names[] = {
        [KILL] = "kill:", [FAIL] = "fail:", [PARENT] = "parent:"};
    const char *wanted = getenv("NTH_CALL"), *path = getenv("NTH_CALL_LOG");
    for (int m = KILL; wanted && path && m <= PARENT; m++) {
        if (strncmp(wanted, names[m], strlen(names[m])) != 0)
            continue;
        mode = (enum mode)m;
        nth = strtol(wanted + strlen(names[m]), NULL, 10);
        strncpy(log_path, path, sizeof log_path - 1);
    }
    pthread_atfork(NULL, NULL, after_fork);
    /* What the process starts is none of this. */
    unsetenv("LD_PRELOAD");
}

static void note(const char *name)
{
    int fd = (int)SYSCALL(SYS_openat, AT_FDCWD, log_path,
                          O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    SYSCALL(SYS_write, fd, name, strlen(name), 0);
    SYSCALL(SYS_write, fd, "\n", 1, 0);
    SYSCALL(SYS_close, fd, 0, 0, 0);
}

/* True: this is the one, and it is to fail. */
static bool hit(const char *name)
{
    if (!in_child || atomic_fetch_add(&calls, 1) + 1 != nth)
        return false;
    int before = errno;
    note(name);
    if (mode == KILL)
        SYSCALL(SYS_kill, SYSCALL(SYS_getpid, 0, 0, 0, 0), SIGKILL, 0, 0);
    if (mode == PARENT)
        SYSCALL(SYS_kill, SYSCALL(SYS_getppid, 0, 0, 0, 0), SIGKILL, 0, 0);
    errno = before;
    return mode == FAIL;
}

#define REAL(name)                                                                       \
    static __typeof__(&name) real;                                                       \
    if (!real) {                                                                         \
        void *symbol = dlsym(RTLD_NEXT, #name);                                          \
        memcpy(&real, &symbol, sizeof symbol);                                           \
    }

/* One list: result, name, parameters, arguments, the error of a failure. */
#define CALLS(X)                                                                         \
    X(int, dup2, (int from, int to), (from, to), EBUSY)                                  \
    X(int, epoll_create1, (int flags), (flags), EMFILE)                                  \
    X(int, epoll_ctl, (int epfd, int op, int fd, struct epoll_event *event),             \
      (epfd, op, fd, event), ENOSPC)                                                     \
    X(int, eventfd, (unsigned value, int flags), (value, flags), EMFILE)                 \
    X(int, timerfd_create, (int clock, int flags), (clock, flags), EMFILE)               \
    X(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags),               \
      (fd, message, flags), ENOBUFS)                                                     \
    X(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags),                     \
      (fd, message, flags), ENOMEM)

#define DEFINE(type, name, parameters, arguments, error)                                 \
    type name parameters                                                                 \
    {                                                                                    \
        REAL(name)                                                                       \
        if (hit(#name)) {                                                                \
            errno = error;                                                               \
            return -1;                                                                   \
        }                                                                                \
        return real arguments;                                                           \
    }
CALLS(DEFINE)

/* Only to look is no step: a child does that with all signals. */
int sigaction(int signo, const struct sigaction *action, struct sigaction *old)
{
    REAL(sigaction)
    if (action && hit("sigaction")) {
        errno = EINVAL;
        return -1;
    }
    return real(signo, action, old);
}

/* dlsym() itself takes memory. These are glibc's. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);

void *malloc(size_t size)
{
    if (!hit("malloc"))
        return __libc_malloc(size);
    errno = ENOMEM;
    return NULL;
}

void *calloc(size_t count, size_t size)
{
    if (!hit("calloc"))
        return __libc_calloc(count, size);
    errno = ENOMEM;
    return NULL;
}

/* These return the error. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *),
                   void *arg)
{
    REAL(pthread_create)
    return hit("pthread_create") ? EAGAIN : real(thread, attr, start, arg);
}

int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    REAL(pthread_sigmask)
    hit("pthread_sigmask"); /* it cannot fail */
    return real(how, set, old);
}

/* And these take what they take. */
long syscall(long number, ...)
{
    va_list list;
    long a[6];
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    if (number != SYS_gettid && hit("syscall")) {
        errno = ENOSYS;
        return -1;
    }
    return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static int control(const char *name, int fd, int command, long argument)
{
    if (hit(name)) {
        errno = EMFILE;
        return -1;
    }
    return (int)SYSCALL(SYS_fcntl, fd, command, argument, 0);
}

int fcntl(int fd, int command, ...)
{
    va_list list;
    va_start(list, command);
    long argument = va_arg(list, long);
    va_end(list);
    return control("fcntl", fd, command, argument);
}

int fcntl64(int fd, int command, ...)
{
    va_list list;
    va_start(list, command);
    long argument = va_arg(list, long);
    va_end(list);
    return control("fcntl64", fd, command, argument);
}
