"""Library modules used here and then in a forked child: subhost run libraries.py CHECK FOLDER

Each CHECK prints "right", or raises."""
import os
import sys

try:
    import subhost
except ModuleNotFoundError:
    if __name__ != "__mp_main__":  # in multiprocessing's children it is not there
        raise


def in_child(function, *args):
    """FUNCTION's value out of a process task, and out of one below that."""
    with subhost.open_nursery() as nursery:
        return nursery.start(function, *args, isolation="process").result(timeout=60)


def deeper(function, *args):
    return in_child(function, *args)


def check(condition, *seen):
    if not condition:
        raise AssertionError(seen)


# ---- shared memory and its resource tracker

def shared_use(name):
    from multiprocessing import shared_memory
    theirs = shared_memory.SharedMemory(name=name, track=False)
    theirs.buf[1] = theirs.buf[0] + 1
    theirs.close()
    own = shared_memory.SharedMemory(create=True, size=64)
    own.buf[:3] = b"own"
    found = bytes(own.buf[:3])
    own.close()
    own.unlink()
    from multiprocessing import resource_tracker
    return found, resource_tracker._resource_tracker._pid, own.name


def shared_memory(folder):
    from multiprocessing import resource_tracker, shared_memory
    memory = shared_memory.SharedMemory(create=True, size=100)
    try:
        memory.buf[0] = 41
        found, tracker, name = in_child(shared_use, memory.name)
        check(memory.buf[1] == 42 and found == b"own", bytes(memory.buf[:2]), found)
        check(tracker != resource_tracker._resource_tracker._pid, "the parent's tracker")
        memory.buf[0] = 50
        in_child(deeper, shared_use, memory.name)
        check(memory.buf[1] == 51)
        check(os.path.exists("/dev/shm/" + memory.name), "the child's tracker unlinked it")
        check(not os.path.exists("/dev/shm/" + name.lstrip("/")))
    finally:
        memory.close()
        memory.unlink()


def shareable_list(folder):
    from multiprocessing import shared_memory
    values = shared_memory.ShareableList([1, "two", 3.0])
    try:
        in_child(change_list, values.shm.name)
        check(list(values) == [7, "two", 3.0], list(values))
    finally:
        values.shm.close()
        values.shm.unlink()


def change_list(name):
    from multiprocessing import shared_memory
    values = shared_memory.ShareableList(name=name)
    values[0] = 7
    values.shm.close()
    # Before 3.13 it would have been tracked without a say; it is the parent's to unlink.
    from multiprocessing import resource_tracker
    resource_tracker.unregister(values.shm._name, "shared_memory")


def tracker_of_the_program_itself(folder):
    """The child of a program that has a tracker running: its own memory is cleaned up when it
    dies without unlinking, the parent's is not."""
    from multiprocessing import shared_memory
    memory = shared_memory.SharedMemory(create=True, size=10)
    try:
        name = in_child(leave_memory)
        import time
        end = time.monotonic() + 10
        while os.path.exists("/dev/shm/" + name) and time.monotonic() < end:
            time.sleep(0.05)
        check(not os.path.exists("/dev/shm/" + name), "left in /dev/shm", name)
        check(os.path.exists("/dev/shm/" + memory.name.lstrip("/")))
    finally:
        memory.close()
        memory.unlink()


def leave_memory():
    import warnings
    warnings.simplefilter("ignore")
    from multiprocessing import shared_memory
    return shared_memory.SharedMemory(create=True, size=10).name.lstrip("/")


# ---- multiprocessing

def square(x):
    return x * x


def use_pool(method):
    import multiprocessing
    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(square, range(6)), os.getpid()


def pool_spawn(folder, method="spawn"):
    want = [x * x for x in range(6)]
    check(use_pool(method)[0] == want)
    values, pid = in_child(use_pool, method)
    check(values == want and pid != os.getpid())
    check(in_child(deeper, use_pool, method)[0] == want)


def pool_forkserver(folder):
    pool_spawn(folder, "forkserver")


def use_queue():
    import multiprocessing
    context = multiprocessing.get_context("spawn")
    queue, lock, event = context.Queue(), context.Lock(), context.Event()
    process = context.Process(target=fill, args=(queue, lock, event))
    process.start()
    value = queue.get(timeout=30)
    event.set()
    process.join()
    return value, process.exitcode


