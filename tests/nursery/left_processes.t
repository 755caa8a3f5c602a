#!/usr/bin/env python3
# timeout: 120
"""Processes that tasks have started and not waited for: none stays a zombie when it ends after
the interpreter that has started it, and none that is still waited for is taken away."""
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from nurseries import each, prints
from tap import PATIENCE, SUBHOST, environment, equal, main, script, test

# Each process reads from a FIFO, and ends when nobody has that open for writing any more.
FUNCTIONS = f"""
import os, subprocess, time

def children(states, of=None):
    found = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{{name}}/stat") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        found += int(parent) == (of or os.getpid()) and state in states
    return found

def zombies(of=None):
    '''So many as do not go.'''
    until = time.monotonic() + 10 * {PATIENCE}
    while (n := children("Z", of)) and time.monotonic() < until:
        time.sleep(0.01)
    return n

def start_reader(path, command="exec cat"):
    with open(path) as file:
        return subprocess.Popen(["sh", "-c", command], stdin=file, stdout=subprocess.DEVNULL)

def drop(path, n=1):
    for _ in range(n):
        start_reader(path)

def keep(path):
    global kept
    kept = start_reader(path)

def leave_at_exit(path):
    import atexit
    atexit.register(start_reader, path)

def read(path):
    return os.popen("echo read").read()
"""


@test
@each
def after_their_tasks(folder, isolation):
    os.mkfifo(folder / "fifo")
    # In a process it is interpreters of that process, below its own.
    prints(folder, FUNCTIONS + """
def left(function, path, tasks, *args):
    writer = os.open(path, os.O_RDWR)
    for _ in range(tasks):
        with subhost.open_nursery() as nursery:
            nursery.start(function, path, *args)
    running = children("SRD")
    os.close(writer)
    return running, zombies()

def waited_for(path):
    writer = os.open(path, os.O_RDWR)
    process = start_reader(path, "cat; exit 3")
    with subhost.open_nursery() as nursery:
        nursery.start(drop, path)
    os.close(writer)
    return process.wait()
""", f"""
def one(function, *args):
    with subhost.open_nursery() as nursery:
        return start(nursery, function, *args).result()
path = {str(folder / "fifo")!r}
print("dropped", one(left, drop, path, 10))
print("kept", one(left, keep, path, 10))
print("left at exit", one(left, leave_at_exit, path, 10))
print("many", one(left, drop, path, 5, 40))
print("os.popen", one(left, read, path, 20)[1])
print("waited for", one(waited_for, path))
""", """\
dropped (10, 0)
kept (10, 0)
left at exit (10, 0)
many (200, 0)
os.popen 0
waited for 3
""", "no zombie stays", isolation=isolation)
    os.unlink(folder / "fifo")


@test
def fresh_workers_of_map(folder):
    script(folder, FUNCTIONS, "left.py")
    os.mkfifo(folder / "fifo")
    writer = os.open(folder / "fifo", os.O_RDWR)
    sys.path.insert(0, str(folder))
    import left
    with subprocess.Popen([SUBHOST, "map", "-j", "2", "--fresh", "left:drop"], cwd=folder,
                          env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as it:
        it.stdin.write(b'"fifo"\n' * 20)
        it.stdin.flush()
        lines = [it.stdout.readline() for _ in range(20)]  # before the FIFO has no writer
        os.close(writer)
        zombies = left.zombies(it.pid)
        it.stdin.close()
    equal((len(lines), zombies, it.returncode), (20, 0, 0), "map --fresh: no zombie stays")


main()
