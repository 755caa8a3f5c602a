#!/usr/bin/env python3
# timeout: 150
"""Ctrl-C and SIGTERM: KeyboardInterrupt and Cancelled at once, wherever the program waits; a
grace period for cleanup, a second signal for the impatient."""
import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from signalling import INT, PROMPT, TERM, same_when_sent, sent
from tap import PYTHON, SUBHOST, equal, hosted, main, ok, same, script, spawn, test


@test
def uncaught_interrupt(tmp):
    same_when_sent("ready(); time.sleep(60)", INT, status=130, name="time.sleep")
    same_when_sent("ready()\nwhile True: pass", INT, status=130, name="busy loop")
    same_when_sent("def f():\n    try: time.sleep(60)\n    finally: print('finally', end='')\n"
                   "ready()\nf()", INT, status=130, name="finally runs, output is flushed")
    for name, code in {
        "input()": "ready(); input()",
        "sys.stdin": "ready(); sys.stdin.read()",
        "Event.wait": "ready(); threading.Event().wait()",
        "Event.wait with a timeout": "ready(); threading.Event().wait(60)",
        "Event.wait in a loop": "e = threading.Event(); ready()\nwhile True: e.wait(1)",
        "Queue.get": "import queue; ready(); queue.Queue().get()",
        "Thread.join": "t = threading.Thread(target=time.sleep, args=(60,), daemon=True)\n"
                       "t.start(); ready(); t.join()",
        "Future.result": "import concurrent.futures as c\nready(); c.Future().result()",
        "os.read": "r, w = os.pipe(); ready(); os.read(r, 1)",
        "os.waitpid": "import subprocess\np = subprocess.Popen(['sleep', '5'])\n"
                      "ready(); os.waitpid(p.pid, 0)",
        "subprocess.run": "import subprocess\nready(); subprocess.run(['sleep', '5'])",
        "subprocess with pipes": "import subprocess\nready()\n"
                                 "subprocess.run(['sleep', '5'], capture_output=True)",
        "select": "import select; r, w = os.pipe(); ready(); select.select([r], [], [])",
        "poll": "import select; p = select.poll(); ready(); p.poll()",
        "epoll": "import select; p = select.epoll(); ready(); p.poll()",
        "accept": "import socket\ns = socket.create_server(('127.0.0.1', 0)); ready(); s.accept()",
        "accept with a timeout": "import socket\ns = socket.create_server(('127.0.0.1', 0))\n"
                                 "s.settimeout(60); ready(); s.accept()",
        "recv": "import socket\na, b = socket.socketpair(); ready(); a.recv(1)",
        "a write to a full pipe": "r, w = os.pipe(); ready(); os.write(w, bytes(1 << 20))",
        "fcntl.flock": "import fcntl, tempfile\nn = tempfile.NamedTemporaryFile()\n"
                       "a = open(n.name); b = open(n.name)\n"
                       "fcntl.flock(a, 2); ready(); fcntl.flock(b, 2)",
        "a generator": "import itertools; ready(); sum(1 for _ in itertools.count())",
        "a comprehension in C": "ready(); sum(map(lambda x: x, iter(int, 1)))",
        "asyncio.run": "import asyncio\nasync def f():\n    ready(); await asyncio.sleep(60)\n"
                       "asyncio.run(f())",
        "at the end, in Thread.join": "threading.Thread(target=lambda: time.sleep(2)).start()\n"
                                      "ready()",
    }.items():
        result = sent(code, INT)
        # The last case: python reports it as ignored in threading._shutdown.
        last = result.last.startswith("KeyboardInterrupt") or "at the end" in name
        statuses = (0, 130) if "at the end" in name else (130,)
        ok(result.status in statuses and last
           and result.late < PROMPT + (2 if "at the end" in name else 0),
           f"SIGINT in {name}: KeyboardInterrupt at once", late=result.late, result=result)


