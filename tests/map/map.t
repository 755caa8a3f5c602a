#!/usr/bin/env python3
"""`subhost map`: what it reads, calls and writes, and what it says when it cannot."""
import fcntl
import importlib.machinery
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import (BUILD, PATIENCE, PYTHON, SUBHOST, environment, equal, main, ok, run, script, skip,
                 subhost, test)

FUNCTIONS = """
import ast, os, sys, time
def square(x): return x * x
def same(x): return x
def fails(x):
    if x % 10 == 7: raise ValueError(f"no {x}")
    return x
def slow(x):
    time.sleep(0.05 if x == 0 else 0); return x
def prints(x): print("hello", x); return x
def where(x): return os.getcwd() in sys.path
def count(path):
    with open(path, "rb") as file:
        tree = ast.parse(file.read())
    kinds = {}
    for node in ast.walk(tree):
        kinds[type(node).__name__] = kinds.get(type(node).__name__, 0) + 1
    return kinds
def moved(x):
    import collections
    result = collections.OrderedDict.fromkeys("abc", x)
    result.move_to_end("a")
    return result
class A:
    @staticmethod
    def b(x): return [x]
RESULTS = [{1, 2}, b"x", float("nan"), {(1, 2): 3}, object(), 10 ** 5000]
def odd(i): return RESULTS[i]
loop = []
loop.append(loop)
def endless(x): return loop
number = 3
def runs(x): return os.system("true")
def shares(x):
    os.system("cat; echo from a child")
    os.write(1, b"from the item\\n")
    return [x, os.read(0, 100).decode()]
def flaky(x):
    path = f"tries.{x}"
    with open(path, "a") as file: file.write("x")
    if os.path.getsize(path) < 3: raise OSError("not yet")
    return os.path.getsize(path)
seen = []
def sees(x):
    if x == "raise": raise ValueError(x)
    seen.append(x)
    return len(seen)
def worse(x):
    path = f"tries.{x}"
    with open(path, "a") as file: file.write("x")
    if os.path.getsize(path) < 3:
        if x == 0: os._exit(2)
        return RESULTS[x]
    return os.path.getsize(path)
"""

PLAIN = """
import importlib, json, sys
sys.path.insert(0, "")
module, name = sys.argv[1].split(":")
function = getattr(importlib.import_module(module), name)
for index, line in enumerate(open(sys.argv[2])):
    print(json.dumps({"index": index, "ok": True, "value": function(json.loads(line))}))
"""


def lines(result):
    return [json.loads(line) for line in result.out.splitlines()]


def values(result):
    return [line.get("value") for line in lines(result)]


def errors(result):
    return {line["index"]: (line["kind"], line["error"]) for line in lines(result)
            if not line["ok"]}


def numbers(count):
    return "".join(f"{i}\n" for i in range(count))


@test
def the_main_job(folder):
    """The standard library's source files, as a plain loop would."""
    script(folder, FUNCTIONS, "functions.py")
    script(folder, PLAIN, "plain.py")
    library = pathlib.Path(os.__file__).parent
    files = sorted(library.glob("*.py"))[:60]
    (folder / "in").write_text("".join(json.dumps(str(file)) + "\n" for file in files))
    plain = run([PYTHON, "plain.py", "functions:count", "in"], cwd=folder)
    for options in [], ["-j1"], ["-j", "3"], ["--isolation", "process"]:
        got = subhost("map", *options, "functions:count", "in", cwd=folder)
        equal((got.status, got.out), (0, plain.out), f"{options}: as a plain loop", result=got)
    got = subhost("map", "--unordered", "functions:count", "in", cwd=folder)
    equal(sorted(got.out.splitlines()), sorted(plain.out.splitlines()), "--unordered: the same")


