#!/usr/bin/env python3
# timeout: 180
"""`subhost run --isolation process`: a program in a forked child is the program that python
runs; extension modules that refuse subinterpreters work; and it can always be killed."""
import concurrent.futures
import os
import pathlib
import re
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from signalling import INT, PROMPT, TERM, talk
from tap import (NATIVE, PYTHON, SUBHOST, difference, equal, hosted, main, ok, python, run, script,
                 skip, subhost, test)
from sessions import left_behind, run_hosted

PROCESS = ("--isolation", "process")


def alike(*args, name, status=None, clean=None, **kw):
    """Output and status of `subhost run --isolation process ARGS` are exactly python's."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        mine = pool.submit(subhost, "run", *PROCESS, *args, **kw)
        theirs = pool.submit(python, *args, **kw)
        mine, theirs = mine.result(), theirs.result()

    def seen(result):
        text = f"{result.out}\n--- stderr\n{result.err}\n--- status {result.status}"
        text = re.sub("0x[0-9a-f]{6,}", "0x...", text)
        return clean(text) if clean else text

    ok(seen(mine) == seen(theirs) and status in (None, theirs.status), name + ": as python",
       difference=difference(seen(mine), seen(theirs)), expected=status)


def alike_when_sent(code, *signals, name, status=None, **kw):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        mine, theirs = pool.map(lambda runner: talk(runner, code, signals, **kw),
                                ([SUBHOST, "run", *PROCESS], [PYTHON]))
    ok((mine.out, mine.last, mine.status) == (theirs.out, theirs.last, theirs.status)
       and status in (None, theirs.status), name + ": as python", subhost=mine, python=theirs)


@test
def where_it_runs(tmp):
    result, left = run_hosted(*PROCESS, "-c", """
import os, subhost, threading
task = subhost.current()
print(task.isolation, os.getpid() != os.getsid(0), threading.current_thread().name)
try:
    from concurrent import interpreters
    print(interpreters.get_current() == interpreters.get_main())
except ImportError:
    import _interpreters
    print(_interpreters.get_current()[0] == _interpreters.get_main()[0])
