/* Signals: taken in C, handed to the main loop, routed to the interpreters.
 *
 * A handler notes the signal in a counter and writes an eventfd; the main loop does the
 * rest without any GIL, so no interpreter can hold it up. The kernel gives a signal that
 * is sent to the process to its main thread where that does not block it
 * (complete_signal() in the kernel's signal.c), and ours does not.
 *
 * Why not a signalfd: it needs the signal blocked in every thread, and a blocked mask is
 * inherited through fork and exec by every process that a program starts, where a handler
 * becomes the default again by itself (execve(2)). */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "interp.h"
#include "policing.h"
#include "module.h"
#include "process.h"

/* Written by the handler, read by the main loop. Process-wide, as signals are. */
static atomic_uint noted[SUBHOST_NSIG];
static atomic_int note_fd = -1;
static _Atomic pid_t note_pid;

/* The dispositions when the host was opened: only looked at. */
static struct sigaction opened[SUBHOST_NSIG];
/* What the host has put in the place of the embedder's. Written under host->lock. */
static struct {
    struct sigaction ours, embedders;
    bool is;
} replaced[SUBHOST_NSIG];
static atomic_bool taken[SUBHOST_NSIG]; /* written under host->lock */
static atomic_uint routed[SUBHOST_NSIG];
/* The host has children of its own, or will soon. Written under host->lock. */
static bool children_kept;

/* In a forked child a signal may arrive twice: from the kernel, and from the supervisor that
 * got it as well. Within this time they are one. The main thread's. */
#define ECHO_TIME SUBHOST_MSEC(50)
static int64_t arrived_at[SUBHOST_NSIG], injected_at[SUBHOST_NSIG];
static _Atomic uint64_t wanted_mask;
static uint64_t applied_mask; /* what we have blocked, and may unblock; main thread */

static void end_by_default(int signo)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigaction(signo, &action, NULL);
    raise(signo);
}

static void on_signal(int signo, siginfo_t *info, void *context)
{
    (void)context;
    int saved_errno = errno;
    if (signo == SUBHOST_KICK_SIGNAL && info->si_code == SI_TKILL)
        return; /* a kick: to interrupt the call was all */
    if (getpid() != atomic_load(&note_pid)) {
        /* A child between fork and exec: what would have happened without us. Nothing
         * shared is touched, it may be a vfork child. */
        end_by_default(signo);
        errno = saved_errno;
        return;
    }
    atomic_fetch_add(&noted[signo], 1);
    uint64_t one = 1;
    /* Not write(): this may be a hosted thread, where that is an interruptible call. */
    syscall(SYS_write, atomic_load(&note_fd), &one, sizeof one);
    errno = saved_errno;
}

static bool is_handled(const struct sigaction *action)
{
    return (action->sa_flags & SA_SIGINFO) ||
           (action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN);
}

static bool is_ignored(const struct sigaction *action)
{
    return !(action->sa_flags & SA_SIGINFO) && action->sa_handler == SIG_IGN;
}

/* Our handler is ours whenever it is seen: system(3) of the embedder's puts back what it has
 * found, whatever was meanwhile. */
static bool is_ours(int signo, const struct sigaction *action)
{
    if (action->sa_flags & SA_SIGINFO)
        return action->sa_sigaction == on_signal;
    const struct sigaction *ours = &replaced[signo].ours;
    return replaced[signo].is && !(ours->sa_flags & SA_SIGINFO) &&
           action->sa_handler == ours->sa_handler;
}

char subhost__signal_initial(int signo)
{
    if (signo < 1 || signo >= SUBHOST_NSIG)
        return 'o';
    if (signo == SUBHOST_KICK_SIGNAL)
        return 'd';
    if (opened[signo].sa_flags & SA_SIGINFO)
        return 'o';
    /* python ignores these two at its start, and so does the host. */
    if (signo == SIGPIPE || signo == SIGXFSZ)
        return 'i';
    return is_ignored(&opened[signo]) ? 'i' : is_handled(&opened[signo]) ? 'o' : 'd';
}

/* 0 or an errno. host->lock held, or nobody else is there. */
static int replace(int signo, const struct sigaction *action)
{
    struct sigaction before;
    if (sigaction(signo, NULL, &before) != 0)
        return errno;
    if (!is_ours(signo, &before))
        replaced[signo].embedders = before;
    /* Before it is done: a child may be forked meanwhile. */
    replaced[signo].ours = *action;
    replaced[signo].is = true;
    return sigaction(signo, action, NULL) == 0 ? 0 : errno;
}

