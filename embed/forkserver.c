/* The forkserver thread.
 *
 * It is attached to the main interpreter alone, in which no hosted program ever runs: what
 * a child inherits is CPython, the standard library as far as policy preloads it, and
 * nothing of any task's. (A fork belongs to the main interpreter: C-API, "Cautions about
 * fork()"; PyOS_AfterFork_Child() ends everything else.) It is the root's: children ask the
 * root, so that the image stays the same at any depth.
 *
 * Around the fork the creation and the end of interpreters stand still, and all signals are
 * blocked: the child unblocks them when it is a host again (child.c). */
#define _GNU_SOURCE
#include "forkserver.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "boot.h"
#include "child.h"
#include "fd.h"
#include "guard.h"
#include "module.h"
#include "pids.h"
#include "policing.h"
#include "siblings.h"

/* How long a creation under way, or the end of an interpreter, may keep a fork waiting. */
#define CREATION_TIMEOUT SUBHOST_MSEC(30000)
/* From a SIGKILL to the end of a child that has hardly begun. */
#define REAP_TIMEOUT SUBHOST_MSEC(2000)
/* For the channel's own thread, which is only there without CPython's pending calls. */
#define ATTENDANT_TIMEOUT SUBHOST_MSEC(500)

struct forkserver {
    subhost_host *host;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    /* Under lock: */
    struct fork_request *asked, **asked_tail, *done, **done_tail;
    struct fork_request *current; /* that the thread is at */
    bool stop, left;
    bool preloading, hurried;
    /* The thread's own: */
    unsigned serial;
    PyThreadState *tstate;
    subhost_interp *main_interp;   /* what a child runs its task in */
    char failure[FORK_ERROR_SIZE]; /* why nothing can be forked, or "" */
};

/* ---- requests ------------------------------------------------------------------- */

struct fork_request *subhost__fork_request_new(void)
{
    struct fork_request *request = calloc(1, sizeof *request);
    if (request) {
        request->pidfd = request->control = request->service = -1;
        request->stdio[0] = request->stdio[1] = request->stdio[2] = -1;
    }
    return request;
}

void subhost__fork_request_free(struct fork_request *request)
{
    if (!request)
        return;
    int fds[] = {request->pidfd,    request->control,  request->service,
                 request->stdio[0], request->stdio[1], request->stdio[2]};
    for (size_t i = 0; i < ARRAY_LENGTH(fds); i++)
        subhost__fd_close(fds[i]);
    free(request);
}

static void SUBHOST_PRINTF(2, 3)
    refuse(struct fork_request *request, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(request->error, sizeof request->error, format, args);
    va_end(args);
}

/* ---- the fork ------------------------------------------------------------------- */

/* Both ends of the supervisor's and of the root's socket; the child's are [1]. */
struct sockets {
    int control[2], service[2];
};

static void close_pair(int pair[2])
{
    for (int i = 0; i < 2; i++) {
        subhost__fd_close(pair[i]);
        pair[i] = -1;
    }
}

static bool make_pair(int pair[2])
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return false;
    for (int i = 0; i < 2; i++)
        pair[i] = subhost__fd_take(pair[i]);
    return pair[0] >= 0 && pair[1] >= 0;
}

static bool make_sockets(struct sockets *sockets, struct fork_request *request)
{
    *sockets = (struct sockets){{-1, -1}, {-1, -1}};
    if (make_pair(sockets->control) && make_pair(sockets->service))
        return true;
    refuse(request, "socketpair: %s", strerror(errno));
    close_pair(sockets->control);
    close_pair(sockets->service);
    return false;
}

/* Attached to main, creation locked. */
static void fork_attached(struct forkserver *server, struct fork_request *request,
                          const struct sockets *sockets)
{
    const char *why = subhost__siblings_ready();
    if (why) {
        refuse(request,
               "a fork while other interpreters are alive would kill the child, and they "
               "cannot be taken off its list: %s",
               why);
        return;
    }
    struct child_birth birth = {
        .host = server->host,
        .main_interp = server->main_interp,
        .request = request,
        .control = sockets->control[1],
        .service = sockets->service[1],
    };
    subhost__guard_own_fork(true);
    PyOS_BeforeFork();
    /* Without a place a program's wait() may be faster than ours. */
    struct pid_place *place = subhost__pids_claim();
    pid_t pid = fork();
    int error = errno;
    subhost__pids_put(place, pid);
    if (pid == 0)
        subhost__child_main(&birth);
    PyOS_AfterFork_Parent();
    subhost__guard_own_fork(false);
    if (pid < 0)
        refuse(request, "fork: %s", strerror(error));
    else
        request->pid = pid;
}

