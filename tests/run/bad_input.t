#!/usr/bin/env python3
"""Whatever cannot work ends with a message that names the thing, and the right status:
125 subhost itself, 126 cannot be run, 127 not found.

What a program does to itself is elsewhere: syntax errors, os._exit, SystemExit in a thread
and a deleted file in ending.t, closed descriptors in streams.t, recursion in recursion.t."""
import ctypes
import os
import pathlib
import socket
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import NATIVE, SUBHOST, equal, main, ok, run, script, skip, subhost, test


def refused(status, *args, says=(), **kw):
    """`subhost ARGS` ends with STATUS, nothing on stdout, and an error of a few lines that
    contains each of SAYS, and says who speaks (for -m the words may be runpy's)."""
    shown = " ".join(str(arg)[:40] for arg in args) or "(nothing)"
    result = subhost(*args, timeout=10, **kw)
    texts = [says] if isinstance(says, str) else says
    ok(result.status == status and not result.out and all(text in result.err for text in texts)
       and 0 < len(result.err.splitlines()) <= 30 and "Traceback" not in result.err
       and (result.err.startswith("subhost: ") or "-m" in args),
       f"{shown}: {status} and a message with {', '.join(map(repr, texts)) or 'text'}",
       result=result)


@test
def usage(tmp):
    refused(125, says="--help")
    refused(125, "run", says=("FILE", "--help"))
    refused(125, "frobnicate", says=("frobnicate",))
    refused(125, "rum", "x.py", says=("rum", "run"))
    refused(125, "--frobnicate", says="--frobnicate")
    refused(125, "run", "--frobnicate", "x.py", says="--frobnicate")
    refused(125, "run", "--timeot", "5", "x.py", says=("--timeot", "--timeout"))
    refused(125, "run", "--wrokers=2", "x.py", says=("--wrokers", "--workers"))
    refused(125, "run", "-Z", "x.py", says="-Z")
    refused(125, "run", "--unordered", "x.py", says="--unordered")
    refused(125, "audit", "--gil", "own", "host")
    refused(125, "run", "--stats=5", "x.py", says="--stats")
    refused(125, "run", "--", says="FILE")
    for option in ("-m", "-c", "-n", "--workers", "--gil", "--timeout", "--grace"):
        refused(125, "run", option, says=option)


@test
def values(tmp):
    for value in ("0", "-1", "x", "", "1.5", "2x", "99999999999999999999", "1e3", "0x2"):
        refused(125, "run", "-n", value, "-c", "pass", says=("-n", repr(value)))
    refused(125, "run", "--workers=0", "-c", "pass", says="--workers")
    refused(125, "run", "--gil", "ours", "-c", "pass", says=("--gil", "ours", "own", "shared"))
    if "--isolation" in subhost("run", "--help").out:
        refused(125, "run", "--isolation=container", "-c", "pass",
                says=("--isolation", "container", "interpreter", "process"))
    else:
        skip("--isolation container", "--isolation is not there yet")
    refused(125, "run", "--timeout", "soon", "-c", "pass", says=("--timeout", "soon"))


@test
def spellings(tmp):
    """The usual ways to write an option all work."""
    for args in (["-n", "1"], ["-n1"], ["--workers", "1"], ["--workers=1"], ["--gil", "own"],
                 ["--gil=shared"], ["--timeout=20s", "--grace=1s"], ["-n1", "-n", "1"]):
        result = subhost("run", *args, "-c", "print(1)")
        equal((result.status, result.out, result.err), (0, "1\n", ""), " ".join(args))


@test
def programs_that_are_not_there(tmp):
    refused(127, "run", "no_such_file.py", says="no_such_file.py", cwd=tmp)
    refused(127, "run", tmp / "no/such/folder/x.py", says="folder/x.py")
    script(tmp, "pass", "file.py")
    refused(127, "run", "file.py/x.py", says="file.py/x.py", cwd=tmp)
    (tmp / "dangling").symlink_to("nowhere")
    refused(127, "run", "dangling", says="dangling", cwd=tmp)
    refused(127, "run", b"caf\xe9.py", says=os.fsdecode(b"caf\xe9.py"), cwd=tmp)
    refused(127, "run", "-m", "no_such_module", says="no_such_module")
    refused(127, "run", "-m", "json.no_such_part", says="no_such_part")
    refused(127, "run", "-m", "no_such_package.part", says="no_such_package")
    refused(127, "run", "-n", "3", "no_such_file.py", says="no_such_file.py", cwd=tmp)