@test
def order_and_input(folder):
    script(folder, FUNCTIONS, "functions.py")
    got = subhost("map", "functions:slow", input=numbers(2000), cwd=folder)
    equal([line["index"] for line in lines(got)], list(range(2000)), "in the input's order")
    equal(values(got), list(range(2000)), "each value with its index")
    (folder / "a").write_text("1\n2")
    (folder / "b").write_text("3\n")
    got = subhost("map", "functions:square", "a", "-", "b", input="7\n", cwd=folder)
    equal(values(got), [1, 4, 49, 9], "files and standard input, the last line without an end")
    equal(subhost("map", "functions:square", input="", cwd=folder).status, 0, "nothing to do")
    got = subhost("map", "functions:A.b", input="1\n", cwd=folder)
    equal(values(got), [[1]], "a function inside a class")
    got = subhost("map", "functions:where", input="1\n", cwd=folder)
    equal(values(got), [True], "the current directory is importable")
    got = subhost("map", "functions:prints", input="1\n", cwd=folder)
    equal((values(got), got.err), ([1], "hello 1\n"), "what it prints goes to stderr")


@test
def round_trips(folder):
    """Whatever JSON has, printed to the byte as json.dumps() prints it."""
    script(folder, FUNCTIONS, "functions.py")
    script(folder, PLAIN, "plain.py")
    texts = ['{"a\\u0000b": [1, {"\\u0000": 2}], "NaN Infinity \\\\\\"NaN": 123456789012345678901}',
             '"é \\u00e9 \\ud83d\\ude00 \\ud800 \\u0000 \\u007f \\\\ \\" / \\b\\f\\n\\r\\t"',
             '"😀 ü"', "[]", "{}", '{"a": {"b": [1, [2, [3]]]}, "": null}', "-0", "-0.0",
             "123456789012345678901234567890", "-9223372036854775809", "18446744073709551616",
             "1e400", '{"a": 1, "b": 2, "a": 3}', "  [1 ,2 ]\r", "true", "null",
             "[" * 500 + "]" * 500]
    floats = [5e-324, 2.0 ** -44, 1e16, 9999999999999998.0, 1e-5, 0.0001, 0.1, 123456.789, 1e22,
              1e23, 1.7976931348623157e308, 2.2250738585072014e-308, 2.0 ** 70, 1 / 3, 100.0]
    floats += [2.0 ** n for n in range(-1074, 1024, 7)] + [1.1 ** n for n in range(-3000, 3000, 41)]
    floats += [n * 7919 / 10 ** d for n in (1, -3, 1250, 99999999, 10 ** 11) for d in range(7)]
    texts += [repr(number) for number in floats] + [str(7 ** n - 9 ** n) for n in range(25)]
    texts.remove("1e400")
    (folder / "in").write_text("\n".join(texts), encoding="utf-8")
    plain = run([PYTHON, "plain.py", "functions:same", "in"], cwd=folder)
    got = subhost("map", "functions:same", "in", cwd=folder)
    equal(got.out, plain.out, "as json.dumps() has it")
    equal((got.status, len(lines(got))), (0, len(texts)), "all of them", result=got)
    (folder / "in").write_text("1\n")
    plain = run([PYTHON, "plain.py", "functions:moved", "in"], cwd=folder)
    got = subhost("map", "functions:moved", "in", cwd=folder)
    equal((got.out, got.status), (plain.out, 0), "a dict with an order of its own")


def spoil(line, random):
    """A line of JSON with a few mistakes, or none."""
    pieces = ["{", "}", "[", "]", ",", ":", '"', "\\", "\\u", "\\ud800", "\\udc00", "0", "00", "-",
              "+", ".", "e", "E", "true", "NaN", "-Infinity", " ", "\t", "\r", "\x01", "\x7f", "é",
              "\ufeff", "\u2028", "//", "'"]
    for _ in range(random.randrange(4)):
        at = random.randrange(len(line) + 1)
        line = random.choice([line[:at] + random.choice(pieces) + line[at:],
                              line[:at] + line[at + random.randrange(1, 4):]])
    data = line.encode()
    at = random.randrange(len(data) + 1)
    return data if random.random() < 0.95 else data[:at] + b"\xe9" + data[at:]


def python_reads(data):
    """(whether it is JSON, what json.dumps() makes of it)."""
    def refuse(constant):
        raise ValueError(constant)
    try:
        value = json.loads(data.decode(), parse_constant=refuse)
    except ValueError:
        return False, None
    try:
        return True, json.dumps(value, allow_nan=False)
    except ValueError:
        return True, None  # 1e400


