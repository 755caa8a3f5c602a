/* `subhost audit modules`: what extension modules claim, and what they then stand.
 *
 * modules.c        finds them, runs the stages over all of them, keeps what is done (--resume)
 * modules_child.c  a stage, in a throwaway child with a plain CPython, as `python` has it
 * modules_claim.c  what a module's slots say
 * modules_shared.c what interpreters that live at the same time have in common
 * python/modules_find.py    in a child: the names that were given, as modules
 * python/modules_load.py    in each interpreter of a child: imports, and says what came of it
 * python/modules.py         the verdicts
 *
 * A stage is a child of its own, so that one that ends it leaves the others' results. */
#ifndef SUBHOST_MODULES_H
#define SUBHOST_MODULES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "embed/error.h"

/* One list, in the order in which they run: stage; its interpreters: GIL, how many at once,
 * rounds; what stage must have gone well before. */
#define MODULE_STAGES(X)                                                                 \
    X(STAGE_MAIN, "main", false, 0, 0, STAGE_NONE)     /* the main interpreter */        \
    X(STAGE_CLAIM, "claim", false, 0, 0, STAGE_NONE)   /* only where main told none */   \
    X(STAGE_OWN, "own", true, 1, 2, STAGE_MAIN)        /* a GIL of its own; again */     \
    X(STAGE_SHARED, "shared", false, 1, 2, STAGE_MAIN) /* the main one's; again */       \
    X(STAGE_MANY, "many", true, 4, 20, STAGE_OWN)      /* at once, again and again */

enum module_stage {
    STAGE_NONE = -1,
#define STAGE_ENUM(name, text, own, at_once, rounds, needs) name,
    MODULE_STAGES(STAGE_ENUM)
#undef STAGE_ENUM
        STAGES
};

/* A module to be examined; the strings belong to modules.c. */
struct module {
    const char *name; /* full; "": no module, for comparison */
    const char *root; /* goes in front of sys.path; "": nothing */
    const char *path; /* the file; "": builtin, or no extension module */
    const char *hook; /* what its entry points end with: PyInit##hook; "": none */
};

/* The child: see throwaway.h. `data` is a struct module_task. */
struct module_task {
    const struct module *module;
    enum module_stage stage;
    int64_t limit;
};
void subhost__module_child(void *data, int fd);

/* The child that finds the modules; `data` is a struct module_search. */
struct module_search {
    int count;
    const char *const *names;
    int out; /* gets the records */
};
void subhost__module_finder(void *data, int fd);

/* In a child: a field of the result, in one write, so that it outlives a crash. */
void subhost__module_say(int fd, const char *key, const char *format, ...)
    SUBHOST_PRINTF(3, 4);

/* Says what the module's slots say; `loaded` is the module object or NULL. GIL of the main
 * interpreter. */
void subhost__module_claim(int fd, const struct module *module, PyObject *loaded);

/* What one interpreter can reach: addresses of its objects, sorted; malloc'ed. */
struct objects {
    uintptr_t *ids;
    size_t count;
};
/* Calls `label(id, where)` for what several of them have in common, at most `most` times:
 * objects, and then words in the module's static memory that point to one. Any thread. */
void subhost__module_common(const struct objects *all, unsigned count, const char *path,
                            unsigned most,
                            void (*label)(uintptr_t id, const char *where, void *data),
                            void *data);
/* Sorts what the helper gave as bytes. False: out of memory. */
bool subhost__module_objects(const char *bytes, size_t size, struct objects *objects);

#endif
