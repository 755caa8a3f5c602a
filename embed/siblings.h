/* The sibling trap: PyOS_AfterFork_Child() kills the child of a fork while any
 * subinterpreter is alive (cpython#139759, #101437). See siblings.c. */
#ifndef SUBHOST_SIBLINGS_H
#define SUBHOST_SIBLINGS_H

#include <stdbool.h>

/* Why siblings cannot be taken off the runtime's list in this process; NULL: they can.
 * `forbid`: say that it was asked for. Main thread, once, main interpreter's GIL held. */
const char *subhost__siblings_check(bool forbid);

/* In the parent, before the fork: NULL when the fork may be made, else why not. Holds while
 * no interpreter is created or ended. Main interpreter's GIL held. */
const char *subhost__siblings_ready(void);

/* In the child, after fork() and before PyOS_AfterFork_Child(): the main interpreter is the
 * only one. Async-signal-safe. */
void subhost__siblings_detach(void);

#endif
