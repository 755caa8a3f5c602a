#!/usr/bin/env python3
# timeout: 150
"""`orphan-sigint`: who loses its parent ends within the grace period; SIGINT to it works too.

SUBHOST_TEST_ROUNDS   trees orphaned (default: 8; the promise is 200 of 200)"""
import contextlib
import os
import pathlib
import re
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import PATIENCE, equal, hosted, main, ok, script, skip, subhost, test
from sessions import left_behind, members, rounds, watched

PROGRAM = pathlib.Path(__file__).resolve().parent / "programs" / "descend.py"
GRACE = 0.5
LATE = 0.2 * PATIENCE


def orphaned(how, *words, kill=signal.SIGKILL, options=(), pause=0.3, then=None):
    """Kill the root of six processes: ([seconds until each was gone], [who was not], Result)."""
    with hosted("--grace", f"{GRACE}s", *options, PROGRAM, how, *words) as it:
        it.wait_for("pid ", times=6)
        time.sleep(pause)  # until the leaves do what they are to do
        said = {int(pid) for pid in re.findall(rb"pid (\d+)", it.output["out"])}
        others = set(members(it.pid)) - {it.pid}
        with watched(said | others) as gone_after:
            since = time.monotonic()
            it.signal(kill)
            if then:
                then(said)
            gone, there = gone_after(since, GRACE + LATE)
            result = it.finish(5)
        missing = sorted(said - others)
        left_behind(it.pid, 0)
        return gone, there + [f"{pid} was not in the session" for pid in missing], result


@test
def parent_killed(tmp):
    for how in ("wait", "sleep", "spin", "ignore", "finally", "asyncio"):
        times = rounds(8) if how == "wait" else max(2, rounds(8) // 6)
        slowest, bad = 0, []
        for _ in range(times):
            gone, there, result = orphaned(how)
            slowest = max([slowest] + [seconds for seconds, _ in gone])
            if there or len(gone) < 6:
                bad.append((gone, there, result))
        ok(not bad, f"leaves that {how}: the root is killed, all six are gone within the grace "
           f"period and 200 ms, {times} times of {times} (slowest {slowest * 1000:.0f} ms)",
           **({} if not bad else {"bad": bad[:2]}))


@test
def who_can_tidy_up_does(tmp):
    for how in ("finally", "asyncio"):
        gone, there, result = orphaned(how, pause=0.4)
        ok(not there and result.out.count("tidied") == 4,
           f"{how}: an orphan's task is cancelled, not just killed", result=result, there=there)


@test
def a_parent_with_a_loop_and_a_listener(tmp):
    bad = []
    for how in ("wait", "asyncio"):
        gone, there, result = orphaned(how, "asyncio")
        if there or len(gone) < 6:
            bad.append((how, gone, there, result))
    ok(not bad, "a root that runs asyncio", **({} if not bad else {"bad": bad}))


@test
def a_spawner_killed(tmp):
    """One in the middle dies: what is below it goes, its supervisor gets a clear outcome."""
    file = script(tmp, """
        import os, signal, sys, time
        import subhost
        def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())
        def leaf():
            say("leaf", os.getpid())
            time.sleep(600)
        def spawner():
            say("spawner", os.getpid())
            with subhost.open_nursery() as nursery:
                nursery.start(leaf, isolation="process")
                nursery.start(leaf, isolation="process")
        if __name__ == "__main__":
            try:
                with subhost.open_nursery() as nursery:
                    task = nursery.start(spawner, isolation="process")
            except ExceptionGroup as error:
                say("failed", [str(e) for e in error.exceptions])
            say("outcome", task.outcome)
    """)
    with hosted("--grace", f"{GRACE}s", file) as it:
        it.wait_for("leaf ", times=2)
        it.wait_for("spawner ")
        spawner, = map(int, re.findall(rb"spawner (\d+)", it.output["out"]))
        leaves = list(map(int, re.findall(rb"leaf (\d+)", it.output["out"])))
        with watched(leaves) as gone_after:
            since = time.monotonic()
            os.kill(spawner, signal.SIGKILL)
            gone, there = gone_after(since, GRACE + LATE)
        result = it.finish(10)
        ok(not there and len(gone) == 2, "a spawner is killed: its leaves are gone in time",
           gone=gone, there=there, result=result)
        ok(result.status == 0 and "failed" in result.out and "killed" in result.out
           and "9" in result.out, "and the root knows that it was killed by 9", result=result)
        equal(left_behind(it.pid), [], "nothing is left")


@test
def sigint_to_one(tmp):
    """SIGINT sent to a child, and to an orphan within its grace period, ends it at once."""
    for how in ("wait", "spin", "asyncio"):
        with hosted("--grace", "5s", PROGRAM, how) as it:
            it.wait_for("pid ", times=6)
            time.sleep(0.3)
            pids = set(map(int, re.findall(rb"pid (\d+)", it.output["out"])))
            with watched(pids) as gone_after:
                since = time.monotonic()
                for pid in pids:
                    # The first one's end may be the end of others already.
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGINT)
                gone, there = gone_after(since, 1 * PATIENCE)
            result = it.finish(10)
            ok(not there and result.status not in ("timeout", 0), f"leaves that {how}: SIGINT to "
               "every child ends them, and the program with an error", there=there, result=result)
            equal(left_behind(it.pid), [], f"leaves that {how}: nothing is left")


@test
def detached(tmp):
    """Under the policy `detach` an orphan goes on, and SIGINT ends it as it ends a root."""
    option = ("--set", "fork.orphan=detach")
    probe = subhost("run", *option, "-c", "pass")
    if probe.status:
        skip("orphans under detach", f"no such policy yet: {probe.last}")
        return
    for how in ("wait", "spin", "asyncio"):
        with hosted("--grace", f"{GRACE}s", *option, PROGRAM, how) as it:
            it.wait_for("pid ", times=6)
            time.sleep(0.3)
            pids = set(map(int, re.findall(rb"pid (\d+)", it.output["out"])))
            with watched(pids) as gone_after:
                it.signal(signal.SIGKILL)
                gone, there = gone_after(time.monotonic(), GRACE + 0.5)
                equal(len(there), 6, f"detach, {how}: they go on", gone=gone)
                since = time.monotonic()
                for pid in pids:
                    os.kill(pid, signal.SIGINT)
                gone, there = gone_after(since, GRACE + LATE)
                equal(there, [], f"detach, {how}: SIGINT ends them", gone=gone)
            it.finish(1)
            left_behind(it.pid, 0)


main()
