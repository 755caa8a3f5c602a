#!/usr/bin/env python3
"""Each key of a policy: that its effect is seen from outside, that its opposite is, and one
value that it refuses. A key without a test is a failure, and so is a test that has not run
programs with two values of its key, or with one and without it."""
import json
import os
import pathlib
import re
import signal
import sys
import time
import tomllib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import tap
from nurseries import TASKS
from tap import BUILD, NATIVE, SOURCE, equal, main, ok, run, script, test

KEYS = {}  # key: (the function that tests it, a bad value)
RUNS = []  # of the test that runs: {key: value} of each program's --set


def noted(function):
    def call(*args, **kw):
        RUNS.append(dict(str(value).split("=", 1) for word, value in zip(args, args[1:])
                         if word == "--set"))
        return function(*args, **kw)
    return call


subhost, hosted = noted(tap.subhost), noted(tap.hosted)


def key(name, bad, unit=None):
    """Marks the test of a key. `bad`: a value of it that is refused. `unit`: the program in C
    that sets it."""
    def keep(function):
        def tested(folder):
            RUNS.clear()
            function(folder)
            values = {sets.get(name) for sets in RUNS}
            if unit:
                text = (SOURCE / "tests/unit" / f"{unit}.c").read_text()
                values |= {name, "another"} if f'"{name}=' in text else set()
            ok(len(values) > 1, f"{name}: programs ran with different values", values=values)
        tested.__name__ = function.__name__
        assert name not in KEYS, f"{name} has two tests"
        KEYS[name] = tested, bad
        return test(tested)
    return keep


def seen(folder, text, *options, **kw):
    """What a program prints under `--set OPTION`..., errors in front."""
    path = script(folder, text)
    sets = [word for option in options for word in ("--set", option)]
    result = subhost("run", *sets, path, **kw)
    return (result.err + result.out).strip()


def in_process(folder, body, *options, **kw):
    """What body() returns in a forked child, as its repr."""
    lines = TASKS + f"""
    def body():
        {body}
    if __name__ == "__main__":
        print(tried(one, body, isolation="process"))
    """
    return seen(folder, lines, *options, **kw)


# ---- interpreter ------------------------------------------------------------------------

SINGLE_PHASE = f"""
    import sys
    sys.path.insert(0, {str(NATIVE)!r})
    try:
        import single_phase
        print("loaded")
    except ImportError as error:
        print("refused")
"""


# What CPython itself says of an interpreter.
CONFIG = """
    import _interpreters
    config = _interpreters.get_config(_interpreters.get_current()[0])
    print(config.gil, config.use_main_obmalloc)
"""


@key("interpreter.gil", "our")
def interpreter_gil(folder):
    equal(seen(folder, CONFIG, "interpreter.gil=own"), "own False", "own: CPython says so")
    equal(seen(folder, CONFIG, "interpreter.gil=shared"), "shared True", "shared: CPython says so")
    equal(seen(folder, SINGLE_PHASE, "interpreter.gil=own"), "refused", "own: modules are checked")
    equal(seen(folder, SINGLE_PHASE, "interpreter.gil=shared"), "loaded", "shared: they are not")
    nested = TASKS + f"""
    def load():
        sys.path.insert(0, {str(NATIVE)!r})
        import single_phase
        return "loaded"
    if __name__ == "__main__":
        with subhost.open_nursery() as nursery:
            print(nursery.start(load).result())
    """
    equal(seen(folder, nested, "interpreter.gil=shared"), "loaded", "tasks have it, too")


@key("interpreter.obmalloc", "mine")
def interpreter_obmalloc(folder):
    for value, wanted in (("own", "shared False"), ("main", "shared True"), ("auto", "shared True")):
        equal(seen(folder, CONFIG, "interpreter.gil=shared", f"interpreter.obmalloc={value}"),
              wanted, f"{value}: CPython says so")
    equal(seen(folder, SINGLE_PHASE, "interpreter.gil=shared", "interpreter.obmalloc=own"),
          "refused", "own: modules are checked even with the shared GIL")
    equal(seen(folder, SINGLE_PHASE, "interpreter.gil=shared", "interpreter.obmalloc=main"),
          "loaded", "main: they are not")
    result = subhost("run", "--set", "interpreter.obmalloc=main", "-c", "pass")
    equal((result.status, result.err),
          (125, "subhost: run: --set: interpreter.obmalloc: the main interpreter's allocator "
                "cannot be used with a GIL of its own (interpreter.gil = \"own\")\n"),
          "main and a GIL of its own cannot be")


