#!/usr/bin/env python3
# timeout: 120
"""Reports of `subhost audit`: text, JSON against its schema, TAP for prove, files, mistakes."""
import json
import os
import pathlib
import pty
import re
import select
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from schema import can_validate, complaints, is_valid
from tap import SUBHOST, equal, lacking, main, ok, run, subhost, test

QUICK = ("debug-offsets", "pending-call-capacity", "end-with-second-thread")


@test
def json_has_its_schema(tmp):
    result = subhost("audit", "host", "--format=json", *QUICK)
    document = json.loads(result.out)
    equal((result.status, result.err, [item["id"] for item in document["items"]]),
          (0, "", list(QUICK)), "a document", result=result)
    if not can_validate("the schema"):
        return
    is_valid(result.out, "is valid")
    for name, break_it in {
        "an unknown kind": lambda d: d.update(kind="other"),
        "an unknown status": lambda d: d["items"][0].update(status="fine"),
        "an error without its reason": lambda d: d["items"][0].update(status="error"),
        "a finding that says nothing": lambda d: d["items"][0].update(status="finding")
        or d["items"][0].pop("seen"),
        "an item without a source": lambda d: d["items"][0].pop("source"),
        "an unknown key": lambda d: d["items"][0].update(colour="red"),
        "no summary": lambda d: d.pop("summary"),
    }.items():
        broken = json.loads(result.out)
        break_it(broken)
        checked = complaints(json.dumps(broken))
        ok(checked.status == 0 and checked.out, f"the schema refuses {name}", result=checked)


@test
def tap(tmp):
    result = subhost("audit", "host", "--format", "tap", *QUICK, env={"HARNESS_ACTIVE": None})
    lines = result.out.splitlines()
    equal((lines[0], f"1..{len(QUICK)}" in lines, result.status), ("TAP version 14", True, 0),
          "version 14 and a plan", result=result)
    points = [line for line in lines if re.match("(not )?ok ", line)]
    equal([point.split(":")[0] for point in points],
          [f"ok {n} - {id}" for n, id in enumerate(QUICK, 1)], "a point for each")
    equal((lines.count("  ---"), lines.count("  ...")), (len(QUICK), len(QUICK)),
          "with diagnostics")
    values = [line.partition(": ")[2] for line in lines if line.startswith("  seen: ")]
    equal([isinstance(json.loads(value), str) for value in values], [True] * len(QUICK),
          "whose texts are JSON strings, and so YAML")
    if not shutil.which("prove"):
        lacking("prove", "prove", "perl")
        return
    proved = run(["prove", "-e", f"{SUBHOST} audit --format tap host", *QUICK], timeout=60)
    ok(proved.status == 0 and "All tests successful." in proved.out
       and f"Files={len(QUICK)}, Tests={len(QUICK)}" in proved.out, "prove -e runs probes",
       result=proved)


def on_terminal(*args, env=()):
    """What it writes to a terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen([SUBHOST, *args], stdout=slave, stdin=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, env={**os.environ, **dict(env)})
    os.close(slave)
    text = b""
    while select.select([master], [], [], 30)[0]:
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        text += part
    os.close(master)
    process.communicate(timeout=30)
    return text.decode(), process.returncode


@test
def text(tmp):
    result = subhost("audit", "host", QUICK[0])
    lines = result.out.splitlines()
    ok(lines[0] == "subhost audit host" and lines[1].startswith("CPython 3.")
       and lines[-1] == "1 examined: 1 ok", "a heading and a total", result=result)
    ok("\x1b" not in result.out, "no colour in a pipe")
    ok(max(map(len, lines)) <= 100, "at most 100 columns", result=result)
    verbose = subhost("audit", "host", QUICK[0], "-v")
    equal([word for word in ("constraint", "source", "expected", "seen", "means")
           if not re.search(rf"^ +{word} ", verbose.out, re.MULTILINE)], [],
          "-v says all that is known", result=verbose)
    env = {"TERM": "xterm", "NO_COLOR": ""}
    colour, status = on_terminal("audit", "host", QUICK[0], env=env.items())
    ok("\x1b[32mok\x1b[0m" in colour and status == 0, "colour on a terminal", seen=colour)
    for changes in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        plain, status = on_terminal("audit", "host", QUICK[0], env=(env | changes).items())
        ok("\x1b" not in plain and status == 0, f"none with {changes}", seen=plain)


@test
def files(tmp):
    report = tmp / "report.json"
    report.write_text("old")
    os.symlink("report.json", tmp / "link.json")
    result = subhost("audit", "host", QUICK[0], "--format", "json", "-o", tmp / "link.json")
    equal((result.status, result.out, json.loads(report.read_text())["kind"]), (0, "", "host"),
          "--output replaces the file that a link leads to", result=result)
    ok((tmp / "link.json").is_symlink(), "and the link stays")
    equal(sorted(path.name for path in tmp.iterdir()), ["link.json", "report.json"],
          "nothing else is left")
    for name, path, error in (
            ("a directory that is not there", tmp / "no" / "x", "No such file or directory"),
            ("a directory", tmp, "Is a directory"),
            ("a full disk", "/dev/full", "No space left on device")):
        result = subhost("audit", "host", QUICK[0], "--output", path)
        equal((result.status, result.out, result.err),
              (125, "", f"subhost: audit host: {path}: {error}\n"), name, result=result)
    for command, error in ((f"{SUBHOST} audit host {QUICK[0]} > /dev/full",
                            "No space left on device"),
                           (f"{SUBHOST} audit host {QUICK[0]} | true", "Broken pipe")):
        result = run(["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"])
        equal((result.status, result.err),
              (125, f"subhost: audit host: standard output: {error}\n"), error, result=result)
    result = run(["bash", "-c", f"{SUBHOST} audit host {QUICK[0]} --format json -o >(cat)"])
    ok('"kind": "host"' in result.out, "a FIFO is written to, and not replaced", result=result)


@test
def mistakes(tmp):
    for args, words in {
        (): "audit: which audit? There are: host",
        ("hots",): "audit: unknown audit hots; did you mean host?",
        ("host", "--format", "jsn"): "audit: unknown format jsn; did you mean json?",
        ("host", "--format"): "audit: --format needs an argument",
        ("host", "--fromat", "json"): "audit: unknown option --fromat; did you mean --format?",
        ("host", "--jobs", "0"): "audit: --jobs: '0' is not a number from 1 to 1024",
        ("host", "debug-ofsets"): "no probe 'debug-ofsets'; did you mean debug-offsets?",
        ("host", "zzz"): "no probe 'zzz'\nThere are: async-exc-scope, ",
        ("host", ""): "no probe ''\nThere are: ",
        ("modules", ""): "modules: '' is the name of nothing",
    }.items():
        result = subhost("audit", *args)
        ok(result.status == 125 and words in result.err and not result.out,
           f"audit {' '.join(args)}: {words.splitlines()[0]}", result=result)
    result = subhost("audit", "--help")
    ok(result.status == 0 and result.out.startswith("Usage: subhost audit host"), "--help",
       result=result)


main()
