#!/usr/bin/env python3
"""Items that do not end by themselves, or that take their process with them, among many: each
is reported with its kind, all others are right, and the run ends."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import PATIENCE, SUBHOST, environment, equal, main, ok, script, subhost, test

FUNCTION = """
import ctypes, os, re, signal, socket, time
def hard(x):
    if x == 1000:
        while True: pass
    if x == 2000:
        a, b = socket.socketpair()
        a.recv(1)
    if x == 3000:
        re.match(r"(a+)+$", "a" * 60 + "b")
    if x == 4000:
        os.kill(os.getpid(), signal.SIGKILL)
    if x == 5000:
        os._exit(3)
    return x
def crash(x):
    if x == 50:
        ctypes.CDLL(None).abort()
    return x
def slow(x):
    time.sleep(0.01)
    return x
def deaf(x):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return slow(x)
def leaves(x):
    if x == 5: raise SystemExit(3)
    if x == 6: raise KeyboardInterrupt
    return x
"""
COUNT = 10000


def check(got, isolation, killed):
    lines = [json.loads(line) for line in got.out.splitlines()]
    equal([line["index"] for line in lines], list(range(COUNT)), f"{isolation}: all, in order")
    equal([line["index"] for line in lines if line["ok"] and line["value"] != line["index"]], [],
          "all others are right")
    bad = {line["index"]: line for line in lines if not line["ok"]}
    equal({index: line["kind"] for index, line in bad.items()},
          {1000: "timed-out", 2000: "timed-out", 3000: "timed-out", 4000: "killed",
           5000: "killed"}, "the kinds", result=got.err)
    equal(got.status, 1, "status 1")
    return bad


@test
def hard_items(folder):
    script(folder, FUNCTION, "functions.py")
    data = "".join(f"{i}\n" for i in range(COUNT))
    limits = ["--timeout", str(0.5 * PATIENCE), "--grace", str(0.5 * PATIENCE)]
    bad = check(subhost("map", "--isolation", "process", *limits, "functions:hard", input=data,
                        cwd=folder, timeout=60), "process", True)
    ok("was killed" in bad[3000]["error"], "C that never returns is killed", bad=bad[3000])
    ok("signal 9" in bad[4000]["error"] and "status 3" in bad[5000]["error"],
       "what the process ended with", bad=bad)
    bad = check(subhost("map", *limits, "functions:hard", input=data, cwd=folder, timeout=60),
                "interpreter", False)
    ok("while True" in bad[1000]["traceback"], "where it was", bad=bad[1000])
    for index in 3000, 4000, 5000:
        ok("process" in bad[index]["error"], "says that only a process contains it",
           bad=bad[index])


@test
def the_shared_gil(folder):
    """Who keeps it leaves the others nothing: the run ends, and says what helps."""
    script(folder, FUNCTION, "functions.py")
    data = "".join(f"{i}\n" for i in [1, 3000, 2, 4])
    got = subhost("map", "-j1", "--gil", "shared", "--timeout", "300ms", "--grace", "200ms",
                  "functions:hard", input=data, cwd=folder, timeout=60)
    ok(got.status == 125 and "use --isolation process" in got.err, "125", result=got)
    equal([json.loads(line)["ok"] for line in got.out.splitlines()][:2], [True, False],
          "what was done is written", result=got)


@test
def crashes(folder):
    """C code that takes the process with it: contained in a process, said in an interpreter."""
    script(folder, FUNCTION, "functions.py")
    data = "".join(f"{i}\n" for i in range(100))
    got = subhost("map", "--isolation", "process", "functions:crash", input=data, cwd=folder)
    bad = [json.loads(line) for line in got.out.splitlines() if '"ok": false' in line]
    equal([(line["index"], line["kind"]) for line in bad], [(50, "killed")], "in a process",
          result=got)
    equal(len(got.out.splitlines()), 100, "the others are done")
    got = subhost("map", "functions:crash", input=data, cwd=folder)
    ok(got.status == 128 + signal.SIGABRT and "--isolation process contains that" in got.err,
       "in an interpreter", result=got)


@test
def exceptions_that_leave(folder):
    script(folder, FUNCTION, "functions.py")
    for isolation in "interpreter", "process":
        got = subhost("map", "--isolation", isolation, "functions:leaves",
                      input="".join(f"{i}\n" for i in range(10)), cwd=folder)
        bad = [json.loads(line) for line in got.out.splitlines() if '"ok": false' in line]
        equal([(line["index"], line["kind"], line["error"]) for line in bad],
              [(5, "raised", "SystemExit: 3"), (6, "raised", "KeyboardInterrupt")],
              f"{isolation}: SystemExit and KeyboardInterrupt are raised", result=got)


@test
def signals(folder):
    script(folder, FUNCTION, "functions.py")
    (folder / "in").write_text("".join(f"{i}\n" for i in range(2000)))
    for isolation in "interpreter", "process":
        # What an item ignores is the run's all the same.
        for signo, status, name in ((signal.SIGINT, 130, "slow"), (signal.SIGINT, 130, "deaf"),
                                    (signal.SIGTERM, 143, "slow")):
            process = subprocess.Popen(
                [SUBHOST, "map", "--isolation", isolation, f"functions:{name}", "in"],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder, env=environment(),
                text=True)
            first = process.stdout.readline()
            start = time.monotonic()
            process.send_signal(signo)
            # Not communicate(): it passes by what readline() has read ahead.
            rest, said = process.stdout.read(), process.stderr.read()
            process.wait(30 * PATIENCE)
            taken = time.monotonic() - start
            equal((process.returncode, said), (status, ""), f"{isolation}: {signo.name}, {name}")
            ok(taken < 3 * PATIENCE, "soon", taken=taken)
            indices = [json.loads(line)["index"] for line in (first + rest).splitlines()]
            equal(indices, list(range(len(indices))), "what was written is whole")


main()
