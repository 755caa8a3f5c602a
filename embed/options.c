/* Structs that a caller fills: see options.h. */
#include "options.h"

#include <string.h>

/* No struct will be as large; what is, was never set. */
#define SIZE_LIMIT 4096

int subhost__options_take(void *to, size_t size, const void *from, const char *name,
                          subhost_error **err)
{
    size_t given;
    if (!from)
        return 0;
    memcpy(&given, from, sizeof given);
    if (given < sizeof given || given > SIZE_LIMIT)
        return subhost__fail(err, SUBHOST_EINVAL,
                             "%s: its size field is %zu; its INIT macro sets it", name,
                             given);
    const char *bytes = from;
    for (size_t i = size; i < given; i++) {
        if (bytes[i])
            return subhost__fail(
                err, SUBHOST_EINVAL,
                "%s: its size field is %zu, and behind the %zu bytes that "
                "subhost %s knows something is set: it needs a newer "
                "libsubhost",
                name, given, size, subhost_version());
    }
    memcpy(to, from, given < size ? given : size);
    memcpy(to, &size, sizeof size);
    return 0;
}