@key("interpreter.reuse", "often", unit="test_policy")
def interpreter_reuse(folder):
    result = run([BUILD / "tests/unit/test_policy"], env={"UNIT_FILTER": "test_reuse"}, timeout=60)
    ok(result.status == 0 and "OK ] test_reuse" in result.out + result.err,
       "an interpreter is replaced after so many tasks, and with 0 never (unit/test_policy.c)",
       result=result)


@key("interpreter.site", "maybe")
def interpreter_site(folder):
    text = "import sys; print('site' in sys.modules, sys.flags.no_site)"
    equal(seen(folder, text, "interpreter.site=true"), "True 0", "true: site was imported")
    equal(seen(folder, text, "interpreter.site=false"), "False 1", "false: as python -S")
    tasks = TASKS + """
    def look():
        import builtins
        return "site" in sys.modules, sys.flags.no_site, hasattr(builtins, "exit")
    if __name__ == "__main__":
        for isolation in ("interpreter", "process"):
            for site in (True, False):
                print(*one(look, isolation=isolation, policy={"interpreter.site": site}))
    """
    for of_host in ("true", "false"):
        equal(seen(folder, tasks, f"interpreter.site={of_host}").splitlines(),
              ["True 0 True", "False 1 False"] * 2,
              f"for a task, in a process too, where the host has {of_host}")


@key("interpreter.create", "nested")
def interpreter_create(folder):
    text = TASKS + """
    import _interpreters
    if __name__ == "__main__":
        made = tried(_interpreters.create)
        print(made if isinstance(made, str) else tried(_interpreters.destroy, made), one(int))
    """
    equal(seen(folder, text, "interpreter.create=true"), "None 0", "true: a program makes one")
    found = seen(folder, text, "interpreter.create=false")
    ok("InterpreterError: " in found and "(interpreter.create = false, from --set)" in found
       and found.endswith(" 0"), "false: it does not; a nursery's are the host's", found=found)


@key("interpreter.preload", "x" * 5000)
def interpreter_preload(folder):
    text = "import sys; print('wave' in sys.modules, 'colorsys' in sys.modules)"
    equal(seen(folder, text, "interpreter.preload=colorsys,wave"), "True True", "imported before")
    equal(seen(folder, text), "False False", "not imported without")
    equal(in_process(folder, "return 'colorsys' in sys.modules", "interpreter.preload=colorsys"),
          "True", "in the image of processes, too")
    ok("nonesuch" in seen(folder, text, "interpreter.preload=nonesuch"), "a missing one is named")
    script(folder, """
        import asyncio, logging, threading
        lock = threading.Condition()
        def look():
            thread = threading.Thread(target=logging.warning, args=("from a thread",))
            thread.start()
            thread.join()
            logging.warning("from main")
            with lock:
                lock.notify()
            assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
            assert threading.current_thread() is threading.main_thread()
            assert threading.main_thread().ident == threading.get_ident()
            async def loop():
                return await asyncio.to_thread(lambda: "right")
            print(asyncio.run(loop()))
    """, "state.py")
    for preload in ("state", "threading"):
        result = subhost("run", "--set", f"interpreter.preload={preload}", "--isolation", "process",
                         "-c", "import state; state.look()", env={"PYTHONPATH": str(folder)})
        equal((result.out, result.err),
              ("right\n", "WARNING:root:from a thread\nWARNING:root:from main\n"),
              f"{preload}: a process has the threads, locks and loops of a fresh one")
    tasks = TASKS + """
    def look():
        return "colorsys" in sys.modules
    if __name__ == "__main__":
        for isolation in ("interpreter", "process"):
            print(one(look, isolation=isolation, policy={"interpreter.preload": ["colorsys"]}),
                  one(look, isolation=isolation))
    """
    equal(seen(folder, tasks).splitlines(), ["True False"] * 2, "for one task, in a process too")


