/* Standard input, or a FIFO, as the program of several: read once, before they are there, and
 * before there is a host, so that Ctrl-C ends the process as ever. */
#define _GNU_SOURCE
#include "input.h"

#include "clock.h"
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* More to read, or its end; false with errno. */
static bool wait_for_more(int fd, int64_t deadline)
{
    for (;;) {
        int64_t left = deadline ? deadline - clock_now() : -1;
        if (deadline && left <= 0) {
            errno = ETIMEDOUT;
            return false;
        }
        struct pollfd input = {.fd = fd, .events = POLLIN};
        int64_t limit = left / SUBHOST_MSEC(1) + 1;
        int ready = poll(&input, 1, deadline ? (int)(limit < 60000 ? limit : 60000) : -1);
        if (ready > 0 || (ready < 0 && errno != EINTR))
            return ready > 0;
    }
}

/* The end is a null byte; NULL with errno. */
static char *read_all(int fd, int64_t deadline, size_t *size)
{
    char *text = NULL;
    size_t room = 0;
    ssize_t n = 1;
    for (*size = 0; n != 0; *size += n > 0 ? (size_t)n : 0) {
        if (*size + 1 >= room) {
            room = room ? room * 2 : 65536;
            char *more = realloc(text, room);
            if (!more)
                break;
            text = more;
        }
        if (!wait_for_more(fd, deadline))
            break;
        n = read(fd, text + *size, room - *size - 1);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            break;
    }
    if (n == 0) {
        text[*size] = '\0';
        return text;
    }
    int error = errno;
    free(text);
    errno = error;
    return NULL;
}

int input_read(const char *path, int64_t timeout, char **result)
{
    const char *name = path ? path : "standard input";
    size_t size = 0;
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
    char *text =
        fd < 0 ? NULL : read_all(fd, timeout > 0 ? clock_now() + timeout : 0, &size);
    int error = errno;
    if (path && fd >= 0)
        close(fd);
    if (!text && error == ETIMEDOUT)
        return STATUS_TIMED_OUT;
    if (!text) {
        fprintf(stderr, "subhost: can't read %s: %s\n", name, strerror(error));
        return STATUS_CANNOT_RUN;
    }
    if (strlen(text) != size) {
        fprintf(stderr, "subhost: %s is no program: it has a null byte\n", name);
        free(text);
        return STATUS_CANNOT_RUN;
    }
    *result = text;
    return 0;
}
