/* SPDX-License-Identifier: MIT
 *
 * subhost.h - host several isolated CPython interpreters in one process.
 *
 * The process's main thread belongs to the C program: it opens the host, runs the
 * host's event loop (or lends the host's descriptor to a loop of its own) and never
 * holds a GIL. Each interpreter has a driver thread, on which its programs run.
 *
 * Conventions, which every function below keeps:
 *
 * - Functions that can fail return 0 or a negative code from `enum subhost_code`. When
 *   `err` is not NULL, a failure also stores an error object there, which the caller
 *   frees with subhost_error_free(). On success `*err` is left as it was.
 * - Times are int64_t nanoseconds; durations are relative, SUBHOST_FOREVER is none.
 * - Structs that the caller fills start with their size (SUBHOST_*_INIT sets it); an
 *   older, shorter struct works: what it lacks has its default. What a newer, longer one
 *   has beyond must be zero, which is its default.
 * - Options may be NULL, but for subhost_audit(): all of them have their defaults.
 * - Strings that go in are copied before the function returns. Strings that come out
 *   belong to the object they came from, unless said otherwise.
 * - The library never exits, aborts or prints over a caller's mistake.
 *
 * The effect line of each function says: the thread it may be called from (main: the
 * thread that opened the host; any: every thread, hosted or not), whether a GIL may be
 * held, and whether it may block. "Any thread." alone: GIL or not, does not block.
 */
#ifndef SUBHOST_H
#define SUBHOST_H

#include <stddef.h>
#include <stdint.h>

