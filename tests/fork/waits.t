#!/usr/bin/env python3
"""A program that waits for any child means one of its own: the host's forked children are passed
by, and the host hears how they ended all the same."""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import SUBHOST, equal, main, ok, run, script, subhost, test
from sessions import run_hosted

PROGRAM = """
    import json, os, signal, subprocess, sys, threading, time
    import subhost

    def leave(how):
        time.sleep(0.1)
        if how == "value":
            return 5
        os._exit(int(how)) if how != "kill" else os.kill(os.getpid(), signal.SIGKILL)

    def tasks(wait, hows=("value", "3", "kill")):
        "What a wait gave while tasks ended, and how they ended for their waiters."
        found = []
        with subhost.open_nursery() as nursery:
            # Each in a nursery of its own: a failure would cancel the others.
            def one(how):
                try:
                    with subhost.open_nursery() as inner:
                        task = inner.start(leave, how, isolation="process")
                except BaseExceptionGroup:
                    pass
                outcome = task.outcome
                found.append([how, outcome.kind, outcome.code])
            threads = [threading.Thread(target=one, args=(how,)) for how in hows]
            for thread in threads: thread.start()
            time.sleep(0.02)
            seen = wait()
            for thread in threads: thread.join()
        return {"seen": seen, "found": sorted(found)}

    def none_left(wait):
        def call():
            try:
                return wait()
            except ChildProcessError as error:
                return type(error).__name__
        return call

    def own(wait):
        def call():
            command = "import time; time.sleep(0.3)"
            child = subprocess.Popen([sys.executable, "-I", "-S", "-c", command + "; raise SystemExit(7)"])
            pid, status = wait()
            child.returncode = 7
            return [pid == child.pid, status]
        return call

    def id(options, type=os.P_ALL, of=0):
        result = os.waitid(type, of, options)
        return result and [result.si_pid, result.si_status]

    def polled(wait):
        def call():
            seen, end = set(), time.monotonic() + 0.5
            while time.monotonic() < end:
                try:
                    seen.add(str(wait()))
                except ChildProcessError:
                    seen.add("ChildProcessError")
                time.sleep(0.002)
            return sorted(seen)
        return call

    if __name__ == "__main__":
        waits = {
            "wait": none_left(os.wait), "waitpid": none_left(lambda: os.waitpid(-1, 0)),
            "wait3": none_left(lambda: os.wait3(0)[:2]),
            "wait4 of the group": none_left(lambda: os.wait4(0, 0)[:2]),
            "waitid": none_left(lambda: id(os.WEXITED)),
            "wait, a child of its own": own(os.wait),
            "waitid, a child of its own": own(lambda: id(os.WEXITED)),
            "waitpid, polled": polled(lambda: os.waitpid(-1, os.WNOHANG)),
            "waitid, looked at": polled(lambda: id(os.WEXITED | os.WNOHANG | os.WNOWAIT)),
        }
        for name, wait in waits.items():
            os.write(1, (json.dumps([name, tasks(wait)]) + "\\n").encode())
"""
ENDS = [["3", "exited", 3], ["kill", "killed", 9], ["value", "returned", None]]


@test
def waits_for_any_child(tmp):
    result, left = run_hosted(script(tmp, PROGRAM), timeout=60)
    rows = dict(json.loads(line) for line in result.out.splitlines())
    ok(result.status == 0 and not left and len(rows) == 9, "all come to an end", result=result,
       left=left)
    for name, row in rows.items():
        equal(row["found"], ENDS, f"{name}: the tasks' outcomes are whole", row=row)
        if "own" in name:
            ok(row["seen"][0] is True and row["seen"][1] in (7, 7 << 8),
               f"{name}: that one is found", row=row)
        elif "polled" in name or "looked" in name:
            ok(set(row["seen"]) <= {"(0, 0)", "None", "ChildProcessError"},
               f"{name}: none is found", row=row)
        else:
            equal(row["seen"], "ChildProcessError", f"{name}: none is found", row=row)


@test
def sigchld_ignored(tmp):
    """The kernel keeps no status for who ignores SIGCHLD; the host's children keep theirs."""
    ignoring = "import os, signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    tasks = script(tmp, ignoring + """
import subhost
def leave(): os._exit(3)
if __name__ == "__main__":
    for _ in range(2):
        try:
            with subhost.open_nursery() as nursery:
                task = nursery.start(leave, isolation="process")
        except* subhost.RemoteError: pass
        print(task.outcome.kind, task.outcome.code)
""")
    for isolation in ("interpreter", "process"):
        options = ("--isolation", isolation)
        result = subhost("run", *options, "-c", ignoring + "time.sleep(0.2); os._exit(3)")
        equal(result.status, 3, f"{isolation}: a program that ignores it has its status",
              result=result)
        result = subhost("run", *options, tasks)
        equal((result.status, result.out), (0, "exited 3\n" * 2),
              f"{isolation}: its tasks have theirs", result=result)
        result = run(["bash", "-c", f"trap '' CHLD; exec '{SUBHOST}' run --isolation {isolation} "
                                    "-c 'import os; os._exit(3)'"])
        equal(result.status, 3, f"{isolation}: it was ignored before subhost began", result=result)


main()
