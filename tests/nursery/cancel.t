#!/usr/bin/env python3
# timeout: 240
"""Cancelling tasks: siblings, subtrees, deadlines, Ctrl-C; those that do not want to end."""
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from nurseries import each, prints, write
from signalling import INT, TERM
from tap import PATIENCE, equal, hosted, main, ok, subhost, test


@test
@each
def siblings(folder, isolation):
    result = prints(folder, "def late(): time.sleep(0.5); fail('first')", """
        try:
            with subhost.open_nursery() as nursery:
                tasks = [start(nursery, sleep), start(nursery, late), start(nursery, sleep)]
        except* ValueError as group:
            print([str(error) for error in group.exceptions], [str(t.outcome) for t in tasks])
            print(tasks[0].outcome.detail)
        """, "['first'] ['cancelled', 'raised', 'cancelled']\na sibling failed\n",
                    "the first failure cancels its siblings", isolation=isolation)
    ok(result.seconds < 10 * PATIENCE, f"{isolation}: at once", result=result)
    prints(folder, "def late(): time.sleep(0.3); fail('first')", """
        try:
            with subhost.open_nursery() as nursery:
                start(nursery, late)
                sibling = start(nursery, sleep)
                try:
                    sibling.result()
                except subhost.Cancelled as error:
                    print(error.reason)
                third = start(nursery, sleep)
        except* ValueError as group:
            print(len(group.exceptions), third.outcome)
        """, "a sibling failed\n1 cancelled\n",
           "without the body's help; what is started after that ends at once",
           isolation=isolation)
    prints(folder, """
        def clean():
            try: time.sleep(60)
            finally: raise KeyError("cleanup")
        """, """
        try:
            with subhost.open_nursery() as nursery:
                task = start(nursery, clean)
                time.sleep(0.5)
                start(nursery, fail, "first")
        except* Exception as group:
            print([type(error).__name__ for error in group.exceptions])
        """, "['KeyError', 'ValueError']\n", "an error while tidying up is not lost",
           isolation=isolation)


@test
@each
def by_the_user(folder, isolation):
    prints(folder, """
        def middle():
            with subhost.open_nursery() as nursery:
                start(nursery, sleep); start(nursery, deeper)
        def deeper():
            with subhost.open_nursery() as nursery:
                start(nursery, sleep)
                print("deep", flush=True)
        """, """
        with subhost.open_nursery() as nursery:
            task = start(nursery, middle)
            time.sleep(1)
            began = time.monotonic()
            task.cancel("enough")
            try:
                task.result()
            except subhost.Cancelled as error:
                print(error.reason, time.monotonic() - began < 1)
            print(start(nursery, double, 2).result())
        print(task.outcome, task.outcome.detail)
        """, "deep\nenough True\n4\ncancelled enough\n",
           "task.cancel() ends it and what is below it, and is no error", isolation=isolation)
    prints(folder, "", """
        with subhost.open_nursery() as nursery:
            tasks = [start(nursery, sleep) for _ in range(8)]
            for task in tasks:
                task.cancel()
                task.cancel("again")
        print({str(task.outcome) for task in tasks}, subhost.cancel_requested())
        """, "{'cancelled'} False\n", "also before it has begun", isolation=isolation)


@test
@each
def words(folder, isolation):
    """What cancel() was given is the reason, whatever the function makes of its Cancelled."""
    prints(folder, """
        def in_a_loop():
            import asyncio
            asyncio.run(asyncio.sleep(60))

        def in_its_place():
            try:
                sleep()
            except subhost.Cancelled:
                raise KeyboardInterrupt

        def without_words():
            try:
                sleep()
            except subhost.Cancelled:
                raise subhost.Cancelled
        """, """
        found = set()
        for function in (sleep, in_a_loop, in_its_place, without_words) * 2 + (sleep,) * 20:
            with subhost.open_nursery() as nursery:
                task = start(nursery, function)
                time.sleep(len(found) * 0.1)  # the first one may not have begun
                task.cancel("the words")
            try:
                task.result()
            except subhost.Cancelled as error:
                found.add((function.__name__, error.reason, task.outcome.detail))
        print(len(found), {reason for _, *reasons in found for reason in reasons})
        """, "4 {'the words'}\n", "the reason of a cancel", isolation=isolation)


@test
@each
def deadlines(folder, isolation):
    prints(folder, "", """
        try:
            with subhost.open_nursery() as nursery:
                task = start(nursery, sleep, timeout=0.3)
        except* subhost.RemoteError as group:
            (error,) = group.exceptions
            print(error, "in sleep" in error.traceback, error.type, task.outcome.kind)
        """, "timed-out: task 'sleep' (deadline) True timed-out timed-out\n",
           "a task's timeout", isolation=isolation)
    result = prints(folder, """
        def middle():
            with subhost.open_nursery() as nursery:
                start(nursery, sleep); start(nursery, sleep)
        """, """
        with subhost.open_nursery() as nursery:
            start(nursery, middle)
            try:
                start(nursery, sleep).result()
            finally:
                print("leaves", flush=True)
        """, "leaves\n", "--timeout of the program ends the tree", "--timeout", "1.5s",
                    isolation=isolation, status=124)
    ok(result.seconds < 1.5 + 1.5 * PATIENCE, f"{isolation}: at once", result=result)


