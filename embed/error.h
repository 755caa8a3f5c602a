/* The error object: a code and a message to which each caller adds its context. */
#ifndef SUBHOST_ERROR_H
#define SUBHOST_ERROR_H

#include "subhost.h"

#define SUBHOST_PRINTF(f, a) __attribute__((format(printf, f, a)))

/* Makes an error and returns `code`. `err` may be NULL; then only the code is left. */
int subhost__fail(subhost_error **err, int code, const char *format, ...)
    SUBHOST_PRINTF(3, 4);
/* The same with strerror(errnum) behind the message; code SUBHOST_ESYSTEM. */
int subhost__fail_errno(subhost_error **err, int errnum, const char *format, ...)
    SUBHOST_PRINTF(3, 4);
/* Puts "context: " in front of the message on the way up; returns the error's code. */
int subhost__context(subhost_error **err, int code, const char *format, ...)
    SUBHOST_PRINTF(3, 4);

#endif
