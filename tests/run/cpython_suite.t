#!/usr/bin/env python3
# timeout: 900
"""CPython's own test suite: `subhost run -m unittest MODULE` has the same tests, failures
and skips as `python -m unittest MODULE`, for the modules in cpython_modules.txt: half of them on
CPython 3.14, a quarter of them, another one each, on the others.

SUBHOST_TEST_ROUNDS   when set: all of them"""
import concurrent.futures
import os
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import main, ok, python, skip, subhost, test

LIST = pathlib.Path(__file__).with_name("cpython_modules.txt")
SHARE = (1 if "SUBHOST_TEST_ROUNDS" in os.environ else
         2 if sys.version_info[:2] == (3, 14) else 4)


class Known:
    """What is in the list. A line "~ REGEX" excuses every test that is skipped, or fails, with
    a text like that; a line "TEST" below a module excuses that test. Indented: the reason."""

    def __init__(self, lines):
        self.patterns, self.modules = [], {}
        for line in lines:
            if line.startswith("~ "):
                self.patterns.append(line[2:].strip())
            elif line.startswith("test."):
                self.modules[line.strip()] = tests = []
            elif line.startswith("  - "):
                tests.append(line[4:].strip())

    def excuses(self, text):
        return any(re.search(pattern, text) for pattern in self.patterns)


class Outcome:
    def __init__(self, result, known):
        self.result = result
        # A module may run other suites in its tests; its own summary comes last.
        summary = re.findall(r"^Ran (\d+) tests? in .*\n\n(\w[\w ]*)(?:\((.*)\))?$",
                             result.err, re.M)
        self.ran, self.word, counts = summary[-1] if summary else ("no summary", "", "")
        self.counts = dict(item.split("=") for item in counts.split(", ") if "=" in item)
        self.skipped = int(self.counts.get("skipped", 0))
        self.excused_skips, self.classes = 0, False
        for name, reason in re.findall(r"^(?:(\w+).*)?\.\.\. skipped (.*)$", result.err, re.M):
            if known.excuses(reason):
                self.excused_skips += 1
                self.classes |= name in ("setUpClass", "setUpModule")
        self.failed, self.excused = set(), set()
        for report in re.split(r"^={70}$", result.err, flags=re.M)[1:]:
            if found := re.match(r"\n(?:ERROR|FAIL|UNEXPECTED SUCCESS): \S+ \(([\w.]+)\)", report):
                # The exceptions themselves; a source line in a traceback proves nothing.
                errors = "\n".join(re.findall(r"^[\w.]+: .*", report[found.end():], re.M))
                (self.excused if known.excuses(errors) else self.failed).add(found[1])

    def __str__(self):
        return (f"ran {self.ran} {self.word}{self.counts} status {self.result.status}\n"
                + "\n".join(sorted(self.failed)))


def once(runner, module, folder, known):
    folder.mkdir()
    # A home of its own: some tests write there, and two runs of them are under way.
    return Outcome(runner("-m", "unittest", "-v", module, cwd=folder, env={"HOME": str(folder)},
                          timeout=120), known)


def compare(module, known, mine, theirs):
    if f"No module named '{module}'" in theirs.result.err:
        skip(module, "this version does not have it")
        return
    excused = mine.excused | (mine.failed - theirs.failed) & set(known.modules[module])
    new = mine.failed - theirs.failed - excused
    # A class that is skipped as a whole counts as one skip, and its tests not as run.
    ran = mine.ran == theirs.ran or mine.classes and mine.ran < theirs.ran
    skips = (mine.skipped - mine.excused_skips == theirs.skipped - theirs.excused_skips)
    status = mine.result.status == (1 if excused else theirs.result.status)
    if ran and skips and status and not new:
        ok(True, f"{module}: {mine.ran} tests as with python"
           + (f", {len(excused)} cannot pass" if excused else "")
           + (f", {mine.excused_skips - theirs.excused_skips} cannot run"
              if mine.excused_skips > theirs.excused_skips else ""))
    else:
        ok(False, f"{module}: as with python", subhost=mine, python=theirs,
           new="\n".join(sorted(new)), run=mine.result)


@test
def suite(tmp):
    if python("-c", "import test.support").status:
        skip("CPython's test suite", "this python comes without it")
        return
    known = Known(LIST.read_text().splitlines())
    # Which ones: by the version, so that a run can be repeated.
    modules = list(known.modules)[sys.version_info[1] % SHARE::SHARE]
    jobs = {}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() + 1) as pool:
        for number, module in enumerate(modules):
            jobs[module] = [
                pool.submit(once, lambda *args, **kw: subhost("run", *args, **kw), module,
                            tmp / f"subhost-{number}", known),
                pool.submit(once, python, module, tmp / f"python-{number}", known),
            ]
        for module, pair in jobs.items():
            compare(module, known, *(job.result() for job in pair))


main()
