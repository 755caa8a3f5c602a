#!/usr/bin/env python3
"""`subhost map --resume FILE`: a run that is killed goes on where it stopped."""
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import PATIENCE, SUBHOST, environment, equal, main, ok, run, script, subhost, test

FUNCTION = """
import time
def slow(x):
    time.sleep(0.001)
    if x % 50 == 3: raise ValueError(x)
    return [x, "é" * (x % 7)]
def stubborn(x):
    try:
        time.sleep(0.4)
        return x
    except BaseException:
        if x % 2: raise RuntimeError("cleaned up")
"""
COUNT = 800


def prepare(folder):
    script(folder, FUNCTION, "functions.py")
    (folder / "in").write_text("".join(f"{i}\n" for i in range(COUNT)))
    return subhost("map", "functions:slow", "in", cwd=folder).out


def attempt(folder, mode, options, patience):
    """One run; None: it was killed."""
    with open(folder / "out", mode) as out:
        process = subprocess.Popen(
            [SUBHOST, "map", *options, "--resume", "journal", "functions:slow", "in"],
            stdout=out, stderr=subprocess.PIPE, cwd=folder, env=environment())
    try:
        process.communicate(timeout=patience)
        return process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None


# SIGKILLs of each kind of run; SUBHOST_TEST_ROUNDS=50 is the real thing.
KILLS = int(os.environ.get("SUBHOST_TEST_ROUNDS", 4))


@test
def killed(folder):
    """At random points, again and again, with >> and with >."""
    whole = prepare(folder)
    for mode, options in [("a", []), ("w", []), ("a", ["--unordered"]),
                          ("a", ["--isolation", "process"])]:
        kills, status = 0, None
        for path in "out", "journal":
            (folder / path).unlink(missing_ok=True)
        while status is None or kills < KILLS:
            if status is not None:  # it came to its end before all kills: from the beginning
                for path in "out", "journal":
                    (folder / path).unlink(missing_ok=True)
            status = attempt(folder, mode, options, 30 * PATIENCE if kills >= KILLS else
                             random.uniform(0.05, 0.4 if KILLS > 4 else 0.6) * PATIENCE)
            kills += status is None
            if status not in (None, 1):
                break
        got = (folder / "out").read_text()
        if "--unordered" in options:
            got, expected = sorted(got.splitlines()), sorted(whole.splitlines())
        else:
            expected = whole
        ok(got == expected, f"{mode} {options}: as the uninterrupted one, after {kills} kills",
           got=len(got), expected=len(expected))
        equal(status, 1, "with its status")


@test
def stopped(folder):
    """What an item makes of a cancel is no result of its: the run that goes on does it again."""
    script(folder, FUNCTION, "functions.py")
    (folder / "in").write_text("0\n1\n2\n3\n")
    whole = subhost("map", "functions:stubborn", "in", cwd=folder).out
    for isolation in "interpreter", "process":
        for signo in signal.SIGTERM, signal.SIGINT:
            (folder / "journal").unlink(missing_ok=True)
            command = [SUBHOST, "map", "-j2", "--isolation", isolation, "--resume", "journal",
                       "functions:stubborn", "in"]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                       cwd=folder, env=environment(), text=True)
            while len(process.stdout.readline()) == 0:
                pass
            time.sleep(0.2)
            process.send_signal(signo)
            process.communicate(timeout=30 * PATIENCE)
            equal(process.returncode, 128 + signo, f"{isolation}: {signo.name} ends it")
            again = subprocess.run(command, capture_output=True, cwd=folder, env=environment(),
                                   text=True)
            equal((again.stdout, again.returncode), (whole, 0), "and the next run does the rest",
                  result=again)


@test
def pipes_and_files(folder):
    whole = prepare(folder)
    first = subhost("map", "--resume", "journal", "functions:slow", "in", cwd=folder)
    again = subhost("map", "--resume", "journal", "functions:slow", "in", cwd=folder)
    equal((first.out, again.out), (whole, whole), "a pipe gets all of it each time")
    ok(f"{COUNT} items were done before" in again.err, "and nothing is done twice", result=again)
    equal(again.status, 1, "the status is that of all items")
    with open(folder / "in", "a") as file:
        file.write(f"{COUNT + 1}\n")
    more = subhost("map", "--resume", "journal", "functions:slow", "in", cwd=folder)
    equal([json.loads(line)["index"] for line in more.out.splitlines()], list(range(COUNT + 1)),
          "input that has come since is done")


