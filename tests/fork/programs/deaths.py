"""Process tasks that die, are killed, or cannot be started: subhost run deaths.py WHAT [ARG...]

Every waiter gets a clear outcome, and soon. Each line of output is a JSON object."""
import contextlib
import os
import random
import resource
import signal
import sys
import time

import subhost
from common import count_descriptors, descriptors, kind, report, run_alone, session_others


def die(how):
    import ctypes
    match how.split("-"):
        case ["exit", code]:
            os._exit(int(code))
        case ["sysexit", code]:
            sys.exit(int(code))
        case ["kill", number]:
            os.kill(os.getpid(), int(number))
            time.sleep(20)
        case ["segv"]:
            ctypes.string_at(0)
        case ["abort"]:
            os.abort()
        case ["thread", code]:
            import threading
            threading.Thread(target=os._exit, args=(int(code),)).start()
            time.sleep(20)
        case ["buffered", code]:
            print("text in a buffer", end="")
            os._exit(int(code))
        case ["close"]:
            # All that a task can reach, the control socket perhaps too.
            os.closerange(3, 4096)
            return "closed"
        case ["exec"]:
            os.execv("/bin/sh", ["sh", "-c", "exit 5"])
        case ["output"]:
            return bytes(50_000_000)
        case ["half"]:
            # Killed while its result is on the way.
            import threading
            threading.Timer(random.random() / 100, os.kill, (os.getpid(), 9)).start()
            return bytes(200_000_000)


def deaths(*hows):
    for how in hows:
        began = time.monotonic()
        found, outcome = run_alone(die, how, isolation="process")
        if found and found[0] == "value":
            found = ("value", repr(found[1])[:20])
        report(how=how, found=found, outcome=outcome, seconds=time.monotonic() - began)


def below(how):
    return run_alone(die, how, isolation="process")


def deaths_below(*hows):
    """The same one level further down: the root reaps, the spawner must hear of it."""
    for how in hows:
        began = time.monotonic()
        (_, (found, outcome)), _ = run_alone(below, how, isolation="process")
        report(how=how, found=found, outcome=outcome, seconds=time.monotonic() - began)


def sleep():
    time.sleep(60)


def pid_of(task):
    while task.pid is None and not task.done():
        time.sleep(0.0005)
    return task.pid


def killed_at_random(rounds, until):
    """SIGKILL from outside, up to UNTIL ms after the start."""
    before, outcomes, slowest, wrong = None, {}, 0, []
    for number in range(int(rounds)):
        try:
            with subhost.open_nursery() as nursery:
                task = nursery.start(sleep, isolation="process")
                pid = pid_of(task)
                time.sleep(random.random() * float(until) / 1000)
                since = time.monotonic()
                os.kill(pid, signal.SIGKILL)
                try:
                    task.result(timeout=20)
                    wrong.append("a result")
                except Exception as error:
                    if "9" not in str(error) and "SIGKILL" not in str(error):
                        wrong.append(f"{type(error).__name__}: {error}")
                slowest = max(slowest, time.monotonic() - since)
        except ExceptionGroup:
            pass
        outcomes[kind(task)] = outcomes.get(kind(task), 0) + 1
        if number == 3:
            before = count_descriptors()
    report(outcomes=outcomes, slowest=slowest, wrong=wrong[:3], others=session_others(),
           leaked=count_descriptors(before) - before)


def value():
    return 5


def try_one():
    began = time.monotonic()
    found, outcome = run_alone(value, isolation="process")
    return found, outcome, time.monotonic() - began


def one():
    report(row=try_one(), others=session_others())


def no_processes():
    """fork fails with EAGAIN: an error, and when there is room again, all is well."""
    first = try_one()
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
    before = count_descriptors()
    failed = [try_one() for _ in range(10)]
    leaked = count_descriptors(before) - before
    resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
    report(first=first, failed=failed, leaked=leaked, last=try_one(), others=session_others())


def no_processes_below():
    report(inside=run_alone(inside_no_processes, isolation="process"), others=session_others())


def inside_no_processes():
    return [try_one()[:2] for _ in range(3)]


def no_threads_in_the_child():
    """fork succeeds; the child's driver thread cannot be made."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    used = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError):  # it ends meanwhile
            if os.stat(f"/proc/{name}").st_uid == os.getuid():
                used += len(os.listdir(f"/proc/{name}/task"))
    rows = []
    for extra in range(0, 6):
        resource.setrlimit(resource.RLIMIT_NPROC, (used + extra, hard))
        rows.append((extra, *try_one()))
    resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
    report(rows=rows, last=try_one(), others=session_others())


def no_descriptors():
    """Each number of free descriptors from 0 to 9: works or is an error, leaks none."""
    first = try_one()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    filler = []
    top = max(descriptors()) + 20
    rows = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (top, hard))
    before = count_descriptors()
    for free in range(10):
        try:
            while True:
                filler.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        for _ in range(min(free, len(filler))):
            os.close(filler.pop())
        rows.append((free, *try_one()))
        for descriptor in filler:
            os.close(descriptor)
        filler.clear()
    leaked = count_descriptors(before) - before
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    report(first=first, rows=rows, leaked=leaked, last=try_one(), others=session_others())


def start_for_ever():
    """What the parent does when it is killed at a random moment."""
    while True:
        with subhost.open_nursery() as nursery:
            for _ in range(2):
                nursery.start(spawn_one, isolation="process")


def spawn_one():
    with subhost.open_nursery() as nursery:
        nursery.start(value, isolation="process")
        nursery.start(value)


def unpicklable_result():
    return lambda: None


class Odd(Exception):
    def __reduce__(self):
        raise TypeError("cannot be carried over")


def odd_exception():
    raise Odd("odd text")


class Bomb:
    """Pickles well, does not unpickle where it arrives."""
    def __reduce__(self):
        return explode, (os.getpid(),)


def explode(pid):
    if os.getpid() != pid:
        raise ValueError("does not unpickle")
    return Bomb()


def take(thing):
    return type(thing).__name__


def bomb_result():
    return Bomb()


def carried():
    for name, function, *args in (
            ("unpicklable result", unpicklable_result), ("odd exception", odd_exception),
            ("argument that does not unpickle", take, Bomb()), ("bomb result", bomb_result),
            ("not importable", lambda: 1), ("unpicklable argument", take, lambda: 1),
            ("big argument", len, bytes(50_000_000)), ("big result", bytes, 50_000_000)):
        began = time.monotonic()
        found, outcome = run_alone(function, *args, isolation="process")
        if found and found[0] == "value" and isinstance(found[1], bytes):
            found = ("value", len(found[1]))
        report(name=name, found=found, outcome=outcome, seconds=time.monotonic() - began)
    report(last=try_one(), others=session_others())


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
