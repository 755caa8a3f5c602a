/* Frames over a stream socket: see wire.h.
 *
 * A frame is a header and its data. Descriptors are sent with the header's first byte, so
 * they arrive before the frame is complete (unix(7): ancillary data is a barrier). */
#define _GNU_SOURCE
#include "wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "fd.h"
#include "interp.h"

/* A frame larger than any memory is a peer that has lost its senses. */
#define FRAME_SIZE_MAX (UINT64_C(1) << 40)
#define READ_SIZE ((size_t)64 << 10)
/* How much is read in one round of the loop: others want their turn. */
#define ROUND_SIZE ((size_t)4 << 20)

struct header {
    uint32_t type;
    uint32_t n_fds;
    uint64_t id;
    uint64_t size;
};

struct wire_chunk {
    struct wire_chunk *next;
    size_t size, at;
    int fds[WIRE_FDS_MAX]; /* ours until they are sent */
    unsigned n_fds;
    unsigned char bytes[];
};

static void free_chunk(struct wire_chunk *chunk)
{
    for (unsigned i = 0; i < chunk->n_fds; i++)
        subhost__fd_close(chunk->fds[i]);
    free(chunk);
}

/* ---- writing -------------------------------------------------------------------- */

static ssize_t send_some(int fd, const struct wire_chunk *chunk)
{
    char control[CMSG_SPACE(sizeof chunk->fds)];
    struct iovec iov = {(void *)(chunk->bytes + chunk->at), chunk->size - chunk->at};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (chunk->n_fds > 0) {
        size_t size = chunk->n_fds * sizeof *chunk->fds;
        memset(control, 0, sizeof control);
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(size);
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(size);
        memcpy(CMSG_DATA(cmsg), chunk->fds, size);
    }
    return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Full, or the kernel has no room for it at present: later. */
static bool is_passing(int error)
{
    if (error != ENOBUFS && error != ENOMEM && error != ETOOMANYREFS)
        return error == EAGAIN || error == EWOULDBLOCK;
    /* The socket is called writable all the same, so the loop comes again at once. */
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return true;
}

static void write_out(struct wire *wire)
{
    while (wire->out && !wire->ended) {
        struct wire_chunk *chunk = wire->out;
        ssize_t n = send_some(wire->source.fd, chunk);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            /* It is gone: what the peer has sent before it left is still to be read, and
             * then the end of file says it. */
            if (!is_passing(errno)) {
                while ((chunk = wire->out)) {
                    wire->out = chunk->next;
                    free_chunk(chunk);
                }
                wire->out_tail = &wire->out;
            }
            return;
        }
        for (unsigned i = 0; i < chunk->n_fds; i++)
            subhost__fd_close(chunk->fds[i]);
        chunk->n_fds = 0;
        chunk->at += (size_t)n;
        if (chunk->at == chunk->size) {
            wire->out = chunk->next;
            if (!wire->out)
                wire->out_tail = &wire->out;
            free_chunk(chunk);
        }
    }
}

bool subhost__wire_flushed(const struct wire *wire) { return !wire->out || wire->ended; }

size_t subhost__wire_waiting(const struct wire *wire)
{
    size_t size = 0;
    for (const struct wire_chunk *chunk = wire->out; chunk; chunk = chunk->next)
        size += chunk->size - chunk->at;
    return size;
}

static void watch_as_needed(struct wire *wire)
{
    uint32_t events = EPOLLIN | (wire->out ? EPOLLOUT : 0);
    if (wire->source.watched && wire->source.watched != events)
        subhost__loop_watch(subhost__host(), &wire->source, events);
}

