/* Captured output: what an interpreter writes to stdout and stderr goes through pipes that
 * the main loop always drains, so that it can never block for ever. See capture.c. */
#ifndef SUBHOST_CAPTURE_H
#define SUBHOST_CAPTURE_H

#include <stddef.h>

#include "subhost.h"

/* How long who writes waits when a reader is full. */
#define CAPTURE_PAUSE SUBHOST_MSEC(10)

struct capture;

/* Opens the pipes and has the loop watch them. NULL with errno. Any thread. */
struct capture *subhost__capture_new(subhost_interp *interp);
/* The ends to write to: 0: stdout's, 1: stderr's. They stay the capture's. */
int subhost__capture_fd(const struct capture *capture, int stream);
/* Closes the ends to write to: a child has them now. */
void subhost__capture_given(struct capture *capture);
/* Reads what there is, and takes what has no end of line yet for a line. Main thread. */
void subhost__capture_finish(struct capture *capture);
/* NULL is allowed. Main thread. */
void subhost__capture_free(struct capture *capture);

/* Goes on where a full reader had it stop. Main thread. */
void subhost__capture_resume(struct capture *capture);
/* One line, to the embedder, or up the tree. Main thread. */
enum subhost_output_answer subhost__capture_line(subhost_host *host, const char *name,
                                                 int stream, const char *text,
                                                 size_t size);

#endif
