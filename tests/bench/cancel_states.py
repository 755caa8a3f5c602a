"""The states that tests/bench/cancel cancels programs in. Each function says ready() and is
then in its state for longer than anybody waits.

    cancel_states.py STATE main|second FD     run by tests/bench/cancel.c in an interpreter

Bytes on FD: R, in the state now (or within microseconds); S, cannot be had here; E, a lie:
code was reached that a cancelled program must not reach."""
import os
import sys

LONG = 60
STATES = {}


class State:
    def __init__(self, function, promise, rounds, terminal):
        self.name, self.function = function.__name__, function
        self.promise, self.rounds, self.terminal = promise, rounds, terminal


def state(promise="cancelled", rounds=None, terminal=False):
    """PROMISE: cancelled (fast), abandoned (when the grace period is over), either (cancelled
    or abandoned, no later than that), cleanup (cancelled, in two thirds of it). ROUNDS at
    most, for what costs the whole grace period or runs on. TERMINAL: on a terminal."""
    def add(function):
        STATES[function.__name__] = State(function, promise, rounds, terminal)
        return function
    return add


class Skip(Exception):
    pass


def lie():
    os.write(FD, b"E")


# ---- cancelled at once ------------------------------------------------------------------


@state()
def busy_loop(ready):
    ready()
    while True:
        pass


@state()
def time_sleep(ready):
    import time
    ready()
    time.sleep(LONG)


@state()
def event_wait(ready):
    import threading
    event = threading.Event()
    ready()
    event.wait()
    lie()


@state()
def event_wait_loop(ready):
    import threading
    event = threading.Event()
    ready()
    while not event.wait(1.0):
        pass
    lie()


@state()
def condition_wait(ready):
    import threading
    with threading.Condition() as condition:
        pass
    condition = threading.Condition()
    with condition:
        ready()
        condition.wait()
    lie()


@state()
def semaphore_acquire(ready):
    import threading
    semaphore = threading.Semaphore(0)
    ready()
    semaphore.acquire()
    lie()


@state()
def queue_get(ready):
    import queue
    it = queue.Queue()
    ready()
    it.get()
    lie()


@state()
def thread_join(ready):
    import threading
    import time
    thread = threading.Thread(target=time.sleep, args=(LONG,))
    thread.start()
    ready()
    thread.join()


@state()
def os_read(ready):
    r, w = os.pipe()
    try:
        ready()
        os.read(r, 1)
        lie()
    finally:
        os.close(r)
        os.close(w)


@state()
def os_write(ready):
    r, w = os.pipe()
    try:
        ready()
        os.write(w, bytes(1 << 20))
        lie()
    finally:
        os.close(r)
        os.close(w)


@state()
def socket_recv(ready):
    import socket
    a, b = socket.socketpair()
    with a, b:
        ready()
        a.recv(1)
        lie()


@state()
def socket_recv_timeout(ready):
    import socket
    a, b = socket.socketpair()
    with a, b:
        a.settimeout(LONG)
        ready()
        a.recv(1)
        lie()


@state()
def socket_accept(ready):
    import socket
    with socket.create_server(("127.0.0.1", 0)) as server:
        ready()
        server.accept()
        lie()


def _full(family, address):
    """A listener whose backlog is full, and what fills it."""
    import contextlib
    import socket
    server = socket.socket(family)
    server.bind(address)
    server.listen(0)
    clients = []
    for _ in range(4):
        client = socket.socket(family)
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.connect(server.getsockname())
        clients.append(client)
    return server, clients


@state()
def connect_tcp(ready):
    import socket
    server, clients = _full(socket.AF_INET, ("127.0.0.1", 0))
    with socket.socket() as one_more:
        ready()
        one_more.connect(server.getsockname())
        lie()


@state()
def connect_unix(ready):
    import socket
    server, clients = _full(socket.AF_UNIX, "")
    with socket.socket(socket.AF_UNIX) as one_more:
        ready()
        one_more.connect(server.getsockname())
        lie()


@state()
def select_select(ready):
    import select
    r, w = os.pipe()
    try:
        ready()
        select.select([r], [], [])
        lie()
    finally:
        os.close(r)
        os.close(w)


@state()
def select_poll(ready):
    import select
    poll = select.poll()
    ready()
    poll.poll()
    lie()


@state()
def select_epoll(ready):
    import select
    with select.epoll() as epoll:
        ready()
        while True:  # it returns [] when it is ended early; what is raised follows
            epoll.poll()


@state()
def subprocess_run(ready):
    import subprocess
    ready()
    subprocess.run(["sleep", str(LONG)])
    lie()


@state()
def subprocess_pipes(ready):
    import subprocess
    ready()
    subprocess.run(["sleep", str(LONG)], capture_output=True)
    lie()


@state()
def os_waitpid(ready):
    import signal
    import subprocess
    child = subprocess.Popen(["sleep", str(LONG)])
    try:
        ready()
        os.waitpid(child.pid, 0)
        lie()
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


