/* What the trail says: each event, and each field that an event may have. One list each;
 * docs/trail.md is made from them (docs/make-trail), and a test holds what is written against
 * them. */
#ifndef SUBHOST_EVENTS_H
#define SUBHOST_EVENTS_H

/* How a field is written:
 *   TEXT, LONG  a string, of at most some 500 and 1000 bytes; the rest is cut, "..." says so
 *   LIST        an array of strings
 *   NUMBER      an integer
 *   ID          an integer; 0 is none, and left out
 *   SECONDS     a decimal number; left out when there is none
 *   FLAG        true or false
 * A string that is empty is left out. */

/* One list: field, its name in the trail, how it is written, what it says. */
#define TRAIL_FIELDS(X)                                                                  \
    X(NAME, "name", TEXT, "of the task, the interpreter or the event of Python's")       \
    X(PARENT, "parent", ID, "the number of the task that started this one")              \
    X(KIND, "kind", TEXT, "program, or call: of a nursery's")                            \
    X(ISOLATION, "isolation", TEXT, "interpreter or process")                            \
    X(GIL, "gil", TEXT, "own or shared")                                                 \
    X(WORKER, "worker", NUMBER, "subhost.current().worker")                              \
    X(TIMEOUT, "timeout", SECONDS, "the task's deadline, from its start")                \
    X(GRACE, "grace", SECONDS, "from the cancel to the last rung")                       \
    X(OUTCOME, "outcome", TEXT, "its kind: returned, raised, cancelled ...")             \
    X(CODE, "code", ID, "exited: the status, unless 0; killed: the signal")              \
    X(STATUS, "status", NUMBER, "what the program's process would have exited with")     \
    X(REASON, "reason", TEXT, "of the cancel: deadline, SIGINT, cancelled ...")          \
    X(WORDS, "words", TEXT, "of who asked for the cancel")                               \
    X(DETAIL, "detail", LONG, "of the outcome")                                          \
    X(DURATION, "duration", SECONDS, "from the task's start to its end")                 \
    X(AFTER, "after", SECONDS, "since the cancel was asked for")                         \
    X(THREADS, "threads", NUMBER, "how many it is raised in")                            \
    X(SCOPE, "scope", TEXT, "all threads, or the main thread first")                     \
    X(ROUND, "round", NUMBER, "of raising it again")                                     \
    X(INSISTS, "insists", FLAG, "also in threads that tidy up")                          \
    X(CHILD, "child", ID, "process id of the forked child")                              \
    X(SUPERVISOR, "supervisor", ID, "process id of who asked for the fork")              \
    X(WHY, "why", LONG, "what went wrong, or led to it")                                 \
    X(WHAT, "what", TEXT, "what was refused")                                            \
    X(THREAD_NAME, "thread_name", TEXT, "as the kernel has it")                          \
    X(STACK, "stack", LIST, "the Python frames, innermost first")                        \
    X(AT, "at", TEXT, "the innermost Python frame")                                      \
    X(ARGS, "args", LIST, "of the event; objects of classes by their class")             \
    X(SIGNAL, "signal", TEXT, "its name")                                                \
    X(HANDLED, "handled", NUMBER, "interpreters whose handler is called")                \
    X(CANCELLED, "cancelled", NUMBER, "interpreters whose cancel it began")              \
    X(WAITING, "waiting", NUMBER, "interpreters whose cancel was under way")             \
    X(COUNT, "count", NUMBER, "how many")                                                \
    X(TRAIL, "trail", TEXT, "which trail this is: the same in each of its files")        \
    X(PART, "part", NUMBER, "1 is the first file")                                       \
    X(FORMAT, "format", NUMBER, "of the trail: 1")                                       \
    X(VERSION, "version", TEXT, "subhost's, CPython's ...")                              \
    X(DOORBELL, "doorbell", TEXT, "how interpreters are rung")                           \
    X(INTERRUPTIBLE, "interruptible", TEXT, "interruptible calls: on, or why not")       \
    X(LIMIT, "limit", ID, "bytes of a file, then comes the next; or the policy's")       \
    X(FILES, "files", ID, "how many older files are kept")                               \
    X(PYTHON_EVENTS, "python_events", LIST, "beginnings of the names selected")          \
    X(ONLY, "only", LIST, "events that are noted beside the trail's own; none: all")     \
    X(EVENTS, "events", NUMBER, "noted, in all processes")                               \
    X(LOST, "lost", NUMBER, "events that were lost so far, in all processes")            \
    X(TASKS, "tasks", NUMBER, "started by this process")                                 \
    X(CANCELS, "cancels", NUMBER, "of this process's tasks")                             \
    X(FORKS, "forks", NUMBER, "in the whole tree")                                       \
    X(SIGNALS, "signals", NUMBER, "taken")                                               \
    X(ABANDONED, "abandoned", NUMBER, "interpreters of this process, in quarantine")

