/* How far a misspelt word is from a known one. No part of the library: the runner, which uses
 * nothing of it but subhost.h, has its own copy of the function by this. */
#ifndef SUBHOST_EDIT_DISTANCE_H
#define SUBHOST_EDIT_DISTANCE_H

#include <stddef.h>
#include <string.h>

/* Levenshtein distance, of words short enough for a name; of longer ones EDIT_DISTANCE_MAX. */
enum { EDIT_DISTANCE_MAX = 40 };

static inline size_t edit_distance(const char *a, const char *b)
{
    size_t row[EDIT_DISTANCE_MAX + 1], n = strlen(a), m = strlen(b);
    if (n > EDIT_DISTANCE_MAX || m > EDIT_DISTANCE_MAX)
        return EDIT_DISTANCE_MAX;
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t substitute = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = row[j] + 1 < row[j - 1] + 1 ? row[j] + 1 : row[j - 1] + 1;
            if (substitute < row[j])
                row[j] = substitute;
        }
    }
    return row[m];
}

#endif