""")
    equal((result.status, result.out, left), (0, "process True MainThread\nTrue\n", []),
          "in a process of its own, in its main interpreter", result=result)


@test
def statuses(tmp):
    for value in ("0", "3", "255", "256", "-1", "None", "'words'", "True", "b'x'", "object"):
        alike("-c", f"import sys; print('out', end=''); sys.exit({value})",
              name=f"sys.exit({value})")
    alike("-c", "raise SystemExit(4)", name="raise SystemExit", status=4)
    alike("-c", "import os; print('lost', end=''); os._exit(7)", name="os._exit", status=7)
    alike("-c", "import os; os.abort()", name="os.abort()", status=134)
    alike("-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", name="SIGKILL",
          status=137)
    alike("-c", "import ctypes; ctypes.string_at(0)", name="SIGSEGV", status=139)
    alike("-c", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)", name="SIGTERM to itself",
          clean=lambda text: text.split("--- status")[1])
    alike("-c", "raise KeyboardInterrupt", name="KeyboardInterrupt", status=130)


@test
def programs(tmp):
    file = script(tmp, """
        import sys, os, atexit
        atexit.register(print, "atexit")
        print(sys.argv, __name__, __file__, sys.path[0], sys.flags, sys.stdin.read())
        print(sys.orig_argv[-2:], os.getcwd(), __spec__, sys.executable)
    """)
    alike(file, "a", b"\xff", "-n", "--", input="text", name="a file with arguments", status=0,
          clean=lambda text: re.sub(r"safe_path=\w+|\(.*sys.flags.*?\)", "", text))
    script(tmp, "import sys; print(sys.argv, __name__, __spec__.name)", "package/__main__.py")
    alike("-m", "package", "x", cwd=tmp, name="-m package", status=0)
    alike("-", "x", input="import sys; print(sys.argv, __name__)", name="-", status=0)
    alike("-c", "print(input()); import sys; print(sys.stdin.read())", input="a\nb\nc",
          name="stdin", status=0)
    alike("-c", "print('x' * 3_000_000)", name="3 MB of output", status=0)
    alike("-c", "import sys; sys.stdout.buffer.write(bytes(range(256)))", name="bytes", status=0)
    for name, code in {
        "an exception": "def f(x):\n    return 1 / x\nf(0)",
        "a group": "raise ExceptionGroup('several', [ValueError(1), TypeError('t')])",
        "a chain": "try:\n    {}['a']\nexcept KeyError:\n    raise ValueError('second')",
        "a syntax error": "if:",
        "a missing module": "import no_such_module_anywhere",
        "in a thread": "import threading\nt = threading.Thread(target=lambda: 1 / 0)\n"
                       "t.start(); t.join()",
        "at exit": "import atexit\natexit.register(lambda: 1 / 0)",
    }.items():
        alike("-c", code, name=f"traceback of {name}",
              clean=lambda text: re.sub(r"Thread-\d+", "Thread-N", text))
    file = script(tmp, "def f():\n    raise ValueError('here')\nf()\n", "failing.py")
    alike(file, name="traceback of a file", status=1)
    alike("-c", "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.2), "
          "print('late'))).start()\nprint('first')", name="threads are waited for", status=0)
    result = subhost("run", *PROCESS, tmp / "nowhere.py")
    equal(result.status, 127, "a program that is not there", result=result)


@test
def libraries(tmp):
    alike("-c", "import subprocess; print(subprocess.check_output(['echo', 'x']))",
          name="subprocess", status=0)
    alike("-c", "import asyncio\nasync def f(): await asyncio.sleep(0.01); return 5\n"
          "print(asyncio.run(f()))", name="asyncio", status=0)
    if not list(NATIVE.glob("single_phase*.so")):
        skip("extension modules", f"not built in {NATIVE}")
    else:
        for module in ("single_phase", "multi_phase_no_slot", "own_gil_ready"):
            result = subhost("run", *PROCESS, "-n", "2", "-c",
                             f"import {module}; print({module}.answer())",
                             env={"PYTHONPATH": str(NATIVE)})
            equal((result.status, result.out, result.err), (0, "42\n42\n", ""),
                  f"{module} works", result=result)
    if python("-c", "import numpy").status:
        skip("numpy", "not installed")
        return
    alike("-c", "import numpy as np\na = np.arange(12.0).reshape(3, 4)\n"
          "print((a @ a.T).sum(), np.linalg.norm(a))", name="numpy", status=0)


@test
def workers(tmp):
    result, left = run_hosted(*PROCESS, "-n", "3", "-c", """
import os, subhost, time
time.sleep(0.2)
print(subhost.current().worker, os.getpid())
""")
    rows = [line.split() for line in result.out.splitlines()]
    ok(result.status == 0 and not left and sorted(row[0] for row in rows) == ["0", "1", "2"]
       and len({row[1] for row in rows}) == 3, "-n 3: three processes", result=result)
    result, left = run_hosted(*PROCESS, "-n", "3", "-c", """
import subhost, sys, time
me = subhost.current().worker
time.sleep(0.3 * me)
sys.exit(10 + me)
""")
    equal((result.status, left), (10, []), "-n 3: the first failure's status", result=result)
    result, left = run_hosted(*PROCESS, "-n", "2", "-c", """
