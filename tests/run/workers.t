#!/usr/bin/env python3
"""-n N: copies of a program, each in an interpreter of its own; --gil and --stats."""
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import PATIENCE, equal, main, ok, run, script, SUBHOST, subhost, test

WHO = "import subhost; print(subhost.current().worker)"


@test
def interpreters_of_their_own(tmp):
    for count in (1, 2, 5):
        result = subhost("run", "-n", str(count), "-c", WHO)
        workers = sorted(map(int, result.out.split()))
        ok(result.status == 0 and len(set(workers)) == count
           and workers == list(range(workers[0], workers[0] + count)),
           f"-n {count}: {count} workers with numbers of their own", result=result)
    file = script(tmp, """
        import subhost, sys, time
        assert not hasattr(sys, "mark") and "wave" not in sys.modules
        sys.mark = subhost.current().worker
        import wave
        wave.mark = sys.mark
        time.sleep(0.3)     # all of them are here now
        assert sys.mark == wave.mark == subhost.current().worker
        print(subhost.current().id, subhost.current().name)
    """)
    result = subhost("run", "-n", "4", file)
    lines = result.out.splitlines()
    equal((result.status, len(lines)), (0, 4), "four programs at once", result=result)
    ids, names = zip(*(line.split(None, 1) for line in lines))
    equal((len(set(ids)), len(set(names))), (4, 4),
          "ids and names are distinct; modules are not shared", result=result)


@test
def at_the_same_time(tmp):
    result = subhost("run", "-n", "8", "-c", "import time; time.sleep(0.5)")
    ok(result.status == 0 and 0.5 <= result.seconds < 0.5 + 2 * PATIENCE,
       "eight sleeps of 0.5 s take 0.5 s", result=result)


@test
def arguments_and_streams(tmp):
    file = script(tmp, "import sys; print(sys.argv[1:], __name__)")
    result = subhost("run", "-n", "3", file, "a", b"\xff", "-n")
    equal((result.status, result.out), (0, "['a', '\\udcff', '-n'] __main__\n" * 3),
          "every worker gets the arguments", result=result)
    script(tmp, "import sys; print(sys.argv[1:], __name__, __file__[-5:])", "mod.py")
    result = subhost("run", "-n", "2", "-m", "mod", "x", cwd=tmp)
    equal((result.status, result.out), (0, "['x'] __main__ od.py\n" * 2), "-m in workers",
          result=result)
    result = subhost("run", "-n", "2", "-", input="print('from stdin')")
    equal((result.status, result.out), (0, "from stdin\n" * 2),
          "- in workers: one program, read once", result=result)
    result = subhost("run", "-n", "4", "-c", "for i in range(2000): print('x' * 99)")
    lines = result.out.splitlines()
    ok(len(lines) == 8000 and result.status == 0, "no output is lost", count=len(lines))
    result = subhost("run", "-n", "3", "-c", "import atexit; atexit.register(print, 'end')")
    equal((result.status, result.out), (0, "end\n" * 3), "atexit in each", result=result)


@test
def failures(tmp):
    file = script(tmp, """
        import subhost, sys, time
        first = int(sys.argv[2])
        me = subhost.current().worker
        action = sys.argv[1]
        if action == "first":           # the later a worker, the later its failure
            time.sleep(0.2 * me)
            sys.exit(10 + me)
        if action == "one" and me == first:
            raise ValueError("only me")
        if action == "exit" and me == first:
            sys.exit("words")
        time.sleep(0.3)
        print("fine")
    """)
    low = int(subhost("run", "-n", "1", "-c", WHO).out)
    result = subhost("run", "-n", "3", file, "first", "0")
    equal(result.status, 10 + low, "the status is the first failure's", result=result)
    result = subhost("run", "-n", "3", file, "one", str(low + 1))
    equal((result.status, result.out, result.last), (1, "fine\n" * 2, "ValueError: only me"),
          "one raises, the others go on", result=result)
    equal(result.err.count("Traceback"), 1, "one traceback, in one piece", result=result)
    result = subhost("run", "-n", "2", file, "exit", str(low))
    equal((result.status, result.err), (1, "words\n"), "sys.exit with words", result=result)
    result = subhost("run", "-n", "2", "-c", "raise SystemExit(0)")
    equal(result.status, 0, "SystemExit(0) is no failure", result=result)
    result = subhost("run", "-n", "4", "-c", "def f(x): 1 / 0\nf(1)")
    equal((result.status, result.err.count("ZeroDivisionError: division by zero")), (1, 4),
          "four tracebacks", result=result)
    result = subhost("run", "-n", "3", "-c", "import os, subhost, time\n"
                     f"if subhost.current().worker == {low}: os._exit(9)\ntime.sleep(20)")
    ok(result.status == 9 and result.seconds < 10, "os._exit in one ends the process",
       result=result)


@test
def gil(tmp):
    for kind in ("own", "shared"):
        result = subhost("run", "--gil", kind, "-n", "2", "-c", WHO)
        equal((result.status, len(set(result.out.split()))), (0, 2), f"--gil {kind}",
              result=result)
        result = subhost("run", "--gil", kind, "-c", "import sys; sys.exit(3)")
        equal(result.status, 3, f"--gil {kind}: status", result=result)
        result = subhost("run", "--gil", kind, "--timeout", "200ms", "-c", "while True: pass")
        ok(result.status == 124 and result.seconds < 0.2 + 2 * PATIENCE,
           f"--gil {kind}: deadline", result=result)
    result = subhost("run", "--gil", "shared", "-n", "2", "--timeout", "300ms", "-c",
                     "while True: pass")
    ok(result.status == 124 and result.seconds < 0.3 + 2 * PATIENCE,
       "--gil shared: two busy loops cannot hold the deadline up", result=result)


@test
def stats(tmp):
    result = subhost("run", "-n", "3", "--stats", "-c", "print(1)")
    equal((result.status, result.out), (0, "1\n" * 3), "--stats leaves stdout alone", result=result)
    text = result.err.lower()
    for word in ("interpreters", "tasks", "cancels", "peak rss"):
        ok(word in text, f"--stats says {word} on stderr", result=result)
    ok(re.search(r"interpreters\W+3\b", text) or re.search(r"\b3 interpreters", text),
       "--stats counts three interpreters", result=result)
    result = subhost("run", "--stats", "--timeout", "200ms", "-c", "import time; time.sleep(60)")
    ok(result.status == 124 and re.search(r"cancels\W+1\b|\b1 cancels?\b", result.err.lower()),
       "--stats counts a cancel", result=result)
    result = subhost("run", "--stats", "-c", "1 / 0")
    ok(result.status == 1 and "ZeroDivisionError" in result.err
       and "interpreters" in result.err.lower(), "--stats also after a failure", result=result)


@test
def many(tmp):
    result = subhost("run", "-n", "40", "-c", WHO, timeout=50)
    equal((result.status, len(set(result.out.split()))), (0, 40), "forty workers", result=result)
    # Too many for the machine: CPython may well give up with a fatal error; but it ends.
    result = run(["bash", "-c", f"ulimit -v 1000000; '{SUBHOST}' run -n 400 -c pass"], timeout=50)
    ok(result.status == 0 or result.status != "timeout" and result.err,
       "400 workers in 1 GB of address space end, or say why not", result=result)


main()
