#!/usr/bin/env python3
# timeout: 240
"""`subhost audit modules`: a module of our own for each verdict, crashers, a hanger, a leaker,
liars; names of all kinds; an audit that was killed goes on."""
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from schema import is_valid
from tap import NATIVE, PATIENCE, PYTHON, equal, main, ok, run, script, spawn, subhost, test
from tap import SUBHOST

LIMIT = f"{3 * PATIENCE}s"


def path_of(name):
    return next(NATIVE.glob(f"{name}.*"))


def audit(*names, status=None, **kw):
    """({id: item}, document) of an audit of these modules, files of our own by their stem."""
    result = subhost("audit", "modules", "--format", "json", "--timeout", LIMIT, *names,
                     timeout=120, **kw)
    document = json.loads(result.out or "{}")
    ok(status is None or result.status == status, f"status {status}", result=result)
    return {item["id"]: item for item in document.get("items", ())}, document


def verdict(item):
    return item["detail"].get("verdict")


# One list: module, its verdict, what else is known of it.
OURS = {
    "own_gil_ready": ("ready", {"multiple_interpreters": "per-interpreter-gil"}),
    "audit_slots": ("ready", {"init": "slots" if sys.version_info >= (3, 15) else "multi-phase",
                              "gil": "not-used"}),
    "single_phase": ("shared-gil-only", {"init": "single-phase", "blame": "single_phase"}),
    "multi_phase_no_slot": ("shared-gil-only", {"init": "multi-phase"}),
    "audit_refuses": ("refuses", {"multiple_interpreters": "not-supported"}),
    "audit_raises": ("not-importable", {"blame": "audit_raises"}),
    "audit_crash": ("crashes", {"signal": "SIGSEGV", "blame": "audit_crash",
                                "init": "multi-phase"}),
    "audit_crash_sub": ("crashes", {"signal": "SIGSEGV"}),
    "audit_crash_second": ("claims-ready-but-fails", {"signal": "SIGABRT"}),
    "audit_hang": ("claims-ready-but-fails", {"blame": "audit_hang"}),
    "audit_leak": ("ready", {"init": "multi-phase"}),
    "audit_liar": ("claims-ready-but-fails", {}),
    "audit_liar_static": ("claims-ready-but-fails", {}),
    "audit_liar_type": ("claims-ready-but-fails", {}),
}


@test
def each_verdict(tmp):
    items, document = audit(*(path_of(name) for name in OURS), status=1)
    equal(list(items), list(OURS), "an item each, in the order of the names")
    for name, (expected, known) in OURS.items():
        item = items[name]
        equal((verdict(item), {key: item["detail"].get(key) for key in known}),
              (expected, known), f"{name}: {expected}", item=json.dumps(item, indent=1))
    findings = {name for name, item in items.items() if item["status"] == "finding"}
    equal(findings, {"audit_raises", "audit_crash", "audit_crash_sub", "audit_crash_second",
                     "audit_hang", "audit_leak", "audit_liar", "audit_liar_static",
                     "audit_liar_type"},
          "what is not as it was promised is a finding, an honest refusal is none")
    equal(document["verdicts"]["claims-ready-but-fails"], 5, "verdicts are counted")
    evidence(items)
    is_valid(json.dumps(document), "the document has its schema")


