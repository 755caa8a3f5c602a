#!/usr/bin/env python3
"""--timeout and --grace: what may be written there, and that deadlines hold."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import PATIENCE, equal, hosted, main, ok, script, subhost, test

# A deadline may come late on a busy machine, never early. The tight bound is a benchmark's.
LATE = 2.0 * PATIENCE


def ends(result, status, after, name, out=None):
    ok(result.status == status and after <= result.seconds < after + LATE
       and (out is None or result.out == out),
       f"{name}: {status} after {after} s", result=result)


@test
def forms(tmp):
    for good in ("500ms", "1.5s", "2m", "0.3", "10", "1h", "3s", ".5", "5.", "100000ms", "1000000"):
        result = subhost("run", "--timeout", good, "--grace", good, "-c", "print(1)")
        equal((result.status, result.out, result.err), (0, "1\n", ""), f"{good} is a duration",
              result=result)
    for bad in ("", "x", "-1", "-1s", "nan", "inf", "infinity", "1e400", "1h30", "1 s", "s", "ms",
                "1.2.3", "0x10", "5q", "5sx", "1,5", "+-1", "99999999999999999999999h", " ", "1s "):
        for option in ("--timeout", "--grace"):
            result = subhost("run", option, bad, "-c", "print(1)", timeout=5)
            ok(result.status == 125 and option in result.err and bad in result.err
               and not result.out, f"{option} {bad!r} is refused", result=result)


@test
def zero(tmp):
    # timeout(1) takes 0 for "no limit". A grace of 0 is simply none.
    result = subhost("run", "--grace", "0", "-c", "print(1)")
    equal((result.status, result.out), (0, "1\n"), "--grace 0", result=result)
    result = subhost("run", "--timeout", "0", "-c", "import time; time.sleep(0.1); print(1)")
    ok(result.status in (0, 125), "--timeout 0 is no limit, or refused", result=result)


@test
def whatever_the_program_does(tmp):
    for name, code in {
        "a busy loop": "while True: pass",
        "time.sleep": "import time; time.sleep(60)",
        "a loop of sleeps": "import time\nwhile True: time.sleep(0.001)",
        "Event.wait": "import threading; threading.Event().wait()",
        "Event.wait(1) in a loop": "import threading\ne = threading.Event()\nwhile True: e.wait(1)",
        "Condition.wait": "import threading\nc = threading.Condition()\nwith c: c.wait()",
        "Queue.get": "import queue; queue.Queue().get()",
        "Thread.join": "import threading, time\nt = threading.Thread(target=time.sleep, args=(60,))"
                       "\nt.start()\nt.join()",
        "an unjoined thread": "import threading, time\n"
                              "threading.Thread(target=time.sleep, args=(60,)).start()",
        "a busy thread": "import threading\ndef f():\n  while True: pass\n"
                         "threading.Thread(target=f).start()",
        "os.read of a pipe": "import os; os.read(os.pipe()[0], 1)",
        "select": "import select; select.select([], [], [])",
        "poll": "import select, os\np = select.poll(); p.register(os.pipe()[0]); p.poll()",
        "accept": "import socket\ns = socket.create_server(('127.0.0.1', 0)); s.accept()",
        "recv": "import socket\na, b = socket.socketpair(); a.recv(1)",
        "asyncio": "import asyncio; asyncio.run(asyncio.sleep(60))",
        "asyncio that waits for ever": "import asyncio\n"
                                       "async def f(): await asyncio.Event().wait()\n"
                                       "asyncio.run(f())",
        "a child": "import subprocess; subprocess.run(['sleep', '60'])",
        "open of a FIFO": "import os, tempfile\nn = tempfile.mktemp(); os.mkfifo(n); open(n)",
        "a generator": "import itertools; sum(1 for _ in itertools.count())",
        "atexit": "import atexit, time; atexit.register(time.sleep, 60)",
        "an import": "import sys, time\nclass Finder:\n  def find_spec(self, name, *a):\n"
                     "    if name == 'nothing': time.sleep(60)\n"
                     "sys.meta_path.insert(0, Finder()); import nothing",
        "a sort that compares": "class A:\n  def __lt__(s, o):\n    while True: pass\n"
                                "sorted([A(), A()])",
    }.items():
        result = subhost("run", "--timeout", "200ms", "-c", code, cwd=tmp)
        ends(result, 124, 0.2, name)
    with hosted("--timeout", "200ms", "-c", "input()") as it:
        ends(it.finish(), 124, 0.2, "reading stdin")
    with hosted("--timeout", "200ms", "-c", "input()", terminal=True) as it:
        ends(it.finish(), 124, 0.2, "reading a terminal")


@test
def message(tmp):
    result = subhost("run", "--timeout", "200ms", "-c", "import time\ntime.sleep(60)")
    ok("deadline" in result.err and result.err.count("\n") < 20,
       "the user is told of the deadline, in a few lines", result=result)


@test
def in_time(tmp):
    result = subhost("run", "--timeout", "30s", "-c", "import sys; print('done'); sys.exit(3)")
    ok(result.status == 3 and result.seconds < 10, "a program that ends in time keeps its status",
       result=result)


@test
def cleanup(tmp):
    # Time enough to come to the point where the deadline finds it, on a busy machine too.
    result = subhost("run", "--timeout", "500ms", "-c", """