@test
@each
def while_waiting(folder, isolation):
    for wait in ("nursery.__exit__(None, None, None)", "task.result()", "task.result(timeout=50)"):
        prints(folder, f"""
            def waits():
                subhost.on_cancel(lambda: print("asked", flush=True))
                with subhost.open_nursery() as nursery:
                    task = start(nursery, sleep)
                    print("waits", flush=True)
                    {wait}
            """, """
            with subhost.open_nursery() as nursery:
                task = start(nursery, waits)
                time.sleep(1.5)
                began = time.monotonic()
                task.cancel("now")
                try: task.result()
                except subhost.Cancelled as error: print(error.reason)
                print(time.monotonic() - began < 1)
            """, "waits\nasked\nnow\nTrue\n", f"a cancel ends {wait}", isolation=isolation)
    prints(folder, "", """
        try:
            with subhost.open_nursery() as nursery:
                start(nursery, fail, 1)
                task = start(nursery, sleep)
                threading.Timer(1, lambda: os.kill(os.getpid(), 2)).start()
                time.sleep(60)
        except KeyboardInterrupt as error:
            print(type(error.__cause__).__name__, error.__cause__.exceptions)
        """, "ExceptionGroup (ValueError(1),)\n", "KeyboardInterrupt passes, with the errors",
           isolation=isolation, status=0)


@test
@each
def signals(folder, isolation):
    functions = """
        def tree(depth):
            try:
                with subhost.open_nursery() as nursery:
                    for _ in range(2):
                        start(nursery, tree, depth - 1) if depth else start(nursery, leaf)
            finally:
                print("left", flush=True)
        def leaf():
            print("ready", flush=True)
            threading.Event().wait()
        """
    for number, status in ((INT, 130), (TERM, 143)):
        with hosted(write(folder, functions, "tree(1)", isolation)) as it:
            it.wait_for("ready", times=4)
            it.signal(number)
            began = time.monotonic()
            result = it.finish()
        seconds = time.monotonic() - began
        ok(result.status == status and result.out.count("left") == 3 and seconds < 1.5 * PATIENCE,
           f"{isolation}: {number.name} ends a tree", result=result, seconds=seconds)
        ok("errors in a nursery" not in result.err and (number is TERM) == (result.err == ""),
           f"{isolation}: {number.name}: no error is made of it", result=result)
    with hosted(write(folder, functions, """
            import signal
            seen = []
            signal.signal(signal.SIGTERM, lambda *args: seen.append("handled"))
            try:
                tree(0)
            except* subhost.RemoteError as group:
                print(seen, sorted(error.type for error in group.exceptions))
            except* subhost.Cancelled as group:
                print(seen, [error.reason for error in group.exceptions][:1])
            """, isolation)) as it:
        it.wait_for("ready", times=2)
        it.signal(TERM)
        result = it.finish()
    ok(result.status == 0 and "['handled']" in result.out, f"{isolation}: a program that handles "
       "it hears that its tasks were cancelled", result=result)


STUBBORN = """
    def stubborn():
        print("ready", flush=True)
        while True:
            try:
                while True: pass
            except BaseException:
                pass

    def middle():
        with subhost.open_nursery() as nursery:
            start(nursery, stubborn); start(nursery, stubborn)
    """


@test
@each
def stubborn(folder, isolation):
    began = time.monotonic()
    prints(folder, STUBBORN, """
        try:
            with subhost.open_nursery() as nursery:
                task = start(nursery, stubborn)
                time.sleep(1)
                began = time.monotonic()
                task.cancel()
        except* subhost.RemoteError as group:
            print([error.type for error in group.exceptions], task.outcome)
            print(0.4 < time.monotonic() - began < 5)
        print("goes on", flush=True)
        """, {"interpreter": "ready\n['abandoned'] abandoned\nTrue\ngoes on\n",
              "process": "ready\n['killed(9)'] killed(9)\nTrue\ngoes on\n"}[isolation],
           "a task that swallows everything is given up; its nursery is left", "--grace", "500ms",
           isolation=isolation, status={"interpreter": 0, "process": 0}[isolation])
    result = prints(folder, STUBBORN, """
        try:
            middle()
        except subhost.Cancelled as error:
            print(subhost.cancel_requested(), len(leaves(error.__cause__)), flush=True)
            raise
        """, "ready\nready\nTrue 2\n", "their parent's cancel leaves it the time to hear of it",
                    "--grace", "4s", "--timeout", "2s", isolation=isolation, status=124)
    ok(result.seconds < 6 + 2 * PATIENCE, f"{isolation}: within the grace period", result=result,
       all=time.monotonic() - began)


@test
@each
def asked_just_before(folder, isolation):
    """A task that was asked to end just before its parent has no more time than it has then."""
    prints(folder, STUBBORN, """
        try:
            with subhost.open_nursery() as nursery:
                task = start(nursery, stubborn)
                time.sleep(1)
                task.cancel()
                os.kill(os.getpid(), 15)
                time.sleep(100)
        except subhost.Cancelled as error:
            print(error.reason, task.outcome, flush=True)
            raise
        """, {"interpreter": "ready\nSIGTERM abandoned\n",
              "process": "ready\nSIGTERM killed(9)\n"}[isolation],
           "a task that was cancelled just before is given up before its parent is",
           "--grace", "3s", isolation=isolation, status=143)


main()
