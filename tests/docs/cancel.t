#!/usr/bin/env python3
# timeout: 150
"""The table of docs/cancel.md: what of a blocked or busy program can be interrupted, by
version of CPython. Each row is a program here, which gets a SIGTERM once it is ready."""
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import PATIENCE, PYTHON, SOURCE, equal, hosted, main, ok, run, test

GRACE = 0.8
# The name in the table: (the modules it needs, what it does when it is ready).
STATES = {
    "a busy loop": ("", "while True: pass"),
    "`time.sleep`": ("time", "time.sleep(60)"),
    "`Event.wait`": ("threading", "threading.Event().wait()"),
    "`Event.wait(1)` in a loop": ("threading", "e = threading.Event()\nwhile True: e.wait(1)"),
    "`Condition.wait`": ("threading", "c = threading.Condition()\nwith c: c.wait()"),
    "`Semaphore.acquire`": ("threading", "threading.Semaphore(0).acquire()"),
    "`queue.Queue.get`": ("queue", "queue.Queue().get()"),
    "`Future.result`": ("concurrent.futures", "concurrent.futures.Future().result()"),
    "`Thread.join` of a thread that sleeps": (
        "threading, time",
        "t = threading.Thread(target=time.sleep, args=(60,)); t.start(); t.join()"),
    "`os.read` of a pipe": ("os", "r, w = os.pipe(); os.read(r, 1)"),
    "`open` of a FIFO": ("os, tempfile", "d = tempfile.TemporaryDirectory()\n"
                         "with d: os.mkfifo(d.name + '/f'); open(d.name + '/f')"),
    "`socket.recv`, `accept`": ("socket", "socket.create_server(('127.0.0.1', 0)).accept()"),
    "`select`, `poll`, `epoll`": ("select, os",
                                  "r, w = os.pipe(); select.select([r], [], [])"),
    "`subprocess.run`": ("subprocess", "subprocess.run(['sleep', '60'])"),
    "`os.waitpid`": ("os, sys", "os.waitpid(os.posix_spawn('/bin/sleep', ['sleep', '1'], {},"
                     " file_actions=[(os.POSIX_SPAWN_CLOSE, 1)]), 0)"),
    "`fcntl.flock`": ("fcntl, tempfile", "n = tempfile.NamedTemporaryFile()\n"
                      "a = open(n.name); b = open(n.name); fcntl.flock(a, 2); fcntl.flock(b, 2)"),
    "`asyncio.run`": ("asyncio", "asyncio.run(asyncio.sleep(60))"),
    "`asyncio.to_thread` of a sleep": ("asyncio, time", "async def f():\n"
                                       "    await asyncio.to_thread(time.sleep, 60)\n"
                                       "asyncio.run(f())"),
    "`finally` that blocks again": ("time", "try: time.sleep(60)\nfinally: time.sleep(60)"),
    "`Lock.acquire`": ("threading", "l = threading.Lock(); l.acquire(); l.acquire()"),
    "`with lock:`": ("threading", "l = threading.Lock(); l.acquire()\n"
                     "with l: print('entered', flush=True)"),
    "`RLock.acquire`": ("threading", "l = threading.RLock()\n"
                        "t = threading.Thread(target=l.acquire); t.start(); t.join()\n"
                        "l.acquire()"),
    "`SimpleQueue.get`": ("queue", "queue.SimpleQueue().get()"),
    "a loop that catches everything": ("time", "while True:\n    try: time.sleep(60)\n"
                                       "    except BaseException: pass"),
    "a regular expression that runs away": ("re", "re.match('(a+)+b', 'a' * 60)"),
    "a huge integer power": ("", "3 ** 3 ** 20"),
    "`hashlib.pbkdf2_hmac`": ("hashlib", "hashlib.pbkdf2_hmac('sha256', b'x', b'y', 2**31 - 1)"),
    "a C function that does not return": (
        "ctypes", "f = ctypes.CDLL(None).pthread_mutex_lock; m = bytes(64); f(m); f(m)"),
    "the same, called with the GIL held": (
        "ctypes", "f = ctypes.PyDLL(None).pthread_mutex_lock; m = bytes(64); f(m); f(m)"),
}


def version():
    return run([PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).out.strip()


def documented():
    """{state: {version: outcome}} of the first table whose head begins with "state"."""
    table, columns = {}, None
    for line in (SOURCE / "docs/cancel.md").read_text().splitlines():
        if not line.startswith("|"):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "state":
            columns = cells[1:]
        elif columns and not cells[0].startswith("-"):
            table[cells[0]] = dict(zip(columns, cells[1:]))
    return table


def outcome(modules, code):
    start = f"import {modules}\n" if modules else ""
    with hosted("--grace", f"{GRACE * PATIENCE}s", "-c",
                start + "print('ready', flush=True)\n" + code) as program:
        program.wait_for("ready")
        time.sleep(0.1)
        program.signal(15)
        result = program.finish()
    names = {143: "interrupted", 137: "abandoned"}
    return names.get(result.status, result.status), result


@test
def the_table(folder):
    table, mine = documented(), version()
    equal(sorted(table), sorted(STATES), "the rows of the table are the states tested here")
    for state, (modules, code) in STATES.items():
        seen, result = outcome(modules, code)
        equal(seen, table.get(state, {}).get(mine), f"{mine}, {state}: {seen}", result=result)
        ok("entered" not in result.out, f"{state}: no lie about a lock")


main()
