/* The table of the forkserver's children: see pids.h. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "pids.h"

struct pid {
    struct pid *next;
    pid_t pid;
    bool reaped;
    int status;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct pid *first, *spare;
/* The process whose table it is; 0: nothing was forked. In a child that others have forked the
 * lock may be held for ever. */
static atomic_int owner;

static bool is_ours(void)
{
    int pid = atomic_load(&owner);
    return pid && pid == (int)getpid();
}

void subhost__pids_lock(void)
{
    pthread_mutex_lock(&lock);
    atomic_store(&owner, (int)getpid());
    /* Before the fork, after which it is too late to fail. */
    if (!spare)
        spare = calloc(1, sizeof *spare);
}

bool subhost__pids_unlock(pid_t pid)
{
    bool ok = pid <= 0 || spare;
    if (pid > 0 && spare) {
        *spare = (struct pid){.next = first, .pid = pid};
        first = spare;
        spare = NULL;
    }
    pthread_mutex_unlock(&lock);
    return ok;
}

void subhost__pids_after_fork(void)
{
    first = NULL; /* the parent's; what is left of it stays behind */
    atomic_store(&owner, 0);
    pthread_mutex_unlock(&lock);
}

static struct pid **find(pid_t pid)
{
    struct pid **at = &first;
    while (*at && (*at)->pid != pid)
        at = &(*at)->next;
    return at;
}

bool subhost__pids_reaped(pid_t pid, int status)
{
    if (!is_ours())
        return false;
    pthread_mutex_lock(&lock);
    struct pid *it = *find(pid);
    if (it) {
        it->reaped = true;
        it->status = status;
    }
    pthread_mutex_unlock(&lock);
    return it;
}

bool subhost__pids_told(pid_t pid)
{
    pthread_mutex_lock(&lock);
    const struct pid *it = *find(pid);
    bool told = it && it->reaped;
    pthread_mutex_unlock(&lock);
    return told;
}

bool subhost__pids_remove(pid_t pid, int *status)
{
    pthread_mutex_lock(&lock);
    struct pid **at = find(pid), *it = *at;
    bool reaped = it && it->reaped;
    if (reaped)
        *status = it->status;
    if (it)
        *at = it->next;
    pthread_mutex_unlock(&lock);
    free(it);
    return reaped;
}

bool subhost__pids_have(pid_t pid)
{
    if (!is_ours())
        return false;
    pthread_mutex_lock(&lock);
    bool have = *find(pid);
    pthread_mutex_unlock(&lock);
    return have;
}