/* What the embedder has put there since stays. host->lock held. 0 or an errno. */
static int give_back(int signo)
{
    struct sigaction action;
    if (sigaction(signo, NULL, &action) != 0)
        return errno;
    taken[signo] = false;
    bool ours = is_ours(signo, &action);
    replaced[signo].is = false;
    return !ours || sigaction(signo, &replaced[signo].embedders, NULL) == 0 ? 0 : errno;
}

static int take(int signo)
{
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
    sigfillset(&action.sa_mask);
    /* A kick must interrupt a call; anything else should not. */
    if (signo != SUBHOST_KICK_SIGNAL)
        action.sa_flags |= SA_RESTART;
    int error = replace(signo, &action);
    if (!error)
        taken[signo] = true;
    return error;
}

static int set_disposition(int signo, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler};
    int error = replace(signo, &action);
    if (!error)
        taken[signo] = false;
    return error;
}

void subhost__signals_keep_children(subhost_host *host)
{
    struct sigaction action;
    pthread_mutex_lock(&host->lock);
    children_kept = host->options.take_signals;
    if (children_kept && sigaction(SIGCHLD, NULL, &action) == 0 && is_ignored(&action))
        set_disposition(SIGCHLD, SIG_DFL);
    pthread_mutex_unlock(&host->lock);
}

/* With the import the main interpreter takes SIGINT, where that is at its default, and puts that
 * back at its end: but it is the embedder's. A handler that CPython does not know it leaves. */
int subhost__signals_import(void)
{
    struct sigaction before, unknown = {.sa_handler = end_by_default};
    bool is_default = sigaction(SIGINT, NULL, &before) == 0 && !is_handled(&before) &&
                      !is_ignored(&before);
    if (is_default)
        sigaction(SIGINT, &unknown, NULL);
    PyObject *module = PyImport_ImportModule("_signal");
    if (is_default)
        sigaction(SIGINT, &before, NULL);
    Py_XDECREF(module);
    return module ? 0 : -1;
}

static bool is_host_signal(int signo)
{
    return signo == SIGINT || signo == SIGTERM || signo == SIGUSR1;
}

/* What a fault raises: its handler (faulthandler's, a sanitizer's, the embedder's) tells of it,
 * and is good for that in a child, too. */
static bool is_fault(int signo)
{
    return signo == SIGSEGV || signo == SIGBUS || signo == SIGFPE || signo == SIGILL ||
           signo == SIGABRT || signo == SIGTRAP || signo == SIGSYS;
}

/* system(3) on another thread ignores these for as long as it takes. */
static bool is_ignored_by_system(int signo)
{
    return (signo == SIGINT || signo == SIGQUIT) && !is_ignored(&opened[signo]);
}

/* As exec would do it: the embedder's handlers write into descriptors that are not here. */
void subhost__signals_child(void)
{
    atomic_store(&note_fd, -1);
    children_kept = false; /* the root forks */
    for (int signo = 1; signo < SUBHOST_NSIG; signo++) {
        struct sigaction now, action;
        if (sigaction(signo, NULL, &now) != 0)
            continue;
        action = is_ours(signo, &now) ? replaced[signo].embedders : now;
        replaced[signo].is = false;
        if (!is_fault(signo) || !is_handled(&action))
            action = (struct sigaction){.sa_handler = is_ignored(&action) &&
                                                              !is_ignored_by_system(signo)
                                                          ? SIG_IGN
                                                          : SIG_DFL};
        if (now.sa_handler != action.sa_handler || now.sa_flags)
            sigaction(signo, &action, NULL);
    }
    wanted_mask = applied_mask = 0;
}

int subhost__signals_open(subhost_host *host, subhost_error **err)
{
    memset(replaced, 0, sizeof replaced);
    memset(opened, 0, sizeof opened);
    children_kept = false;
    for (int signo = 1; signo < SUBHOST_NSIG; signo++) {
        sigaction(signo, NULL, &opened[signo]);
        atomic_store(&noted[signo], 0);
        atomic_store(&taken[signo], false);
    }
    atomic_store(&note_fd, host->signal_fd);
    atomic_store(&note_pid, getpid());
    int error = take(SUBHOST_KICK_SIGNAL);
    static const int host_signals[] = {SIGINT, SIGTERM, SIGUSR1};
    bool stacks = subhost__policy_number(host->policy, POLICY_SIGNALS_STACKS);
    size_t count = ARRAY_LENGTH(host_signals) - !stacks;
    for (size_t i = 0; host->options.take_signals && i < count; i++) {
        /* As python: what was ignored when we started (nohup) stays ignored. */
        if (!error && subhost__signal_initial(host_signals[i]) != 'i')
            error = take(host_signals[i]);
    }
    if (host->options.take_signals && !error) {
        error = set_disposition(SIGPIPE, SIG_IGN);
        if (!error)
            error = set_disposition(SIGXFSZ, SIG_IGN);
    }
    if (error)
        return subhost__fail_errno(err, error, "taking signals");
    return 0;
}