import atexit, time
atexit.register(print, "atexit")
print("unflushed", end=" ")
try:
    time.sleep(60)
finally:
    print("finally")
""")
    ends(result, 124, 0.5, "finally and atexit run, output is flushed",
         out="unflushed finally\natexit\n")
    result = subhost("run", "--timeout", "500ms", "-c", """
try:
    while True:
        pass
except Exception:
    print("wrong: Exception")
except BaseException as error:
    print(type(error).__name__, isinstance(error, Exception))
    raise
""")
    ends(result, 124, 0.5, "it is no Exception", out="Cancelled False\n")
    result = subhost("run", "--timeout", "500ms", "-c", """
import time
try:
    time.sleep(60)
except BaseException:
    time.sleep(0.3)     # within the grace period a cleanup may block
    print("cleaned up")
""")
    ok(result.out == "cleaned up\n" and 0.8 <= result.seconds < 0.8 + LATE,
       "a cleanup may take its time", result=result)
    result = subhost("run", "--timeout", "500ms", "-c", """
import contextlib, tempfile, os, time
with tempfile.TemporaryDirectory(dir=os.getcwd()) as folder:
    open(folder + "/x", "w").close()
    time.sleep(60)
""", cwd=tmp)
    ends(result, 124, 0.5, "a context manager")
    equal(list(tmp.iterdir()), [], "has removed its folder")
    result = subhost("run", "--timeout", "500ms", "-c", """
import asyncio
async def main():
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.05)
        print("async cleanup")
asyncio.run(main())
""")
    ends(result, 124, 0.5, "asyncio: finally with an await", out="async cleanup\n")


@test
def own_exit_after_the_deadline(tmp):
    result = subhost("run", "--timeout", "500ms", "-c", """
import sys, time
try:
    time.sleep(60)
except BaseException:
    sys.exit(5)
""")
    ok(result.status in (5, 124), "sys.exit(5) while being cancelled", result=result)


@test
def no_mercy(tmp):
    stubborn = {
        "catches everything": """
while True:
    try:
        while True:
            pass
    except BaseException:
        pass
""",
        "sleeps through everything": """
import time
while True:
    try:
        time.sleep(60)
    except BaseException:
        pass
""",
        "stays in finally": """
try:
    while True: pass
finally:
    while True:
        try:
            while True: pass
        except BaseException: pass
""",
        "waits for a lock for ever": "import threading\n"
                                     "x = threading.Lock(); x.acquire(); x.acquire()",
        "stays in C with the GIL": "import re; re.match('(a*)*b', 'a' * 60)",
    }
    for name, code in stubborn.items():
        result = subhost("run", "--timeout", "200ms", "--grace", "300ms", "-c", code)
        # What can still be interrupted may end with 124; the rest is killed or abandoned.
        statuses = (124, 137) if "lock" in name else (137,)
        ok(result.status in statuses and 0.2 <= result.seconds < 0.5 + LATE,
           f"a program that {name}: 137 after the grace period", result=result)
        ok(result.status == 124 or 0.5 <= result.seconds, f"{name}: not before", result=result)
    result = subhost("run", "--timeout", "200ms", "-c", stubborn["catches everything"])
    ends(result, 137, 2.2, "the default grace is 2 s")
    result = subhost("run", "--timeout", "500ms", "--grace", "300ms", "-c",
                     "print('flushed by hand', flush=True)\n" + stubborn["catches everything"])
    equal(result.out, "flushed by hand\n", "earlier output is not lost", result=result)


@test
def workers_share_the_deadline(tmp):
    file = script(tmp, """
        import subhost, time
        try:
            time.sleep(60)
        finally:
            print("end")
    """)
    result = subhost("run", "-n", "4", "--timeout", "800ms", file)
    ends(result, 124, 0.8, "four workers", out="end\n" * 4)


main()