/* Without a descriptor for it nobody could own the child. */
static void end_child(pid_t pid)
{
    int64_t deadline = subhost__now() + REAP_TIMEOUT;
    int status;
    kill(pid, SIGKILL);
    while (waitpid(pid, &status, WNOHANG) == 0 && subhost__now() < deadline)
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    subhost__pids_remove(pid, &status);
}

/* The child is there and not reaped: the number is its own. */
static void open_pidfd(struct fork_request *request)
{
    int fd = (int)syscall(SYS_pidfd_open, request->pid, 0);
    request->pidfd = subhost__fd_take(fd);
    if (request->pidfd >= 0)
        return;
    refuse(request, "pidfd_open: %s", strerror(errno));
    end_child(request->pid);
}

static void fork_one(struct forkserver *server, struct fork_request *request)
{
    subhost_host *host = server->host;
    struct sockets sockets;
    if (server->failure[0]) {
        refuse(request, "%s", server->failure);
        return;
    }
    if (!make_sockets(&sockets, request))
        return;
    request->serial = ++server->serial;
    struct timespec t = subhost__timespec(subhost__now() + CREATION_TIMEOUT);
    if (pthread_mutex_clocklock(&host->creation, CLOCK_MONOTONIC, &t) == 0) {
        PyEval_RestoreThread(server->tstate);
        fork_attached(server, request, &sockets);
        PyEval_SaveThread();
        pthread_mutex_unlock(&host->creation);
    } else {
        refuse(request, "an interpreter's creation has not ended for 30 s");
    }
    if (request->pid > 0)
        open_pidfd(request);
    if (!request->error[0]) {
        request->control = sockets.control[0];
        request->service = sockets.service[0];
        sockets.control[0] = sockets.service[0] = -1;
    }
    close_pair(sockets.control);
    close_pair(sockets.service);
}

/* ---- the thread ----------------------------------------------------------------- */

static void describe_failure(struct forkserver *server, const char *what)
{
    PyObject *exception = PyErr_GetRaisedException();
    PyObject *text = exception ? PyObject_Repr(exception) : NULL;
    const char *utf8 = text ? PyUnicode_AsUTF8(text) : NULL;
    snprintf(server->failure, sizeof server->failure, "%s: %s", what,
             utf8 ? utf8 : "out of memory");
    Py_XDECREF(text);
    Py_XDECREF(exception);
    PyErr_Clear();
}

/* The image lives as long as the tree: a collection in a child must not touch, and so copy,
 * all of its pages (gc.freeze(): "to avoid copy-on-write in child processes"). */
static void freeze(struct forkserver *server)
{
    PyObject *gc = server->failure[0] ? NULL : PyImport_ImportModule("gc");
    PyObject *done = gc ? PyObject_CallMethod(gc, "collect", NULL) : NULL;
    Py_XDECREF(done);
    done = done ? PyObject_CallMethod(gc, "freeze", NULL) : NULL;
    Py_XDECREF(done);
    Py_XDECREF(gc);
    PyErr_Clear(); /* it was about speed only */
}

/* Best effort: it is about speed only. */
static void rehearse_call(subhost_interp *interp, PyObject *rehearse)
{
    PyObject *finish = subhost__prelude_call(interp, "prepare_finish", "()");
    Py_XDECREF(finish);
    PyErr_Clear();
    PyObject *done = PyObject_CallNoArgs(rehearse);
    Py_XDECREF(done);
    PyErr_Clear();
}

/* What a preloaded module has left in the buffer of a file must not be every child's to write,
 * where that file is closed. */
static void flush_image(subhost_interp *interp)
{
    PyObject *done = subhost__prelude_call(interp, "flush_files", "()");
    Py_XDECREF(done);
    PyErr_Clear();
    atomic_store(&interp->opened, false);
}

/* ---- what is preloaded ------------------------------------------------------------ */

static void leave_import(void *data)
{
    (void)data;
    PyErr_SetString(PyExc_KeyboardInterrupt, "the host is being closed");
}

/* A blocking call is left when it is kicked: by a signal, of which all are blocked here. */
static void let_kicks_in(bool in)
{
    sigset_t kick;
    sigemptyset(&kick);
    sigaddset(&kick, SUBHOST_KICK_SIGNAL);
    pthread_sigmask(in ? SIG_UNBLOCK : SIG_BLOCK, &kick, NULL);
}