void subhost__signals_close(subhost_host *host)
{
    pthread_mutex_lock(&host->lock);
    /* A kick on its way must not end the process: SIGURG's default is to be ignored. */
    for (int signo = 1; signo < SUBHOST_NSIG; signo++)
        give_back(signo);
    pthread_mutex_unlock(&host->lock);
    atomic_store(&note_fd, -1);
}

/* ---- what the programs want ----------------------------------------------------- */

/* What programs want of one signal: how many do, and whether all do. */
struct wishes {
    unsigned handled, ignored, by_default;
    bool all_ignore;
    bool all_default; /* every program asked for the kernel's default */
};

/* Of a signal that is for all programs. A pool's call is no program: what ends the pool's is not
 * its to ignore. */
static bool ignores(const subhost_interp *interp, int signo)
{
    return (atomic_load(&interp->signals_ignored) & SIGNAL_BIT(signo)) &&
           !atomic_load(&interp->in_pool);
}

/* host->lock held. */
static struct wishes wishes(subhost_host *host, int signo)
{
    struct wishes all = {.all_ignore = true, .all_default = true};
    for (subhost_interp *interp = host->interps; interp; interp = interp->next) {
        all.handled += (atomic_load(&interp->signals_handled) & SIGNAL_BIT(signo)) != 0;
        all.ignored += (atomic_load(&interp->signals_ignored) & SIGNAL_BIT(signo)) != 0;
        bool by_default =
            (atomic_load(&interp->signals_default) & SIGNAL_BIT(signo)) != 0;
        all.by_default += by_default;
        all.all_ignore &= ignores(interp, signo);
        all.all_default &= by_default;
    }
    all.all_ignore &= all.ignored > 0;
    all.all_default &= all.by_default > 0;
    return all;
}

/* No program wants anything of the signal: it is as the host has it, else as the embedder.
 * host->lock held. 0 or an errno. */
static int settle(const subhost_host *host, int signo)
{
    if (host->options.take_signals && (signo == SIGPIPE || signo == SIGXFSZ))
        return set_disposition(signo, SIG_IGN);
    if (signo == SIGCHLD && children_kept && is_ignored(&replaced[signo].embedders))
        return set_disposition(signo, SIG_DFL);
    return give_back(signo);
}

/* host->lock held. 0 or an errno. */
static int update(subhost_host *host, int signo)
{
    struct wishes all = wishes(host, signo);
    bool by_host = host->options.take_signals && is_host_signal(signo) &&
                   !all.all_default && subhost__signal_initial(signo) != 'i';
    if (signo == SIGKILL || signo == SIGSTOP)
        return all.handled || all.ignored || all.all_default ? EINVAL : 0;
    /* One program's SIG_IGN must not take a Ctrl-C from the others. */
    if (all.handled || (by_host && !all.all_ignore))
        return taken[signo] ? 0 : take(signo);
    if (signo == SUBHOST_KICK_SIGNAL)
        return 0; /* stays ours; by default it is ignored anyway */
    if (!all.ignored && !all.by_default)
        return settle(host, signo);
    bool ignored = all.ignored && !(signo == SIGCHLD && children_kept);
    return set_disposition(signo, ignored ? SIG_IGN : SIG_DFL);
}

int subhost__signals_update(subhost_host *host, int signo)
{
    pthread_mutex_lock(&host->lock);
    int error = update(host, signo);
    pthread_mutex_unlock(&host->lock);
    return error;
}

/* What setitimer(2) and alarm(2) send. */
static const struct {
    int signo;
    int which;
} timers[] = {
    {SIGALRM, ITIMER_REAL}, {SIGVTALRM, ITIMER_VIRTUAL}, {SIGPROF, ITIMER_PROF}};

/* A timer whose handler is gone would end the process. host->lock held. */
static void disarm(subhost_host *host, int signo)
{
    const struct itimerval never = {0};
    for (size_t i = 0; i < ARRAY_LENGTH(timers); i++) {
        if (timers[i].signo != signo || wishes(host, signo).handled)
            continue;
        /* First: that discards also a signal which is on its way to a thread. */
        set_disposition(signo, SIG_IGN);
        setitimer(timers[i].which, &never, NULL);
    }
}