@test
def a_reader_that_goes_away(folder):
    """It ends the run as any filter, also while it gets what was done before."""
    script(folder, "def same(x): return x\n", "same.py")
    (folder / "in").write_text("".join(f"{i}\n" for i in range(20000)))
    command = [SUBHOST, "map", "--resume", "journal", "same:same", "in"]
    equal(subhost(*command[1:], cwd=folder).status, 0, "a whole run")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               cwd=folder, env=environment(), text=True)
    first = process.stdout.readline()
    process.stdout.close()
    equal((json.loads(first)["index"], process.wait(30 * PATIENCE), process.stderr.read()),
          (0, -signal.SIGPIPE, "subhost: map: 20000 items were done before\n"), "by SIGPIPE")


@test
def a_head_that_was_cut(folder):
    """By a kill, or a full disk, in the moment in which the journal began."""
    script(folder, "def same(x): return x\n", "same.py")
    arguments = ["map", "--resume", "journal", "same:same"]
    whole = subhost(*arguments, input="1\n2\n", cwd=folder).out
    journal = folder / "journal"
    head = b"".join(journal.read_bytes().splitlines(keepends=True)[:2])
    size = len(head)
    # As it was written first: without a place.
    place = b'{"device": %20d, "inode": %20d, "offset": %20d}\n' % (0, 0, 0)
    head = head.split(b"\n")[0] + b"\n" + place
    equal(len(head), size, "as long as it is")
    for cut in 1, size // 3, head.index(b"\n") + 1, size - 1:
        journal.write_bytes(head[:cut])
        got = subhost(*arguments, input="1\n2\n", cwd=folder)
        equal((got.status, got.out, got.err), (0, whole, ""),
              f"{cut} bytes of it: from the beginning")
    journal.write_bytes(b"{}")
    got = subhost(*arguments, input="1\n2\n", cwd=folder)
    equal((got.status, journal.read_bytes()), (125, b"{}"), "another file is left alone")


@test
def mistakes(folder):
    prepare(folder)
    subhost("map", "--resume", "journal", "functions:slow", input="1\n", cwd=folder)
    got = subhost("map", "--resume", "journal", "functions:other", input="1\n", cwd=folder)
    ok(got.status == 125 and "the journal of another run" in got.err, "another function",
       result=got)
    got = subhost("map", "--resume", "in", "functions:slow", input="1\n", cwd=folder)
    ok(got.status == 125 and "or none at all" in got.err, "no journal", result=got)
    got = run(["sh", "-c", f"'{SUBHOST}' map --resume own functions:slow in >> own"], cwd=folder)
    ok(got.status == 125 and "standard output, too" in got.err, "the output itself", result=got)
    got = subhost("map", "--resume", ".", "functions:slow", input="1\n", cwd=folder)
    equal(got.status, 125, "a folder", result=got)
    got = subhost("map", "--resume", "no/such/folder", "functions:slow", input="1\n", cwd=folder)
    equal(got.status, 125, "no folder", result=got)
    with open(folder / "journal", "ab") as file:
        file.write(b'{"index": 1, "ok": tr')
    got = subhost("map", "--resume", "journal", "functions:slow", input="1\n2\n", cwd=folder)
    equal([json.loads(line)["value"][0] for line in got.out.splitlines()], [1, 2],
          "half a line at its end is cut off", result=got)
    with open(folder / "journal", "ab") as file:
        file.write(b"nonsense\n")
    got = subhost("map", "--resume", "journal", "functions:slow", input="1\n2\n", cwd=folder)
    ok(got.status == 125 and "no result of its run" in got.err, "nonsense in it", result=got)


@test
def an_output_that_was_changed(folder):
    prepare(folder)
    status = attempt(folder, "w", [], 30 * PATIENCE)
    equal(status, 1, "a whole run")
    text = (folder / "out").read_text()
    (folder / "out").write_text(text[:100] + "x" + text[101:2000])
    with open(folder / "out", "a") as out:
        got = subprocess.run(
            [SUBHOST, "map", "--resume", "journal", "functions:slow", "in"], stdout=out,
            stderr=subprocess.PIPE, cwd=folder, env=environment(), text=True)
    ok(got.returncode == 125 and "has been changed" in got.stderr, "is not continued",
       result=got)


main()
