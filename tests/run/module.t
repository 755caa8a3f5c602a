#!/usr/bin/env python3
# timeout: 120
"""`import subhost` inside a hosted program: current(), Cancelled and its kin, and what a
hosted program may start: no fork, but every kind of child that begins with exec."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from signalling import INT, TERM, sent
from tap import PATIENCE, equal, main, ok, same, script, skip, subhost, test

START = "import subhost, sys, threading, time\n"


def prints(code, expected, name, *options, status=0, **kw):
    result = subhost("run", *options, "-c", START + code, **kw)
    equal((result.status, result.out), (status, expected), name, result=result)
    return result


@test
def current(tmp):
    result = subhost("run", "-c", START + """
task = subhost.current()
for name in ("name", "id", "isolation", "worker", "parent_id", "deadline"):
    value = getattr(task, name)
    print(name, type(value).__name__, value)
""")
    values = {line.split()[0]: line.split()[1:] for line in result.out.splitlines()}
    equal((result.status, sorted(values)),
          (0, ["deadline", "id", "isolation", "name", "parent_id", "worker"]), "the attributes",
          result=result)
    equal(values.get("isolation"), ["str", "interpreter"], "isolation", result=result)
    equal(values.get("name", [""])[0], "str", "a name", result=result)
    equal((values.get("id", [""])[0], values.get("worker", [""])[0]), ("int", "int"),
          "id and worker are numbers", result=result)
    equal(values.get("deadline"), ["NoneType", "None"], "no deadline", result=result)
    equal(values.get("parent_id"), ["NoneType", "None"], "no parent", result=result)
    prints("print(subhost.current().id == subhost.current().id, "
           "subhost.current().name == subhost.current().name)", "True True\n", "stable")
    prints("seen = []\nt = threading.Thread(target=lambda: seen.append(subhost.current().id))\n"
           "t.start(); t.join(); print(seen == [subhost.current().id])", "True\n",
           "the same task on every thread")
    prints("try: subhost.current().id = 5\nexcept AttributeError: print('read-only')",
           "read-only\n", "read-only")
    prints("print(subhost.current().deadline is not None)", "True\n",
           "with --timeout there is a deadline", "--timeout", "10")


@test
def the_module(tmp):
    prints("import importlib\nfirst = subhost\nimportlib.reload(subhost)\nimport subhost as again\n"
           "print(again is first, subhost.current().id is not None)", "True True\n", "reloaded")
    prints("del sys.modules['subhost']\nimport subhost as again\n"
           "print(again.current().id == subhost.current().id)", "True\n", "imported twice")
    prints("print(subhost.Cancelled.__mro__.index(BaseException) > 0, "
           "issubclass(subhost.Cancelled, Exception), subhost.Cancelled.__module__)",
           "True False subhost\n", "Cancelled is a BaseException, no Exception")
    prints("print(subhost.cancel_requested(), subhost.checkpoint())", "False None\n",
           "nothing is due")
    prints("for name in ('current', 'Cancelled', 'cancel_requested', 'checkpoint', 'on_cancel', "
           "'shield'):\n    print(bool(getattr(subhost, name).__doc__))", "True\n" * 6,
           "everything has a docstring")
    result = prints("subhost.cancel_requested(1)", "", "arguments are checked", status=1)
    ok("TypeError" in result.last, "with a TypeError", result=result)
    result = prints("try: subhost.on_cancel(5)\nexcept TypeError: print('TypeError')",
                    "TypeError\n", "on_cancel wants a callable")
    same("-c", "print(type(__import__('collections')))", name="other modules are not touched")


@test
def cancelled(tmp):
    prints("try:\n    while True: subhost.checkpoint()\n"
           "except subhost.Cancelled as error:\n"
           "    print(type(error).__name__, isinstance(error.reason, str), bool(error.reason),\n"
           "          subhost.cancel_requested())\n    raise",
           "Cancelled True True True\n", "checkpoint() raises, with a reason",
           "--timeout", "500ms", status=124)
    result = subhost("run", "--timeout", "500ms", "-c", START +
                     "try:\n    while not subhost.cancel_requested(): time.sleep(0.01)\n"
                     "except subhost.Cancelled: print('raised')\nelse: print('seen')")
    ok(result.out in ("raised\n", "seen\n") and result.seconds < 0.5 + 2 * PATIENCE,
       "a loop over cancel_requested() ends", result=result)
    prints("try:\n    time.sleep(60)\nexcept subhost.Cancelled: pass\n"
           "try:\n    subhost.checkpoint()\nexcept subhost.Cancelled: print('still due')\n",
           "still due\n", "a swallowed cancel stays due at checkpoints", "--timeout", "500ms",
           "--grace", "2s", status=124)
    result = sent("import subhost\ntry:\n    ready(); time.sleep(60)\n"
                  "except subhost.Cancelled as e:\n"
                  "    print(isinstance(e, KeyboardInterrupt), bool(e.reason)); raise", INT)
    ok(result.out == "ready\nTrue True\n" and result.status == 130,
       "for SIGINT it is Cancelled and KeyboardInterrupt in one", result=result)
    result = sent("import subhost\ntry:\n    ready(); time.sleep(60)\n"
                  "except subhost.Cancelled as e:\n"
                  "    print(isinstance(e, KeyboardInterrupt), bool(e.reason)); raise", TERM)
    ok(result.out == "ready\nFalse True\n" and result.status == 143,
       "for SIGTERM it is Cancelled alone", result=result)


def has(name):
    return subhost("run", "-c", f"import subhost; subhost.{name}").status == 0


@test
def on_cancel(tmp):
    if not has("on_cancel"):
        skip("on_cancel", "subhost.on_cancel is not there yet")
        return
    prints("""