# ---- cancel -----------------------------------------------------------------------------

STUBBORN = """
    import time
    while True:
        try:
            time.sleep(5)
        except BaseException as error:
            print(type(error).__name__, flush=True)
"""


@key("cancel.grace", "long")
def cancel_grace(folder):
    for grace, least, most in (("200ms", 0.3, 1.4), ("1500ms", 1.6, 5)):
        start = time.monotonic()
        seen(folder, STUBBORN, f"cancel.grace={grace}", "limits.timeout=100ms")
        took = time.monotonic() - start
        ok(least <= took <= most, f"{grace}: what ignores its cancel is abandoned after that",
           took=took)


@key("cancel.rungs", "0")
def cancel_rungs(folder):
    text = STUBBORN.replace("import time", """import subhost, time
    subhost.on_cancel(lambda: print("asked", flush=True))""")
    found = {rungs: seen(folder, text, f"cancel.rungs={rungs}", "cancel.grace=600ms",
                         "limits.timeout=300ms") for rungs in (1, 2, 3)}
    counts = {rungs: (text.count("asked"), text.count("Cancelled")) for rungs, text in found.items()}
    equal(counts[1], (1, 0), "1: asked, and nothing raised", found=found)
    equal(counts[2], (1, 1), "2: raised once", found=found)
    ok(counts[3][0] == 1 and counts[3][1] > 1, "3: raised again", found=found)


@key("cancel.interruptible_calls", "1")
def cancel_interruptible_calls(folder):
    text = "import time; time.sleep(1.2)"
    for value, status, least, most in (("true", 124, 0, 1.1), ("false", 124, 1.1, 20)):
        start = time.monotonic()
        result = subhost("run", "--set", f"cancel.interruptible_calls={value}", "--timeout",
                         "100ms", "--grace", "5s", "-c", text)
        took = time.monotonic() - start
        # From 3.15 on CPython ends such a wait by itself.
        free = value == "false" and sys.version_info >= (3, 15)
        ok(result.status == status and (least <= took <= most or free),
           f"{value}: a sleep is {'' if value == 'true' else 'not '}cut short", took=took,
           result=result)


# ---- fork -------------------------------------------------------------------------------


@key("fork.mode", "vfork")
def fork_mode(folder):
    equal(in_process(folder, "return 7", "fork.mode=thread"), "7", "thread: processes are forked")
    found = in_process(folder, "return 7", "fork.mode=deny")
    ok("PermissionError: the task could not be started: isolation \"process\": the policy "
       "'default' forbids it (fork.mode = deny, from --set)" in found, "deny: they are refused",
       found=found)
    result = subhost("run", "--set", "fork.mode=deny", "--isolation", "process", "-c", "pass")
    ok(result.status == 125 and "fork.mode = deny" in result.err, "deny: at the top, too",
       result=result)


@key("fork.orphan", "adopt")
def fork_orphan(folder):
    for value, tidied, ended in (("cancel", True, False), ("kill", False, False),
                                 ("detach", False, True)):
        mark = folder / value
        mark.mkdir()
        program = script(folder, f"""
            import os, signal, subhost, time
            def body():
                open({str(mark / 'pid')!r}, "w").write(str(os.getpid()))
                try:
                    time.sleep(1.5)
                    open({str(mark / 'ended')!r}, "w")
                except BaseException:
                    open({str(mark / 'tidied')!r}, "w")
                    raise
            if __name__ == "__main__":
                with subhost.open_nursery() as nursery:
                    nursery.start(body, isolation="process")
                    while not os.path.exists({str(mark / 'pid')!r}):
                        time.sleep(0.01)
                    time.sleep(0.2)
                    os.kill(os.getpid(), signal.SIGKILL)
        """)
        subhost("run", "--set", f"fork.orphan={value}", program)
        pid, deadline = int((mark / "pid").read_text()), time.monotonic() + 20
        while os.path.exists(f"/proc/{pid}/exe") and time.monotonic() < deadline:
            time.sleep(0.02)
        equal(((mark / "tidied").exists(), (mark / "ended").exists()), (tidied, ended),
              f"{value}: {'its task is cancelled' if tidied else 'it ends' if ended else 'at once'}")


