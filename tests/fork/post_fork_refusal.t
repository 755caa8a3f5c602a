#!/usr/bin/env python3
# timeout: 180
"""post-fork-refusal: what would fork a running Python is refused before anything is forked;
what forks to exec works; the child of a fork by C code ends before it runs Python."""
import json
import os
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import NATIVE, PATIENCE, equal, main, ok, script, subhost, test

INSTEAD = ("this program runs under subhost, and the child of a fork with live subinterpreters "
           "dies before it runs any Python. Use subprocess, os.posix_spawn, multiprocessing with "
           "the 'spawn' or 'forkserver' start method, or subhost.open_nursery() with "
           "isolation='process'")
FORK = f"os.fork() is refused: {INSTEAD}"
FORKPTY = f"os.forkpty() is refused: {INSTEAD}; pty.openpty() for a terminal"
PREEXEC = ("subprocess with preexec_fn is refused: this program runs under subhost, and the "
           "child of a fork with live subinterpreters dies before it runs any Python. Use "
           "start_new_session, process_group, user=, group=, umask= or pass_fds instead, or "
           "subhost.open_nursery() with isolation='process'")

[FORKER] = NATIVE.glob("forker.*")

# Kinds of forks by C code, and how to wait for a child.
COMMON = f"""
    import ctypes, glob, os, select, sys, threading, time
    libc = ctypes.CDLL(None)
    forker = ctypes.CDLL({str(FORKER)!r})
    with_gil = ctypes.PyDLL({str(FORKER)!r})
    def plain():
        pid = libc.fork()
        if pid == 0:
            os.write(2, b"python lives\\n")
            os._exit(3)
        return pid
    def plain_with_gil():
        pid = ctypes.PyDLL(None).fork()
        if pid == 0:
            os.write(2, b"python lives\\n")
            os._exit(3)
        return pid
    def status_of(pid, limit={PATIENCE}):
        assert pid > 0, pid
        descriptor = os.pidfd_open(pid)
        try:
            if not select.select([descriptor], [], [], limit)[0]:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
                return "hangs"
        finally:
            os.close(descriptor)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    def keep_busy(count, function=None):
        def spin():
            while not stop:
                pass
        for _ in range(count):
            busy.append(threading.Thread(target=function or spin, daemon=True))
            busy[-1].start()
        sys.setswitchinterval(0.0005)
    def calm():
        global stop
        stop = True
        for thread in busy:
            thread.join()
    busy, stop = [], False
    def children():
        found = []
        for name in glob.glob("/proc/self/task/*/children"):
            try:
                found += open(name).read().split()
            except OSError:
                pass
        return sorted(found)
"""

LINE = re.compile(r"subhost: a process forked by C code \(pid \d+, from thread [^)]*\) was about "
                  r"to run Python, which cannot work there; use subprocess, os\.posix_spawn\(\) "
                  r"or subhost\.open_nursery\(\) with isolation=\"process\"")


def program(tmp, text):
    file = script(tmp, COMMON)
    with open(file, "a") as out:
        out.write(script(tmp, text, "rest.py").read_text())
    return file


def lines_of(text):
    """How many lines say why a child ended, and what else there is."""
    lines = text.splitlines()
    rest = [line for line in lines if not LINE.fullmatch(line)]
    return len(lines) - len(rest), rest


REFUSED = """
    import multiprocessing, pty, subprocess
    def attempt(name, function, *args, **kw):
        before = children()
        try:
            text = f"not refused: {function(*args, **kw)!r}"
        except RuntimeError as error:
            text = str(error)
        results.append((where, name, text, children() == before))
    def all_of_them():
        attempt("fork", os.fork)
        attempt("forkpty", os.forkpty)
        attempt("pty.fork", pty.fork)
        attempt("pty.spawn", pty.spawn, "true")
        attempt("spawn", os.spawnlp, os.P_WAIT, "true", "true")
        attempt("preexec", subprocess.run, ["true"], preexec_fn=print)
        attempt("popen", subprocess.Popen, ["true"], preexec_fn=lambda: None, close_fds=False)
        attempt("multiprocessing", multiprocessing.get_context("fork").Process(target=print).start)
    if __name__ == "__main__":
        results, where = [], "first"
        all_of_them()
        where = "second"
        thread = threading.Thread(target=all_of_them, name="second")
        thread.start()
        thread.join()
        sys.audit("subprocess.Popen", 1, [], None, None)  # not of subprocess's own
        import json
        print(json.dumps(results))
"""
WANTED = {"fork": FORK, "forkpty": FORKPTY, "pty.fork": FORKPTY, "pty.spawn": FORKPTY,
          "spawn": FORK, "preexec": PREEXEC, "popen": PREEXEC, "multiprocessing": FORK}


