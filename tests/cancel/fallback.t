#!/usr/bin/env python3
# timeout: 150
"""Without the private doorbell (SUBHOST_DOORBELL=attach) everything still works; without
interruptible calls (SUBHOST_INTERRUPTIBLE_CALLS=off) what CPython itself can interrupt does,
the rest is abandoned, and nothing hangs."""
import json
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "bench"))
from cancel_states import STATES
from tap import PATIENCE, PYTHON, SOURCE, equal, hosted, main, ok, run, subhost, test

BENCH = SOURCE / "tests" / "bench" / "cancel"
ATTACH = {"SUBHOST_DOORBELL": "attach"}
OFF = {"SUBHOST_INTERRUPTIBLE_CALLS": "off"}
# Blocked in calls, each for another reason.
SOME = ("time_sleep", "event_wait", "event_wait_loop", "queue_get", "os_read", "socket_accept",
        "select_epoll", "subprocess_run", "future_result", "asyncio_sleep")


def rows(env, states, rounds=3, grace=1500):
    result = run([PYTHON, BENCH, "--json", "--slack", 10 * PATIENCE, "--rounds", rounds,
                  "--grace", grace, "--states", ",".join(states)], env=env, timeout=140)
    found = [json.loads(line) for line in result.out.splitlines()]
    equal(len(found), 2 * len(states), "the table is complete", result=result)
    return found


@test
def it_says_so(tmp):
    for env, name in (({}, "pending-call"), (ATTACH, "attach: asked for")):
        result = subhost("run", "--stats", "-c", "pass", env=env)
        ok(f"doorbell {name}" in result.err, f"--stats says: {name}", result=result)


@test
def attached(tmp):
    for row in rows(ATTACH, ("busy_loop", *SOME)):
        ok(not row["broken"], f"attach: {row['state']}, {row['thread']} thread", row=row)


@test
def without_interruptible_calls(tmp):
    for row in rows(OFF, ("busy_loop", *SOME), rounds=2, grace=800):
        name = f"off: {row['state']}, {row['thread']} thread"
        # In its own thread; the main thread's join() is a lock wait.
        must = row["state"] in ("busy_loop", "asyncio_sleep") and row["thread"] == "main"
        allowed = {"cancelled"} if must else {"cancelled", "abandoned"}
        ok(set(row["outcomes"]) <= allowed and row["rounds"] == 2, f"{name}: "
           f"{' '.join(row['outcomes'])}", row=row)


@test
def both(tmp):
    for row in rows(ATTACH | OFF, ("busy_loop", "time_sleep", "event_wait_loop"), rounds=2,
                    grace=400):
        allowed = {"cancelled"} if row["state"] == "busy_loop" else {"cancelled", "abandoned"}
        ok(set(row["outcomes"]) <= allowed or (row["thread"] == "second"
                                               and set(row["outcomes"]) == {"abandoned"}),
           f"attach and off: {row['state']}, {row['thread']} thread", row=row)


@test
def the_runner(tmp):
    for name, env in (("attach", ATTACH), ("off", OFF), ("attach and off", ATTACH | OFF)):
        result = subhost("run", "-c", "import threading\n"
                         "t = threading.Thread(target=print, args=('thread',)); t.start()\n"
                         "t.join(); print('end')", env=env)
        equal((result.out, result.err, result.status), ("thread\nend\n", "", 0),
              f"{name}: a program runs", result=result)
        result = subhost("run", "--timeout", "300ms", "--grace", "1s", "-c",
                         "import subhost\nsubhost.on_cancel(lambda: print('told', flush=True))\n"
                         "while True: pass", env=env)
        ok(result.out == "told\n" and result.status == 124, f"{name}: a deadline",
           result=result)
        with hosted("-c", "import time\nprint('ready', flush=True)\n"
                    "while True: time.sleep(0.05)", env=env) as it:
            it.wait_for("ready")
            it.signal(signal.SIGINT)
            result = it.finish()
            ok(result.status == 130 and result.last == "KeyboardInterrupt", f"{name}: Ctrl-C",
               result=result)
        with hosted("-c", "import signal, time\n"
                    "signal.signal(signal.SIGUSR2, lambda *a: print('handler', flush=True))\n"
                    "print('ready', flush=True)\nwhile True: time.sleep(0.05)", env=env) as it:
            it.wait_for("ready")
            it.signal(signal.SIGUSR2)
            it.wait_for("handler")
            it.signal(signal.SIGUSR1)
            it.wait_for("Interpreter ", stream="err")
            time.sleep(0.2)
            it.signal(signal.SIGTERM)
            result = it.finish()
            ok("in <module>" in result.err and result.status == 143,
               f"{name}: a signal handler, the stacks, SIGTERM", result=result)


main()
