#!/usr/bin/env python3
"""How a program ends: sys.exit, uncaught exceptions, atexit, threads, finalisers. Output,
traceback and status are python's to the byte."""
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import SUBHOST, equal, hosted, main, ok, python, same, script, spawn, subhost, test


@test
def exit_statuses(tmp):
    for value, status in (
        ("0", 0), ("3", 3), ("255", 255), ("256", 0), ("257", 1), ("-1", 255), ("2**31", None),
        ("None", 0), ("", 0),
        ("'words'", 1), ("''", 1), ("'caf\\u00e9 \\udcff'", 1), ("b'bytes'", 1),
        ("True", 1), ("False", 0), ("1.5", 1), ("(1, 2)", 1), ("()", None), ("[]", 1),
        ("object", 1), ("ValueError('x')", 1),
    ):
        same("-c", f"import sys; print('out', end=''); sys.exit({value})",
             name=f"sys.exit({value})", status=status)
    same("-c", "raise SystemExit(4)", name="raise SystemExit", status=4)
    same("-c", "exit(5)", name="exit() of site", status=5)
    same("-c", "import sys\nclass E(SystemExit): pass\nraise E('mine')",
         name="a subclass of SystemExit", status=1)
    for value in ("2**63", "10**40", "-10**40"):
        # python also complains of the overflow, in a place that has nothing to do with it.
        same("-c", f"import sys; print('out', end=''); sys.exit({value})",
             stderr=subprocess.DEVNULL, name=f"sys.exit({value})")
    same("-c", "import sys\ntry: sys.exit(6)\nfinally: print('finally')",
         name="finally runs on sys.exit", status=6)
    same("-c", "import os; print('lost', end=''); os._exit(7)",
         name="os._exit is at once, unflushed", status=7)
    same("-c", "import os; os.abort()", name="os.abort()", status=134)
    same("-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
         name="killed by SIGKILL", status=137)


@test
def tracebacks(tmp):
    raising = {
        "plain": "def f(x):\n    return 1 / x\nf(0)\n",
        "chained": "try:\n    {}['a']\nexcept KeyError:\n    raise ValueError('second')\n",
        "cause": "try:\n    int('x')\nexcept ValueError as e:\n"
                 "    raise RuntimeError('b') from e\n",
        "suppressed": "try:\n    int('x')\nexcept ValueError:\n"
                      "    raise RuntimeError('b') from None\n",
        "group": "raise ExceptionGroup('several', [ValueError(1),\n"
                 "    ExceptionGroup('inner', [TypeError('t'), OSError(2, 'no', 'file')])])\n",
        "notes": "e = ValueError('v')\ne.add_note('first\\nsecond')\ne.add_note('x')\nraise e\n",
        "name with a suggestion": "value = 1\nprint(valeu)\n",
        "attribute with a suggestion": "import sys\nsys.exti\n",
        "import with a suggestion": "from collections import ordereddict\n",
        "missing module": "import no_such_module_anywhere\n",
        "long lines and carets": "x = [1, 2, 3]\nprint(x[0] + x[1] + x[2] + (x[0]\n    + None))\n",
        "str fails": "class E(Exception):\n    def __str__(self): raise KeyError(1)\nraise E\n",
        "multi-line message": "raise ValueError('one\\ntwo\\n')\n",
        "no text": "raise AssertionError\n",
        "base exception": "raise BaseException('base')\n",
        "generator exit": "raise GeneratorExit\n",
        "bytes that are no text": "raise ValueError('\\udcff \\u00e9 \\U0001f600')\n",
        "through C": "sorted([3, 1], key=lambda x: x / 0)\n",
        "from exec": "exec(compile('raise TypeError(5)', 'elsewhere', 'exec'))\n",
        "in a thread pool": "from concurrent.futures import ThreadPoolExecutor as T\n"
                            "T(1).submit(int, 'z').result()\n",
        "in asyncio": "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    1 / 0\n"
                      "asyncio.run(f())\n",
        "in a task group": "import asyncio\nasync def f(): raise ValueError(1)\n"
                           "async def g():\n  async with asyncio.TaskGroup() as t:\n"
                           "    t.create_task(f())\nasyncio.run(g())\n",
    }
    for number, (name, text) in enumerate(raising.items()):
        file = script(tmp, text, f"raises_{number}.py")
        same(file, name=f"traceback of FILE, {name}", status=1)
        same("-c", text, name=f"traceback of -c, {name}", status=1)
    same("-m", "raises_0", cwd=tmp, name="traceback of -m MODULE", status=1)
    same("-", input=raising["plain"], name="traceback of -", status=1)
    script(tmp, raising["chained"], "pack/__main__.py")
    same("-m", "pack", cwd=tmp, name="traceback of -m PACKAGE", status=1)
    same("pack", cwd=tmp, name="traceback of a folder", status=1)
    script(tmp, "1 / 0", "broken/__init__.py")
    script(tmp, "pass", "broken/__main__.py")
    same("-m", "broken", cwd=tmp, name="a package whose __init__ raises", status=1)
    same("-c", "import raises_0", cwd=tmp, name="traceback through an imported module", status=1)


