/* A wire: frames, with descriptors if need be, over a stream socket to another process of
 * the tree. The main thread's. */
#ifndef SUBHOST_WIRE_H
#define SUBHOST_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loop.h"

#define WIRE_FDS_MAX 8 /* descriptors that travel with one frame */

struct frame {
    uint32_t type;
    uint64_t id; /* of the task or child it is about */
    const unsigned char *data;
    size_t size;
    int fds[WIRE_FDS_MAX]; /* the receiver owns them */
    unsigned n_fds;
};

struct wire_chunk;

struct wire {
    struct source source; /* .fd is the socket, -1: closed */
    bool ended;           /* the peer is gone, or what it sends makes no sense */
    unsigned char *in;
    size_t in_size, in_room, in_at;
    int fds[4 * WIRE_FDS_MAX]; /* received, and not yet taken with their frame */
    unsigned n_fds;
    struct wire_chunk *out, **out_tail;
};

/* Takes the socket over and has the loop watch it. 0 or an errno; then the socket is
 * closed. */
int subhost__wire_open(struct wire *wire, subhost_host *host, int fd);
/* Closes the socket and whatever is queued; may be called twice. */
void subhost__wire_close(struct wire *wire, subhost_host *host);

/* Queues a frame and writes what the socket takes; the rest follows when it can. The
 * descriptors are duplicated, the caller keeps its own. False: out of memory or ended. */
bool subhost__wire_send(struct wire *wire, uint32_t type, uint64_t id, const void *data,
                        size_t size, const int *fds, unsigned n_fds);
/* The next frame that has come in whole. Its data is valid until the next call. */
bool subhost__wire_take(struct wire *wire, struct frame *frame);
/* How many bytes wait for the socket to take them. */
size_t subhost__wire_waiting(const struct wire *wire);
/* True when all that was sent is in the socket. */
bool subhost__wire_flushed(const struct wire *wire);

/* ---- what is inside a frame ------------------------------------------------------- */

struct pack {
    unsigned char *data; /* owned; free() it */
    size_t size, room;
    bool failed; /* out of memory */
};

void subhost__pack_u64(struct pack *pack, uint64_t value);
void subhost__pack_bytes(struct pack *pack, const void *data, size_t size);
/* NULL is kept apart from "". */
void subhost__pack_string(struct pack *pack, const char *string);

struct unpack {
    const unsigned char *data;
    size_t size;
    bool failed; /* asked for more than there is */
};

uint64_t subhost__unpack_u64(struct unpack *unpack);
/* Points into the frame. */
const unsigned char *subhost__unpack_bytes(struct unpack *unpack, size_t *size);
/* A copy to be freed; NULL for NULL, and when it failed. */
char *subhost__unpack_string(struct unpack *unpack);

#endif