@key("fork.siblings", "no")
def fork_siblings(folder):
    equal(in_process(folder, "return 7", "fork.siblings=true"), "7", "true: beside its parent")
    found = in_process(folder, "return 7", "fork.siblings=false")
    ok("a fork while other interpreters are alive would kill the child" in found,
       "false: not while another interpreter is alive", found=found)


@key("fork.pass", "home")
def fork_pass(folder):
    body = "return len(os.environ) > 0, os.getcwd() != '/', sys.stdin.read()"
    env = {"LANG": "C.UTF-8"}
    for value, wanted in (("cwd,environ,stdin", (True, True, "words")), ("", (False, False, "")),
                          ("cwd", (False, True, "")), ("environ", (True, False, "")),
                          ("stdin", (False, False, "words"))):
        found = in_process(folder, body, f"fork.pass={value}", input="words", stdin=None,
                           cwd=folder, env=env)
        equal(found, repr(wanted), f"'{value}' and nothing else")
    file = script(folder, """
        import os, subhost, subprocess
        def shell():
            return subprocess.run(["sh", "-c", "echo ${TOKEN-unset}"], capture_output=True,
                                  text=True).stdout.strip()
        if __name__ == "__main__":
            with subhost.open_nursery() as nursery:
                nursery.start(abs, -1, isolation="process").result()
                os.environ["TOKEN"] = "later"
                for value in ("cwd,environ", "cwd"):
                    print(nursery.start(shell, isolation="process",
                                        policy={"fork.pass": value}).result())
    """)
    result = subhost("run", file)
    equal(result.out, "later\nunset\n", "what was set later, in C's environment", result=result)


# ---- exec and threads -------------------------------------------------------------------

EXEC = TASKS + """
    import _posixsubprocess, multiprocessing, subprocess
    if __name__ == "__main__":
        ways = {
            "subprocess": lambda: subprocess.run(["true"]).returncode,
            "os.system": lambda: os.system("true"),
            "os.posix_spawn": lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1],
            "os.spawnv": lambda: "RuntimeError" in tried(os.spawnv, os.P_WAIT, "/bin/true", ["true"]),
            "os.execv": lambda: os.execv("/nonexistent", ["x"]),
            "multiprocessing": lambda: multiprocessing.get_context("spawn").Process(
                target=print).start(),
        }
        for name, way in ways.items():
            print(name, tried(way), flush=True)
"""


@key("exec.allow", "no")
def exec_allow(folder):
    allowed = seen(folder, EXEC, "exec.allow=true")
    ok("subprocess 0" in allowed and "os.system 0" in allowed and "os.posix_spawn 0" in allowed
       and "exec.allow" not in allowed and "FileNotFoundError" in allowed,
       "true: other programs run", allowed=allowed)
    refused = seen(folder, EXEC, "exec.allow=false").splitlines()
    for line in refused:
        name = line.split()[0]
        if name == "os.spawnv":
            equal(line, "os.spawnv True", "os.spawnv: forks, and is refused in any case")
            continue
        ok("PermissionError" in line and "the policy 'default' forbids it (exec.allow = false, "
           "from --set)" in line, f"false: {name} is refused", line=line)
    equal(len(refused), 6, "each way was tried", refused=refused)
    trail = folder / "trail"
    seen(folder, EXEC, "exec.allow=false", f"audit.trail={trail}")
    events = [json.loads(line) for line in trail.read_text().splitlines()]
    ok(any(event["event"] == "policy-refused" and "exec.allow" in event["why"]
           for event in events), "the trail has it")
    found = in_process(folder, "return tried(os.system, 'true')", "exec.allow=false")
    ok("exec.allow = false" in found, "in a process, too", found=found)


THREADS = TASKS + """
    import _thread, threading
    from concurrent.futures import ThreadPoolExecutor
    if __name__ == "__main__":
        print("thread", tried(lambda: threading.Thread(target=int).start()))
        print("pool", tried(lambda: ThreadPoolExecutor(1).submit(int).result()))
        print("daemon", tried(lambda: threading.Thread(target=int, daemon=True).start()))
        print("bare", tried(lambda: _thread.start_new_thread(int, ()) and None))
"""


