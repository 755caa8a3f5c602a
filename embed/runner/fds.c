/* A program that a function starts would eat the input that fd 0 is, and what it prints would
 * stand between the lines of output. So a filter has its own descriptors for both. */
#define _GNU_SOURCE
#include "fds.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

/* A private copy; -1: it is closed, or errno says what else. */
static int take_away(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1); }

static bool redirect(int from, int to) { return from == to || dup2(from, to) == to; }

bool fds_take(struct fds *fds)
{
    fds->in = take_away(STDIN_FILENO);
    if (fds->in < 0 && errno != EBADF)
        return false;
    fds->out = take_away(STDOUT_FILENO);
    if (fds->out < 0 && errno != EBADF)
        return false;
    int null = open("/dev/null", O_RDWR);
    bool ok = null >= 0 && redirect(null, STDIN_FILENO);
    if (ok && fcntl(STDERR_FILENO, F_GETFD) < 0)
        ok = redirect(null, STDERR_FILENO);
    ok = ok && redirect(STDERR_FILENO, STDOUT_FILENO);
    if (null > STDERR_FILENO)
        close(null);
    return ok;
}

/* What does not block is waited for here. */
static bool wait_for(int fd, short events)
{
    struct pollfd ready = {.fd = fd, .events = events};
    int error = errno;
    if (error == EINTR)
        return true;
    return (error == EAGAIN || error == EWOULDBLOCK) &&
           (poll(&ready, 1, -1) >= 0 || errno == EINTR);
}

ssize_t fds_read(int fd, void *data, size_t size)
{
    ssize_t n;
    do {
        n = read(fd, data, size);
    } while (n < 0 && wait_for(fd, POLLIN));
    return n;
}

bool fds_write(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && !wait_for(fd, POLLOUT))
            return false;
        if (n > 0) {
            data += n;
            size -= (size_t)n;
        }
    }
    return true;
}
