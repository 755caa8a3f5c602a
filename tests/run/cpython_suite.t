#!/usr/bin/env python3
# timeout: 900
"""CPython's own test suite: `subhost run -m unittest MODULE` has the same tests, failures
and skips as `python -m unittest MODULE`, for the modules in cpython_modules.txt."""
import concurrent.futures
import os
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import diag, main, ok, python, skip, subhost, test

LIST = pathlib.Path(__file__).with_name("cpython_modules.txt")


def modules():
    """{module: {known difference: reason}}"""
    found = {}
    for line in LIST.read_text().splitlines():
        if line.startswith("test."):
            found[line.strip()] = known = {}
        elif line.startswith(" "):
            name, reason = line.split(maxsplit=1)
            known[name] = reason
    return found


class Outcome:
    def __init__(self, result):
        self.result = result
        # A module may run other suites in its tests; its own summary comes last.
        summary = re.findall(r"^Ran (\d+) tests? in .*\n\n(\w[\w ]*)(?:\((.*)\))?$", result.err, re.M)
        self.ran, self.word, counts = summary[-1] if summary else ("no summary", "", "")
        self.counts = dict(item.split("=") for item in counts.split(", ") if "=" in item)
        self.failed = set(re.findall(r"^(?:ERROR|FAIL|UNEXPECTED SUCCESS): \S+ \(([\w.]+)\)",
                                     result.err, re.M))

    def skipped(self):
        return int(self.counts.get("skipped", 0))

    def __str__(self):
        return (f"ran {self.ran} {self.word}{self.counts} status {self.result.status}\n"
                + "\n".join(sorted(self.failed)))


def once(runner, module, folder):
    folder.mkdir()
    # A home of its own: some tests write there, and two runs of them are under way.
    return Outcome(runner("-m", "unittest", module, cwd=folder, env={"HOME": str(folder)},
                          timeout=120))


def compare(module, known, mine, theirs):
    if f"No module named '{module}'" in theirs.result.err:
        skip(module, "this version does not have it")
        return
    more_skips = sum(int(name[8:]) for name in known if name.startswith("skipped+"))
    excused = {name for name in mine.failed - theirs.failed if name in known}
    for name in sorted(excused):
        diag(f"{name}: {known[name]}")
    good = (mine.ran == theirs.ran and mine.failed - excused == theirs.failed
            and theirs.skipped() <= mine.skipped() <= theirs.skipped() + more_skips
            and (mine.result.status == theirs.result.status or excused))
    if good:
        ok(True, f"{module}: {mine.ran} tests as with python")
    else:
        ok(False, f"{module}: as with python", subhost=mine, python=theirs,
           new="\n".join(sorted(mine.failed - theirs.failed - excused)), run=mine.result)


@test
def suite(tmp):
    if python("-c", "import test.support").status:
        skip("CPython's test suite", "this python comes without it")
        return
    listed = modules()
    jobs = {}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, module in enumerate(listed):
            jobs[module] = [
                pool.submit(once, lambda *args, **kw: subhost("run", *args, **kw), module,
                            tmp / f"subhost-{number}"),
                pool.submit(once, python, module, tmp / f"python-{number}"),
            ]
        for module, known in listed.items():
            compare(module, known, *(job.result() for job in jobs[module]))


main()
