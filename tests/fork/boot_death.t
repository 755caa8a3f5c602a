#!/usr/bin/env python3
# timeout: 180
"""`boot-death` and its kin: children that die, are killed or cannot be made, parents that are
killed: whoever waits gets a clear outcome, soon, and nothing is left or leaked.

SUBHOST_TEST_ROUNDS   kills at random moments (default: 40 children, 10 parents)"""
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import PATIENCE, SUBHOST, equal, hosted, main, ok, skip, test
from sessions import finished, left_behind, members, rounds, run_hosted, watched

PROGRAM = pathlib.Path(__file__).resolve().parent / "programs" / "deaths.py"
SOON = 1.0 * PATIENCE
GRACE = 0.5
DEATHS = {
    "exit-0": "exited(0)", "exit-3": "exited(3)", "exit-255": "exited(255)",
    "exit-126": "exited(126)", "exit-137": "exited(137)", "kill-9": "killed(9)",
    "segv": "killed(11)", "abort": "killed(6)", "kill-4": "killed(4)", "kill-14": "killed(14)",
    "thread-4": "exited(4)", "buffered-6": "exited(6)", "exec": "exited(5)",
}


def lines(result):
    return [json.loads(line) for line in result.out.splitlines() if line.startswith("{")]


@test
def every_way_to_die(tmp):
    for what, where in (("deaths", ""), ("deaths_below", ", one level down")):
        result, left = run_hosted(PROGRAM, what, *DEATHS, timeout=30)
        seen = {line["how"]: line for line in lines(result)}
        for how, want in DEATHS.items():
            line = seen.get(how, {"found": None, "outcome": None, "seconds": 99})
            number = want.strip(")").split("(")[1]
            ok(line["outcome"] == want and line["found"] and line["found"][0] == "error"
               and (number in line["found"][2] or "SIG" in line["found"][2])
               and line["seconds"] < SOON, f"{how}{where}: {want}, and result() raises, soon",
               seen=line)
        ok(result.status == 0 and not left, f"the program goes on{where}", result=result, left=left)


@test
def quiet_ends(tmp):
    """sys.exit is python's way out; a task that closes what it can reach is on its own."""
    result, left = run_hosted(PROGRAM, "deaths", "sysexit-3", "close", "output", "half",
                              timeout=40)
    seen = {line["how"]: line for line in lines(result)}
    ok(result.status == 0 and not left and len(seen) == 4, "all four end", result=result, left=left)
    if len(seen) < 4:
        return
    ok(seen["sysexit-3"]["outcome"] in ("exited(3)", "raised")
       and seen["sysexit-3"]["found"][0] == "error", "sys.exit(3) in a task", seen=seen)
    ok(seen["close"]["seconds"] < SOON and seen["close"]["outcome"], "os.closerange in a task: "
       f"{seen['close']['outcome']}", seen=seen)
    ok(seen["output"]["outcome"] == "returned", "a result of 50 MB", seen=seen)
    ok(seen["half"]["outcome"] in ("killed(9)", "returned") and seen["half"]["seconds"] < 5 * SOON,
       f"killed while its result is on the way: {seen['half']['outcome']}", seen=seen)


@test
def killed_at_random_moments(tmp):
    times = rounds(40)
    for until in (1, 10):
        result, left = run_hosted(PROGRAM, "killed_at_random", times, until, timeout=30 + times)
        line = (lines(result) or [{}])[0]
        ok(result.status == 0 and not left and line.get("outcomes") == {"killed(9)": times}
           and not line["wrong"] and not line["others"] and line["leaked"] == 0
           and line["slowest"] < SOON,
           f"{times} children killed up to {until} ms after the start: killed(9), each, soon "
           f"(slowest {line.get('slowest', 0) * 1000:.0f} ms)", result=result, left=left)


def clear(row):
    """A row of try_one(): the value, or an error with a text, in time."""
    found, outcome, seconds = row[-3:]
    return seconds < 2 * SOON and (found == ["value", 5] and outcome == "returned"
                                   or found is not None and found[0] == "error" and found[2] != "")