@test
def programs_that_cannot_be_run(tmp):
    (tmp / "folder").mkdir()
    refused(126, "run", tmp / "folder", says=("folder", "__main__"))
    script(tmp, "", "pack/__init__.py")
    refused(126, "run", "-m", "pack", says=("pack", "__main__"), cwd=tmp)
    (tmp / "loop").symlink_to("loop")
    refused(126, "run", "loop", says="loop", cwd=tmp)
    refused(126, "run", "x" * 5000, says="xxxxxxxx", cwd=tmp)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp / "socket"))
        refused(126, "run", tmp / "socket", says="socket")
    result = subhost("run", "", cwd=tmp)
    ok(result.status in (126, 127) and result.err, "an empty file name", result=result)

    hidden = script(tmp, "print('read')", "hidden.py")
    hidden.chmod(0)
    (tmp / "closed").mkdir()
    script(tmp, "pass", "closed/x.py")
    (tmp / "closed").chmod(0)
    if os.getuid() == 0:
        # root reads everything by two capabilities; a program started without them does not.
        libc = ctypes.CDLL(None)
        pr_capbset_drop, dac_override, dac_read_search = 24, 1, 2

        def forgo():
            libc.prctl(pr_capbset_drop, dac_override, 0, 0, 0)
            libc.prctl(pr_capbset_drop, dac_read_search, 0, 0, 0)
    else:
        forgo = None
    if run(["cat", hidden], preexec_fn=forgo).status == 0:
        skip("an unreadable file", "this user reads everything")
    else:
        refused(126, "run", hidden, says=("hidden.py", "ermission"), preexec_fn=forgo)
        refused(126, "run", tmp / "closed" / "x.py", says=("closed/x.py", "ermission"),
                preexec_fn=forgo)
    (tmp / "closed").chmod(0o700)


@test
def errors_inside_the_program_are_its_own(tmp):
    """A missing module that the program imports is not "not found" of the program."""
    script(tmp, "import no_such_module_either", "importer.py")
    for args in (("importer.py",), ("-m", "importer"), ("-c", "import no_such_module_either")):
        result = subhost("run", *args, cwd=tmp)
        equal((result.status, result.last),
              (1, "ModuleNotFoundError: No module named 'no_such_module_either'"),
              f"{args[0]}: an import that fails inside is status 1", result=result)
    result = subhost("run", "-c", "open('no_such_file')")
    equal(result.status, 1, "a file that the program misses", result=result)


@test
def extension_modules(tmp):
    env = {"PYTHONPATH": str(NATIVE)}
    if not list(NATIVE.glob("single_phase*.so")):
        skip("extension modules", f"not built in {NATIVE}")
        return
    for module in ("single_phase", "multi_phase_no_slot"):
        code = f"import {module}; print({module}.answer())"
        result = subhost("run", "-c", code, env=env)
        ok(result.status == 1 and not result.out and "ImportError" in result.err
           and module in result.err, f"{module} is refused, by name", result=result)
        for advice in ("--gil shared", "--isolation process", f"subhost audit modules {module}"):
            ok(advice in result.err, f"{module}: the error advises {advice}", result=result)
        result = subhost("run", "--gil", "shared", "-c", code, env=env)
        equal((result.status, result.out, result.err), (0, "42\n", ""),
              f"{module} works with --gil shared", result=result)
        # A program that has a fallback must not notice, nor its user.
        script(tmp, f"""
            try:
                import {module}
            except ImportError as error:
                print("without", type(error).__name__)
        """, "fallback.py")
        result = subhost("run", "fallback.py", env=env, cwd=tmp)
        equal((result.status, result.out, result.err), (0, "without ImportError\n", ""),
              f"{module}: a program that catches the ImportError goes on quietly", result=result)
    script(tmp, "import single_phase", "user.py")
    result = subhost("run", "user.py", env=env, cwd=tmp)
    ok("user.py" in result.err and "--gil shared" in result.err,
       "the traceback leads to the import", result=result)
    result = subhost("run", "-n", "2", "-c", "import own_gil_ready; print(own_gil_ready.answer())",
                     env=env)
    equal((result.status, result.out, result.err), (0, "42\n42\n", ""),
          "own_gil_ready works in two interpreters", result=result)


