#!/usr/bin/env python3
# timeout: 180
"""The examples of docs/examples/embed and the programs of the guide and the README, built as a
user builds them: against the installed library, by pkg-config and by CMake, as C and as C++."""
import concurrent.futures
import os
import pathlib
import re
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import BUILD, PYTHON, SOURCE, equal, main, ok, run, skip, subhost, test

EXAMPLES = SOURCE / "docs" / "examples" / "embed"
SANITIZED = any(line.startswith("SUBHOST_SANITIZE:STRING=") and not line.rstrip().endswith("=")
                for line in (BUILD / "CMakeCache.txt").read_text().splitlines())
LOOP = "worker/0: exited with 10\nworker/1: exited with 11\nthe loop ticked meanwhile: yes\n"
DOMAIN = run([PYTHON, "-c", "import math\ntry: math.sqrt(-2.0)\n"
              "except ValueError as e: print(e)"]).out.strip()  # as this CPython says it

# Example: (packages beside subhost, by pkg-config's names, what it prints).
PROGRAMS = {
    "hello": ([], "hello from cpython\noutcome: exited, status 7\n"),
    "poll_loop": ([], LOOP),
    "glib": (["glib-2.0"], LOOP),
    "libuv": (["libuv"], LOOP),
    "cancel": ([], "after 100 ms: the deadline passed\ncleaning up: no longer needed\n"
               "outcome: cancelled (subhost.Cancelled: no longer needed)\n"),
    "pool": ([], f"0: float 4\n1: float 3\n2: raised: ValueError: {DOMAIN}\n3: float 1\n"),
    "qsort": ([], "worker 0: sorted\nworker 1: sorted\n"),
    "sqlite": (["sqlite3"], "worker 0: [['1', '3'], ['2', '6'], ['40', '120']]\n"
               "worker 1: [['1', '4'], ['2', '7'], ['40', '121']]\n"),
    "zlib": (["zlib"], "1900 bytes, smaller: True the same again: True\ncrc 0x1208b3cf\n"
             "uncompress() failed: it returned -5 -5\n"),
}
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
COMPILERS = {"c": ["cc"], "c++": ["c++", "-x", "c++", "-std=c++17"]}


def installed(folder):
    """(where, the environment for pkg-config and for running)"""
    prefix = folder / "prefix"
    result = run(["cmake", "--install", BUILD, "--prefix", prefix], timeout=60)
    ok(result.status == 0, "cmake --install", result=result)
    library = next(prefix.rglob("libsubhost.so")).parent
    return prefix, {"PKG_CONFIG_PATH": str(library / "pkgconfig"), "LD_LIBRARY_PATH": str(library)}


def at_hand():
    """The examples whose packages are there. CI has them all (tests/install-deps)."""
    found = {}
    for name, (packages, out) in PROGRAMS.items():
        missing = [p for p in packages if run(["pkg-config", "--exists", p]).status != 0]
        if not missing:
            found[name] = packages, out
        elif os.environ.get("CI"):
            ok(False, name, missing=missing)
        else:
            skip(name, f"no {', '.join(missing)}: tests/install-deps")
    return found


def lines(text):
    """Of two workers either may be first."""
    return sorted(text.splitlines())


def flags(packages, env):
    result = run(["pkg-config", "--cflags", "--libs", "subhost", *packages], env=env)
    equal(result.status, 0, f"pkg-config subhost {' '.join(packages)}", result=result)
    return result.out.split()


def build(source, program, language, libraries):
    return run([*COMPILERS[language], *WARNINGS, source, *libraries, "-o", program], timeout=60)


def all_of(jobs):
    """Two at a time: most of it is waiting for sleeps."""
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        yield from executor.map(lambda job: (job[0], job[1]()), jobs)


@test
def every_example_is_here(folder):
    equal(sorted(PROGRAMS), sorted(path.stem for path in EXAMPLES.glob("*.c")), "all of them")


@test
def pkg_config(folder):
    if SANITIZED:
        return skip("pkg-config", "the build's sanitizer runtime is not in these programs")
    _, env = installed(folder)
    jobs = []
    for name, (packages, out) in at_hand().items():
        libraries = flags(packages, env)
        for language in COMPILERS:
            program = folder / f"{name}-{language}"

            def job(source=EXAMPLES / f"{name}.c", program=program, language=language,
                    libraries=libraries):
                built = build(source, program, language, libraries)
                return built if built.status else run([program], env=env)

            jobs.append((f"{name} as {language}", job))
    for what, result in all_of(jobs):
        wanted = PROGRAMS[what.split()[0]][1]
        equal((result.status, lines(result.out), result.err), (0, lines(wanted), ""), what,
              result=result)


# ---- the pages ----------------------------------------------------------------------

FAIL = """
static int fail(subhost_error *err)
{
    fprintf(stderr, "%s\\n", subhost_error_message(err));
    subhost_error_free(err);
    return 1;
}
"""
INCLUDES = "".join(f"#include <{name}>\n" for name in
                   ("math.h", "stdbool.h", "stdio.h", "stdlib.h", "string.h", "subhost.h"))


