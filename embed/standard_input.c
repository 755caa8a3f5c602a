/* Standard input as a program (`subhost run -`): read once, for all workers. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "interp.h"

/* Kept to the end of the process: descriptor 0 cannot be read again. */
static struct {
    pthread_mutex_t lock;
    char *text;
    size_t size;
    bool complete;
} input = {.lock = PTHREAD_MUTEX_INITIALIZER};

void subhost__standard_input_after_fork(void)
{
    pthread_mutex_init(&input.lock, NULL); /* a thread of the parent's may have held it */
    if (!input.complete)
        input.size = 0; /* what the parent's thread has read so far is the parent's */
}

/* Reads descriptor 0 to its end; false with errno. */
static bool read_all(void)
{
    size_t room = 0;
    for (;;) {
        if (input.size + 1 >= room) {
            room = room ? room * 2 : 65536;
            char *text = realloc(input.text, room);
            if (!text)
                return false;
            input.text = text;
        }
        ssize_t n = read(STDIN_FILENO, input.text + input.size, room - input.size - 1);
        if (n < 0)
            return false;
        if (n == 0)
            return true;
        input.size += (size_t)n;
    }
}

const char *subhost__standard_input(size_t *size)
{
    int error = 0;
    Py_BEGIN_ALLOW_THREADS pthread_mutex_lock(&input.lock);
    if (!input.complete && !read_all())
        error = errno;
    else
        input.complete = true;
    *size = input.size;
    pthread_mutex_unlock(&input.lock);
    Py_END_ALLOW_THREADS errno = error;
    return error ? NULL : input.text;
}