@key("threads.allow", "2")
def threads_allow(folder):
    equal(seen(folder, THREADS, "threads.allow=true"), "thread None\npool 0\ndaemon None\nbare None",
          "true: threads run")
    refused = seen(folder, THREADS, "threads.allow=false")
    equal(refused.count("RuntimeError: "), 4, "false: none is started", refused=refused)
    ok("(threads.allow = false, from --set)" in refused, "false: and says why", refused=refused)


@key("threads.daemon", "yes")
def threads_daemon(folder):
    refused = seen(folder, THREADS, "threads.daemon=false").splitlines()
    equal(refused[:2], ["thread None", "pool 0"], "false: threads that are waited for run")
    for line in refused[2:]:
        ok("RuntimeError: a daemon thread: the policy" in line and "threads.daemon = false" in line,
           f"false: {line.split()[0]} is refused", line=line)
    ok("daemon None" in seen(folder, THREADS, "threads.daemon=true"), "true: daemon threads run")


# ---- imports ----------------------------------------------------------------------------


@key("imports.unsupported", "load")
def imports_unsupported(folder):
    found = seen(folder, SINGLE_PHASE.replace("except ImportError", "except ZeroDivisionError"),
                 "imports.unsupported=refuse")
    ok("does not support loading in subinterpreters" in found and "loaded" not in found,
       "refuse: an ImportError", found=found)
    trail = folder / "trail"
    text = TASKS + f"""
    def load(word):
        sys.path.insert(0, {str(NATIVE)!r})
        import single_phase
        return word
    if __name__ == "__main__":
        print("begun")
        with subhost.open_nursery() as nursery:
            tasks = [nursery.start(load, word) for word in ("one", "two")]
        print(*[task.result() for task in tasks])
        load("three")
        print("loaded", subhost.current().name)
    """
    equal(seen(folder, text, "imports.unsupported=shared", f"audit.trail={trail}",
               "limits.timeout=80s", timeout=90).splitlines(),
          ["begun", "one two"] * 2 + ["loaded program.py"],
          "shared: tasks begin anew, and then the program")
    events = [json.loads(line)["event"] for line in trail.read_text().splitlines()]
    equal(events.count("begun-anew"), 5, "shared: and the trail says so")
    ok("refused" in seen(folder, SINGLE_PHASE, "imports.unsupported=shared"),
       "shared: a program that catches the ImportError goes its own way")
    found = seen(folder, text, "imports.unsupported=shared", "interpreter.obmalloc=own")
    ok("does not support loading" in found, "shared: it begins anew once", found=found)


UNSUPPORTED = TASKS + f"""
    def load(word):
        sys.path.insert(0, {str(NATIVE)!r})
        import single_phase
        return word, os.environ["HERE"], os.getcwd(), subhost.current().isolation
    if __name__ == "__main__":
        print("begun", flush=True)
        os.environ["HERE"] = "there"
        print(tried(one, load, "a task"), flush=True)
        print(load("the program"))
"""


@test
def imports_unsupported_process(folder):
    """A task, and then the program, begin anew in processes, as they would have gone on."""
    trail = folder / "trail"
    lines = seen(folder, UNSUPPORTED, "imports.unsupported=process", f"audit.trail={trail}",
                 "limits.timeout=80s", cwd=folder, timeout=90).splitlines()
    task = repr(("a task", "there", str(folder), "process"))
    equal(lines, ["begun", task] * 2 + [repr(("the program", "there", str(folder), "process"))],
          "process: a task begins anew, and then the program")
    anew = [json.loads(line) for line in trail.read_text().splitlines() if '"begun-anew"' in line]
    equal([event["isolation"] for event in anew], ["process"] * 3, "process: the trail says so")
    code = (f"import sys; sys.path.insert(0, {str(NATIVE)!r}); import single_phase\n"
            "print('up', flush=True); import time; time.sleep(20)")
    process = hosted("--set", "imports.unsupported=process", "-c", code)
    process.wait_for("up")
    process.signal(signal.SIGINT)
    equal(process.finish().status, 130, "process: what runs there is cancelled as ever")
    found = seen(folder, UNSUPPORTED, "imports.unsupported=process", "fork.mode=deny")
    ok(found.count("begun") == 1 and "does not support loading" in found,
       "process: not where processes are refused", found=found)