subhost.on_cancel(lambda *a: print("first", subhost.cancel_requested()))
gone = subhost.on_cancel(lambda *a: print("never"))
gone.remove()
with subhost.on_cancel(lambda *a: print("never")):
    pass
with subhost.on_cancel(lambda *a: print("within")):
    try:
        time.sleep(60)
    except BaseException as error:
        print(type(error).__name__)
        raise
""", "first True\nwithin\nCancelled\n", "callbacks come before the exception, in order",
           "--timeout", "500ms", status=124)
    prints("event = threading.Event()\nsubhost.on_cancel(lambda *a: event.set())\n"
           "with subhost.shield():\n    event.wait(); print('woken')", "woken\n",
           "a callback can wake a shielded wait", "--timeout", "500ms", status=124)
    result = subhost("run", "--timeout", "500ms", "-c", START +
                     "def bad(*a): 1 / 0\nsubhost.on_cancel(bad)\n"
                     "subhost.on_cancel(lambda *a: print('still called'))\ntime.sleep(60)")
    ok(result.status == 124 and "still called" in result.out and "ZeroDivisionError" in result.err,
       "a callback that raises is reported, the next one runs", result=result)


@test
def shield(tmp):
    if not has("shield"):
        skip("shield", "subhost.shield is not there yet")
        return
    prints("try:\n    with subhost.shield():\n        time.sleep(1)\n        print('whole')\n"
           "    print('too far')\nfinally: print('finally')", "whole\nfinally\n",
           "delivery waits for the end of the shield", "--timeout", "500ms", status=124)
    prints("with subhost.shield():\n    with subhost.shield(): pass\n"
           "    time.sleep(1)\n    print('outer holds')\ntime.sleep(60)", "outer holds\n",
           "shields nest", "--timeout", "500ms", status=124)
    result = subhost("run", "--timeout", "500ms", "--grace", "300ms", "-c", START +
                     "with subhost.shield():\n    time.sleep(60)\nprint('wrong')")
    ok(result.status in (124, 137) and "wrong" not in result.out
       and 0.75 <= result.seconds < 0.8 + 2 * PATIENCE,
       "but at most for the grace period", result=result)


@test
def no_fork(tmp):
    for name in ("fork", "forkpty"):
        result = subhost("run", "-c", f"""
