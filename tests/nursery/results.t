#!/usr/bin/env python3
# timeout: 180
"""Tasks of a nursery: what they return and raise, and what the nursery makes of it."""
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from nurseries import each, prints, write
from tap import equal, main, ok, subhost, test


@test
@each
def values(folder, isolation):
    prints(folder, "", """
        with subhost.open_nursery() as nursery:
            tasks = [start(nursery, double, x) for x in (1, "ab", [b"x"], 2.5, None)[:4]]
            print([task.result() for task in tasks])
        print([task.result() for task in tasks], [str(task.outcome) for task in tasks])
        print(tasks[0].done(), tasks[0].name, tasks[0].outcome.kind, tasks[0].outcome.code)
        """, "[2, 'abab', [b'x', b'x'], 5.0]\n"
             "[2, 'abab', [b'x', b'x'], 5.0] ['returned', 'returned', 'returned', 'returned']\n"
             "True double returned None\n", "values come back", isolation=isolation)
    prints(folder, "", """
        with subhost.open_nursery() as nursery:
            a = start(nursery, functools.partial(int, base=16), "ff", name="hex")
            b = start(nursery, os.path.join, "a", "b")
            c = start(nursery, "abc".upper)
            print(a.result(), b.result(), c.result(), a.name, b.name)
        """, "255 a/b ABC hex join\n", "partials, functions of modules, methods",
           isolation=isolation)
    prints(folder, "def big(data): return len(data), data[::-1]", """
        data = os.urandom(1 << 24)
        with subhost.open_nursery() as nursery:
            n, back = start(nursery, big, data).result()
        print(n == len(data), back == data[::-1])
        """, "True True\n", "16 MiB there and back", isolation=isolation)
    prints(folder, "def view(v):\n    v[0] = 7\n    return v, memoryview(b'x')", """
        import array, pickle
        data = memoryview(array.array("i", range(6))).cast("B").cast("i", (2, 3))
        with subhost.open_nursery() as nursery:
            back, small = start(nursery, view, memoryview(bytearray(3))).result()
            whole = start(nursery, list, pickle.PickleBuffer(b"ab")).result()
            same = start(nursery, memoryview.tolist, data).result()
        print(bytes(back), back.readonly, small.readonly, whole, same)
        """, "b'\\x07\\x00\\x00' False True [97, 98] [[0, 1, 2], [3, 4, 5]]\n",
           "views there and back", isolation=isolation)
    prints(folder, "", """
        with subhost.open_nursery() as nursery:
            pass
        with subhost.open_nursery() as nursery:
            task = start(nursery, sleep, 0.3)
            print(task.done(), task.outcome, task.pid == os.getpid() or ISOLATION == "process")
            try:
                task.result(timeout=0.01)
            except TimeoutError as error:
                print(error)
        print(task.done())
        """, "False None True\ntask 'sleep' has not ended within 0.01 s\nTrue\n",
           "an empty nursery; result() with a timeout", isolation=isolation)


@test
@each
def current(folder, isolation):
    prints(folder, """
        def who():
            task = subhost.current()
            return task.name, task.id, task.parent_id, task.isolation, task.deadline

        def middle():
            with subhost.open_nursery() as nursery:
                return who(), start(nursery, who, name="inner", timeout=60).result()
        """, """
        with subhost.open_nursery() as nursery:
            task = start(nursery, middle)
            outer, inner = task.result()
        print(subhost.current().parent_id, outer[0], outer[1] == task.id, inner[0], inner[3])
        print(outer[2] == subhost.current().id, ISOLATION == "process" or inner[2] == task.id)
        print(outer[4], inner[4] > time.monotonic())
        """, f"None middle True inner {isolation}\nTrue True\nNone True\n",
           "current() knows its parent", isolation=isolation)


