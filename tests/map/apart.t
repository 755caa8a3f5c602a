#!/usr/bin/env python3
"""Items of `subhost map` share an interpreter, or a process, one after another: what one of them
leaves behind does not reach the next."""
import json
import os
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import PATIENCE, equal, main, ok, script, subhost, test

ISOLATIONS = "interpreter", "process"


def outcomes(result):
    """Of each item its value, or how it ended."""
    return [line.get("value", line.get("kind")) for line in map(json.loads, result.out.splitlines())]


def numbers(count):
    return "".join(f"{i}\n" for i in range(count))


@test
def a_deadline_and_the_next_nursery(folder):
    """The thread that cancels an item's tasks is slower than the item that ends: on one CPU."""
    script(folder, """
        import subhost, time
        def same(x): return x
        def f(x):
            if x % 2 == 0 and x < 12: time.sleep(100)
            with subhost.open_nursery() as nursery:
                task = nursery.start(same, x)
            return task.result()
        """, "functions.py")
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [min(cpus)])
    try:
        got = subhost("map", "-j1", "--timeout", str(PATIENCE), "functions:f",
                      input=numbers(18), cwd=folder, timeout=60)
    finally:
        os.sched_setaffinity(0, cpus)
    equal(outcomes(got), [x if x % 2 or x >= 12 else "timed-out" for x in range(18)],
          "a deadline ends no task of a later item", result=got)


@test
def what_is_the_items_own(folder):
    """Its deadline, and its on_cancel() callbacks; those of the module stay."""
    script(folder, """
        import subhost, sys, time
        subhost.on_cancel(lambda: print("of the module", file=sys.stderr))
        def left(x):
            time.sleep(x)
            return 0 < subhost.current().deadline - time.monotonic() <= LIMIT
        def f(x):
            if x == 0:
                subhost.on_cancel(lambda: print("of item 0", file=sys.stderr))
                return x
            with subhost.on_cancel(lambda: print("of item 1", file=sys.stderr)):
                time.sleep(100)
        """.replace("LIMIT", str(PATIENCE)), "functions.py")
    for isolation in ISOLATIONS:
        limited = ["map", "-j1", "--isolation", isolation, "--timeout", str(PATIENCE)]
        got = subhost(*limited, "functions:left", input=f"{0.6 * PATIENCE}\n" * 2, cwd=folder)
        equal(outcomes(got), [True] * 2, f"{isolation}: current().deadline", result=got)
        limited[-1] = str(0.2 * PATIENCE)
        got = subhost(*limited, "functions:f", input=numbers(2), cwd=folder)
        # Behind it there may be the cancel that the end of the run is.
        equal((outcomes(got), got.err.splitlines()[:2], got.err.count("item")),
              ([0, "timed-out"], ["of the module", "of item 1"], 1),
              f"{isolation}: on_cancel()", result=got)


@test
def the_end_of_a_process(folder):
    """Threads are waited for, atexit runs, signal handlers go at a process's end, and not after
    each of its items."""
    script(folder, """
        import atexit, concurrent.futures, os, signal, sys, threading, time
        pool = concurrent.futures.ThreadPoolExecutor(1)
        taken, closed, event = [], [], threading.Event()
        atexit.register(lambda: closed.append(print("atexit", file=sys.stderr)))
        signal.signal(signal.SIGUSR2, lambda *args: taken.append(args[0]))
        threading.Thread(target=event.wait).start()
        def f(x):
            os.kill(os.getpid(), signal.SIGUSR2)
            return [len(taken), len(closed), pool.submit(abs, -x).result()]
        """, "functions.py")
    for isolation in ISOLATIONS:
        got = subhost("map", "-j1", "--isolation", isolation, "functions:f", input=numbers(3),
                      cwd=folder, timeout=20)
        equal(outcomes(got), [[x + 1, 0, x] for x in range(3)], f"{isolation}: as it was",
              result=got)
    ok(got.seconds < 5 * PATIENCE, "it does not wait for the thread", result=got)


@test
def signals_to_itself(folder):
    script(folder, """
        import os, signal, threading, time
        def sends(x):
            send, signo = x
            if send == "kill": os.kill(os.getpid(), signo)
            if send == "killpg": os.killpg(os.getpgrp(), signo)
            if send == "raise": signal.raise_signal(signo)
            if send == "thread": signal.pthread_kill(threading.get_ident(), signo)
            if send == "alarm": signal.alarm(1)
            if send == "timer": signal.setitimer(signal.ITIMER_VIRTUAL, 1)
            return "went on"
        def handles(signo):
            got = []
            before = signal.signal(signo, lambda *args: got.append(args[0]))
            os.kill(os.getpid(), signo)
            for _ in range(100):
                if not got: time.sleep(0.01)
            signal.signal(signo, signal.SIG_IGN)
            os.kill(os.getpid(), signo)
            signal.signal(signo, before)
            return got
        """, "functions.py")
    fatal = [getattr(signal, name) for name in
             "SIGALRM SIGUSR2 SIGVTALRM SIGPROF SIGXCPU SIGIO SIGPWR SIGTSTP SIGTERM SIGTRAP "
             "SIGSEGV SIGBUS SIGILL SIGFPE SIGABRT".split()]
    items = [("kill", int(signo)) for signo in fatal] + [("raise", 14), ("thread", 15),
                                                         ("killpg", 1), ("raise", 34),
                                                         ("raise", 11), ("thread", 6)]
    got = subhost("map", "functions:sends", cwd=folder,
                  input="".join(json.dumps(item) + "\n" for item in items))
    equal(outcomes(got), ["killed"] * len(items), "fatal ones end the item", result=got)
    for isolation in ISOLATIONS:
        got = subhost("map", "--isolation", isolation, "functions:sends", cwd=folder,
                      input='["raise", 2]\n["kill", 2]\n["kill", 17]\n["kill", 15]\n')
        equal(outcomes(got), ["raised", "raised", "went on", "killed"],
              f"{isolation}: SIGINT is a KeyboardInterrupt, SIGTERM no end of the run", result=got)
        got = subhost("map", "-j1", "--isolation", isolation, "functions:handles", cwd=folder,
                      input="2\n12\n14\n15\n")
        equal(outcomes(got), [[2], [12], [14], [15]], f"{isolation}: those that it handles",
              result=got)
    got = subhost("map", "functions:sends", input='["alarm", 0]\n["timer", 0]\n', cwd=folder)
    ok(outcomes(got) == ["raised"] * 2 and "SIGALRM, which has no handler" in got.out,
       "a timer needs a handler", result=got)


@test
def timers_left_armed(folder):
    """Their handlers go with the item, or with its interpreter: so do they."""
    script(folder, """
        import signal, time
        def f(x):
            if x == 0:
                signal.signal(signal.SIGALRM, lambda *args: None)
                signal.setitimer(signal.ITIMER_REAL, 0.2)
            else:
                time.sleep(0.4)
            return x
        """, "functions.py")
    for options in (["--reset"], ["--fresh"], ["--reset", "--isolation", "process"]):
        got = subhost("map", "-j1", *options, "functions:f", input=numbers(2), cwd=folder)
        equal((got.status, outcomes(got)), (0, [0, 1]), " ".join(options), result=got)


main()