import os
try:
    pid = os.{name}()
except RuntimeError as error:
    print(error)
else:
    print("forked", flush=True)
    os._exit(3)
""")
        ok(result.status == 0 and "forked" not in result.out and name in result.out
           and ("subhost" in result.out or "subprocess" in result.out),
           f"os.{name}: RuntimeError that says what to call instead", result=result)
    result = subhost("run", "-c", "import os\nos.fork()")
    ok(result.status == 1 and result.last.startswith("RuntimeError: "), "uncaught: status 1",
       result=result)
    result = subhost("run", "-c", "import subprocess\ntry:\n"
                     "    subprocess.run(['true'], preexec_fn=print)\n"
                     "except RuntimeError as e: print('RuntimeError')")
    equal(result.out, "RuntimeError\n", "preexec_fn", result=result)
    result = subhost("run", "--gil", "shared", "-c", "import os\nos.fork()")
    ok(result.status == 1 and result.last.startswith("RuntimeError: "), "also with --gil shared",
       result=result)
    file = script(tmp, """
        import multiprocessing, sys
        def work(): pass
        if __name__ == "__main__":
            p = multiprocessing.get_context("fork").Process(target=work)
            try:
                p.start()
            except RuntimeError:
                print("RuntimeError")
    """)
    result = subhost("run", file)
    equal((result.status, result.out), (0, "RuntimeError\n"), "multiprocessing with fork",
          result=result)


@test
def children(tmp):
    same("-c", """
import os, subprocess, sys
print(subprocess.run(["echo", "hello"], capture_output=True))
print(subprocess.check_output("cat", input=b"through", shell=True))
print(subprocess.run([sys.executable, "-c", "import sys; sys.exit(4)"]).returncode)
print(os.system("exit 3"))
pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 5"], {})
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(os.popen("echo popen").read())
try:
    subprocess.run(["no_such_program_here"])
except FileNotFoundError as error:
    print(error)
p = subprocess.Popen(["cat"], stdin=-1, stdout=-1, text=True)
print(p.communicate("x" * 200000)[0] == "x" * 200000)
try:
    subprocess.run(["sleep", "30"], timeout=0.2)
except subprocess.TimeoutExpired as error:
    print(error.cmd)
print(subprocess.run(["sh", "-c", "kill -9 $$"]).returncode)
""", name="subprocess, os.system, os.posix_spawn, os.popen", status=0)
    same("-c", "import os, sys; print('before', flush=True); "
         "os.execv(sys.executable, [sys.executable, '-c', 'print(1)'])", name="os.execv", status=0)


POOL = """
    import concurrent.futures, multiprocessing, os, sys

    def square(x):
        return x * x

    def say(queue, x):
        queue.put((x, multiprocessing.current_process().name[:8]))

    if __name__ == "__main__":
        context = multiprocessing.get_context(sys.argv[1])
        with context.Pool(2) as pool:
            print(pool.map(square, range(10)), flush=True)
            try:
                pool.apply(divmod, (1, 0))
            except ZeroDivisionError as error:
                print(error)
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            print(list(pool.map(square, range(5))))
        queue = context.Queue()
        p = context.Process(target=say, args=(queue, 5))
        p.start(); print(queue.get(timeout=20)[0]); p.join()
        print(p.exitcode)
        p = context.Process(target=sys.exit, args=(7,))
        p.start(); p.join(); print(p.exitcode)
        from multiprocessing import shared_memory
        memory = shared_memory.SharedMemory(create=True, size=100)
        memory.buf[0] = 7; memory.close(); memory.unlink()
        print("end")
"""


@test
def multiprocessing(tmp):
    file = script(tmp, POOL)
    for method in ("spawn", "forkserver"):
        same(file, method, timeout=50, status=0,
             name=f"multiprocessing {method}: Pool, Process, Queue, shared memory")
    same("-m", "program", "spawn", cwd=tmp, timeout=50, status=0,
         name="multiprocessing spawn with -m")


main()