@test
def imports_unsupported_warn(folder):
    trail = folder / "trail"
    found = seen(folder, SINGLE_PHASE, "imports.unsupported=warn", f"audit.trail={trail}")
    ok("loaded" in found and f"{folder / 'program.py'}:4: RuntimeWarning: the extension module "
       "'single_phase' does not support a GIL of its own" in found,
       "warn: it is loaded, and a warning says what that means, and where", found=found)
    ok('"import-warned", "name": "single_phase"' in trail.read_text(), "warn: so does the trail")
    found = seen(folder, UNSUPPORTED, "imports.unsupported=warn")
    ok(found.count("RuntimeWarning") == 2 and "'a task'" in found and "'interpreter'" in found,
       "warn: in tasks, too", found=found)
    override = f"""
        import importlib.util, sys
        sys.path.insert(0, {str(NATIVE)!r})
        with importlib.util._incompatible_extension_module_restrictions(disable_check=True):
            import single_phase
        print("loaded")
    """
    found = seen(folder, override, "imports.unsupported=shared")
    ok("RuntimeError: the check of extension modules stays on" in found and "loaded" not in
       found.splitlines(), "else a program cannot turn the check off", found=found)
    found = seen(folder, override, "imports.unsupported=warn")
    ok("loaded" in found.splitlines(), "warn: it can", found=found)


# ---- signals ----------------------------------------------------------------------------


@key("signals.take", "all")
def signals_take(folder):
    text = script(folder, """
        import time
        try:
            print("up", flush=True)
            time.sleep(20)
        except KeyboardInterrupt:
            print("cancelled")
    """)
    for value, out, status in (("true", "up\ncancelled\n", 0), ("false", "up\n", 130)):
        for isolation in ("interpreter", "process"):
            process = hosted("--set", f"signals.take={value}", "--isolation", isolation, text)
            process.wait_for("up")
            process.signal(signal.SIGINT)
            result = process.finish()
            equal((result.out, result.status), (out, status), f"{value}: SIGINT "
                  f"{'cancels' if value == 'true' else 'ends the process'}, {isolation}",
                  result=result)


@key("signals.handlers", "none")
def signals_handlers(folder):
    text = TASKS + """
    import signal
    print(tried(signal.signal, signal.SIGUSR2, print))
    print(tried(signal.signal, signal.SIGINT, signal.SIG_IGN))
    import asyncio
    print(tried(asyncio.run, asyncio.sleep(0, "loop")))
    """
    allowed = seen(folder, text, "signals.handlers=true").splitlines()
    ok(allowed[0] == "0" and "default_int_handler" in allowed[1] and allowed[2] == "loop",
       "true: handlers are set", allowed=allowed)
    refused = seen(folder, text, "signals.handlers=false").splitlines()
    for line in refused[:2]:
        ok("PermissionError: signal.signal(): the policy" in line
           and "signals.handlers = false" in line, "false: refused", line=line)
    equal(refused[2], "loop", "false: asyncio.run() works all the same")


@key("signals.stacks", "1")
def signals_stacks(folder):
    for value in ("true", "false"):
        process = hosted("--set", f"signals.stacks={value}", "-c",
                         "import time; print('up', flush=True); time.sleep(1.5)")
        process.wait_for("up")
        process.signal(signal.SIGUSR1)
        result = process.finish()
        if value == "true":
            ok(result.status == 0 and "<string>" in result.err, "true: SIGUSR1 prints the stacks",
               result=result)
        else:
            equal((result.status, result.err), (128 + signal.SIGUSR1, ""), "false: as under python")


# ---- output -----------------------------------------------------------------------------


@key("output.capture", "lines")
def output_capture(folder):
    text = "print('word')"
    found = seen(folder, text, "output.capture=true")
    ok(found != "word" and found.endswith("word") and "program.py" in found,
       "true: lines have the task's name", found=found)
    equal(seen(folder, text, "output.capture=false"), "word", "false: output goes where it went")