@state()
def flock(ready):
    import fcntl
    import tempfile
    with tempfile.NamedTemporaryFile() as one, open(one.name) as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        ready()
        fcntl.flock(other, fcntl.LOCK_EX)
        lie()


@state()
def open_fifo(ready):
    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        os.mkfifo(folder + "/fifo")
        ready()
        open(folder + "/fifo")
        lie()


@state()
def future_result(ready):
    import concurrent.futures
    future = concurrent.futures.Future()
    ready()
    future.result()
    lie()


@state()
def executor_result(ready):
    import concurrent.futures
    import time
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        future = pool.submit(time.sleep, LONG)
        ready()
        future.result()
        lie()


@state()
def asyncio_sleep(ready):
    import asyncio

    async def main():
        ready()
        await asyncio.sleep(LONG)
        lie()
    asyncio.run(main())


@state()
def asyncio_server(ready):
    import asyncio

    async def main():
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        async with server:
            ready()
            await server.serve_forever()
            lie()
    asyncio.run(main())


@state()
def asyncio_thread_pool(ready):
    import asyncio
    import time

    async def main():
        ready()
        await asyncio.to_thread(time.sleep, LONG)
        lie()
    asyncio.run(main())


@state()
def trio_idle(ready):
    try:
        import trio
    except ImportError as e:
        raise Skip(str(e))

    async def main():
        ready()
        await trio.sleep_forever()
        lie()
    trio.run(main)


# ---- what has no promise of milliseconds ------------------------------------------------


@state(terminal=True)
def input_terminal(ready):
    ready()
    input()
    lie()


@state("either", rounds=10)
def lock_acquire(ready):
    import threading
    lock = threading.Lock()
    lock.acquire()
    ready()
    lock.acquire()
    lie()


@state("either", rounds=10)
def lock_acquire_timeout(ready):
    import threading
    lock = threading.Lock()
    lock.acquire()
    ready()
    lock.acquire(timeout=LONG)
    lie()


@state("either", rounds=10)
def with_lock(ready):
    import threading
    lock = threading.Lock()
    lock.acquire()
    ready()
    with lock:
        lie()


@state("either", rounds=10)
def with_rlock(ready):
    import threading
    lock = threading.RLock()
    owner = threading.Thread(target=lock.acquire)
    owner.start()
    owner.join()
    ready()
    with lock:
        lie()


@state("either", rounds=10)
def simple_queue_get(ready):
    import queue
    it = queue.SimpleQueue()
    ready()
    it.get()
    lie()


@state("either", rounds=10)
def swallow_all(ready):
    ready()
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass


@state("either", rounds=10)
def swallow_all_asleep(ready):
    import time
    ready()
    while True:
        try:
            time.sleep(LONG)
        except BaseException:
            pass


@state("either", rounds=3)
def trio_deaf(ready):
    try:
        import trio
    except ImportError as e:
        raise Skip(str(e))

    async def main():
        ready()
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        lie()
    trio.run(main)


@state("cleanup", rounds=10)
def generator_finally(ready):
    import time

    def generator():
        try:
            ready()
            time.sleep(LONG)
            yield
        finally:
            time.sleep(LONG)
    for _ in generator():
        lie()


@state("cleanup", rounds=10)
def del_sleep(ready):
    import time
    sys.unraisablehook = lambda hook_args: None

    class Slow:
        def __del__(self):
            ready()
            time.sleep(LONG)
    Slow()
    time.sleep(LONG)  # what was raised in there is lost; it has to come again


@state("cleanup", rounds=10)
def exit_blocks(ready):
    import time

    class Slow:
        def __enter__(self):
            return self

        def __exit__(self, *exc_info):
            time.sleep(LONG)
    with Slow():
        ready()
        time.sleep(LONG)
    lie()


@state("abandoned", rounds=3)
def native_call(ready):
    import ctypes
    lock = ctypes.CDLL(None).pthread_mutex_lock
    mutex = ctypes.create_string_buffer(64)
    lock(mutex)
    ready()
    lock(mutex)


@state("abandoned", rounds=3)
def native_call_with_gil(ready):
    import ctypes
    lock = ctypes.PyDLL(None).pthread_mutex_lock
    mutex = ctypes.create_string_buffer(64)
    lock(mutex)
    ready()
    lock(mutex)


@state("abandoned", rounds=3)
def regex(ready):
    import re
    ready()
    re.match("(a+)+b", "a" * 60)


@state("abandoned", rounds=3)
def power(ready):
    ready()
    3 ** 3 ** 20


@state("abandoned", rounds=3)
def pbkdf2(ready):
    import hashlib
    ready()
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 2**31 - 1)


def main():
    global FD
    name, thread, FD = sys.argv[1], sys.argv[2], int(sys.argv[3])

    def ready():
        os.write(FD, b"R")

    def run():
        try:
            STATES[name].function(ready)
        except Skip:
            os.write(FD, b"S")

    if thread == "main":
        run()
    else:
        import threading
        second = threading.Thread(target=run)
        second.start()
        second.join()


if __name__ == "__main__":
    main()