@test
def syntax_errors(tmp):
    texts = {
        "a missing bracket": "print((1)\n",
        "a bad word": "x = 1\nif x\n    pass\n",
        "an indentation": "def f():\npass\n",
        "tabs and blanks": "if 1:\n\tpass\n        pass\n",
        "an f-string": "print(f'{1 +}')\n",
        "an unterminated string": "x = 'abc\n",
        "a null byte": "x = 1\0\n",
        "return outside": "return 5\n",
        "await outside": "await x\n",
        "an escape that warns": "print('\\d')\n",
        "a wide character before it": "é = 'ü' 'ö' = 3\n",
    }
    for number, (name, text) in enumerate(texts.items()):
        file = script(tmp, text, f"bad_{number}.py")
        warns = "warns" in name
        same(file, name=f"{name} in FILE", status=0 if warns else 1)
        if "\0" not in text:
            same("-c", text, name=f"{name} in -c", status=0 if warns else 1)
    same("-m", "bad_0", cwd=tmp, name="a syntax error in -m MODULE", status=1)
    same("-", input=texts["a bad word"], name="a syntax error in -", status=1)
    (tmp / "latin.py").write_bytes(b"print('\xe9')\n")
    same(tmp / "latin.py", name="a source that is not UTF-8", status=1)
    (tmp / "coding.py").write_bytes(b"# coding: klingon\nprint(1)\n")
    same(tmp / "coding.py", name="a source with an unknown coding", status=1)
    same("-c", "# coding: latin-1\nprint(ascii('\xe9'))", name="-c has no coding of its own",
         status=0)
    (tmp / "old.pyc").write_bytes(b"\0" * 40)
    same(tmp / "old.pyc", name="a .pyc of no python", status=1)


@test
def hooks(tmp):
    same("-c", "import sys\nsys.excepthook = lambda *a: print('hook', a[0], a[1])\n1 / 0",
         name="sys.excepthook of the program", status=1)
    same("-c", "import sys\ndef hook(*a): raise KeyError('in hook')\nsys.excepthook = hook\n1 / 0",
         name="an excepthook that raises", status=1)
    same("-c", "import sys\nsys.excepthook = None\n1 / 0", name="an excepthook that is None",
         status=1)
    same("-c", "import sys\ndel sys.excepthook\n1 / 0", name="no excepthook", status=1)
    same("-c", "import sys\nsys.excepthook = lambda *a: sys.exit(9)\n1 / 0",
         name="an excepthook that exits")
    same("-c", "import sys\nsys.stderr = None\n1 / 0", name="sys.stderr None", status=1)
    same("-c", "import sys, io\nsys.stderr = sys.stdout\n1 / 0", name="sys.stderr replaced",
         status=1)
    same("-c", "import sys\nsys.tracebacklimit = 1\ndef f(): 1 / 0\nf()", status=1,
         name="sys.tracebacklimit")
    same("-c", "import sys\nclass A:\n  def __del__(s): 1 / 0\nA()\nprint('on')",
         name="an exception in __del__", status=0)
    same("-c", "import sys\nsys.unraisablehook = lambda u: print('hook', u.exc_value)\n"
         "class A:\n  def __del__(s): 1 / 0\nA()", name="sys.unraisablehook", status=0)
    same("-c", "import warnings, sys\nwarnings.warn('careful')\nassert sys", status=0,
         name="a warning")