@test
def refused(tmp):
    trail = tmp / "trail"
    result = subhost("run", "--trail", trail, program(tmp, REFUSED))
    equal((result.status, result.err), (0, ""), "the program goes on after refusals",
          result=result)
    for where, name, text, unchanged in json.loads(result.out or "[]"):
        equal(text, WANTED[name], f"{name}, {where} thread: the message")
        ok(unchanged, f"{name}, {where} thread: nothing was forked")
    events = [json.loads(line) for line in trail.read_text().splitlines()]
    refusals = [event for event in events if event["event"] == "fork-refused"]
    equal(len(refusals), 2 * len(WANTED), "each is in the trail")
    equal({event["interp"] for event in refusals}, {1}, "with the interpreter")
    ok(len({event["thread"] for event in refusals}) == 2 and
       all(event["thread_name"] for event in refusals), "with the thread",
       refusals=refusals)
    equal({event["what"] for event in refusals},
          {"os.fork", "os.forkpty", "subprocess preexec_fn"}, "with what was refused")
    ok(all(all(re.search(r":\d+ in \S+$", frame) for frame in event["stack"]) and
           any(re.search(r"/program\.py:\d+ in all_of_them$", frame)
               for frame in event["stack"][1:]) for event in refusals),
       "with the stack, innermost first", refusals=refusals)


@test
def deep_stacks(tmp):
    trail = tmp / "trail"
    text = "import os\ndef f(n): return f(n - 1) if n else os.fork()\nf(500)\n"
    result = subhost("run", "--trail", trail, script(tmp, text))
    equal(result.last, "RuntimeError: " + FORK, "refused deep in a stack")
    [stack] = [event["stack"] for event in map(json.loads, trail.read_text().splitlines())
               if event["event"] == "fork-refused"]
    ok(5 < len(stack) < 100 and stack[-1] == "..." and stack[0].endswith("program.py:2 in f"),
       "the trail has the innermost part of the stack", stack=stack)


@test
def in_the_main_interpreter(tmp):
    # Where a forked child runs its task; here a thread of C's gets there.
    file = program(tmp, """
        code = '''
        import os, subprocess, sys, threading
        def attempt(function, *args, **kw):
            try:
                print("not refused", function(*args, **kw))
            except RuntimeError as error:
                print(error)
        attempt(os.fork)
        attempt(os.forkpty)
        attempt(subprocess.run, ["true"], preexec_fn=print)
        # Past subprocess: CPython would fork.
        original = subprocess._fork_exec
        def with_preexec(*args):
            return original(*args[:21], print, *args[22:])
        subprocess._fork_exec = with_preexec
        process = subprocess.Popen(["true"], close_fds=False, umask=0o22)
        print(process.wait())
        sys.stdout.flush()
        '''
        import textwrap
        forker.run_in_main(textwrap.dedent(code).encode())
    """)
    result = subhost("run", file)
    lines = result.out.splitlines()
    equal(lines[:1] + lines[2:3], [FORK, PREEXEC], "refused in the main interpreter",
          result=result)
    ok(lines[1:2] and lines[1].startswith("os.forkpty() is refused: "), "os.forkpty, too",
       result=result)
    equal((lines[3:], lines_of(result.err)), (["126"], (1, [])),
          "preexec_fn past subprocess: the child ends before it runs", result=result)


@test
def what_works(tmp):
    file = program(tmp, """
        import asyncio, multiprocessing, subprocess
        def square(n):
            return n * n
        async def run_async():
            process = await asyncio.create_subprocess_exec("true")
            return await process.wait()
        if __name__ == "__main__":
            sh = ["sh", "-c", "exit 5"]
            print(subprocess.run(sh).returncode, subprocess.run(sh, close_fds=False).returncode)
            print(subprocess.run(sh, user=os.getuid()).returncode,
                  subprocess.run(sh, start_new_session=True, umask=0o22, process_group=None,
                                 preexec_fn=None).returncode)
            pid = os.posix_spawn("/bin/sh", sh, os.environ)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            print(os.waitstatus_to_exitcode(os.system("exit 6")), os.popen("echo popen").read())
            print(asyncio.run(run_async()))
            for method in ("spawn", "forkserver"):
                context = multiprocessing.get_context(method)
                with context.Pool(1) as pool:
                    print(pool.map(square, [3]))
    """)
    result = subhost("run", file, timeout=60)
    equal((result.status, result.out.split(), result.err),
          (0, "5 5 5 5 5 6 popen 0 [9] [9]".split(), ""),
          "subprocess, posix_spawn, system, popen, asyncio, multiprocessing", result=result)


