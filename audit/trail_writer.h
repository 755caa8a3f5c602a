/* The trail's parts and the thread that writes it: see trail_writer.c. */
#ifndef SUBHOST_TRAIL_WRITER_H
#define SUBHOST_TRAIL_WRITER_H

#include <pthread.h>

#include "audit/trail_file.h"
#include "audit/trail_record.h"

/* What waits to be written, at most; and as much again is being written. */
#define TRAIL_BUFFER ((size_t)512 << 10)
/* So many lines at once are made and written, in bytes. */
#define TRAIL_CHUNK ((size_t)64 << 10)

struct trail {
    pid_t pid;
    char id[48];
    uint64_t unwanted;      /* events that are not noted; a bit for each */
    pthread_mutex_t lock;   /* held for a copy */
    pthread_cond_t work;    /* for the writer; CLOCK_MONOTONIC, as the next */
    pthread_cond_t written; /* for who waits for it */
    /* Under lock: */
    /* Records: TRAIL_BUFFER, and two more, of what was lost and the last one. */
    char *filling;
    size_t used;
    uint64_t events, lost;
    uint64_t unsaid;     /* lost, and not in the trail yet */
    uint64_t taken, out; /* bytes of records that came in, that are in the file */
    bool sealed;         /* nothing more is noted */
    bool hurry;          /* somebody waits */
    bool idle;           /* the writer wants to be told of the next event */
    bool stopping, gone;
    bool removed; /* the file, by somebody */
    int64_t stop_at;
    int error;           /* of the last write; 0: it went well */
    int64_t stuck_since; /* 0: not stuck */
    /* Of the writer alone, or of the main thread where there is none: */
    char *full;
    size_t full_size, full_at; /* up to there lines have been made */
    char *text;                /* these lines */
    size_t text_size;
    struct trail_file file;
    bool has_writer;
    pthread_t writer;
    /* In a forked child, in place of the file: */
    bool (*pass)(void *data, const char *text, size_t size, uint64_t lost);
    void (*wake)(void *data);
    void *data;
    uint64_t lost_passed;
};

/* Takes what has come in: it is in `full` then. False: nothing has. Under lock. */
bool subhost__trail_take(struct trail *trail);
/* Has lines in `text`, if there are any: returns how long they are. They stay until text_size
 * is set to 0. */
size_t subhost__trail_next_text(struct trail *trail);
/* A line about the trail itself, at the present moment; returns its length. */
size_t subhost__trail_own_line(char line[TRAIL_LINE_MAX], pid_t pid,
                               enum trail_event event, const struct trail_value *values);

int subhost__trail_writer_start(struct trail *trail, subhost_error **err);
/* Has it write the rest. False: it is stuck inside a write, and keeps the trail. */
bool subhost__trail_writer_stop(struct trail *trail);

#endif