@test
@each
def errors(folder, isolation):
    prints(folder, """
        class Own(Exception):
            pass

        class Odd(Exception):
            def __init__(self, one, two):
                super().__init__(one)

        class Local(Exception):
            def __reduce__(self):
                raise TypeError("not me")

        def raises(what):
            error = what("text") if what is not Odd else Odd("text", 2)
            if what is Own:
                error.extra, error.__cause__ = 5, KeyError("why")
                error.add_note("a note")
            raise error
        """, """
        def attempt(what):
            try:
                with subhost.open_nursery() as nursery:
                    start(nursery, raises, what)
            except Exception as group:
                (error,) = group.exceptions
                print(type(group).__name__, type(error).__name__, error)
                return error

        error = attempt(ValueError)
        print(type(error.__cause__).__name__, "in raises" in str(error.__cause__),
              str(error.__cause__).count("Traceback"))
        error = attempt(Own)
        print(error.extra, error.__notes__, "KeyError: 'why'" in str(error.__cause__),
              "direct cause" in str(error.__cause__), "a note" in str(error.__cause__))
        error = attempt(Odd)
        print(error.type, error.message, "in raises" in error.traceback,
              isinstance(error, subhost.RemoteError))
        error = attempt(Local)
        print(error.type)
        """, "ExceptionGroup ValueError text\n_RemoteTraceback True 1\n"
             "ExceptionGroup Own text\n5 ['a note'] True True True\n"
             "ExceptionGroup RemoteError Odd: text\nOdd text True True\n"
             "ExceptionGroup RemoteError Local: text\nLocal\n",
           "exceptions with attributes, notes, causes; and those that cannot travel",
           isolation=isolation)
    result = subhost("run", write(folder, "", """
        with subhost.open_nursery() as nursery:
            start(nursery, fail, "seen")
        """, isolation))
    ok(result.status == 1 and result.err.count("ValueError: seen") == 2
       and "in fail" in result.err and result.out == "",
       f"{isolation}: uncaught: one traceback, with the remote one in it", result=result)
    prints(folder, """
        import threading
        def lock(): return [threading.Lock()]
        """, """
        try:
            with subhost.open_nursery() as nursery:
                start(nursery, lock)
        except* Exception as group:
            print(*group.exceptions)
        """, "the result of lock(), of type 'list', cannot be pickled: cannot pickle "
             "'_thread.lock' object\n", "a result that cannot be pickled", isolation=isolation)


@test
@each
def groups(folder, isolation):
    prints(folder, """
        def middle(depth, x):
            with subhost.open_nursery() as nursery:
                if depth:
                    start(nursery, middle, depth - 1, x)
                else:
                    start(nursery, fail, x)
        """, """
        try:
            with subhost.open_nursery() as nursery:
                start(nursery, middle, 1, "deep")
        except ExceptionGroup as group:
            print(len(group.exceptions), [str(leaf) for leaf in leaves(group)])
            inner = group.exceptions[0]
            print(type(inner).__name__, type(inner.exceptions[0]).__name__)
            print("in fail" in str(leaves(group)[0].__cause__))
            print(*("in middle" in str(e.__cause__) for e in (inner, inner.exceptions[0])))
        """, "1 ['deep']\nExceptionGroup ExceptionGroup\nTrue\nTrue True\n",
           "three levels deep, each with its traceback", isolation=isolation)
    prints(folder, "def both():\n    time.sleep(0.3)\n    raise KeyError('late')", """
        try:
            with subhost.open_nursery() as nursery:
                task = start(nursery, fail, 1)
                try:
                    task.result()
                except ValueError as error:
                    first = error
                raise RuntimeError("body")
        except ExceptionGroup as group:
            print(group.message, [type(e).__name__ for e in group.exceptions],
                  group.exceptions[0] is first)
        try:
            with subhost.open_nursery() as nursery:
                start(nursery, fail, 2).result()
        except ExceptionGroup as group:
            print([str(e) for e in group.exceptions])
        try:
            with subhost.open_nursery() as nursery:
                task = start(nursery, sleep)
                raise KeyError("body")
        except ExceptionGroup as group:
            print(group.exceptions, task.outcome)
        """, "errors in a nursery ['ValueError', 'RuntimeError'] True\n['2']\n"
             "(KeyError('body'),) cancelled\n", "the body's exception joins the group",
           isolation=isolation)
    prints(folder, "class Base(BaseException): pass\ndef base(): raise Base(5)", """
        try:
            with subhost.open_nursery() as nursery:
                start(nursery, base)
        except BaseExceptionGroup as group:
            print(type(group).__name__, repr(group.exceptions[0]))
        """, "BaseExceptionGroup Base(5)\n", "a BaseExceptionGroup when needed",
           isolation=isolation)


