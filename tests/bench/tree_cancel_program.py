"""The contestants of tests/bench/tree_cancel: subhost run tree_cancel_program.py DEPTH BREADTH

Builds a tree of processes, each of which waits, cancels its top when all are there, and prints
the milliseconds until the nursery is left. As often as there are lines on stdin."""
import os
import sys
import tempfile
import time

import subhost


def node(folder, depth, breadth):
    with subhost.open_nursery() as nursery:
        for _ in range(breadth if depth > 1 else 0):
            nursery.start(node, folder, depth - 1, breadth, isolation="process")
        open(f"{folder}/{os.getpid()}", "w").close()
        while True:
            time.sleep(10)


def once(depth, breadth):
    count = sum(breadth ** level for level in range(depth))
    with tempfile.TemporaryDirectory() as folder, subhost.open_nursery() as nursery:
        task = nursery.start(node, folder, depth, breadth, isolation="process")
        while len(os.listdir(folder)) < count:
            time.sleep(0.01)
        time.sleep(0.2)  # all of them asleep
        started = time.perf_counter()
        task.cancel()
        while not task.done():
            try:
                task.result()
            except BaseException:
                pass
        return (time.perf_counter() - started) * 1000


if __name__ == "__main__":
    for _ in sys.stdin:
        print(once(int(sys.argv[1]), int(sys.argv[2])), flush=True)
