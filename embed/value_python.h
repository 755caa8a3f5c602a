/* Values as Python objects. GIL held. */
#ifndef SUBHOST_VALUE_PYTHON_H
#define SUBHOST_VALUE_PYTHON_H

#include "interp.h"
#include "value.h"

/* Puts the object into the value: 0, or -1 with an exception set. `plain`: only what None,
 * bool, int, float, str, bytes, list, tuple and dict are, or what is derived from them, and
 * then as those; anything else is a TypeError. Without it, other objects are pickled. */
int subhost__value_from_object(subhost_interp *interp, struct subhost_value *value,
                               PyObject *object, bool plain);
/* A value on its way into an interpreter. Its bytes are its owner's; its buffers are the
 * interpreter's before anything of Python's runs, so that an abandonment takes them back. */
struct exposed_value {
    const unsigned char *data;
    size_t size;
    struct exposure **exposures;
    uint32_t n;
};
/* False: no memory. */
bool subhost__value_expose(subhost_interp *interp, const struct subhost_value *value,
                           struct exposed_value *exposed);
void subhost__value_unexpose(struct exposed_value *exposed);
/* What it stands for: a new reference, or NULL with an exception set. */
PyObject *subhost__value_to_object(subhost_interp *interp,
                                   const struct exposed_value *exposed);

#endif
