#!/usr/bin/env python3
# timeout: 150
"""`--capture`: output of workers and tasks line by line with their names, from interpreters and
processes alike; whatever is written, however much, and whoever reads it."""
import os
import pathlib
import re
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import PATIENCE, SUBHOST, equal, hosted, main, ok, run, script, subhost, test
from sessions import finished, run_hosted

ISOLATIONS = ("interpreter", "process")


def capture(isolation, *args, **kw):
    return subhost("run", "--capture", "--isolation", isolation, *args, **kw)


def bodies(text, want):
    """{name: [line]} of the lines of TEXT that end in a text which matches WANT: what is in front
    of that is the name. Lines that do not match are under None."""
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(rf"(.*?\S)[:|\]>\s]*\s({want})", line)
        found.setdefault(match and match[1], []).append(match[2] if match else line)
    return found


@test
def lines_with_names(tmp):
    for isolation in ISOLATIONS:
        result = capture(isolation, "-n", "3", "-c", """
import subhost, sys
me = subhost.current().worker
for i in range(200):
    print("out", me, i)
    print("err", me, i, file=sys.stderr)
""")
        for stream, text in (("out", result.out), ("err", result.err)):
            found = bodies(text, rf"{stream} \d+ \d+")
            names = {name for name in found if name}
            ok(result.status == 0 and len(names) == 3 and None not in found
               and sorted(found.values()) == [[f"{stream} {me} {i}" for i in range(200)]
                                              for me in range(3)],
               f"{isolation}, std{stream}: each worker's lines in order, under a name of its own",
               names=names, other=found.get(None, [])[:5], result=result)


@test
def names_of_tasks(tmp):
    file = script(tmp, """
        import os, subhost, sys
        def speak(word):
            print("said", word)
            os.write(1, b"raw " + word.encode() + b"\\n")
            os.system(f"echo child {word}")
        if __name__ == "__main__":
            with subhost.open_nursery() as nursery:
                for word in ("alpha", "beta"):
                    nursery.start(speak, word, name=word + "-name", isolation=sys.argv[1])
    """)
    for isolation in ISOLATIONS:
        result = subhost("run", "--capture", file, isolation)
        for word in ("alpha", "beta"):
            ok(re.search(rf"^.*{word}-name.*said {word}$", result.out, re.M),
               f"a task's name is on its line, {isolation}", result=result)
    script(tmp, """
        import subhost, sys
        def speak(): print("said")
        if __name__ == "__main__":
            with subhost.open_nursery() as nursery:
                nursery.start(speak, name="two\\nlines\\x1b[1m", isolation=sys.argv[1])
    """, "control.py")
    for isolation in ISOLATIONS:
        equal(subhost("run", "--capture", tmp / "control.py", isolation).out, "two?lines?[1m: said\n",
              f"{isolation}: a name is one line, without control characters")
    # What did not go through sys.stdout can only be a process's.
    for what in ("raw", "child"):
        ok(re.search(rf"^.*alpha-name.*{what} alpha$", result.out, re.M),
           f"process: {what} output has the name too", result=result)


@test
def partial_lines(tmp):
    for isolation in ISOLATIONS:
        result = capture(isolation, "-c", "print('one\\ntwo', end='')")
        found = bodies(result.out, "one|two")
        ok(result.status == 0 and list(found.values()) == [["one", "two"]] and None not in found,
           f"{isolation}: a last line without its end", result=result)
        result = capture(isolation, "-n", "2", "-c", "print('x' * 10, end='')")
        equal((result.status, sorted(bodies(result.out, "x{10}").values())), (0, [["x" * 10]] * 2),
              f"{isolation}: two such lines do not run into each other", result=result)
        result = capture(isolation, "-c", "import os; os.write(1, b'last'); os._exit(3)")
        ok(result.status == 3 and (result.out.rstrip("\n").endswith("last")),
           f"{isolation}: and os._exit", result=result)
        result = capture(isolation, "-c", "print('before'); 1 / 0")
        ok(result.status == 1 and result.out.endswith("before\n")
           and result.err.splitlines()[-1].endswith("ZeroDivisionError: division by zero"),
           f"{isolation}: a traceback is captured too", result=result)
        with hosted("--capture", "--isolation", isolation, "-c",
                    "import time\nprint('at once', flush=True); time.sleep(30)") as it:
            it.wait_for("at once\n", 5)
            ok(True, f"{isolation}: a line comes when it is written")
    result = capture("process", "-c", "import os; os.write(1, b'last'); os.kill(os.getpid(), 9)")
    ok(result.status == 137 and result.out.rstrip("\n").endswith("last"),
       "process: what was written before it was killed", result=result)


