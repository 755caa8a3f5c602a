#!/usr/bin/env python3
"""Deep recursion: what python can do works, what python refuses is a RecursionError, and
nothing crashes, on the first thread and on others."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import PYTHON, SUBHOST, equal, main, ok, run, same, script, subhost, test


@test
def for_ever(tmp):
    endless = {
        "a function": "def f(): f()\nf()\n",
        "a method": "class A:\n    def __getattr__(self, name): return self.other\nA().x\n",
        "with finally": "def f():\n    try: f()\n    finally: pass\nf()\n",
        "two functions": "def f(): g()\ndef g(): f()\nf()\n",
        "a generator": "def g(): yield from g()\nlist(g())\n",
    }
    for number, (name, text) in enumerate(endless.items()):
        file = script(tmp, text, f"endless_{number}.py")
        same(file, name=f"FILE: {name} that calls itself for ever", status=1)
        same("-c", text, name=f"-c: {name} that calls itself for ever", status=1)
    same("-m", "endless_0", cwd=tmp, name="-m: for ever", status=1)
    same("-c", "def f():\n    try: return f() + 1\n    except RecursionError: return 0\nprint(f())",
         name="RecursionError caught at the same depth", status=0)


@test
def through_c(tmp):
    for name, text in {
        "repr of nested lists": "x = []\nfor _ in range(200000): x = [x]\nrepr(x)",
        "json.dumps": "import json\nx = []\nfor _ in range(200000): x = [x]\njson.dumps(x)",
        "json.loads": "import json\njson.loads('[' * 200000 + ']' * 200000)",
        "pickle.dumps": "import pickle\nx = []\nfor _ in range(200000): x = [x]\npickle.dumps(x)",
        "nested tuples compared": "a = b = ()\nfor _ in range(200000): a, b = (a,), (b,)\na == b",
        "the parser": "eval('(' * 100000 + ')' * 100000)",
        "the compiler": "eval('-' * 100000 + '1')",
        "ast.literal_eval": "import ast\nast.literal_eval('[' * 150 + ']' * 150)",
        "__repr__ of a class": "class A:\n    def __repr__(self): return repr(self)\nrepr(A())",
        "__eq__ of a class": "class A:\n    def __eq__(self, o): return [self] == [o, 1][:1]\n"
                             "A() == A()",
        "sorted with a key": "def f(x): return sorted([1, 2], key=f)\nf(1)",
        "isinstance": "t = int\nfor _ in range(2_000_000): t = (t,)\nisinstance('', t)",
        "copy.deepcopy": "import copy\nx = []\nfor _ in range(200000): x = [x]\ncopy.deepcopy(x)",
        "re.compile": "import re\nre.compile('(' * 5000 + ')' * 5000)",
        "freeing": "x = []\nfor _ in range(2_000_000): x = [x]\ndel x\nprint('freed')",
    }.items():
        # Which error it is depends on the version; an error or a result, as python has it.
        show = (f"try:\n    exec({text!r})\n"
                "except (RecursionError, MemoryError, SyntaxError, ValueError) as e:\n"
                "    print(type(e).__name__)\nelse:\n    print('fine')")
        same("-c", show, name=f"too deep: {name}", status=0)


@test
def deep_and_legal(tmp):
    same("-c", "def f(n): return n and f(n - 1) + 1\nprint(f(900))", name="900 frames", status=0)
    same("-c", "import sys\nsys.setrecursionlimit(60_000)\n"
         "def f(n): return n and f(n - 1) + 1\nprint(f(50_000))", name="50,000 frames", status=0)
    same("-c", "import json\nx = []\nfor _ in range(900): x = [x]\nprint(len(json.dumps(x)))",
         name="json, 900 levels", status=0)
    same("-c", "x = []\nfor _ in range(900): x = [x]\nprint(len(repr(x)))",
         name="repr, 900 levels", status=0)
    same("-c", "import sys\nsys.setrecursionlimit(5000)\n"
         "def f(n): return sorted([n], key=g) if n else 0\ndef g(n): return f(n - 1) and 1 or 1\n"
         "print(f(1200))", name="1,200 levels through C", status=0)
    same("-c", "import re; print(len(re.match('(?:a|b)*', 'ab' * 500_000).group()))",
         name="a long regular expression", status=0)
    same("-c", "import ast\nprint(len(ast.dump(ast.parse('+'.join('a' * 900)))))",
         name="a deep syntax tree", status=0)


@test
def stack_size(tmp):
    """The first thread of a program has the stack of a main thread (RLIMIT_STACK): C code
    that recurses without asking CPython counts on it."""
    show = script(tmp, """
        import ctypes
        c = ctypes.CDLL(None)
        attributes = ctypes.create_string_buffer(256)
        low, size = ctypes.c_void_p(), ctypes.c_size_t()
        c.pthread_self.restype = ctypes.c_ulong
        c.pthread_getattr_np(ctypes.c_ulong(c.pthread_self()), attributes)
        c.pthread_attr_getstack(attributes, ctypes.byref(low), ctypes.byref(size))
        print(size.value)
    """)
    for limit in ("2048", "8192", "65536"):
        mine, theirs = (
            run(["bash", "-c", f'ulimit -S -s {limit}; exec "$@"', "-", *runner, show])
            for runner in ([SUBHOST, "run"], [PYTHON]))
        ok(mine.status == 0 and int(mine.out) >= int(theirs.out) * 0.95,
           f"ulimit -s {limit}: the stack is as large as a main thread's",
           subhost=mine, python=theirs)
    result = run(["bash", "-c", f"ulimit -S -s unlimited; '{SUBHOST}' run -c 'print(6 * 7)'"])
    equal(result.out, "42\n", "ulimit -s unlimited", result=result)


@test
def on_other_threads(tmp):
    same("-c", """
import threading
def f(n): return n and f(n - 1) + 1
def work(n):
    try:
        print(f(n))
    except RecursionError as error:
        print("RecursionError")
for n in (900, 10**6):
    t = threading.Thread(target=work, args=(n,)); t.start(); t.join()
""", name="Python recursion on a thread", status=0)
    same("-c", """
import threading
x = []
for _ in range(200000): x = [x]
def work():
    try:
        repr(x)
    except RecursionError:
        print("RecursionError")
t = threading.Thread(target=work); t.start(); t.join()
""", name="C recursion on a thread", status=0)
    result = subhost("run", "-n", "3", "-c", "def f(): f()\nf()")
    equal((result.status, result.err.count("RecursionError: maximum recursion depth exceeded")),
          (1, 3), "in three workers at once", result=result)


main()
