#!/usr/bin/env python3
# timeout: 180
"""The documentation's programs: the console snippets of the pages print what stands there, the
census counts right. embed.t has those in C."""
import os
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import BUILD, PYTHON, SOURCE, SUBHOST, equal, main, ok, run, script, skip, subhost, test

EXAMPLES = SOURCE / "docs" / "examples"
PAGES = ["README.md", *sorted(str(p.relative_to(SOURCE)) for p in (SOURCE / "docs").glob("*.md"))]
SANITIZED = any(line.startswith("SUBHOST_SANITIZE:STRING=") and not line.rstrip().endswith("=")
                for line in (BUILD / "CMakeCache.txt").read_text().splitlines())


def blocks(page, kind):
    """(line, text) of the fenced blocks of a kind."""
    text = (SOURCE / page).read_text()
    for match in re.finditer(rf"^```{kind}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield text.count("\n", 0, match.start()) + 1, match[1]


def commands(block):
    """(command, what it prints) of a console block: "$ " begins a command, "> " goes on."""
    found = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append([line[2:], ""])
        elif line.startswith("> ") and found and not found[-1][1]:
            found[-1][0] += "\n" + line[2:]
        elif found:
            found[-1][1] += line + "\n"
    return found


def matches(shown, got):
    """As shown, where "..." stands for anything."""
    return re.fullmatch(".*?".join(map(re.escape, shown.split("..."))), got, re.DOTALL)


@test
def console_snippets(folder):
    env = {"PATH": f"{pathlib.Path(SUBHOST).resolve().parent}:{os.environ['PATH']}"}
    count = 0
    for page in PAGES:
        for line, block in blocks(page, "console"):
            for command, shown in commands(block):
                count += 1
                result = run(["bash", "-c", f"exec 2>&1\n{command}"], env=env, cwd=folder)
                ok(matches(shown, result.out), f"{page}:{line}: {command.splitlines()[0][:60]}",
                   shown=shown, got=result.out)
    ok(count >= 10, "there are snippets", count=count)


@test
def census(folder):
    census_py = EXAMPLES / "census" / "census.py"
    script(folder, "class A:\n    def f(self):\n        def g(): pass\n        return g\n", "tree/a.py")
    script(folder, "if 1:\n    async def h():\n        pass\n", "tree/sub/b.py")
    script(folder, "def broken(:\n", "tree/sub/c.py")
    script(folder, "x = 1\n", "tree/site-packages/d.py")
    one = subhost("run", census_py, "1", folder / "tree")
    ok(re.match(r"worker 0 of 1: +2 files +7 lines +3 functions +1 classes +1 not parsed", one.out)
       and one.status == 0, "counts", result=one)
    equal([line.split(None, 2)[2] for line in one.out.splitlines()[1:]],
          ["A.f (a.py)", "h (sub/b.py)", "A.f.g (a.py)"], "the longest functions")
    both = subhost("run", "-n", "2", census_py, "2", folder / "tree")
    files = sum(map(int, re.findall(r"(\d+) files", both.out)))
    refused = sum(map(int, re.findall(r"(\d+) not parsed", both.out)))
    equal((both.status, files, refused), (0, 2, 1), "two workers share the files", result=both)
    usage = subhost("run", census_py)
    ok(usage.status == 1 and "WORKERS" in usage.err, "says how it is used", result=usage)


main()
