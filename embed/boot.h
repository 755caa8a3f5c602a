/* CPython's start: see boot.c. */
#ifndef SUBHOST_BOOT_H
#define SUBHOST_BOOT_H

#include "subhost.h"

/* Imports site in the current interpreter, as `python` would have at its start. 0, or -1
 * with an exception set. GIL held. */
int subhost__boot_site(void);

/* The opposite, where it was imported: as after python -S. */
int subhost__boot_without_site(subhost_interp *interp);

/* The python that sys.executable names: the one that is given (NULL: none), the virtual
 * environment's, or the one of the build. Owned; NULL: out of memory. */
char *subhost__boot_executable(const char *given);

#endif
