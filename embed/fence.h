/* The fork fence: see fence.c. */
#ifndef SUBHOST_FENCE_H
#define SUBHOST_FENCE_H

#include "error.h"

/* Sets the audit hook, before CPython is initialized; once per process, because CPython
 * forgets it only when it is finalized. Main thread. */
int subhost__fence_install(subhost_error **err);

/* Sets the RuntimeError for a fork by `what` ("os.fork"); returns -1. GIL held. */
int subhost__fence_refuse(const char *what);

#endif
