"""Programs that start processes: run them in a session of their own, see what they leave in it.

Importing it makes the test a subreaper: what loses its parent becomes the test's child, not
init's, which in a container may never reap. Everything that is waited for is a pidfd."""

import contextlib
import ctypes
import os
import select
import signal
import time

from programs import PATIENCE, SUBHOST, spawn

PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

ROUNDS = int(os.environ.get("SUBHOST_TEST_ROUNDS", "0"))


def rounds(few):
    """How often: FEW by default, SUBHOST_TEST_ROUNDS when it is set."""
    return ROUNDS or few


def batches(times):
    """Rounds that make interpreters, a hundred for each process: CPython 3.13 gives no memory of
    an interpreter back, and with gigabytes of it forks take long."""
    return [100] * (times // 100) + [times % 100] * (times % 100 > 0)


def members(session):
    """{pid: (state, parent)} of the session's processes, zombies too."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{name}/stat", "rb") as file:
                state, parent, _, its = file.read().rpartition(b")")[2].split()[:4]
            if int(its) == session:
                found[int(name)] = (state.decode(), int(parent))
    return found


def describe(pid):
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read().replace(b"\0", b" ").decode(errors="replace")
        with open(f"/proc/{pid}/status") as file:
            state = next(line for line in file if line.startswith("State"))
        return f"{pid} {state.strip()} {command[:80]}"
    return str(pid)


def left_behind(session, patience=1.0):
    """What is still in SESSION after PATIENCE seconds, as text; it is killed."""
    end = time.monotonic() + patience * PATIENCE
    while True:
        left = members(session)
        for pid, (state, parent) in list(left.items()):
            if state == "Z" and parent == os.getpid():
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
                del left[pid]
        if not left or time.monotonic() >= end:
            break
        time.sleep(0.02)
    names = [describe(pid) for pid in left]
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return names


def ended(it, timeout):
    """Whether IT (of spawn) ends in time. When not, every process of its session is asked for
    its stacks, which are then on its stderr."""
    if it._ended(timeout * PATIENCE):
        return True
    # The root host answers SIGUSR1; so do children that are hosts by then. What is none yet
    # dies of it, which is no loss: it hangs.
    for pid in members(it.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR1)
    it._ended(1.5)
    return False


def finished(args, timeout=30, patience=1.0, **more):
    """Run ARGS to the end; (Result, what it left behind). When TIMEOUT passes the stacks of
    what hangs are at the end of the Result's stderr."""
    with spawn(args, **more) as it:
        in_time = ended(it, timeout)
        result = it.finish(0.1 if not in_time else 5)
        if not in_time:
            result.status = "timeout"
        return result, left_behind(it.pid, patience if in_time else 0)


def run_hosted(*args, **kw):
    """finished() of `subhost run ARGS`."""
    return finished([SUBHOST, "run", *args], **kw)


@contextlib.contextmanager
def watched(pids):
    """pidfds of PIDS, to see when each of them is gone: yields gone_after(limit)."""
    open_now = {}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            open_now[os.pidfd_open(pid)] = pid

    def gone_after(since, limit):
        """([(seconds, pid)], [pids that are still there at SINCE + LIMIT])"""
        poll, gone, pending = select.poll(), [], dict(open_now)
        for descriptor in pending:
            poll.register(descriptor, select.POLLIN)
        while pending and (left := since + limit - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(left * 1000):
                poll.unregister(descriptor)
                gone.append((time.monotonic() - since, pending.pop(descriptor)))
        return gone, sorted(pending.values())

    try:
        yield gone_after
    finally:
        for descriptor in open_now:
            os.close(descriptor)
