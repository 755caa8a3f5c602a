/* The threads of an interpreter: records, kicks, and what a blocked thread does when it
 * is kicked.
 *
 * A record comes into being when a hosted thread starts a thread (pthread_create is
 * interposed for that), or at the latest when a thread first runs one of our messages. A
 * thread frees its own record when it ends. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "interp.h"
#include "interpose.h"
#include "module.h"
#include "policing.h"

#define VERSION_3_15 0x030F0000

static _Thread_local struct thread *self_record;
/* Its destructor frees the record of a thread that the host did not start. */
static pthread_key_t record_key;
static pthread_once_t record_once = PTHREAD_ONCE_INIT;
static int record_error;

static void forget_at_exit(void *record)
{
    (void)record;
    subhost__thread_forget();
}

static void make_key(void)
{
    record_error = pthread_key_create(&record_key, forget_at_exit);
}

int subhost__thread_init(subhost_error **err)
{
    pthread_once(&record_once, make_key);
    if (record_error)
        return subhost__fail_errno(err, record_error, "pthread_key_create");
    return 0;
}

struct thread *subhost__thread_self(void) { return self_record; }

struct thread *subhost__thread_adopt(subhost_interp *interp, enum thread_kind kind)
{
    if (self_record)
        return self_record;
    struct thread *self = calloc(1, sizeof *self);
    if (!self)
        return NULL;
    if (pthread_setspecific(record_key, self) != 0) {
        free(self);
        return NULL;
    }
    self->interp = interp;
    self->is_driver = kind == THREAD_DRIVER;
    self->is_attendant = kind == THREAD_ATTENDANT;
    self->handle = pthread_self();
    self->tid = (pid_t)syscall(SYS_gettid);
    self->life = atomic_load(&interp->life);
    subhost__interp_ref(interp);
    pthread_mutex_lock(&interp->threads_lock);
    self->next = interp->threads;
    interp->threads = self;
    pthread_mutex_unlock(&interp->threads_lock);
    self_record = self;
    return self;
}

void subhost__thread_forget(void)
{
    struct thread *self = self_record;
    if (!self)
        return;
    subhost_interp *interp = self->interp;
    self_record = NULL;
    pthread_setspecific(record_key, NULL);
    pthread_mutex_lock(&interp->threads_lock);
    for (struct thread **at = &interp->threads; *at; at = &(*at)->next) {
        if (*at == self) {
            *at = self->next;
            break;
        }
    }
    pthread_mutex_unlock(&interp->threads_lock);
    /* self->deferred, if any, cannot be released here: no GIL. It was cleared by whoever
     * raised it; an exception that never was raised dies with its interpreter. */
    subhost_policy_free(self->policy);
    free(self);
    subhost__interp_unref(interp);
}

void subhost__thread_disown(void)
{
    if (self_record)
        pthread_setspecific(record_key, NULL);
    self_record = NULL;
}

/* ---- threads that hosted threads start ------------------------------------------ */

struct start {
    subhost_interp *interp;
    int64_t life;
    subhost_policy *policy;
    void *(*function)(void *);
    void *arg;
};

static void *hosted_thread_main(void *arg)
{
    struct start start = *(struct start *)arg;
    free(arg);
    /* Without memory: a thread that is not interrupted. */
    struct thread *self = subhost__thread_adopt(start.interp, THREAD_PROGRAM);
    if (self) {
        self->life = start.life;
        self->policy = start.policy;
    } else {
        subhost_policy_free(start.policy);
    }
    subhost__interp_unref(start.interp);
    return start.function(start.arg);
}

int subhost__thread_create_hosted(int (*create)(pthread_t *, const pthread_attr_t *,
                                                void *(*)(void *), void *),
                                  pthread_t *thread, const pthread_attr_t *attr,
                                  void *(*function)(void *), void *arg)
{
    struct thread *self = self_record;
    struct start *start = self ? malloc(sizeof *start) : NULL;
    if (!start)
        return create(thread, attr, function, arg);
    int64_t life = self->is_driver ? atomic_load(&self->interp->life) : self->life;
    *start =
        (struct start){self->interp, life, subhost__policing_current(), function, arg};
    subhost__interp_ref(self->interp);
    int error = create(thread, attr, hosted_thread_main, start);
    if (error) {
        subhost__interp_unref(self->interp);
        subhost_policy_free(start->policy);
        free(start);
    }
    return error;
}