@test
def at_exit(tmp):
    same("-c", """
import atexit, sys, threading
atexit.register(print, "registered first, runs last")
atexit.register(lambda: print("threads", threading.active_count(), end=""))
atexit.register(print, "registered last, runs first")
threading._register_atexit(print, "before atexit")
print("end of the program")
""", name="atexit runs in reverse, after the program, output flushed", status=0)
    same("-c", "import atexit, sys\natexit.register(print, 'after')\n"
         "atexit.register(lambda: 1 / 0)\natexit.register(print, 'before')\nsys.exit(3)",
         name="atexit: one raises, the others run, the status stays", status=3)
    same("-c", "import atexit, sys\natexit.register(lambda: sys.exit(9))\nprint(1)",
         name="atexit: sys.exit")
    same("-c", "import atexit\natexit.register(print, 'still')\n1 / 0",
         name="atexit after an uncaught exception", status=1)
    same("-c", "import atexit\natexit.register(lambda: atexit.register(print, 'nested'))",
         name="atexit registers another")
    same("-c", "import atexit, os\natexit.register(print, 'never')\nos._exit(2)",
         name="atexit not after os._exit", status=2)
    same("-c", "import atexit\nf = atexit.register(print, 'x')\natexit.unregister(f)\n"
         "atexit.register(print, 'a', end='')", name="atexit unregister", status=0)
    same("-c", "import weakref\nclass A: pass\na = A()\nf = weakref.finalize(a, print, 'gone')",
         name="weakref.finalize at the end", status=0)
    same("-c", "class A:\n  def __del__(s): print('deleted')\na = A()",
         name="__del__ of a global at the end", status=0)
    same("-c", "import sys\nclass A:\n  def __del__(s): print('deleted', file=sys.__stdout__)\n"
         "a = A(); a.me = a", name="__del__ in a cycle at the end")
    same("-c", "import logging\nlogging.basicConfig()\nlogging.warning('seen')\n"
         "from logging.handlers import MemoryHandler\n"
         "logging.getLogger().addHandler(MemoryHandler(9, target=logging.StreamHandler()))\n"
         "logging.error('buffered')", name="logging flushes at exit", status=0)
    same("-c", "f = open('/dev/stdout', 'w'); f.write('never closed')",
         name="an open file is flushed at the end", status=0)
    same("-c", "import tempfile, atexit, os\nd = tempfile.TemporaryDirectory()\n"
         "atexit.register(lambda: print(os.path.isdir(d.name)))\nd.cleanup()",
         name="a temporary directory")


@test
def unjoined_threads(tmp):
    same("-c", """
import threading, time
def work():
    time.sleep(0.2)
    print("done in", threading.current_thread().name, flush=False)
threading.Thread(target=work).start()
print("main is over")
""", name="a non-daemon thread is waited for", status=0)
    same("-c", """
import atexit, threading, time
def work():
    time.sleep(0.2)
    print("thread")
threading.Thread(target=work).start()
atexit.register(print, "atexit")
raise SystemExit(5)
""", name="also after SystemExit, and before atexit", status=5)
    result = subhost("run", "-c", """
import threading, time
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()
print("over")
""")
    ok((result.status, result.out) == (0, "over\n") and result.seconds < 10,
       "daemon threads, asleep or busy, are not waited for", result=result)
    result = subhost("run", "-c", """
import threading, time
def chatter():
    while True:
        print("x" * 100)
for _ in range(4):
    threading.Thread(target=chatter, daemon=True).start()
time.sleep(0.1)
""", stdout=-3)
    # python itself sometimes dies here, over the buffer's lock; what matters is an end.
    ok(result.status in (0, 134) and result.seconds < 10, "daemon threads that print at the end",
       result=result)
    same("-c", "import threading\ndef f(): raise SystemExit(3)\n"
         "t = threading.Thread(target=f); t.start(); t.join(); print('goes on')",
         name="SystemExit in a thread ends that thread only", status=0)
    same("-c", "import threading\ndef f(): 1 / 0\n"
         "t = threading.Thread(target=f, name='T'); t.start(); t.join(); print('goes on')",
         name="an exception in a thread", status=0)
    same("-c", "import threading\nthreading.excepthook = lambda a: print(a.exc_type)\n"
         "t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()",
         name="threading.excepthook", status=0)
    same("-c", "import _thread, time\n_thread.start_new_thread(lambda: 1 / 0, ())\n"
         "time.sleep(0.2)", name="an exception in a bare _thread", status=0)
    same("-c", """
import atexit, threading, sys
def late():
    try:
        threading.Thread(target=print).start()
    except RuntimeError as error:
        print(error)
atexit.register(late)
""", name="no new thread at shutdown")


SLOW = """
    import time
    class Slow:
        def __del__(self, open=open, clock=time.monotonic, sleep=time.sleep, print=print):
            print("ending", flush=True)
            end = clock() + {0}
            while clock() < end: sleep(0.01)
            with open("written", "w") as file: file.write("x")
    x = Slow()
"""


