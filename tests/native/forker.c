/* C code that forks, as libraries do. Loaded with ctypes; each function returns the child's
 * pid, or -1. What a child may do in C it does and exits with 7; "python" children try to run
 * Python, and say so if they can. */
#include <Python.h>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void run_python(void)
{
    PyRun_SimpleString("import os; os.write(2, b'python lives\\n')");
    _exit(3);
}

int fork_exec(const char *path)
{
    pid_t pid = fork();
    if (pid == 0) {
        char *const args[] = {(char *)path, NULL};
        execv(path, args);
        _exit(1);
    }
    return pid;
}

static void *lock_and_free(void *lock)
{
    pthread_mutex_lock(lock);
    pthread_mutex_unlock(lock);
    return malloc(1000);
}

static int own_handler_ran;
static void own_handler(int signo)
{
    (void)signo;
    own_handler_ran = 1;
}

/* Threads, locks, memory, descriptors, signals, waits, another fork: all of it is C's. */
static int do_c_work(void)
{
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_t thread;
    void *memory = NULL;
    if (pthread_mutex_lock(&lock) != 0 ||
        pthread_create(&thread, NULL, lock_and_free, &lock) != 0)
        return 20;
    pthread_mutex_unlock(&lock);
    pthread_join(thread, &memory);
    free(memory);
    int ends[2];
    char byte = 'x';
    if (pipe(ends) != 0 || write(ends[1], &byte, 1) != 1 || read(ends[0], &byte, 1) != 1)
        return 21;
    struct pollfd fd = {.fd = ends[0], .events = POLLIN};
    if (poll(&fd, 1, 1) != 0)
        return 22;
    close(ends[0]);
    close(ends[1]);
    sem_t sem;
    sem_init(&sem, 0, 1);
    sem_wait(&sem);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (sem_timedwait(&sem, &now) == 0)
        return 23;
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    signal(SIGUSR2, own_handler);
    if (raise(SIGUSR2) != 0 || !own_handler_ran)
        return 24;
    pid_t pid = fork();
    if (pid == 0)
        _exit(5);
    int status = 0;
    if (waitpid(pid, &status, 0) != pid || WEXITSTATUS(status) != 5)
        return 25;
    return 7;
}

int fork_c(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(do_c_work());
    return pid;
}

/* As above, by exit(): with the exit handlers of the process. */
int fork_c_exit(void)
{
    pid_t pid = fork();
    if (pid == 0)
        exit(do_c_work());
    return pid;
}

/* To be called with the GIL held (ctypes.PyDLL). */
int fork_python_with_gil(void)
{
    pid_t pid = fork();
    if (pid == 0)
        run_python();
    return pid;
}

static void *ensure_and_run(void *unused)
{
    (void)unused;
    PyGILState_Ensure();
    run_python();
    return NULL;
}

static void *fork_in_thread(void *result)
{
    pid_t pid = fork();
    if (pid == 0)
        ensure_and_run(NULL);
    *(pid_t *)result = pid;
    return NULL;
}

/* A thread of C's own forks. */
int fork_python_in_c_thread(void)
{
    pthread_t thread;
    pid_t pid = -1;
    if (pthread_create(&thread, NULL, fork_in_thread, &pid) == 0)
        pthread_join(thread, NULL);
    return pid;
}

/* The child starts a thread, which would run Python. */
int fork_thread_python(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, ensure_and_run, NULL) == 0)
            pthread_join(thread, NULL);
        _exit(4);
    }
    return pid;
}

static void *run_code(void *code)
{
    PyThreadState *tstate = PyThreadState_New(PyInterpreterState_Main());
    PyEval_RestoreThread(tstate);
    PyRun_SimpleString(code);
    PyThreadState_Clear(tstate);
    PyThreadState_DeleteCurrent();
    return NULL;
}

/* In the main interpreter, in this process. */
int run_in_main(char *code)
{
    pthread_t thread;
    int error = pthread_create(&thread, NULL, run_code, code);
    if (!error)
        pthread_join(thread, NULL);
    return error;
}
