/* Interruptible calls: the blocking libc calls that libpython and extension modules make,
 * taken before libc gets them.
 *
 * For a thread that is not hosted, or that holds a GIL, a call goes through untouched.
 * Else the call is announced (in_call), so that the main loop can kick the thread out of
 * it with a signal that has no SA_RESTART; it then runs what is due, and either goes back
 * to the call or, when an exception is to be raised in this thread, ends it early in the
 * way that CPython takes best (measured, see docs/design.md):
 *
 *   ECANCELED  read, recv, accept, poll, select, waitpid ...: OSError, in whose place the
 *              exception is raised (deliver.c). EINTR would be retried (PEP 475). From
 *              3.15 on EINTR is right: PyErr_CheckSignals() raises it on the spot.
 *   0          clock_nanosleep: slept enough. epoll_wait, with errno cleared, because
 *              CPython looks at errno there: nothing was ready.
 *   (never)    sem_*: a lock wait must not be ended by a lie. A Condition's waiter lock
 *              is released instead, which is a legal spurious wake-up.
 *
 * The race between the check and the block is closed by the main loop, which kicks again
 * until the thread has noticed. The JDK's linux_close.c does the same for its sockets. */
#define _GNU_SOURCE
#include "interpose.h"
#include "interpose_real.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "fd.h"
#include "guard.h"
#include "interp.h"
#include "pids.h"

#define EXPORT __attribute__((visibility("default")))

static atomic_bool reached;
static _Thread_local bool checking; /* its sleep only has to arrive here */

/* ---- which calls are ours ------------------------------------------------------- */

/* The calling thread's record when this call can be interrupted: it is hosted, and holds
 * no GIL (a call made with the GIL held is not a place to run Python). */
static struct thread *interruptible_thread(void)
{
    struct thread *self = subhost__thread_self();
    if (!self || !self->interp->host->interruptible || self->is_attendant)
        return NULL;
    if (PyThreadState_GetUnchecked() != NULL || !PyGILState_GetThisThreadState())
        return NULL;
    return self;
}

/* Before the real call and after each EINTR: true when the call should end now. */
static bool call_must_end(struct thread *self, enum call_kind kind)
{
    if (atomic_load(&self->interp->state) == INTERP_QUARANTINED && !self->is_visitor)
        subhost__thread_park();
    if (!atomic_exchange(&self->attention, false) &&
        (self->sealed > 0 || !atomic_load(&self->raise_pending)))
        return false;
    /* Python code that runs now makes calls of its own. */
    atomic_store(&self->in_call, false);
    bool end = subhost__thread_service(self, kind);
    atomic_store(&self->in_call, true);
    return end;
}

static int early_errno(void) { return Py_Version >= 0x030F0000 ? EINTR : ECANCELED; }

/* The functions of libc that are wrapped here, one list. Those behind `extern` are made by
 * _FORTIFY_SOURCE and declared by no header. */
extern ssize_t __read_chk(int fd, void *buffer, size_t n, size_t size);
extern ssize_t __recv_chk(int fd, void *buffer, size_t n, size_t size, int flags);
extern int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t size);
extern char *__fgets_chk(char *buffer, size_t size, int n, FILE *stream);
/* clang-format off */
#define WRAPPED(X)                                                                      \
    X(pthread_mutex_lock) X(read) X(write) X(readv) X(writev) X(sendfile64) X(splice) X(__read_chk) X(recv)   \
    X(__recv_chk) X(recvfrom) X(recvmsg) X(send) X(sendto) X(sendmsg) X(accept)         \
    X(accept4) X(connect) X(waitpid) X(wait) X(wait3) X(wait4) X(waitid) X(flock)       \
    X(lockf64) X(tcdrain) X(open64) X(openat64) X(sigwaitinfo) X(sigtimedwait)          \
    X(__fgets_chk) X(__poll_chk) X(clock_nanosleep) X(epoll_wait) X(fcntl64) X(fgets)   \
    X(pause) X(poll) X(ppoll) X(pthread_create) X(select) X(sem_clockwait)              \
    X(sem_timedwait) X(sem_wait) X(sigwait) X(close) X(close_range) X(kill) X(killpg)   \
    X(raise) X(pthread_kill) X(dup2) X(dup3)
/* clang-format on */

FIND_REAL(WRAPPED)