static bool begin_preload(struct forkserver *server)
{
    let_kicks_in(true);
    subhost__channel_open(server->main_interp);
    pthread_mutex_lock(&server->lock);
    server->preloading = !server->hurried;
    pthread_mutex_unlock(&server->lock);
    return server->preloading;
}

/* Nothing of it must be left in CPython's queue, which lives longer than the interpreter's
 * record here. */
static void end_preload(struct forkserver *server)
{
    subhost_interp *interp = server->main_interp;
    pthread_mutex_lock(&server->lock);
    server->preloading = false;
    bool hurried = server->hurried;
    pthread_mutex_unlock(&server->lock);
    let_kicks_in(false);
    subhost__channel_close(interp, subhost__now() + ATTENDANT_TIMEOUT);
    if (!hurried)
        return;
    if (!server->failure[0])
        snprintf(server->failure, sizeof server->failure, "the host is being closed");
    Py_MakePendingCalls();
    PyErr_Clear();
    subhost__channel_drain_rest(interp);
}

/* Everything that is not the host's own: site, what the nursery imports after it, and what was
 * asked for. `*rehearse`: a new reference, or NULL. */
static void preload(struct forkserver *server, PyObject **rehearse)
{
    const char *const *name = server->host->options.preload;
    const subhost_policy *policy = server->host->policy;
    bool go_on = begin_preload(server);
    if (go_on && ((subhost__policy_number(policy, POLICY_INTERPRETER_SITE) &&
                   subhost__boot_site() < 0) ||
                  !(*rehearse = subhost__nursery_get(server->main_interp, "rehearse"))))
        describe_failure(server, "preparing the main interpreter");
    for (; go_on && name && *name && !server->failure[0]; name++) {
        PyObject *module = PyImport_ImportModule(*name);
        if (!module)
            describe_failure(server, *name);
        Py_XDECREF(module);
    }
    if (go_on && !server->failure[0] && subhost__policing_preload(policy) < 0)
        describe_failure(server, "interpreter.preload");
    end_preload(server);
}

void subhost__forkserver_hurry(subhost_host *host)
{
    struct forkserver *server = host->forkserver;
    if (!server)
        return;
    pthread_mutex_lock(&server->lock);
    server->hurried = true;
    if (server->preloading) {
        subhost_interp *interp = server->main_interp;
        (void)subhost__channel_put(&interp->channel, leave_import, NULL);
        subhost__channel_ring(interp);
        subhost__thread_kick_all(interp);
    }
    pthread_mutex_unlock(&server->lock);
}

/* ---- the image ---------------------------------------------------------------------- */

/* What every child would else do for itself: site, the prelude, what is preloaded. */
static void prepare_image(struct forkserver *server)
{
    subhost_interp *interp = server->main_interp;
    interp->py = PyInterpreterState_Main();
    if (!subhost__thread_adopt(interp, THREAD_DRIVER)) {
        snprintf(server->failure, sizeof server->failure, "out of memory");
        return;
    }
    interp->driver =
        pthread_self(); /* what is imported here takes this for the main thread */
    PyObject *rehearse = NULL, *prepared = NULL;
    if (subhost__signals_import() < 0 || subhost__module_boot(interp) < 0 ||
        !(prepared = subhost__prelude_call(interp, "prepare_image", "()")))
        describe_failure(server, "preparing the main interpreter");
    Py_XDECREF(prepared);
    if (!server->failure[0])
        preload(server, &rehearse);
    if (!server->failure[0])
        rehearse_call(interp, rehearse);
    Py_XDECREF(rehearse);
    if (!server->failure[0])
        flush_image(interp);
    freeze(server);
    subhost__thread_forget();
}

static void attach_first(struct forkserver *server)
{
    server->main_interp = subhost__interp_make_main(server->host);
    server->tstate = PyThreadState_New(PyInterpreterState_Main());
    if (!server->main_interp || !server->tstate) {
        snprintf(server->failure, sizeof server->failure, "out of memory");
        return;
    }
    PyEval_RestoreThread(server->tstate);
    prepare_image(server);
    PyEval_SaveThread();
}

static void put_done(struct forkserver *server, struct fork_request *request)
{
    request->next = NULL;
    *server->done_tail = request;
    server->done_tail = &request->next;
    subhost__loop_wake(server->host);
}

