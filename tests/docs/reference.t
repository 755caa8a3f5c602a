#!/usr/bin/env python3
"""The pages that are made from the sources, or list what is in them, are up to date."""
import pathlib
import re
import runpy
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import BUILD, PYTHON, SOURCE, equal, main, ok, run, skip, subhost, test

DOCS = SOURCE / "docs"


@test
def reference(folder):
    result = run([PYTHON, DOCS / "make-reference", "--check"])
    ok(result.status == 0, "docs/reference.md and subhost.3 are what docs/make-reference writes",
       result=result)
    header = re.sub(r"/\*.*?\*/", "", (SOURCE / "embed/subhost.h").read_text(), flags=re.DOTALL)
    declared = set(re.findall(r"SUBHOST_API[^;{]*?\b(subhost_\w+)\s*\(", header))
    headings = set(re.findall(r"^### (\w+)$", (DOCS / "reference.md").read_text(), re.MULTILINE))
    equal(declared - headings, set(), "each function has its heading")
    man = (DOCS / "subhost.3").read_text().split(".Sh DESCRIPTION")[0]
    equal(declared - set(re.findall(r"\b(subhost_\w+)\(", man)), set(), "and is in the man page")


@test
def effects(folder):
    """The comment of each function says on which thread it may be called; of those that follow one
    another without a word, and of values, where one line stands for many, the first does."""
    made = runpy.run_path(str(DOCS / "make-reference"))
    without = [made["name_of"](declaration) for _, comment, declaration in made["read"]()[1]
               if not declaration.startswith(("#", "typedef", "enum", "struct"))
               and not re.search(r"\bthreads?\b|As subhost_\w+\(\)\.$", comment, re.IGNORECASE)]
    equal([name for name in without if name not in ("subhost_value_begin", "subhost_value_end")], [],
          "each has its effect line")


@test
def trail(folder):
    result = run([PYTHON, DOCS / "make-trail", "--check"])
    ok(result.status == 0, "docs/trail.md is what docs/make-trail writes", result=result)


@test
def policies(folder):
    result = run([PYTHON, DOCS / "make-policy", "--check"])
    ok(result.status == 0, "docs/policy.md and subhost-policy.5 are what docs/make-policy writes",
       result=result)
    keys = re.findall(r"^  (\w+\.\w+) = ", subhost("policy", "--help").out, re.MULTILINE)
    page = re.findall(r"^### (\w+\.\w+)$", (DOCS / "policy.md").read_text(), re.MULTILINE)
    man = re.findall(r"^\.It Cm (\w+\.\w+) ", (DOCS / "subhost-policy.5").read_text(), re.MULTILINE)
    equal((page, man), (keys, keys), "every key of the runner has its place in both")


@test
def private_symbols(folder):
    text = (DOCS / "private-symbols.md").read_text()
    section = text.split("## Interposed libc functions", 1)[1].split("\n## ", 1)[0]
    listed = set(re.findall(r"`(\w+)`", section.split("\n\n")[2]))
    names = subprocess.run(["nm", "-D", "--defined-only", BUILD / "lib" / "libsubhost.so"],
                           capture_output=True, text=True, check=True).stdout.split()[2::3]
    exported = {name for name in names if not name.startswith(("subhost", "SUBHOST"))}
    # Sanitizers export names of their own.
    exported = {name for name in exported if not re.match("__?(asan|ubsan|tsan|odr)", name)}
    replaced = set(re.findall(r"^`(Py\w+)`:", text, re.MULTILINE))
    equal(listed | replaced, exported, "the interposed functions are those that the library exports")
    used = set()
    for path in (*(SOURCE / "embed").glob("*.c"), *(SOURCE / "audit").glob("*.c")):
        code = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        used |= set(re.findall(r"\b_Py[A-Z]\w+", code))
        used |= set(re.findall(r'dlsym\(RTLD_\w+,\s*"(\w+)"\)', code))
    missing = {name for name in used if not re.search(rf"`{name}`", text)}
    equal(missing, set(), "CPython's private names, and what is looked up by dlsym(), are listed")


@test
def man_page(folder):
    """Options and statuses of --help stand in the man page."""
    page = (DOCS / "subhost.1").read_text().replace("\\-", "-")
    page = re.sub(r"\bFl (-?)", r"-\1", page)
    for command in "run", "map":
        text = subhost(command, "--help").out
        options = set(re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)(?= |,|$)",
                                 text.split("Options:")[1].split("\n\n")[0], re.MULTILINE))
        equal({option for option in options if option not in page}, set(),
              f"{command}: the options")
        statuses = set(re.findall(r"\b1[234]\d\b", text))
        equal({status for status in statuses if status not in page}, set(),
              f"{command}: the exit statuses")


@test
def man_pages(folder):
    """groff finds nothing wrong with them."""
    for page in sorted(DOCS.glob("*.[135]")):
        if not shutil.which("groff"):
            skip(page.name, "no groff")
            continue
        result = run(["groff", "-mdoc", "-ww", "-z", "-Tutf8", page])
        equal((result.status, result.err), (0, ""), f"{page.name}: groff", result=result)


@test
def links(folder):
    """Relative links lead to files that are there."""
    for page in [SOURCE / "README.md", SOURCE / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]:
        targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
        missing = [target for target in targets
                   if "://" not in target and not (page.parent / target).exists()]
        equal(missing, [], f"{page.name}: links")
        wide = [n for n, line in enumerate(page.read_text().splitlines(), 1) if len(line) > 100]
        equal(wide, [], f"{page.name}: at most 100 columns")


main()
