#!/usr/bin/env python3
"""What the shared library and the runner export, and that the header stands alone."""
import ctypes
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import BUILD, SOURCE, SUBHOST, equal, main, ok, run, test

HEADER = SOURCE / "embed" / "subhost.h"
LIBRARY = BUILD / "lib" / "libsubhost.so"


def exported(path):
    """{name: version} of the defined dynamic functions; "" is the base version."""
    result = run(["nm", "-D", "--defined-only", path])
    found = {}
    for line in result.out.splitlines():
        kind, name = line.split()[-2:]
        if kind in "TWViBDR":
            name, _, version = name.partition("@")
            found[name] = version.lstrip("@")
    return found


def declared():
    """The functions of the public header."""
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    return set(re.findall(r"SUBHOST_API[^;{]*?\b(subhost_\w+)\s*\(", text))


def interposed():
    """Each word in the sources that interpose; a name exported must be among them."""
    words = set()
    for path in (SOURCE / "embed").glob("interpose*.c"):
        words |= set(re.findall(r"\w+", path.read_text()))
    return words


def is_of_libc(name):
    """Or of libpython, which is in this process too."""
    try:
        return bool(ctypes.CDLL(None)[name])
    except AttributeError:
        return False


@test
def the_library(folder):
    found = exported(LIBRARY)
    api = {name for name in found if name.startswith("subhost_")}
    internal = {name for name in api if name.startswith("subhost__")}
    equal(internal, set(), "nothing internal is exported")
    equal(api - internal, declared(), "what is exported is what the header declares")
    versions = {found[name] for name in api}
    equal(versions, {"SUBHOST_0"}, "with the version SUBHOST_0")

    others = set(found) - api
    strangers = {name for name in others if name not in interposed() or not is_of_libc(name)}
    equal(strangers, set(), "all else is a function of libc or libpython, interposed on purpose")
    versioned = {name for name in others if found[name]}
    equal(versioned, set(), "in the base version, which alone stands for every version")


@test
def the_runner(folder):
    library, runner = exported(LIBRARY), exported(SUBHOST)
    others = {name for name in library if not name.startswith("subhost_")}
    equal(others - set(runner), set(), "the runner exports the interposed functions too")


@test
def the_header(folder):
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", f"-I{HEADER.parent}"]
    source = folder / "alone.c"
    source.write_text("#include <subhost.h>\n#include <subhost.h>\nint alone;\n")
    for name, command in {
        "C11": ["cc", "-std=c11", "-Wstrict-prototypes"],
        "C++17": ["c++", "-x", "c++", "-std=c++17"],
    }.items():
        result = run([*command, *strict, source])
        ok(result.status == 0, f"compiles alone, twice, as {name}", result=result)


main()