int subhost__thread_create(pthread_t *thread, const pthread_attr_t *attr,
                           void *(*function)(void *), void *arg)
{
    struct thread *self = self_record;
    self_record = NULL; /* as one that is not hosted */
    int error = pthread_create(thread, attr, function, arg);
    self_record = self;
    return error;
}

/* ---- thread states of the interpreter ------------------------------------------- */

PyThreadState *subhost__thread_first_state(subhost_interp *interp)
{
    pthread_mutex_lock(&interp->threads_lock);
    PyThreadState *first = PyInterpreterState_ThreadHead(interp->py);
    pthread_mutex_unlock(&interp->threads_lock);
    return first;
}

PyThreadState *subhost__thread_make_state(subhost_interp *interp)
{
    pthread_mutex_lock(&interp->threads_lock);
    PyThreadState *tstate = PyThreadState_New(interp->py);
    pthread_mutex_unlock(&interp->threads_lock);
    return tstate;
}

/* ---- threads of C code that enter the interpreter ------------------------------- */

void subhost__thread_open_door(subhost_interp *interp)
{
    pthread_mutex_lock(&interp->threads_lock);
    atomic_store(&interp->life, PyInterpreterState_GetID(interp->py));
#if PY_VERSION_HEX >= VERSION_3_15
    interp->view = PyInterpreterView_FromCurrent();
    PyErr_Clear(); /* no memory: then no callback enters */
#endif
    pthread_mutex_unlock(&interp->threads_lock);
}

bool subhost__thread_close_door(subhost_interp *interp)
{
    pthread_mutex_lock(&interp->threads_lock);
    PyThreadState *head = PyInterpreterState_ThreadHead(interp->py);
    bool alone = head == interp->driver_tstate && !PyThreadState_Next(head);
    if (alone) {
        atomic_store(&interp->life, -1);
#if PY_VERSION_HEX >= VERSION_3_15
        if (interp->view)
            PyInterpreterView_Close(interp->view);
        interp->view = NULL;
#endif
    }
    pthread_mutex_unlock(&interp->threads_lock);
    return alone;
}

bool subhost__thread_enter(struct thread *self)
{
    subhost_interp *interp = self->interp;
    if (self->is_driver || self->is_attendant || interp->is_main)
        return false;
    PyThreadState *tstate = NULL;
    pthread_mutex_lock(&interp->threads_lock);
    bool open = self->life >= 0 && self->life == atomic_load(&interp->life) &&
                atomic_load(&interp->state) != INTERP_QUARANTINED;
    if (open) {
        /* What was due in its last thread state and was not raised there. A cancel that is
         * still on comes again. */
        atomic_store(&self->raise_pending, false);
        tstate = PyThreadState_New(interp->py);
    }
    pthread_mutex_unlock(&interp->threads_lock);
    if (!open)
        subhost__thread_park();
    if (!tstate)
        Py_FatalError("no memory for the state of a new thread"); /* as CPython does */
    tstate->gilstate_counter = 0; /* PyGILState_Release() shall delete it */
    return true;
}

/* ---- callbacks ------------------------------------------------------------------ */

/* A thread state that is this thread's and that interpreter's keeps it from ending. From 3.15
 * on CPython itself is asked for that as well (PEP 788). NULL: closed, or no memory. */