/* A struct with its size, and zeros: what the SUBHOST_*_INIT below are. */
#ifdef __cplusplus
template <typename T> inline T subhost_sized()
{
    T object = T();
    object.size = sizeof object;
    return object;
}
#define SUBHOST_INIT(type) subhost_sized<type>()
extern "C" {
#else
#define SUBHOST_INIT(type)                                                               \
    {                                                                                    \
        .size = sizeof(type)                                                             \
    }
#endif

#if defined(__GNUC__)
#define SUBHOST_API __attribute__((visibility("default")))
#else
#define SUBHOST_API
#endif

#define SUBHOST_FOREVER INT64_MAX
#define SUBHOST_MSEC(n) ((int64_t)(n)*1000000)

/* ---- errors --------------------------------------------------------------------- */

/* One list: code, value, what it means. */
#define SUBHOST_CODES(X)                                                                 \
    X(SUBHOST_EINVAL, -1, "an argument is invalid")                                      \
    X(SUBHOST_ENOMEM, -2, "out of memory")                                               \
    X(SUBHOST_ESYSTEM, -3, "a system call failed")                                       \
    X(SUBHOST_EPYTHON, -4, "CPython refused or failed")                                  \
    X(SUBHOST_ESTATE, -5, "not possible in the object's present state")                  \
    X(SUBHOST_ETHREAD, -6, "not allowed on this thread")                                 \
    X(SUBHOST_ETIMEDOUT, -7, "the deadline passed")                                      \
    X(SUBHOST_EAGAIN, -8, "full at the moment; try again")                               \
    X(SUBHOST_EQUARANTINED, -9, "the interpreter was abandoned")                         \
    X(SUBHOST_EUNSUPPORTED, -10, "not supported by this CPython or this system")         \
    X(SUBHOST_EFORBIDDEN, -11, "forbidden by a policy")

enum subhost_code {
    SUBHOST_OK = 0,
#define SUBHOST_CODE_ENUM(name, value, text) name = (value),
    SUBHOST_CODES(SUBHOST_CODE_ENUM)
#undef SUBHOST_CODE_ENUM
};

typedef struct subhost_error subhost_error;

/* The code of an error; SUBHOST_OK for NULL. Any thread, GIL or not, does not block. */
SUBHOST_API int subhost_error_code(const subhost_error *err);
/* What happened, outermost context first ("opening the host: ..."), one line. Owned by
 * the error. Any thread, GIL or not, does not block. */
SUBHOST_API const char *subhost_error_message(const subhost_error *err);
/* The text of a code; never NULL. Any thread, GIL or not, does not block. */
SUBHOST_API const char *subhost_code_text(int code);
/* Frees an error; NULL is allowed. Any thread, GIL or not, does not block. */
SUBHOST_API void subhost_error_free(subhost_error *err);

/* ---- versions ------------------------------------------------------------------- */

/* "0.1.0". Any thread, GIL or not, does not block. */
SUBHOST_API const char *subhost_version(void);
/* "subhost 0.1.0 (CPython 3.14.8, libffi 3.4.4, gcc 12.2.0)". Any thread, GIL or not,
 * does not block. */
SUBHOST_API const char *subhost_version_details(void);

/* "500ms", "1.5s", "2m", "1h", "1d", "0.3" as nanoseconds; SUBHOST_EINVAL: not a duration.
 * Any thread, GIL or not, does not block. */
SUBHOST_API int subhost_duration(const char *text, int64_t *ns);

/* ---- the host ------------------------------------------------------------------- */

typedef struct subhost_host subhost_host;
typedef struct subhost_interp subhost_interp;
typedef struct subhost_task subhost_task;
/* What hosted code may do, and how the host treats it: docs/policy.md has the keys. */
typedef struct subhost_policy subhost_policy;

enum subhost_doorbell {
    SUBHOST_DOORBELL_AUTO = 0,   /* the pending call where its self-check passes */
    SUBHOST_DOORBELL_ATTACH = 1, /* force the documented fallback: attach a thread */
};

/* What a forked child does when the process that asked for it, or the root, is gone. */
enum subhost_orphan {
    SUBHOST_ORPHAN_CANCEL = 0, /* its task is cancelled, within the grace period */
    SUBHOST_ORPHAN_DETACH = 1, /* its task runs to its end */
    SUBHOST_ORPHAN_KILL = 2,   /* it ends at once */
};

/* A line of captured output, without its end. A longer one than 64 KiB comes in pieces. */
typedef struct subhost_output {
    size_t size;
    const char *name; /* of the task that wrote it */
    int stream;       /* 1: stdout, 2: stderr */
    const char *text; /* bytes; not terminated, valid during the call */
    size_t length;
} subhost_output;

enum subhost_output_answer {
    SUBHOST_OUTPUT_TAKEN = 0,
    SUBHOST_OUTPUT_FULL = 1,
    SUBHOST_OUTPUT_CLOSED = 2,
};

/* What the host did with a signal that it took on the main thread. */
typedef struct subhost_signal_event {
    size_t size;
    int signo;
    unsigned handled;   /* interpreters whose program has a handler for it */
    unsigned cancelled; /* interpreters whose cancel it began */
    unsigned waiting;   /* interpreters whose cancel was under way already */
} subhost_signal_event;

typedef struct subhost_options {
    size_t size;
    /* The interpreter that sys.executable names; NULL: $VIRTUAL_ENV's if that is of the
     * same version, else the one subhost was built with. */
    const char *executable;
    /* Non-zero: SIGINT and SIGTERM are taken and cancel what runs (programs that have
     * handlers of their own get these called instead), SIGUSR1 dumps the Python stacks,
     * SIGPIPE and SIGXFSZ are ignored as python does. 0: the embedder's dispositions
     * stay as they are, but for SIGURG, which interrupts blocking calls in either case;
     * only what a program asks for by signal.signal() is taken, and given back when no
     * program wants it any more. Python expects SIGPIPE to be ignored: an embedder that
     * leaves it at its default ends when a program writes to a closed pipe. */
    int take_signals;
    /* Called on the main thread, out of subhost_dispatch(), after a signal was routed. */
    void (*on_signal)(subhost_host *host, const subhost_signal_event *event, void *data);
    void *on_signal_data;
    enum subhost_doorbell doorbell;
    /* Non-zero: leave blocking libc calls alone. A blocked thread is then interrupted
     * only where CPython itself can do it. */
    int no_interruptible_calls;
    /* Where the trail goes: what the host does and why, one JSON object a line (docs/trail.md);
     * NULL: none. The file is truncated. */
    const char *trail;
    /* Modules imported once, in the main interpreter, before the first fork: every forked
     * child has them already. NULL, or names up to a NULL; they outlive the host. */
    const char *const *preload;
    enum subhost_orphan orphan;
    /* Non-NULL: what programs write to sys.stdout and sys.stderr, and forked children to
     * descriptors 1 and 2, goes through pipes that subhost_dispatch() drains, and comes here
     * line by line, on the main thread. What it returns: SUBHOST_OUTPUT_TAKEN; _FULL: taken, but
     * who writes shall wait for a moment; _CLOSED: nobody reads it any more, who writes gets
     * EPIPE from then on. */
    int (*on_output)(subhost_host *host, const subhost_output *output, void *data);
    void *on_output_data;
    /* Non-zero: no fork while subinterpreters live (docs/private-symbols.md). */
    int no_sibling_detach;
    /* NULL: the preset "default". What is set above goes before it; a copy is kept. */
    const subhost_policy *policy;
    /* The trail's rotation. A file that would grow beyond `trail_limit` bytes becomes FILE.1,
     * and a new one is begun; `trail_files` older ones are kept (0: one). 0: no limit. Of
     * pipes, devices and symbolic links there is but one. */
    int64_t trail_limit;
    unsigned trail_files;
    /* Audit events of Python's (PEP 578) that the trail has, too: those whose names begin with
     * one of these ("open", "socket.", "subprocess."). NULL, or names up to a NULL. */
    const char *const *trail_python_events;
} subhost_options;

#define SUBHOST_OPTIONS_INIT SUBHOST_INIT(subhost_options)

/* Boots CPython on the calling thread, which becomes the main thread, and detaches from
 * it. One host at a time. In a process that is forked from the host's by other means than its
 * own, host and handles are dead copies: what can fail says SUBHOST_ESTATE, subhost_open() and
 * subhost_close() as well, the rest does nothing; until an exec. So are, in a forked child of
 * the host's own, the handles from before the fork. Main thread, no GIL, blocks for some 10 ms. */
SUBHOST_API int subhost_open(const subhost_options *options, subhost_host **host,
                             subhost_error **err);

/* How subhost_close() leaves CPython. */
enum subhost_close_mode {
    SUBHOST_CLOSE_FINALIZE = 0, /* Py_FinalizeEx(); a host can be opened again after it */
    SUBHOST_CLOSE_EXITING = 1,  /* the process ends right after: skip what it frees */
};

/* Cancels what still runs, ends the interpreters within `grace`, frees the host. A `grace` of
 * SUBHOST_FOREVER waits for what they finalize, however long that takes; what is cancelled
 * has its own grace period then. A SIGINT or SIGTERM that is taken meanwhile leaves all of
 * them the policy's cancel.grace from then on. With abandoned interpreters CPython cannot be
 * finalized: the host is freed as far as their threads allow and SUBHOST_EQUARANTINED is
 * returned; another one cannot be opened then.
 *
 * `host` is not to be used afterwards, on other threads not meanwhile: functions that can
 * fail say SUBHOST_ESTATE, this one as well, at least until another one is opened. Handles of
 * interpreters, tasks and callbacks are valid until they are given back, on every thread,
 * also while the host closes: a task tells its outcome, and what is submitted or sent is
 * refused with SUBHOST_ESTATE. Not in a callback of the host's (on_end, on_signal, on_output,
 * on_done), which is SUBHOST_ESTATE. Main thread, no GIL, blocks up to `grace` plus 100 ms,
 * and half a second more where the trail's file takes nothing. What the first fork still
 * imports, site or what is preloaded, is left by KeyboardInterrupt; C code in it that does
 * not return is left behind like an abandoned interpreter, for which close waits a second and
 * a half more. */
SUBHOST_API int subhost_close(subhost_host *host, enum subhost_close_mode mode,
                              int64_t grace, subhost_error **err);

/* A descriptor that is readable when subhost_dispatch() has something to do; owned by
 * the host. Any thread, GIL or not, does not block. */
SUBHOST_API int subhost_fd(const subhost_host *host);

/* Handles what is due (signals, cancels, deadlines, ended tasks) and runs the callbacks;
 * with nothing due it waits up to `timeout` for the first wake-up. Returns the number of
 * signals and ended tasks it handled, which may be 0, or a negative code. Main thread, no
 * GIL, blocks up to `timeout`. */
SUBHOST_API int subhost_dispatch(subhost_host *host, int64_t timeout,
                                 subhost_error **err);

/* Which doorbell is in use: "pending-call", or "attach: REASON". Owned by the host. Any
 * thread, GIL or not, does not block. */
SUBHOST_API const char *subhost_doorbell_name(const subhost_host *host);

/* Whether blocking libc calls of hosted threads can be interrupted: "on", or "off: REASON".
 * Never NULL. Any thread, GIL or not, does not block. */
SUBHOST_API const char *subhost_interruptible_calls(const subhost_host *host);

typedef struct subhost_stats {
    size_t size;
    uint64_t interpreters_created;
    uint64_t interpreters_ended;
    uint64_t interpreters_abandoned;
    uint64_t tasks_started;
    uint64_t tasks_ended;
    uint64_t cancels;
    int64_t cancel_latency_last; /* request to the first exception raised, ns; 0: none */
    int64_t cancel_latency_max;
    uint64_t messages; /* drained from all channels */
    uint64_t signals;
    uint64_t forks;               /* in the root: of the whole tree */
    uint64_t callbacks;           /* calls of function pointers that call Python */
    uint64_t callbacks_defaulted; /* those that returned their default */
    uint64_t trail_events; /* noted, lost ones too; in the root: in the whole tree */
    uint64_t trail_lost;   /* because the file did not take them in time */
} subhost_stats;

#define SUBHOST_STATS_INIT SUBHOST_INIT(subhost_stats)

/* Copies the counters; the caller has set stats->size. Any thread, GIL or not, does not
 * block. */
SUBHOST_API void subhost_get_stats(subhost_host *host, subhost_stats *stats);

/* Waits until the trail's file has all that was noted so far; 0 without a trail, and in a
 * forked child. SUBHOST_ESYSTEM: it cannot be written, which is tried again and again;
 * SUBHOST_ETIMEDOUT: nobody reads the pipe that it is. Any thread, no GIL, blocks up to
 * `timeout`. */
SUBHOST_API int subhost_trail_flush(subhost_host *host, int64_t timeout,
                                    subhost_error **err);

/* Non-zero when quarantine.limit is reached and quarantine.action is "recycle": whoever runs
 * the host should replace its process soon. Any thread, GIL or not, does not block. */
SUBHOST_API int subhost_recycle_wanted(const subhost_host *host);

/* Writes the Python stacks of all threads of all interpreters to `fd` without stopping
 * them; a thread that does not reach a safe point within 100 ms is reported from /proc
 * instead. What the reader of `fd` does not take within 100 ms is dropped. Main thread, no
 * GIL, blocks up to 200 ms. */
SUBHOST_API int subhost_dump_stacks(subhost_host *host, int fd, subhost_error **err);

/* ---- interpreters --------------------------------------------------------------- */

enum subhost_gil {
    SUBHOST_GIL_OWN = 0,    /* PEP 684: modules without support for it are refused */
    SUBHOST_GIL_SHARED = 1, /* the main interpreter's; every extension module loads */
};

/* Where an interpreter lives. */
enum subhost_isolation {
    SUBHOST_ISOLATION_INTERPRETER = 0, /* a subinterpreter of this process */
    SUBHOST_ISOLATION_PROCESS =
        1, /* the main interpreter of a forked child: every extension
                                    * module loads, and it can always be killed */
};

typedef struct subhost_interp_options {
    size_t size;
    const char *name; /* of the driver thread, 15 bytes show; NULL: "py/N" */
    enum subhost_gil gil;
    int worker; /* subhost.current().worker */
    enum subhost_isolation isolation;
    /* What is given in it goes before the host's policy, but for keys of the host; NULL: the
     * host's. A copy is kept. */
    const subhost_policy *policy;
} subhost_interp_options;

#define SUBHOST_INTERP_OPTIONS_INIT SUBHOST_INIT(subhost_interp_options)

/* Starts a driver thread that creates an interpreter. Returns at once; tasks submitted
 * meanwhile wait for it, and have the outcome `failed` if it cannot be created. The host
 * owns the interpreter; subhost_interp_release() gives this handle back. Any thread, GIL
 * or not, does not block. */
SUBHOST_API int subhost_interp_create(subhost_host *host,
                                      const subhost_interp_options *options,
                                      subhost_interp **interp, subhost_error **err);

/* Ends the interpreter after the tasks that it has got so far, as far as it still can be
 * ended, and gives the handle back; also when its host is closed already. Any thread, GIL
 * or not, does not block. */
SUBHOST_API void subhost_interp_release(subhost_interp *interp);

/* Puts a message into the interpreter's channel: `function(data)` is called once, on one
 * of its threads, with its GIL held, between two bytecodes or inside an interruptible
 * call; messages of one sending thread keep their order. An exception that it leaves set
 * is raised there. SUBHOST_EAGAIN: the ring is full. Any thread, GIL or not, does not
 * block, not from a signal handler. */
SUBHOST_API int subhost_interp_send(subhost_interp *interp, void (*function)(void *data),
                                    void *data, subhost_error **err);

/* ---- tasks ---------------------------------------------------------------------- */

enum subhost_program_kind {
    SUBHOST_PROGRAM_FILE = 0,   /* source: a path; "-": standard input */
    SUBHOST_PROGRAM_MODULE = 1, /* source: a module's name */
    SUBHOST_PROGRAM_CODE = 2,   /* source: Python code */
    SUBHOST_PROGRAM_INPUT =
        3, /* source: Python code, which was read from standard input */
};

/* One list: outcome, its name. */
#define SUBHOST_OUTCOMES(X)                                                              \
    X(SUBHOST_RETURNED, "returned")   /* the program came to its end */                  \
    X(SUBHOST_RAISED, "raised")       /* detail: type and message */                     \
    X(SUBHOST_CANCELLED, "cancelled") /* detail: the reason */                           \
    X(SUBHOST_TIMED_OUT, "timed-out") /* its deadline passed */                          \
    X(SUBHOST_EXITED, "exited")       /* code: sys.exit()'s */                           \
    X(SUBHOST_KILLED, "killed")       /* code: the signal */                             \
    X(SUBHOST_ABANDONED, "abandoned") /* it could not be interrupted */                  \
    X(SUBHOST_FAILED, "failed") /* not started, or its end is unknown; detail: why */

enum subhost_outcome_kind {
#define SUBHOST_OUTCOME_ENUM(name, text) name,
    SUBHOST_OUTCOMES(SUBHOST_OUTCOME_ENUM)
#undef SUBHOST_OUTCOME_ENUM
};

/* Why a cancel was asked for. */
#define SUBHOST_REASONS(X)                                                               \
    X(SUBHOST_BY_REQUEST, "cancelled")                                                   \
    X(SUBHOST_BY_DEADLINE, "deadline")                                                   \
    X(SUBHOST_BY_SIGINT, "SIGINT")                                                       \
    X(SUBHOST_BY_SIGTERM, "SIGTERM")                                                     \
    X(SUBHOST_BY_CLOSE, "host closes")                                                   \
    X(SUBHOST_BY_ORPHAN, "parent is gone")

enum subhost_reason {
#define SUBHOST_REASON_ENUM(name, text) name,
    SUBHOST_REASONS(SUBHOST_REASON_ENUM)
#undef SUBHOST_REASON_ENUM
};

typedef struct subhost_outcome {
    size_t size;
    enum subhost_outcome_kind kind;
    int code; /* exited: the status; killed: the signal; raised: 1, or of a call 2: its
               * argument was none that an object can be made of */
    const char *detail; /* owned by the task; "" when there is none */
    int cancel_reason;  /* enum subhost_reason when a cancel was asked for, else -1 */
    int status;         /* what the program's process would have exited with */
    int64_t duration;   /* from its start to its end, ns */
} subhost_outcome;

#define SUBHOST_OUTCOME_INIT SUBHOST_INIT(subhost_outcome)

/* The name of an outcome, "returned"; never NULL. Any thread. */
SUBHOST_API const char *subhost_outcome_name(enum subhost_outcome_kind kind);

typedef struct subhost_program {
    size_t size;
    enum subhost_program_kind kind;
    const char *source;
    int argc; /* arguments behind the program, as bytes: need not be UTF-8 */
    const char *const *argv;
} subhost_program;

#define SUBHOST_PROGRAM_INIT SUBHOST_INIT(subhost_program)

typedef struct subhost_task_options {
    size_t size;
    const char *name; /* NULL: the first line of the program's source */
    int64_t timeout;  /* from the task's start; 0 or SUBHOST_FOREVER: none */
    int64_t grace;    /* from a cancel to abandonment; 0: the policy's, which is 2 s */
    /* Called once on the main thread, out of subhost_dispatch(), when the task ended in
     * whatever way. */
    void (*on_end)(subhost_task *task, void *data);
    void *on_end_data;
    /* Non-zero: the interpreter is replaced by a new one after this task. */
    int fresh;
    /* What is given in it narrows the interpreter's policy, else SUBHOST_EFORBIDDEN; keys of
     * host and interpreter stay as they are. NULL: the interpreter's. A copy is kept. */
    const subhost_policy *policy;
} subhost_task_options;

#define SUBHOST_TASK_OPTIONS_INIT SUBHOST_INIT(subhost_task_options)

/* Queues a program for the interpreter. The caller owns the handle it gets and frees it
 * with subhost_task_release(), at any time. SUBHOST_ESTATE: the interpreter was released or
 * has ended, or its host is closed. Any thread, GIL or not, does not block. */
SUBHOST_API int subhost_submit(subhost_interp *interp, const subhost_program *program,
                               const subhost_task_options *options, subhost_task **task,
                               subhost_error **err);

/* Waits for the task's one terminal event and stores its outcome (which may be NULL) in
 * `outcome`, whose size the caller has set; SUBHOST_ETIMEDOUT when `timeout` passes
 * first. On the main thread it dispatches while it waits. All tasks have ended when their
 * host is closed. Any thread but a hosted one that holds a GIL; blocks up to `timeout`. */
SUBHOST_API int subhost_task_wait(subhost_task *task, int64_t timeout,
                                  subhost_outcome *outcome, subhost_error **err);

/* Asks for the task's end; what follows is the ladder described in docs/cancel.md. `text` is
 * what subhost.Cancelled has as its reason; NULL: that of `reason`. A second request changes
 * nothing, and neither does one after the task's end. Any thread, GIL or not, does not block,
 * not from a signal handler. */
SUBHOST_API void subhost_task_cancel(subhost_task *task, enum subhost_reason reason,
                                     const char *text);

/* The task's name; owned by the task. Any thread. */
SUBHOST_API const char *subhost_task_name(const subhost_task *task);

/* Gives the handle back; NULL is allowed. Any thread, GIL or not, does not block. */
SUBHOST_API void subhost_task_release(subhost_task *task);

/* ---- policies ------------------------------------------------------------------- */

/* Loads a preset by its name, or a TOML file by its path; NULL: the preset "default". The
 * caller owns it. A file with problems is SUBHOST_EINVAL; the error has the first of them,
 * subhost_policy_check() all. Where no host is open, CPython is started for a file, and ended
 * again. Any thread (main, when no host is open), no GIL, blocks for a file. */
SUBHOST_API int subhost_policy_load(const char *name, subhost_policy **policy,
                                    subhost_error **err);
/* Sets one key: "exec.allow=false". `origin` is what subhost_policy_show() says of it; NULL:
 * "--set". Not while another thread uses the policy. Any thread, GIL or not, does not
 * block. */
SUBHOST_API int subhost_policy_set(subhost_policy *policy, const char *assignment,
                                   const char *origin, subhost_error **err);
/* The value of a key, as subhost_policy_set() takes it; NULL: no such key. Owned by the
 * policy, until it is asked for the same key again. Any thread, GIL or not, does not block. */
SUBHOST_API const char *subhost_policy_get(subhost_policy *policy, const char *key);
/* 0, or SUBHOST_EINVAL with two keys that cannot be together. What takes a policy asks it.
 * Any thread, GIL or not, does not block. */
SUBHOST_API int subhost_policy_is_valid(const subhost_policy *policy,
                                        subhost_error **err);
/* Every key with its value and where that came from, as a policy file would have it; NULL:
 * out of memory. Owned by the policy, until the next call. Any thread, GIL or not, does not
 * block. */
SUBHOST_API const char *subhost_policy_show(subhost_policy *policy);
/* Reads a policy as subhost_policy_load() does, and calls `problem` for each problem: "FILE:
 * LINE: KEY: what is wrong". Returns how many there are, or a negative code when it could not
 * be read. As subhost_policy_load(). */
SUBHOST_API int subhost_policy_check(const char *name,
                                     void (*problem)(const char *line, void *data),
                                     void *data, subhost_error **err);
/* Frees it; NULL is allowed. Who was given the policy keeps a copy. Any thread, GIL or not,
 * does not block. */
SUBHOST_API void subhost_policy_free(subhost_policy *policy);

/* The presets, by index: the name, and whom it serves in `*serves`, if that is not NULL; NULL
 * past the end. Any thread, GIL or not, does not block. */
SUBHOST_API const char *subhost_policy_preset_at(size_t index, const char **serves);

/* One key. */
typedef struct subhost_policy_key {
    size_t size;
    const char *name; /* "cancel.grace" */
    const char
        *type; /* "true|false", "word", "number", "duration", "size", "words", "text" */
    const char *allowed;  /* the words, "least..most", or "" */
    const char *value;    /* the default */
    const char *narrower; /* what of its values is the narrower one; "-": none */
    const char *scope;    /* "host", "interpreter" or "task": for what it can be set */
    const char *help;     /* one line */
} subhost_policy_key;

#define SUBHOST_POLICY_KEY_INIT SUBHOST_INIT(subhost_policy_key)

/* The keys, by index; SUBHOST_EINVAL past the end. The caller has set key->size. Any thread,
 * GIL or not, does not block. */
SUBHOST_API int subhost_policy_key_at(size_t index, subhost_policy_key *key);

/* ---- audits --------------------------------------------------------------------- */

/* One list: audit, its name; behind it what `names` are. */
#define SUBHOST_AUDITS(X)                                                                \
    X(SUBHOST_AUDIT_HOST, "host")       /* probes; none: all of them */                  \
    X(SUBHOST_AUDIT_MODULES, "modules") /* modules, distributions, files; none: all */   \
    X(SUBHOST_AUDIT_TRAIL, "trail")     /* the trail's file; its older ones are found */

enum subhost_audit_kind {
#define SUBHOST_AUDIT_ENUM(name, text) name,
    SUBHOST_AUDITS(SUBHOST_AUDIT_ENUM)
#undef SUBHOST_AUDIT_ENUM
};

/* One list: format of a report, its name. */
#define SUBHOST_FORMATS(X)                                                               \
    X(SUBHOST_FORMAT_TEXT, "text")     /* for people; coloured on a terminal */          \
    X(SUBHOST_FORMAT_JSON, "json")     /* docs/report.schema.json */                     \
    X(SUBHOST_FORMAT_TAP, "tap")       /* version 14, for prove and its like */          \
    X(SUBHOST_FORMAT_HTML, "html")     /* one file that needs no other */                \
    X(SUBHOST_FORMAT_CHROME, "chrome") /* of a trail, for ui.perfetto.dev */

enum subhost_format {
#define SUBHOST_FORMAT_ENUM(name, text) name,
    SUBHOST_FORMATS(SUBHOST_FORMAT_ENUM)
#undef SUBHOST_FORMAT_ENUM
};

typedef struct subhost_audit_options {
    size_t size;
    enum subhost_audit_kind kind;
    enum subhost_format format;
    const char
        *output; /* a file, written whole and then renamed; NULL: standard output */
    int count;   /* of names */
    const char *const *names;
    int jobs;    /* examined at the same time; 0: as many as there are processors */
    int verbose; /* non-zero: all that is known of each item, in text */
    /* Of modules: how long one import may take, 0: 10 s; and a file in which results are
     * kept, so that an audit which was ended goes on where it was, NULL: none. */
    int64_t timeout;
    const char *resume;
    /* Called after each item of `total`, on whatever thread; must not block. */
    void (*on_progress)(unsigned done, unsigned total, const char *name, void *data);
    void *on_progress_data;
} subhost_audit_options;

#define SUBHOST_AUDIT_OPTIONS_INIT SUBHOST_INIT(subhost_audit_options)

/* Examines, writes the report, and returns the number of findings: 0 when all is as it
 * should be. What is examined runs in throwaway children; a host of its own makes the
 * report. SIGINT and SIGTERM end it early; then SUBHOST_ESTATE is returned, after the signal
 * has had the effect that the process set for it. Main thread while no host is open and
 * CPython is not initialized, no GIL, blocks until it is done, forks. */
SUBHOST_API int subhost_audit(const subhost_audit_options *options, subhost_error **err);
/* ---- buffers ---------------------------------------------------------------------- */

/* Memory that crosses the boundary by reference: nothing of it is copied between C and an
 * interpreter, or between two interpreters of one process. Both sides see the same bytes; who
 * writes while another reads sees to that. A process gets a copy. */
typedef struct subhost_buffer subhost_buffer;

/* What a buffer is: items that lie one after another, the last dimension fastest. */
typedef struct subhost_memory {
    size_t size;
    void *address;
    size_t length; /* in bytes */
    int writable;  /* non-zero: by Python, too */
    /* Of an item, as in Python's module struct ("d"), and its size; NULL and 0: bytes. With a
     * format of one letter the size may be 0. */
    const char *format;
    size_t item_size;
    int dimensions; /* at most SUBHOST_DIMENSIONS; 0: one, of all items */
    const size_t *shape;
} subhost_memory;

#define SUBHOST_MEMORY_INIT SUBHOST_INIT(subhost_memory)

#define SUBHOST_DIMENSIONS 16

/* Gives memory back: called exactly once, when nobody has the buffer any more, in whatever
 * way its interpreters have ended, on whatever thread had it last, with or without a GIL. It
 * must not block and must not call Python. `in_use`: an interpreter that had the buffer was
 * abandoned, and a thread of it that cannot be stopped may use the memory for ever: do not
 * unmap it, and do not use it again. */
typedef void (*subhost_release)(void *address, int in_use, void *data);

/* A buffer of the caller's memory, with one reference. `release` may be NULL. On a failure it
 * is not called. Any thread, GIL or not, does not block. */
SUBHOST_API int subhost_buffer_new(const subhost_memory *memory, subhost_release release,
                                   void *data, subhost_buffer **buffer,
                                   subhost_error **err);
/* Tells what it is; the caller has set memory->size. Valid as long as the buffer is held. Of
 * one that Python made that holds after the end of its interpreter, too: memory that is still
 * referred to then is given back to the system by the end of the process, not before. Any
 * thread, GIL or not, does not block. */
SUBHOST_API void subhost_buffer_get(const subhost_buffer *buffer, subhost_memory *memory);
/* One more reference; returns `buffer`. Any thread, GIL or not, does not block. */
SUBHOST_API subhost_buffer *subhost_buffer_hold(subhost_buffer *buffer);
/* Gives one back; NULL is allowed; the host may be closed before. What belongs to Python is
 * released by its interpreter, soon. Any thread, GIL or not, does not block. */
SUBHOST_API void subhost_buffer_release(subhost_buffer *buffer);

/* ---- values --------------------------------------------------------------------- */

/* What crosses the boundary between a host and an interpreter, in an encoding of the host's
 * own (of this process and this version: not for storage). One list: kind, its name. */
#define SUBHOST_VALUE_KINDS(X)                                                           \
    X(SUBHOST_VALUE_NONE, "None")                                                        \
    X(SUBHOST_VALUE_BOOL, "bool")     /* integer: 0 or 1 */                              \
    X(SUBHOST_VALUE_INT, "int")       /* integer: what fits into 64 bits */              \
    X(SUBHOST_VALUE_BIGINT, "bigint") /* data: two's complement, little-endian */        \
    X(SUBHOST_VALUE_FLOAT, "float")   /* number */                                       \
    X(SUBHOST_VALUE_STR, "str")       /* data: UTF-8; a lone surrogate as three bytes */ \
    X(SUBHOST_VALUE_BYTES, "bytes")   /* data */                                         \
    X(SUBHOST_VALUE_LIST, "list")     /* length: how many values follow */               \
    X(SUBHOST_VALUE_TUPLE, "tuple")   /* length: how many values follow */               \
    X(SUBHOST_VALUE_DICT, "dict")     /* length: how many pairs of values follow */      \
    X(SUBHOST_VALUE_PICKLE, "pickle") /* data: of any other object */                    \
    X(SUBHOST_VALUE_JSON, "json")     /* data: a JSON text; json.loads() makes it */     \
    X(SUBHOST_VALUE_BUFFER, "buffer") /* buffer: a memoryview; data: its memory */

enum subhost_value_kind {
#define SUBHOST_VALUE_KIND_ENUM(name, text) name,
    SUBHOST_VALUE_KINDS(SUBHOST_VALUE_KIND_ENUM)
#undef SUBHOST_VALUE_KIND_ENUM
};

#define SUBHOST_VALUE_DEPTH 2100      /* lists, tuples and dicts inside one another */
#define SUBHOST_VALUE_SIZE UINT32_MAX /* bytes of one value, encoded */

/* One value, or a part of one that is being put together. */
typedef struct subhost_value subhost_value;

/* The name of a kind, "list"; never NULL. Any thread. */
SUBHOST_API const char *subhost_value_kind_name(enum subhost_value_kind kind);

/* An empty value, to be freed with subhost_value_free(). Any thread; one at a time may use a
 * value. */
SUBHOST_API int subhost_value_new(subhost_value **value, subhost_error **err);
/* Frees it; NULL is allowed. Any thread, GIL or not, does not block. */
SUBHOST_API void subhost_value_free(subhost_value *value);
/* Makes it empty; its memory stays for what is put in next. Any thread. */
SUBHOST_API void subhost_value_clear(subhost_value *value);

/* These put in one value, or the next of the list, tuple or dict that was begun last (of a
 * dict: key, value, key, value ...). Each returns 0 or a code; the first failure stays, so
 * that one look, by subhost_value_check(), is enough. Data is copied. Any thread. */
SUBHOST_API int subhost_value_add_none(subhost_value *value);
SUBHOST_API int subhost_value_add_bool(subhost_value *value, int truth);
SUBHOST_API int subhost_value_add_int(subhost_value *value, int64_t integer);
/* Two's complement, little-endian. Any thread. */
SUBHOST_API int subhost_value_add_bigint(subhost_value *value, const void *bytes,
                                         size_t length);
SUBHOST_API int subhost_value_add_float(subhost_value *value, double number);
/* UTF-8. What is not, is found where the value becomes an object. Any thread. */
SUBHOST_API int subhost_value_add_str(subhost_value *value, const char *text,
                                      size_t length);
SUBHOST_API int subhost_value_add_bytes(subhost_value *value, const void *bytes,
                                        size_t length);
/* A JSON text, of which the interpreter makes an object by json.loads(). Any thread. */
SUBHOST_API int subhost_value_add_json(subhost_value *value, const char *text,
                                       size_t length);
/* By reference: a memoryview in Python. The value takes a reference of its own.
 * Any thread. */
SUBHOST_API int subhost_value_add_buffer(subhost_value *value, subhost_buffer *buffer);
/* SUBHOST_VALUE_LIST, _TUPLE or _DICT; what follows is in there, until the end. */
SUBHOST_API int subhost_value_begin(subhost_value *value, enum subhost_value_kind kind);
SUBHOST_API int subhost_value_end(subhost_value *value);

/* 0 when it is one whole value; else says what is wrong. Any thread. */
SUBHOST_API int subhost_value_check(const subhost_value *value, subhost_error **err);

/* Its encoded bytes, owned by the value until it is changed. Any thread. */
SUBHOST_API const void *subhost_value_data(const subhost_value *value, size_t *size);
/* Takes a copy of encoded bytes, and checks them; those of a value with buffers do not do:
 * subhost_value_copy(). Any thread. */
SUBHOST_API int subhost_value_load(subhost_value *value, const void *data, size_t size,
                                   subhost_error **err);
/* Makes it the same as another; buffers are in both. Any thread. */
SUBHOST_API int subhost_value_copy(subhost_value *value, const subhost_value *from,
                                   subhost_error **err);

/* One step through a value. */
typedef struct subhost_item {
    size_t size;
    enum subhost_value_kind kind;
    int64_t integer;
    double number;
    const void *data;       /* in the value; not terminated */
    size_t length;          /* of data in bytes; of a list, tuple or dict: what follows */
    subhost_buffer *buffer; /* the value's; subhost_buffer_hold() to have it longer */
} subhost_item;

#define SUBHOST_ITEM_INIT SUBHOST_INIT(subhost_item)

/* Reads a value from its beginning: `*at` is 0 before the first call. 1: there was one more
 * item; 0: that was all; a negative code: the bytes make no sense. Any thread. */
SUBHOST_API int subhost_value_next(const subhost_value *value, size_t *at,
                                   subhost_item *item, subhost_error **err);

/* ---- pools and calls ------------------------------------------------------------ */

/* Interpreters that are kept warm and call functions: lighter than a task for each call. */
typedef struct subhost_pool subhost_pool;
/* A function that a pool's interpreters can call; the pool owns it. */
typedef struct subhost_function subhost_function;
/* One call: an argument, and then a result. It can be used again and again. */
typedef struct subhost_call subhost_call;

typedef struct subhost_pool_options {
    size_t size;
    const char *name; /* of its interpreters, with a number behind; NULL: "pool" */
    int workers;      /* that call at the same time; 0: as many as CPUs */
    int spares;       /* more that are ready, in case one has to be replaced */
    enum subhost_gil gil;
    enum subhost_isolation isolation;
    int64_t timeout; /* of each call, from its start; 0 or SUBHOST_FOREVER: none */
    int64_t grace;   /* from a cancel to abandonment; 0: 2 s */
    /* Calls after which an interpreter is replaced by a warm one; 0: never. */
    uint64_t recycle_calls;
    /* Bytes by which the process may grow before one is; 0: no matter. */
    uint64_t recycle_growth;
    /* How many calls it holds at most, from submit to take; 0: 1024. */
    unsigned calls;
    const char
        *path0; /* in front of sys.path, as python -m has its directory; NULL: none */
    /* Non-zero: a result must be None, bool, int, float, str, bytes, list, tuple or dict, or
     * derived from one of these; anything else is a TypeError. 0: other objects are pickled. */
    int plain;
    /* Non-zero: sys.stdout of its interpreters is their sys.stderr. */
    int stdout_to_stderr;
    /* Called on the main thread, out of subhost_dispatch(), when there are calls to take;
     * NULL: who takes waits. */
    void (*on_done)(subhost_pool *pool, void *data);
    void *on_done_data;
    int warm; /* of the workers, made at once and at the same time; 0: as they are needed */
    /* Non-zero: an interpreter makes one call, and the next is made by a fresh one. */
    int fresh;
    /* Non-zero: an interpreter is reset after each call. The program's own modules, all but the
     * standard library, what is in site-packages, and extension modules, are imported anew by
     * the next; what the call has changed of sys, builtins, __main__, os.environ, warnings'
     * filters, contextvars and signal handlers is put back, and in a process the working
     * directory and the umask. What libraries keep, and threads, stay. */
    int reset;
} subhost_pool_options;

#define SUBHOST_POOL_OPTIONS_INIT SUBHOST_INIT(subhost_pool_options)

/* Opens a pool; its interpreters come as they are needed, or those of `warm` at the next
 * subhost_dispatch(), with the functions that were prepared by then imported. Deadlines,
 * replacements and, with SUBHOST_ISOLATION_PROCESS, the calls themselves need the main thread
 * in subhost_dispatch(). Main thread, no GIL, does not block. */
SUBHOST_API int subhost_pool_open(subhost_host *host, const subhost_pool_options *options,
                                  subhost_pool **pool, subhost_error **err);

/* Prepares "module:function"; of a function inside something, "module:a.b". It is imported
 * where it is first called: a call of one that is not there is SUBHOST_FAILED, with status
 * 127, of one that cannot be imported or called with 126. Any thread, GIL or not, does not
 * block. */
SUBHOST_API int subhost_pool_function(subhost_pool *pool, const char *name,
                                      subhost_function **function, subhost_error **err);

/* A call of a function; its argument is to be put together. The caller's, to be freed with
 * subhost_call_free() when it is not in the pool. `data` is the caller's own. Any thread. */
SUBHOST_API int subhost_call_new(subhost_function *function, void *data,
                                 subhost_call **call, subhost_error **err);
SUBHOST_API void subhost_call_free(subhost_call *call);
SUBHOST_API void *subhost_call_data(const subhost_call *call);
/* The one argument; clear it before the next use. Not while it is in the pool. Any thread. */
SUBHOST_API subhost_value *subhost_call_argument(subhost_call *call);
/* Has it import its function, and no more: it returns None, or fails as a call would whose
 * function is not there. Not while it is in the pool. Any thread. */
SUBHOST_API void subhost_call_import_only(subhost_call *call);
/* What came of it, after subhost_pool_take(): the result of one that has SUBHOST_RETURNED;
 * of any other the outcome's detail says what happened ("ValueError: ..."), and the
 * traceback, which may be "", where. Owned by the call until it is used again. Any thread. */
SUBHOST_API const subhost_value *subhost_call_result(const subhost_call *call);
SUBHOST_API void subhost_call_outcome(const subhost_call *call, subhost_outcome *outcome);
SUBHOST_API const char *subhost_call_traceback(const subhost_call *call);

/* Puts calls into the pool, which has them until they are taken out again. Returns how many,
 * from the first on; 0 when it has been full for `timeout`. SUBHOST_EINVAL: one is of another
 * pool's function; SUBHOST_ESTATE: one is in the pool already, or the pool is closed, perhaps
 * while this waited. Any thread, GIL or not; blocks up to `timeout`. */
SUBHOST_API int subhost_pool_submit(subhost_pool *pool, subhost_call *const *calls,
                                    size_t n, int64_t timeout, subhost_error **err);

/* Takes out up to `n` calls that have ended, in no order; 0: `timeout` has passed, or
 * subhost_pool_wake() was called. SUBHOST_ESTATE: the pool is closed, perhaps while this
 * waited. One thread at a time, GIL or not; blocks up to `timeout`. */
SUBHOST_API int subhost_pool_take(subhost_pool *pool, subhost_call **calls, size_t n,
                                  int64_t timeout, subhost_error **err);
/* Has a subhost_pool_take() that waits, or else the next one, return. Any thread, GIL or
 * not, does not block. */
SUBHOST_API void subhost_pool_wake(subhost_pool *pool);

typedef struct subhost_pool_stats {
    size_t size;
    uint64_t calls;    /* that have ended */
    uint64_t timeouts; /* of these */
    unsigned workers;  /* interpreters that live, spares too */
    unsigned replaced; /* because they were abandoned or killed */
    unsigned
        recycled; /* because of recycle_calls, recycle_growth, fresh, or a reset that failed */
} subhost_pool_stats;

#define SUBHOST_POOL_STATS_INIT SUBHOST_INIT(subhost_pool_stats)

/* Copies the counters; the caller has set stats->size. Any thread, GIL or not, does not
 * block. */
SUBHOST_API void subhost_pool_get_stats(subhost_pool *pool, subhost_pool_stats *stats);

/* Cancels what runs, ends the interpreters, frees the pool. All calls are the caller's again;
 * what has not run is SUBHOST_CANCELLED. Threads that wait in it return; none may begin to use
 * it. Dispatches while it waits; also out of on_done. subhost_close() closes its pools, too, and
 * this, before or after it, frees them. Main thread, no GIL, blocks up to `grace` plus 100 ms. */
SUBHOST_API int subhost_pool_close(subhost_pool *pool, int64_t grace,
                                   subhost_error **err);

/* ---- C functions for Python ------------------------------------------------------ */

/* Any function: it is called as its signature says. Cast to it: (subhost_native_function)pow. */
typedef void (*subhost_native_function)(void);

typedef struct subhost_bind_options {
    size_t size;
    const char *doc; /* of the Python function; NULL: its signature alone */
} subhost_bind_options;

#define SUBHOST_BIND_OPTIONS_INIT SUBHOST_INIT(subhost_bind_options)

/* Makes a C function callable as subhost.native.NAME, in every interpreter of the host, also
 * in those that run already, and in processes that are forked later. docs/native.md has the
 * language of signatures: "f64(f64 x, f64 y)". `name` may be NULL when the signature has it:
 * "f64 pow(f64 x, f64 y)". The GIL is released during a call, unless the signature says
 * gil. SUBHOST_ESTATE: the name is bound already. A binding lasts as long as the host, and
 * the function must. Any thread, GIL or not, does not block. */
SUBHOST_API int subhost_bind(subhost_host *host, const char *name,
                             subhost_native_function function, const char *signature,
                             const subhost_bind_options *options, subhost_error **err);

/* The same for a function of a shared library, as dlopen() finds it: "libm.so.6" and
 * "f64 pow(f64, f64)". The library stays loaded. Any thread, GIL or not, blocks while the
 * library is loaded. */
SUBHOST_API int subhost_bind_library(subhost_host *host, const char *library,
                                     const char *signature,
                                     const subhost_bind_options *options,
                                     subhost_error **err);

/* For a bound function that computes for long: non-zero when the task that called it is to
 * end. It then returns early with whatever it has; Cancelled is raised in the place of its
 * result. 0 on a thread that belongs to no interpreter. Any thread, GIL or not, does not
 * block; async-signal-safe. */
SUBHOST_API int subhost_cancel_requested(void);

/* ---- Python functions for C ------------------------------------------------------ */

typedef struct subhost_callback subhost_callback;

/* Makes a function pointer that calls Python: "MODULE:NAME" in that interpreter, imported and
 * looked up at each call. The signature is of the same language, as "i32(ptr, ptr) = -1":
 * behind the '=' stands what is returned when Python cannot be asked (0, NULL, zeros without
 * it). The pointer may be called on any thread, by several at once, nested in other calls,
 * while the interpreter is busy, ends, or has ended. Then, before the interpreter has started
 * (a task in it has: wait for one), and when the Python function raises, the default is
 * returned; the call is counted in subhost_stats. A call waits for the GIL without a limit:
 * where C code in the interpreter keeps the GIL for ever, it does not return, not even when
 * the interpreter is abandoned for that. An exception goes to the bound function that the
 * callback was called from, else to sys.unraisablehook. Any thread, GIL or not, does not
 * block. */
SUBHOST_API int subhost_callback_create(subhost_interp *interp, const char *callable,
                                        const char *signature,
                                        subhost_callback **callback, subhost_error **err);
/* The function pointer: cast it to its type. Valid until subhost_callback_release(). Any
 * thread, GIL or not, does not block; a call of it takes the interpreter's GIL. */
SUBHOST_API subhost_native_function
subhost_callback_function(const subhost_callback *callback);
/* Frees the callback; NULL is allowed. No call may begin after it; those under way end as
 * usual. The host may be closed before. Any thread, GIL or not, does not block. */
SUBHOST_API void subhost_callback_release(subhost_callback *callback);

#ifdef __cplusplus
}
#endif

#endif
