#!/usr/bin/env python3
"""A program finds itself where `python` would have put it: argv, __main__, sys.path,
flags, in every form in which a program can be given."""
import pathlib
import sys
import zipfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import PYTHON, equal, main, ok, python, run, same, script, subhost, test

# What a program can see of how it was started, one item a line.
PROBE = """
import builtins, gc, json, os, sys, threading, warnings
def show(name, value):
    print(name, value if isinstance(value, str) else ascii(value))
show("argv", sys.argv)
show("globals", sorted(set(globals()) - {"builtins", "gc", "json", "os", "sys", "threading",
                                         "warnings", "show", "probe", "runpy"}))
for name in ("__name__", "__file__", "__package__", "__doc__", "__spec__", "__cached__"):
    show(name, globals().get(name, "absent"))
show("loader", str(type(globals().get("__loader__"))) + str(__loader__ is None))
show("builtins", __builtins__ is builtins)
show("__main__", sys.modules["__main__"].__dict__ is globals())
show("path", sys.path)
show("flags", sys.flags)
show("executable", os.path.realpath(sys.executable))
show("base executable", os.path.realpath(sys._base_executable))
show("prefixes", [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix,
                  sys.platlibdir, getattr(sys, "_stdlib_dir", None)])
show("version", sys.version)
show("implementation", [sys.implementation.cache_tag, sys.abiflags, sys.api_version])
show("options", [sys.warnoptions, sys._xoptions, sys.dont_write_bytecode,
                 sys.pycache_prefix, sys.get_int_max_str_digits(), sys.getrecursionlimit(),
                 sys.getswitchinterval(), hasattr(sys, "ps1"), hasattr(sys, "last_exc")])
show("filters", [f[0] + f[2].__name__ for f in warnings.filters])
show("encodings", [sys.getfilesystemencoding(), sys.getfilesystemencodeerrors(),
                   sys.getdefaultencoding()])
for stream in (sys.stdin, sys.stdout, sys.stderr):
    show("stream", [stream.name, stream.mode, stream.encoding, stream.errors,
                    stream.line_buffering, stream.write_through, stream.fileno()])
show("std", [sys.__stdin__ is sys.stdin, sys.__stdout__ is sys.stdout,
             sys.__stderr__ is sys.stderr])
show("threads", [threading.current_thread() is threading.main_thread(),
                 threading.current_thread().name, threading.active_count(),
                 threading.current_thread().daemon, threading.stack_size()])
show("gc", [gc.isenabled(), gc.get_threshold(), gc.get_debug()])
show("finders", [str(finder) for finder in sys.meta_path])
show("hooks", [sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__,
               sys.gettrace(), sys.getprofile(), len(sys.path_hooks)])
show("cwd", os.getcwd())
"""


def probe(folder, name="probe.py"):
    return script(folder, PROBE, name)


@test
def forms_of_a_program(tmp):
    file = probe(tmp)
    same(file, "a", "b c", "", name="FILE by absolute path", status=0)
    same("probe.py", "-n", "2", "--timeout", "x", "--help", "-m", "-c", cwd=tmp, status=0,
         name="FILE by relative path, options behind it are the program's")
    same("./probe.py", cwd=tmp, name="FILE with a dot", status=0)
    same("-c", PROBE, "one", "-m", "--", cwd=tmp, name="-c", status=0)
    same("-m", "probe", "-c", "x", cwd=tmp, name="-m MODULE", status=0)
    same("-", "x", "-", cwd=tmp, input=PROBE, name="- with arguments", status=0)

    script(tmp, "import probe", "package/__init__.py")
    probe(tmp, "package/__main__.py")
    probe(tmp, "package/part.py")
    same("-m", "package", "x", cwd=tmp, name="-m PACKAGE", status=0)
    same("-m", "package.part", cwd=tmp, name="-m PACKAGE.PART", status=0)

    script(tmp, "import sys; print('init', sys.argv)", "early/__init__.py")
    script(tmp, "print(__package__)", "early/__main__.py")
    same("-m", "early", "arg", cwd=tmp, name="argv while a package's __init__ runs", status=0)


