/* The table of the forkserver's children: see pids.h.
 *
 * A place is one word, the pid and how the child has ended, which is changed as a whole. The
 * memory is shared with the children, and never given back: a signal handler may be at it. */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pids.h"

struct pid_place {
    _Atomic uint64_t word;
};

#define BLOCK_SIZE 4096

struct block {
    struct block *next;
    struct pid_place places[BLOCK_SIZE / sizeof(uint64_t) - 1];
};

#define PLACES (sizeof((struct block *)0)->places / sizeof(struct pid_place))

/* The lower half of a place: a status of wait(2)'s, which has 16 bits, or: */
#define ALIVE UINT32_C(0xFFFFFFFF)
/* Places without a pid. */
#define FREE UINT64_C(0)
#define CLAIMED UINT64_C(1)

static _Atomic(struct block *) first;
/* The process whose table it is; 0: nothing was forked. A child that others have forked has
 * none. */
static atomic_int owner;

static uint64_t word_of(pid_t pid, uint32_t end) { return (uint64_t)pid << 32 | end; }
static pid_t pid_of(uint64_t word) { return (pid_t)(word >> 32); }
static uint32_t end_of(uint64_t word) { return (uint32_t)word; }

static bool is_ours(void)
{
    int pid = atomic_load(&owner);
    return pid && pid == (int)getpid();
}

/* The first place for which `fits(its word, pid)`, with that word; NULL: none. */
static struct pid_place *find(bool (*fits)(uint64_t, pid_t), pid_t pid, uint64_t *word)
{
    for (struct block *block = atomic_load(&first); block; block = block->next) {
        for (size_t i = 0; i < PLACES; i++) {
            *word = atomic_load(&block->places[i].word);
            if (fits(*word, pid))
                return &block->places[i];
        }
    }
    return NULL;
}

static bool is_free(uint64_t word, pid_t unused)
{
    (void)unused;
    return word == FREE;
}

static bool is_pid(uint64_t word, pid_t pid) { return pid_of(word) == pid; }

/* One that was reaped may have its number again, as somebody else's child. */
static bool is_alive(uint64_t word, pid_t pid) { return word == word_of(pid, ALIVE); }

static bool grow(void)
{
    struct block *block =
        mmap(NULL, BLOCK_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED)
        return false;
    block->next = atomic_load(&first);
    while (!atomic_compare_exchange_weak(&first, &block->next, block))
        ;
    return true;
}

struct pid_place *subhost__pids_claim(void)
{
    for (;;) {
        uint64_t word;
        struct pid_place *place = find(is_free, 0, &word);
        if (place && atomic_compare_exchange_strong(&place->word, &word, CLAIMED)) {
            atomic_store(&owner, (int)getpid());
            return place;
        }
        if (!place && !grow())
            return NULL;
    }
}

void subhost__pids_put(struct pid_place *place, pid_t forked)
{
    if (!place)
        return;
    if (forked < 0) {
        atomic_store(&place->word, FREE);
        return;
    }
    uint64_t there = CLAIMED;
    uint64_t word = word_of(forked > 0 ? forked : getpid(), ALIVE);
    if (!atomic_compare_exchange_strong(&place->word, &there, word) && forked > 0 &&
        pid_of(there) != forked)
        atomic_store(&place->word,
                     word); /* in a pid namespace of its own it has another */
}

void subhost__pids_after_fork(void)
{
    atomic_store(&owner, 0);
    for (struct block *block; (block = atomic_load(&first));) {
        atomic_store(&first, block->next);
        munmap(block, BLOCK_SIZE);
    }
}

bool subhost__pids_reaped(pid_t pid, int status)
{
    uint64_t word;
    struct pid_place *place = is_ours() ? find(is_alive, pid, &word) : NULL;
    return place && atomic_compare_exchange_strong(&place->word, &word,
                                                   word_of(pid, (uint32_t)status));
}

bool subhost__pids_have(pid_t pid)
{
    uint64_t word;
    return is_ours() && find(is_alive, pid, &word);
}

bool subhost__pids_told(pid_t pid)
{
    uint64_t word;
    return find(is_pid, pid, &word) && end_of(word) != ALIVE;
}

bool subhost__pids_remove(pid_t pid, int *status)
{
    uint64_t word;
    struct pid_place *place = find(is_pid, pid, &word);
    if (!place)
        return false;
    word = atomic_exchange(&place->word, FREE);
    if (end_of(word) == ALIVE)
        return false;
    *status = (int)end_of(word);
    return true;
}
