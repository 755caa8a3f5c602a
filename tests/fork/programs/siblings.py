"""Process tasks, started while siblings are alive: subhost run siblings.py STATE ROUNDS

STATE is what three sibling interpreters do meanwhile: busy, asleep, importing, creating (one
of them is just being created at any time), none. ROUNDS children each start threads, run an
interpreter with asyncio in it, start a process of their own with that interpreter alive.
`-n 3` or more: worker 0 forks, the other workers are the siblings."""
import os
import sys
import threading
import time

import subhost
from common import kind, report


def busy():
    n = 0
    while True:
        n += 1


def asleep():
    while True:
        time.sleep(60)


MODULES = ("_json", "_struct", "unicodedata", "_bisect", "_heapq", "array", "math", "_csv",
           "_random", "_statistics", "binascii", "zlib", "json", "struct", "csv")


def importing():
    import importlib
    while True:
        for name in MODULES:
            importlib.import_module(name)
        for name in MODULES:
            sys.modules.pop(name, None)


def nothing():
    pass


def creating():
    while True:
        with subhost.open_nursery() as nursery:
            nursery.start(nothing)


STATES = {"busy": busy, "asleep": asleep, "importing": importing, "creating": creating}


def asynchronous(number):
    """In an interpreter of the child: an event loop, with threads beside it."""
    import asyncio

    async def add(one, other):
        await asyncio.sleep(0.001)
        return one + other

    async def everything():
        return sum(await asyncio.gather(*(add(number, i) for i in range(5))),
                   await asyncio.to_thread(sum, [1, 2, 3]))

    return asyncio.run(everything()), subhost.current().isolation


def lives(stop):
    # Not an Event: it is in another interpreter that the file is written.
    while not os.path.exists(stop):
        time.sleep(0.002)
    return "sibling"


def grandchild(number):
    seen = []
    thread = threading.Thread(target=seen.append, args=(number + 1,))
    thread.start()
    thread.join()
    return seen[0], os.getpid(), subhost.current().isolation


def child(number, stop):
    sums = []
    threads = [threading.Thread(target=lambda i=i: sums.append(sum(range(i)))) for i in (10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with subhost.open_nursery() as nursery:
        sibling = nursery.start(lives, stop, name="sibling")
        loop = nursery.start(asynchronous, number)
        first = loop.result(timeout=60)
        second = nursery.start(grandchild, number, isolation="process").result(timeout=60)
        with open(stop, "w"):
            pass
        third = sibling.result(timeout=60)
    os.unlink(stop)
    return {"sums": sorted(sums), "loop": first, "grandchild": second, "sibling": third,
            "pid": os.getpid(), "isolation": subhost.current().isolation}


def right(found, number, pid):
    return (found["sums"] == [45, 190] and found["loop"] == (5 * number + 16, "interpreter")
            and found["grandchild"][0] == number + 1 and found["grandchild"][2] == "process"
            and found["sibling"] == "sibling" and found["isolation"] == "process"
            and found["pid"] == pid and len({os.getpid(), pid, found["grandchild"][1]}) == 3)


def fork_them(rounds, folder):
    wrong, took = [], []
    for number in range(rounds):
        began = time.monotonic()
        task = None
        try:
            with subhost.open_nursery() as nursery:
                task = nursery.start(child, number, f"{folder}/stop-{os.getpid()}-{number}",
                                     isolation="process")
                found = task.result(timeout=60)
            if not right(found, number, task.pid):
                wrong.append(f"{number}: {found}")
        except BaseException as error:
            wrong.append(f"{number}: {task and kind(task)} {type(error).__name__}: {error}")
            if not isinstance(error, Exception):
                raise
        took.append(time.monotonic() - began)
        if len(wrong) > 3:
            break
    report(rounds=number + 1, wrong=wrong, slowest=max(took), median=sorted(took)[len(took) // 2])


def main():
    state, rounds, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    worker = subhost.current().worker
    if worker:
        # A sibling by -n; it ends when worker 0 says so.
        done = f"{folder}/done"
        threading.Thread(target=STATES[state], daemon=True).start()
        while not os.path.exists(done):
            time.sleep(0.01)
        return  # the daemon thread is the host's to end
    if len(sys.argv) > 4:  # siblings by -n
        time.sleep(0.5)
        fork_them(rounds, folder)
        with open(f"{folder}/done", "w"):
            pass
        return
    with subhost.open_nursery() as nursery:
        tasks = [nursery.start(STATES[state], name=f"{state}-{i}")
                 for i in range(3 if state != "none" else 0)]
        time.sleep(0.3)
        fork_them(rounds, folder)
        for task in tasks:
            task.cancel()
    report(siblings=[kind(task) for task in tasks])


if __name__ == "__main__":
    main()
