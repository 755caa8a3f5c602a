/* The first arenas of Python's object allocator, from huge pages.
 *
 * Two interpreters' starts write to some 700 pages of arenas, and each page is a fault: where
 * one costs 1.6 us that is a twentieth of the whole of `subhost run -c pass`. Two huge pages
 * are two faults. Later arenas are CPython's own affair again: hundreds of idle
 * interpreters must not take 2 MiB each.
 *
 * Sources: C-API memory.rst, "Customize pymalloc Arena Allocator"; madvise(2),
 * MADV_HUGEPAGE. CPython's arenas are 1 MiB (Objects/obmalloc.c, ARENA_SIZE). */
#define _GNU_SOURCE
#include <Python.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>

#include "arenas.h"

#define HUGE_PAGE ((size_t)2 << 20)
#define ARENA ((size_t)1 << 20)
#define REGION (2 * HUGE_PAGE)
#define ARENAS (unsigned)(REGION / ARENA)

/* Arenas are taken and given back under GILs of different interpreters. */
static char *region; /* lives as long as the process, as arenas outlive Py_Finalize() */
static atomic_uint taken; /* a bit for each of its arenas */
static PyObjectArenaAllocator cpython;

static void *take(void *context, size_t size)
{
    (void)context;
    for (unsigned i = 0; size == ARENA && i < ARENAS; i++)
        if (!(atomic_fetch_or(&taken, 1u << i) & 1u << i))
            return region + i * ARENA;
    return cpython.alloc(cpython.ctx, size);
}

/* The memory stays ours: half of a huge page cannot be given back without breaking it. */
static void give_back(void *context, void *arena, size_t size)
{
    (void)context;
    uintptr_t offset = (uintptr_t)arena - (uintptr_t)region;
    if (offset < REGION)
        atomic_fetch_and(&taken, ~(1u << (offset / ARENA)));
    else
        cpython.free(cpython.ctx, arena, size);
}

void subhost__arenas_install(void)
{
    if (region)
        return;
    char *mapped = mmap(NULL, REGION + HUGE_PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED)
        return;
    char *aligned = mapped + (HUGE_PAGE - (uintptr_t)mapped % HUGE_PAGE) % HUGE_PAGE;
    if (aligned > mapped)
        munmap(mapped, (size_t)(aligned - mapped));
    munmap(aligned + REGION, (size_t)(mapped + HUGE_PAGE - aligned));
    if (madvise(aligned, REGION, MADV_HUGEPAGE) != 0) {
        munmap(aligned, REGION);
        return;
    }
    region = aligned;
    PyObject_GetArenaAllocator(&cpython);
    PyObject_SetArenaAllocator(&(PyObjectArenaAllocator){NULL, take, give_back});
}
