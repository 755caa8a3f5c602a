#!/usr/bin/env python3
"""stdin, stdout and stderr of a program, also where they are closed, full or a terminal."""
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import PATIENCE, PYTHON, SUBHOST, equal, hosted, main, ok, run, same, script, spawn, test


def closed_pipe():
    """The writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def same_in_shell(line, name, **kw):
    """LINE runs in a shell, where $RUN is `subhost run` or python."""
    mine, theirs = (run(["bash", "-c", line.replace("$RUN", command)], **kw)
                    for command in (f"'{SUBHOST}' run", f"'{PYTHON}'"))
    equal((mine.out, mine.err, mine.status), (theirs.out, theirs.err, theirs.status),
          name + ": as python", subhost=mine)


@test
def standard_input(tmp):
    same("-c", "import sys; print(ascii(sys.stdin.read()))", input="a\nb\r\n\udcff", name="read()",
         status=0)
    same("-c", "import sys; print(sys.stdin.buffer.read())", input=b"\0\xff\n", name="bytes")
    same("-c", "print([input(), input('prompt '), input()])", input="1\n2\n3", name="input()",
         status=0)
    same("-c", "input()\ninput()", input="1\n", name="input() at the end of file", status=1)
    same("-c", "import sys\nfor line in sys.stdin: print(line, end='')",
         input="line\n" * 5000, name="line by line", status=0)
    same("-c", "import sys; print(len(sys.stdin.read()))", input="x" * 3_000_000,
         name="3 MB", status=0)
    same("-", input="import sys\nprint(sys.stdin.read())\n", name="- has read it all", status=0)
    same("-c", "import sys; print(sys.stdin.read(2)); sys.stdin.close()", input="abcdef",
         name="closed by the program", status=0)
    same("-c", "import os; print(os.read(0, 10)); os.system('cat')", input="early late",
         name="shared with a child", status=0)
    file = script(tmp, "import sys; print(sys.argv, sys.stdin.readline())")
    same(file, "x", input="line\nmore\n", name="FILE with piped input", status=0)
    # An unread pipe must not be drained by the host before the program asks.
    same_in_shell("(echo first; echo second) | ($RUN -c 'pass'; cat)", "input is left alone")


@test
def interleaving(tmp):
    both = subprocess.STDOUT
    same("-c", "import sys\nfor i in range(5): print(i); print('e', i, file=sys.stderr)",
         stderr=both, name="stdout is block-buffered in a pipe, stderr is not", status=0)
    same("-c", "import sys, os\nprint('a'); sys.stdout.flush(); os.system('echo b'); print('c')",
         name="order with a child's output", status=0)
    same("-c", "print('x' * 3_000_000)", name="3 MB of output", status=0)
    same("-c", "import sys; sys.stdout.buffer.write(bytes(range(256)))", name="bytes", status=0)
    same("-c", "print('no newline', end='')", name="no newline at the end", status=0)
    same("-c", "import os; print('lost'); os._exit(0)", env={"PYTHONUNBUFFERED": "1"},
         name="PYTHONUNBUFFERED", status=0)
    same("-c", "print('\\udcff')", env={"PYTHONIOENCODING": "utf-8:strict"}, status=1,
         name="text that cannot be encoded")
    same("-c", "import sys; sys.stdout.reconfigure(line_buffering=True); print(1)\n"
         "sys.stdout.detach()", name="stdout detached", status=120)


@test
def broken_pipe(tmp):
    for name, code in (
        ("one line", "print(1)"),
        ("one line and a status", "import sys; print(1); sys.exit(3)"),
        ("one line and an exception", "print(1); 1 / 0"),
        ("much", "for i in range(100000): print(i)"),
        ("flush", "print(1, flush=True)"),
        ("caught", "import sys\ntry: print(1, flush=True)\nexcept BrokenPipeError as e:\n"
                   "    print(e, file=sys.stderr)"),
        ("caught and replaced, as the docs advise",
         "import os, sys\ntry:\n    print(1)\n    sys.stdout.flush()\nexcept BrokenPipeError:\n"
         "    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)\n    sys.exit(1)"),
        ("in a thread", "import threading\n"
                        "threading.Thread(target=lambda: print('x', flush=True)).start()"),
        ("SIGPIPE back to default",
         "import signal, time\nsignal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
         "print(1, flush=True)\ntime.sleep(5)"),
    ):
        writer = closed_pipe()
        try:
            same("-c", code, stdout=writer, name=f"stdout is a closed pipe: {name}")
        finally:
            os.close(writer)
    writer = closed_pipe()
    same("-c", "import sys; print(1); print(2, file=sys.stderr)", stderr=writer,
         name="stderr is a closed pipe")
    same("-c", "1 / 0", stderr=writer, name="stderr is a closed pipe: a traceback", status=120)
    os.close(writer)
    same_in_shell("$RUN -c 'for i in range(10**6): print(i)' 2>/dev/null | head -1; "
                  "echo ${PIPESTATUS[0]}", "| head -1")


def full_pipe():
    """Both ends of a pipe that is full."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for size in (4096, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b"x" * size)
    os.set_blocking(writer, True)
    return reader, writer


