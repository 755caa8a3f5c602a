"""Bounded ways to run the programs under test; imported through tap.py.

SUBHOST         the runner                 SUBHOST_PYTHON     the python to compare it with
SUBHOST_BUILD_DIR, SUBHOST_SOURCE_DIR      where the project was built, where it lives
SUBHOST_TEST_PATIENCE                      factor on every time limit (slow builds: 5, say)
"""

import contextlib
import fcntl
import os
import pathlib
import pty
import resource
import select
import signal
import subprocess
import sys
import termios
import textwrap
import threading
import time

SUBHOST = os.environ.get("SUBHOST", "subhost")
PYTHON = os.environ.get("SUBHOST_PYTHON", sys.executable)
BUILD = pathlib.Path(os.environ.get("SUBHOST_BUILD_DIR", "build/default"))
SOURCE = pathlib.Path(
    os.environ.get("SUBHOST_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2])
)
NATIVE = BUILD / "tests" / "native"  # the extension modules built for the tests
PATIENCE = float(os.environ.get("SUBHOST_TEST_PATIENCE", "1"))

# Whoever started the suite may ignore SIGINT (a shell's `&`) or block signals, and
# children inherit that. Caught signals go back to their default at exec.
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    signal.signal(_number, signal.default_int_handler)
signal.pthread_sigmask(signal.SIG_SETMASK, [])
# Some tests crash python on purpose.
resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


class Result:
    """How a process ended. `status` is what a shell shows: 128 + N for signal N, which
    is kept in `.signal`; "timeout" when it had to be killed here. `out` and `err` are
    text with surrogateescape."""

    def __init__(self, args, code, out, err, seconds):
        self.args, self.seconds = args, seconds
        self.signal = -code if isinstance(code, int) and code < 0 else 0
        self.status = 128 + self.signal if self.signal else code
        self.out, self.err = (os.fsdecode(out or b""), os.fsdecode(err or b""))

    @property
    def last(self):
        """The last line on stderr: of a traceback, the one that says what happened."""
        return (self.err.splitlines() or [""])[-1]

    def __repr__(self):
        command = " ".join(repr(arg)[:200] for arg in self.args)
        return (f"command: {command}\nstatus: {self.status} after {self.seconds:.3f} s\n"
                f"stdout: {self.out[-1500:]}\nstderr: {self.err[-3000:]}")


def environment(changes=None):
    """This environment without what would steer python. A None in CHANGES removes."""
    env = {
        key: value for key, value in os.environ.items()
        if key == "PYTHONMALLOC"
        or not key.startswith(("PYTHON", "VIRTUAL_ENV", "FORCE_COLOR", "NO_COLOR", "COLUMNS"))
    }
    for key, value in (changes or {}).items():
        env.pop(key, None)
        if value is not None:
            env[key] = value
    return env


def _arguments(args):
    return [arg if isinstance(arg, bytes) else str(arg) for arg in args]


def _kill_group(process):
    # The leader is not reaped yet, so its number cannot have been given to another.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run(args, input=None, env=None, timeout=30, cwd=None, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more):
    """Run to the end. When TIMEOUT passes (or a grandchild keeps the pipes open that
    long), the whole process group is killed and the status is "timeout"."""
    args = _arguments(args)
    if isinstance(input, str):
        input = os.fsencode(input)
    if input is not None:
        stdin = subprocess.PIPE
    started = time.monotonic()
    process = subprocess.Popen(args, env=environment(env), cwd=cwd, stdin=stdin, stdout=stdout,
                               stderr=stderr, start_new_session=True, **more)
    try:
        out, err = process.communicate(input, timeout=timeout * PATIENCE)
        code = process.returncode
    except subprocess.TimeoutExpired:
        _kill_group(process)
        out, err = process.communicate(timeout=10)
        code = "timeout"
    return Result(args, code, out, err, time.monotonic() - started)


def subhost(*args, **kw):
    """subhost("run", "-c", "pass")"""
    return run([SUBHOST, *args], **kw)


def python(*args, **kw):
    return run([PYTHON, *args], **kw)


def both(*args, **kw):
    """`subhost run ARGS` and `python ARGS`, side by side: (Result, Result)."""
    results = {}

    def of_python():
        results["python"] = python(*args, **kw)

    thread = threading.Thread(target=of_python)
    thread.start()
    try:
        mine = subhost("run", *args, **kw)
    finally:
        thread.join()
    return mine, results["python"]


def script(folder, text, name="program.py"):
    """Write an indented program into FOLDER; its path."""
    path = pathlib.Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text).lstrip("\n"))
    return path


