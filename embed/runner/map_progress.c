/* A line on a terminal: how far, how fast, how long still. */
#define _GNU_SOURCE
#include "map.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BAR_WIDTH 24

static int terminal_width(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return 80;
}

static void format_time(char *buffer, size_t size, double seconds)
{
    long s = seconds > 359999 ? 359999 : (long)(seconds + 0.5);
    if (s >= 3600)
        snprintf(buffer, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(buffer, size, "%ld:%02ld", s / 60, s % 60);
}

/* What part of the input is done; negative: nobody knows. */
static double fraction(const struct map *map)
{
    uint64_t lines = atomic_load(&map->lines), skip = atomic_load(&map->skip);
    uint64_t done = atomic_load(&map->written) + skip;
    if (atomic_load(&map->all_read))
        return lines ? (double)done / (double)lines : 1;
    if (!map->bytes_total || !lines)
        return -1;
    /* Lines that were read and are not done are a part of what was read. */
    double read = (double)atomic_load(&map->bytes_read) / (double)map->bytes_total;
    return read * (double)done / (double)lines;
}

void map_progress(const struct map *map, int64_t started_at, bool last)
{
    char bar[BAR_WIDTH + 1], left[32] = "", text[256], taken[32];
    double seconds = (double)(clock_now() - started_at) / 1e9;
    uint64_t written = atomic_load(&map->written), failed = atomic_load(&map->failed);
    double rate = seconds > 0 ? (double)written / seconds : 0, part = fraction(map);
    int full = part < 0 ? 0 : (int)(part * BAR_WIDTH);
    memset(bar, ' ', BAR_WIDTH);
    memset(bar, '#', (size_t)(full > BAR_WIDTH ? BAR_WIDTH : full));
    bar[BAR_WIDTH] = '\0';
    format_time(taken, sizeof taken, seconds);
    if (!last && part > 0 && part < 1 && written > 0) {
        char time[24];
        /* What was done before this run has not taken any of its time. */
        double now = (double)written / (double)(written + atomic_load(&map->skip));
        format_time(time, sizeof time, seconds * (1 - part) / (part * now));
        snprintf(left, sizeof left, ", %s left", time);
    }
    int n = part < 0
                ? snprintf(text, sizeof text, "%llu items", (unsigned long long)written)
                : snprintf(text, sizeof text, "[%s] %3.0f %% %llu items", bar, part * 100,
                           (unsigned long long)written);
    snprintf(text + n, sizeof text - (size_t)n, ", %llu failed, %.0f/s, %s%s",
             (unsigned long long)failed, rate, taken, left);
    int width = terminal_width() - 1;
    if (width > 0 && (size_t)width < sizeof text)
        text[width] = '\0';
    fprintf(stderr, "\r%s\033[K%s", text, last ? "\n" : "");
    fflush(stderr);
}
