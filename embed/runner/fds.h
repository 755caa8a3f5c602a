/* File descriptors of a filter whose own are not to be used by what it calls. */
#ifndef RUNNER_FDS_H
#define RUNNER_FDS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Where input comes from and output goes to; negative: was closed. */
struct fds {
    int in, out;
};

/* Takes standard input and output away from everybody else in this process, and in those that
 * it starts: fd 0 is empty then, and fd 1 is standard error. 0 to 2 are open afterwards, so
 * that nothing else gets these numbers. False: errno says why. Before any other thread. */
bool fds_take(struct fds *fds);

/* As read() and as a write() of all of it, whether or not the descriptor blocks. */
ssize_t fds_read(int fd, void *data, size_t size);
bool fds_write(int fd, const char *data, size_t size);

#endif
