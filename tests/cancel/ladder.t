#!/usr/bin/env python3
# timeout: 120
"""The cancel ladder, rung by rung, as a program sees it: through `subhost run --timeout`."""
import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import PATIENCE, PYTHON, equal, hosted, main, ok, run, skip, subhost, test

START = """
import atexit, os, sys, threading, time
import subhost
began = time.monotonic()
def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""
TIMEOUT, GRACE = 1.0 * PATIENCE, 1.2 * PATIENCE  # the import of asyncio is in the first


def deadline(code, timeout=TIMEOUT, grace=GRACE, *options):
    return subhost("run", "--timeout", f"{timeout}s", "--grace", f"{grace}s", *options,
                   "-c", START + code)


def lines(result):
    return result.out.split("\n")[:-1]


@test
def callbacks_come_first(tmp):
    result = deadline("""
def told(): say("told", subhost.cancel_requested())
handle = subhost.on_cancel(told)
subhost.on_cancel(lambda: say("removed, but called")).remove()
with subhost.on_cancel(lambda: say("left, but called")): pass
subhost.on_cancel(lambda: 1 / 0)
subhost.on_cancel(lambda: sys.exit(3))
subhost.on_cancel(lambda: say("the last"))
say(subhost.cancel_requested())
try:
    time.sleep(60)
except subhost.Cancelled as e:
    say("raised", e.reason, subhost.cancel_requested())
    raise
""")
    equal((lines(result), result.status),
          (["False", "told True", "the last", "raised deadline True"], 124),
          "on_cancel callbacks run, in order, before anything is raised", result=result)
    ok("ZeroDivisionError" in result.err, "a callback's exception is printed", result=result)


@test
def on_cancel_in_a_busy_loop_and_in_threads(tmp):
    result = deadline("""
subhost.on_cancel(lambda: say("told"))
def busy():
    try:
        while True: pass
    except subhost.Cancelled: say("thread")
t = threading.Thread(target=busy); t.start()
try:
    while True: pass
except subhost.Cancelled: say("main")
t.join()
""")
    equal((lines(result)[:1], sorted(lines(result)[1:]), result.status),
          (["told"], ["main", "thread"], 124), "told once, then raised in every thread",
          result=result)


@test
def polling(tmp):
    result = deadline("""
with subhost.shield():
    while not subhost.cancel_requested(): time.sleep(0.01)
    say("seen")
    try: subhost.checkpoint()
    except subhost.Cancelled: say("a checkpoint raises under a shield")
    else: say("a checkpoint in a shield passes")
say("unreachable")
""")
    ok(lines(result)[:1] == ["seen"] and "unreachable" not in result.out
       and result.status == 124, "cancel_requested() turns true; it is raised when the shield "
       "ends", result=result)
    result = deadline("""
while True:
    try: time.sleep(0.01)
    except subhost.Cancelled: break
try:
    for _ in range(100): subhost.checkpoint(); time.sleep(0.01)
except subhost.Cancelled as e: say("checkpoint", e.reason)
""")
    equal((lines(result), result.status), (["checkpoint deadline"], 124),
          "checkpoint() raises again what was swallowed", result=result)


@test
def shields(tmp):
    result = deadline("""
began = time.monotonic()
try:
    with subhost.shield():
        end = time.monotonic() + %f
        while time.monotonic() < end: time.sleep(0.01)
        say("whole")
except subhost.Cancelled: say("afterwards")
""" % (TIMEOUT + GRACE / 2))
    equal((lines(result), result.status), (["whole", "afterwards"], 124),
          "a shield holds raising back", result=result)
    result = deadline("with subhost.shield(): time.sleep(60)")
    ok(result.status == 137 and TIMEOUT + GRACE <= result.seconds < TIMEOUT + GRACE + 2 * PATIENCE,
       "a shield does not hold abandonment back", result=result)
    result = deadline("""
with subhost.shield():
    with subhost.shield():
        while not subhost.cancel_requested(): time.sleep(0.01)
    say("still shielded")
say("unreachable")
""")
    equal((lines(result), result.status), (["still shielded"], 124), "shields nest",
          result=result)


@test
def swallowed(tmp):
    result = deadline("""
