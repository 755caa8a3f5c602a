#!/usr/bin/env python3
# timeout: 120
"""The trail of the runner: what is in it is what docs/trail.md lists, each line is JSON, each
task has its start and its one end, the cancel's rungs stand in order; nobody waits for it."""
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import PATIENCE, SOURCE, equal, hosted, main, ok, script, subhost, test

loader = importlib.machinery.SourceFileLoader("make_trail", str(SOURCE / "docs" / "make-trail"))
make_trail = importlib.util.module_from_spec(importlib.util.spec_from_loader("make_trail", loader))
sys.dont_write_bytecode = True
loader.exec_module(make_trail)

EVENTS, FIELDS = make_trail.events(), make_trail.fields()
COMMON = ["t", "wall", "pid", "thread", "interp", "task", "event"]
TYPES = {"TEXT": str, "LONG": str, "LIST": list, "NUMBER": int, "ID": int, "SECONDS": float,
         "FLAG": bool}
seen = set()

TREE = """
    import os, time, subhost
    def leaf(n):
        if n == 3:
            time.sleep(1)
            raise ValueError("l\\xe4af")
        time.sleep(60)
    def branch(isolation, first):
        with subhost.open_nursery() as nursery:
            for n in range(first, first + 2):
                nursery.start(leaf, n, name=f"leaf\\xfc {n}", isolation=isolation)
    if __name__ == "__main__":
        try:
            os.fork()
        except RuntimeError:
            pass
        try:
            with subhost.open_nursery() as nursery:
                nursery.start(branch, "interpreter", 1, name="branch p", isolation="process")
                nursery.start(branch, "process", 3, name="branch i")
        except ExceptionGroup as error:
            print("failed")
"""


def read(path):
    events = [json.loads(line) for line in path.read_bytes().splitlines()]
    seen.update(event["event"] for event in events)
    return events


def named(events, *names):
    return [event for event in events if event["event"] in names]


def wrong(event):
    """What an event has that it should not have."""
    fields = EVENTS.get(event["event"], ("", None))[1]
    if fields is None:
        return "no such event"
    own = {key: value for key, value in event.items() if key not in COMMON}
    bad = [key for key in own if key not in fields]
    bad += [key for key, value in own.items()
            if key in FIELDS and type(value) is not TYPES[FIELDS[key][0]]]
    return bad


@test
def tree(folder):
    trail = folder / "trail"
    result = subhost("run", "--trail", trail, script(folder, TREE))
    equal((result.out, result.err, result.status), ("failed\n", "", 0), "the tree ends",
          result=result)
    events = read(trail)
    equal([(event["event"], wrong(event)) for event in events if wrong(event)], [],
          "each event and each field is in docs/trail.md")
    ok(all(list(event)[:4] == COMMON[:4] for event in events), "the common fields come first")
    first, last = events[0], events[-1]
    equal((first["event"], first["format"]), ("host-open", 1), "the first line")
    equal((last["event"], last["events"], last["lost"], last["forks"]),
          ("host-close", len(events) - 1, 0, 3), "the last line")
    started = {event["task"]: event for event in named(events, "task-started")}
    ended = named(events, "task-ended")
    names = {event["name"]: event["task"] for event in started.values()}
    equal(sorted(names), ["branch i", "branch p", *(f"leaf\xfc {n}" for n in range(1, 5)),
                          "program.py"], "the tasks")
    root = names["program.py"]
    parents = {event["parent"] for event in started.values() if "parent" in event}
    equal(parents, {root, names["branch p"], names["branch i"]}, "who has started whom")
    outcomes = {(event["pid"], event["task"]): event["outcome"] for event in ended}
    equal(len(outcomes), len(ended), "one end for each task in each process")
    equal(set(outcomes), {(event["pid"], event["task"])
                          for event in named(events, "task-started")}, "each has ended")
    kinds = {started[task]["name"]: outcome for (_, task), outcome in outcomes.items()
             if task in started}
    equal(kinds["leaf\xfc 3"], "raised", "the leaf that fails")
    details = [event["detail"] for event in ended if event["outcome"] == "raised"
               and event["name"] == "leaf\xfc 3"]
    ok(details and all("l\xe4af" in detail for detail in details), "what it raised",
       details=details)
    forked = {event["child"]: event["supervisor"] for event in named(events, "forked")}
    ok(len(forked) == 3 and set(forked.values()) == {first["pid"]}, "the forks", forked=forked)
    ok({event["pid"] for event in events} == {first["pid"], *forked}, "from all processes")
    refused = named(events, "fork-refused")
    ok(len(refused) == 1 and refused[0]["task"] == root and "program.py:" in refused[0]["stack"][0],
       "the fork that was refused", refused=refused)


@test
def rungs(folder):
    trail = folder / "trail"
    text = """
        import time
        for _ in range(3):
            try:
                time.sleep(60)
            except BaseException:
                pass
    """
    result = subhost("run", "--trail", trail, "--timeout", "100ms", "--grace", "1s",
                     script(folder, text))
    events = read(trail)
    order = [event for event in events if event["event"].startswith(("cancel", "task-ended"))]
    names = [event["event"] for event in order]
    equal((names[:4], names[-1]), (["cancel-requested", "cancel-rung-1", "cancel-rung-2",
                                    "cancelled-raised"], "task-ended"), "the rungs", names=names)
    ok("cancel-rung-3" in names, "raised again", names=names)
    equal((order[0]["reason"], order[0]["grace"]), ("deadline", 1), "why")
    after = [event["after"] for event in order[1:-1]]
    ok(after == sorted(after) and 0 <= after[0] and after[2] < PATIENCE, "times since the request",
       after=after)
    equal((order[-1]["outcome"], order[-1]["status"], result.status), ("timed-out", 124, 124),
          "the outcome", result=result)


