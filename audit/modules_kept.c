/* Results that outlive the audit: see modules_kept.h. The file is a list of records: a head,
 * and then one for each stage of a module, written when it has ended. What an audit that was
 * killed wrote half is cut off by the next one. */
#define _GNU_SOURCE
#include "modules_kept.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "subhost.h"

#define MAGIC "subhost audit modules"

/* ---- records ---------------------------------------------------------------------- */

bool subhost__next_field(const char *data, size_t size, struct field *field)
{
    size_t at = field->next;
    if (at >= size || data[at] == '\0')
        return false;
    const char *key_end = memchr(data + at, '\0', size - at);
    if (!key_end)
        return false;
    size_t value = (size_t)(key_end - data) + 1;
    const char *value_end =
        value < size ? memchr(data + value, '\0', size - value) : NULL;
    if (!value_end)
        return false;
    field->key = data + at;
    field->value = data + value;
    field->next = (size_t)(value_end - data) + 1;
    return true;
}

size_t subhost__record_length(const char *data, size_t size)
{
    struct field field = {0};
    while (subhost__next_field(data, size, &field)) {
    }
    return field.next < size && field.next > 0 && data[field.next] == '\0'
               ? field.next + 1
               : 0;
}

const char *subhost__record_field(const char *data, size_t size, const char *key)
{
    const char *found = NULL;
    struct field field = {0};
    while (subhost__next_field(data, size, &field))
        if (strcmp(field.key, key) == 0)
            found = field.value;
    return found;
}

/* ---- the file --------------------------------------------------------------------- */

static int fail(const struct keeper *keeper, int error, subhost_error **err)
{
    return subhost__fail_errno(err, error, "the file to resume from, %s", keeper->path);
}

static int write_all(struct keeper *keeper, const char *data, size_t size,
                     subhost_error **err)
{
    for (size_t at = 0; at < size;) {
        ssize_t n = write(keeper->fd, data + at, size - at);
        if (n < 0 && errno != EINTR)
            return fail(keeper, errno, err);
        at += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int read_all(struct keeper *keeper, subhost_error **err)
{
    struct stat status;
    if (fstat(keeper->fd, &status) != 0)
        return fail(keeper, errno, err);
    if (!S_ISREG(status.st_mode))
        return subhost__fail(err, SUBHOST_EINVAL,
                             "the file to resume from, %s, is no regular file",
                             keeper->path);
    keeper->data = malloc((size_t)status.st_size + 1);
    if (!keeper->data)
        return subhost__fail(err, SUBHOST_ENOMEM, "%s: out of memory", keeper->path);
    while (keeper->size < (size_t)status.st_size) {
        ssize_t n = read(keeper->fd, keeper->data + keeper->size,
                         (size_t)status.st_size - keeper->size);
        if (n < 0 && errno != EINTR)
            return fail(keeper, errno, err);
        if (n == 0)
            break;
        keeper->size += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* The head of a file that this subhost, on this CPython, writes; owned. */
static char *make_head(size_t *size)
{
    char *head = NULL;
    int length = asprintf(&head, MAGIC "%c%s%c", 0, subhost_version_details(), 0);
    *size = (size_t)length + 1; /* the record's end is the string's */
    return length < 0 ? NULL : head;
}

/* What is whole stays, if the same subhost has written it; the rest is cut off. */
static int begin(struct keeper *keeper, subhost_error **err)
{
    size_t head_size, whole = 0, length;
    char *head = make_head(&head_size);
    if (!head)
        return subhost__fail(err, SUBHOST_ENOMEM, "out of memory");
    int code = 0;
    bool ours =
        keeper->size >= sizeof MAGIC && memcmp(keeper->data, MAGIC, sizeof MAGIC) == 0;
    if (keeper->size > 0 && !ours)
        code = subhost__fail(
            err, SUBHOST_EINVAL,
            "%s is no file of `audit modules --resume`: name another one", keeper->path);
    bool same = keeper->size >= head_size && memcmp(keeper->data, head, head_size) == 0;
    while (same &&
           (length = subhost__record_length(keeper->data + whole, keeper->size - whole)))
        whole += length;
    if (!code && (ftruncate(keeper->fd, (off_t)whole) != 0 ||
                  lseek(keeper->fd, (off_t)whole, SEEK_SET) < 0))
        code = fail(keeper, errno, err);
    keeper->size = whole;
    if (!code && whole == 0)
        code = write_all(keeper, head, head_size, err);
    free(head);
    return code;
}

/* The children of an audit that was just killed have the file for a moment longer. */
static int lock(int fd)
{
    for (int tries = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; tries++) {
        if (errno != EWOULDBLOCK || tries == 50)
            return -1;
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    return 0;
}

int subhost__kept_open(struct keeper *keeper, const char *path, subhost_error **err)
{
    *keeper = (struct keeper){.fd = -1};
    if (!path)
        return 0;
    keeper->path = strdup(path);
    if (!keeper->path)
        return subhost__fail(err, SUBHOST_ENOMEM, "out of memory");
    keeper->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);
    int code = keeper->fd < 0 ? fail(keeper, errno, err) : 0;
    if (!code && lock(keeper->fd) != 0)
        code = errno == EWOULDBLOCK ? subhost__fail(err, SUBHOST_ESTATE,
                                                    "%s is in use by another audit", path)
                                    : fail(keeper, errno, err);
    if (!code)
        code = read_all(keeper, err);
    if (!code)
        code = begin(keeper, err);
    if (code)
        subhost__kept_close(keeper);
    return code;
}

/* ---- results ---------------------------------------------------------------------- */

bool subhost__kept_next(const struct keeper *keeper, size_t *at, struct kept *view)
{
    size_t length = subhost__record_length(keeper->data + *at, keeper->size - *at);
    *view = (struct kept){keeper->data + *at, length};
    *at += length;
    return length > 0;
}

bool subhost__kept_copy(const struct kept *view, struct kept *result)
{
    *result = (struct kept){malloc(view->size), view->size};
    if (!result->data)
        return false;
    memcpy(result->data, view->data, view->size);
    return true;
}

int subhost__kept_add(struct keeper *keeper, const struct kept *result,
                      subhost_error **err)
{
    return keeper->fd < 0 ? 0 : write_all(keeper, result->data, result->size, err);
}

void subhost__kept_free(struct kept *result)
{
    free(result->data);
    *result = (struct kept){0};
}

void subhost__kept_close(struct keeper *keeper)
{
    if (keeper->fd >= 0)
        close(keeper->fd);
    free(keeper->path);
    free(keeper->data);
    *keeper = (struct keeper){.fd = -1};
}
