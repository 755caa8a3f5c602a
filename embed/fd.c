/* The host's own descriptors. A program that closes what it does not know
 * (os.closerange(3, 4096)) must not find them open (interpose.c), and a program that was
 * started with closed standard streams must not find one of them in their place. */
#define _GNU_SOURCE
#include "fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HIDDEN_MAX 65536 /* beyond it they are not hidden: nobody counts that far */
#define FIRST_NUMBER 512

static _Atomic uint64_t hidden[HIDDEN_MAX / 64];

static uint64_t bit_of(int fd) { return UINT64_C(1) << (fd % 64); }

bool subhost__fd_is_hidden(int fd)
{
    return fd >= 0 && fd < HIDDEN_MAX && (atomic_load(&hidden[fd / 64]) & bit_of(fd));
}

static int hide(int fd)
{
    if (fd >= 0 && fd < HIDDEN_MAX)
        atomic_fetch_or(&hidden[fd / 64], bit_of(fd));
    return fd;
}

/* From here on the host's have their numbers. Low ones are the program's: it may say
 * dup2(file, 3), and select() knows 1024. */
static int first_number(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= 2 * FIRST_NUMBER)
        return FIRST_NUMBER;
    return (int)limit.rlim_cur / 2;
}

static int copy_high(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, first_number()); }

static int copy_anywhere(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1); }

int subhost__fd_dup(int fd)
{
    int copy = copy_high(fd);
    return hide(copy < 0 ? copy_anywhere(fd) : copy);
}

int subhost__fd_take(int fd)
{
    if (fd < 0)
        return fd;
    int moved = copy_high(fd);
    if (moved < 0 && fd > STDERR_FILENO)
        return hide(fd); /* there is no room up there */
    if (moved < 0)
        moved = copy_anywhere(fd);
    int error = errno;
    close(fd);
    errno = error;
    return hide(moved);
}

void subhost__fd_close(int fd)
{
    if (fd < 0)
        return;
    int error = errno;
    if (fd < HIDDEN_MAX)
        atomic_fetch_and(&hidden[fd / 64], ~bit_of(fd));
    close(fd);
    errno = error;
}

void subhost__fd_close_all(void)
{
    for (unsigned i = 0; i < HIDDEN_MAX / 64; i++) {
        uint64_t set = atomic_load_explicit(&hidden[i], memory_order_relaxed);
        if (set) /* else the page stays the parent's as well */
            atomic_store_explicit(&hidden[i], 0, memory_order_relaxed);
        for (; set; set &= set - 1)
            syscall(SYS_close, (int)(i * 64) + __builtin_ctzll(set));
    }
}

void subhost__fd_forget_all(void)
{
    for (unsigned i = 0; i < HIDDEN_MAX / 64; i++)
        atomic_store_explicit(&hidden[i], 0, memory_order_relaxed);
}