enum trail_field {
    FIELD_END,
#define TRAIL_FIELD_ENUM(field, name, kind, text) FIELD_##field,
    TRAIL_FIELDS(TRAIL_FIELD_ENUM)
#undef TRAIL_FIELD_ENUM
        TRAIL_FIELD_COUNT
};

/* One list: event, its name in the trail, what has happened, its fields. Each event also has
 * what trail.md calls the common ones. */
#define TRAIL_EVENTS(X)                                                                  \
    X(HOST_OPEN, "host-open", "the host is open; the first line of a trail",             \
      "format trail part version doorbell interruptible limit files only "               \
      "python_events")                                                                   \
    X(TRAIL_CONTINUED, "trail-continued", "the first line of a further file",            \
      "format trail part lost")                                                          \
    X(TRAIL_NOT_CONTINUED, "trail-not-continued",                                        \
      "there is no further file: this one grows beyond the limit", "why")                \
    X(EVENTS_LOST, "events-lost",                                                        \
      "so many events were lost before this one: the buffer was full", "count")          \
    X(HOST_CLOSE, "host-close", "the host is closed; the last line of a trail",          \
      "events lost tasks cancels forks signals abandoned")                               \
    X(INTERP_CREATED, "interp-created", "an interpreter is ready for tasks",             \
      "name isolation gil child")                                                        \
    X(INTERP_FAILED, "interp-failed", "an interpreter could not be created", "name why") \
    X(INTERP_ENDED, "interp-ended", "an interpreter has ended, or its process has",      \
      "name child why")                                                                  \
    X(TASK_STARTED, "task-started", "a task begins to run",                              \
      "name parent kind isolation worker timeout")                                       \
    X(BEGUN_ANEW, "begun-anew",                                                          \
      "a module refuses its own GIL: the task begins again, elsewhere", "isolation why") \
    X(IMPORT_WARNED, "import-warned",                                                    \
      "a module without support for a GIL of its own was loaded all the same", "name")   \
    X(TASK_ENDED, "task-ended", "the one terminal event of a task",                      \
      "name parent outcome code status reason detail duration")                          \
    X(CANCEL_REQUESTED, "cancel-requested", "somebody has asked for the task's end",     \
      "reason words grace")                                                              \
    X(CANCEL_RUNG_1, "cancel-rung-1",                                                    \
      "on_cancel callbacks are called, event loops told", "after")                       \
    X(CANCEL_HELD, "cancel-held",                                                        \
      "an event loop cancels its main task; nothing is raised for now", "after")         \
    X(CANCEL_RUNG_2, "cancel-rung-2", "Cancelled is handed to threads",                  \
      "threads scope after")                                                             \
    X(CANCEL_RUNG_3, "cancel-rung-3", "it is raised again where it was swallowed",       \
      "round insists after")                                                             \
    X(CANCELLED_RAISED, "cancelled-raised", "the first Cancelled was raised", "after")   \
    X(ABANDONED, "abandoned",                                                            \
      "rung 4: the interpreter is in quarantine, the task's waiters know",               \
      "why gil after")                                                                   \
    X(KILLED, "killed", "the task's process was sent SIGKILL", "child after")            \
    X(FORKED, "forked", "the root has forked a child for a supervisor",                  \
      "name child supervisor")                                                           \
    X(NOT_FORKED, "not-forked", "a fork that was asked for has failed",                  \
      "name supervisor why")                                                             \
    X(FORK_REFUSED, "fork-refused", "the program's own fork was refused",                \
      "what thread_name stack")                                                          \
    X(POLICY_REFUSED, "policy-refused", "the policy forbids what a program wanted",      \
      "what why")                                                                        \
    X(RECYCLE_WANTED, "recycle-wanted",                                                  \
      "so many interpreters were abandoned that the process should be replaced",         \
      "abandoned limit")                                                                 \
    X(FORK_BY_C, "fork-by-c", "C code has forked; its child cannot run Python",          \
      "thread_name")                                                                     \
    X(ORPHAN, "orphan", "a process of the tree that this one needs is gone", "why")      \
    X(SIGNAL, "signal", "a signal was taken", "signal handled cancelled waiting")        \
    X(PYTHON_EVENT, "python-event", "an audit event of Python's (PEP 578), as selected", \
      "name args at")

enum trail_event {
#define TRAIL_EVENT_ENUM(event, name, text, fields) EVENT_##event,
    TRAIL_EVENTS(TRAIL_EVENT_ENUM)
#undef TRAIL_EVENT_ENUM
        TRAIL_EVENT_COUNT
};

#endif