def evidence(items):
    hang, second = items["audit_hang"]["detail"], items["audit_crash_second"]["detail"]
    equal(hang["stages"]["own"]["result"], "hang", "a hang is told from a crash")
    ok(any("importlib" in line for line in hang.get("stack", ())), "with the Python stack",
       detail=hang)
    equal((second["stages"]["own"]["result"], second["stages"]["main"]["result"]),
          ("crash", "ok"), "a crash at the second import")
    ok("again after the first was destroyed" in items["audit_crash_second"]["seen"],
       "says where", seen=items["audit_crash_second"]["seen"])
    ok(any("importlib" in line for line in items["audit_crash"]["detail"].get("stack", ())),
       "a crash has its last Python stack", item=items["audit_crash"])
    equal(items["audit_raises"]["detail"]["stages"]["main"]["result"], "error",
          "an error is told from both")
    for series in ("growth_kib", "malloc_growth_kib"):
        growth = items["audit_leak"]["detail"][series]
        ok(900 <= growth <= 1300, f"the leaker loses 1 MiB a round, {series}: {growth}")
        for name in ("own_gil_ready", "audit_slots"):
            growth = items[name]["detail"][series]
            ok(growth < 200, f"{name} loses little, {series}: {growth}")
    ok("leaks 1." in items["audit_leak"]["title"], "in words", item=items["audit_leak"])
    equal(items["own_gil_ready"]["detail"]["stages"]["many"]["rounds"], 20, "20 rounds")
    shared = {name: items[name]["detail"].get("in_common", [""]) for name in items}
    ok("audit_liar.cache, a list" in shared["audit_liar"], "the liar's list is named",
       shared=shared["audit_liar"])
    ok("static memory" in shared["audit_liar_static"][0], "the hidden one's static memory",
       shared=shared["audit_liar_static"])
    ok(any("Type.method" in text for text in shared["audit_liar_type"]),
       "the static type's method", shared=shared["audit_liar_type"])


@test
def transitive(tmp):
    """A package is refused because of a module that it imports, and says which."""
    script(tmp, "from outer import inner\n", "outer/__init__.py")
    script(tmp, "import single_phase\n", "outer/inner.py")
    script(tmp, "try:\n    import single_phase\nexcept ImportError:\n    pass\n", "tolerant.py")
    script(tmp, "import nonexistent_thing\n", "broken.py")
    items, _ = audit("outer", "tolerant", "broken", status=1,
                     env={"PYTHONPATH": f"{tmp}:{NATIVE}"})
    equal({name: (verdict(item), item["detail"].get("blame")) for name, item in items.items()},
          {"outer": ("shared-gil-only", "single_phase"), "tolerant": ("ready", None),
           "broken": ("not-importable", "nonexistent_thing")}, "who is to blame", items=items)
    equal(items["outer"]["title"], "shared-gil-only because of single_phase", "in words")
    ok("single_phase" in str(items["tolerant"]["detail"].get("did_without")),
       "what it did without is told", item=items["tolerant"])


@test
def names(tmp):
    """A module, builtin or not; a file inside a package; a distribution."""
    package = tmp / "lib" / "packed"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    shutil.copy(path_of("own_gil_ready"), package)
    info = tmp / "lib" / "Some_Name-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: Some-Name\nVersion: 1.5\n")
    (info / "RECORD").write_text(f"packed/__init__.py,,\npacked/{path_of('own_gil_ready').name},,\n")
    env = {"PYTHONPATH": str(tmp / "lib")}
    items, document = audit("marshal", "some-name", status=0, env=env)
    equal({name: (verdict(item), item["detail"]["kind"]) for name, item in items.items()},
          {"marshal": ("ready", "builtin"), "packed": ("ready", "package"),
           "packed.own_gil_ready": ("ready", "extension")}, "a builtin one, a distribution",
          items=items)
    equal(document["distributions"], {"Some-Name": "1.5"}, "with its version")
    items, _ = audit(package / path_of("own_gil_ready").name, status=0)
    equal(list(items), ["packed.own_gil_ready"], "a file has its package's name")
    wrong = tmp / "other.cpython-27-x86_64-linux-gnu.so"
    wrong.write_bytes(b"\177ELF")
    items, _ = audit(wrong, status=1)
    equal(verdict(items["other"]), "not-importable", "another Python's file", items=items)


@test
def mistakes(tmp):
    for args, expected in (
        (["jsn"], "jsn: neither a module on sys.path nor a distribution; did you mean json?"),
        (["./nothing.so"], "./nothing.so: no such file"),
    ):
        result = subhost("audit", "modules", *args)
        ok(result.status == 125 and expected in result.err, f"{args}", result=result)
    result = subhost("audit", "modules", "--timeout", "soon", "json")
    ok(result.status == 125 and "'soon' is not a duration" in result.err, "--timeout",
       result=result)
    other = script(tmp, "precious\n", "precious")
    result = subhost("audit", "modules", "--resume", other, "marshal")
    ok(result.status == 125 and "is no file of" in result.err, "another file is not overwritten",
       result=result)
    equal(other.read_text(), "precious\n", "and is as it was")


