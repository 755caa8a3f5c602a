/* The journal of `subhost map --resume FILE`: two lines of head, then each line of output, in
 * front of the output itself. So it has all that the output has, and a run that begins again
 * knows what was done, and where the output ended:
 *
 *   {"subhost map": 1, ...}     what run it is of
 *   {"device": ..., ...}        where the output is, if it is a file
 *   {"index": 0, "ok": true, ...
 *
 * The output is continued where it ends when it is the same file (>> FILE, or the same > FILE
 * after it was emptied); anything else (a pipe, another file) gets all of it.
 *
 * A SIGKILL loses nothing that was written. For a crash of the machine it is brought to the
 * disk once a second. */
#define _GNU_SOURCE
#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fds.h"

#define SYNC_SECONDS 1
#define CHUNK ((size_t)256 << 10)

struct journal {
    int fd;
    off_t place; /* of the line that says where the output is */
    off_t body, end;
    bool unordered;
    uint64_t count, failed;
    unsigned char *seen; /* unordered: a bit for each index */
    uint64_t n_seen;     /* bytes */
    time_t synced_at;
};

static time_t seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

/* ---- what is in it --------------------------------------------------------------- */

static bool mark(struct journal *journal, uint64_t index)
{
    uint64_t byte = index / 8;
    if (byte >= journal->n_seen) {
        uint64_t n = journal->n_seen ? journal->n_seen : 4096;
        while (n <= byte)
            n *= 2;
        unsigned char *seen = realloc(journal->seen, n);
        if (!seen)
            return false;
        memset(seen + journal->n_seen, 0, n - journal->n_seen);
        journal->seen = seen;
        journal->n_seen = n;
    }
    journal->seen[byte] |= (unsigned char)(1u << (index % 8));
    return true;
}

bool journal_has(const struct journal *journal, uint64_t index)
{
    if (!journal->unordered)
        return index < journal->count;
    return index / 8 < journal->n_seen &&
           (journal->seen[index / 8] & (1u << (index % 8)));
}

uint64_t journal_count(const struct journal *journal, uint64_t *failed)
{
    *failed = journal->failed;
    return journal->count;
}

static bool take_line(struct journal *journal, const char *line)
{
    unsigned long long index;
    char ok[8];
    if (sscanf(line, "{\"index\": %llu, \"ok\": %5[a-z]", &index, ok) != 2 ||
        (!journal->unordered && index != journal->count))
        return false;
    if (journal->unordered && (index > UINT64_MAX / 16 || !mark(journal, index)))
        return false;
    journal->count++;
    journal->failed += strcmp(ok, "true") != 0;
    return true;
}

/* Reads it; a last line without an end is cut off. */
static bool scan(struct journal *journal, const char *path, const char *identity,
                 struct text *error)
{
    FILE *file = fdopen(dup(journal->fd), "r");
    char *line = NULL;
    size_t room = 0;
    ssize_t n = file ? getline(&line, &room, file) : -1;
    bool ok = n > 0 && line[n - 1] == '\n' && strlen(identity) == (size_t)n - 1 &&
              memcmp(line, identity, (size_t)n - 1) == 0;
    if (!ok)
        text_format(
            error,
            "%s is the journal of another run, or none at all: name another file, "
            "or remove it",
            path);
    journal->place = n;
    off_t at = n;
    n = ok ? getline(&line, &room, file) : -1;
    journal->body = journal->end = at + (n > 0 ? n : 0);
    if (ok && (n <= 0 || line[n - 1] != '\n')) {
        text_format(error, "%s: its head is not complete: remove it", path);
        ok = false;
    }
    while (ok && (n = getline(&line, &room, file)) > 0 && line[n - 1] == '\n') {
        if (!take_line(journal, line)) {
            text_format(error, "%s: what stands at byte %lld is no result of its run",
                        path, (long long)journal->end);
            ok = false;
        }
        journal->end += n;
    }
    free(line);
    if (file)
        fclose(file);
    if (ok && ftruncate(journal->fd, journal->end) < 0) {
        text_format(error, "%s: %s", path, strerror(errno));
        ok = false;
    }
    return ok && lseek(journal->fd, journal->end, SEEK_SET) >= 0;
}

/* ---- opening --------------------------------------------------------------------- */

struct place {
    unsigned long long device, inode, offset;
};

#define PLACE_FORMAT "{\"device\": %20llu, \"inode\": %20llu, \"offset\": %20llu}\n"

/* Of always the same size: it is written again where it stands. */
static int print_place(char *line, size_t size, const struct place *place)
{
    return snprintf(line, size, PLACE_FORMAT, place->device, place->inode, place->offset);
}

static bool note_place(struct journal *journal, const struct place *place)
{
    char line[160];
    int n = print_place(line, sizeof line, place);
    return pwrite(journal->fd, line, (size_t)n, journal->place) == n;
}

static struct place read_place(struct journal *journal)
{
    struct place place = {0};
    char line[160] = "";
    if (pread(journal->fd, line, sizeof line - 1, journal->place) < 0 ||
        sscanf(line, PLACE_FORMAT, &place.device, &place.inode, &place.offset) != 3)
        place = (struct place){0};
    return place;
}

/* The first two lines of a new one. */
static struct text make_head(const char *identity)
{
    const struct place nowhere = {0};
    char line[160];
    struct text head = {0};
    print_place(line, sizeof line, &nowhere);
    text_add_string(&head, identity);
    text_add_string(&head, "\n");
    text_add_string(&head, line);
    return head;
}