int subhost__signals_forget(subhost_interp *interp, int signo)
{
    subhost_host *host = interp->host;
    const uint64_t others = ~SIGNAL_BIT(signo);
    pthread_mutex_lock(&host->lock);
    atomic_fetch_and(&interp->signals_handled, others);
    atomic_fetch_and(&interp->signals_ignored, others);
    atomic_fetch_and(&interp->signals_default, others);
    if (!interp->process) /* that one's timers are not ours */
        disarm(host, signo);
    int error = update(host, signo);
    pthread_mutex_unlock(&host->lock);
    return error;
}

void subhost__signals_forget_all(subhost_interp *interp)
{
    uint64_t wanted = atomic_load(&interp->signals_handled) |
                      atomic_load(&interp->signals_ignored) |
                      atomic_load(&interp->signals_default);
    for (int signo = 1; signo < SUBHOST_NSIG; signo++) {
        if (wanted & SIGNAL_BIT(signo))
            subhost__signals_forget(interp, signo);
    }
}

static const int ending[] = {SIGINT, SIGTERM};

void subhost__signals_join(subhost_host *host)
{
    for (size_t i = 0; host->options.take_signals && i < ARRAY_LENGTH(ending); i++) {
        if (!taken[ending[i]] && subhost__signal_initial(ending[i]) != 'i')
            update(host, ending[i]);
    }
}

void subhost__signals_inherit(subhost_interp *interp, const subhost_interp *from)
{
    for (size_t i = 0; i < ARRAY_LENGTH(ending); i++) {
        if (!ignores(from, ending[i]))
            continue;
        atomic_fetch_or(&interp->signals_ignored, SIGNAL_BIT(ending[i]));
        subhost__signals_update(interp->host, ending[i]);
    }
}

/* What a program's main thread blocks, ours must block: else it would take the signal
 * that sigwait() waits for. pthread_sigmask() works on the calling thread alone, so the
 * main loop is asked, and for a moment waited for. */

void subhost__signals_update_mask(subhost_host *host)
{
    uint64_t mask = 0;
    pthread_mutex_lock(&host->lock);
    for (subhost_interp *interp = host->interps; interp; interp = interp->next)
        mask |= atomic_load(&interp->signals_blocked);
    pthread_mutex_unlock(&host->lock);
    if (atomic_exchange(&wanted_mask, mask) == mask)
        return;
    subhost__loop_barrier(host, SUBHOST_MSEC(200));
}

static void apply_mask(void)
{
    uint64_t mask = atomic_load(&wanted_mask);
    if (mask == applied_mask)
        return;
    for (int signo = 1; signo < SUBHOST_NSIG; signo++) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, signo);
        uint64_t bit = SIGNAL_BIT(signo);
        /* Never what the user ends us with; and the embedder's own mask is not ours. */
        if (signo != SIGINT && signo != SIGTERM && ((mask ^ applied_mask) & bit))
            pthread_sigmask(mask & bit ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
    }
    applied_mask = mask;
}

/* ---- routing, on the main thread ------------------------------------------------ */

static void deliver(subhost_interp *interp, int signo)
{
    if (interp->process) {
        subhost__process_signal(interp->process, signo);
        return;
    }
    atomic_fetch_or(&interp->signals_pending, SIGNAL_BIT(signo));
    int fd = atomic_load(&interp->wakeup_fd);
    if (fd >= 0) {
        unsigned char byte = (unsigned char)signo;
        /* Non-blocking, as set_wakeup_fd() demands; what does not fit is lost, as there.
         */
        ssize_t written = write(fd, &byte, 1);
        (void)written;
    }
    subhost__channel_ring(interp);
    subhost__thread_kick_all(interp);
    if (!interp->next_poke_at) {
        interp->poke_since = subhost__now();
        interp->poke_interval = 0;
        interp->next_poke_at = interp->poke_since + SUBHOST_MSEC(1);
    }
}

static void note_signal(const subhost_host *host, const subhost_signal_event *event)
{
    char name[16];
    const char *known = sigabbrev_np(event->signo);
    if (known)
        snprintf(name, sizeof name, "SIG%s", known);
    else
        snprintf(name, sizeof name, "SIGRTMIN%+d", event->signo - SIGRTMIN);
    NOTE_EVENT(host->trail, SIGNAL, 0, 0, TRAIL_TEXT(SIGNAL, name),
               TRAIL_NUMBER(HANDLED, event->handled),
               TRAIL_NUMBER(CANCELLED, event->cancelled),
               TRAIL_NUMBER(WAITING, event->waiting));
}

/* The first interpreter of the list that was made after number `serial`, or NULL. The list has
 * the newest first. */
static subhost_interp *oldest_after(subhost_interp *list, unsigned serial)
{
    subhost_interp *oldest = NULL;
    for (; list && list->serial > serial; list = list->next)
        oldest = list;
    return oldest;
}