bool subhost__wire_send(struct wire *wire, uint32_t type, uint64_t id, const void *data,
                        size_t size, const int *fds, unsigned n_fds)
{
    struct header header = {.type = type, .n_fds = n_fds, .id = id, .size = size};
    if (wire->ended || wire->source.fd < 0 || n_fds > WIRE_FDS_MAX) {
        errno = EPIPE;
        return false;
    }
    struct wire_chunk *chunk = malloc(sizeof *chunk + sizeof header + size);
    if (!chunk) {
        errno = ENOMEM;
        return false;
    }
    *chunk = (struct wire_chunk){.size = sizeof header + size};
    memcpy(chunk->bytes, &header, sizeof header);
    if (size > 0)
        memcpy(chunk->bytes + sizeof header, data, size);
    for (; chunk->n_fds < n_fds; chunk->n_fds++) {
        int copy = subhost__fd_dup(fds[chunk->n_fds]);
        if (copy < 0) {
            int error = errno;
            free_chunk(chunk);
            errno = error;
            return false;
        }
        chunk->fds[chunk->n_fds] = copy;
    }
    *wire->out_tail = chunk;
    wire->out_tail = &chunk->next;
    write_out(wire);
    watch_as_needed(wire);
    return true;
}

/* ---- reading -------------------------------------------------------------------- */

static bool make_room(struct wire *wire)
{
    if (wire->in_at > 0) {
        memmove(wire->in, wire->in + wire->in_at, wire->in_size - wire->in_at);
        wire->in_size -= wire->in_at;
        wire->in_at = 0;
    }
    if (wire->in_room - wire->in_size >= READ_SIZE)
        return true;
    size_t room = wire->in_room ? 2 * wire->in_room : READ_SIZE;
    while (room - wire->in_size < READ_SIZE)
        room *= 2;
    unsigned char *in = realloc(wire->in, room);
    if (!in)
        return false;
    wire->in = in;
    wire->in_room = room;
    return true;
}

static void keep_fds(struct wire *wire, struct msghdr *message)
{
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(message); cmsg;
         cmsg = CMSG_NXTHDR(message, cmsg)) {
        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof fd, sizeof fd);
            fd = subhost__fd_take(fd);
            if (wire->n_fds < ARRAY_LENGTH(wire->fds)) {
                wire->fds[wire->n_fds++] = fd;
            } else {
                subhost__fd_close(fd);
                wire->ended = true;
            }
        }
    }
}