@test
def slow_finalizers(tmp):
    """They have the grace period, and when that was too short it is said."""
    written = tmp / "written"
    brief = script(tmp, SLOW.format(1), "brief.py")
    endless = script(tmp, SLOW.format(300), "endless.py")
    late = script(tmp, SLOW.format(300) + "    time.sleep(300)\n", "late.py")
    cut = "subhost: an interpreter could not be ended within the grace period and was abandoned"
    for workers in "1", "2":
        result = subhost("run", "--workers", workers, "--grace", "10s", brief, cwd=tmp)
        equal((result.status, result.err, written.exists()), (0, "", True),
              f"{workers}: what is finalized has its time", result=result)
        written.unlink(missing_ok=True)
    result = subhost("run", "--grace", "200ms", endless, cwd=tmp)
    equal((result.status, result.last), (0, cut), "that it was too short is said", result=result)
    for number, status in (signal.SIGINT, 130), (signal.SIGTERM, 143):
        with hosted("--grace", "200ms", endless, cwd=tmp) as it:
            it.wait_for("ending")
            it.signal(number)
            result = it.finish(15)
        equal((result.status, result.last), (status, cut), f"{number}: has the grace period",
              result=result)
        with hosted("--grace", "60s", endless, cwd=tmp) as it:
            it.wait_for("ending")
            it.signal(number)
            time.sleep(0.2)
            it.signal(number)
            result = it.finish(15)
        equal((result.status, result.err), (status, ""), f"{number}: the second is at once",
              result=result)
    with hosted("--grace", "60s", brief, cwd=tmp) as it:
        it.wait_for("ending")
        it.signal(signal.SIGTERM)
        result = it.finish(15)
    equal((result.status, result.err, written.exists()), (143, "", True),
          "what ends within the grace period ends", result=result)
    result = subhost("run", "--timeout", "200ms", "--grace", "200ms", late, cwd=tmp)
    equal((result.status, result.last), (124, cut), "after a deadline: the grace period",
          result=result)