@test
def caught_interrupt(tmp):
    same_when_sent("try:\n    ready(); time.sleep(60)\nexcept KeyboardInterrupt as e:\n"
                   "    print('caught', e.args, isinstance(e, Exception)); sys.exit(3)", INT,
                   name="except KeyboardInterrupt, own status", status=3)
    same_when_sent("try:\n    ready()\n    while True: pass\nexcept KeyboardInterrupt: pass\n"
                   "print('after')", INT, name="caught in a busy loop, ends normally", status=0)
    same_when_sent("try:\n    ready(); time.sleep(60)\nexcept Exception: print('wrong')", INT,
                   name="except Exception does not catch it", status=130)
    same_when_sent("ready()\ntry: time.sleep(60)\nexcept: print('bare')", INT,
                   name="a bare except does", status=0)
    same_when_sent("import contextlib\nready()\n"
                   "with contextlib.suppress(KeyboardInterrupt): input()\nprint('on')", INT,
                   name="contextlib.suppress around input()", status=0)
    same_when_sent("def hook(t, e, b): print('hook', issubclass(t, KeyboardInterrupt))\n"
                   "sys.excepthook = hook\nready(); time.sleep(60)", INT, status=130,
                   name="sys.excepthook")
    same_when_sent("import atexit\natexit.register(print, 'atexit')\nready(); time.sleep(60)", INT,
                   name="atexit runs", status=130)
    same_when_sent("import atexit\n@atexit.register\ndef f():\n    ready(); time.sleep(60)\n",
                   INT, name="in atexit", stderr=False)
    same_when_sent("def f():\n    try: time.sleep(60)\n    except KeyboardInterrupt as e:\n"
                   "        raise ValueError('instead')\nready()\nf()", INT, status=1,
                   stderr=False, name="turned into another exception")
    same("-c", "raise KeyboardInterrupt", name="raise KeyboardInterrupt", status=130)
    same("-c", "raise KeyboardInterrupt('text')", name="KeyboardInterrupt with text", status=130)
    result = sent("try:\n    ready(); time.sleep(60)\n"
                  "except KeyboardInterrupt:\n"
                  "    time.sleep(0.5); print('cleaned'); sys.exit(4)", INT)
    ok(result.out == "ready\ncleaned\n" and result.status == 4,
       "a cleanup within the grace period is not disturbed", result=result)


STUBBORN = """
ready()
while True:
    try:
        while True: time.sleep(0.01)
    except BaseException:
        print("caught", flush=True)
"""


@test
def second_signal_and_grace(tmp):
    for pair, status in (((INT, INT), 130), ((TERM, TERM), 143), ((INT, TERM), 143),
                         ((TERM, INT), 130)):
        result = sent(STUBBORN, *pair, options=("--grace", "30s"), pause=0.4)
        # Killed is killed: 137 says so as well.
        ok(result.status in (status, 137) and result.late < PROMPT and "caught" in result.out,
           f"{pair[0].name}, then {pair[1].name}: ends at once", late=result.late, result=result)
    for number in (INT, TERM):
        result = sent(STUBBORN, number, options=("--grace", "300ms"))
        ok(result.status == 137 and 0.25 <= result.late < 0.3 + PROMPT,
           f"{number.name} ignored for the grace period: 137", late=result.late, result=result)


@test
def termination(tmp):
    result = sent("import atexit\natexit.register(print, 'atexit')\n"
                  "try:\n    ready(); time.sleep(60)\nfinally: print('finally')", TERM)
    ok((result.status, result.out) == (143, "ready\nfinally\natexit\n") and result.late < PROMPT,
       "SIGTERM: 143, after finally and atexit", late=result.late, result=result)
    result = sent("ready()\nwhile True: pass", TERM)
    ok(result.status == 143 and result.late < PROMPT, "SIGTERM in a busy loop", result=result)
    result = sent("try:\n    ready(); time.sleep(60)\n"
                  "except KeyboardInterrupt: print('interrupt')\n"
                  "except BaseException as e: print(type(e).__name__); sys.exit(5)", TERM)
    equal((result.status, result.out), (5, "ready\nCancelled\n"),
          "SIGTERM is Cancelled, no KeyboardInterrupt; sys.exit keeps its own status",
          result=result)
    # Not SIGUSR1: it asks subhost for the stacks.
    for name in ("SIGHUP", "SIGUSR2", "SIGALRM", "SIGQUIT", "SIGVTALRM", "SIGABRT",
                 "SIGKILL", "SIGRTMIN"):
        same_when_sent("ready(); time.sleep(10)", getattr(signal, name),
                       name=f"{name} by default ends it")
    for name in ("SIGCHLD", "SIGWINCH", "SIGCONT", "SIGURG", "SIGPIPE", "SIGXFSZ"):
        same_when_sent("ready(); time.sleep(0.4); print('on')", getattr(signal, name), status=0,
                       name=f"{name} by default is nothing")


@test
def ignored_at_the_start(tmp):
    code = ("import signal, time\nprint(signal.getsignal(signal.SIGINT), "
            "signal.getsignal(signal.SIGHUP))\nprint('ready', flush=True)\ntime.sleep(0.5)\n"
            "print('on')")
    seen = []
    for runner in ([SUBHOST, "run"], [PYTHON]):
        with spawn(["sh", "-c", 'trap "" INT HUP; exec "$@"', "-", *runner, "-c", code]) as it:
            it.wait_for("ready")
            it.signal(INT)
            it.signal(signal.SIGHUP)
            result = it.finish()
            seen.append((result.out, result.err, result.status))
    equal(seen[0], seen[1], "SIGINT and SIGHUP ignored at the start stay ignored: as python")
    with hosted("-c", "import time; print('ready', flush=True); time.sleep(60)") as it:
        it.wait_for("ready")
        it.signal(TERM)
        equal(it.finish().status, 143, "and by default they are not")