@test
def as_python_reads_it(folder):
    """Whatever library reads it: the same lines are JSON, with the same values."""
    seed = time.time_ns()
    source = random.Random(seed)
    deep = "[" * 2060 + "]" * 2060  # deeper than jansson goes
    seeds = [deep, '{"a": [1, 2.5, -3e10, true, null], "\u00e9": "x\\u00e9\\n"}', '{"a":1,"a":{"b":[]}}',
             "[1e400, 123456789012345678901234567890, -0, -0.0, 1E5, 0.1, 1e22, 1.25e-3]",
             '"\\ud83d\\ude00 \\ud800 / \\/ \\u0000"',
             '{"": "", "k": [{}, [[]], {"z": -1.5e-300}]}',
             "[9007199254740993, 18446744073709551615, 9223372036854775808, 12345.6789]"]
    script(folder, FUNCTIONS, "functions.py")
    data = [spoil(source.choice(seeds), source) for _ in range(3000)]
    (folder / "in").write_bytes(b"".join(line + b"\n" for line in data))
    got = subhost("map", "functions:same", "in", cwd=folder)
    result = []
    for text in got.out.splitlines():
        line = json.loads(text)
        value = text.partition('"value": ')[2][:-1] if line["ok"] else None
        result.append((line["ok"] or line["kind"] != "bad-input", value))
    wrong = [(line, one, other) for line, one, other in zip(data, result, map(python_reads, data))
             if one != other]
    equal((len(result), wrong[:3]), (3000, []), "as json.loads() and json.dumps()", seed=seed)


@test
def bad_input(folder):
    script(folder, FUNCTIONS, "functions.py")
    data = b'1\n{bad\n\n"\xff"\n[1,\x00 2]\nNaN\n1 2\n[1e999, bad\n"\\ud800" x\n2\n'
    data += b'[1e400, NaN]\n[1e400, -Infinity, "NaN"]\n{"\\u0000": Infinity}\n"\\ud800\n'
    (folder / "in").write_bytes(data)
    got = subhost("map", "functions:same", "in", cwd=folder)
    found = errors(got)
    equal({kind for kind, _ in found.values()}, {"bad-input"}, "the kind", result=got)
    equal((sorted(found), got.status), ([*range(1, 9), *range(10, 14)], 1), "each by itself")
    ok("NUL" in found[4][1] and "no JSON value" in found[2][1], "says what is wrong", found=found)
    equal([line["value"] for line in lines(got) if line["ok"]], [1, 2], "the others are done")
    with open(folder / "big", "wb") as file:
        file.write(b'1\n"')
        for _ in range(200):
            file.write(b"x" * 1_000_000)
        file.write(b'"\n2\n')
    got = subhost("map", "functions:same", "big", cwd=folder)
    equal((errors(got), len(lines(got))),
          ({1: ("bad-input", "the line is longer than 64 MiB")}, 3), "a line of 200 MB")


@test
def failures(folder):
    script(folder, FUNCTIONS, "functions.py")
    for isolation in "interpreter", "process":
        got = subhost("map", "--isolation", isolation, "functions:fails", input=numbers(20),
                      cwd=folder)
        found = [line for line in lines(got) if not line["ok"]]
        equal([(line["index"], line["kind"], line["error"]) for line in found],
              [(7, "raised", "ValueError: no 7"), (17, "raised", "ValueError: no 17")],
              f"{isolation}: what was raised", result=got)
        ok(all(line["traceback"].startswith("Traceback (most recent call last):\n")
               and "in fails\n" in line["traceback"] for line in found), "with its traceback",
           found=found)
        equal((got.status, got.err), (1, ""), "status 1, and nothing else to say")
    got = subhost("map", "functions:odd", input=numbers(6), cwd=folder)
    kinds = {kind for kind, _ in errors(got).values()}
    equal((sorted(errors(got)), kinds), (list(range(6)), {"raised"}), "no JSON has that",
          result=got)
    for index, word in enumerate(["TypeError", "bytes", "nan", "keys must be str", "TypeError",
                                  "4300"]):
        ok(word in errors(got)[index][1], f"says why: {word}", error=errors(got)[index])
    got = subhost("map", "functions:endless", input="1\n", cwd=folder)
    ok("nested too deep" in errors(got)[0][1], "a list that contains itself", result=got)
    got = subhost("map", "--retry", "2", "functions:flaky", input=numbers(3), cwd=folder)
    equal((values(got), got.status), ([3, 3, 3], 0), "--retry: again until it works", result=got)
    for path in folder.glob("tries.*"):
        path.unlink()
    got = subhost("map", "--isolation", "process", "--retry", "2", "functions:worse",
                  input=numbers(6), cwd=folder)
    ok(values(got) == [3] * 6 and got.status == 0,
       "a process that has gone, and results that JSON has not, too", result=got)
    for path in folder.glob("tries.*"):
        path.unlink()
    got = subhost("map", "--retry", "1", "functions:flaky", input=numbers(1), cwd=folder)
    equal((got.status, (folder / "tries.0").read_text()), (1, "xx"), "and not more often")


