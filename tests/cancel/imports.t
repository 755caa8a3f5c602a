#!/usr/bin/env python3
# timeout: 90
"""A cancel that comes while threads import: no lock of importlib's stays held, neither for the
other threads nor for the calls that the same interpreter makes next.

SUBHOST_TEST_ROUNDS   cancels (default: 24; without the care one in ten leaves a lock held)"""
import json
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from sessions import rounds
from tap import equal, main, ok, script, subhost, test

PROGRAM = """
import contextlib, importlib, sys, threading
MODULES = ("colorsys", "csv", "json", "sched", "shlex", "string", "struct", "textwrap")
def imports():
    while True:
        with contextlib.suppress(Exception):  # two at once may miss each other's modules
            for name in MODULES:
                importlib.import_module(name)
            for name in MODULES:
                sys.modules.pop(name, None)
def again(done):
    for name in MODULES:
        with contextlib.suppress(KeyError):  # threads of the call before are just ending
            importlib.import_module(name)
    done.append(threading.current_thread())
def storm(x):
    done = []
    again(done)
    thread = threading.Thread(target=again, args=(done,))
    thread.start()
    thread.join()
    if x % 8 == 7:
        return len(done)
    threads = [threading.Thread(target=imports) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
"""


@test
def threads_that_import(folder):
    script(folder, PROGRAM, "storms.py")
    times = rounds(24) * 8 // 7
    result = subhost("map", "-j", "2", "--stats", "--timeout", "150ms", "--grace", "5s",
                     "storms:storm", input="".join(f"{n}\n" for n in range(times)), cwd=folder,
                     timeout=30 + times)
    lines = [json.loads(line) for line in result.out.splitlines()]
    kinds = {line.get("kind", "ok") for line in lines}
    ok(len(lines) == times and kinds <= {"ok", "timed-out"}, "every call ends, by its deadline or "
       "of itself", result=result.err[-2000:], kinds=kinds)
    ok(sum(line.get("kind") == "timed-out" for line in lines) >= times * 7 // 8,
       "those that import for ever are cancelled")
    equal(re.findall(r"replaced (\d+)|(\d+) abandoned", result.err), [("0", ""), ("", "0")],
          "no interpreter was given up: what comes next can import", result=result.err[-2000:])


main()