/* False: nothing more for now. */
static bool receive(struct wire *wire)
{
    char control[CMSG_SPACE(WIRE_FDS_MAX * sizeof(int))];
    if (!make_room(wire)) {
        wire->ended = true; /* out of memory: the peer sees it as our end */
        return false;
    }
    struct iovec iov = {wire->in + wire->in_size, wire->in_room - wire->in_size};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    ssize_t n = recvmsg(wire->source.fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return errno == EINTR;
    if (n == 0) {
        wire->ended = true;
        return false;
    }
    keep_fds(wire, &message);
    wire->in_size += (size_t)n;
    return (size_t)n == iov.iov_len && wire->in_size < ROUND_SIZE;
}

static void wire_ready(struct source *source, uint32_t events)
{
    struct wire *wire = (struct wire *)source; /* its first member */
    if (events & EPOLLOUT)
        write_out(wire);
    while (!wire->ended && receive(wire))
        ;
    if (wire->ended)
        subhost__loop_unwatch(subhost__host(),
                              source); /* it would report that for ever */
    else
        watch_as_needed(wire);
}

bool subhost__wire_take(struct wire *wire, struct frame *frame)
{
    struct header header;
    size_t left = wire->in_size - wire->in_at;
    if (left < sizeof header)
        return false;
    memcpy(&header, wire->in + wire->in_at, sizeof header);
    if (header.size > FRAME_SIZE_MAX || header.n_fds > WIRE_FDS_MAX) {
        wire->ended = true;
        wire->in_at = wire->in_size;
        return false;
    }
    if (left - sizeof header < header.size || wire->n_fds < header.n_fds)
        return false;
    *frame = (struct frame){.type = header.type,
                            .id = header.id,
                            .data = wire->in + wire->in_at + sizeof header,
                            .size = (size_t)header.size,
                            .n_fds = header.n_fds};
    memcpy(frame->fds, wire->fds, header.n_fds * sizeof *frame->fds);
    wire->n_fds -= header.n_fds;
    memmove(wire->fds, wire->fds + header.n_fds, wire->n_fds * sizeof *wire->fds);
    wire->in_at += sizeof header + (size_t)header.size;
    return true;
}

/* ---- opening and closing ---------------------------------------------------------- */

int subhost__wire_open(struct wire *wire, subhost_host *host, int fd)
{
    *wire = (struct wire){.source = {.fd = fd, .ready = wire_ready}};
    wire->out_tail = &wire->out;
    int error = subhost__loop_watch(host, &wire->source, EPOLLIN);
    if (error) {
        subhost__fd_close(fd);
        wire->source.fd = -1;
        wire->ended = true;
    }
    return error;
}

void subhost__wire_close(struct wire *wire, subhost_host *host)
{
    if (wire->source.fd >= 0) {
        subhost__loop_unwatch(host, &wire->source);
        subhost__fd_close(wire->source.fd);
    }
    wire->source.fd = -1;
    wire->ended = true;
    while (wire->n_fds > 0)
        subhost__fd_close(wire->fds[--wire->n_fds]);
    struct wire_chunk *chunk;
    while ((chunk = wire->out)) {
        wire->out = chunk->next;
        free_chunk(chunk);
    }
    wire->out_tail = &wire->out;
    free(wire->in);
    wire->in = NULL;
    wire->in_size = wire->in_room = wire->in_at = 0;
}

/* ---- packing ---------------------------------------------------------------------- */

static void append(struct pack *pack, const void *data, size_t size)
{
    if (pack->failed)
        return;
    if (pack->room - pack->size < size) {
        size_t room = 2 * (pack->room + size) + 64;
        unsigned char *grown = realloc(pack->data, room);
        if (!grown) {
            pack->failed = true;
            return;
        }
        pack->data = grown;
        pack->room = room;
    }
    if (size > 0)
        memcpy(pack->data + pack->size, data, size);
    pack->size += size;
}

void subhost__pack_u64(struct pack *pack, uint64_t value)
{
    append(pack, &value, sizeof value);
}

void subhost__pack_bytes(struct pack *pack, const void *data, size_t size)
{
    subhost__pack_u64(pack, size);
    append(pack, data, size);
}

void subhost__pack_string(struct pack *pack, const char *string)
{
    if (string)
        subhost__pack_bytes(pack, string, strlen(string));
    else
        subhost__pack_u64(pack, UINT64_MAX);
}

uint64_t subhost__unpack_u64(struct unpack *unpack)
{
    uint64_t value = 0;
    if (unpack->failed || unpack->size < sizeof value) { /* what follows makes no sense */
        unpack->failed = true;
        return 0;
    }
    memcpy(&value, unpack->data, sizeof value);
    unpack->data += sizeof value;
    unpack->size -= sizeof value;
    return value;
}

const unsigned char *subhost__unpack_bytes(struct unpack *unpack, size_t *size)
{
    uint64_t length = subhost__unpack_u64(unpack);
    const unsigned char *data = unpack->data;
    *size = 0;
    if (unpack->failed || length > unpack->size) {
        unpack->failed = unpack->failed || length != UINT64_MAX;
        return NULL;
    }
    unpack->data += length;
    unpack->size -= (size_t)length;
    *size = (size_t)length;
    return data;
}

char *subhost__unpack_string(struct unpack *unpack)
{
    size_t size;
    const unsigned char *data = subhost__unpack_bytes(unpack, &size);
    char *string = data ? strndup((const char *)data, size) : NULL;
    /* Else it would pass for one that was not sent. */
    if (data && !string)
        unpack->failed = true;
    return string;
}
