/* Interruptible libc calls: see interpose.c. */
#ifndef SUBHOST_INTERPOSE_H
#define SUBHOST_INTERPOSE_H

#include <pthread.h>

/* thread.c: pthread_create() for a thread that is to belong to the creator's interpreter,
 * where the creator is hosted; else just `create`. */
int subhost__thread_create_hosted(int (*create)(pthread_t *, const pthread_attr_t *,
                                                void *(*)(void *), void *),
                                  pthread_t *thread, const pthread_attr_t *attr,
                                  void *(*function)(void *), void *arg);

/* interpose_exec.c: in a child of a fork() by C code, while its thread still has its record.
 * Async-signal-safe. */
void subhost__exec_after_fork(void);

#endif