@test
def children_that_run_python(tmp):
    file = program(tmp, """
        for function in (plain, plain_with_gil, with_gil.fork_python_with_gil,
                         forker.fork_python_in_c_thread, forker.fork_thread_python):
            print(function.__name__, status_of(function()))
        thread = threading.Thread(target=lambda: print("second", status_of(plain())))
        thread.start()
        thread.join()
    """)
    names = ("plain", "plain_with_gil", "fork_python_with_gil", "fork_python_in_c_thread",
             "fork_thread_python", "second")
    for doorbell in ("pending-call", "attach"):
        changes = {"SUBHOST_DOORBELL": doorbell} if doorbell == "attach" else None
        result = subhost("run", file, env=changes)
        seen = dict(line.split() for line in result.out.splitlines())
        wanted = dict.fromkeys(names, "126")
        if doorbell == "attach":  # see private-symbols.md: only when it releases the GIL
            seen.pop("fork_python_with_gil", None), wanted.pop("fork_python_with_gil")
        equal((result.status, seen), (0, wanted), f"{doorbell}: status 126", result=result)
        count, rest = lines_of(result.err)
        ok(count >= len(wanted) and rest == [], f"{doorbell}: one line each", result=result)
    ok("thread program.py" in result.err or "from thread" in result.err, "it names the thread")


@test
def forks_without_handlers(tmp):
    # The kernel tells such a child apart: Linux 4.14.
    file = program(tmp, """
        forks = {"_Fork": getattr(libc, "_Fork", None)}
        def system_call():
            return libc.syscall(ctypes.c_long(220 if os.uname().machine == "aarch64" else 56),
                                ctypes.c_long(17), None, None, None, None)  # clone(SIGCHLD)
        forks["clone"] = system_call
        for name, fork in forks.items():
            for n in range(5 if fork else 0):
                status = status_of(fork())
                if status != 126:
                    print(name, status)
        print(status_of(plain()))  # and the other way still works
    """)
    for isolation in ((), ("--isolation", "process")):
        result = subhost("run", *isolation, file)
        equal((result.status, result.out), (0, "126\n"),
              f"{isolation}: _Fork() and clone(): status 126", result=result)
        count, rest = lines_of(result.err)
        ok(count in (6, 11) and rest == [], f"{isolation}: one line each", result=result)


@test
def nobody_reads(tmp):
    file = program(tmp, """
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        try:
            while True:
                os.write(writer, bytes(1000))
        except BlockingIOError:
            os.set_blocking(writer, True)
        os.dup2(writer, 2)
        print(status_of(plain()))
    """)
    result = subhost("run", file)
    equal((result.status, result.out), (0, "126\n"), "stderr is a full pipe: it ends all the same",
          result=result)


@test
def children_of_c(tmp):
    trail = tmp / "trail"
    file = program(tmp, """
        keep_busy(2)
        for _ in range(20):
            print(status_of(forker.fork_exec(b"/bin/true")), status_of(forker.fork_c()),
                  status_of(with_gil.fork_c()), status_of(forker.fork_c_exit()),
                  status_of(with_gil.fork_c_exit()))
        calm()
    """)
    result = subhost("run", "--trail", trail, file, timeout=60)
    equal((result.status, set(result.out.splitlines()), result.err), (0, {"0 7 7 7 7"}, ""),
          "a child of C's may exec, and do as it likes in C", result=result)
    ok('"fork-by-c"' in trail.read_text(), "the trail has the forks")


@test
def busy_siblings(tmp):
    file = program(tmp, """
        count, statuses = int(sys.argv[1]), {}
        if sys.argv[2] == "spin":
            keep_busy(3)
        else:  # they take and release the GIL all the time, and CPython's locks
            lock = threading.Lock()
            def fight():
                while not stop:
                    with lock:
                        time.sleep(0)
            keep_busy(3, fight)
        kinds = (plain, with_gil.fork_python_with_gil, plain, forker.fork_python_in_c_thread)
        for n in range(count):
            status = status_of(kinds[n % len(kinds)]())
            statuses[status] = statuses.get(status, 0) + 1
        calm()
        print(statuses)
    """)
    for how in ("spin", "fight"):
        result = subhost("run", file, 500, how, timeout=60)
        equal((result.status, result.out), (0, "{126: 500}\n"),
              f"500 forks beside threads that {how}: each child ends", result=result)
        equal(lines_of(result.err), (500, []), f"{how}: one line each")
    result = subhost("run", "-n", "3", file, 100, "spin", timeout=60)
    equal((result.status, result.out), (0, "{126: 100}\n" * 3),
          "three interpreters at once: each child ends", result=result)
    equal(lines_of(result.err), (300, []), "three interpreters: one line each")


main()