# ---- limits -----------------------------------------------------------------------------


@key("limits.timeout", "-1")
def limits_timeout(folder):
    result = subhost("run", "--set", "limits.timeout=100ms", "-c", "import time; time.sleep(20)")
    equal(result.status, 124, "its time is up")
    result = subhost("run", "--set", "limits.timeout=0", "-c", "import time; time.sleep(0.3)")
    equal(result.status, 0, "0: no limit")


INTERPRETERS = TASKS + """
    if __name__ == "__main__":
        with subhost.open_nursery() as nursery:
            for isolation in ("interpreter", "process"):
                tasks = [tried(lambda: nursery.start(time.sleep, 0.5, isolation=isolation))
                         for _ in range(3)]
                for task in tasks:
                    print(isolation, task if isinstance(task, str) else tried(task.result))
"""


@key("limits.interpreters", "many")
def limits_interpreters(folder):
    equal(seen(folder, INTERPRETERS, "limits.interpreters=0").count(" None"), 6, "0: no limit")
    found = seen(folder, INTERPRETERS, "limits.interpreters=3")
    ok(found.count("interpreter None") == 2 and found.count("process None") == 3
       and "PermissionError: the task could not be started: 3 interpreters are alive" in found,
       "3: the program's and two more; processes do not count", found=found)


@key("limits.children", "-2")
def limits_children(folder):
    text = TASKS + """
    def deeper():
        return tried(one, int, isolation="process")
    if __name__ == "__main__":
        print(tried(one, deeper, isolation="process"))
    """
    for limit, good in ((0, True), (2, True), (1, False)):
        found = seen(folder, text, f"limits.children={limit}")
        ok((found == "0") if good else "1 processes are alive" in found
           and f"limits.children = {limit}" in found,
           f"{limit}: {'enough' if good else 'too few'} for a child's child", found=found)


@key("limits.memory", "2TiB")
def limits_memory(folder):
    body = "x = bytearray(200 << 20); return len(x) >> 20"
    equal(in_process(folder, body, "limits.memory=100MiB"), "MemoryError:", "too much for it")
    equal(in_process(folder, body, "limits.memory=400MiB"), "200", "not too much")
    equal(in_process(folder, body), "200", "0: no limit")


@key("limits.cpu", "soon")
def limits_cpu(folder):
    body = f"""
        end = time.process_time() + 1.4
        while time.process_time() < end: pass
        return "done"
    """.strip().replace("\n        ", "\n        ")
    found = in_process(folder, body, "limits.cpu=1s")
    ok("killed(24)" in found, "ended by SIGXCPU", found=found)
    equal(in_process(folder, body), "done", "0: no limit")


@key("limits.open_files", "1e3")
def limits_open_files(folder):
    body = "return len([open('/dev/null') for _ in range(100)])"
    ok("Too many open files" in in_process(folder, body, "limits.open_files=50"), "too many")
    equal(in_process(folder, body, "limits.open_files=200"), "100", "not too many")


# ---- quarantine -------------------------------------------------------------------------

ABANDON = TASKS + f"""
    sys.path.insert(0, {str(NATIVE)!r})
    import blocker
    def stuck():
        blocker.hold_gil(20)
    if __name__ == "__main__":
        for number in range(2):
            print("abandoned" in tried(one, stuck, timeout=0.5), flush=True)
            print(tried(one, int), flush=True)
"""


def abandon(folder, *options):
    return seen(folder, ABANDON, "cancel.grace=100ms", *options, timeout=60)


@key("quarantine.limit", "none")
def quarantine_limit(folder):
    found = abandon(folder, "quarantine.limit=0")
    equal(found, "True\n0\nTrue\n0", "0: however many were abandoned")
    found = abandon(folder, "quarantine.limit=2").splitlines()
    ok(found[:3] == ["True", "0", "True"] and "RuntimeError: the task could not be started: 2 "
       "interpreters were abandoned, and no more are created (quarantine.limit = 2, from --set)"
       in found[3], "2: after the second one no more are created", found=found)


