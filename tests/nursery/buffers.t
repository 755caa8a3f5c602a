#!/usr/bin/env python3
# timeout: 120
"""Bytes-like arguments of tasks: by reference inside one process, and the lender's own again
as soon as the task has ended, in whatever way."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from nurseries import each, prints
from tap import main, test

FUNCTIONS = """
import array, itertools, pickle, threading, time

def put(view, at, value):
    view[at] = value

def put_and_wait(view, value):
    view[0] = value
    time.sleep(60)

def put_and_raise(view):
    view[0] = 9
    raise ValueError(view.nbytes)

def keep(view):
    global kept
    kept = view

def spin(view):
    view[0] = 5
    while True:
        try:
            while True: pass
        except BaseException: pass

def look(view):
    return view.readonly, view.format, view.shape, view.tolist()

def kind(data):
    return type(data).__name__, len(data), data[:2], data[-1:]

def pass_on(view):
    with subhost.open_nursery() as nursery:
        nursery.start(put, view[1:], 0, 8)

def first_and_last(data):
    return bytes(data[:1]), bytes(data[-1:])

def is_free(data):
    try:
        data.append(0)  # BufferError while anybody has its memory
    except BufferError:
        return False
    del data[-1:]
    return True
"""


@test
@each
def shared(folder, isolation):
    prints(folder, FUNCTIONS, """
        data = bytearray(4)
        with subhost.open_nursery() as nursery:
            start(nursery, put, memoryview(data), 2, 7).result()
            print(list(data), is_free(data))
        with subhost.open_nursery() as nursery:
            start(nursery, pass_on, memoryview(data)[1:])
        print(list(data), is_free(data))
        """, "[0, 0, 7, 0] True\n[0, 0, 8, 0] True\n" if isolation == "interpreter"
             else "[0, 0, 0, 0] True\n[0, 0, 0, 0] True\n",
           "a task writes into its parent's memory in one process, and never into another's",
           isolation=isolation)
    prints(folder, FUNCTIONS, """
        grid = memoryview(array.array("h", range(6))).cast("B").cast("h", (2, 3))
        with subhost.open_nursery() as nursery:
            for view in (memoryview(b"ab"), grid, grid.toreadonly(), memoryview(b"abcd")[::2],
                         memoryview(b"")):
                print(start(nursery, look, view).result())
        """, "(True, 'B', (2,), [97, 98])\n(False, 'h', (2, 3), [[0, 1, 2], [3, 4, 5]])\n"
             "(True, 'h', (2, 3), [[0, 1, 2], [3, 4, 5]])\n(True, 'B', (2,), [97, 99])\n"
             "(True, 'B', (0,), [])\n", "format, shape and read-only stay", isolation=isolation)
    prints(folder, FUNCTIONS, """
        with subhost.open_nursery() as nursery:
            for data in (b"x" * 70000, bytearray(b"y" * 70000)):
                print(start(nursery, kind, data).result(), is_free(bytearray(1)))
            print(len(start(nursery, bytes, 100000).result()))
            print(type(start(nursery, bytearray, 100000).result()).__name__)
        """, "('bytes', 70000, b'xx', b'x') True\n"
             "('bytearray', 70000, bytearray(b'yy'), bytearray(b'y')) True\n100000\nbytearray\n",
           "large bytes stay bytes, large bytearrays bytearrays", isolation=isolation)


@test
@each
def as_they_were(folder, isolation):
    prints(folder, FUNCTIONS, """
        with subhost.open_nursery() as nursery:
            for size in (1000, 100_000, 10_000_000):
                data = bytearray(b"a" * size)
                views = [] if ISOLATION == "interpreter" else [memoryview(data)]
                tasks = [start(nursery, first_and_last, value) for value in (data, *views)]
                data[:] = b"b" * size
                views.clear()
                print(is_free(data), {task.result() for task in tasks})
        """, "True {(b'a', b'a')}\n" * 3, "what a task gets of a bytearray is what it was at the "
             "start, and so is what a process gets of a view", isolation=isolation)
    prints(folder, FUNCTIONS + """
import ctypes
class Empty(ctypes.Structure): pass
""", """
        with subhost.open_nursery() as nursery:
            for view in (memoryview(Empty()), memoryview((Empty * 3)())):
                try:
                    print(type(start(nursery, len, view).result()))
                except Exception as error:
                    print(type(error).__name__)
        print("lived")
        """, "PicklingError\nPicklingError\nlived\n", "views that cannot be sent are refused",
           isolation=isolation)
    prints(folder, FUNCTIONS, """
        results = []
        with subhost.open_nursery() as nursery:
            task = start(nursery, bytes, 100_000)
            def ask():
                results.append(len(task.result()))
            thread = threading.Thread(target=ask)
            thread.start()
            thread.join()
        print(results, len(task.result()))
        """, "[100000] 100000\n", "a large result is any thread's", isolation=isolation)


@test
@each
def given_back(folder, isolation):
    prints(folder, FUNCTIONS, """
        data = bytearray(3)
        for function, args in ((put_and_raise, ()), (keep, ())):
            try:
                with subhost.open_nursery() as nursery:
                    start(nursery, function, memoryview(data), *args)
            except BaseExceptionGroup as group:
                print(repr(group.exceptions[0]))
            ended = time.monotonic() + 10
            while not is_free(data) and time.monotonic() < ended:
                time.sleep(0.01)  # what it kept goes with its interpreter
            print(is_free(data))
        with subhost.open_nursery() as nursery:
            task = start(nursery, put_and_wait, memoryview(data), 3)
            while ISOLATION == "interpreter" and data[0] != 3:
                time.sleep(0.001)
            task.cancel()
        print(task.outcome, is_free(data))
        """, "ValueError(3)\nTrue\nTrue\ncancelled True\n",
           "after an error, a kept view, a cancel", isolation=isolation)


@test
def abandoned(folder):
    prints(folder, FUNCTIONS, """
        data = bytearray(3)
        try:
            with subhost.open_nursery() as nursery:
                start(nursery, spin, memoryview(data), timeout=0.2)
        except BaseExceptionGroup as group:
            print(group.exceptions[0].type)
        print(data[0], is_free(data))
        """, "abandoned\n5 False\n",
           "an abandoned task's memory is never given back: a lost thread may use it",
           "--grace", "200ms")


if __name__ == "__main__":
    main()