/* A call that returns -1 and errno, again after each interruption that raised nothing. ENDED
 * is evaluated for the early return. Each try begins with the caller's errno: a call that
 * succeeds after an interruption must not leave EINTR there. CPython's epoll, poll and select
 * look at errno alone, would wait again, and what was ready would be lost; for good where it
 * is told once only (EPOLLONESHOT, EPOLLET). */
#define TRIES(kind, type, call, ended)                                                   \
    const int entry_errno = errno;                                                       \
    type result;                                                                         \
    atomic_store(&self->in_call, true);                                                  \
    for (;;) {                                                                           \
        if (call_must_end(self, kind)) {                                                 \
            result = (ended);                                                            \
            break;                                                                       \
        }                                                                                \
        errno = entry_errno;                                                             \
        result = call;                                                                   \
        if (result != (type)-1 || errno != EINTR || !atomic_load(&self->attention))      \
            break;                                                                       \
    }                                                                                    \
    atomic_store(&self->in_call, false);

#define INTERRUPTIBLE(type, call, ended)                                                 \
    struct thread *self = interruptible_thread();                                        \
    if (!self)                                                                           \
        return call;                                                                     \
    TRIES(CALL_FAILS, type, call, ended)                                                 \
    return result;

#define END_WITH_ERRNO (errno = early_errno(), -1)

/* `extern` first: the declarations of libc have the right types, ours must match. */
#define WRAP(type, name, params, args)                                                   \
    EXPORT type name params                                                              \
    {                                                                                    \
        REAL(name)                                                                       \
        INTERRUPTIBLE(type, real_##name args, END_WITH_ERRNO)                            \
    }

/* ---- reading and writing -------------------------------------------------------- */

WRAP(ssize_t, read, (int fd, void *buffer, size_t n), (fd, buffer, n))
WRAP(ssize_t, write, (int fd, const void *buffer, size_t n), (fd, buffer, n))
WRAP(ssize_t, readv, (int fd, const struct iovec *v, int n), (fd, v, n))
WRAP(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n))
WRAP(ssize_t, sendfile64, (int out, int in, off64_t *offset, size_t n),
     (out, in, offset, n))
WRAP(ssize_t, splice,
     (int in, off64_t *in_offset, int out, off64_t *out_offset, size_t n, unsigned flags),
     (in, in_offset, out, out_offset, n, flags))

/* What _FORTIFY_SOURCE makes of read(): checked here, then as read(). */
WRAP(ssize_t, __read_chk, (int fd, void *buffer, size_t n, size_t size),
     (fd, buffer, n, size))

/* open() blocks on a FIFO, or on a file system that is away. */
#define WRAP_OPEN(name, params, args, flags)                                             \
    EXPORT int name params                                                               \
    {                                                                                    \
        mode_t mode = 0;                                                                 \
        if ((flags) & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) {                          \
            va_list list;                                                                \
            va_start(list, flags);                                                       \
            mode = va_arg(list, mode_t);                                                 \
            va_end(list);                                                                \
        }                                                                                \
        REAL(name)                                                                       \
        INTERRUPTIBLE(int, real_##name args, END_WITH_ERRNO)                             \
    }
WRAP_OPEN(open64, (const char *path, int flags, ...), (path, flags, mode), flags)
WRAP_OPEN(openat64, (int at, const char *path, int flags, ...), (at, path, flags, mode),
          flags)

/* ---- sockets -------------------------------------------------------------------- */

WRAP(ssize_t, recv, (int fd, void *buffer, size_t n, int flags), (fd, buffer, n, flags))
WRAP(ssize_t, __recv_chk, (int fd, void *buffer, size_t n, size_t size, int flags),
     (fd, buffer, n, size, flags))
WRAP(ssize_t, recvfrom,
     (int fd, void *restrict buffer, size_t n, int flags,
      struct sockaddr *restrict address, socklen_t *restrict length),
     (fd, buffer, n, flags, address, length))
WRAP(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags), (fd, message, flags))
WRAP(ssize_t, send, (int fd, const void *buffer, size_t n, int flags),
     (fd, buffer, n, flags))
WRAP(ssize_t, sendto,
     (int fd, const void *buffer, size_t n, int flags, const struct sockaddr *address,
      socklen_t length),
     (fd, buffer, n, flags, address, length))
WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags),
     (fd, message, flags))
WRAP(int, accept, (int fd, struct sockaddr *restrict address, socklen_t *restrict length),
     (fd, address, length))
WRAP(int, accept4,
     (int fd, struct sockaddr *restrict address, socklen_t *restrict length, int flags),
     (fd, address, length, flags))
WRAP(int, connect, (int fd, const struct sockaddr *address, socklen_t length),
     (fd, address, length))

/* ---- processes and files -------------------------------------------------------- */

/* How long a child's end waits for a main loop that does not come. */
#define WAIT_HEARD SUBHOST_MSEC(100)

/* A signal to a whole process group, a Ctrl-C say, that has ended the child is sent to this
 * process as well, and before the child can be found dead; but the main loop may still have to
 * hear of it. So who waits looks first, and for such a child lets the loop do so: then the call
 * is interrupted, and the child not reaped, as under python.
 *
 * 1: the call may be made; 0: there is nothing (WNOHANG); -1: EINTR. */
static int look_for_child(const struct thread *self, idtype_t type, id_t id, int options)
{
    siginfo_t found = {0};
    if (!self)
        return 1;
    if (real_waitid(type, id, &found, options | WNOWAIT) != 0)
        return errno == EINTR ? -1 : 1; /* any other error is the call's */
    if (found.si_pid == 0)
        return 0;
    int signo = found.si_code == CLD_EXITED ? found.si_status - 128 : 0;
    if (found.si_code == CLD_KILLED || found.si_code == CLD_DUMPED)
        signo = found.si_status;
    if (!subhost__signals_take(signo))
        return 1;
    int saved_errno = errno;
    subhost__loop_barrier(self->interp->host, WAIT_HEARD);
    bool attention = atomic_load(&self->attention);
    errno = attention ? EINTR : saved_errno;
    return attention ? -1 : 1;
}

/* What the first argument of wait4() means to waitid(). */
static idtype_t wait_type(pid_t pid)
{
    return pid == -1 ? P_ALL : pid > 0 ? P_PID : P_PGID;
}
static id_t wait_id(pid_t pid) { return (id_t)(pid >= 0 ? pid : -(long)pid); }

/* A wait for any child passes by those that the forkserver thread has forked: the host waits
 * for them. One for such a child itself gets its status, and so does the host (pids.h). */
static pid_t wait_for(const struct thread *self, pid_t pid, int *status, int options,
                      struct rusage *usage)
{
    int found;
    pid_t child;
    bool own;
    do {
        int seen = look_for_child(self, wait_type(pid), wait_id(pid), options | WEXITED);
        if (seen <= 0)
            return seen;
        child = real_wait4(pid, &found, options, usage);
        own = child > 0 &&
              (WIFEXITED(found) || WIFSIGNALED(found) ? subhost__pids_reaped(child, found)
                                                      : subhost__pids_have(child));
    } while (own && pid <= 0);
    if (child > 0 && status)
        *status = found;
    return child;
}

static int wait_for_id(const struct thread *self, idtype_t type, id_t id, siginfo_t *info,
                       int options)
{
    bool any = type == P_ALL || type == P_PGID;
    for (;;) {
        siginfo_t found = {0};
        int seen = look_for_child(self, type, id, options);
        int result = seen > 0 ? real_waitid(type, id, &found, options) : seen;
        pid_t child = result == 0 ? found.si_pid : 0;
        bool ended =
            child && (found.si_code == CLD_EXITED || found.si_code == CLD_KILLED ||
                      found.si_code == CLD_DUMPED);
        bool own = child && subhost__pids_have(child);
        if (own && ended && (any || !(options & WNOWAIT))) {
            if (options & WNOWAIT) /* only looked at: it would be found again */
                real_wait4(child, NULL, WNOHANG, NULL);
            int status = found.si_code == CLD_EXITED ? (found.si_status & 0xFF) << 8
                                                     : found.si_status;
            subhost__pids_reaped(child, status);
        }
        if (own && any && (ended || !(options & WNOWAIT)))
            continue;
        if (result == 0 && info)
            *info = found;
        return result;
    }
}

/* wait() and its kin are all wait4(). */
#define WRAP_WAIT(type, name, params, call)                                              \
    EXPORT type name params                                                              \
    {                                                                                    \
        REAL(name)                                                                       \
        INTERRUPTIBLE(type, call, END_WITH_ERRNO)                                        \
    }