/* Nothing is in it but a part of its head: its run was killed just then, or the disk full. */
static bool is_unbegun(struct journal *journal, const struct text *head, off_t size)
{
    char *there = size < (off_t)head->size ? malloc((size_t)size + 1) : NULL;
    bool is = there && pread(journal->fd, there, (size_t)size, 0) == size &&
              memcmp(there, head->data, (size_t)size) == 0;
    free(there);
    return is;
}

static bool begin(struct journal *journal, const char *path, const struct text *head,
                  struct text *error)
{
    const char *newline = memchr(head->data, '\n', head->size);
    journal->place = newline - head->data + 1;
    journal->body = journal->end = (off_t)head->size;
    bool ok = ftruncate(journal->fd, 0) == 0 &&
              fds_write(journal->fd, head->data, head->size) && fsync(journal->fd) == 0;
    if (!ok)
        text_format(error, "%s: %s", path, strerror(errno));
    return ok;
}

/* What is there, or from the beginning. */
static bool enter(struct journal *journal, const char *path, const char *identity,
                  off_t size, struct text *error)
{
    struct text head = make_head(identity);
    bool ok;
    if (head.failed) {
        text_add_string(error, "out of memory");
        ok = false;
    } else if (is_unbegun(journal, &head, size)) {
        ok = begin(journal, path, &head, error);
    } else {
        ok = scan(journal, path, identity, error);
    }
    text_free(&head);
    return ok;
}

struct journal *journal_open(const char *path, const char *identity, bool unordered,
                             struct text *error)
{
    struct journal *journal = calloc(1, sizeof *journal);
    struct stat st;
    if (!journal) {
        text_add_string(error, "out of memory");
        return NULL;
    }
    journal->unordered = unordered;
    journal->synced_at = seconds();
    journal->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (journal->fd < 0 || fstat(journal->fd, &st) < 0) {
        text_format(error, "%s: %s", path, strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        text_format(error, "%s is not a regular file", path);
    } else if (flock(journal->fd, LOCK_EX | LOCK_NB) < 0) {
        text_format(error, "%s: another run writes it", path);
    } else if (enter(journal, path, identity, st.st_size, error)) {
        return journal;
    }
    journal_close(journal);
    return NULL;
}

/* ---- the output that there is ---------------------------------------------------- */

static bool copy(struct journal *journal, off_t from, int fd)
{
    char *buffer = malloc(CHUNK);
    bool ok = buffer;
    while (ok && from < journal->end) {
        size_t wanted = (size_t)(journal->end - from);
        ssize_t n = pread(journal->fd, buffer, wanted < CHUNK ? wanted : CHUNK, from);
        ok = n > 0 && fds_write(fd, buffer, (size_t)n);
        from += n;
    }
    int error = errno;
    free(buffer);
    errno = error;
    return ok;
}

/* Whether the file ends with what the journal has there. */
static bool is_continued(struct journal *journal, int fd, off_t offset, off_t size)
{
    char ours[4096], theirs[4096];
    off_t n = size < (off_t)sizeof ours ? size : (off_t)sizeof ours;
    /* It may be open for writing only. */
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int readable = open(path, O_RDONLY | O_CLOEXEC);
    if (readable < 0)
        return true;
    bool same = pread(journal->fd, ours, (size_t)n, journal->body + size - n) == n &&
                pread(readable, theirs, (size_t)n, offset + size - n) == n &&
                memcmp(ours, theirs, (size_t)n) == 0;
    close(readable);
    return same;
}

bool journal_replay(struct journal *journal, int fd, struct text *error)
{
    struct stat st;
    struct place was = read_place(journal), is = {0};
    off_t done = 0;
    errno = 0;
    if (fstat(fd, &st) < 0) {
        text_format(error, "standard output: %s", strerror(errno));
        return false;
    }
    if (S_ISREG(st.st_mode)) {
        is = (struct place){.device = st.st_dev, .inode = st.st_ino};
        bool same = was.inode == is.inode && was.device == is.device &&
                    st.st_size >= (off_t)was.offset;
        is.offset = same ? was.offset : (unsigned long long)st.st_size;
        done = same ? st.st_size - (off_t)was.offset : 0;
        if (done > journal->end - journal->body ||
            !is_continued(journal, fd, (off_t)is.offset, done)) {
            text_add_string(error,
                            "the output file has been changed since the run was stopped: "
                            "empty it, and all of it is written again");
            return false;
        }
        if (lseek(fd, 0, SEEK_END) < 0) {
            text_format(error, "standard output: %s", strerror(errno));
            return false;
        }
    }
    if (!note_place(journal, &is)) {
        text_format(error, "the journal: %s", strerror(errno));
        return false;
    }
    if (copy(journal, journal->body + done, fd))
        return true;
    int problem = errno;
    text_format(error, "standard output: %s", strerror(problem));
    errno = problem;
    return false;
}

/* ---- adding ---------------------------------------------------------------------- */

bool journal_add(struct journal *journal, const char *data, size_t size)
{
    if (!fds_write(journal->fd, data, size))
        return false;
    journal->end += (off_t)size;
    time_t now = seconds();
    if (now - journal->synced_at < SYNC_SECONDS)
        return true;
    journal->synced_at = now;
    return fdatasync(journal->fd) == 0;
}

bool journal_close(struct journal *journal)
{
    if (!journal)
        return true;
    bool ok = journal->fd < 0 || fdatasync(journal->fd) == 0;
    int error = errno;
    if (journal->fd >= 0)
        close(journal->fd);
    free(journal->seen);
    free(journal);
    errno = error;
    return ok;
}