@test
def fresh_ones(folder):
    script(folder, FUNCTIONS, "functions.py")
    for isolation in "interpreter", "process":
        got = subhost("map", "--fresh", "-j", "2", "--isolation", isolation, "functions:sees",
                      input='1\n"raise"\n3\n4\n5\n6\n7\n8\n', cwd=folder)
        found = [line.get("value", line.get("error")) for line in lines(got)]
        equal(found, [1, "ValueError: raise", 1, 1, 1, 1, 1, 1],
              f"--fresh: an item sees nothing of others ({isolation})", result=got)
    got = subhost("map", "-j", "1", "functions:sees", input="1\n2\n3\n", cwd=folder)
    equal(values(got), [1, 2, 3], "without it, it does", result=got)


# What a call leaves behind, and what it finds: nothing of it, unless it is a library's.
LEAVES = """
import builtins, contextvars, decimal, os, signal, sys, warnings
import helper
variable = contextvars.ContextVar("variable", default=0)
def find():
    import __main__, json
    return {
        "helper": helper.seen[:], "late": "late" in sys.modules, "path": "/nowhere" in sys.path,
        "argv": sys.argv[1:], "builtins": hasattr(builtins, "left"),
        "main": hasattr(__main__, "left"),
        "environ": [os.environ.get("LEFT"), "HOME" in os.environ],
        "c": "LEFT" in os.popen("env").read() if IS_PROCESS else False,
        "recursion": sys.getrecursionlimit() == 1234, "hook": sys.excepthook is print,
        "filters": len(warnings.filters) > 100, "variable": variable.get(),
        "decimal": decimal.getcontext().prec == 7, "made": "made" in sys.modules,
        "handler": signal.getsignal(signal.SIGUSR2) is not signal.SIG_DFL,
        "profile": sys.getprofile() is not None, "missing": "stat" not in sys.modules,
        "stdout": sys.stdout is None, "umask": IS_PROCESS and umask(), "cwd": os.getcwd(),
        "library": hasattr(json, "left"), "same": sys.meta_path is META_PATH}
def umask():
    now = os.umask(0o22)
    os.umask(now)
    return now == 0o77
def leave():
    import __main__, json, late, types
    helper.seen.append(1)
    sys.path.append("/nowhere"), sys.argv.append("left")
    builtins.left = __main__.left = json.left = 1
    os.environ["LEFT"] = "1"
    os.environ.pop("HOME", None)
    sys.setrecursionlimit(1234)
    sys.excepthook = print
    for i in range(200): warnings.filterwarnings("ignore", message=str(i))
    variable.set(7)
    decimal.getcontext().prec = 7
    sys.modules["made"] = types.ModuleType("made")
    signal.signal(signal.SIGUSR2, print)
    sys.setprofile(lambda *_: None)
    sys.modules.pop("stat", None)
    sys.stdout = None
    sys.meta_path = list(sys.meta_path)
    if IS_PROCESS:
        os.umask(0o77)
        os.chdir("/")
IS_PROCESS = META_PATH = None
def first(is_process):
    global IS_PROCESS, META_PATH
    IS_PROCESS, META_PATH = is_process, sys.meta_path
    found = find()
    leave()
    if is_process is None: raise ValueError("left by an exception")
    return found
"""


