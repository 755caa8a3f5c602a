"""TAP for the outside tests.

A test file imports this, marks functions with @test (each gets a fresh temporary
folder) and ends with main(). `FILE.t WORD` runs only the tests with WORD in their name.
What runs the programs under test is in programs.py and re-exported here.
"""

import difflib
import os
import pathlib
import re
import shutil
import sys
import tempfile
import traceback

from programs import (  # noqa: F401: what tests use besides TAP
    BUILD, NATIVE, PATIENCE, PYTHON, SOURCE, SUBHOST, Result,
    both, environment, hosted, python, run, script, spawn, subhost,
)

# Programs print what they like; a diagnosis of it must not fail.
sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")

_tests = []
_count = _failed = 0


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def diag(text):
    for line in str(text).splitlines():
        say("# " + line)


def _report(good, name, details=None):
    global _count, _failed
    _count += 1
    # A '#' would start a TAP directive, a newline would end the line.
    name = str(name).replace("#", "\\#").replace("\n", " ")
    say(f"{'ok' if good else 'not ok'} {_count} - {name}")
    if not good:
        _failed += 1
        say("  ---")
        for key, value in (details or {}).items():
            lines = str(value).splitlines() or [""]
            if len(lines) == 1:
                say(f"  {key}: {lines[0][:400]}")
            else:
                say(f"  {key}: |")
                for line in lines:
                    say("    " + line[:400])
        say(f"  at: {_caller()}")
        say("  ...")
        if os.environ.get("HARNESS_ACTIVE"):
            # prove keeps stdout to itself, and a log should say what failed.
            print(f"# not ok {_count} - {name}, at {_caller()}",
                  *(f"#   {key}: {str(value)[-1500:]}" for key, value in (details or {}).items()),
                  sep="\n", file=sys.stderr, flush=True)
    return good


def _caller():
    frame = sys._getframe()
    here = os.path.dirname(__file__)
    while frame.f_back and os.path.dirname(frame.f_code.co_filename) == here:
        frame = frame.f_back
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


def ok(condition, name, **details):
    """One result. DETAILS are shown when it fails: ok(r.status == 0, "ends well", r=r)."""
    return _report(bool(condition), name, details)


def difference(got, expected):
    """What to show of two values that should have been equal."""
    if isinstance(got, str) and isinstance(expected, str) and "\n" in got + expected:
        lines = list(difflib.unified_diff(expected.splitlines(), got.splitlines(), "expected",
                                          "got", lineterm=""))
        if lines:  # else they differ in their line ends only
            return "\n".join(lines[:60])
    return f"got:      {got!r}\nexpected: {expected!r}"


def equal(got, expected, name, **details):
    return _report(got == expected, name,
                   {} if got == expected else {"difference": difference(got, expected)} | details)


def skip(name, reason):
    global _count
    _count += 1
    say(f"ok {_count} - {name} # SKIP {reason}")


def lacking(name, what, package):
    """The test NAME needs WHAT, which is not here: skipped, but where continuous integration
    (CI) has not said that it does without it (SUBHOST_TEST_LACKS: words), that is a failure."""
    reason = f"no {what} here (Debian: {package})"
    if os.environ.get("CI") and what not in os.environ.get("SUBHOST_TEST_LACKS", "").split():
        return _report(False, name, {"reason": reason})
    return skip(name, reason)


def test(function):
    _tests.append(function)
    return function


def same(*args, name, clean=None, status=None, **kw):
    """Output and status of `subhost run ARGS` are exactly python's, but for addresses of
    objects. CLEAN(text) may take out what else must differ (a process id, say). STATUS
    guards against a program that fails the same way in both, because the test is wrong."""

    def seen_of(result):
        texts = [re.sub("0x[0-9a-f]{6,}", "0x...", text) for text in (result.out, result.err)]
        out, err = map(clean, texts) if clean else texts
        return {"stdout": out, "stderr": err, "status": result.status}

    seen, wanted = map(seen_of, both(*args, **kw))
    details = {key: difference(seen[key], wanted[key])
               for key in seen if seen[key] != wanted[key]}
    if status is not None and wanted["status"] != status:
        details["python"] = f"ends with {wanted['status']}, not {status}: {wanted['stderr']}"
    return _report(not details, name + ": as python", details | {"arguments": args})


def main():
    say("TAP version 13")
    words = sys.argv[1:]
    for function in _tests:
        name = function.__name__
        if words and not any(word in name for word in words):
            continue
        say("# " + name)
        before = _count
        folder = pathlib.Path(tempfile.mkdtemp(prefix="subhost-test-")).resolve()
        try:
            function(folder)
            if _count == before:
                _report(False, name, {"error": "it asserted nothing"})
        except BaseException:
            _report(False, name, {"exception": traceback.format_exc()})
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    say(f"1..{_count}")
    if _failed:
        diag(f"{_failed} of {_count} failed")
    sys.exit(1 if _failed else 0)
