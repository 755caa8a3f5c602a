#!/usr/bin/env python3
# timeout: 200
"""`subhost audit host`: on this CPython every expectation matches what is seen."""
import json
import os
import pathlib
import re
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import PATIENCE, SOURCE, SUBHOST, equal, main, ok, spawn, subhost, test

# The problems of the analysis that subhost is to end; thread-constraints is three probes.
MISSION = {
    "post-fork-refusal", "fork-from-worker", "cancel-delivery", "sigint-starvation",
    "orphan-sigint", "nested-cancel", "thread-constraints-starvation",
    "thread-constraints-destroy", "thread-constraints-fork", "boot-death", "resource-tracker",
    "wakeup-eof", "slow-cascade",
}


def ids():
    return {path.stem.replace("_", "-") for path in (SOURCE / "audit/probes").glob("*.c")}


@test
def every_probe(tmp):
    result = subhost("audit", "host", "--format", "json", timeout=120)
    ok(result.status in (0, 1) and result.out, "a report", result=result)
    document = json.loads(result.out)
    found = {item["id"]: item for item in document["items"]}
    equal(set(found), ids(), "each file of audit/probes is an item, with its name as id")
    equal(MISSION - set(found), set(), "the known problems are among them")
    for id, item in found.items():
        if item["status"] == "skipped":
            ok(item["reason"], f"{id} is skipped with a reason", item=item)
        else:
            ok(item["status"] == "ok" and item["seen"] == item["expected"],
               f"{id}: {item.get('seen')}", item=item)
    equal(result.status, 0, "status 0: all as promised")
    equal(document["summary"]["items"], len(found), "the summary counts them")


@test
def the_page(tmp):
    """docs/constraints.md is made by docs/make-constraints; a new probe is to be on it."""
    page = (SOURCE / "docs/constraints.md").read_text()
    equal(set(re.findall(r"^## (\S+)$", page, re.MULTILINE)), ids(), "it has every probe")
    versions = re.search(r"^\| probe \| (.*) \|$", page, re.MULTILINE)[1].split(" | ")
    rows = re.findall(r"^\| \[(\S+)\]\(#\1\) \| (.*) \|$", page, re.MULTILINE)
    equal({name: cells for name, cells in rows if cells.split(" | ") != ["ok"] * len(versions)},
          {}, f"as expected on {', '.join(versions)}")
    equal(len(rows), len(ids()), "a row for each")


@test
def chosen(tmp):
    result = subhost("audit", "host", "debug-offsets", "pending-call-capacity")
    lines = [line.split()[:2] for line in result.out.splitlines() if line.startswith("ok ")]
    equal((result.status, lines),
          (0, [["ok", "debug-offsets"], ["ok", "pending-call-capacity"]]),
          "the probes named, in that order", result=result)


@test
def a_crash_is_a_result(tmp):
    """In this probe CPython itself aborts (before 3.14), and the audit goes on."""
    result = subhost("audit", "host", "-v", "end-with-second-thread", "debug-offsets")
    ok(result.status == 0 and re.search(r"^ok +debug-offsets", result.out, re.MULTILINE),
       "the probe after it has run", result=result)
    if "3.13" in result.out.splitlines()[1]:
        ok(re.search(r"seen +SIGABRT \(Fatal Python error: Py_EndInterpreter: not the last",
                     result.out), "what it died of is what was seen", result=result)


@test
def a_finding(tmp):
    """A machine on which subprocess finds no program to start is not as expected."""
    result = subhost("audit", "host", "fork-refused", "debug-offsets", "--format", "json",
                     env={"PATH": str(tmp)})
    items = json.loads(result.out)["items"]
    equal((result.status, [item["status"] for item in items]), (1, ["finding", "ok"]),
          "status 1", result=result)
    ok("subprocess FileNotFoundError" in items[0]["seen"]
       and "subprocess works" in items[0]["expected"], "expected and seen differ", items=items)
    result = subhost("audit", "host", "fork-refused", env={"PATH": str(tmp)})
    ok(re.search(r"^finding +fork-refused", result.out, re.MULTILINE)
       and re.search(r"^ +seen +isolated: ", result.out, re.MULTILINE)
       and result.out.endswith("1 examined: 0 ok, 1 finding\n"), "in text it is told in full",
       result=result)
    result = subhost("audit", "host", "fork-refused", "--format", "tap", env={"PATH": str(tmp)})
    ok("\nnot ok 1 - fork-refused: " in result.out and result.status == 1, "in TAP it is not ok",
       result=result)


def group(pid):
    """The processes below `pid`."""
    found, todo = set(), [pid]
    while todo:
        for task in pathlib.Path(f"/proc/{todo.pop()}/task").glob("*/children"):
            try:
                for child in map(int, task.read_text().split()):
                    found.add(child)
                    todo.append(child)
            except OSError:
                pass
    return found


@test
def control_c(tmp):
    for signo, status in ((signal.SIGINT, -2), (signal.SIGTERM, -15)):
        with spawn([SUBHOST, "audit", "host", "sigint-starvation", "leak-asyncio"]) as it:
            end = time.monotonic() + 10 * PATIENCE
            while not group(it.pid) and time.monotonic() < end:
                time.sleep(0.01)
            time.sleep(0.2)
            below = group(it.pid)
            it.signal(signo)
            sent_at = time.monotonic()
            result = it.finish(10)
            took = it.started + result.seconds - sent_at
        ok(below and result.status in (status, 128 + signo) and took < 2 * PATIENCE,
           f"{signo.name} ends the audit", result=result, below=below, took=took)
        end = time.monotonic() + 5
        left = below
        while left and time.monotonic() < end:
            left = {pid for pid in left if os.path.exists(f"/proc/{pid}")}
            time.sleep(0.01)
        equal(left, set(), "and its probes")


main()