@test
def reset_ones(folder):
    script(folder, LEAVES, "leaves.py")
    script(folder, "seen = []\n", "helper.py")
    script(folder, "", "late.py")
    for isolation in "interpreter", "process":
        is_process = json.dumps(isolation == "process")
        got = subhost("map", "--reset", "-j", "1", "--isolation", isolation, "leaves:first",
                      input=f"{is_process}\n" * 3, cwd=folder)
        found = [line.get("value") for line in lines(got)]
        equal(found[0] and found[0]["library"], False, f"{isolation}: the first finds nothing")
        expected = found[0] and {**found[0], "library": True}
        for value in found[1:]:
            equal(value, expected, "nor does another, but for a library's", result=got)
        equal(expected["helper"], [], "of an own module")
    script(folder, FUNCTIONS, "functions.py")
    got = subhost("map", "--reset", "-j", "2", "--timeout", "0.5", "functions:sees",
                  input='1\n"raise"\n3\n4\n', cwd=folder)
    equal([line.get("value", line.get("error")) for line in lines(got)],
          [1, "ValueError: raise", 1, 1], "also after an exception", result=got)
    script(folder, "import sys\ndef f(x):\n    sys.stdin.close()\n    return x\n", "broken.py")
    for isolation in "interpreter", "process":
        got = subhost("map", "--reset", "--stats", "-j", "1", "--isolation", isolation,
                      "broken:f", input="1\n2\n3\n", cwd=folder)
        equal((values(got), bool(re.search("recycled [23]", got.err))), ([1, 2, 3], True),
              f"{isolation}: one that cannot be reset is replaced", result=got)


# What makes it hard to put an interpreter back. Each is called with 0, 1, 2 and 3, and returns
# how many calls its module has seen, which is one.
HARD = {
    "wrapped": "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer)\nprint('x')",
    "queue": "import sys",  # the name of a module of the standard library
    "blocked": "import sys\nif sys.modules.get('tomllib', 1) is None: seen.append(1)\n"
               "sys.modules['tomllib'] = None",
    "faked": "import sys, types\nif hasattr(sys.modules.get('csv'), 'fake'): seen.append(1)\n"
             "sys.modules['csv'] = types.ModuleType('csv')\nsys.modules['csv'].fake = 1",
    "copied": "import sys\nsys.modules = sys.modules.copy()",
    "patched": "import builtins\nbuiltins.len = builtins.list = lambda *a: 0\n"
               "builtins.all = lambda x: True",
    "extended": "import package.own_gil_ready\npackage.own_gil_ready.__name__",
    "frozen": "import sys\nif hasattr(sys, 'frozen'): seen.append(1)\nsys.frozen = True",
    "disabled": "import gc\nif not gc.isenabled(): seen.append(1)\ngc.disable()",
}


@test
def hard_resets(folder):
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").write_text("")
    built = f"own_gil_ready{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    shutil.copy(BUILD / "tests" / "native" / built, folder / "package")
    for name, code in HARD.items():
        script(folder, f"seen = []\n{code}\ndef f(x):\n    seen.append(x)\n"
                       "    n = 0\n    for _ in seen: n += 1\n    return n\n", f"{name}.py")
        for isolation in "interpreter", "process":
            got = subhost("map", "--reset", "-j", "1", "--isolation", isolation, f"{name}:f",
                          input=numbers(4), cwd=folder)
            equal((got.status, values(got)), (0, [1] * 4), f"{isolation}: {name}", result=got)


@test
def times_of_a_reset(folder):
    """An import is in nobody's time; what a call's objects do as they end is in its own."""
    script(folder, "import time\ntime.sleep(0.3)\ndef f(x): return x\n", "slow.py")
    for isolation in "interpreter", "process":
        got = subhost("map", "--reset", "--timeout", "0.2", "-j", "1", "--isolation", isolation,
                      "slow:f", input=numbers(3), cwd=folder)
        equal((got.status, values(got)), (0, [0, 1, 2]), f"{isolation}: a slow import", result=got)
    script(folder, "import builtins\nclass X:\n    def __del__(self):\n        while True: pass\n"
                   "def f(x):\n    if x == 1: builtins.x = X()\n    return x\n", "ends.py")
    for isolation in "interpreter", "process":
        got = subhost("map", "--reset", "--timeout", "0.3", "--grace", "0.2", "-j", "1",
                      "--isolation", isolation, "ends:f", input=numbers(3), cwd=folder)
        equal([line.get("value", line.get("kind")) for line in lines(got)], [0, "timed-out", 2],
              f"{isolation}: an object that does not end", result=got)
    script(folder, "data = b'x' * (8 << 20)\ndef f(x): return x\n", "large.py")
    got = subhost("map", "--reset", "--stats", "-j", "1", "large:f", input=numbers(60), cwd=folder)
    peak = float(re.search(r"peak RSS ([0-9.]+) MiB", got.err)[1])
    ok(peak < 150, "what is forgotten is freed", peak=peak)


