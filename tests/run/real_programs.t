#!/usr/bin/env python3
# timeout: 300
"""Real programs, most of them from the standard library, behave as under `python`."""
import base64
import hashlib
import http.client
import json
import os
import pathlib
import random
import re
import signal
import sys
import time
import zipfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import PATIENCE, PYTHON, SUBHOST, both, equal, main, ok, python, run, same, script, skip
from tap import spawn, subhost, test


@test
def tools_of_the_library(tmp):
    """Anything that a module of the standard library does from the command line."""
    file = script(tmp, '''
        """A module to work on.

        >>> double(4)
        8
        """
        import sys

        def double(x: int) -> int:
            """Twice X."""
            return x * 2

        if __name__ == "__main__":
            print(double(len(sys.argv)))
    ''', "work.py")
    script(tmp, """
        import unittest
        class T(unittest.TestCase):
            def test_good(self): self.assertEqual(1, 1)
            @unittest.skip("why")
            def test_skipped(self): pass
            def test_bad(self): self.assertEqual(1, 2)
    """, "test_work.py")
    script(tmp, "print(__name__)", "app/__main__.py")
    sources = {
        "ast": [file], "dis": [file], "tokenize": [file], "py_compile": [file], "tabnanny": [file],
        "pyclbr": [file], "symtable": [file], "doctest": ["-v", file], "inspect": ["work"],
        "pydoc": ["work"], "unittest": ["-v", "test_work"], "base64": ["-e", file],
        "json.tool": ["--sort-keys"], "calendar": ["2030", "2"], "sysconfig": [], "site": [],
        "this": [], "__hello__": [], "zipapp": ["app", "-o", "/dev/null"], "textwrap": [],
        "runpy": ["work", "x"], "trace": ["--listfuncs", file], "code": ["-q"], "shlex": [],
        "pdb": [file], "encodings.rot_13": [], "mimetypes": ["x.html"], "quopri": [file],
        "gzip": ["--help"], "zipfile": ["--help"], "tarfile": ["--help"], "cProfile": ["--help"],
        "platform": [], "random": ["--help"], "sqlite3": [":memory:", "select 6 * 7"],
        "asyncio": [],
    }
    inputs = {"json.tool": '{"b": [1, 2], "a": null}', "code": "x = 5\nprint(x)\n1 / 0\n",
              "pdb": "next\nnext\nprint(42)\nwhere\ncontinue\nquit\n", "shlex": "a 'b c'",
              "encodings.rot_13": "hello", "asyncio": "await asyncio.sleep(0, 3)\n"}

    def clean(text):
        text = re.sub(r"(?<=Ran )(\d+ tests?) in [\d.]+s", r"\1", text)
        # The banners of interactive tools name the build's compiler, which is the same; the
        # time and temporary names are not.
        return re.sub(r"tmp[a-z0-9_]{8}", "tmp", text)

    for module, args in sources.items():
        same("-m", module, *args, cwd=tmp, input=inputs.get(module, ""), clean=clean,
             env={"PYTHONDONTWRITEBYTECODE": "1", "PAGER": "cat", "MANPAGER": "cat"},
             name=f"-m {module}")


@test
def json_tool(tmp):
    chance = random.Random(7)
    items = [{"id": n, "name": "é" * (n % 7) + str(n),
              "values": [chance.random() for _ in range(8)],
              "more": {"flag": n % 2 == 0, "none": None, "text": "x" * (n % 50)}}
             for n in range(73_000)]
    (tmp / "in.json").write_text(json.dumps(items))
    size = (tmp / "in.json").stat().st_size
    ok(size >= 20_000_000, f"a file of {size / 1e6:.1f} MB")
    env = {"PYTHONUTF8": "1"}
    mine, theirs = both("-m", "json.tool", "in.json", cwd=tmp, env=env, timeout=60)
    equal((mine.status, mine.err), (theirs.status, theirs.err), "-m json.tool: status")
    equal(hashlib.sha256(os.fsencode(mine.out)).hexdigest(),
          hashlib.sha256(os.fsencode(theirs.out)).hexdigest(), "-m json.tool: the same output")
    ok(len(mine.out) > size, "and all of it")
    (tmp / "bad.json").write_text('{"a": 1,}')
    same("-m", "json.tool", "bad.json", cwd=tmp, name="-m json.tool on bad input", status=1)


@test
def compileall(tmp):
    library = python("-c", "import os; print(os.path.dirname(os.__file__))").out.strip()
    left_out = "/(test|tests|idlelib|lib2to3|site-packages|dist-packages|turtledemo)/"
    trees = []
    for name, runner in (("python", [PYTHON]), ("subhost", [SUBHOST, "run"])):
        result = run([*runner, "-m", "compileall", "-q", "-x", left_out, library],
                     env={"PYTHONPYCACHEPREFIX": str(tmp / name)}, timeout=120)
        trees.append((result.status, result.out, result.err.replace(name, ""),
                      sorted(str(path.relative_to(tmp / name)) for path in
                             (tmp / name).rglob("*.pyc"))))
    equal(trees[1], trees[0], "-m compileall of the library: status, output, list of files")
    ok(len(trees[1][3]) > 400, f"{len(trees[1][3])} files")
    result = python("-c", "import json, sys; print(json.__spec__.cached, json.loads('5'))",
                    env={"PYTHONPYCACHEPREFIX": str(tmp / "subhost")})
    ok(result.status == 0 and str(tmp / "subhost") in result.out, "python loads what it wrote",
       result=result)