times = []
while len(times) < 3:
    try: time.sleep(60)
    except subhost.Cancelled: times.append(time.monotonic() - began)
say(len(times), all(a < b for a, b in zip(times, times[1:])))
""")
    equal((lines(result), result.status), (["3 True"], 124),
          "swallowed in a sleep: raised again, and again", result=result)
    result = deadline("""
n = 0
while n < 3:
    try:
        while True: pass
    except BaseException: n += 1
say(n)
""")
    equal((lines(result), result.status), (["3"], 124), "swallowed in a busy loop: likewise",
          result=result)
    result = deadline("""
def forever(depth):
    while True:
        try:
            while not depth: time.sleep(60)
            forever(depth - 1)
        except BaseException: pass
forever(20)
""")
    ok(result.status == 137 and TIMEOUT + GRACE <= result.seconds < TIMEOUT + GRACE + 2 * PATIENCE
       and "was abandoned" in result.err, "swallowed for ever: abandoned, 137", result=result)


@test
def cleanup_has_its_time(tmp):
    result = deadline("""
atexit.register(say, "atexit")
try:
    try: time.sleep(60)
    finally:
        time.sleep(%f)
        say("finally")
finally: say("outer")
""" % (GRACE / 4))
    equal((lines(result), result.status), (["finally", "outer", "atexit"], 124),
          "a finally that takes a quarter of the grace period is not disturbed", result=result)
    result = deadline("""
class Slow:
    def __enter__(self): return self
    def __exit__(self, *e):
        time.sleep(%f)
        say("exit", e[0].__name__)
def generator():
    try: yield 1
    finally: say("generator")
with Slow():
    for _ in generator(): time.sleep(60)
""" % (GRACE / 4))
    equal((sorted(lines(result)), result.status), (["exit Cancelled", "generator"], 124),
          "__exit__ and generators likewise", result=result)
    result = deadline("try: time.sleep(60)\nfinally: time.sleep(60)")
    ok(result.status == 124 and result.seconds < TIMEOUT + GRACE,
       "a finally that blocks is interrupted within the grace period", result=result)


@test
def nothing_is_kept(tmp):
    result = deadline("""
import gc; gc.disable()
class Held:
    def __del__(self): say("freed")
def wait():
    held = Held()
    time.sleep(60)
try: wait()
except subhost.Cancelled: say("caught")
say("on")
""")
    equal((lines(result), result.status), (["caught", "freed", "on"], 124),
          "what was cancelled is freed as under python, without a collection", result=result)


ASYNC = """
import asyncio
async def inner():
    try: await asyncio.sleep(60)
    except asyncio.CancelledError:
        say("cancelled", subhost.cancel_requested())
        raise
    finally:
        await asyncio.sleep(%f)
        say("cleaned up")
async def outer():
    async with asyncio.TaskGroup() as group:
        group.create_task(inner())
        await asyncio.sleep(60)
""" % (GRACE / 4)


@test
def asyncio_in_its_own_way(tmp):
    result = deadline(ASYNC + "asyncio.run(outer())")
    equal((lines(result), result.status), (["cancelled True", "cleaned up"], 124),
          "asyncio.run: the main task is cancelled, cleanup is awaited", result=result)
    result = deadline(ASYNC + """
t = threading.Thread(target=asyncio.run, args=(outer(),)); t.start(); t.join()
""")
    equal((lines(result), result.status), (["cancelled True", "cleaned up"], 124),
          "in a second thread likewise", result=result)
    result = deadline("""
import asyncio
async def deaf():
    while True:
        try: await asyncio.sleep(60)
        except asyncio.CancelledError: say("deaf")
asyncio.run(deaf())
""")
    ok(result.out.startswith("deaf") and result.status in (124, 137)
       and result.seconds < TIMEOUT + GRACE + 2 * PATIENCE,
       "a main task that is deaf to it ends with the grace period", result=result)
    result = deadline("""
import asyncio
async def once():
    try: await asyncio.sleep(60)
    except asyncio.CancelledError: say("caught")
