/* What interpreters that live at the same time have in common. Each has a GIL of its own, so
 * an object that two of them can reach, and whose references are counted, is a race. */
#define _GNU_SOURCE
#include "modules.h"

#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b)
{
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return (x > y) - (x < y);
}

bool subhost__module_objects(const char *bytes, size_t size, struct objects *objects)
{
    objects->count = size / sizeof *objects->ids;
    objects->ids = malloc(size ? size : 1);
    if (!objects->ids)
        return false;
    memcpy(objects->ids, bytes, objects->count * sizeof *objects->ids);
    qsort(objects->ids, objects->count, sizeof *objects->ids, compare);
    return true;
}

static bool has(const struct objects *objects, uintptr_t id)
{
    return bsearch(&id, objects->ids, objects->count, sizeof id, compare) != NULL;
}

/* ---- the module's static memory --------------------------------------------------- */

struct scan {
    char path[PATH_MAX];
    const struct objects *all;
    unsigned count, left;
    void (*label)(uintptr_t id, const char *where, void *data);
    void *data;
};

static void scan_words(struct scan *scan, uintptr_t base, uintptr_t begin, uintptr_t end)
{
    const uintptr_t *word = (const uintptr_t *)((begin + 7) & ~(uintptr_t)7);
    for (; (uintptr_t)(word + 1) <= end && scan->left; word++) {
        bool known = false;
        for (unsigned i = 0; *word && i < scan->count && !known; i++)
            known = has(&scan->all[i], *word);
        if (!known)
            continue;
        char where[64];
        snprintf(where, sizeof where, "static memory at 0x%zx",
                 (size_t)((uintptr_t)word - base));
        scan->label(*word, where, scan->data);
        scan->left--;
    }
}

static int scan_library(struct dl_phdr_info *info, size_t size, void *data)
{
    struct scan *scan = data;
    char path[PATH_MAX];
    (void)size;
    if (!info->dlpi_name || !realpath(info->dlpi_name, path) ||
        strcmp(path, scan->path) != 0)
        return 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        uintptr_t begin = info->dlpi_addr + header->p_vaddr;
        if (header->p_type == PT_LOAD && (header->p_flags & PF_W))
            scan_words(scan, info->dlpi_addr, begin, begin + header->p_memsz);
    }
    return 1;
}

void subhost__module_common(const struct objects *all, unsigned count, const char *path,
                            unsigned most,
                            void (*label)(uintptr_t id, const char *where, void *data),
                            void *data)
{
    struct scan scan = {
        .all = all, .count = count, .left = most, .label = label, .data = data};
    for (size_t k = 0; k < all[0].count && scan.left; k++)
        for (unsigned i = 1; i < count; i++)
            if (has(&all[i], all[0].ids[k])) {
                label(all[0].ids[k], "", data);
                scan.left--;
                break;
            }
    for (size_t k = 0; count > 2 && k < all[1].count && scan.left; k++)
        for (unsigned i = 2; i < count; i++)
            if (has(&all[i], all[1].ids[k]) && !has(&all[0], all[1].ids[k])) {
                label(all[1].ids[k], "", data);
                scan.left--;
                break;
            }
    scan.left = most;
    if (*path && realpath(path, scan.path))
        dl_iterate_phdr(scan_library, &scan);
}
