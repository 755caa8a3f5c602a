/* Where the trail goes. */
#define _GNU_SOURCE
#include "audit/trail_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "embed/fd.h"

#define OPEN_FLAGS (O_WRONLY | O_CREAT | O_CLOEXEC)

/* A FIFO that nobody reads is opened for reading, too: open(2) would wait for a reader, and
 * whoever comes later finds what fits into it. Not if somebody does read: with a second
 * reader of ours nobody would see the end of the first. */
static int open_path(const char *path)
{
    int fd = open(path, OPEN_FLAGS | O_NONBLOCK | O_NOCTTY, 0666);
    if (fd < 0 && errno == ENXIO)
        fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    return subhost__fd_take(fd);
}

/* Makes a regular file ours, and empty: two that write into one would destroy both trails. 0 or
 * an errno. Where a file system knows no locks, nothing is guarded. */
static int claim(int fd)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return errno;
    if (!S_ISREG(status.st_mode))
        return 0;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return EWOULDBLOCK;
    return ftruncate(fd, 0) == 0 ? 0 : errno;
}

static bool has_name(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 && status.st_nlink > 0;
}

/* A link (/dev/stdout, say) is not renamed, nor a device. */
static bool can_rotate(const char *path)
{
    struct stat status;
    return lstat(path, &status) == 0 && S_ISREG(status.st_mode);
}

static int prepare_rotation(struct trail_file *file, const struct trail_options *options)
{
    const char *slash = strrchr(options->path, '/');
    char *folder =
        slash ? strndup(options->path, (size_t)(slash - options->path) + 1) : strdup(".");
    file->name = strdup(slash ? slash + 1 : options->path);
    if (folder && file->name)
        file->directory =
            subhost__fd_take(open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC));
    else
        errno = ENOMEM;
    int error = file->directory < 0 ? errno : 0;
    free(folder);
    file->limit = (uint64_t)options->limit;
    file->files = options->files ? options->files : 1;
    return error;
}

int subhost__trail_file_open(struct trail_file *file, const struct trail_options *options,
                             subhost_error **err)
{
    *file = (struct trail_file){.fd = -1, .directory = -1, .part = 1};
    file->fd = open_path(options->path);
    int error = file->fd < 0 ? errno : claim(file->fd);
    file->had_name = !error && has_name(file->fd);
    if (!error && options->limit > 0 && can_rotate(options->path))
        error = prepare_rotation(file, options);
    if (!error)
        return 0;
    subhost__trail_file_close(file);
    if (error == EWOULDBLOCK)
        return subhost__fail(err, SUBHOST_ESTATE,
                             "the trail: %s: another host writes its trail into it; name "
                             "another file",
                             options->path);
    return subhost__fail_errno(err, error, "the trail: %s", options->path);
}

void subhost__trail_file_close(struct trail_file *file)
{
    subhost__fd_close(file->fd);
    subhost__fd_close(file->directory);
    file->fd = file->directory = -1;
    free(file->name);
    file->name = NULL;
}

size_t subhost__trail_file_room(const struct trail_file *file, const char *lines,
                                size_t size)
{
    if (!file->limit || file->size + size <= file->limit)
        return size;
    size_t room = file->limit > file->size ? (size_t)(file->limit - file->size) : 0;
    const char *end = room ? memrchr(lines, '\n', room) : NULL;
    /* The rest of a line, and in any file at least one. */
    if (!end && (file->inside || file->size == file->head))
        end = memchr(lines, '\n', size);
    return end ? (size_t)(end - lines) + 1 : 0;
}

/* NAME or NAME.number; false: too long. */
static bool numbered(char *buffer, size_t size, const char *name, unsigned number)
{
    int n = number ? snprintf(buffer, size, "%s.%u", name, number)
                   : snprintf(buffer, size, "%s", name);
    return n > 0 && (size_t)n < size;
}

static int shift_names(const struct trail_file *file)
{
    char from[256], to[256]; /* NAME_MAX */
    for (unsigned number = file->files; number > 0; number--) {
        if (!numbered(from, sizeof from, file->name, number - 1) ||
            !numbered(to, sizeof to, file->name, number))
            return ENAMETOOLONG;
        if (renameat(file->directory, from, file->directory, to) != 0 &&
            (errno != ENOENT || number == 1))
            return errno;
    }
    return 0;
}

int subhost__trail_file_rotate(struct trail_file *file)
{
    int error = shift_names(file), fd = -1;
    if (!error) {
        fd = subhost__fd_take(openat(file->directory, file->name, OPEN_FLAGS, 0666));
        error = fd < 0 ? errno : claim(fd);
    }
    if (error) {
        subhost__fd_close(fd);
        file->limit = 0; /* on in the file that is open */
        return error;
    }
    subhost__fd_close(file->fd);
    file->fd = fd;
    file->size = file->head = 0;
    file->part++;
    return 0;
}

void subhost__trail_file_begun(struct trail_file *file) { file->head = file->size; }

ptrdiff_t subhost__trail_file_write(struct trail_file *file, const char *text,
                                    size_t size)
{
    ptrdiff_t n = write(file->fd, text, size);
    if (n > 0) {
        file->size += (uint64_t)n;
        file->inside = text[n - 1] != '\n';
    }
    return n;
}

bool subhost__trail_file_was_removed(const struct trail_file *file)
{
    return file->had_name && !has_name(file->fd);
}