@test
def ends_at_once(tmp):
    """What has been flushed is not lost when the process ends past Python."""
    for name, code in {"os._exit()": "os._exit(0)",
                       "os._exit() in a thread":
                           "threading.Thread(target=os._exit, args=(0,)).start()",
                       "os.execv()": "os.execv('/bin/true', ['true'])",
                       "os.execvp()": "os.execvp('true', ['true'])"}.items():
        for isolation in ISOLATIONS:
            results = [capture(isolation, "-c", "import os, threading\nprint('x' * 50_000)\n"
                               f"print('the last', end='', flush=True)\n{code}") for _ in range(6)]
            bad = [r for r in results
                   if r.status != 0 or not r.out.rstrip("\n").endswith("the last")]
            ok(not bad, f"{isolation}: {name}", bad=bad)


@test
def partial_lines_of_tasks(tmp):
    """The last line of a task, at any depth, and whoever ends right after it."""
    file = script(tmp, """
        import subhost, sys
        def speak(): print("line"); print("no newline", end="")
        def deeper(isolation):
            with subhost.open_nursery() as nursery: nursery.start(speak, isolation=isolation)
        if __name__ == "__main__":
            with subhost.open_nursery() as nursery:
                nursery.start(deeper, sys.argv[1], isolation=sys.argv[1])
    """)
    for isolation in ISOLATIONS:
        for below in ISOLATIONS:
            results = [capture(isolation, file, below) for _ in range(4)]
            ok(all(result.status == 0 and list(bodies(result.out, "line|no newline").values())
                   == [["line", "no newline"]] for result in results),
               f"{isolation}, its tasks {below}: the last line of a task", results=results)


@test
def binary_junk(tmp):
    file = script(tmp, """
        import os, random, sys
        data = random.Random(5).randbytes(300_000)
        where = 0
        while where < len(data):
            where += os.write(1, data[where:where + 5000])
    """)
    import random
    want = random.Random(5).randbytes(300_000)
    for isolation in ISOLATIONS:
        command = [SUBHOST, "run", "--capture", "--isolation", isolation, str(file)]
        out = subprocess.run(command, capture_output=True, timeout=30 * PATIENCE,
                             start_new_session=True)
        got = out.stdout.split(b"\n")
        lines = want.split(b"\n")
        good = out.returncode == 0 and len(got) in (len(lines), len(lines) + 1) and all(
            mine.endswith(line) for mine, line in zip(got, lines))
        ok(good, f"{isolation}: random bytes, every line whole", lines=len(lines), got=len(got),
           status=out.returncode, stderr=out.stderr[-500:])
        result = capture(isolation, "-c", "print('a' * 2_000_000); print('b')")
        equal((result.status, result.out.count("a") >= 2_000_000, result.out.endswith("b\n")),
              (0, True, True), f"{isolation}: a line of 2 MB", size=len(result.out))
        for size in (65535, 65536, 65537):
            result = capture(isolation, "-c", f"print('a' * {size}); print('b')")
            pieces = [len(line.rpartition(" ")[2]) for line in result.out.splitlines()]
            equal((result.status, pieces), (0, [65536, 1, 1] if size > 65536 else [size, 1]),
                  f"{isolation}: a line of {size} bytes", result=result)
        result = capture(isolation, "-c", "print('\\r1\\r2\\x1b[31mred\\0null\\n\\n\\n')")
        ok(result.status == 0 and "\x1b[31mred\0null" in result.out,
           f"{isolation}: control characters", result=result)


@test
def very_much(tmp):
    """100 MB: nothing is lost, and it is not kept in memory."""
    for isolation in ISOLATIONS:
        file = script(tmp, """
            line = "#" * 99
            for i in range(250_000): print(line)
        """)
        reader = ["bash", "-c", f"'{SUBHOST}' run --stats --capture --isolation {isolation} -n 4 "
                                f"'{file}' | tr -cd '#' | wc -c; exit ${{PIPESTATUS[0]}}"]
        result = run(reader, timeout=60)
        equal((result.status, result.out.strip()), (0, str(4 * 250_000 * 99)),
              f"{isolation}: 100 MB from four workers, nothing lost", result=result)
        rss = re.search(r"peak rss\D*(\d+(?:\.\d+)?)\s*(\w+)", result.err.lower())
        size = float(rss[1]) * {"k": 1 / 1024, "m": 1, "g": 1024}.get(rss[2][0], 1) if rss else 0
        ok(0 < size < 150, f"{isolation}: peak RSS {size:.0f} MiB", stderr=result.err)


