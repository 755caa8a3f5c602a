/* Structs that a caller fills, of whatever version of the header. */
#ifndef SUBHOST_OPTIONS_H
#define SUBHOST_OPTIONS_H

#include <stddef.h>

#include "error.h"

/* Copies the caller's struct over the defaults in `to`, as far as it goes: an older one is
 * shorter. What a newer one has beyond ours must be zero, its default. NULL: all defaults.
 * 0, or SUBHOST_EINVAL with the struct's name. Both begin with their size. */
int subhost__options_take(void *to, size_t size, const void *from, const char *name,
                          subhost_error **err);

#endif