@test
def nobody_reads(tmp):
    """stdout or stderr is a full pipe: deadlines, Ctrl-C and stack dumps work all the same."""
    sleep, busy = "import time; time.sleep(60)", "while True: pass"
    limits = ("--timeout", "300ms", "--grace", "300ms")
    INT, USR1 = signal.SIGINT, signal.SIGUSR1
    cases = [
        # name, stream, options, code, signals, statuses, seconds at most after the last signal
        ("a deadline", "stderr", limits, sleep, (), (124, 137), 2.5),
        ("a deadline, in C that cannot be interrupted", "stderr", limits, "3**3**20", (), (137,),
         2.5),
        ("printed in C, and a deadline", "stdout", limits,
         "import ctypes; ctypes.CDLL(None).puts(b'x')", (), (124, 137), 2.5),
        ("Ctrl-C", "stderr", ("--grace", "300ms"), sleep, (INT,), (130, 137), 2),
        ("Ctrl-C twice", "stderr", (), "1 / 0", (INT, INT), (130,), 0.5),
        ("Ctrl-C after the grace period", "stderr", ("--grace", "100ms"), "3**3**20",
         (INT, INT), (130, 137, -INT), 2),  # the host may be closed already: a shell's 130
        ("stack dumps, then Ctrl-C twice", "stderr", (), busy, (USR1, USR1, INT, INT),
         (130,), 0.5),
        ("--stats", "stderr", ("--stats",), "pass", (), (0,), 2.5),
    ]
    pipes, running = [], []
    for isolation in ("interpreter", "process"):
        for case in cases:
            pipes.append(full_pipe())
            streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL,
                       case[1]: pipes[-1][1]}
            running.append((f"{isolation}: {case[0]}", case, subprocess.Popen(
                [SUBHOST, "run", "--isolation", isolation, *case[2], "-c", case[3]],
                stdin=subprocess.DEVNULL, start_new_session=True, **streams)))
    time.sleep(2.0 * PATIENCE)  # all have started
    for name, (_, stream, _, _, signals, statuses, most), process in running:
        for number in signals:
            process.send_signal(number)
            time.sleep(0.4)
        since = time.monotonic()
        try:
            status = process.wait(most * PATIENCE)
        except subprocess.TimeoutExpired:
            status = "hangs"
        ok(status in statuses, f"{stream} is full: {name}", status=status,
           late=time.monotonic() - since)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in pipes:
        os.close(pipe[0])
        os.close(pipe[1])


@test
def full_device(tmp):
    for name, code in (("one line", "print(1)"),
                       ("a status of its own", "import sys; print(1); sys.exit(3)"),
                       ("flush", "print(1, flush=True)"),
                       ("much", "print('x' * 100000)")):
        with open("/dev/full", "w") as full:
            same("-c", code, stdout=full, name=f"stdout is /dev/full: {name}")
    with open("/dev/full", "w") as full:
        same("-c", "1 / 0", stderr=full, name="stderr is /dev/full", status=120)


@test
def closed_descriptors(tmp):
    show = "import sys, os; os.write({}, ascii([sys.stdin, sys.stdout, sys.stderr]).encode())"
    same_in_shell(f"$RUN -c '{show.format(1)}' <&-", "stdin closed at the start")
    same_in_shell(f"$RUN -c '{show.format(2)}' >&-", "stdout closed at the start")
    same_in_shell(f"$RUN -c '{show.format(1)}' 2>&-", "stderr closed at the start")
    same_in_shell(f"$RUN -c '{show.format(1)}; open(\"/dev/null\")' <&- 2>&-", "two closed")
    same_in_shell("$RUN -c 'import os; os.open(\"x\", os.O_CREAT)' <&- >&- 2>&-",
                  "all three closed", cwd=tmp)
    same_in_shell("$RUN -c 'print(1)' >&-", "print() to a closed stdout")
    same_in_shell("$RUN -c '1 / 0' 2>&-", "an exception with stderr closed")
    # What the host opens for itself must not land on 0, 1 or 2 and get the program's text.
    same_in_shell("$RUN -c 'import os, sys\nfor fd in range(3):\n  try: os.write(fd, b\"lost\")\n"
                  "  except OSError: print(fd)\nprint(5)' <&- 2>&-",
                  "the host's descriptors are not 0 to 2")
    same("-c", "import os; os.close(1); print('lost')", name="a program that closes fd 1")
    same("-c", "import os, sys; sys.stdout.close(); print('lost')", name="sys.stdout.close()",
         status=1)
    same("-c", "import os; os.close(0); os.close(1); os.close(2)", name="all three closed late")
    same("-c", "import os; os.close(2); 1 / 0", name="a program that closes fd 2", status=120)
    same("-c", "import os\nos.close(1)\nos.open('file', os.O_CREAT | os.O_WRONLY)\nprint('x')",
         cwd=tmp, name="fd 1 opened again", status=0)


@test
def terminal(tmp):
    def session(command):
        """One conversation in a terminal; what was seen."""
        with spawn(command + ["-c", "import os, sys\n"
                              "print(sys.stdin.isatty(), sys.stdout.isatty(), os.isatty(2))\n"
                              "print('partial', end='|')\n"
                              "name = input('name? ')\nprint('hello', name)\n"
                              "print(sys.stdin.readline())\n"
                              "print(os.get_terminal_size())"], terminal=True) as it:
            it.wait_for("name? ")
            it.write("world\n")
            it.wait_for("hello world")
            it.write("line\n")
            result = it.finish()
            return result.out, result.status

    equal(session([SUBHOST, "run"]), session([PYTHON]), "input() and print() in a terminal")
    with hosted("-c", "input('? ')", terminal=True) as it:
        it.wait_for("? ")
        it.write("\x04")
        result = it.finish()
        ok(result.status == 1 and "EOFError" in result.out, "Ctrl-D is the end of input",
           result=result)
    # Job control wants a parent in the same session, so a shell stands between.
    line = (f"set -m; '{SUBHOST}' run -c 'import time; print(\"on\", flush=True); time.sleep(1)'; "
            "echo stopped $?; fg >/dev/null; echo over $?")
    with spawn(["bash", "-c", line], terminal=True) as it:
        it.wait_for("on")
        it.write("\x1a")
        it.wait_for("stopped 148")
        it.wait_for("over 0")
        ok(True, "Ctrl-Z stops the whole process, fg continues it")


main()