@test
def resumed(tmp):
    """Killed in the middle; the second audit does the rest only, and has it all."""
    kept = tmp / "kept"
    names = ["own_gil_ready", "single_phase", "audit_refuses", "audit_hang"]
    args = ["audit", "modules", "--resume", kept, "--timeout", LIMIT, "--format", "json",
            "--jobs", "1", *(path_of(name) for name in names)]
    with spawn([SUBHOST, *args]) as process:
        deadline = time.monotonic() + 60 * PATIENCE
        # The hanger is the last of its stage.
        while time.monotonic() < deadline and not (
                kept.exists() and kept.read_bytes().count(b"\0stage\0own\0") >= 3):
            time.sleep(0.02)
        process.signal(signal.SIGKILL)
        process.finish()
    before = kept.read_bytes()
    with kept.open("ab") as file:
        file.write(b"of\0own_gil_ready\0sta")  # as if it had been killed in a write
    result = subhost(*args, timeout=60)
    items = {item["id"]: item for item in json.loads(result.out or "{}").get("items", ())}
    equal({name: verdict(item) for name, item in items.items()},
          {"own_gil_ready": "ready", "single_phase": "shared-gil-only",
           "audit_refuses": "refuses", "audit_hang": "claims-ready-but-fails"},
          "all of it", result=result)
    after = kept.read_bytes()
    ok(after.startswith(before), "what was there is kept")
    equal(after[len(before):].count(b"\0stage\0main\0"), 0, "no import in main is repeated")
    started = time.monotonic()
    again = subhost(*args, timeout=60)
    ok(json.loads(again.out)["items"] == json.loads(result.out)["items"]
       and kept.read_bytes() == after and time.monotonic() - started < 3 * PATIENCE,
       "nothing is left to be done", result=again)


@test
def nothing_is_left(tmp):
    """SIGTERM in the middle of a hang: no child outlives the audit."""
    with spawn([SUBHOST, "audit", "modules", "--timeout", "60s", path_of("audit_hang")]) as process:
        deadline, children = time.monotonic() + 30 * PATIENCE, []
        while time.monotonic() < deadline:
            listed = run(["ps", "-o", "pid=,nlwp=", "--ppid", str(process.pid)]).out.split()
            children = list(map(int, listed[::2]))
            # With the interpreter's thread and the watcher's: it is in the import, or near.
            if listed and int(listed[1]) >= 3:
                break
            time.sleep(0.05)
        process.signal(signal.SIGTERM)
        result = process.finish(10)
    equal((result.signal, bool(children)), (signal.SIGTERM, True), "ended by the signal",
          result=result)
    deadline = time.monotonic() + 5 * PATIENCE
    while time.monotonic() < deadline and any(map(alive, children)):
        time.sleep(0.02)
    equal([pid for pid in children if alive(pid)], [], "its children are gone")


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@test
def of_the_standard_library(tmp):
    """A few whose verdict CPython itself documents, and text for people."""
    items, _ = audit("_json", "_struct", "readline" if has("readline") else "faulthandler")
    equal([verdict(item) for item in items.values()], ["ready", "ready", "shared-gil-only"],
          "ready, ready, and one that is not", items=items)
    result = subhost("audit", "modules", "_json")
    ok(re.search(r"^ok +_json +ready$", result.out, re.MULTILINE)
       and re.search(r"^ +1  ready +imports", result.out, re.MULTILINE)
       and result.status == 0, "text", result=result)
    result = subhost("audit", "modules", "--format", "html", "faulthandler")
    ok("<td>shared-gil-only</td>" in result.out and result.status == 0, "HTML", result=result)


def has(name):
    return run([PYTHON, "-c", f"import {name}"]).status == 0


if __name__ == "__main__":
    main()
