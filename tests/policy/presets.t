#!/usr/bin/env python3
"""Each preset keeps what it promises at its top."""
import pathlib
import re
import sys
import time
import tomllib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import NATIVE, SOURCE, equal, main, ok, script, subhost, test

PROMISES = {}


def promises(function):
    PROMISES[function.__name__] = function
    return test(function)


def value(preset, key):
    group, name = key.split(".")
    return tomllib.loads(subhost("policy", "show", preset).out)[group][name]


def under(preset, folder, text, **kw):
    return subhost("run", "--policy", preset, script(folder, text), **kw)


COMMON = """
    import os, subhost, sys, threading, time
    def tried(function, *args, **more):
        try:
            return function(*args, **more)
        except BaseException as error:
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            return type(error).__name__
    def one(function, *args, **more):
        with subhost.open_nursery() as nursery:
            return nursery.start(function, *args, **more).result()
"""


@promises
def default(folder):
    """What happens when nobody asks for anything else."""
    shown = subhost("policy", "show", "default").out
    ok(all(line.endswith("# default") for line in shown.splitlines() if " = " in line
           and "version" not in line), "default: nothing but defaults", shown=shown)
    text = COMMON + """
    if __name__ == "__main__":
        print(os.system("true"), tried(one, int), tried(one, int, isolation="process"))
        threading.Thread(target=int, daemon=True).start()
    """
    equal(under("default", folder, text).out, "0 0 0\n", "default: all the usual things work")
    start = time.monotonic()
    result = subhost("run", "--policy", "default", "--timeout", "100ms", "-c",
                     "import time\nwhile 1:\n  try: time.sleep(9)\n  except BaseException: pass")
    ok(1.9 < time.monotonic() - start < 6 and result.status == 137,
       "default: two seconds to end", result=result)


@promises
def strict(folder):
    """No processes, no other programs, no threads that outlive it, own GIL, tight limits."""
    text = COMMON + f"""
    def load():
        sys.path.insert(0, {str(NATIVE)!r})
        import single_phase
    if __name__ == "__main__":
        import _interpreters, signal, subprocess
        print(tried(os.system, "true"), tried(subprocess.run, ["true"]))
        print(tried(one, int, isolation="process"), tried(os.fork))
        print(tried(threading.Thread(target=int, daemon=True).start))
        print(tried(threading.Thread(target=int).start))
        print(tried(one, load), tried(signal.signal, signal.SIGINT, signal.SIG_IGN))
        print(tried(_interpreters.create))
        print(sum(range(10)), tried(one, sum, [1, 2]))
    """
    equal(under("strict", folder, text).out,
          "PermissionError PermissionError\nPermissionError RuntimeError\nRuntimeError\nNone\n"
          "ImportError PermissionError\nInterpreterError\n45 3\n", "strict: work is done, and nothing else")
    for key in ("limits.timeout", "limits.interpreters", "limits.memory", "limits.cpu",
                "limits.open_files", "quarantine.limit"):
        ok(value("strict", key) not in (0, "0"), f"strict: {key} has a limit")
    keys = tomllib.loads((SOURCE / "policies/strict.toml").read_text())
    for group, names in keys.items():
        for name in names if isinstance(names, dict) else ():
            ok(value("strict", f"{group}.{name}") == names[name], f"strict: {group}.{name}")


@promises
def legacy(folder):
    """Every extension module loads, in tasks too; the GIL is shared."""
    text = COMMON + f"""
    def load():
        sys.path.insert(0, {str(NATIVE)!r})
        import single_phase
        return "loaded"
    if __name__ == "__main__":
        print(load(), tried(one, load), tried(one, load, isolation="process"))
    """
    equal(under("legacy", folder, text).out, "loaded loaded loaded\n",
          "legacy: a module that knows nothing of subinterpreters loads")
    equal(under("default", folder, text).status, 1, "legacy: under default it does not")


@promises
def actors(folder):
    """Trees of interpreters and processes; orphans are cancelled; no standard input."""
    text = COMMON + """
    def actor(depth):
        with subhost.open_nursery() as nursery:
            tasks = [nursery.start(actor, depth - 1, isolation=isolation)
                     for isolation in ("interpreter", "process") if depth]
        return 1 + sum(task.result() for task in tasks)
    def reads():
        return sys.stdin.read()
    if __name__ == "__main__":
        print(actor(2), repr(one(reads, isolation="process")))
    """
    equal(under("actors", folder, text, input="words", stdin=None, timeout=60).out, "7 ''\n",
          "actors: a tree of both kinds, and no standard input")
    equal((value("actors", "fork.orphan"), value("actors", "fork.mode"),
           value("actors", "quarantine.action")), ("cancel", "thread", "recycle"),
          "actors: orphans are cancelled, and the host asks to be replaced")
    start = time.monotonic()
    subhost("run", "--policy", "actors", "--timeout", "100ms", "-c",
            "import time\nwhile 1:\n  try: time.sleep(9)\n  except BaseException: pass")
    ok(time.monotonic() - start < 2.5, "actors: they come down fast")


@promises
def server(folder):
    """Interpreters are replaced; abandoned ones make the host ask for its replacement."""
    equal(value("server", "interpreter.reuse"), 1000, "server: interpreters are recycled")
    equal((value("server", "quarantine.limit"), value("server", "quarantine.action")),
          (4, "recycle"), "server: four abandoned ones, and the host asks to be replaced")
    text = COMMON + f"""
    sys.path.insert(0, {str(NATIVE)!r})
    import blocker
    def stuck():
        blocker.hold_gil(20)
    if __name__ == "__main__":
        for _ in range(2):
            print(tried(one, stuck, timeout=0.5), flush=True)
    """
    result = subhost("run", "--policy", "server", "--set", "quarantine.limit=2", "--grace", "50ms",
                     script(folder, text), timeout=60)
    ok("this process should be replaced" in result.err and result.out.count("RemoteError") == 2,
       "server: and it does ask", result=result)


@test
def each_is_tested(folder):
    names = {path.stem for path in (SOURCE / "policies").glob("*.toml")}
    equal(set(PROMISES), names, "every preset has its test")
    for name in names:
        text = (SOURCE / "policies" / f"{name}.toml").read_text()
        ok(re.match(r"# For [^:\n]+", text), f"{name}: says at its top whom it serves")
        ok(subhost("policy", "check", name).status == 0
           and subhost("policy", "check", SOURCE / "policies" / f"{name}.toml").status == 0,
           f"{name}: has no problem")


main()