@test
def slow_readers(tmp):
    """Back-pressure reaches who writes, and a cancel reaches them all the same."""
    for isolation in ISOLATIONS:
        reader, writer = os.pipe()
        try:
            with hosted("--capture", "--isolation", isolation, "--grace", "1s", "-c",
                        "import sys\nwhile True: print('z' * 99)", stdout=writer) as it:
                time.sleep(1.0)
                with open(f"/proc/{it.pid}/status") as status:
                    rss = int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) / 1024
                it.signal(15)
                since = time.monotonic()
                result = it.finish(10)
                late = time.monotonic() - since
        finally:
            os.close(reader)
            os.close(writer)
        ok(rss < 150, f"{isolation}: nobody reads: memory stays flat ({rss:.0f} MiB)")
        ok(result.status in (143, 137) and late < 1.0 + 1.0 * PATIENCE,
           f"{isolation}: nobody reads: SIGTERM ends it ({late:.2f} s)", result=result)
        started = time.monotonic()
        result, left = finished(["bash", "-c", f"'{SUBHOST}' run --capture --isolation {isolation} "
                                 "-c 'for i in range(300_000): print(i)' | "
                                 "(sleep 1; tail -n 1)"], timeout=30)
        ok(result.status == 0 and result.out.rstrip().endswith("299999") and not left
           and time.monotonic() - started > 1, f"{isolation}: a reader that comes late gets it all",
           result=result)


@test
def slow_readers_of_tasks(tmp):
    """Back-pressure below a forked child, too; what is no output passes by what waits."""
    file = script(tmp, """
        import subhost, sys
        def write(count):
            for i in range(count): print(i, "z" * 500)
        def deeper(isolation, count):
            with subhost.open_nursery() as nursery:
                nursery.start(write, count, isolation=isolation)
        def quick(): return "result"
        def pair(isolation, count):
            with subhost.open_nursery() as nursery:
                nursery.start(deeper, isolation, count, isolation=isolation)
                with subhost.open_nursery() as inner:
                    task = inner.start(quick, isolation=isolation)
                print(task.result(), file=sys.__stderr__, flush=True)
        if __name__ == "__main__":
            pair(sys.argv[1], int(sys.argv[2]))
    """)

    def memory(pid):
        with open(f"/proc/{pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) / 1024

    for below in ISOLATIONS:
        options = ("--capture", "--isolation", "process", "--grace", "1s", file, below)
        reader, writer = os.pipe()
        try:
            with hosted(*options, 10**8, stdout=writer) as it:
                it.wait_for("result", stream="err")
                time.sleep(1.5)
                first = memory(it.pid)
                time.sleep(1)
                grown = memory(it.pid) - first
                it.signal(15)
                since = time.monotonic()
                result = it.finish(10)
                late = time.monotonic() - since
        finally:
            os.close(reader)
            os.close(writer)
        ok(first < 150 and grown < 10, f"{below}: nobody reads: memory stays flat",
           first=first, grown=grown)
        ok(result.status in (143, 137) and late < 1.0 + 1.5 * PATIENCE,
           f"{below}: nobody reads: SIGTERM ends it ({late:.2f} s)", result=result)
        command = " ".join(f"'{word}'" for word in (SUBHOST, "run", *options, 60_000))
        result, left = finished(["bash", "-c", f"{command} | (sleep 1; wc -l)"], timeout=30)
        ok(result.out.strip() == "60000" and not left,
           f"{below}: a reader that comes late gets it all", result=result, left=left)


@test
def reader_gone(tmp):
    for isolation in ISOLATIONS:
        result, left = finished(
            ["bash", "-c", f"'{SUBHOST}' run --capture --isolation {isolation} -n 2 -c "
             "'for i in range(10**7): print(i)' 2>err | head -n 1; echo ${PIPESTATUS[0]}"],
            timeout=20, cwd=tmp)
        words = result.out.split()
        # As `python ... | head` would: a BrokenPipeError or SIGPIPE, no hang.
        ok(result.status == 0 and not left and words and words[-1] not in ("0", "timeout"),
           f"{isolation}: | head -n 1 ends it, status {words[-1] if words else None}",
           result=result, left=left, err=(tmp / "err").read_text()[-1000:])
        result, left = run_hosted("--capture", "--isolation", isolation, "-c",
                                  "import sys; print('x'); print('y', file=sys.stderr)",
                                  stdout=open(os.devnull, "w"))
        ok(result.status == 0 and result.err.endswith("y\n"), f"{isolation}: both streams are apart",
           result=result)
        with open("/dev/full", "w") as full:
            result, left = run_hosted("--capture", "--isolation", isolation, "-c",
                                      "for i in range(10000): print(i)", stdout=full)
        ok(result.status not in (0, "timeout") and not left, f"{isolation}: stdout is /dev/full",
           result=result)


main()