WRAP_WAIT(pid_t, waitpid, (pid_t pid, int *status, int options),
          wait_for(self, pid, status, options, NULL))
WRAP_WAIT(pid_t, wait, (int *status), wait_for(self, -1, status, 0, NULL))
WRAP_WAIT(pid_t, wait3, (int *status, int options, struct rusage *usage),
          wait_for(self, -1, status, options, usage))
WRAP_WAIT(pid_t, wait4, (pid_t pid, int *status, int options, struct rusage *usage),
          wait_for(self, pid, status, options, usage))
WRAP_WAIT(int, waitid, (idtype_t type, id_t id, siginfo_t *info, int options),
          wait_for_id(self, type, id, info, options))
WRAP(int, flock, (int fd, int operation), (fd, operation))
WRAP(int, lockf64, (int fd, int operation, off64_t length), (fd, operation, length))
WRAP(int, tcdrain, (int fd), (fd))

/* fcntl() blocks for F_SETLKW alone; its third argument is a word in every case. */
EXPORT int fcntl64(int fd, int operation, ...)
{
    REAL(fcntl64)
    va_list list;
    va_start(list, operation);
    void *arg = va_arg(list, void *);
    va_end(list);
    if (operation != F_SETLKW && operation != F_OFD_SETLKW)
        return real_fcntl64(fd, operation, arg);
    INTERRUPTIBLE(int, real_fcntl64(fd, operation, arg), END_WITH_ERRNO)
}

/* ---- waiting for descriptors ---------------------------------------------------- */

/* After an interruption that raised nothing, a wait goes on for the time that is left. */
static int64_t wait_deadline(int64_t timeout)
{
    return timeout < 0 ? SUBHOST_FOREVER : subhost__deadline(timeout);
}

static int64_t time_left(int64_t deadline)
{
    if (deadline == SUBHOST_FOREVER)
        return -1;
    int64_t left = deadline - subhost__now();
    return left < 0 ? 0 : left;
}

/* Rounded up: a wait must not end early. */
static int msec_left(int64_t deadline)
{
    int64_t left = time_left(deadline);
    if (left <= 0)
        return (int)left;
    int64_t msec = (left + 999999) / 1000000;
    return msec > INT32_MAX ? INT32_MAX : (int)msec;
}

EXPORT int poll(struct pollfd *fds, nfds_t n, int timeout)
{
    REAL(poll)
    struct thread *self = interruptible_thread();
    if (!self)
        return real_poll(fds, n, timeout);
    int64_t deadline = wait_deadline(timeout < 0 ? -1 : timeout * INT64_C(1000000));
    TRIES(CALL_FAILS, int, real_poll(fds, n, msec_left(deadline)), END_WITH_ERRNO)
    return result;
}

EXPORT int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t size)
{
    REAL(__poll_chk)
    struct thread *self = interruptible_thread();
    if (!self)
        return real___poll_chk(fds, n, timeout, size);
    int64_t deadline = wait_deadline(timeout < 0 ? -1 : timeout * INT64_C(1000000));
    TRIES(CALL_FAILS, int, real___poll_chk(fds, n, msec_left(deadline), size),
          END_WITH_ERRNO)
    return result;
}

EXPORT int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                 const sigset_t *mask)
{
    REAL(ppoll)
    struct thread *self = interruptible_thread();
    if (!self)
        return real_ppoll(fds, n, timeout, mask);
    int64_t deadline = wait_deadline(
        timeout ? timeout->tv_sec * INT64_C(1000000000) + timeout->tv_nsec : -1);
    struct timespec left;
    TRIES(CALL_FAILS, int,
          (left = subhost__timespec(time_left(deadline)),
           real_ppoll(fds, n, timeout ? &left : NULL, mask)),
          END_WITH_ERRNO)
    return result;
}

EXPORT int epoll_wait(int fd, struct epoll_event *events, int n, int timeout)
{
    REAL(epoll_wait)
    struct thread *self = interruptible_thread();
    if (!self)
        return real_epoll_wait(fd, events, n, timeout);
    int64_t deadline = wait_deadline(timeout < 0 ? -1 : timeout * INT64_C(1000000));
    TRIES(CALL_ENDS, int, real_epoll_wait(fd, events, n, msec_left(deadline)),
          (errno = 0, 0))
    return result;
}