@test
def extension_modules_that_import(tmp):
    """Their init function runs in the main interpreter, which has not loaded what only
    programs need; it finds all of it."""
    code = "import imports_at_init; print(imports_at_init.answer())"
    expressions = [
        ("__import__('json').loads('7')", "7"),
        ("type(__import__('codecs').lookup('utf-8')).__name__", "CodecInfo"),
        ("__import__('codecs').lookup('cp437').name", "cp437"),
        ("__import__('encodings').__file__.endswith('__init__.py')", "True"),
        ("__import__('encodings.utf_8').utf_8.getregentry().name", "utf-8"),
        ("__import__('io').__name__", "io"),
        ("__import__('zipimport').zipimporter.__name__", "zipimporter"),
        ("__import__('importlib.util').util.find_spec('no_such_module')", "None"),
        ("__import__('importlib.machinery').machinery.SourceFileLoader.__module__",
         "_frozen_importlib_external"),
    ]
    whole = "'; '.join(str(part) for part in [" + ", ".join(e for e, _ in expressions) + "])"
    for expression, wanted in (*expressions, (whole, "; ".join(w for _, w in expressions))):
        env = {"PYTHONPATH": str(NATIVE), "IMPORTS_AT_INIT": f"seen = str({expression})"}
        result = subhost("run", "-c", code, env=env)
        equal((result.status, result.out, result.err), (0, wanted + "\n", ""),
              f"{expression:.60}", result=result)
    for options in ("--gil", "shared"), ("-n", "2"):
        result = subhost("run", *options, "-c", code, env=env)
        equal(result.out.splitlines()[-1:], [wanted], f"all of it with {options}", result=result)


@test
def extension_modules_that_import_what_lies_beside_them(tmp):
    """They find it along the program's sys.path, which the main interpreter has not."""
    script(tmp, "import lib.beside", "lib/__init__.py")
    script(tmp, "import os; os.write(1, b'beside ')", "lib/beside.py")
    code = "import sys; sys.path[:0] = sys.argv[1:]; import single_phase; " \
           "print(single_phase.answer(), 'lib' in sys.modules)"
    script(tmp, code, "user.py")
    for extra in {}, {"PYTHONWARNINGS": "default"}:
        run = ["user.py", NATIVE]
        env = {"SINGLE_PHASE_NEEDS": "lib", **extra}
        result = subhost("run", "--gil", "shared", *run, env=env, cwd=tmp)
        equal((result.status, result.out, result.err), (0, "beside 42 False\n", ""),
              f"--gil shared, {extra}", result=result)
        result = subhost("run", *run, env=env, cwd=tmp)
        ok(result.status == 1 and "module 'single_phase' refuses" in result.err
           and "--gil shared" in result.err, f"with a GIL of its own: the advice, {extra}",
           result=result)
    script(tmp, "try:\n import single_phase\nexcept ImportError as error:\n"
                " raise ImportError('wrapped: ' + str(error)) from error", "wraps.py")
    result = subhost("run", "wraps.py", env={"PYTHONPATH": str(NATIVE)}, cwd=tmp)
    ok("module 'single_phase' refuses" in result.err, "the advice, where a package wraps it",
       result=result)
    for file in NATIVE.glob("single_phase*.so"):
        (tmp / "lib" / file.name).symlink_to(file)
    script(tmp, "from . import single_phase", "lib/__init__.py")
    result = subhost("run", "-c", "import lib", cwd=tmp)
    ok("subhost audit modules lib.single_phase`" in result.err, "by its whole name",
       result=result)
    result = subhost("run", "--isolation", "process", "-c", "import sys; print(sys.meta_path)")
    ok("importer" not in result.out, "a process has python's finders", result=result)


@test
def a_broken_output(tmp):
    """subhost's own text to a stdout that is full or gone is an error, not a crash."""
    with open("/dev/full", "w") as full:
        result = run([SUBHOST, "--help"], stdout=full)
    ok(result.status == 125 and result.err, "--help to /dev/full", result=result)


main()
