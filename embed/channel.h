/* The pending-call channel: messages into an interpreter from any thread.
 *
 * A bounded ring with many producers and one consumer at a time (the consumer holds the
 * interpreter's GIL), after Dmitry Vyukov's bounded queue: each cell has a sequence
 * number that says whose turn it is. In front of the bell stands an atomic pending bit:
 * one pending call per batch, so CPython's own bounded queue can never be filled by us.
 */
#ifndef SUBHOST_CHANNEL_H
#define SUBHOST_CHANNEL_H

#include <Python.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "subhost.h"

#define CHANNEL_CELLS 1024 /* a power of two */

struct channel_cell {
    atomic_size_t turn;
    void (*function)(void *data);
    void *data;
};

struct channel {
    struct channel_cell cells[CHANNEL_CELLS];
    atomic_size_t tail; /* producers */
    atomic_size_t head; /* the consumer, GIL held */
    atomic_bool bell_pending;
    atomic_ullong drained;

    /* The door: open while the interpreter can take a pending call. */
    pthread_mutex_t door;
    bool open;
    /* The attendant: a thread of the host's that attaches and drains, where the bell
     * cannot be rung or nobody answers it. Under door: */
    pthread_cond_t attendant_cond;
    pthread_t attendant;
    bool attendant_alive, attendant_wanted, attendant_stop, attendant_left;
};

int subhost__channel_init(struct channel *channel);
void subhost__channel_destroy(struct channel *channel);

/* The interpreter can be reached from now on. Driver, GIL held. */
void subhost__channel_open(subhost_interp *interp);
/* No pending call and no attendant after it returns. Driver, no GIL held, blocks up to
 * `deadline`; false: the attendant did not leave, the interpreter cannot be ended. */
bool subhost__channel_close(subhost_interp *interp, int64_t deadline);

/* False: the ring is full. Any thread, GIL or not. */
bool subhost__channel_put(struct channel *channel, void (*function)(void *), void *data);
bool subhost__channel_is_empty(struct channel *channel);

/* Has the interpreter drain its channel soon. Any thread, GIL or not. */
void subhost__channel_ring(subhost_interp *interp);
/* The same by the attendant. Any thread, GIL or not. */
void subhost__channel_call_attendant(subhost_interp *interp);

/* Has CPython itself call `function` once in that interpreter, GIL held, as soon as a thread
 * of it runs bytecode. False: it cannot. Any thread, GIL or not, but the interpreter lives. */
bool subhost__channel_pending_call(PyInterpreterState *interp, int (*function)(void *),
                                   void *data);

/* Runs the messages, the cancel and (on the driver) the signal handlers. GIL held.
 * Returns -1 with an exception set when one is to be raised on this thread. */
int subhost__channel_drain(subhost_interp *interp);

/* The messages that are left when the interpreter ends. Driver, GIL held. */
void subhost__channel_drain_rest(subhost_interp *interp);

/* Finds and checks CPython's private pending-call function; chooses the doorbell and
 * writes its name into host->doorbell_name. Main thread, main interpreter's GIL held. */
void subhost__channel_choose_doorbell(subhost_host *host);

#endif
