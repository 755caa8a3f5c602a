#!/usr/bin/env python3
"""Items of `subhost map` share an interpreter, or a process, one after another: what one of them
leaves behind does not reach the next."""
import json
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import PATIENCE, equal, main, script, subhost, test

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
            if x % 2 == 0 and x < 16: time.sleep(100)
            with subhost.open_nursery() as nursery:
                task = nursery.start(same, x)
            return task.result()
        """, "functions.py")
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [min(cpus)])
    try:
        got = subhost("map", "-j1", "--timeout", str(0.2 * PATIENCE), "functions:f",
                      input=numbers(24), cwd=folder, timeout=60)
    finally:
        os.sched_setaffinity(0, cpus)
    equal(outcomes(got), [x if x % 2 or x >= 16 else "timed-out" for x in range(24)],
          "a deadline ends no task of a later item", result=got)


main()
