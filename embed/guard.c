/* The guard against forks by C code: their children must never run Python.
 *
 * os.fork() is refused (fence.c). A fork() by C code (a library, ctypes, subprocess with
 * user=) cannot be: whoever forks may mean to exec, or to go on in C, and may do so. But only
 * the forking thread is there in the child: a GIL that another one held is held for ever,
 * and so is each of CPython's locks. So the moment such a child would run Python it ends,
 * with one line on stderr and status 126. It can get there in two ways:
 *
 *   The thread forked without a GIL (ctypes, a C thread). Then it has to take one first:
 *   take_gil() begins with pthread_mutex_lock(), as everything does that attaches or
 *   detaches a thread. That function is interposed (interpose.c): called by libpython in
 *   such a child, it ends it. It does not matter who had the GIL at the fork.
 *
 *   The thread forked with a GIL. Then `prepare` queues a pending call in its interpreter.
 *   Nobody else can take it out before the fork, since that needs this GIL; in the parent it
 *   does nothing; in the child it is called at the next check of the eval breaker and ends
 *   it. Where pending calls are not to be had, the child ends when it next releases the GIL,
 *   which is pthread_mutex_lock() again.
 *
 * And a wait of libpython's for a lock (sem_*), which nobody would end, ends the child too.
 *
 * Atfork handlers run in every fork() of the process. vfork() and posix_spawn() have none,
 * and need none: their children only exec. _Fork() and the system call itself have none
 * either: there the kernel clears the mark (MADV_WIPEONFORK), and the first of the two ways is
 * the only one. */
#define _GNU_SOURCE
#include "guard.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fd.h"
#include "interp.h"
#include "interpose.h"

#define STATUS 126
#define LINE_TIMEOUT SUBHOST_MSEC(200)

static atomic_bool no_page = true;
_Atomic(atomic_bool *) subhost__guard_mark = &no_page;

static atomic_bool looking;
static _Thread_local bool own_fork;

/* Where CPython's code is, in a build with libpython in it: the program's. Written when the
 * guard opens. */
static uintptr_t code_start, code_end;

/* ---- where CPython's code is ----------------------------------------------------- */

static int find_code(struct dl_phdr_info *info, size_t size, void *inside)
{
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        uintptr_t start = info->dlpi_addr + part->p_vaddr;
        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X) ||
            (uintptr_t)inside - start >= part->p_memsz)
            continue;
        code_start = start;
        code_end = start + part->p_memsz;
        return 1;
    }
    return 0;
}

/* ---- the end of such a child ------------------------------------------------------ */

static char *append(char *at, const char *end, const char *text)
{
    while (*text && at < end)
        *at++ = *text++;
    return at;
}

static char *append_number(char *at, const char *end, unsigned number)
{
    char digits[16], *first = digits + sizeof digits - 1;
    *first = '\0';
    do
        *--first = (char)('0' + number % 10);
    while (number /= 10);
    return append(at, end, first);
}

_Noreturn void subhost__guard_end(void)
{
    char text[512], *at = text;
    const char *end = text + sizeof text - 1;
    char name[17] = "";
    prctl(PR_GET_NAME, name); /* a forked child has its thread's name */
    at = append(at, end, "subhost: a process forked by C code (pid ");
    at = append_number(at, end, (unsigned)getpid());
    at = append(at, end, ", from thread ");
    at = append(at, end, name);
    at =
        append(at, end,
               ") was about to run Python, which cannot work there; use subprocess, "
               "os.posix_spawn() or subhost.open_nursery() with isolation=\"process\"\n");
    /* Neither write() nor exit(): nothing of ours, of libc's or of the program's is to run. A
     * full pipe that nobody reads must not keep the child. */
    struct pollfd fd = {.fd = STDERR_FILENO, .events = POLLOUT};
    struct timespec limit = {.tv_nsec = LINE_TIMEOUT};
    if (syscall(SYS_ppoll, &fd, 1, &limit, NULL, 0) == 1)
        (void)!syscall(SYS_write, STDERR_FILENO, text, (size_t)(at - text));
    _exit(STATUS);
}

void subhost__guard_look(const void *caller)
{
    if ((uintptr_t)caller >= code_start && (uintptr_t)caller < code_end)
        subhost__guard_end();
}

/* A pending call. The parent finds it left over, and goes on. */
static int on_pending_call(void *unused)
{
    (void)unused;
    if (subhost__guard_is_raw())
        subhost__guard_end();
    return 0;
}

/* ---- around a fork ---------------------------------------------------------------- */

static bool is_guarded(void)
{
    return !own_fork && atomic_load(&looking) && !subhost__guard_is_raw();
}

static void before_fork(void)
{
    if (!is_guarded())
        return;
    PyThreadState *tstate = PyThreadState_GetUnchecked();
    if (tstate)
        subhost__channel_pending_call(PyThreadState_GetInterpreter(tstate),
                                      on_pending_call, NULL);
    else if (subhost__thread_self() && !subhost__interpose_reached())
        subhost__channel_ring(subhost__thread_self()->interp); /* better than nothing */
}

static void after_fork_in_parent(void)
{
    struct thread *self = is_guarded() ? subhost__thread_self() : NULL;
    if (!self)
        return;
    int saved_errno = errno;
    char name[17] = "";
    prctl(PR_GET_NAME, name);
    NOTE(self->interp, FORK_BY_C, TRAIL_TEXT(THREAD_NAME, name));
    errno = saved_errno;
}

/* The mark may be cleared already. */
static void after_fork_in_child(void)
{
    if (!atomic_load(&looking))
        return;
    atomic_store(atomic_load(&subhost__guard_mark), own_fork);
    if (own_fork)
        return;
    int saved_errno = errno;
    /* The other ends see the end of this process's parent, and not first that of its copy. */
    subhost__fd_close_all();
    errno = saved_errno;
    subhost__exec_after_fork();
    /* It is no hosted thread any more: the wrapped calls go straight through, and touch no
     * lock of ours. */
    subhost__thread_disown();
}

/* A mark that the kernel clears in every child that has its own memory; NULL: not to be had
 * (Linux before 4.14), and the atfork handler is alone. It is kept for the next host. */
static atomic_bool *wiped_mark(void)
{
    static atomic_bool *mark;
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    if (mark)
        return mark;
    void *page =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return NULL;
    if (madvise(page, size, MADV_WIPEONFORK) != 0) {
        munmap(page, size);
        return NULL;
    }
    return mark = page;
}

static int register_error;

static void register_handlers(void)
{
    register_error =
        pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

int subhost__guard_open(subhost_error **err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_handlers);
    if (register_error)
        return subhost__fail_errno(err, register_error, "pthread_atfork");
    /* From dlsym(): the address of a function may be that of a stub in the program. */
    void *inside = dlsym(RTLD_DEFAULT, "PyEval_RestoreThread");
    if (!inside || !dl_iterate_phdr(find_code, inside))
        return subhost__fail(err, SUBHOST_EPYTHON, "CPython's code was not found");
    atomic_bool *mark = wiped_mark();
    if (mark) {
        atomic_store(mark, true);
        atomic_store(&subhost__guard_mark, mark);
    }
    atomic_store(&looking, true);
    return 0;
}

void subhost__guard_close(void)
{
    atomic_store(&looking, false);
    atomic_store(&subhost__guard_mark, &no_page);
}

void subhost__guard_own_fork(bool on) { own_fork = on; }

void subhost__guard_adopt(void)
{
    own_fork = false;
    atomic_store(atomic_load(&subhost__guard_mark), true);
}
