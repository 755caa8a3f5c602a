#!/usr/bin/env python3
# timeout: 300
"""Trees of tasks, over and over: nothing hangs, nothing stays behind."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from nurseries import each, prints
from tap import PATIENCE, diag, main, ok, test

TREE = """
    def node(depth):
        with subhost.open_nursery() as nursery:
            for i in range(2):
                start(nursery, node, depth - 1) if depth else start(nursery, fail, i)
    """


@test
@each
def fifteen(folder, isolation):
    """The program, 2 + 4 nodes, 8 leaves that raise."""
    result = prints(folder, TREE, """
        seconds, most = [], 4  # main, this one, the forkserver's, an attendant
        for _ in range(100):
            began = time.monotonic()
            try:
                node(2)
            except* ValueError as group:
                assert 1 <= len(leaves(group)) <= 8
            else:
                assert False
            seconds.append(time.monotonic() - began)
            if len(seconds) == 5:
                before = len(os.listdir("/proc/self/fd"))
        print(f"median {sorted(seconds)[50]:.3f} s, worst {max(seconds):.3f} s", file=sys.stderr)
        deadline = time.monotonic() + 20  # interpreters end after their tasks
        def left():
            return (len(os.listdir("/proc/self/fd")) > before,
                    len(os.listdir("/proc/self/task")) > most)
        while any(left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        print(*left(), threading.active_count())
        """, "False False 1\n", "100 times: no hang, no descriptor, no thread stays",
                    isolation=isolation, timeout=250)
    diag(result.err.strip())


@test
@each
def wide_and_deep(folder, isolation):
    result = prints(folder, """
        def deep(depth):
            if depth == 0:
                return 1
            with subhost.open_nursery() as nursery:
                return 1 + start(nursery, deep, depth - 1).result()
        """, """
        print(deep(8))
        with subhost.open_nursery() as nursery:
            tasks = [start(nursery, double, i) for i in range(40)]
        print(sum(task.result() for task in tasks))
        """, "9\n1560\n", "eight deep, forty wide", isolation=isolation, timeout=60)
    ok(result.seconds < 20 * PATIENCE, f"{isolation}: in a while", result=result)


@test
@each
def threads(folder, isolation):
    prints(folder, """
        def one(results, i):
            with subhost.open_nursery() as nursery:
                results.append(start(nursery, double, i).result())
        """, """
        results = []
        threads = [threading.Thread(target=one, args=(results, i)) for i in range(6)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(sorted(results))
        with subhost.open_nursery() as nursery:
            task = start(nursery, double, 21)
            seen = []
            threads = [threading.Thread(target=lambda: seen.append(task.result()))
                       for _ in range(3)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            print(seen)
        """, "[0, 2, 4, 6, 8, 10]\n[42, 42, 42]\n", "nurseries and waits in threads",
           isolation=isolation)


main()