import os, subhost, time
if subhost.current().worker: os.kill(os.getpid(), 9)
time.sleep(0.4); print("fine")
""")
    equal((result.status, result.out, left), (137, "fine\n", []),
          "-n 2: one is killed, the other goes on", result=result)
    ok(re.fullmatch(r"subhost: -c/1: process \d+ was ended by signal 9\n", result.err),
       "-n 2: which one it was", result=result)
    program = "import sys; print(sys.argv, __file__, sys.stdin.read()); sys._getframe().f_line0"
    one, many = (subhost("run", *PROCESS, "-n", n, "-", "x", input=program) for n in ("1", "3"))
    equal((many.status, many.out, many.err.count("AttributeError")), (one.status, one.out * 3, 3),
          "-n 3 of -: each has the program, and nothing else of standard input", result=many)
    ok("['-', 'x'] <stdin>" in one.out and one.status == 1, "as one of it", result=one)
    result = subhost("run", *PROCESS, "--policy", "actors", "-", input="print(42)")
    equal((result.status, result.out), (0, "42\n"), "also where it gets no standard input",
          result=result)
    fifo = tmp / "fifo"
    os.mkfifo(fifo)
    result = run(["sh", "-c", f"echo 'print(42)' > '{fifo}' & '{SUBHOST}' run '{fifo}'"])
    equal((result.status, result.out), (0, "42\n"), "a FIFO", result=result)
    for words, count in ((PROCESS, 1), ((*PROCESS, "-n", "3"), 3), (("-n", "3"), 3)):
        result = run(["bash", "-c", f"'{SUBHOST}' run {' '.join(words)} <(echo 'print(42)')"])
        equal((result.status, result.out), (0, "42\n" * count),
              f"a FIFO that is open only here, for each of them: {' '.join(words)}", result=result)
    result = subhost("run", *PROCESS, "-n", "2", "-", input="print()\0\n")
    ok(result.status == 126 and "null byte" in result.err, "null bytes: refused", result=result)
    reader, writer = os.pipe()  # that nobody writes into
    result = subhost("run", *PROCESS, "-n", "2", "--timeout", "200ms", "-", stdin=reader)
    os.close(reader)
    os.close(writer)
    equal((result.status, result.err), (124, ""), "the deadline holds for reading it")
    result = subhost("run", *PROCESS, "-n", "2", "-c", "1 / 0")
    equal((result.status, result.err.count("ZeroDivisionError")), (1, 2), "two tracebacks",
          result=result)


@test
def deadlines(tmp):
    for name, code in (("a sleep", "import time; time.sleep(60)"), ("a loop", "while True: pass"),
                       ("Event.wait", "import threading; threading.Event().wait()"),
                       ("a runaway regex", "import re\ntry: re.match('(a+)+$', 'a' * 60 + 'b')\n"
                                           "except BaseException: pass")):
        result, left = run_hosted(*PROCESS, "--timeout", "500ms", "--grace", "700ms", "-c", code)
        wanted, limit = ((137, 1.2) if "regex" in name else (124, 0.5))
        ok(result.status == wanted and not left and 0.5 <= result.seconds < limit + PROMPT,
           f"--timeout, {name}: {wanted}", result=result, left=left)
    result, left = run_hosted(*PROCESS, "--timeout", "500ms", "-c",
                              "import time\ntry: time.sleep(60)\nfinally: print('finally')")
    equal((result.status, result.out, left), (124, "finally\n", []), "finally runs", result=result)
    result, left = run_hosted(*PROCESS, "-n", "2", "--timeout", "500ms", "--grace", "500ms", "-c",
                              "import subhost, time\nif subhost.current().worker:\n"
                              "    while True: pass\nprint('healthy')")
    equal((result.status, result.out, left), (124, "healthy\n", []),
          "-n 2: a healthy worker is not touched", result=result)
    result, left = run_hosted(*PROCESS, "--timeout", "400ms", "--grace", "400ms", "-c", """
def forever(depth):
    while True:
        try:
            while not depth: pass
            forever(depth - 1)
        except BaseException: pass