@test
def cut_short(tmp):
    """A signal behind the last line: its work is not done, so its status is not 0."""
    waits = {
        "joined": "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n"
                  "print('ready', flush=True)",
        "in atexit": "import atexit, time\natexit.register(time.sleep, 60)\n"
                     "print('ready', flush=True)",
        "after sys.exit(3)": "import atexit, sys, time\natexit.register(time.sleep, 60)\n"
                             "print('ready', flush=True)\nsys.exit(3)",
    }
    for name, code in waits.items():
        for isolation in "interpreter", "process":
            with spawn([SUBHOST, "run", "--isolation", isolation, "-c", code]) as it:
                it.wait_for("ready")
                time.sleep(0.2)
                it.signal(signal.SIGTERM)
                result = it.finish(20)
            equal(result.status, 143, f"{isolation}: SIGTERM while a thread is {name}", result=result)
    for isolation in "interpreter", "process":
        for signo, status in (signal.SIGTERM, 143), (signal.SIGINT, 130):
            reading, writing = os.pipe()
            os.set_blocking(writing, False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(writing, bytes(1))
            os.set_blocking(writing, True)
            with spawn([SUBHOST, "run", "--isolation", isolation, "-c", "print('lost')"],
                       stdout=writing) as it:
                time.sleep(0.5)
                it.signal(signo)
                result = it.finish(20)
            ok(result.status == status and "ignored" not in result.err,
               f"{isolation}: {signo.name} while nobody reads what is flushed", result=result)
            os.close(reading), os.close(writing)


@test
def debris(tmp):
    """A program may leave anything behind; the end still comes, with its own status."""
    file = script(tmp, """
        import os, sys
        os.unlink(__file__)
        print("gone:", not os.path.exists(__file__))
        def f():
            raise ValueError("no source any more")
        f()
    """)
    text = file.read_text()
    result = subhost("run", file)
    equal((result.status, result.out, result.last),
          (1, "gone: True\n", "ValueError: no source any more"),
          "a program that deletes its own file", result=result)
    file.write_text(text)
    gone = tmp / "gone"
    gone.mkdir()
    same("-c", "import os, sys; os.rmdir(os.getcwd()); print('x'); sys.exit(3)", cwd=tmp,
         name="a program that cannot remove its folder", status=1)
    result = subhost("run", "-c", "import os; os.rmdir(os.getcwd()); print(1)", cwd=gone)
    equal((result.status, result.out), (0, "1\n"), "a program that deletes its cwd", result=result)
    same("-c", "import sys\nfor name in list(sys.modules):\n"
         "    if name != 'sys': del sys.modules[name]\nprint('x')",
         name="a program that clears sys.modules")
    same("-c", "import builtins\nbuiltins.__dict__.pop('print')\nraise ValueError(1)", status=1,
         name="a program that damages builtins")
    same("-c", "import sys; sys.stdout = None; sys.stdin = 5", name="sys.stdout None", status=0)
    same("-c", "import sys; del sys.stdout", name="sys.stdout deleted", status=0)
    same("-c", "import gc; gc.disable(); x = []; x.append(x)", name="garbage", status=0)
    same("-c", "import os, sys\nfor fd in range(3, 256):\n  try: os.close(fd)\n"
         "  except OSError: pass\nprint('still here', flush=True)\nsys.exit(4)",
         name="a program that closes every descriptor above 2", status=4)
    same("-c", "import os\nos.closerange(3, 4096)\nimport time; time.sleep(0.2)\n1 / 0",
         name="the same, then sleeps and raises", status=1)


@test
def files_left_open(tmp):
    """Text before what it goes to, whatever the order of the garbage is."""
    script(tmp, """
        log = open("imported", "w", encoding="utf-16")
        def function(): return log
        log.write("text")
    """, "imports.py")
    code = """
        import io, os, socket, sys
        binary, random = open("binary", "wb"), open("random", "w+b")
        binary.write(b"1"), random.write(b"22")
        descriptor = os.fdopen(os.open("descriptor", os.O_WRONLY | os.O_CREAT), "w")
        descriptor.write("333")
        full = open("/dev/full", "wb")
        class Log(io.TextIOWrapper): pass
        log = Log(open("log", "wb")); log.write("4444")
        import imports
        def function(): return binary, random, descriptor, log
    """
    lengths = {"binary": 1, "random": 2, "descriptor": 3, "log": 4, "imported": 10}
    script(tmp, code, "leaves.py")
    script(tmp, "import sys, subhost\ndef leave(): import leaves\nif __name__ == '__main__':\n"
                " with subhost.open_nursery() as nursery:\n"
                "  nursery.start(leave, isolation=sys.argv[1]).result()\n",
           "task.py")
    for isolation in "interpreter", "process":
        for args in (("--isolation", isolation, "leaves.py"), ("task.py", isolation)):
            result = subhost("run", *args, cwd=tmp)
            found = {name: (tmp / name).stat().st_size for name in lengths}
            equal((result.status, result.err, found), (0, "", lengths), f"{args}: all is written")
            for name in lengths:
                (tmp / name).unlink()
    same("-c", "import sys, io\nout = io.TextIOWrapper(sys.stdout.buffer)\n"
               "def function(): return out\nprint('first')\nout.write('second')",
         name="a second way to standard output", status=0)
    replaced = {
        "another": "print(1); sys.stdout = sys.stderr",
        "None": "print(1); sys.stdout = None",
        "deleted": "print(1); del sys.stdout",
        "redirected and not put back": "print(1); sys.stdout = io.StringIO()",
        "written to later": "out = sys.stdout; sys.stdout = None; out.write('1')",
        "a tee that does not flush": "class Tee:\n    def write(self, text): out.write(text)\n"
                                     "    def flush(self): pass\n"
                                     "out = sys.stdout; sys.stdout = Tee(); print(1)",
        "closed": "print(1); sys.stdout.close(); sys.stdout = sys.stderr",
        "a descriptor that is gone": "print(1); sys.stdout = sys.stderr; os.close(1)",
    }
    for name, code in replaced.items():
        args = "-c", "import io, os, sys\n" + code
        theirs = python(*args)
        for isolation in "interpreter", "process":
            mine = subhost("run", "--isolation", isolation, *args)
            equal((mine.out, mine.err, mine.status), (theirs.out, theirs.err, theirs.status),
                  f"{isolation}: standard output is {name}: as python")
    blocks = ("import os\nreading, writing = os.pipe()\nfile = os.fdopen(writing, 'wb', 1 << 20)\n"
              "file.write(bytes(1 << 19))\ndef function(): return file")
    for isolation in "interpreter", "process":
        result = subhost("run", "--isolation", isolation, "--timeout", "200ms", "--grace", "1s",
                         "-c", blocks)
        equal(result.status, 124, f"{isolation}: a file that blocks does not outlast a deadline",
              result=result)


main()