static PyThreadState *pass_door(struct visit *visit, subhost_interp *interp, int64_t life)
{
    PyThreadState *tstate = NULL;
    visit->guard = NULL;
    /* In a forked child the parent's interpreters, and their locks, are memory and nothing
     * else. */
    if (interp->pid != getpid())
        return NULL;
    pthread_mutex_lock(&interp->threads_lock);
    int64_t now = atomic_load(&interp->life);
    enum interp_state state = atomic_load(&interp->state);
    /* One that waits for the last thread to leave lets no other in. */
    bool open = now >= 0 && (life < 0 || life == now) && state != INTERP_QUARANTINED &&
                state != INTERP_CLOSING && (life >= 0 || state != INTERP_STARTING);
#if PY_VERSION_HEX >= VERSION_3_15
    visit->guard =
        open && interp->view ? PyInterpreterGuard_FromView(interp->view) : NULL;
    open = visit->guard != NULL;
#endif
    if (open)
        tstate = PyThreadState_New(interp->py);
    pthread_mutex_unlock(&interp->threads_lock);
    return tstate;
}

static void close_guard(struct visit *visit)
{
#if PY_VERSION_HEX >= VERSION_3_15
    if (visit->guard)
        PyInterpreterGuard_Close(visit->guard);
#endif
    visit->guard = NULL;
}

static void begin_record(struct visit *visit, subhost_interp *interp)
{
    static _Thread_local pid_t tid;
    if (!tid)
        tid = (pid_t)syscall(SYS_gettid);
    struct thread *record = &visit->record;
    memset(record, 0, sizeof *record);
    record->interp = interp;
    record->is_visitor = true;
    record->handle = pthread_self();
    record->tid = tid;
    visit->before = self_record;
    pthread_mutex_lock(&interp->threads_lock);
    record->life = atomic_load(&interp->life);
    record->next = interp->threads;
    interp->threads = record;
    pthread_mutex_unlock(&interp->threads_lock);
    self_record = record;
    visit->recorded = true;
}

static void unlink_record(subhost_interp *interp, const struct thread *record)
{
    pthread_mutex_lock(&interp->threads_lock);
    for (struct thread **at = &interp->threads; *at; at = &(*at)->next) {
        if (*at == record) {
            *at = record->next;
            break;
        }
    }
    pthread_mutex_unlock(&interp->threads_lock);
}

/* GIL held. */
static void end_record(struct visit *visit)
{
    subhost_interp *interp = visit->record.interp;
    if (atomic_load(&visit->record.raise_pending) || visit->record.deferred ||
        visit->record.armed)
        subhost__raise_forget(interp, &visit->record);
    unlink_record(interp, &visit->record);
    self_record = visit->before;
}

bool subhost__thread_visit(struct visit *visit, subhost_interp *interp, int64_t life)
{
    PyThreadState *current = PyThreadState_GetUnchecked();
    PyThreadState *mine = current ? current : PyGILState_GetThisThreadState();
    int64_t there = life >= 0 ? life : atomic_load(&interp->life);
    visit->tstate = visit->back = NULL;
    visit->recorded = visit->attached = false;
    visit->was_attached = current != NULL;
    if (mine && PyInterpreterState_GetID(PyThreadState_GetInterpreter(mine)) == there) {
        if (!current)
            PyEval_RestoreThread(mine);
        visit->attached = !current;
    } else {
        visit->tstate = pass_door(visit, interp, life);
        if (!visit->tstate) {
            close_guard(visit);
            return false;
        }
        visit->back = mine;
        if (current)
            PyEval_SaveThread();
        PyEval_RestoreThread(visit->tstate);
    }
    if (!self_record || self_record->interp != interp)
        begin_record(visit, interp);
    return true;
}

void subhost__thread_leave(struct visit *visit)
{
    if (visit->recorded)
        end_record(visit);
    if (!visit->tstate) {
        if (visit->attached)
            PyEval_SaveThread();
        return;
    }
    PyThreadState_Clear(visit->tstate);
    PyThreadState_DeleteCurrent();
    close_guard(visit);
    if (!visit->back)
        return;
    /* Also where it was detached: CPython finds a thread's state by the one that was current
     * last. */
    PyEval_RestoreThread(visit->back);
    if (!visit->was_attached)
        PyEval_SaveThread();
}

/* ---- kicks ---------------------------------------------------------------------- */