EXPORT int select(int n, fd_set *restrict in, fd_set *restrict out, fd_set *restrict ex,
                  struct timeval *restrict timeout)
{
    REAL(select)
    struct thread *self = interruptible_thread();
    if (!self)
        return real_select(n, in, out, ex, timeout);
    int64_t deadline = wait_deadline(
        timeout ? (timeout->tv_sec * INT64_C(1000000) + timeout->tv_usec) * 1000 : -1);
    /* The sets are left alone by a select() that fails (select(2)). */
    TRIES(CALL_FAILS, int,
          (timeout
               ? (void)(*timeout = (struct timeval){time_left(deadline) / 1000000000,
                                                    time_left(deadline) / 1000 % 1000000})
               : (void)0,
           real_select(n, in, out, ex, timeout)),
          END_WITH_ERRNO)
    return result;
}

/* ---- sleeping and signals ------------------------------------------------------- */

EXPORT int clock_nanosleep(clockid_t clock, int flags, const struct timespec *time,
                           struct timespec *left)
{
    REAL(clock_nanosleep)
    if (checking) {
        atomic_store_explicit(&reached, true, memory_order_relaxed);
        return 0;
    }
    struct thread *self = interruptible_thread();
    if (!self)
        return real_clock_nanosleep(clock, flags, time, left);
    /* CPython sleeps until an absolute time, so going back needs no arithmetic; a
     * relative sleep is made absolute here for the same reason. */
    struct timespec until = *time;
    if (!(flags & TIMER_ABSTIME)) {
        clock_gettime(clock, &until);
        until.tv_sec += time->tv_sec;
        until.tv_nsec += time->tv_nsec;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
        flags |= TIMER_ABSTIME;
    }
    atomic_store(&self->in_call, true);
    int error;
    do {
        error = call_must_end(self, CALL_ENDS)
                    ? 0
                    : real_clock_nanosleep(clock, flags, &until, NULL);
    } while (error == EINTR && atomic_load(&self->attention));
    atomic_store(&self->in_call, false);
    return error;
}

EXPORT int usleep(useconds_t usec)
{
    struct timespec time = {usec / 1000000, usec % 1000000 * 1000L};
    int error = clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
    errno = error ? error : errno;
    return error ? -1 : 0;
}

/* pause() ends when a handler ran. Ours run on the main thread, so the hosted thread that
 * pauses has to be told: a handler of the program's was called here. */
EXPORT int pause(void)
{
    REAL(pause)
    struct thread *self = interruptible_thread();
    if (!self)
        return real_pause();
    atomic_store(&self->in_call, true);
    unsigned long long before = atomic_load(&self->interp->handlers_run);
    do {
        if (call_must_end(self, CALL_ENDS))
            break;
        if (atomic_load(&self->interp->handlers_run) != before)
            break;
        real_pause();
    } while (atomic_load(&self->attention));
    atomic_store(&self->in_call, false);
    errno = EINTR;
    return -1;
}

