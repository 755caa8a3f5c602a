/* The main thread's event loop: what it watches. See loop.c. */
#ifndef SUBHOST_LOOP_H
#define SUBHOST_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "subhost.h"

/* Something with a descriptor. Its owner keeps it in place while it is watched, and looks
 * at it again whenever the loop has been round. */
struct source {
    int fd;
    uint32_t watched; /* EPOLLIN, EPOLLOUT; 0: not watched */
    /* Called on the main thread, out of subhost_dispatch(). Must not free a source. */
    void (*ready)(struct source *source, uint32_t events);
};

/* Watches, or changes what is watched; 0 or an errno. Main thread. */
int subhost__loop_watch(subhost_host *host, struct source *source, uint32_t events);
void subhost__loop_unwatch(subhost_host *host, struct source *source);

#endif