@test
@each
def exits(folder, isolation):
    functions = """
        import atexit
        def leave(code):
            atexit.register(print, "atexit", flush=True)
            threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
            sys.exit(code)
        """
    prints(folder, functions, """
        with subhost.open_nursery() as nursery:
            task = start(nursery, leave, 0)
        print(task.result(), task.outcome)
        """, "thread\natexit\nNone exited(0)\n", "exit 0 is None; threads, atexit, flush",
           isolation=isolation)
    prints(folder, functions, """
        try:
            with subhost.open_nursery() as nursery:
                task = start(nursery, leave, 3)
        except* subhost.RemoteError as group:
            print(group.exceptions[0], "|", group.exceptions[0].type, task.outcome.code)
        """, "thread\natexit\nexited(3): task 'leave' | exited(3) 3\n", "exit 3 is a failure",
           isolation=isolation)
    prints(folder, "", """
        with subhost.open_nursery() as nursery:
            start(nursery, sleep)
            sys.exit(7)
        """, "", "sys.exit() in the body ends the program", isolation=isolation, status=7)


@test
def arguments(folder):
    prints(folder, "", """
        def attempt(function):
            try:
                function()
            except Exception as error:
                print(type(error).__name__, error)

        with subhost.open_nursery() as nursery:
            attempt(lambda: nursery.start(double, x=5))
            attempt(lambda: nursery.start(double, 5, isolation="thread"))
            attempt(lambda: nursery.start(5))
            attempt(lambda: nursery.start(double, 5, timeout="x"))
            attempt(lambda: nursery.start(double, threading.Lock()))
            attempt(nursery.__enter__)
        attempt(lambda: nursery.start(double, 5))
        attempt(lambda: subhost.open_nursery().start(double, 5))
        """, "TypeError start() got an unexpected keyword argument 'x'; for one of the function's "
             "use functools.partial\n"
             "ValueError isolation must be 'interpreter' or 'process', not 'thread'\n"
             "TypeError a task's function must be callable, not 'int'\n"
             "ValueError could not convert string to float: 'x'\n"
             "PicklingError argument 1, of type '_thread.lock', cannot be pickled, and so not be "
             "sent to a task: cannot pickle '_thread.lock' object\n"
             "RuntimeError a nursery can be entered only once\n"
             "RuntimeError tasks can be started only inside the nursery's with block\n"
             "RuntimeError tasks can be started only inside the nursery's with block\n",
           "mistakes are told before anything is started")
    result = subhost("run", "-c", "import subhost\nprint(subhost.open_nursery.__doc__ != '', "
                     "subhost.RemoteError.__module__, hasattr(subhost, 'no_such'))")
    equal(result.out, "True subhost False\n", "names of the module", result=result)
    guide = (pathlib.Path(__file__).resolve().parents[2] / "docs/guide.md").read_text()
    table = guide.partition("`import subhost` gives:")[2].strip().partition("\n\n")[0]
    documented = re.findall(r"^\| `(\w+)", table, re.MULTILINE)
    for why, start in ("before they are made", ""), ("afterwards", "subhost.open_nursery();"):
        result = subhost("run", "-c", f"import subhost; {start} print(*dir(subhost))")
        names = result.out.split()
        ok(len(documented) >= 8 and set(documented) <= set(names) and
           len(names) == len(set(names)), f"dir() has those of the guide {why}", result=result)


@test
@each
def what_is_pickled_only(folder, isolation):
    prints(folder, """
        class Odd(Exception):
            def __init__(self, word, *, number): super().__init__(word)

        def odd():
            return Odd("word", number=2)
        """, """
        with subhost.open_nursery() as nursery:
            task = start(nursery, odd, name="the odd one")
        try:
            task.result()
        except TypeError as error:
            print(error.__notes__)
        """, "[\"(the result of task 'the odd one' could not be unpickled here)\"]\n",
           "a result that cannot be unpickled names its task", isolation=isolation)