#define WRAP_SIGWAIT(name, params, args)                                                 \
    EXPORT int name params                                                               \
    {                                                                                    \
        REAL(name)                                                                       \
        INTERRUPTIBLE(int, real_##name args, END_WITH_ERRNO)                             \
    }
WRAP_SIGWAIT(sigwaitinfo, (const sigset_t *restrict set, siginfo_t *restrict info),
             (set, info))
WRAP_SIGWAIT(sigtimedwait,
             (const sigset_t *restrict set, siginfo_t *restrict info,
              const struct timespec *restrict timeout),
             (set, info, timeout))

/* sigwait() of glibc never fails with EINTR, so the interruptible one stands in. */
EXPORT int sigwait(const sigset_t *restrict set, int *restrict signo)
{
    REAL(sigwait)
    struct thread *self = interruptible_thread();
    if (!self)
        return real_sigwait(set, signo);
    int result;
    do {
        result = sigwaitinfo(set, NULL);
    } while (result < 0 && errno == EINTR && !atomic_load(&self->raise_pending));
    if (result < 0)
        return errno;
    *signo = result;
    return 0;
}

/* ---- locks ---------------------------------------------------------------------- */

/* CPython waits for its locks here, with the GIL released. A kick runs what is due, which
 * wakes a Condition's waiter; else the wait goes on. EINTR would be honest as well, but
 * is of use only where CPython looks for asynchronous exceptions then (3.15), and must be
 * given once for each kick: its parking lot repeats a wait until it is woken. */
static int lock_wait_again(struct thread *self)
{
    if (atomic_load(&self->interp->state) == INTERP_QUARANTINED && !self->is_visitor)
        subhost__thread_park();
    if (!atomic_exchange(&self->attention, false))
        return 1;
    atomic_store(&self->in_call, false);
    bool raise = subhost__thread_service(self, CALL_LOCKS);
    atomic_store(&self->in_call, true);
    return !(raise && Py_Version >= 0x030F0000);
}

#define LOCK_WAIT(call)                                                                  \
    atomic_store(&self->in_call, true);                                                  \
    int result;                                                                          \
    do {                                                                                 \
        result = lock_wait_again(self) ? call : (errno = EINTR, -1);                     \
    } while (result != 0 && errno == EINTR && atomic_load(&self->attention));            \
    atomic_store(&self->in_call, false);                                                 \
    return result;

EXPORT int sem_wait(sem_t *sem)
{
    REAL(sem_wait)
    SUBHOST_GUARD();
    struct thread *self = interruptible_thread();
    if (!self)
        return real_sem_wait(sem);
    LOCK_WAIT(real_sem_wait(sem))
}

EXPORT int sem_timedwait(sem_t *restrict sem, const struct timespec *restrict until)
{
    REAL(sem_timedwait)
    SUBHOST_GUARD();
    struct thread *self = interruptible_thread();
    if (!self)
        return real_sem_timedwait(sem, until);
    LOCK_WAIT(real_sem_timedwait(sem, until))
}

EXPORT int sem_clockwait(sem_t *restrict sem, clockid_t clock,
                         const struct timespec *restrict until)
{
    REAL(sem_clockwait)
    SUBHOST_GUARD();
    struct thread *self = interruptible_thread();
    if (!self)
        return real_sem_clockwait(sem, clock, until);
    LOCK_WAIT(real_sem_clockwait(sem, clock, until))
}

int subhost__interruptible_wait(sem_t *sem, int64_t deadline, bool ends)
{
    REAL(sem_clockwait)
    struct thread *self = interruptible_thread();
    struct timespec until = subhost__timespec(deadline);
    int result = 0;
    if (self)
        atomic_store(&self->in_call, true);
    for (;;) {
        /* Also where sealed code waits: it asks what is due, and acts on it. */
        if (self && (call_must_end(self, CALL_ENDS), atomic_load(&self->raise_pending)) &&
            ends) {
            result = EINTR;
            break;
        }
        result = real_sem_clockwait(sem, CLOCK_MONOTONIC, &until) == 0 ? 0 : errno;
        if (result != EINTR)
            break;
    }
    if (self)
        atomic_store(&self->in_call, false);
    return result;
}

/* Not a call to interrupt: where the guard looks (guard.c), for a GIL is taken and released
 * under one. On the path of every mutex of the process, so it does nothing else. */
EXPORT int pthread_mutex_lock(pthread_mutex_t *mutex)
{
    REAL(pthread_mutex_lock)
    SUBHOST_GUARD();
    return real_pthread_mutex_lock(mutex);
}

/* ---- input() on a terminal ------------------------------------------------------ */

/* CPython's input() reads a terminal's line with fgets(), which it repeats after EINTR.
 */
static char *interruptible_fgets(struct thread *self, char *(*get)(void *), void *context,
                                 FILE *stream)
{
    char *line = NULL;
    atomic_store(&self->in_call, true);
    for (;;) {
        if (call_must_end(self, CALL_FAILS)) {
            errno = early_errno();
            break;
        }
        errno = 0;
        line = get(context);
        if (line || errno != EINTR || !atomic_load(&self->attention))
            break;
        clearerr(stream);
    }
    atomic_store(&self->in_call, false);
    return line;
}

struct fgets_call {
    char *(*real)(char *restrict, int, FILE *restrict);
    char *(*real_chk)(char *, size_t, int, FILE *);
    char *buffer;
    size_t size;
    int n;
    FILE *stream;
};

static char *call_fgets(void *context)
{
    struct fgets_call *c = context;
    return c->real ? c->real(c->buffer, c->n, c->stream)
                   : c->real_chk(c->buffer, c->size, c->n, c->stream);
}

EXPORT char *fgets(char *restrict buffer, int n, FILE *restrict stream)
{
    REAL(fgets)
    struct thread *self = interruptible_thread();
    if (!self)
        return real_fgets(buffer, n, stream);
    struct fgets_call c = {real_fgets, NULL, buffer, 0, n, stream};
    return interruptible_fgets(self, call_fgets, &c, stream);
}

EXPORT char *__fgets_chk(char *buffer, size_t size, int n, FILE *stream)
{
    REAL(__fgets_chk)
    struct thread *self = interruptible_thread();
    if (!self)
        return real___fgets_chk(buffer, size, n, stream);
    struct fgets_call c = {NULL, real___fgets_chk, buffer, size, n, stream};
    return interruptible_fgets(self, call_fgets, &c, stream);
}

/* ---- signals to ourselves ------------------------------------------------------- */

#define WRAP_KILL(name, params, args, to_us)                                             \
    EXPORT int name params                                                               \
    {                                                                                    \
        REAL(name)                                                                       \
        struct thread *self = subhost__thread_self();                                    \
        if (!self || !(to_us))                                                           \
            return real_##name args;                                                     \
        unsigned before = subhost__signals_routed(signo);                                \
        int result = real_##name args;                                                   \
        if (result == 0)                                                                 \
            subhost__signals_wait_routed(self->interp, signo, before);                   \
        return result;                                                                   \
    }
WRAP_KILL(kill, (pid_t pid, int signo), (pid, signo), pid <= 0 || pid == getpid())
WRAP_KILL(killpg, (pid_t group, int signo), (group, signo),
          group == 0 || group == getpgrp())
WRAP_KILL(raise, (int signo), (signo), true)
WRAP_KILL(pthread_kill, (pthread_t thread, int signo), (thread, signo), true)

/* ---- closing -------------------------------------------------------------------- */

/* Programs close what they do not know: os.closerange(3, 4096). To a hosted thread the
 * host's own descriptors are not open, and their numbers cannot be had. */

static bool is_hidden(int fd)
{
    return subhost__fd_is_hidden(fd) && subhost__thread_self() != NULL;
}

EXPORT int close(int fd)
{
    REAL(close)
    if (is_hidden(fd)) {
        errno = EBADF;
        return -1;
    }
    return real_close(fd);
}

EXPORT int close_range(unsigned first, unsigned last, int flags)
{
    REAL(close_range)
    /* In the pieces between hidden descriptors, which have small numbers. */
    for (unsigned fd = first; subhost__thread_self() && fd <= last && fd < 4096; fd++) {
        if (!is_hidden((int)fd))
            continue;
        if (fd > first && real_close_range(first, fd - 1, flags) != 0)
            return -1;
        first = fd + 1;
    }
    return first <= last ? real_close_range(first, last, flags) : 0;
}

/* A child between fork and exec has a table of its own, where the host needs none. */
static bool is_taken(int fd) { return is_hidden(fd) && getpid() == subhost__host()->pid; }

EXPORT int dup2(int fd, int target)
{
    REAL(dup2)
    if (is_taken(target) && target != fd) {
        errno = EBUSY;
        return -1;
    }
    return real_dup2(fd, target);
}

EXPORT int dup3(int fd, int target, int flags)
{
    REAL(dup3)
    if (is_taken(target) && target != fd) {
        errno = EBUSY;
        return -1;
    }
    return real_dup3(fd, target, flags);
}

/* ---- threads -------------------------------------------------------------------- */

EXPORT int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attr,
                          void *(*function)(void *), void *restrict arg)
{
    REAL(pthread_create)
    return subhost__thread_create_hosted(real_pthread_create, thread, attr, function,
                                         arg);
}

void subhost__interpose_check(void)
{
    /* time.sleep() is clock_nanosleep(); libpython's call goes the way of all others. */
    PyObject *time = PyImport_ImportModule("time");
    checking = true;
    Py_XDECREF(time ? PyObject_CallMethod(time, "sleep", "d", 1e-9) : NULL);
    checking = false;
    Py_XDECREF(time);
    PyErr_Clear();
}

bool subhost__interpose_reached(void) { return atomic_load(&reached); }