@test
def folders_and_archives(tmp):
    probe(tmp, "app/__main__.py")
    script(tmp, "value = 1", "app/helper.py")
    same(tmp / "app", "x", name="a folder with __main__.py", status=0)
    same("app", cwd=tmp, name="a folder by relative path", status=0)
    same("app/", cwd=tmp, name="a folder with a slash", status=0)
    with zipfile.ZipFile(tmp / "app.zip", "w") as archive:
        archive.write(tmp / "app/__main__.py", "__main__.py")
        archive.writestr("helper.py", "value = 1")
    same(tmp / "app.zip", "x", name="a zip with __main__.py", status=0)
    (tmp / "app.pyz").write_bytes(b"#!/usr/bin/env python3\n" + (tmp / "app.zip").read_bytes())
    same("app.pyz", cwd=tmp, name="a zip with a shebang", status=0)


@test
def unusual_files(tmp):
    probe(tmp, "no_suffix")
    same("no_suffix", cwd=tmp, name="a file without a suffix", status=0)
    probe(tmp, "deep/er/probe.py")
    (tmp / "link.py").symlink_to("deep/er/probe.py")
    same("link.py", cwd=tmp, name="a symbolic link: sys.path[0] is its target's folder", status=0)
    odd = bytes(tmp) + b"/sp ace \xff\xe4\n.py"
    with open(odd, "w") as file:
        file.write(PROBE)
    same(odd, name="a file name with a blank, a newline and bytes that are not UTF-8", status=0)
    (tmp / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nprint(ascii('\xe4'))\n")
    same(tmp / "latin.py", name="a source with a coding line", status=0)
    (tmp / "bom.py").write_bytes(b"\xef\xbb\xbfprint(1)\r\nprint(2)\r\n")
    same(tmp / "bom.py", name="a source with BOM and CRLF", status=0)
    (tmp / "empty.py").write_bytes(b"")
    same(tmp / "empty.py", name="an empty file", status=0)
    same("-c", "", name="-c with nothing", status=0)
    same("-", input="", name="- with nothing", status=0)
    probe(tmp, "compiled.py")
    done = python("-c", "import py_compile; py_compile.compile('compiled.py', 'compiled.pyc')",
                  cwd=tmp)
    equal(done.status, 0, "compiling", done=done)
    same("compiled.pyc", cwd=tmp, name="a .pyc", status=0)
    equal(subhost("run", "/dev/stdin", input="print(6 * 7)").out, "42\n", "/dev/stdin as FILE")


@test
def arguments(tmp):
    file = script(tmp, "import sys; print(ascii(sys.argv[1:]))")
    odd = [b"\xff\xfe", b"caf\xc3\xa9", b"\xed\xa0\x80", "", " ", "-", "--", "*", "\n",
           "\U0001f600"]
    same(file, *odd, name="any bytes as arguments of FILE", status=0)
    same("-c", "import sys; print(ascii(sys.argv))", *odd, name="any bytes behind -c", status=0)
    same("-c", "print(ascii('é\U0001f600'))", name="-c with non-ASCII text", status=0)
    many = [str(number) for number in range(20000)]
    same(file, *many, name="20,000 arguments", status=0)
    result = subhost("run", "--", file, "-x")
    equal((result.status, result.out), (0, "['-x']\n"), "-- ends the options", result=result)
    same("-c", "import sys; print(sys.argv)", "--", "x", name="-- behind -c is the program's")
    result = subhost("run", "-cprint(5)")
    equal((result.status, result.out), (0, "5\n"), "-cCODE in one word, as python has it")
    same("-mthis", name="-mMODULE in one word", status=0)


@test
def sys_executable_is_python(tmp):
    result = subhost("run", "-c", """
import subprocess, sys
text = "import sys; print(sys.version, sys.prefix)"
there = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
print(there.stdout == f"{sys.version} {sys.prefix}\\n", there.stderr)
""")
    equal(result.out, "True \n", "sys.executable runs and is the same python", result=result)
    equal(run(["realpath", PYTHON]).status, 0, "the reference exists")


@test
def main_module(tmp):
    script(tmp, """
        import sys
        if __name__ == "__main__":
            import program, pickle
            class Thing: pass
            print(program is not sys.modules["__main__"], program.seen)
            print(type(pickle.loads(pickle.dumps(Thing()))).__module__)
        seen = __name__
    """)
    same("program.py", cwd=tmp, name="the program can import itself a second time", status=0)
    same("-c", "import sys\nx: int = 1\nprint(sys.modules['__main__'].__annotations__)", status=0,
         name="annotations at top level")
    # Newer flags are attributes only, not part of the tuple.
    same("-c", "import sys\nfor name in dir(sys.flags):\n    value = getattr(sys.flags, name)\n"
         "    if not callable(value): print(name, value)", name="every flag", status=0)
    same("-c", "import sys\nsys.set_int_max_str_digits(5000)\n"
         "print(sys.flags.int_max_str_digits, len(str(10**4500)))", status=0,
         name="a flag that can be changed")
    same("-c", """
import inspect, linecache, sys
def f():
    pass
print(f.__module__, f.__code__.co_filename, f.__code__.co_firstlineno)
try:
    print(inspect.getsource(f))
except OSError as error:
    print(error)
""", name="source of a function in -c", status=0)
    same("-c", "import sys; print(sys._getframe().f_back, sys._getframe().f_code.co_name)",
         name="no frame below the program's", status=0)
    same("-c", "import concurrent.futures as f\n"
         "with f.ThreadPoolExecutor(4) as pool: print(list(pool.map(str, range(9))))",
         name="a thread pool", status=0)
    same("-c", "import asyncio, sys\n"
         "async def main():\n"
         "    p = await asyncio.create_subprocess_exec(sys.executable, '-c', 'print(3)',\n"
         "                                             stdout=-1)\n"
         "    print(await p.communicate(), p.returncode)\n"
         "asyncio.run(main())", name="asyncio with a subprocess", status=0)


@test
def pid_and_children(tmp):
    result = subhost("run", "-c", "import os; print(os.getpid() == int(open('/proc/self/stat')"
                     ".read().split()[0]), os.getppid() > 0)")
    equal(result.out, "True True\n", "os.getpid() is the process's", result=result)
    same("-c", "import resource as r\n"
         "print([(n, r.getrlimit(getattr(r, n))) for n in dir(r) if n.startswith('RLIMIT_')])",
         name="the resource limits are untouched", status=0)
    same("-c", "import os; print(sorted(os.listdir('/proc/self/fd'))[:3], "
         "os.umask(0o22), os.getpgid(0) == os.getsid(0))", name="fds 0 to 2, umask, session")
    # Descriptors of the host must not leak into children; the one listed is listdir's own.
    same("-c", "import os; os.system('ls /proc/self/fd | cat')",
         name="a child inherits no descriptor of the host", status=0)
    same("-c", "import os; print(open('/proc/self/comm').read())", status=0,
         clean=lambda text: "\n" if text.strip() else text, name="a name for ps")


@test
def help_and_version(tmp):
    result = subhost("--version")
    equal(result.status, 0, "--version: status", result=result)
    version = python("-c", "import platform; print(platform.python_version())").out.strip()
    ok(result.out.startswith("subhost ") and version in result.out,
       "--version names subhost and CPython's version", result=result)
    ok("libffi" in result.out.lower(), "--version names libffi", result=result)
    for args in (("--help",), ("run", "--help"), ("-h",)):
        result = subhost(*args)
        equal((result.status, result.err), (0, ""), f"{' '.join(args)}: status", result=result)
        ok("usage" in result.out.lower() and "run" in result.out,
           f"{' '.join(args)} goes to stdout", result=result)


main()
