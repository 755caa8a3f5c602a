#!/usr/bin/env python3
# timeout: 240
"""`fork-from-worker`: process tasks started while sibling interpreters are busy, asleep, in an
import, or just being created. Every child lives, starts threads, runs an interpreter with
asyncio in it, and starts a process of its own with that interpreter alive.

SUBHOST_TEST_ROUNDS   children for each state (default: 12; the promise is 500 of 500)"""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import equal, main, ok, script, subhost, test
from sessions import batches, rounds, run_hosted

PROGRAM = pathlib.Path(__file__).resolve().parent / "programs" / "siblings.py"
TIMES = rounds(12)


def values(result):
    found = {}
    for line in result.out.splitlines():
        if line.startswith("{"):
            found |= json.loads(line)
    return found


def lives(name, *words, times=TIMES, options=(), siblings=None):
    result, left = run_hosted(*options, PROGRAM, *words, timeout=15 + 2 * times)
    found = values(result)
    good = (result.status == 0 and not left and found.get("rounds") == times
            and found.get("wrong") == [])
    if siblings:
        good = good and found.get("siblings") == siblings
    ok(good, f"{name}: {times} children of {times} live and work (median "
       f"{found.get('median', 0) * 1000:.0f} ms, slowest {found.get('slowest', 0) * 1000:.0f} ms)",
       **({} if good else {"result": result, "left behind": left}))


@test
def no_siblings(tmp):
    lives("alone", "none", str(TIMES), tmp)


@test
def siblings_of_a_nursery(tmp):
    for state in ("busy", "asleep", "importing"):
        lives(f"three siblings {state}", state, str(TIMES), tmp, siblings=["cancelled"] * 3)
    for times in batches(TIMES):
        lives("three siblings creating", "creating", str(times), tmp, times=times,
              siblings=["cancelled"] * 3)


@test
def siblings_by_workers(tmp):
    for state in ("busy", "asleep", "importing"):
        folder = tmp / state
        folder.mkdir()
        lives(f"-n 4, three workers {state}", state, str(TIMES), folder, "workers",
              options=("-n", "4"))


@test
def shared_gil(tmp):
    folder = tmp / "shared"
    folder.mkdir()
    lives("--gil shared, two workers asleep", "asleep", str(TIMES), folder, "workers",
          options=("--gil", "shared", "-n", "3"))


@test
def from_any_thread(tmp):
    """Four threads of the program, each with a nursery of its own, fork at the same time."""
    file = script(tmp, f"""
        import os, sys, threading
        import subhost

        def square(x):
            return x * x, os.getpid()

        def forks(results):
            for i in range({max(3, TIMES // 4)}):
                with subhost.open_nursery() as nursery:
                    tasks = [nursery.start(square, i + j, isolation="process") for j in (0, 1)]
                    results.append([t.result(timeout=30)[0] for t in tasks] == [i*i, (i+1)**2]
                                   and all(t.pid == t.result()[1] for t in tasks))

        if __name__ == "__main__":
            results = []
            threads = [threading.Thread(target=forks, args=(results,)) for _ in range(4)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            print(len(results), all(results))
    """)
    result, left = run_hosted(file)
    equal((result.status, result.out, left), (0, f"{4 * max(3, TIMES // 4)} True\n", []),
          "from four threads at once", result=result)


@test
def many_at_once(tmp):
    file = script(tmp, """
        import subhost
        def me(i):
            return i
        if __name__ == "__main__":
            with subhost.open_nursery() as nursery:
                tasks = [nursery.start(me, i, isolation="process") for i in range(60)]
            print([t.result() for t in tasks] == list(range(60)))
    """)
    result, left = run_hosted(file)
    equal((result.status, result.out, left), (0, "True\n", []), "60 children at once",
          result=result)


@test
def the_control(tmp):
    """The fork that must not be: in an interpreter; refused in the parent, nothing forked."""
    for isolation in ("interpreter", "process"):
        result, left = run_hosted("--isolation", isolation, "-c", """
import os, threading
def attempt():
    try:
        pid = os.fork()
    except RuntimeError as error:
        print("refused", "subhost" in str(error) or "subprocess" in str(error))
    else:
        print("forked", flush=True)
        if not pid: os._exit(3)
attempt()
t = threading.Thread(target=attempt); t.start(); t.join()
""")
        equal((result.status, result.out, left), (0, "refused True\n" * 2, []),
              f"os.fork with --isolation {isolation}: refused on every thread", result=result)


RAW = """
import ctypes, os, sys, time
import subhost
libc = ctypes.{loader}(None)
pid = libc.fork()
if pid == 0:
    os.write(1, b"python ran in the child\\n")
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@test
def a_raw_fork(tmp):
    """By C code, here through ctypes, which runs Python again as soon as it returns."""
    for loader in ("CDLL", "PyDLL"):
        for isolation in ("interpreter", "process"):
            for name, before in (("", ""), (", in a thread", "thread")):
                code = RAW.format(loader=loader)
                if before:
                    code = ("def run():\n" + "".join("    " + line + "\n"
                            for line in code.splitlines())
                            + "import threading\nt = threading.Thread(target=run)\n"
                              "t.start(); t.join()\n")
                result, left = run_hosted("--isolation", isolation, "-c", code)
                ours = [line for line in result.err.splitlines() if "fork" in line]
                ok(result.status == 0 and result.out == "126\n" and not left and len(ours) == 1
                   and len(result.err.splitlines()) == 1,
                   f"raw fork by {loader}, {isolation}{name}: its child ends with 126 and one line",
                   result=result, left=left)


@test
def exec_after_a_raw_fork(tmp):
    """subprocess with user= forks and execs in C, where vfork cannot be used."""
    result = subhost("run", "-c", """
import os, subprocess
print(subprocess.run(["echo", "one"], capture_output=True, user=os.getuid()).stdout)
print(subprocess.run(["sh", "-c", "echo two"], capture_output=True, start_new_session=True).stdout)
p = subprocess.Popen(["cat"], stdin=-1, stdout=-1, user=os.getuid(), close_fds=False)
print(p.communicate(b"three")[0])
""")
    equal((result.status, result.out), (0, "b'one\\n'\nb'two\\n'\nb'three'\n"),
          "subprocess with user= and its kin works", result=result)


main()