@test
def control_c_in_a_terminal(tmp):
    for name, code in (("time.sleep", "import time; print('ready', flush=True); time.sleep(60)"),
                       ("input()", "input('ready ')"),
                       ("a child in front", "import subprocess\nprint('ready', flush=True)\n"
                                            "subprocess.run(['sleep', '60'])")):
        with hosted("-c", code, terminal=True, env={"NO_COLOR": "1"}) as it:
            it.wait_for("ready")
            time.sleep(0.2)
            it.write("\x03")
            sent_at = time.monotonic()
            result = it.finish()
            ok(result.status == 130 and time.monotonic() - sent_at < PROMPT
               and result.out.rstrip().endswith("KeyboardInterrupt"),
               f"Ctrl-C in {name}", result=result)


@test
def ends_what_is_waited_for(tmp):
    """The terminal's Ctrl-C ends the child as well: the wait is interrupted all the same, by
    KeyboardInterrupt, and does not first return."""
    start = "import os, subprocess\np = subprocess.Popen(['sleep', '60'])\n" \
            "print('ready', flush=True)\n"
    for name, wait in {"Popen.wait()": "p.wait()",
                       "os.waitid()": "os.waitid(os.P_ALL, 0, os.WEXITED)",
                       "Popen.poll()": "while p.poll() is None: pass"}.items():
        for options in ((), ("--isolation", "process"), ("--gil", "shared")):
            results = []
            for _ in range(6):
                with hosted(*options, "-c", f"{start}{wait}\nprint('continued', flush=True)") as it:
                    it.wait_for("ready")
                    time.sleep(0.05)
                    os.killpg(it.process.pid, INT)
                    results.append(it.finish())
            bad = [r for r in results if r.status != 130 or r.out != "ready\n"
                   or r.last != "KeyboardInterrupt" or "Traceback" not in r.err]
            ok(not bad, f"{' '.join([name, *options])}: interrupted, and the program does not go on",
               bad=bad)
    result = sent("import subprocess\np = subprocess.Popen(['sleep', '60'])\nready()\n"
                  "try: p.wait()\nexcept KeyboardInterrupt: p.terminate(); print(p.wait())", INT)
    equal((result.status, result.out), (0, "ready\n-15\n"),
          "and where it does not end the child, that is still there", result=result)


@test
def several_workers(tmp):
    file = script(tmp, """
        import subhost, sys, time
        try:
            print("ready", subhost.current().worker, flush=True)
            while True: time.sleep(0.05)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            raise
    """)
    with hosted("-n", "3", file) as it:
        it.wait_for("ready", times=3)
        it.signal(INT)
        result = it.finish()
        equal((result.status, result.out.count("interrupted")), (130, 3),
              "SIGINT interrupts every worker", result=result)


@test
def before_the_program(tmp):
    """While the interpreter is made, of which site and a preload can make a long affair."""
    slow = "import time\nprint('making', flush=True)\ntime.sleep(300)\n"
    script(tmp, slow, "site/sitecustomize.py")
    script(tmp, slow, "modules/slow_module.py")
    path = {"site": str(tmp / "site"), "preload": str(tmp / "modules")}
    more = {"site": [], "preload": ["--set", "interpreter.preload=slow_module"]}
    for isolation in "interpreter", "process":
        for what in path:
            for number, status in (INT, 130), (TERM, 143):
                options = ["--isolation", isolation, *more[what], "-c", "print('program')"]
                name = f"{isolation}, {what}, {number.name}"
                with hosted("--grace", "60s", *options, env={"PYTHONPATH": path[what]}) as it:
                    it.wait_for("making")
                    it.signal(number)
                    if isolation == "interpreter":
                        time.sleep(0.2)
                        it.signal(number)
                    result = it.finish(15)
                equal((result.status, result.out), (status, "making\n"),
                      f"{name}: " + ("the second is at once" if isolation == "interpreter"
                                     else "what is prepared for it is left"), result=result)
            with hosted("--grace", "200ms", *options, env={"PYTHONPATH": path[what]}) as it:
                it.wait_for("making")
                it.signal(INT)
                result = it.finish(15)
            equal((result.status, result.out), (130, "making\n"),
                  f"{isolation}, {what}: has the grace period", result=result)


main()