@test
def no_processes_left(tmp):
    if os.getuid() == 0 and not shutil.which("setpriv"):
        skip("RLIMIT_NPROC", "root is exempt from it, and there is no setpriv")
        return
    # Another user, who may still read what root installed.
    capabilities = "+dac_override,+dac_read_search"
    user = [] if os.getuid() else [
        "setpriv", "--reuid=61234", "--regid=61234", "--clear-groups",
        f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}"]
    result, left = finished([*user, SUBHOST, "run", PROGRAM, "no_processes"], patience=2)
    line = (lines(result) or [{}])[0]
    ok(result.status == 0 and not left and clear(line["first"]) and line["first"][1] == "returned",
       "as another user it works", result=result, left=left)
    if not line:
        return
    failed = line["failed"]
    ok(all(clear(row) and row[0][0] == "error" for row in failed), "no process can be made: an "
       "error, soon", failed=failed)
    ok(all("temporarily unavailable" in row[0][2] or "EAGAIN" in row[0][2] for row in failed),
       "which says why", failed=failed)
    equal((line["leaked"], line["others"], line["last"][1]), (0, [], "returned"),
          "none leaked, nothing left, and afterwards it works again", line=line)
    result, left = finished([*user, SUBHOST, "run", PROGRAM, "no_threads_in_the_child"],
                            patience=2)
    line = (lines(result) or [{}])[0]
    ok(result.status == 0 and not left and line.get("rows")
       and all(clear(row) for row in line["rows"]) and line["last"][1] == "returned"
       and not line["others"], "room for the process but not for its threads: works, or an error",
       result=result, left=left)


@test
def no_descriptors_left(tmp):
    result, left = run_hosted(PROGRAM, "no_descriptors", patience=2)
    line = (lines(result) or [{}])[0]
    ok(result.status == 0 and not left and line.get("rows") and line["first"][1] == "returned",
       "EMFILE: the program goes on", result=result, left=left)
    if not line:
        return
    for row in line["rows"]:
        ok(clear(row), f"{row[0]} descriptors free: {row[2] or row[1]}", row=row)
    ok(line["rows"][0][1][0] == "error" and ("open files" in line["rows"][0][1][2]
                                             or "EMFILE" in line["rows"][0][1][2]),
       "the error says why", row=line["rows"][0])
    equal((line["leaked"], line["others"], line["last"][1]), (0, [], "returned"),
          "none leaked, nothing left, and afterwards it works again", line=line)


@test
def parent_killed_at_random_moments(tmp):
    times = rounds(10)
    worst, bad = 0, []
    for number in range(times):
        with hosted("--grace", f"{GRACE}s", PROGRAM, "start_for_ever") as it:
            time.sleep(random.random() * 0.6)
            # No moment's list is whole, so what comes after it is looked for in the end.
            with watched(set(members(it.pid)) - {it.pid}) as gone_after:
                since = time.monotonic()
                it.signal(signal.SIGKILL)
                gone, there = gone_after(since, GRACE + 0.2 * PATIENCE)
            worst = max([worst] + [seconds for seconds, _ in gone])
            result = it.finish(5)
            left = left_behind(it.pid, max(0, since + GRACE + 0.2 - time.monotonic()))
            if there or left or "Fatal" in result.err:
                bad.append((there, left, result))
    ok(not bad, f"{times} parents killed: all is gone within the grace period and 200 ms (slowest "
       f"{worst * 1000:.0f} ms)", **({} if not bad else {"bad": bad[:3]}))


@test
def ended_at_random_moments(tmp):
    """SIGTERM and SIGINT meanwhile: the program tears all of it down by itself."""
    bad = []
    for number in range(rounds(10)):
        which = (signal.SIGTERM, signal.SIGINT)[number % 2]
        with hosted("--grace", f"{GRACE}s", PROGRAM, "start_for_ever") as it:
            time.sleep(0.15 + random.random() * 0.6)
            it.signal(which)
            result = it.finish(GRACE + 2 * PATIENCE)
            left = left_behind(it.pid, 0.2)
            if left or result.status not in (128 + which,) or "Fatal" in result.err:
                bad.append((which.name, left, result))
    ok(not bad, "a program that is told to end in the middle of it", **({} if not bad else
                                                                     {"bad": bad[:3]}))


@test
def what_cannot_be_carried(tmp):
    result, left = run_hosted(PROGRAM, "carried", timeout=40)
    seen = {line.get("name", "last"): line for line in lines(result)}
    ok(result.status == 0 and not left and len(seen) == 9, "all of it ends", result=result)
    for name in ("unpicklable result", "odd exception", "argument that does not unpickle",
                 "bomb result", "not importable", "unpicklable argument"):
        line = seen.get(name, {})
        ok(line.get("found") and line["found"][0] == "error" and line["found"][2]
           and line["seconds"] < SOON, f"{name}: an error", seen=line)
    ok("odd text" in str(seen.get("odd exception")), "with the text of the original", seen=seen)
    for name in ("big argument", "big result"):
        equal(seen.get(name, {}).get("found"), ["value", 50_000_000], f"{name}: 50 MB")
    ok(seen.get("last") and seen["last"]["last"][1] == "returned", "and then it works as before")


main()
