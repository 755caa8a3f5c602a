/* The policy keys: the one list from which the loader, the checker, --set, `policy show`,
 * the help texts and docs/policy.md come.
 *
 *   X(ID, name, type, default, allowed, narrower, scope, help)
 *
 * type      BOOL, CHOICE, INTEGER, DURATION, SIZE, LIST (of words) or TEXT
 * default   as it would be written with --set
 * allowed   CHOICE: the words, from the widest to the narrowest; INTEGER, DURATION and
 *           SIZE: "least..most"; LIST: the words, or "" for any; BOOL, TEXT: ""
 * narrower  what narrows the key: FALSE, TRUE, LATER (in the list of words), LESS, LESS_0 (0 is
 *           no limit at all), MORE, SUBSET, SUPERSET, or FREE: not a matter of rights
 * scope     HOST: of the whole process; INTERP: of an interpreter, from its creation on; TASK:
 *           may differ from task to task
 */
#ifndef SUBHOST_POLICY_KEYS_H
#define SUBHOST_POLICY_KEYS_H

#define POLICY_KEYS(X)                                                                   \
    X(INTERPRETER_GIL, "interpreter.gil", CHOICE, "own", "shared|own", LATER, INTERP,    \
      "a GIL of its own, or the main interpreter's")                                     \
    X(INTERPRETER_OBMALLOC, "interpreter.obmalloc", CHOICE, "auto", "main|auto|own",     \
      LATER, INTERP,                                                                     \
      "the allocator: its own, the main one's, or (auto) as the GIL; with its own "      \
      "all modules are checked")                                                         \
    X(INTERPRETER_REUSE, "interpreter.reuse", INTEGER, "0", "0..1000000", LESS_0,        \
      INTERP, "tasks that one interpreter runs before a fresh one replaces it; 0: any")  \
    X(INTERPRETER_SITE, "interpreter.site", BOOL, "true", "", FREE, INTERP,              \
      "import site, and so site-packages, before the program")                           \
    X(INTERPRETER_PRELOAD, "interpreter.preload", LIST, "", "", FREE, INTERP,            \
      "modules imported before the program; in the image of processes, too")             \
    X(INTERPRETER_CREATE, "interpreter.create", BOOL, "true", "", FALSE, TASK,           \
      "interpreters of the program's own: concurrent.interpreters")                      \
    X(CANCEL_GRACE, "cancel.grace", DURATION, "2s", "0..36500d", LESS, TASK,             \
      "from a cancel to the abandonment of what ignores it")                             \
    X(CANCEL_RUNGS, "cancel.rungs", INTEGER, "3", "1..3", MORE, TASK,                    \
      "how far a cancel goes before abandonment: 1 asks, 2 raises once, 3 again")        \
    X(CANCEL_INTERRUPTIBLE_CALLS, "cancel.interruptible_calls", BOOL, "true", "", TRUE,  \
      HOST, "a cancel ends blocking calls into the C library early")                     \
    X(FORK_MODE, "fork.mode", CHOICE, "thread", "thread|deny", LATER, TASK,              \
      "isolation=\"process\": forked by the forkserver thread, or refused")              \
    X(FORK_ORPHAN, "fork.orphan", CHOICE, "cancel", "detach|cancel|kill", LATER, TASK,   \
      "what becomes of a process whose parent is gone")                                  \
    X(FORK_SIBLINGS, "fork.siblings", BOOL, "true", "", FALSE, HOST,                     \
      "fork while other interpreters are alive (docs/private-symbols.md)")               \
    X(FORK_PASS, "fork.pass", LIST, "cwd,environ,stdin", "cwd|environ|stdin", SUBSET,    \
      TASK, "what a process gets of whoever started it")                                 \
    X(EXEC_ALLOW, "exec.allow", BOOL, "true", "", FALSE, TASK,                           \
      "other programs: subprocess, os.exec*, os.posix_spawn, os.system")                 \
    X(THREADS_ALLOW, "threads.allow", BOOL, "true", "", FALSE, TASK,                     \
      "threads beside the main one")                                                     \
    X(THREADS_DAEMON, "threads.daemon", BOOL, "true", "", FALSE, TASK,                   \
      "threads that are not waited for")                                                 \
    X(IMPORTS_UNSUPPORTED, "imports.unsupported", CHOICE, "refuse",                      \
      "warn|shared|process|refuse", LATER, INTERP,                                       \
      "a module without support for a GIL of its own: it is loaded with a warning and "  \
      "may crash the process; the task begins anew, with the shared GIL or in a "        \
      "process of its own; or an ImportError")                                           \
    X(SIGNALS_TAKE, "signals.take", BOOL, "true", "", FREE, HOST,                        \
      "SIGINT and SIGTERM cancel what runs (subhost run)")                               \
    X(SIGNALS_HANDLERS, "signals.handlers", BOOL, "true", "", FALSE, TASK,               \
      "handlers of the program's own: signal.signal()")                                  \
    X(SIGNALS_STACKS, "signals.stacks", BOOL, "true", "", FALSE, HOST,                   \
      "SIGUSR1 prints the Python stacks")                                                \
    X(OUTPUT_CAPTURE, "output.capture", BOOL, "false", "", FREE, HOST,                   \
      "output line by line, with the names of the tasks (subhost run)")                  \
    X(LIMITS_TIMEOUT, "limits.timeout", DURATION, "0", "0..36500d", LESS_0, TASK,        \
      "how long a task may run; 0: no limit")                                            \
    X(LIMITS_INTERPRETERS, "limits.interpreters", INTEGER, "0", "0..1000000", LESS_0,    \
      HOST, "interpreters alive at once in a process, abandoned ones too; 0: no limit")  \
    X(LIMITS_CHILDREN, "limits.children", INTEGER, "0", "0..1000000", LESS_0, HOST,      \
      "processes alive at once in the tree; 0: no limit")                                \
    X(LIMITS_MEMORY, "limits.memory", SIZE, "0", "0..1TiB", LESS_0, TASK,                \
      "private memory that a process may take beyond what it is forked with; 0: no "     \
      "limit")                                                                           \
    X(LIMITS_CPU, "limits.cpu", DURATION, "0", "0..36500d", LESS_0, TASK,                \
      "CPU time of a process, in whole seconds; 0: no limit")                            \
    X(LIMITS_OPEN_FILES, "limits.open_files", INTEGER, "0", "0..1000000", LESS_0, TASK,  \
      "descriptors of a process; 0: no limit")                                           \
    X(QUARANTINE_LIMIT, "quarantine.limit", INTEGER, "0", "0..1000000", LESS_0, HOST,    \
      "abandoned interpreters before quarantine.action; 0: no limit")                    \
    X(QUARANTINE_ACTION, "quarantine.action", CHOICE, "refuse", "recycle|refuse", LATER, \
      HOST, "then no interpreter is created any more, or the host asks to be replaced")  \
    X(AUDIT_TRAIL, "audit.trail", TEXT, "", "", FREE, HOST,                              \
      "the file that the trail goes to; \"\": none")                                     \
    X(AUDIT_EVENTS, "audit.events", LIST, "", "", FREE, HOST,                            \
      "events that the trail has; none named: all")                                      \
    X(AUDIT_PYTHON_EVENTS, "audit.python_events", LIST, "", "", FREE, HOST,              \
      "audit events of Python's (PEP 578) that the trail has, by beginnings of names")   \
    X(AUDIT_ROTATE_SIZE, "audit.rotate_size", SIZE, "0", "0..1TiB", FREE, HOST,          \
      "a trail's file of this size is followed by another one; 0: never")                \
    X(AUDIT_ROTATE_FILES, "audit.rotate_files", INTEGER, "1", "1..10000", FREE, HOST,    \
      "older files of the trail that are kept")

#endif