void subhost__thread_kick_all(subhost_interp *interp)
{
    pthread_mutex_lock(&interp->threads_lock);
    for (struct thread *thread = interp->threads; thread; thread = thread->next) {
        if (!atomic_load(&thread->in_call))
            continue;
        atomic_store(&thread->attention, true);
        /* Alive: it takes threads_lock before it ends. */
        pthread_kill(thread->handle, SUBHOST_KICK_SIGNAL);
    }
    pthread_mutex_unlock(&interp->threads_lock);
}

bool subhost__thread_any_raise_pending(subhost_interp *interp)
{
    bool any = false;
    pthread_mutex_lock(&interp->threads_lock);
    for (struct thread *thread = interp->threads; thread && !any; thread = thread->next)
        any = atomic_load(&thread->raise_pending);
    pthread_mutex_unlock(&interp->threads_lock);
    return any;
}

struct thread *subhost__thread_find(subhost_interp *interp, unsigned long ident)
{
    struct thread *found = NULL;
    pthread_mutex_lock(&interp->threads_lock);
    for (struct thread *thread = interp->threads; thread; thread = thread->next) {
        /* CPython's thread ident is the pthread_t (Python/thread_pthread.h). */
        if ((unsigned long)thread->handle == ident) {
            found = thread;
            break;
        }
    }
    pthread_mutex_unlock(&interp->threads_lock);
    return found;
}

static void set_policy(subhost_interp *interp, int policy)
{
    const struct sched_param param = {.sched_priority = 0};
    pthread_mutex_lock(&interp->threads_lock);
    for (struct thread *thread = interp->threads; thread; thread = thread->next)
        if (!thread->is_visitor) /* not ours, and soon elsewhere */
            sched_setscheduler(thread->tid, policy, &param);
    pthread_mutex_unlock(&interp->threads_lock);
}

void subhost__thread_idle_priority(subhost_interp *interp)
{
    set_policy(interp, SCHED_IDLE);
}

void subhost__thread_normal_priority(subhost_interp *interp)
{
    set_policy(interp, SCHED_OTHER); /* without privileges it may be refused: then not */
}

_Noreturn void subhost__thread_park(void)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    /* The one wait without an end: the process's exit is its end (as CPython 3.14 does it
     * with threads that attach while it finalizes). */
    for (;;)
        syscall(SYS_ppoll, NULL, 0, NULL, NULL, 0);
}

/* ---- what a blocked thread does when it is kicked ------------------------------- */

bool subhost__thread_service(struct thread *self, enum call_kind kind)
{
    subhost_interp *interp = self->interp;
    PyThreadState *tstate = PyGILState_GetThisThreadState();
    if (!tstate || interp->py == NULL)
        return false;
    int saved_errno = errno;
    bool raise;
    /* As Python's own EINTR handling does (PEP 475): take the GIL, run what is due, go
     * back to the call. The difference is that we are inside the call. */
    PyEval_RestoreThread(tstate);
    /* The call may sit in a destructor that runs with an exception set. */
    PyObject *outer = PyErr_GetRaisedException();
    if (PyThreadState_GetInterpreter(tstate) != interp->py) {
        /* This thread runs an interpreter that the program made itself. Our exception
         * types belong to another one; the builtin exceptions belong to all. */
        raise = atomic_load(&interp->cancel.requested) &&
                atomic_load(&interp->cancel.raise_round) > 0;
        if (raise)
            PyThreadState_SetAsyncExc((unsigned long)self->handle,
                                      PyExc_KeyboardInterrupt);
    } else {
        if (subhost__channel_drain(interp) < 0)
            subhost__raise_in(interp, self, PyErr_GetRaisedException());
        /* Nothing comes out of a call in sealed code: it would be repeated for ever, or its
         * error would be the host's. */
        raise = atomic_load(&self->raise_pending) && self->sealed == 0;
        if (raise && kind == CALL_LOCKS)
            subhost__module_release_waiter(interp);
        else if (raise && kind == CALL_FAILS)
            subhost__raise_arm(interp, self);
    }
    PyErr_SetRaisedException(outer);
    PyEval_SaveThread();
    errno = saved_errno;
    return raise;
}