@test
@each
def whose_failure_it_is(folder, isolation):
    prints(folder, "", """
        try:
            with subhost.open_nursery() as nursery:
                late = start(nursery, sleep, timeout=0.2)
                start(nursery, sleep).result()
        except* subhost.RemoteError as group:
            print(group.exceptions[0].type, late.outcome, subhost.cancel_requested())
        """, "timed-out timed-out False\n",
           "what result() raises in the body is no cancel of the body's", isolation=isolation)
    prints(folder, """
        class Mute(Exception):
            def __str__(self): raise RuntimeError

        def mute():
            error = Mute(1)
            error.__notes__ = None
            raise error
        """, """
        try:
            with subhost.open_nursery() as nursery:
                start(nursery, mute)
        except* Mute as group:
            print(group.exceptions[0].args)
        """, "(1,)\n", "an exception without a text arrives", isolation=isolation)
    prints(folder, "import asyncio", """
        async def body(seconds):
            async with asyncio.timeout(seconds):
                with subhost.open_nursery() as nursery:
                    start(nursery, sleep)
                    await asyncio.sleep(60)

        async def cancelled():
            task = asyncio.ensure_future(body(60))
            await asyncio.sleep(0.2)
            task.cancel()
            await asyncio.wait([task])
            return task.cancelled()

        try:
            asyncio.run(body(0.2))
        except TimeoutError:
            print("timed out", asyncio.run(cancelled()))
        """, "timed out True\n", "asyncio's own cancel passes a nursery", isolation=isolation)


@test
def from_other_threads(folder):
    prints(folder, "def follow(nursery, task): return nursery.start(double, task.result())", """
        from concurrent.futures import ThreadPoolExecutor
        late = refused = 0
        with ThreadPoolExecutor(1) as executor:
            for _ in range(100):
                with subhost.open_nursery() as nursery:
                    future = executor.submit(follow, nursery, nursery.start(double, 1))
                try:
                    late += not future.result().done()
                except RuntimeError:
                    refused += 1
        print(late, refused < 100)
        """, "0 True\n", "none is started once the nursery is left, or it is waited for")


@test
@each
def cancels(folder, isolation):
    prints(folder, "", """
        import os, time
        with subhost.open_nursery() as nursery:
            tasks = [nursery.start(time.sleep, 60, isolation=ISOLATION) for _ in range(2)]
            tasks[0].cancel("my reason")
            tasks[1].cancel("odd \\udc80")
        for task in tasks:
            try: task.result()
            except subhost.Cancelled as error: print(task.outcome, error.reason)
        """, "cancelled my reason\ncancelled odd ?\n", "the reason, also of one that has not begun",
        isolation=isolation)
    prints(folder, "def parent(isolation):\n"
                   "    with subhost.open_nursery() as nursery:\n"
                   "        nursery.start(time.sleep, 60, isolation=isolation)\n"
                   "    return 'went on'", """
        import random
        outcomes = set()
        for _ in range(12):
            with subhost.open_nursery() as nursery:
                tasks = [nursery.start(parent, ISOLATION, isolation=ISOLATION) for _ in range(4)]
                time.sleep(random.uniform(0, 0.05))
                for task in tasks: task.cancel("stop")
            outcomes |= {str(task.outcome) for task in tasks}
        print(outcomes)
        """, "{'cancelled'}\n", "nobody goes on behind a nursery whose tasks this cancel has ended",
        isolation=isolation)


@test
def generators(folder):
    prints(folder, "", """
        def generator():
            with subhost.open_nursery() as nursery:
                task = nursery.start(fail, 1)
                while not task.done(): time.sleep(0.01)
                yield
        running = generator()
        next(running)
        try: running.close()
        except* ValueError as group: print(group.exceptions)
        """, "(ValueError(1),)\n", "what failed is not lost in a close()")


@test
def no_directory(folder):
    prints(folder, "", """
        import os, tempfile
        os.chdir(gone := tempfile.mkdtemp())
        os.rmdir(gone)
        with subhost.open_nursery() as nursery:
            print(nursery.start(double, 4, isolation="process").result())
        """, "8\n", "a current directory that was removed")


@test
def kept(folder):
    prints(folder, "", """
        import gc, weakref
        tasks = []
        with subhost.open_nursery() as nursery:
            for _ in range(100):
                task = nursery.start(double, 1)
                task.result()
                tasks.append(weakref.ref(task))
            del task
            gc.collect()
            print(sum(reference() is not None for reference in tasks) < 70)
        """, "True\n", "a nursery that lives long forgets what has returned")


main()
