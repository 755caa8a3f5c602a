#!/usr/bin/env python3
# timeout: 90
"""SIGUSR1: the Python stacks of all threads of all hosted interpreters, on stderr, blocked
ones and those stuck in C included; and the programs go on."""
import pathlib
import re
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import equal, hosted, main, ok, script, test

USR1, TERM = signal.SIGUSR1, signal.SIGTERM


def dump(it, interpreters=1, thread="Thread "):
    """What a SIGUSR1 prints."""
    before = len(it.output["err"])
    seen = it.output["err"].count(b"Interpreter ")
    it.signal(USR1)
    it.wait_for("Interpreter ", stream="err", times=seen + interpreters)
    time.sleep(0.5)
    return it.output["err"][before:].decode(errors="replace")


@test
def every_thread(tmp):
    file = script(tmp, """
        import asyncio, os, queue, subprocess, sys, threading, time
        def in_sleep(): time.sleep(60)
        def in_lock():
            lock = threading.Lock(); lock.acquire(); lock.acquire()
        def in_event(): threading.Event().wait()
        def in_queue(): queue.SimpleQueue().get()
        def in_read(): os.read(os.pipe()[0], 1)
        def in_loop():
            while not stop: pass
        def in_asyncio(): asyncio.run(asyncio.sleep(60))
        def in_child(): subprocess.run(["sleep", "60"])
        stop = False
        for function in (in_sleep, in_lock, in_event, in_queue, in_read, in_loop, in_asyncio,
                         in_child):
            threading.Thread(target=function, daemon=True).start()
        time.sleep(0.3)
        print("ready", flush=True)
        def the_main_one():
            for line in sys.stdin: print("on", flush=True)
        the_main_one()
    """)
    with hosted(file) as it:
        it.wait_for("ready")
        time.sleep(0.3)  # until it is in there: in_loop() wants the same GIL
        text = dump(it)
        for name in ("in_sleep", "in_lock", "in_event", "in_queue", "in_read", "in_loop",
                     "in_asyncio", "in_child", "the_main_one"):
            ok(re.search(rf'program\.py", line \d+ in {name}\b', text),
               f"a thread in {name}() is shown", text=text)
        ok("the program's main thread" in text, "the main thread is marked", text=text)
        it.write("a line\n")
        it.wait_for("on")
        equal(it.process.poll(), None, "the program goes on")
        again = dump(it)
        ok("the_main_one" in again, "a second dump", text=again)
        it.signal(TERM)
        # A raw lock cannot be interrupted.
        ok(it.finish().status in (137, 143), "and it can still be ended")


@test
def every_interpreter(tmp):
    file = script(tmp, """
        import re, subhost, sys, time
        worker = subhost.current().worker
        def blocked(): time.sleep(60)
        def busy():
            while True: pass
        def stuck(): re.match("(a+)+b", "a" * 60)
        print("ready", flush=True)
        (blocked, busy, stuck)[worker]()
    """)
    with hosted("-n", "3", "--grace", "300ms", file) as it:
        it.wait_for("ready", times=3)
        time.sleep(0.3)
        text = dump(it, interpreters=3)
        parts = {n: part for n, part in enumerate(text.split("Interpreter ")) if n}
        equal(len(parts), 3, "one part for each interpreter", text=text)
        ok(any("in blocked" in part for part in parts.values()), "a blocked one", text=text)
        ok(any("in busy" in part for part in parts.values()), "a busy one", text=text)
        stuck = [part for part in parts.values() if "in blocked" not in part
                 and "in busy" not in part]
        ok(len(stuck) == 1 and "Thread" in stuck[0],
           "one that is stuck in C is reported, as the kernel sees it", text=text)
        started = time.monotonic()
        dump(it, interpreters=3)
        ok(time.monotonic() - started < 5, "it does not hold the dump up")
        it.signal(TERM)
        equal(it.finish().status, 143, "the first worker that ended decides: 143")


@test
def often_while_it_runs(tmp):
    file = script(tmp, """
        import threading, time
        end = time.monotonic() + 2
        def work(depth):
            return work(depth - 1) if depth else sum(range(50))
        def run():
            while time.monotonic() < end: work(30)
        threads = [threading.Thread(target=run) for _ in range(4)]
        print("ready", flush=True)
        for t in threads: t.start()
        for t in threads: t.join()
        print("whole", flush=True)
    """)
    with hosted("-n", "2", file) as it:
        it.wait_for("ready", times=2)
        for _ in range(100):
            it.signal(USR1)
            time.sleep(0.01)
        result = it.finish()
        equal((result.status, result.out.count("whole")), (0, 2),
              "a hundred dumps while threads come and go disturb nothing", result=result)
        ok("in work" in result.err, "and show something")


@test
def the_program_keeps_its_own_handler(tmp):
    with hosted("-c", "import signal, time\n"
                "signal.signal(signal.SIGUSR1, lambda *a: print('mine', flush=True))\n"
                "print('ready', flush=True); time.sleep(60)") as it:
        it.wait_for("ready")
        it.signal(USR1)
        it.wait_for("mine")
        it.signal(TERM)
        result = it.finish()
        ok(result.status == 143 and "Interpreter " not in result.err,
           "a program's handler for SIGUSR1 is called instead", result=result)


main()
