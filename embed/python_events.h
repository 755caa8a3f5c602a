/* Python's own audit events in the trail: see python_events.c. */
#ifndef SUBHOST_PYTHON_EVENTS_H
#define SUBHOST_PYTHON_EVENTS_H

#include "interp.h"

/* Sets the hook, if the options select any events. Main thread, GIL held, before or after
 * CPython's initialization. */
int subhost__python_events_install(subhost_host *host, subhost_error **err);
/* The selection as a list for the trail; "" when there is none. */
const char *subhost__python_events_list(void);
/* From now on events are noted: the trail has its first line. */
void subhost__python_events_begin(void);
/* No more; the host goes. */
void subhost__python_events_end(void);

#endif