@test
def what_cannot_be(folder):
    script(folder, FUNCTIONS, "functions.py")
    script(folder, "1 / 0\n", "broken.py")
    script(folder, "import nosuchmodule\n", "imports.py")
    for isolation in "interpreter", "process":
        for name, status, word in [("nosuch:f", 127, "No module named 'nosuch'"),
                                   ("functions:nosuch", 127, "has no attribute 'nosuch'"),
                                   ("broken:f", 126, "ZeroDivisionError"),
                                   ("imports:f", 126, "nosuchmodule"),
                                   ("functions:number", 126, "is not callable"),
                                   ("functions", 125, "module:function")]:
            got = subhost("map", "--isolation", isolation, name, input="1\n", cwd=folder)
            ok(got.status == status and word in got.err and got.out == "",
               f"{isolation}: {name}: {status}", result=got)
        for name, status, word in [("functions:nosuch", 127, "has no attribute 'nosuch'"),
                                   ("functions:number", 126, "is not callable"),
                                   ("functions:same", 0, "")]:
            got = subhost("map", "--isolation", isolation, name, input="", cwd=folder)
            ok(got.status == status and word in got.err and got.out == "",
               f"{isolation}: {name}, and no line of input: {status}", result=got)
    for arguments, word in [((), "no function"), (("-j", "0", "a:b"), "not a number"),
                            (("--timeout", "x", "a:b"), "not a duration"),
                            (("--unorderd", "a:b"), "did you mean --unordered?"),
                            (("functions:same", "nosuch.json"), "nosuch.json"),
                            (("functions:same", "."), "Is a directory"),
                            (("--gil", "x", "a:b"), "neither own nor shared")]:
        got = subhost("map", *arguments, cwd=folder)
        ok(got.status == 125 and word in got.err, f"map {arguments}: 125", result=got)


@test
def readers_and_disks(folder):
    script(folder, FUNCTIONS, "functions.py")
    (folder / "in").write_text(numbers(200000))
    with open("/dev/full", "w") as full:
        got = subprocess.run([SUBHOST, "map", "functions:same", "in"], stdout=full, cwd=folder,
                             stderr=subprocess.PIPE, env=environment(), timeout=60)
    equal((got.returncode, got.stderr), (125, b"subhost: map: standard output: No space left on "
                                              b"device\n"), "a disk that is full")
    process = subprocess.Popen([SUBHOST, "map", "functions:same", "in"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, cwd=folder, env=environment())
    first = process.stdout.readline()
    process.stdout.close()
    equal((process.wait(60), process.stderr.read(), json.loads(first)["index"]), (-13, b"", 0),
          "a reader that goes away ends it, as any filter")


@test
def descriptors(folder):
    """The input and the output are the runner's alone, whatever state they are in."""
    script(folder, FUNCTIONS, "functions.py")
    for isolation in "interpreter", "process":
        got = subhost("map", "-j2", "--isolation", isolation, "functions:shares",
                      input=numbers(20), cwd=folder)
        equal((values(got), got.status), ([[i, ""] for i in range(20)], 0),
              f"{isolation}: children read nothing, and write to standard error", result=got)
        ok(got.err.count("from a child\n") == got.err.count("from the item\n") == 20,
           "which has all of it", err=got.err)
    (folder / "in").write_text("1\n2\n")
    got = subhost("map", "functions:same", "/dev/stdin", input="5\n", cwd=folder)
    equal(values(got), [5], "/dev/stdin is the input")
    for options in [], ["--resume", "journal"]:
        got = run(["sh", "-c", '"$@" >&-', "sh", SUBHOST, "map", *options, "functions:same", "in"],
                  cwd=folder)
        ok(got.status == 125 and "standard output: Bad file descriptor" in got.err,
           f"{options}: without an output: 125", result=got)
    got = run(["sh", "-c", '"$@" <&-', "sh", SUBHOST, "map", "functions:same"], cwd=folder)
    ok(got.status == 125 and "standard input: Bad file descriptor" in got.err,
       "without an input: 125", result=got)
    got = run(["sh", "-c", '"$@" <&- 2>&-', "sh", SUBHOST, "map", "functions:same", "in"],
              cwd=folder)
    equal((values(got), got.status), ([1, 2], 0), "which is not needed for files")


@test
def pipes(folder):
    """Those that do not block, and those with names."""
    script(folder, FUNCTIONS, "functions.py")
    reader, out = os.pipe()
    source, writer = os.pipe()
    for fd in out, source:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)
    process = subprocess.Popen([SUBHOST, "map", "functions:same"], stdin=source, stdout=out,
                               stderr=subprocess.PIPE, cwd=folder, env=environment())
    os.close(source)
    os.close(out)
    time.sleep(0.2)  # both are empty first, then the output is full
    with open(writer, "w") as file:
        file.write(numbers(10000))
    time.sleep(0.3)
    with open(reader) as file:
        got = file.read().splitlines()
    equal((len(got), process.wait(60), process.stderr.read()), (10000, 0, b""),
          "pipes that do not block")
    os.mkfifo(folder / "fifo")
    feeder = subprocess.Popen(["sh", "-c", "seq 3 > fifo"], cwd=folder)
    time.sleep(0.1)  # it waits for a reader
    got = subhost("map", "functions:same", "fifo", cwd=folder, timeout=30)
    equal((values(got), feeder.wait(10)), ([1, 2, 3], 0), "a FIFO has one reader, to its end",
          result=got)