@test
def quarantine(folder):
    trail = folder / "trail"
    result = subhost("run", "--trail", trail, "--timeout", "100ms", "--grace", "100ms",
                     "-c", HOLD)
    events = read(trail)
    abandoned = named(events, "abandoned")
    ok(len(abandoned) == 1 and abandoned[0]["after"] >= 0.1 and abandoned[0]["gil"] == "own",
       "the quarantine", abandoned=abandoned, result=result)
    equal((events[-1]["event"], events[-1]["abandoned"]), ("host-close", 1), "counted at the end")
    trail = folder / "second"
    result = subhost("run", "--isolation", "process", "--trail", trail, "--timeout", "100ms",
                     "--grace", "100ms", "-c", HOLD)
    events = read(trail)
    killed = named(events, "killed", "abandoned")
    ok(killed and killed[0]["after"] >= 0.1, "a process is killed", killed=killed, result=result)
    [end] = [event for event in named(events, "task-ended") if event["pid"] == events[0]["pid"]]
    equal((end["outcome"], end["code"]), ("killed", 9), "the outcome")


# A power keeps the GIL for as long as it takes.
HOLD = "x = 7 ** (7 ** 9)"


@test
def signals(folder):
    trail = folder / "trail"
    text = "import time; print(1, flush=True); time.sleep(60)"
    with hosted("--trail", trail, "-c", text) as program:
        program.wait_for("1\n")
        program.signal(signal.SIGINT)
        program.finish()
    [event] = named(read(trail), "signal")
    equal((event["signal"], event["handled"], event["cancelled"]), ("SIGINT", 0, 1), "SIGINT")


GRANDCHILD = """
    import os, sys, subhost
    def leaf():
        # On one CPU its main loop runs only when nobody else wants to.
        os.sched_setscheduler(os.getpid(), os.SCHED_IDLE, os.sched_param(0))
        for i in range(300):
            sys.audit("x.n", i)
    def branch():
        with subhost.open_nursery() as nursery:
            nursery.start(leaf, isolation="process")
    if __name__ == "__main__":
        with subhost.open_nursery() as nursery:
            nursery.start(branch, isolation="process")
"""


@test
def grandchildren(folder):
    trail, program = folder / "trail", script(folder, GRANDCHILD)
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    for _ in range(4):
        result = subhost("run", "--trail", trail, "--set", "audit.python_events=x.", program)
        equal((result.err, len(named(read(trail), "python-event"))), ("", 300),
              "what was noted before a process's end is there, although its parent ends at once")
    os.sched_setaffinity(0, cpus)


@test
def slow_readers(folder):
    """Neither the program nor Ctrl-C waits for a trail that nobody reads."""
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    text = """
        import os
        for _ in range(20_000):
            try:
                os.fork()
            except RuntimeError:
                pass
        print("done", flush=True)
        while True:
            pass
    """
    with hosted("--trail", fifo, script(folder, text)) as program:
        program.wait_for("done\n")
        before = time.monotonic()
        program.signal(signal.SIGINT)
        result = program.finish()
        took = time.monotonic() - before
    ok(result.status == 130 and took < 6 * PATIENCE, "SIGINT ends it", took=took, result=result)
    ok("subhost: the trail is not complete: " in result.err and "events were lost" in result.err,
       "the loss is said", result=result)
    result = subhost("run", "--stats", "--trail", "/dev/full", "-c", "print(1)")
    equal((result.out, result.status), ("1\n", 0), "a full disk is not the program's affair")
    ok("the trail is not complete: the trail: /dev/full: No space left on device" in result.err
       and "subhost: trail 4 events, 0 lost" in result.err, "but said", result=result)
    result = subhost("run", "--trail", folder / "no" / "trail", "-c", "print(1)")
    ok(result.status == 125 and "No such file or directory" in result.err,
       "a trail that cannot be opened", result=result)


@test
def one_host_a_file(folder):
    """Two trails in one file would destroy each other; one that was removed is not there."""
    trail = folder / "trail"
    text = "import sys; print(1, flush=True); sys.stdin.read()"
    with hosted("--trail", trail, "-c", text) as program:
        program.wait_for("1\n")
        result = subhost("run", "--trail", trail, "-c", "print(2)")
        ok((result.status, result.out) == (125, "") and f"the trail: {trail}: another host "
           "writes its trail into it; name another file" in result.err,
           "a second host is refused", result=result)
        program.input.close()
        equal(program.finish().status, 0, "the first one is not disturbed")
    events = read(trail)
    equal((events[0]["event"], events[-1]["event"], len({event["pid"] for event in events})),
          ("host-open", "host-close", 1), "its trail is whole")
    result = subhost("run", "--trail", trail, "-c", f"import os; os.unlink({str(trail)!r})")
    equal((result.status, result.err),
          (0, f"subhost: the trail is not complete: the trail: {trail}: No such file or "
              "directory\n"), "a file that was removed", result=result)


@test
def all_events(folder):
    """Which events these tests, and those of C, have met."""
    unit = (SOURCE / "tests/unit/test_trail.c").read_text()
    ok("note_all" in unit, "test_trail.c writes all of them")
    wanted = {"host-open", "host-close", "interp-created", "interp-ended", "task-started",
              "task-ended", "cancel-requested", "cancel-rung-1", "cancel-rung-2", "cancel-rung-3",
              "cancelled-raised", "abandoned", "forked", "fork-refused", "signal"}
    equal(wanted - seen, set(), "the host has written those that runs like these bring about")
    equal(seen - set(EVENTS), set(), "all are listed")


main()
