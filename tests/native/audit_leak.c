/* Loses 256 KiB at each import: 1 MiB where four interpreters import it. */
#include "audit_case.h"

#include <stdlib.h>
#include <string.h>

#define LOST (256 * 1024)

static void *volatile lost;

static int prepare(PyObject *module)
{
    (void)module;
    void *memory = malloc(LOST);
    if (!memory)
        return -1;
    memset(memory, 'x', LOST); /* only then it is resident */
    lost = memory;
    return 0;
}

MODULE(audit_leak, prepare, CLAIMS_OWN_GIL)