class spawn:
    """A process to talk to while it runs; `with` makes sure that it ends.

    TERMINAL gives it a controlling terminal, where write(b"\\x03") is a Ctrl-C."""

    def __init__(self, args, env=None, cwd=None, terminal=False, **more):
        self.args, self.started = _arguments(args), time.monotonic()
        self.output = {"out": b"", "err": b""}
        self.news, self.open = threading.Condition(), set()
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        if terminal:
            master, slave = pty.openpty()
            pipes = dict.fromkeys(pipes, slave)
            # After setsid, in the child: this terminal becomes the controlling one.
            more["preexec_fn"] = lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        self.process = subprocess.Popen(self.args, env=environment(env), cwd=cwd, bufsize=0,
                                        start_new_session=True, **(pipes | more))
        self.pid = self.process.pid
        if terminal:
            os.close(slave)
            self.input = open(master, "r+b", buffering=0)
            streams = {"out": self.input}
        else:
            self.input = self.process.stdin
            streams = {"out": self.process.stdout, "err": self.process.stderr}
        self.readers = [threading.Thread(target=self._read, args=item, daemon=True)
                        for item in streams.items() if item[1]]
        self.open.update(streams)
        for thread in self.readers:
            thread.start()

    def _read(self, key, stream):
        # A terminal reports the end as an error.
        with contextlib.suppress(OSError, ValueError):
            while data := stream.read(65536):
                with self.news:
                    self.output[key] += data
                    self.news.notify_all()
        with self.news:
            self.open.discard(key)
            self.news.notify_all()

    def wait_for(self, text, timeout=20, stream="out", times=1):
        """Wait until TEXT was written (so many times); raises TimeoutError, with what was seen
        instead, when time is up or no more can come."""
        def seen():
            return self.output[stream].count(os.fsencode(text)) >= times

        with self.news:
            self.news.wait_for(lambda: seen() or stream not in self.open, timeout * PATIENCE)
            if not seen():
                raise TimeoutError(f"no {text!r} within {timeout} s; seen: {self.output}")

    def write(self, data):
        self.input.write(os.fsencode(data))

    def signal(self, number):
        self.process.send_signal(number)

    def finish(self, timeout=20):
        """Wait for the end, at most TIMEOUT; the Result, its seconds since the start."""
        ended = self._ended(timeout * PATIENCE)
        seconds = time.monotonic() - self.started
        if self.process.returncode is None:
            _kill_group(self.process)
        code = self.process.wait() if ended else "timeout"
        for thread in self.readers:
            thread.join(2)
        return Result(self.args, code, self.output["out"], self.output["err"], seconds)

    def _ended(self, timeout):
        """Wait for the end without reaping: so the group can be killed, with what the program
        left in it, while nobody else can have its number."""
        if self.process.returncode is not None:
            return True
        descriptor = os.pidfd_open(self.pid)
        try:
            return bool(select.select([descriptor], [], [], timeout)[0])
        finally:
            os.close(descriptor)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.returncode is None:
            _kill_group(self.process)
            self.process.wait()
        # A reader that is still blocked (a grandchild keeps the pipe) owns its stream.
        if not any(thread.is_alive() for thread in self.readers):
            for stream in (self.input, self.process.stdout, self.process.stderr):
                if stream:
                    with contextlib.suppress(OSError):
                        stream.close()


def hosted(*args, **kw):
    """spawn() of `subhost run ARGS`."""
    return spawn([SUBHOST, "run", *args], **kw)