@test
def memory(folder):
    """Large items leave no memory behind."""
    script(folder, FUNCTIONS, "functions.py")
    line = '"' + "x" * (1 << 20) + '"\n'
    peaks = {}
    for count in 2, 150:
        with open(folder / "in", "w") as file:
            for _ in range(count):
                file.write(line)
        with open(folder / "out", "wb") as out:
            process = subprocess.Popen([SUBHOST, "map", "functions:same", "in"], stdout=out,
                                       cwd=folder, env=environment())
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        peaks[count] = usage.ru_maxrss >> 10
        equal((process.returncode, (folder / "out").stat().st_size > count << 20), (0, True),
              f"{count} lines of 1 MiB")
    if PATIENCE > 1:
        skip("in a few MiB", "an instrumented build keeps what was freed")
    else:
        ok(peaks[150] < peaks[2] + 100, "in a few MiB", peaks=peaks)


@test
def native_functions(folder):
    script(folder, "import subhost\ndef power(x): return subhost.native.pow(2, x)\n", "powers.py")
    for isolation in "interpreter", "process":
        got = subhost("map", "--isolation", isolation, "--native", "libm.so.6:f64 pow(f64, f64)",
                      "powers:power", input="3\n4\n", cwd=folder)
        equal((values(got), got.status), ([8.0, 16.0], 0), f"{isolation}: --native", result=got)
    got = subhost("map", "--native", "nonsense", "powers:power", input="3\n", cwd=folder)
    ok(got.status == 125 and "is not LIB:SIGNATURE" in got.err, "and what is none", result=got)


@test
def statistics(folder):
    script(folder, FUNCTIONS, "functions.py")
    got = subhost("map", "--stats", "functions:fails", input=numbers(20), cwd=folder)
    ok("items 20 read, 0 done before, 20 written, 2 not ok" in got.err, "--stats", result=got)
    got = subhost("map", "--trail", "trail", "functions:same", input="1\n", cwd=folder)
    events = [json.loads(line)["event"] for line in (folder / "trail").read_text().splitlines()]
    ok("interp-created" in events, "--trail", events=events)
    got = subhost("map", "--set", "exec.allow=false", "functions:runs", input="1\n", cwd=folder)
    ok("raised" in got.out and got.status == 1, "--set: what a policy forbids", result=got)
    got = subhost("map", "--policy", "nosuch", "functions:same", input="1\n", cwd=folder)
    equal(got.status, 125, "--policy: one that is not there", result=got)
    got = subhost("map", "--gil", "shared", "functions:square", input="3\n", cwd=folder)
    equal(values(got), [9], "--gil shared")


main()