asyncio.run(once())
say("after")
""")
    ok(result.out.startswith("caught\n") and result.status == 124,
       "a main task that catches it and returns", result=result)
    result = deadline("""
import asyncio
loop = asyncio.new_event_loop()
try: loop.run_forever()
except BaseException as e: say(type(e).__name__)
finally: loop.close()
""")
    equal((lines(result), result.status), (["Cancelled"], 124), "loop.run_forever()",
          result=result)


@test
def trio_in_its_own_way(tmp):
    if run([PYTHON, "-c", "import trio"]).status != 0:
        skip("trio", "trio cannot be imported")
        return
    result = deadline("""
import trio
async def child():
    try: await trio.sleep_forever()
    except trio.Cancelled:
        say("cancelled")
        raise
    finally:
        with trio.CancelScope(shield=True): await trio.sleep(%f)
        say("cleaned up")
async def parent():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)
        await trio.sleep_forever()
trio.run(parent)
""" % (GRACE / 4))
    equal((lines(result), result.status), (["cancelled", "cleaned up"], 124),
          "trio.run: the main task's scope is cancelled, cleanup is awaited", result=result)


@test
def threads(tmp):
    result = deadline("""
def sleep(name):
    try: time.sleep(60)
    finally: say(name)
def wait(name):
    try: threading.Event().wait()
    finally:
        try: daemon.join()  # for which the process would not wait
        finally: say(name)
daemon = threading.Thread(target=sleep, args=("c",), daemon=True)
daemon.start()
for name, target in (("a", sleep), ("b", wait)):
    threading.Thread(target=target, args=(name,)).start()
time.sleep(60)
""")
    equal((sorted(lines(result)), result.status), (["a", "b", "c"], 124),
          "every thread is cancelled, daemons too", result=result)
    ok("Exception in thread" not in result.err and result.err.count("Cancelled") <= 1,
       "a cancelled thread prints nothing", result=result)
    result = deadline("""
def swallow():
    try: time.sleep(60)
    except BaseException: pass
    say("on")
t = threading.Thread(target=swallow); t.start()
try: t.join()
finally: say("main")
""")
    equal((sorted(lines(result)), result.status), (["main", "on"], 124),
          "a thread that swallows and ends", result=result)
    result = deadline("""
def many():
    try:
        while True:
            t = threading.Thread(target=time.sleep, args=(0.001,)); t.start(); t.join()
    finally: say("ended")
ts = [threading.Thread(target=many) for _ in range(3)]
for t in ts: t.start()
for t in ts: t.join()
""")
    ok(result.status == 124 and "thread started by" not in result.err,
       "threads that start threads all the time: not before and after their run()",
       result=result)


@test
def signal_handlers(tmp):
    with hosted("--grace", f"{GRACE}s", "-c", START + """
import signal
def handler(number, frame):
    say("handler")
    try: time.sleep(60)
    finally: say("handler ends")
signal.signal(signal.SIGUSR2, handler)
say("ready")
try: time.sleep(60)
finally: say("main ends")
""") as it:
        it.wait_for("ready")
        time.sleep(0.2)  # until it is in the try statement
        it.signal(signal.SIGUSR2)
        it.wait_for("handler")
        time.sleep(0.2)
        it.signal(signal.SIGTERM)
        result = it.finish()
        equal((lines(result), result.status),
              (["ready", "handler", "handler ends", "main ends"], 143),
              "a cancel while a signal handler runs", result=result)
    result = deadline("""
import signal
signal.signal(signal.SIGUSR2, lambda *a: say("handler"))
try: time.sleep(60)
except subhost.Cancelled:
    os.kill(os.getpid(), signal.SIGUSR2)
    time.sleep(%f)
""" % (GRACE / 4))
    equal((lines(result), result.status), (["handler"], 124),
          "handlers run while a cancelled program tidies up", result=result)


@test
def workers(tmp):
    result = deadline("""
w = subhost.current().worker
if w == 0: time.sleep(60)
if w == 1:
    while True: pass
say("healthy")
""", TIMEOUT, GRACE, "-n", "3")
    equal((lines(result), result.status), (["healthy"], 124),
          "a deadline of -n 3: a healthy worker is not touched", result=result)


main()