def serve(runner, folder):
    """Serve FOLDER, fetch two files, Ctrl-C. Returns the Result (with .late, seconds after
    the Ctrl-C) and what was fetched."""
    with spawn([*runner, "-m", "http.server", "0", "--bind", "127.0.0.1"], cwd=folder,
               env={"PYTHONUNBUFFERED": "1"}) as it:
        it.wait_for(") ...")
        port = int(re.search(rb"port (\d+)", it.output["out"])[1])
        pages = []
        for path in ("/page.txt", "/", "/missing"):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", path)
            answer = connection.getresponse()
            pages.append((path, answer.status, answer.read()))
            connection.close()
        it.wait_for("/missing", stream="err")
        sent = time.monotonic()
        it.signal(signal.SIGINT)
        result = it.finish(10)
        result.late = it.started + result.seconds - sent
        result.out = re.sub(r"port \d+|:\d+", "PORT", result.out)
        result.err = re.sub(r"\[.*?\]", "[DATE]", result.err)
        return result, pages


@test
def http_server(tmp):
    script(tmp, "content " * 1000, "page.txt")
    (mine, pages), (theirs, their_pages) = (serve(runner, tmp)
                                            for runner in ([SUBHOST, "run"], [PYTHON]))
    equal(pages, their_pages, "http.server: the same pages")
    equal((mine.out, mine.err, mine.status), (theirs.out, theirs.err, theirs.status),
          "http.server: log, farewell and status")
    late = [mine.late]
    while min(late) > 0.1 and len(late) < 5:  # the best of five: machines have other work too
        late.append(serve([SUBHOST, "run"], tmp)[0].late)
    ok(min(late) <= 0.1 * PATIENCE, "http.server: ends within 100 ms of a Ctrl-C",
       seen=late, python=theirs.late)


@test
def timeit(tmp):
    result = subhost("run", "-m", "timeit", "-n", "1000", "-r", "3", "sum(range(10))")
    ok(result.status == 0 and re.search(r"1000 loops, best of 3: [\d.]+ [nu]sec per loop",
                                        result.out), "-m timeit", result=result)
    result = subhost("run", "-m", "timeit", "-s", "x = 1", "-u", "usec", "-r", "1", "x + 1")
    ok(result.status == 0 and "usec per loop" in result.out, "-m timeit finds its own count",
       result=result)


def wheel(folder):
    """A wheel of a pure-Python package, made by hand."""
    files = {
        "greeting/__init__.py": b"from .words import hello\n__version__ = '1.5'\n",
        "greeting/words.py": b"def hello(): return 'hello from ' + __file__\n",
        "greeting/__main__.py": b"import greeting, sys\nprint(greeting.hello(), sys.argv[1:])\n",
        "greeting-1.5.dist-info/METADATA": b"Metadata-Version: 2.1\nName: greeting\nVersion: 1.5\n",
        "greeting-1.5.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\n"
                                        b"Root-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}")
    files["greeting-1.5.dist-info/RECORD"] = "\n".join(
        [*lines, "greeting-1.5.dist-info/RECORD,,", ""]).encode()
    path = folder / "greeting-1.5-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@test
def virtual_environment(tmp):
    made = subhost("run", "-m", "venv", "--without-pip", "venv", cwd=tmp)
    equal((made.status, made.out, made.err), (0, "", ""), "subhost run -m venv", made=made)
    python("-m", "venv", "--without-pip", "reference", cwd=tmp)

    def files(name):
        return sorted(str(path.relative_to(tmp / name)) for path in (tmp / name).rglob("*"))

    equal(files("venv"), files("reference"), "makes the same files as python -m venv")
    equal((tmp / "venv/pyvenv.cfg").read_text().replace("venv", "V"),
          (tmp / "reference/pyvenv.cfg").read_text().replace("reference", "V")
          .replace("venv", "V"), "and the same pyvenv.cfg")
    equal(run([tmp / "venv/bin/python", "-c", "import sys; print(sys.prefix)"]).out,
          f"{tmp}/venv\n", "its python works")
    env = {"VIRTUAL_ENV": str(tmp / "venv")}
    site = subhost("run", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))",
                   env=env).out.strip()
    if not ok(site.startswith(str(tmp / "venv")), "purelib is in the environment", site=site):
        return  # nothing may be written into the real one
    with zipfile.ZipFile(wheel(tmp)) as archive:
        archive.extractall(site)
    expected = f"hello from {site}/greeting/words.py"
    result = subhost("run", "-c", "import greeting, importlib.metadata as m\n"
                     "print(greeting.hello(), m.version('greeting'))", env=env)
    equal((result.status, result.out), (0, expected + " 1.5\n"), "a package of the environment",
          result=result)
    result = subhost("run", "-n", "2", "-m", "greeting", "x", env=env)
    equal((result.status, result.out), (0, f"{expected} ['x']\n" * 2), "-m PACKAGE, two workers",
          result=result)


@test
def pip(tmp):
    made = python("-m", "venv", "venv", cwd=tmp, timeout=90)
    if made.status:
        skip("pip", "this python cannot make an environment with pip")
        return
    env = {"VIRTUAL_ENV": str(tmp / "venv"), "PIP_DISABLE_PIP_VERSION_CHECK": "1",
           "PIP_REQUIRE_VIRTUALENV": "1"}
    result = subhost("run", "-m", "pip", "install", "--no-index", "--no-deps", wheel(tmp), env=env,
                     timeout=60)
    ok(result.status == 0 and "Successfully installed greeting-1.5" in result.out,
       "pip installs a wheel", result=result)
    result = run([tmp / "venv/bin/python", "-m", "greeting"])
    ok(result.status == 0 and result.out.startswith(f"hello from {tmp}/venv/"),
       "into the environment", result=result)


main()