@key("quarantine.action", "explode")
def quarantine_action(folder):
    found = abandon(folder, "quarantine.limit=1", "quarantine.action=recycle")
    ok(found.count("this process should be replaced") == 1 and found.endswith("True\n0\nTrue\n0"),
       "recycle: work goes on, and the host asks to be replaced", found=found)
    found = abandon(folder, "quarantine.limit=1", "quarantine.action=refuse")
    ok("no more are created" in found and "replaced" not in found, "refuse: it does not go on",
       found=found)


# ---- audit ------------------------------------------------------------------------------


@key("audit.trail", "x" * 5000)
def audit_trail(folder):
    path = folder / "trail"
    seen(folder, "pass", f"audit.trail={path}")
    ok(path.exists() and "host-open" in path.read_text(), "the trail is there")
    path.unlink()
    seen(folder, "pass", "audit.trail=")
    ok(not path.exists(), "none without")


@key("audit.events", "x" * 5000)
def audit_events(folder):
    path = folder / "trail"

    def events(*options):
        seen(folder, "pass", f"audit.trail={path}", *options)
        return {json.loads(line)["event"] for line in path.read_text().splitlines()}

    equal(events("audit.events=task-started,signal"),
          {"task-started", "host-open", "host-close"}, "these, and the trail's own")
    ok({"task-started", "task-ended", "host-open", "interp-created"} <= events(), "all without")
    result = subhost("run", "--set", f"audit.trail={path}", "--set", "audit.events=task-begun",
                     "-c", "pass")
    ok(result.status == 125 and "audit.events: there is no event 'task-begun'" in result.err,
       "one that there is not", result=result)


@key("audit.python_events", "x" * 5000)
def audit_python_events(folder):
    path = folder / "trail"
    code = "import sys; sys.audit('za.b', 1); sys.audit('zc'); sys.audit('zab')"
    seen(folder, code, f"audit.trail={path}", "audit.python_events=za.,zc")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    equal([event["name"] for event in events if event["event"] == "python-event"], ["za.b", "zc"],
          "those whose names begin so")
    seen(folder, code, f"audit.trail={path}")
    ok("python-event" not in path.read_text(), "none without")
    result = subhost("run", "--set", "audit.python_events=open", "-c", "pass")
    ok(result.status == 125 and "there is no trail" in result.err, "not without a trail",
       result=result)


def rotated(folder, *options):
    path = folder / "trail"
    code = ("import os\nfor _ in range(200):\n"
            "    try: os.fork()\n    except RuntimeError: pass")
    for file in folder.glob("trail*"):
        file.unlink()
    seen(folder, code, f"audit.trail={path}", *options)
    return {file.name: file.stat().st_size for file in folder.glob("trail*")}


@key("audit.rotate_size", "1x")
def audit_rotate_size(folder):
    sizes = rotated(folder, "audit.rotate_size=8KiB")
    ok(set(sizes) == {"trail", "trail.1"} and max(sizes.values()) <= 8192, "another file",
       sizes=sizes)
    equal(list(rotated(folder)), ["trail"], "one file without")


@key("audit.rotate_files", "0")
def audit_rotate_files(folder):
    sizes = rotated(folder, "audit.rotate_size=8KiB", "audit.rotate_files=3")
    equal(sorted(sizes), ["trail", "trail.1", "trail.2", "trail.3"], "as many are kept")
    sizes = rotated(folder, "audit.rotate_size=8KiB")
    equal(sorted(sizes), ["trail", "trail.1"], "one without")


# ---- all of them ------------------------------------------------------------------------


@test
def every_key(folder):
    text = subhost("policy", "show", "default").out
    keys = {f"{group}.{name}" for group, values in tomllib.loads(text).items()
            if isinstance(values, dict) for name in values}
    equal(sorted(KEYS), sorted(keys), "every key has a test, and every test a key")


@test
def bad_values(folder):
    for name, (_, bad) in KEYS.items():
        result = subhost("run", "--set", f"{name}={bad}", "-c", "print('it ran')")
        ok(result.status == 125 and result.out == ""
           and result.err.startswith(f"subhost: run: --set: {name}: ")
           and len(result.err.splitlines()) == 1,
           f"{name}: a bad value is refused", result=result)


main()
