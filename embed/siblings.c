/* The way out of the sibling trap: in the child, before CPython looks, the siblings are
 * taken off the runtime's list of interpreters. Their memory stays behind, as the stacks of
 * dead threads do after any fork.
 *
 * Where the list is, the runtime itself says: `_PyRuntime` begins with the offsets that
 * debuggers read (a cookie, then words of 64 bits; CPython's Include/internal
 * pycore_debug_offsets.h, PEP 768's remote debugging relies on them). Nothing is guessed:
 * what they lead to is compared with PyInterpreterState_Head() and _Next(), when the host
 * starts and before each fork; where it differs, forks with siblings are refused. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <dlfcn.h>
#include <stdint.h>
#include <string.h>

#include "siblings.h"

/* Words of the debug offsets, the cookie being the first. The same in 3.13, 3.14, 3.15. */
enum {
    WORD_RUNTIME_SIZE = 3,
    WORD_INTERPRETERS_HEAD = 5,
    WORD_INTERPRETER_SIZE = 6,
    WORD_INTERPRETER_NEXT = 8,
};

static PyInterpreterState **head; /* in the runtime; NULL: not known */
static size_t next_offset;
static PyInterpreterState *main_interp;
static const char *failure;

static PyInterpreterState **next_of(PyInterpreterState *interp)
{
    return (PyInterpreterState **)((char *)interp + next_offset);
}

/* The whole list, link by link. */
static bool agrees(void)
{
    PyInterpreterState *interp = PyInterpreterState_Head();
    if (*head != interp)
        return false;
    for (; interp; interp = PyInterpreterState_Next(interp))
        if (*next_of(interp) != PyInterpreterState_Next(interp))
            return false;
    return true;
}

static const char *find(void)
{
    char *runtime = dlsym(RTLD_DEFAULT, "_PyRuntime");
    if (!runtime)
        return "_PyRuntime is missing";
    if (memcmp(runtime, "xdebugpy", 8) != 0)
        return "_PyRuntime does not begin with the debug offsets";
    uint64_t words[WORD_INTERPRETER_NEXT + 1];
    memcpy(words, runtime, sizeof words);
    uint64_t at = words[WORD_INTERPRETERS_HEAD], next = words[WORD_INTERPRETER_NEXT];
    if (at % sizeof(void *) || at + sizeof(void *) > words[WORD_RUNTIME_SIZE] ||
        next % sizeof(void *) || next + sizeof(void *) > words[WORD_INTERPRETER_SIZE])
        return "the debug offsets are out of range";
    head = (PyInterpreterState **)(runtime + at);
    next_offset = (size_t)next;
    main_interp = PyInterpreterState_Main();
    return agrees() ? NULL : "the debug offsets do not lead to the interpreters";
}

const char *subhost__siblings_check(bool forbid)
{
    head = NULL;
    failure = forbid ? "asked for" : find();
    return failure;
}

const char *subhost__siblings_ready(void)
{
    PyInterpreterState *first = PyInterpreterState_Head();
    bool alone = first == PyInterpreterState_Main() && !PyInterpreterState_Next(first);
    if (alone)
        return NULL;
    if (failure)
        return failure;
    return agrees() ? NULL : "the debug offsets do not lead to the interpreters";
}

void subhost__siblings_detach(void)
{
    if (failure || !head)
        return; /* there are none: subhost__siblings_ready() */
    *head = main_interp;
    *next_of(main_interp) = NULL;
}