def fill(queue, lock, event):
    with lock:
        queue.put("filled")
    event.wait(30)


def queue_and_locks(folder):
    check(use_queue() == ("filled", 0))
    check(in_child(use_queue) == ("filled", 0))


def use_executor():
    import concurrent.futures
    import multiprocessing
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        one = list(threads.map(square, range(4)))
    with concurrent.futures.ProcessPoolExecutor(
            2, mp_context=multiprocessing.get_context("spawn")) as processes:
        return one, list(processes.map(square, range(4)))


def executors(folder):
    want = ([0, 1, 4, 9], [0, 1, 4, 9])
    check(use_executor() == want)
    check(in_child(use_executor) == want)


# ---- ssl

def use_hashes():
    import hashlib
    import ssl
    context = ssl.create_default_context()
    random = ssl.RAND_bytes(16)
    return hashlib.sha256(b"x").hexdigest(), len(context.get_ciphers()) > 3, random


def ssl_contexts(folder):
    mine = use_hashes()
    seen = [in_child(use_hashes) for _ in range(4)] + [in_child(deeper, use_hashes)]
    check(all(them[:2] == mine[:2] for them in seen), seen)
    check(len({them[2] for them in seen} | {mine[2]}) == 6, "ssl's random numbers repeat")


def handshake(certificate):
    import socket
    import ssl
    import threading
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(certificate)
    one, other = socket.socketpair()
    one.settimeout(20)
    other.settimeout(20)
    seen = []

    def serve():
        with server.wrap_socket(one, server_side=True) as stream:
            seen.append(stream.recv(100))
            stream.sendall(b"answer")

    thread = threading.Thread(target=serve)
    thread.start()
    with client.wrap_socket(other, server_hostname="localhost") as stream:
        stream.sendall(b"question")
        answer = stream.recv(100)
        version = stream.version()
    thread.join()
    return seen, answer, version


def tls(folder):
    certificate = os.path.join(folder, "certificate.pem")
    mine = handshake(certificate)
    check(mine[:2] == ([b"question"], b"answer"), mine)
    check(in_child(handshake, certificate) == mine)
    check(in_child(deeper, handshake, certificate) == mine)


# ---- sqlite3

def write_rows(path, count):
    import sqlite3
    connection = sqlite3.connect(path, timeout=20)
    with connection:
        connection.executemany("insert into t values (?)", [(os.getpid(),)] * count)
    rows = connection.execute("select count(*) from t").fetchone()[0]
    connection.close()
    return rows


def sqlite(folder):
    import sqlite3
    path = os.path.join(folder, "data")
    connection = sqlite3.connect(path, timeout=20)
    with connection:
        connection.execute("create table t (a)")
    check(write_rows(path, 5) == 5)
    check(in_child(write_rows, path, 5) == 10)   # while `connection` is open here
    check(in_child(deeper, write_rows, path, 5) == 15)
    with subhost.open_nursery() as nursery:
        for isolation in ("process", "interpreter") * 3:
            nursery.start(write_rows, path, 10, isolation=isolation)
    check(connection.execute("select count(*), count(distinct a) from t").fetchone()[0] == 75)
    check(connection.execute("pragma integrity_check").fetchone()[0] == "ok")


# ---- random numbers

def draw():
    import random
    import secrets
    import tempfile
    import uuid
    return (random.random(), random.getrandbits(64), str(uuid.uuid4()), str(uuid.uuid1()),
            secrets.token_hex(8), next(tempfile._get_candidate_names()))


def random_numbers(folder):
    import random
    random.seed(5)  # a child that had this state would repeat it
    draw()
    with subhost.open_nursery() as nursery:
        tasks = [nursery.start(draw, isolation="process") for _ in range(8)]
    rows = [task.result() for task in tasks] + [draw(), in_child(deeper, draw)]
    for number, values in enumerate(zip(*rows)):
        check(len(set(values)) == len(rows), number, values)


def hash_seed(folder):
    """str hashes are one seed's, as in all processes that fork makes: sets can be compared."""
    check(in_child(hash_of) == hash("text"), "another seed than the parent's")