forever(20)
""")
    ok(result.status == 137 and not left and 0.8 <= result.seconds < 0.8 + PROMPT and
       result.last == "subhost: -c could not be interrupted within the grace period and was killed",
       "who is deaf to it is killed: 137", result=result, left=left)


HANDLER = """
import signal
def handler(number, frame): print("handler", number, flush=True); raise SystemExit(9)
signal.signal(signal.SIG%s, handler)
ready(); time.sleep(60)
"""


@test
def signals(tmp):
    alike_when_sent("ready(); time.sleep(60)", INT, status=130, name="SIGINT in a sleep")
    alike_when_sent("ready()\nwhile True: pass", INT, status=130, name="SIGINT in a loop")
    alike_when_sent("try:\n    ready(); time.sleep(60)\nexcept KeyboardInterrupt:\n"
                    "    print('caught'); sys.exit(5)", INT, status=5, name="SIGINT caught")
    for number in ("INT", "TERM", "USR2", "HUP", "ALRM"):
        alike_when_sent(HANDLER % number, getattr(signal, "SIG" + number), status=9,
                        name=f"a handler of its own for SIG{number}")
    alike_when_sent("ready(); time.sleep(10)", signal.SIGHUP, name="SIGHUP by default")
    for code, out in (("try:\n    ready(); time.sleep(60)\nfinally: print('finally')",
                       "ready\nfinally\n"), ("ready()\nwhile True: pass", "ready\n")):
        result = talk([SUBHOST, "run", *PROCESS], code, [TERM])
        ok((result.status, result.out) == (143, out) and result.late < PROMPT, "SIGTERM: 143, "
           "finally runs", result=result)
    stubborn = ("ready()\nwhile True:\n    try:\n        while True: time.sleep(0.01)\n"
                "    except BaseException: pass")
    for number in (INT, TERM):
        result = talk([SUBHOST, "run", *PROCESS, "--grace", "300ms"], stubborn, [number])
        ok(result.status == 137 and 0.25 <= result.late < 0.3 + PROMPT,
           f"{number.name} ignored for the grace period: killed, 137", late=result.late,
           result=result)
        result = talk([SUBHOST, "run", *PROCESS, "--grace", "30s"], stubborn, [number, number],
                      pause=0.4)
        ok(result.status in (128 + number, 137) and result.late < PROMPT,
           f"{number.name} twice: ends at once", late=result.late, result=result)
    result = talk([SUBHOST, "run", *PROCESS, "-n", "3"],
                  "try:\n    ready(); time.sleep(60)\nexcept KeyboardInterrupt:\n"
                  "    print('interrupted', flush=True); raise", [INT], pause=0.6)
    ok(result.status == 130 and result.out.count("interrupted") == result.out.count("ready"),
       "-n 3: SIGINT interrupts every worker", result=result)


@test
def control_c_in_a_terminal(tmp):
    """The terminal sends SIGINT to the whole group: once is once, for the child too."""
    for name, code in (("a sleep", "import time; print('ready', flush=True)\n"
                        "try: time.sleep(60)\nexcept KeyboardInterrupt:\n    time.sleep(0.3)\n"
                        "    print('tidied', flush=True); raise"),
                       ("input()", "try: input('ready ')\nexcept KeyboardInterrupt:\n"
                        "    print('tidied'); raise")):
        with hosted(*PROCESS, "-c", code, terminal=True, env={"NO_COLOR": "1"}) as it:
            it.wait_for("ready")
            time.sleep(0.3)
            it.write("\x03")
            result = it.finish()
            ok(result.status == 130 and "tidied" in result.out
               and result.out.rstrip().endswith("KeyboardInterrupt"),
               f"Ctrl-C in {name}", result=result)
            equal(left_behind(it.pid), [], f"Ctrl-C in {name}: nothing is left")
    with hosted(*PROCESS, "-c", "import os; name = input('name? '); print('hello', name, "
                "os.isatty(0), os.getpgrp() == os.tcgetpgrp(0))", terminal=True) as it:
        it.wait_for("name? ")
        it.write("world\n")
        result = it.finish()
        ok(result.status == 0 and "hello world True True" in result.out,
           "a terminal is the program's", result=result)


@test
def options_that_do_not_fit(tmp):
    result = subhost("run", "--isolation", "thread", "-c", "print(1)")
    ok(result.status == 125 and "thread" in result.err and not result.out,
       "an isolation that there is not", result=result)
    result, left = run_hosted(*PROCESS, "--stats", "-n", "2", "-c", "print(1)")
    ok(result.status == 0 and result.out == "1\n1\n" and not left
       and re.search(r"forks\W+2\b|\b2 forks", result.err.lower()), "--stats counts two forks",
       result=result)


@test
def the_runner_is_killed(tmp):
    with hosted(*PROCESS, "--grace", "500ms", "-n", "2", "-c",
                "import time; print('ready', flush=True); time.sleep(60)") as it:
        it.wait_for("ready", times=2)
        it.signal(signal.SIGKILL)
        it.finish(5)
        equal(left_behind(it.pid, 0.5 + 0.2), [], "its children go within the grace period")


main()
