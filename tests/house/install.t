#!/usr/bin/env python3
# timeout: 180
"""`cmake --install`, and programs built against what it installed."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import BUILD, SOURCE, equal, main, ok, run, test

HELLO = """\
#include <stdio.h>
#include <subhost.h>
int main(void)
{
    return puts(subhost_version()) < 0;
}
"""
CONSUMER = """\
cmake_minimum_required(VERSION 3.25)
project(hello LANGUAGES C)
find_package(subhost 0.1 REQUIRED)
foreach(kind subhost static)
  add_executable(hello-${kind} hello.c)
  target_link_libraries(hello-${kind} PRIVATE subhost::${kind})
endforeach()
"""
VERSION = next(line.split('"')[1]
               for line in (BUILD / "embed/generated/subhost_config.h").read_text().splitlines()
               if "SUBHOST_BUILD_VERSION" in line)


def must(name, args, **kw):
    result = run(args, timeout=60, **kw)
    ok(result.status == 0, name, result=result)
    return result


def installed(folder):
    """Installs, then moves the tree: nothing in it may depend on its place."""
    first, prefix = folder / "first", folder / "the prefix"
    must("cmake --install", ["cmake", "--install", BUILD, "--prefix", first])
    if first.exists():
        first.rename(prefix)
    return prefix


def one(prefix, pattern):
    found = list(prefix.rglob(pattern))
    equal(len(found), 1, f"there is one {pattern}")
    return found[0]


def prints_version(name, args, **kw):
    result = must(name, args, **kw)
    equal(result.out.split()[:1], [VERSION], "it prints the version")


@test
def the_tree(folder):
    prefix = installed(folder)
    for pattern in ("subhost.h", "libsubhost.a", "libsubhost.so", "libsubhost.so.0",
                    "subhost.pc", "subhost-static.pc", "subhostConfig.cmake"):
        one(prefix, pattern)
    for source, place in (("docs/*.[135]", "share/man/man{0}"),
                          ("policies/*.toml", "share/subhost/policies")):
        for page in SOURCE.glob(source):
            target = prefix / place.format(page.suffix[1:]) / page.name
            ok(target.exists(), f"{page.name} is installed")
    result = must("the installed runner runs", [prefix / "bin" / "subhost", "--version"])
    ok(VERSION in result.out, "and says its version", result=result)


@test
def pkg_config(folder):
    prefix = installed(folder)
    library = one(prefix, "libsubhost.so").parent
    # pkg-config would quote a blank for a shell; what is run here is not one.
    plain = folder / "plain"
    plain.symlink_to(prefix)
    env = {"PKG_CONFIG_PATH": str(plain / library.relative_to(prefix) / "pkgconfig")}
    (folder / "hello.c").write_text(HELLO)
    for package in ("subhost", "subhost-static"):
        flags = must(f"pkg-config {package}",
                     ["pkg-config", "--cflags", "--libs", package], env=env).out.split()
        program = folder / package
        must(f"compiles with {package}", ["cc", folder / "hello.c", "-o", program, *flags])
        prints_version(f"runs with {package}", [program], env={"LD_LIBRARY_PATH": str(library)})
    needed = run(["readelf", "-d", folder / "subhost-static"]).out
    ok("libsubhost.so" not in needed, "subhost-static needs no libsubhost.so", needed=needed)
    names = {line.split()[-1] for line in
             run(["nm", "-D", "--defined-only", folder / "subhost-static"]).out.splitlines()}
    shared = {line.split()[-1].split("@")[0] for line in
              run(["nm", "-D", "--defined-only", library / "libsubhost.so"]).out.splitlines()}
    missing = {name for name in shared if not name.startswith(("subhost", "SUBHOST"))} - names
    equal(missing, set(), "it exports the interposed functions, as the shared library does")
    static = must("pkg-config --static subhost", ["pkg-config", "--static", "--libs", "subhost"],
                  env=env).out.split()
    ok("-lffi" in static and any("python3" in flag for flag in static),
       "pkg-config --static names what the archive needs", flags=static)


@test
def cmake_package(folder):
    prefix = installed(folder)
    project = folder / "project"
    project.mkdir()
    (project / "hello.c").write_text(HELLO)
    (project / "CMakeLists.txt").write_text(CONSUMER)
    build = project / "build"
    must("find_package(subhost)",
         ["cmake", "-G", "Ninja", "-S", project, "-B", build,
          f"-DCMAKE_PREFIX_PATH={prefix}"])
    must("builds", ["cmake", "--build", build])
    for kind in ("subhost", "static"):
        prints_version(f"runs with subhost::{kind}", [build / f"hello-{kind}"])
    needed = run(["readelf", "-d", build / "hello-static"]).out
    ok("libsubhost.so" not in needed, "subhost::static needs no libsubhost.so", needed=needed)


@test
def destdir(folder):
    env = {"DESTDIR": str(folder / "stage")}
    must("DESTDIR=... cmake --install", ["cmake", "--install", BUILD, "--prefix", "/usr"], env=env)
    ok((folder / "stage" / "usr" / "include" / "subhost.h").exists(), "installs below DESTDIR")


main()