def sections(page):
    """{heading: its text}"""
    parts = re.split(r"^## (.+)$", (SOURCE / page).read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def blocks(text, kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def around(fragment):
    """A program of what a page has as a piece: with a host and an interpreter, unless it opens
    one itself, or must not have one."""
    own = "subhost_open(" in fragment
    none = "subhost_audit(" in fragment
    opened = "" if own or none else ("    subhost_interp *interp;\n    if (subhost_open(NULL, &host, "
                                     "&err) || subhost_interp_create(host, NULL, &interp, &err))\n"
                                     "        return fail(err);\n")
    ended = "" if none else ("    if (subhost_close(host, SUBHOST_CLOSE_FINALIZE, "
                             "SUBHOST_MSEC(2000), &err))\n        return fail(err);\n")
    given = "" if own or none else "    subhost_interp_release(interp);\n"
    host = "" if none else "    subhost_host *host;\n"
    return (f"{INCLUDES}{FAIL}\nint main(void)\n{{\n    subhost_error *err = NULL;\n{host}{opened}"
            f"    {{\n{fragment}    }}\n    if (err)\n        return fail(err);\n{given}{ended}"
            "    return 0;\n}\n")


@test
def the_first_program_of_the_guide(folder):
    """As its reader does it: the pieces one after another into a file."""
    text = sections("docs/guide.md")["A first program"]
    (folder / "scoring.py").write_text("".join(blocks(text, "python")))
    (folder / "first.c").write_text("\n".join(blocks(text, "c")))
    if SANITIZED:
        return skip("first.c", "the build's sanitizer runtime is not in this program")
    _, env = installed(folder)
    for language in COMPILERS:
        program = folder / f"first-{language}"
        built = build(folder / "first.c", program, language, flags([], env))
        result = built if built.status else run([program], env=env, cwd=folder)
        equal((result.status, result.out, result.err), (0, blocks(text, "text")[0], ""),
              f"first.c as {language}", result=result)


@test
def pieces_of_the_pages(folder):
    """Each compiles and runs; README.md's program is whole."""
    if SANITIZED:
        return skip("pieces", "the build's sanitizer runtime is not in these programs")
    _, env = installed(folder)
    libraries = [*flags([], env), "-lm"]
    jobs = []
    for heading, text in [*sections("docs/guide.md").items(), *sections("README.md").items()]:
        for fragment in blocks(text, "c") if heading != "A first program" else []:
            source = folder / f"piece{len(jobs)}.c"
            source.write_text(fragment if "int main" in fragment else around(fragment))

            def job(source=source):
                built = build(source, source.with_suffix(""), "c", libraries)
                return built if built.status else run([source.with_suffix("")], env=env, cwd=folder,
                                                      timeout=60)

            jobs.append((f"{heading}: {fragment.splitlines()[0]}", job))
    ok(len(jobs) >= 6, "there are pieces", count=len(jobs))
    for what, result in all_of(jobs):
        equal((result.status, result.err), (0, ""), what, result=result)
    for heading, text in sections("docs/guide.md").items():
        for fragment in blocks(text, "python") if heading != "A first program" else []:
            (folder / "piece.py").write_text(fragment)
            result = subhost("run", "--native", "libm.so.6:f64 pow(f64 x, f64 y)",
                             folder / "piece.py")
            equal((result.status, result.err), (0, ""), f"{heading}: {fragment.splitlines()[0]}",
                  result=result)


@test
def cmake(folder):
    if SANITIZED:
        return skip("CMake", "the build's sanitizer runtime is not in these programs")
    prefix, _ = installed(folder)
    project = folder / "project"
    project.mkdir()
    text = ["cmake_minimum_required(VERSION 3.25)", "project(examples LANGUAGES C CXX)",
            "set(CMAKE_CXX_STANDARD 17)", f"add_compile_options({' '.join(WARNINGS)})",
            "find_package(subhost 0.1 REQUIRED)", "find_package(PkgConfig REQUIRED)"]
    examples = at_hand()
    for name, (packages, _) in examples.items():
        shutil.copy(EXAMPLES / f"{name}.c", project / f"{name}.c")
        shutil.copy(EXAMPLES / f"{name}.c", project / f"{name}.cc")
        if packages:
            text.append(f"pkg_check_modules({name} REQUIRED IMPORTED_TARGET {' '.join(packages)})")
        more = f" PkgConfig::{name}" if packages else ""
        for program, source in (f"{name}-c", f"{name}.c"), (f"{name}-c++", f"{name}.cc"):
            text += [f"add_executable({program} {source})",
                     f"target_link_libraries({program} PRIVATE subhost::subhost{more})"]
    (project / "CMakeLists.txt").write_text("\n".join(text) + "\n")
    result = run(["cmake", "-G", "Ninja", "-S", project, "-B", project / "build",
                  f"-DCMAKE_PREFIX_PATH={prefix}"], timeout=60)
    ok(result.status == 0, "find_package(subhost)", result=result)
    result = run(["cmake", "--build", project / "build"], timeout=120)
    ok(result.status == 0, "builds", result=result)
    jobs = [(f"{name} as {language}",
             lambda program=project / "build" / f"{name}-{language}": run([program]))
            for name in examples for language in COMPILERS]
    for what, result in all_of(jobs):
        wanted = PROGRAMS[what.split()[0]][1]
        equal((result.status, lines(result.out), result.err), (0, lines(wanted), ""), what,
              result=result)


main()
