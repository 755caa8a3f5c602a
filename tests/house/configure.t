#!/usr/bin/env python3
# timeout: 120
"""How the configure step finds CPython, and what it says when it does not."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import PYTHON, SOURCE, equal, main, ok, run, test

MODULE = SOURCE / "embed" / "cmake" / "FindCPython.cmake"
COMMANDS = {
    "Debian": "apt-get install python3-dev",
    "Ubuntu": "add-apt-repository ppa:deadsnakes/ppa",
    "Fedora": "dnf install python3-devel",
    "Arch": "pacman -S python",
    "pyenv": "PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install",
}
GOOD = {
    "implementation": "cpython", "version": "3.13.1", "level": "final", "bits": 64,
    "include_dir": "/include", "plat_include_dir": "/include", "library": "/lib/libpython.so",
    "library_expected": "libpython.so", "include_expected": "/include", "shared": 1,
    "free_threaded": 0, "ldversion": "3.13", "multiarch": "", "ext_suffix": ".so",
}


def configure(folder, *options, **kw):
    """The real thing: the project's own configure step."""
    return run(["cmake", "-G", "Ninja", "-S", SOURCE, "-B", folder / "build", *options],
               timeout=60, **kw)


def find(*options, **kw):
    """Only the search; its message is one line, so that wrapping does not matter."""
    result = run(["cmake", *options, "-P", MODULE], **kw)
    result.text = " ".join((result.out + result.err).split())
    return result


def fake(folder, name, **facts):
    """An interpreter that says of itself what the test wants."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = GOOD | {"executable": path} | facts
    path.write_text("#!/bin/sh\ncat <<'END'\n"
                    + "".join(f"{key}={value}\n" for key, value in lines.items()) + "END\n")
    path.chmod(0o755)
    return path


def names_commands(text, name):
    missing = [system for system, command in COMMANDS.items() if command not in text]
    equal(missing, [], name)


@test
def a_wrong_path(folder):
    result = configure(folder, "-DSUBHOST_PYTHON=/nonexistent/python")
    text = " ".join(result.err.split())
    equal(result.status, 1, "a path that does not exist: configure fails")
    ok("SUBHOST_PYTHON=/nonexistent/python cannot be used" in text, "names it", text=text)
    ok("/nonexistent/python does not exist" in text, "says why", text=text)
    names_commands(text, "and how to install one")


@test
def a_wrong_version(folder):
    result = configure(folder, "-DSUBHOST_PYTHON=3.99")
    text = " ".join(result.err.split())
    equal(result.status, 1, "a version that is not there: configure fails")
    ok("SUBHOST_PYTHON=3.99 cannot be used" in text, "names it", text=text)
    ok("is not 3.99" in text, "says of a usable one that it is another version", text=text)
    names_commands(text, "and how to install one")


@test
def none_at_all(folder):
    result = configure(folder, f"-DCPython_DIRS={folder}")
    text = " ".join(result.err.split())
    equal(result.status, 1, "no interpreter anywhere: configure fails")
    ok("CPython 3.13 or newer" in text and "none was found" in text, "says so", text=text)
    names_commands(text, "and how to install one")


@test
def refusals(folder):
    cases = {
        "is older than 3.13": {"version": "3.12.7"},
        "is pypy, not CPython": {"implementation": "pypy"},
        "is a free-threaded build": {"free_threaded": 1},
        "is a 32-bit program": {"bits": 32},
        "was built without a shared libpython": {"shared": 0},
        "has no headers: no Python.h in /include (Debian, Ubuntu: python3.13-dev)":
            {"include_dir": ""},
        "has no libpython.so to link with": {"library": ""},
    }
    for number, (why, facts) in enumerate(cases.items()):
        path = fake(folder / str(number), "python3.13", **facts)
        result = find(f"-DCPython_WANTED={path}", "-DCMAKE_SIZEOF_VOID_P=8")
        ok(result.status == 1 and why in result.text, "refused, with the reason: " + why,
           result=result)
    broken = folder / "broken" / "python3"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'it is broken' >&2\nexit 3\n")
    broken.chmod(0o755)
    result = find(f"-DCPython_WANTED={broken}")
    ok(result.status == 1 and "does not run: it is broken" in result.text,
       "refused, with what it said: one that does not run", result=result)
    result = find(f"-DCPython_WANTED={folder}")
    ok(result.status == 1 and "is a directory, not an interpreter" in result.text,
       "refused: a directory", result=result)


@test
def the_choice(folder):
    old = fake(folder / "a", "python3.13")
    new = fake(folder / "b b", "python3.15", version="3.15.0")
    early = fake(folder / "c", "python3.16", version="3.16.0", level="alpha")
    fake(folder / "d", "python3.17t", version="3.17.0", free_threaded=1)
    dirs = "-DCPython_DIRS=" + ";".join(str(folder / name) for name in ("a", "b b", "c", "d"))
    for wanted, expected, name in (
        ("", new, "the newest release, not a pre-release or a free-threaded build"),
        ("3.13", old, "a version asked for"),
        ("3.13.1", old, "all three numbers of a version"),
        ("3.16", early, "a pre-release when it is asked for"),
        (new, new, "a path asked for, with a blank in it"),
    ):
        result = find(dirs, f"-DCPython_WANTED={wanted}")
        ok(result.status == 0 and f": {expected}, /lib/libpython.so" in result.text,
           "found: " + name, result=result)
    result = find(dirs, "-DCPython_WANTED=3.1")
    ok(result.status == 1 and "(3.13.1) is not 3.1" in result.text, "3.13 is not taken for 3.1",
       result=result)


@test
def a_virtual_environment(folder):
    made = run([PYTHON, "-m", "venv", "--without-pip", folder / "v e"])
    equal(made.status, 0, "a virtual environment is made")
    path = folder / "v e" / "bin" / "python"
    result = configure(folder, f"-DSUBHOST_PYTHON={path}", "-DSUBHOST_TESTS=OFF")
    ok(result.status == 0, "its interpreter can be asked for", result=result)
    header = (folder / "build" / "embed" / "generated" / "subhost_config.h").read_text()
    ok(f'SUBHOST_BUILD_PYTHON_EXECUTABLE "{path}"' in header,
       "and is recorded by the environment's own path", header=header)


main()