def hash_of():
    return hash("text")


# ---- logging, and what else has at-fork state

def log_lines(path, count):
    import logging
    logger = logging.getLogger("child")
    logger.propagate = False
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(process)d %(message)s"))
    logger.addHandler(handler)
    for number in range(count):
        logger.error("line %d", number)
    logger.removeHandler(handler)
    handler.close()
    return os.getpid()


def use_logging(folder):
    """While a thread of the parent logs all the time, so that its locks are often held."""
    import logging
    import threading
    stop = threading.Event()
    noise = logging.getLogger("noise")
    noise.propagate = False
    noise.addHandler(logging.FileHandler(os.path.join(folder, "noise")))

    def make_noise():
        while not stop.is_set():
            noise.error("x")

    thread = threading.Thread(target=make_noise)
    thread.start()
    try:
        path = os.path.join(folder, "log")
        pids = [in_child(log_lines, path, 20) for _ in range(10)]
    finally:
        stop.set()
        thread.join()
    with open(path) as file:
        lines = file.read().splitlines()
    check(len(lines) == 200 and {int(line.split()[0]) for line in lines} == set(pids), len(lines))


def use_threads_and_timers():
    import queue
    import threading
    import time
    import weakref
    results = queue.Queue()
    timer = threading.Timer(0.01, results.put, ("timer",))
    timer.start()
    local = threading.local()
    local.value = 1
    timer.join()
    return (results.get(timeout=5), threading.current_thread() is threading.main_thread(),
            threading.active_count(), time.perf_counter() > 0, weakref.ref(timer)() is timer)


def threads(folder):
    import threading
    stop = threading.Event()
    others = [threading.Thread(target=stop.wait) for _ in range(5)]
    for thread in others:
        thread.start()
    try:
        found = in_child(use_threads_and_timers)
    finally:
        stop.set()
    check(found == ("timer", True, 1, True, True), found)


def handlers(folder):
    """Signal state is fresh, and signal handlers work in a child's main thread."""
    import signal
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    found = in_child(use_signals)
    check(found == ("SIG_DFL", [], ["handled"], True), found)


def use_signals():
    import signal
    import time
    usr2 = signal.getsignal(signal.SIGUSR2)
    mask = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    seen = []
    signal.signal(signal.SIGUSR2, lambda *a: seen.append("handled"))
    os.kill(os.getpid(), signal.SIGUSR2)
    end = time.monotonic() + 5
    while not seen and time.monotonic() < end:
        time.sleep(0.01)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    alarm = []
    signal.signal(signal.SIGALRM, lambda *a: alarm.append(1))
    end = time.monotonic() + 5
    while not alarm and time.monotonic() < end:
        time.sleep(0.01)
    return usr2.name, mask, seen, bool(alarm)


def use_subprocess():
    import subprocess
    import sys
    return (subprocess.run(["cat"], input=b"through", capture_output=True).stdout,
            subprocess.run([sys.executable, "-c", "print(5)"], capture_output=True).stdout,
            os.system("exit 3") >> 8)


def subprocesses(folder):
    want = (b"through", b"5\n", 3)
    check(use_subprocess() == want)
    check(in_child(use_subprocess) == want)


def use_asyncio():
    import asyncio

    async def main():
        process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
        out, _ = await process.communicate(b"through")
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            end = await reader.read()
            writer.close()
        return out, process.returncode, end, await asyncio.to_thread(square, 5)

    return asyncio.run(main())


def event_loops(folder):
    want = (b"through", 0, b"", 25)
    check(use_asyncio() == want)
    check(in_child(use_asyncio) == want)
    check(in_child(deeper, use_asyncio) == want)


def ctypes_callbacks(folder):
    check(in_child(use_ctypes) == [1, 2, 3])


def use_ctypes():
    import ctypes
    compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int),
                               ctypes.POINTER(ctypes.c_int))(lambda a, b: a[0] - b[0])
    values = (ctypes.c_int * 3)(3, 1, 2)
    ctypes.CDLL(None).qsort(values, 3, 4, compare)
    return list(values)


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
    print("right")