static void *forkserver_main(void *arg)
{
    struct forkserver *server = arg;
    pthread_setname_np(pthread_self(), "subhost/fork");
    attach_first(server);
    pthread_mutex_lock(&server->lock);
    while (!server->stop) {
        struct fork_request *request = server->asked;
        if (!request) {
            subhost__cond_wait(&server->cond, &server->lock, SUBHOST_FOREVER);
            continue;
        }
        server->asked = request->next;
        if (!server->asked)
            server->asked_tail = &server->asked;
        server->current = request;
        pthread_mutex_unlock(&server->lock);
        fork_one(server, request);
        pthread_mutex_lock(&server->lock);
        server->current = NULL;
        put_done(server, request);
    }
    pthread_mutex_unlock(&server->lock);
    if (server->tstate) {
        PyEval_RestoreThread(server->tstate);
        PyThreadState_Clear(server->tstate);
        PyThreadState_DeleteCurrent();
    }
    pthread_mutex_lock(&server->lock);
    server->left = true;
    pthread_cond_broadcast(&server->cond);
    pthread_mutex_unlock(&server->lock);
    return NULL;
}

static int start(subhost_host *host)
{
    struct forkserver *server = calloc(1, sizeof *server);
    if (!server)
        return ENOMEM;
    server->host = host;
    server->asked_tail = &server->asked;
    server->done_tail = &server->done;
    pthread_mutex_init(&server->lock, NULL);
    int error = subhost__cond_init(&server->cond);
    if (!error) {
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        error = subhost__start_with_main_stack(&server->thread, NULL, forkserver_main,
                                               server);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (error)
            pthread_cond_destroy(&server->cond);
    }
    if (error) {
        free(server);
        return error;
    }
    host->forkserver = server;
    return 0;
}

int subhost__forkserver_submit(subhost_host *host, struct fork_request *request)
{
    int error = host->forkserver ? 0 : start(host);
    if (error)
        return error;
    struct forkserver *server = host->forkserver;
    pthread_mutex_lock(&server->lock);
    request->next = NULL;
    *server->asked_tail = request;
    server->asked_tail = &request->next;
    pthread_cond_signal(&server->cond);
    pthread_mutex_unlock(&server->lock);
    return 0;
}

unsigned subhost__forkserver_pending(subhost_host *host)
{
    struct forkserver *server = host->forkserver;
    if (!server)
        return 0;
    pthread_mutex_lock(&server->lock);
    unsigned count = server->current != NULL;
    for (struct fork_request *r = server->asked; r; r = r->next)
        count++;
    for (struct fork_request *r = server->done; r; r = r->next)
        count++;
    pthread_mutex_unlock(&server->lock);
    return count;
}

struct fork_request *subhost__forkserver_take(subhost_host *host)
{
    struct forkserver *server = host->forkserver;
    if (!server)
        return NULL;
    pthread_mutex_lock(&server->lock);
    struct fork_request *request = server->done;
    if (request) {
        server->done = request->next;
        if (!server->done)
            server->done_tail = &server->done;
    }
    pthread_mutex_unlock(&server->lock);
    return request;
}

static void forget(struct fork_request *request, const struct process *process,
                   const struct child *child)
{
    if (request && process && request->process == process)
        request->process = NULL;
    if (request && child && request->child == child)
        request->child = NULL;
}

void subhost__forkserver_forget(subhost_host *host, const struct process *process,
                                const struct child *child)
{
    struct forkserver *server = host->forkserver;
    if (!server)
        return;
    pthread_mutex_lock(&server->lock);
    for (struct fork_request *r = server->asked; r; r = r->next)
        forget(r, process, child);
    for (struct fork_request *r = server->done; r; r = r->next)
        forget(r, process, child);
    forget(server->current, process, child);
    pthread_mutex_unlock(&server->lock);
}

bool subhost__forkserver_stop(subhost_host *host, int64_t deadline)
{
    struct forkserver *server = host->forkserver;
    if (!server)
        return true;
    pthread_mutex_lock(&server->lock);
    server->stop = true;
    pthread_cond_broadcast(&server->cond);
    while (!server->left && subhost__cond_wait(&server->cond, &server->lock, deadline))
        ;
    bool left = server->left;
    pthread_mutex_unlock(&server->lock);
    host->forkserver = NULL;
    if (!left)
        return false;
    pthread_join(server->thread, NULL); /* at its last instructions */
    for (struct fork_request *request; (request = server->asked);) {
        server->asked = request->next;
        subhost__fork_request_free(request);
    }
    for (struct fork_request *request; (request = server->done);) {
        server->done = request->next;
        subhost__fork_request_free(request); /* its child sees the end of its wires */
    }
    if (server->main_interp)
        subhost__interp_unref(server->main_interp);
    pthread_cond_destroy(&server->cond);
    pthread_mutex_destroy(&server->lock);
    free(server);
    return true;
}
