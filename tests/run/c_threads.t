#!/usr/bin/env python3
"""Threads that C code starts and that call Python: they run in their program's interpreter.

CPython's PyGILState_Ensure() would attach them to the main interpreter, and the process would
die of a corrupted heap; python3.15 without subhost does, and 3.14 as well:

    import concurrent.interpreters
    concurrent.interpreters.create().exec(THREADS + "callbacks(1)")
"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import NATIVE, equal, main, same, script, subhost, test

THREADS = """
import __main__, ctypes, gc, sys, threading
libc = ctypes.CDLL(None)
function = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)

def in_c_thread(call):
    thread = ctypes.c_ulong()
    libc.pthread_create(ctypes.byref(thread), None, call, None)
    return lambda end=libc.pthread_join: end(thread, None)

def callbacks(threads):
    seen, kept = [], []
    @function
    def callback(_):
        import __main__ as mine
        seen.append((mine is __main__, threading.current_thread() in threading.enumerate(),
                     threading.get_ident() in sys._current_frames()))
        for i in range(2000):
            kept.append([i, str(i)])
    for _ in range(20):
        for join in [in_c_thread(callback) for _ in range(threads)]:
            join()
    print(set(seen), len(seen), len(kept))
    kept.clear()
    gc.collect()
"""

CALLER = next(NATIVE.glob("caller*.so"))


@test
def callbacks(tmp):
    script(tmp, THREADS + "callbacks(1); callbacks(4)", "callbacks.py")
    same("callbacks.py", cwd=tmp, name="callbacks of ctypes", status=0)
    for options in ("-n", "3"), ("--gil", "shared", "-n", "3"):
        result = subhost("run", *options, "callbacks.py", cwd=tmp)
        equal((result.status, result.err, len(set(result.out.splitlines()))), (0, "", 2),
              f"with {' '.join(options)}", result=result)


@test
def more_than_once(tmp):
    """Enter, leave and enter again on one thread; a callback in a callback; one in Python's
    own thread, which has its thread state already."""
    script(tmp, THREADS + """
compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
local = threading.local()
results = []

@compare
def order(a, b):
    results.append(getattr(local, "calls", 0))
    local.calls = results[-1] + 1
    a, b = (ctypes.cast(x, ctypes.POINTER(ctypes.c_int))[0] for x in (a, b))
    return a - b

def sort():
    numbers = (ctypes.c_int * 5)(3, 1, 5, 2, 4)
    libc.qsort(numbers, ctypes.c_size_t(5), ctypes.c_size_t(4), order)
    return list(numbers)

@function
def callback(_):
    results.append(sort())

sort()
print(len(results) == results[-1] + 1)
in_c_thread(callback)()
print(results[-1])
thread = threading.Thread(target=callback, args=(None,))
thread.start()
thread.join()
print(results[-1])

# C code that calls back again and again has no thread state in between.
@ctypes.CFUNCTYPE(None)
def count():
    numbers = sort()
    results.append(getattr(local, "counts", 0))
    local.counts = results[-1] + 1
caller = ctypes.CDLL(sys.argv[1])
caller.call_from_thread.restype = ctypes.c_ulong
results.clear()
libc.pthread_join(ctypes.c_ulong(caller.call_from_thread(count, 200)), None)
print(len([r for r in results if r == 0]) >= 200, results[-1])
""", "again.py")
    same("again.py", CALLER, cwd=tmp, name="nested callbacks", status=0)


@test
def a_callback_is_cancelled(tmp):
    script(tmp, THREADS + """
@function
def callback(_):
    print("in it", flush=True)
    while True:
        pass
in_c_thread(callback)()
""", "endless.py")
    result = subhost("run", "--timeout", "500ms", "endless.py", cwd=tmp)
    equal((result.status, result.out), (124, "in it\n"), "a deadline", result=result)


@test
def a_thread_that_stays(tmp):
    """The program ends while a thread of C code waits inside of a callback, or calls on."""
    script(tmp, THREADS + """
inside = threading.Event()
@function
def callback(_):
    inside.set()
    threading.Event().wait()
in_c_thread(callback)(libc.pthread_detach)
inside.wait()
print("end")
""", "stays.py")
    same("stays.py", cwd=tmp, name="inside of a callback", status=0)
    script(tmp, THREADS + """
called = threading.Event()
callback = ctypes.CFUNCTYPE(None)(called.set)
ctypes.CDLL(sys.argv[1]).call_from_thread(callback, 1_000_000)
called.wait()
print("end")
""", "calls_on.py")
    for _ in range(5):
        result = subhost("run", "calls_on.py", CALLER, cwd=tmp)
        equal((result.status, result.out, result.err), (0, "end\n", ""), "calling on",
              result=result)


main()
