#!/usr/bin/env python3
# timeout: 170
"""The Nth call into libc that a forked child makes ends the child, fails, or ends its parent:
whoever waits gets a clear outcome, soon, and nothing is left.

The first calls are those with which a child becomes a host; they end with its hello.

SUBHOST_TEST_ROUNDS   how many calls (default: 48 of each, which is past the hello)"""
import json
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import BUILD, PATIENCE, SUBHOST, main, ok, test
from sessions import finished, left_behind, rounds, spawn

PROGRAM = pathlib.Path(__file__).resolve().parent / "programs" / "deaths.py"
LIBRARY = next((BUILD / "tests" / "native").glob("nth_call*.so"))
SOON = 1.0 * PATIENCE
GRACE = 0.5
CALLS = rounds(48)


def environment(tmp, what, number):
    log = tmp / f"{what}-{number}"
    return log, {**os.environ, "LD_PRELOAD": str(LIBRARY), "NTH_CALL": f"{what}:{number}",
                 "NTH_CALL_LOG": str(log)}


def name(log):
    """Of the call that was hit; None: the child makes fewer."""
    return log.read_text().split()[0] if log.exists() else None


def one(tmp, what, number):
    """The call's name, what the program saw of its task, what is wrong with that."""
    log, env = environment(tmp, what, number)
    result, left = finished([SUBHOST, "run", "--grace", f"{GRACE}s", PROGRAM, "one"], env=env)
    lines = [json.loads(line) for line in result.out.splitlines() if line.startswith("{")]
    if result.status != 0 or len(lines) != 1 or left:
        return name(log), None, (result, left)
    (found, outcome, seconds), others = lines[0]["row"], lines[0]["others"]
    # Once the program runs, what it has no memory for is its MemoryError, which has no text.
    clear = (found == ["value", 5] if outcome == "returned" else
             found[0] == "error" and (found[2] or found[1] == "MemoryError"))
    wrong = not clear or others or seconds > SOON
    return name(log), (outcome, found), (result, others) if wrong else None


@test
def child_killed(tmp):
    seen, before_hello = [], []
    for number in range(1, CALLS + 1):
        call, outcome, wrong = one(tmp, "kill", number)
        if call is None:
            break
        seen.append(call)
        ok(not wrong and outcome[0] == "killed(9)", f"killed before call {number} ({call}): "
           "killed(9)", wrong=wrong, outcome=outcome)
        if outcome and "before it said hello" in outcome[1][2]:
            before_hello.append(number)
    # From its two threads on, the child's calls come in any order.
    ok(before_hello[:20] == list(range(1, 21)) and len(before_hello) < len(seen),
       f"{len(before_hello)} of these come before the hello, which the outcome says", seen=seen,
       before_hello=before_hello)


@test
def call_fails(tmp):
    for number in range(1, CALLS + 1):
        call, outcome, wrong = one(tmp, "fail", number)
        if call is None:
            break
        ok(not wrong, f"call {number} ({call}) fails: {outcome and outcome[0]}", wrong=wrong)


@test
def parent_killed(tmp):
    slowest, bad, hit = 0, [], 0
    for number in range(1, CALLS + 1):
        log, env = environment(tmp, "parent", number)
        with spawn([SUBHOST, "run", "--grace", f"{GRACE}s", PROGRAM, "one"], env=env) as it:
            result = it.finish(20)
            ended = time.monotonic()
            left = left_behind(it.pid, GRACE + 0.2)
            slowest = max(slowest, time.monotonic() - ended)
        hit += name(log) is not None
        # The parent may be done before its child makes so many calls.
        if left or "Fatal" in result.err or result.status not in (-9, 137, 0):
            bad.append((number, name(log), left, result))
    ok(not bad and hit > 20, f"parent killed before call 1 to {CALLS}: its child is gone within the "
       f"grace period and 200 ms (slowest {slowest * 1000:.0f} ms)", bad=bad[:3], hit=hit)


main()
