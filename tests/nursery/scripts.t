#!/usr/bin/env python3
# timeout: 120
"""Which functions a task can run: of modules, of the script, of `-c`; and what is said of the
others."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from nurseries import START, each, prints, write
from tap import equal, main, ok, run, script, subhost, test


@test
@each
def main_functions(folder, isolation):
    functions = """
        print("imported as", __name__, flush=True)

        class Point:
            def __init__(self, x): self.x = x

        class Own(Exception): pass

        def move(point): return Point(point.x + 1)
        def own(): raise Own("mine")
        def name(): return __name__, sys.modules["__main__"] is sys.modules["__mp_main__"]
        def nested():
            with subhost.open_nursery() as nursery:
                return start(nursery, move, Point(10)).result()
        """
    body = """
        with subhost.open_nursery() as nursery:
            calls = (move, Point(1)), (name,), (nested,)
            tasks = [start(nursery, function, *args) for function, *args in calls]
            print(tasks[0].result().x, type(tasks[0].result()) is Point, tasks[1].result(),
                  tasks[2].result().x, sys.argv[1:])
            start(nursery, os.path.join, "a", "b").result()
        try:
            with subhost.open_nursery() as nursery:
                start(nursery, own)
        except* Own as group:
            print(repr(group.exceptions[0]))
        """
    path = write(folder, functions, body, isolation)
    expected = ["2 True ('__mp_main__', True) 11 ['arg']", "Own('mine')"]
    for arguments in ([path, "arg"], ["-m", "program", "arg"]):
        result = subhost("run", *arguments, cwd=folder)
        lines = result.out.splitlines()
        equal([line for line in lines if not line.startswith("imported")], expected,
              f"{isolation}: {arguments[0]}: functions and classes of the script", result=result)
        equal((lines.count("imported as __main__"), lines.count("imported as __mp_main__")), (1, 5),
              f"{isolation}: imported where something of it is needed, and only there",
              result=result)
    directory = folder / "program_directory"
    directory.mkdir(exist_ok=True)
    (directory / "__main__.py").write_text(path.read_text())
    result = subhost("run", directory, "arg")
    ok(result.status == 0 and all(line in result.out for line in expected),
       f"{isolation}: a directory with __main__.py", result=result)
    code = path.read_text().replace("if __name__ ==", "print(__name__)\nif __name__ ==")
    result = subhost("run", "-c", code, "arg")
    ok(result.status == 0 and all(line in result.out for line in expected),
       f"{isolation}: -c", result=result)


@test
@each
def modules(folder, isolation):
    script(folder, "def f(x):\n    import sys\n    return x, 'program' in sys.path[0]\n",
           "lib/work.py")
    prints(folder, "", f"""
        sys.path.insert(0, {str(folder / "lib")!r})
        import work
        with subhost.open_nursery() as nursery:
            print(start(nursery, work.f, 5).result())
        """, "(5, False)\n", "sys.path travels", isolation=isolation)
    prints(folder, """
        def where():
            return os.getcwd(), os.environ.get("NEW"), "OLD" in os.environ
        """, """
        os.chdir("/usr"); os.environ["NEW"] = "yes"; del os.environ["OLD"]
        with subhost.open_nursery() as nursery:
            task = start(nursery, where)
        print(task.result() if ISOLATION == "process" else ("/usr", "yes", False))
        """, "('/usr', 'yes', False)\n", "so do directory and environment", isolation=isolation,
           env={"OLD": "1"})


@test
def refused(folder):
    prints(folder, """
        def attempt(function):
            try:
                with subhost.open_nursery() as nursery:
                    nursery.start(function)
            except* Exception as group:
                print(type(group.exceptions[0]).__name__, group.exceptions[0])
        """, """
        def local(): pass
        def outer():
            def inner(): pass
            return inner
        attempt(lambda: 1)
        attempt(outer())
        attempt(functools.partial(outer()))
        attempt(local)
        """, """\
PicklingError '<lambda>' is a lambda: a task's function must be importable, that is, defined at \
the top level of a module or of the script (whose main part is then guarded by `if __name__ == \
'__main__':`)
PicklingError 'outer.<locals>.inner' is defined inside a function: a task's function must be \
importable, that is, defined at the top level of a module or of the script (whose main part is \
then guarded by `if __name__ == '__main__':`)
PicklingError 'outer.<locals>.inner' is defined inside a function: a task's function must be \
importable, that is, defined at the top level of a module or of the script (whose main part is \
then guarded by `if __name__ == '__main__':`)
AttributeError 'local' is not there when the script is imported as '__mp_main__' (as \
multiprocessing does it): define it at the script's top level, outside of `if __name__ == \
'__main__':`, or in a module
""", "functions that cannot be imported: what to do is said")
    path = script(folder, START.format(isolation="interpreter") + """
with subhost.open_nursery() as nursery:
    nursery.start(double, 5)
""", "unguarded.py")
    result = subhost("run", path)
    ok(result.status == 1 and "if __name__ == '__main__':" in result.err
       and "RuntimeError" in result.err and result.seconds < 20, "a script without the guard",
       result=result)
    result = subhost("run", "-", input=START.format(isolation="interpreter") + """
with subhost.open_nursery() as nursery:
    print(nursery.start(os.path.join, "a", "b").result(), flush=True)
    nursery.start(double, 5)
""")
    ok(result.status == 1 and result.out == "a/b\n" and "read from standard input" in result.err,
       "a program from standard input: functions of modules only", result=result)
    script(folder, "def broken(): pass\n1 / 0\n", "bad_module.py")
    result = subhost("run", script(folder, """
        import subhost, sys
        def f(): pass
        if __name__ != "__main__":
            import bad_module
        else:
            with subhost.open_nursery() as nursery:
                nursery.start(f)
        """))
    ok(result.status == 1 and "ZeroDivisionError" in result.err, "a script whose import fails",
       result=result)


main()