static void route_to(subhost_interp *interp, bool cancels, subhost_signal_event *event)
{
    int signo = event->signo;
    if (atomic_load(&interp->signals_handled) & SIGNAL_BIT(signo)) {
        event->handled++;
        deliver(interp, signo);
        return;
    }
    if (!cancels || ignores(interp, signo))
        return;
    enum subhost_reason reason = signo == SIGINT ? SUBHOST_BY_SIGINT : SUBHOST_BY_SIGTERM;
    pthread_mutex_lock(&interp->lock);
    subhost_task *task = interp->current;
    bool waiting = interp->queue != NULL;
    if (task)
        subhost__task_ref(task);
    pthread_mutex_unlock(&interp->lock);
    if (!task && !waiting)
        return;
    if (task && subhost__cancel_is_under_way(interp))
        event->waiting++;
    else
        event->cancelled++;
    subhost__task_end_queue(interp, SUBHOST_CANCELLED, (int)reason,
                            subhost__reason_name(reason));
    if (task)
        subhost__cancel_request(interp, task, reason, NULL);
    subhost_task_release(task);
}

static void route(subhost_host *host, int signo)
{
    subhost_signal_event event = {.size = sizeof event, .signo = signo};
    bool cancels = host->options.take_signals && (signo == SIGINT || signo == SIGTERM);
    pthread_mutex_lock(&host->lock);
    subhost_interp *list = host->interps, *interp;
    host->stats.signals++;
    pthread_mutex_unlock(&host->lock);
    /* The oldest first: a task that is told of its children's end before it hears of its own
     * cancel would take that for a failure of theirs. */
    for (unsigned serial = 0; (interp = oldest_after(list, serial));
         serial = interp->serial)
        route_to(interp, cancels, &event);
    if (cancels && host->closing)
        subhost__host_hurry(host);
    if (host->options.take_signals && signo == SIGUSR1 && !event.handled &&
        subhost__policy_number(host->policy, POLICY_SIGNALS_STACKS))
        subhost__stacks_request(host, STDERR_FILENO);
    note_signal(host, &event);
    if (host->options.on_signal)
        host->options.on_signal(host, &event, host->options.on_signal_data);
}

int subhost__signals_dispatch(subhost_host *host)
{
    int events = 0;
    apply_mask();
    uint64_t count;
    if (read(host->signal_fd, &count, sizeof count) < 0)
        return 0;
    for (int signo = 1; signo < SUBHOST_NSIG; signo++) {
        for (unsigned n = atomic_exchange(&noted[signo], 0); n > 0; n--) {
            arrived_at[signo] = subhost__now();
            if (!host->up || arrived_at[signo] - injected_at[signo] >= ECHO_TIME)
                route(host, signo);
            atomic_fetch_add(&routed[signo], 1);
            events++;
        }
    }
    return events;
}

void subhost__signals_inject(subhost_host *host, int signo)
{
    if (signo < 1 || signo >= SUBHOST_NSIG ||
        subhost__now() - arrived_at[signo] < ECHO_TIME)
        return;
    injected_at[signo] = subhost__now();
    route(host, signo);
}

unsigned subhost__signals_routed(int signo)
{
    return signo > 0 && signo < SUBHOST_NSIG ? atomic_load(&routed[signo]) : 0;
}

bool subhost__signals_take(int signo)
{
    return signo > 0 && signo < SUBHOST_NSIG && signo != SUBHOST_KICK_SIGNAL &&
           atomic_load(&taken[signo]);
}

void subhost__signals_wait_routed(subhost_interp *interp, int signo, unsigned before)
{
    if (!subhost__signals_take(signo) ||
        (atomic_load(&interp->signals_blocked) & SIGNAL_BIT(signo)))
        return;
    /* The main loop needs some 50 us and no GIL; a slow one is not waited for. */
    int64_t deadline = subhost__now() + SUBHOST_MSEC(20);
    const struct timespec pause = {.tv_nsec = 10000};
    while (atomic_load(&routed[signo]) == before && subhost__now() < deadline)
        nanosleep(&pause, NULL);
}

/* ---- handlers, in the interpreter ----------------------------------------------- */

int subhost__signals_run(subhost_interp *interp)
{
    for (;;) {
        uint64_t pending = atomic_load(&interp->signals_pending);
        if (!pending)
            return 0;
        int signo = __builtin_ctzll(pending) + 1;
        atomic_fetch_and(&interp->signals_pending, ~SIGNAL_BIT(signo));
        if (subhost__module_run_handler(interp, signo) < 0)
            return -1;
    }
}
