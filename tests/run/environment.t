#!/usr/bin/env python3
"""Environment variables, locales and virtual environments act on a hosted program as they
act on `python`."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import PYTHON, SUBHOST, equal, main, ok, python, run, same, script, subhost, test

SHOW = """
import gc, locale, os, sys, warnings
print(sys.path)
print(sys.flags)
print(sys.warnoptions, sys._xoptions, [f[0] + f[2].__name__ for f in warnings.filters])
print(sys.getfilesystemencoding(), sys.getfilesystemencodeerrors(), locale.getlocale(),
      locale.getpreferredencoding(False), locale.getencoding())
for stream in (sys.stdin, sys.stdout, sys.stderr):
    print(stream.encoding, stream.errors, stream.line_buffering, stream.write_through)
print(sys.get_int_max_str_digits(), sys.pycache_prefix, sys.dont_write_bytecode)
print(sys.prefix, sys.exec_prefix, sys.base_prefix)
"""


@test
def variables(tmp):
    script(tmp, SHOW, "show.py")
    script(tmp, "print('startup')", "startup.py")
    script(tmp, "import sys; sys.from_sitecustomize = 1; print('sitecustomize')",
           "custom/sitecustomize.py")
    for name, value in (
        ("PYTHONPATH", "x:/nowhere:"), ("PYTHONPATH", str(tmp / "custom")), ("PYTHONPATH", ""),
        ("PYTHONSTARTUP", str(tmp / "startup.py")), ("PYTHONHASHSEED", "0"),
        ("PYTHONHASHSEED", "random"), ("PYTHONOPTIMIZE", "2"), ("PYTHONSAFEPATH", "1"),
        ("PYTHONDONTWRITEBYTECODE", "1"), ("PYTHONPYCACHEPREFIX", str(tmp / "cache")),
        ("PYTHONWARNINGS", "error,ignore::DeprecationWarning"), ("PYTHONIOENCODING", "latin-1"),
        ("PYTHONIOENCODING", ":backslashreplace"), ("PYTHONUTF8", "1"), ("PYTHONUTF8", "0"),
        ("PYTHONUNBUFFERED", "1"), ("PYTHONNOUSERSITE", "1"), ("PYTHONINTMAXSTRDIGITS", "1000"),
        ("PYTHONDEVMODE", "1"), ("PYTHONWARNDEFAULTENCODING", "1"), ("PYTHONPLATLIBDIR", "lib"),
        ("PYTHONNODEBUGRANGES", "1"), ("PYTHONBREAKPOINT", "0"), ("PYTHONTRACEMALLOC", ""),
        ("PYTHONFAULTHANDLER", ""), ("PYTHONMALLOC", "malloc"), ("PYTHONINSPECT", ""),
        ("PYTHONUSERBASE", str(tmp)), ("PYTHONCOERCECLOCALE", "0"), ("PYTHONEXECUTABLE", "/x"),
    ):
        for args in (("show.py",), ("-c", SHOW)):
            same(*args, cwd=tmp, env={name: value}, status=0,
                 name=f"{name}={value.replace(str(tmp), 'TMP')} with {args[0]}")
    same("-m", "show", cwd=tmp, env={"PYTHONSAFEPATH": "1", "PYTHONPATH": str(tmp)}, status=0,
         name="PYTHONSAFEPATH with -m")
    same("-c", "assert False\nprint(__debug__)", env={"PYTHONOPTIMIZE": "1"}, status=0,
         name="PYTHONOPTIMIZE drops assert")
    same("-c", "print(hash('a'), hash(b'x'), list({'a', 'b', 'c'}))",
         env={"PYTHONHASHSEED": "42"}, name="PYTHONHASHSEED fixes hashes", status=0)
    hashes = {subhost("run", "-c", "print(hash('a'))").out for _ in range(3)}
    ok(len(hashes) > 1, "hashes are random without it", hashes=hashes)
    same("-c", "breakpoint(); print(1)", env={"PYTHONBREAKPOINT": "builtins.print"}, status=0,
         name="PYTHONBREAKPOINT")
    same("-c", "raise ValueError(1)", env={"FORCE_COLOR": "1"}, name="FORCE_COLOR", status=1)


@test
def bad_variables(tmp):
    # The text is CPython's; what matters is a clear end, not a crash.
    for name, value in (("PYTHONHASHSEED", "x"), ("PYTHONINTMAXSTRDIGITS", "12"),
                        ("PYTHONUTF8", "7"), ("PYTHONMALLOC", "klingon")):
        result = subhost("run", "-c", "pass", env={name: value})
        ok(result.status == 125 and name in result.err,
           f"{name}={value}: status 125 and the name", result=result)
    result = subhost("run", "-c", "pass", env={"PYTHONHOME": str(tmp)})
    ok(result.status == 125 and result.err, "a PYTHONHOME without a library: 125", result=result)
    result = subhost("run", "-c", "print(1)", env={"PYTHONIOENCODING": "klingon"})
    ok(result.status == 125 and "encoding" in result.err, "PYTHONIOENCODING=klingon: 125",
       result=result)


@test
def locales(tmp):
    # Only locales that every machine has.
    for locale in ("C", "POSIX", "C.UTF-8", "no_SUCH.locale", ""):
        env = {"LC_ALL": locale, "LANG": None, "LC_CTYPE": None, "PYTHONUTF8": None}
        same("-c", SHOW, env=env, name=f"LC_ALL={locale}", status=0)
        same("-c", "import os; print(os.environ.get('LC_CTYPE'), '\\xe9'); "
             "os.system('echo \"$LC_CTYPE\"')", env=env, name=f"LC_ALL={locale}: coercion")
        same("-c", "import sys; print(ascii(sys.argv))", b"\xff\xc3\xa9", env=env,
             name=f"LC_ALL={locale}: argv", status=0)
        same("-c", "print(ascii('\xe9'))", env=env, name=f"LC_ALL={locale}: the source of -c",
             status=0)
    same(b"-c", b"print('\xff')", env={"LC_ALL": "C"}, name="-c that is no text", status=1)
    env = dict.fromkeys(("LC_ALL", "LC_CTYPE", "LANG"))
    same("-c", SHOW, env=env, name="no locale at all", status=0)
    same("-c", "import locale\nprint(locale.setlocale(locale.LC_ALL))\n"
         "print(locale.localeconv()['decimal_point'])", name="the locale of the C library",
         status=0)


@test
def seen_by_the_program(tmp):
    show = "import os; print(sorted(os.environb.items()))"
    clean = {"A": "1", "ODD": "\udcff", "PATH": "/usr/bin:/bin", "EMPTY": ""}
    command = ["env", "-i", *(f"{key}={value}" for key, value in clean.items())]
    mine, theirs = (run([*command, *runner, "-c", show]) for runner in ([SUBHOST, "run"], [PYTHON]))
    equal((mine.out, mine.err), (theirs.out, theirs.err), "os.environ is untouched")
    same("-c", "import os; os.environ['A'] = 'set'; os.putenv('B', 'put'); del os.environ['PATH']; "
         "os.system('echo $A $B ${PATH:-gone}')", name="changes reach children", status=0)


@test
def virtual_environments(tmp):
    made = python("-m", "venv", "--without-pip", tmp / "venv")
    equal(made.status, 0, "a venv", made=made)
    site = python("-c", "import sysconfig, sys; print(sysconfig.get_path('purelib', 'venv', "
                  "{'base': sys.argv[1]}))", tmp / "venv").out.strip()
    script(site, "where = __file__", "only_in_venv/__init__.py")
    show = ("import sys, only_in_venv, subprocess\n"
            "print(sys.prefix, sys.base_prefix, sys.exec_prefix, sys.executable)\n"
            "print(sys.path[1:], only_in_venv.where)\n"
            "print(subprocess.run([sys.executable, '-c', 'import only_in_venv, sys; "
            "print(only_in_venv.where, sys.prefix)'], capture_output=True, text=True))\n")
    inside = run([tmp / "venv/bin/python", "-c", show])
    equal(inside.status, 0, "the venv's own python imports the package", inside=inside)
    active = subhost("run", "-c", show, env={"VIRTUAL_ENV": str(tmp / "venv")})
    equal((active.out, active.err, active.status), (inside.out, inside.err, 0),
          "VIRTUAL_ENV: prefix, path, executable and package as with the venv's python")
    outside = subhost("run", "-c", show)
    equal((outside.status, outside.last),
          (1, "ModuleNotFoundError: No module named 'only_in_venv'"), "not without it")
    for name, value in (("an empty", ""), ("a missing", str(tmp / "nowhere")),
                        ("a wrong", str(tmp))):
        result = subhost("run", "-c", "import sys; print(sys.prefix == sys.base_prefix)",
                         env={"VIRTUAL_ENV": value})
        equal((result.status, result.out), (0, "True\n"), f"{name} VIRTUAL_ENV is no venv",
              result=result)


main()
