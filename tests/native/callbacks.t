#!/usr/bin/env python3
"""Callbacks: Python functions that C calls, at once, later, nested, and from any thread."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from natives import library, run_with
from nurseries import each
from tap import equal, main, ok, test

LIBRARY = library("callbacks")
QSORT = "void qsort(mut buf base, size n, size width, fn i32(in i32, in i32) compare)"


def prints(name, signatures, code, lines, *options, **kw):
    result = run_with(signatures if isinstance(signatures, dict) else {LIBRARY: signatures},
                      code, *options, **kw)
    equal((result.status, result.out.splitlines(), result.err), (0, lines, ""), name,
          result=result)


@test
def types(folder):
    words = ["i64", "i8", "u64", "f32", "f64", "bool"]
    signatures = [f"{word} call_{word}(fn {word}({word}), {word})" for word in words]
    signatures += ["void call_str(fn void(str), str?)", "ptr call_ptr(fn ptr?(ptr), ptr?)",
                   "{f64, f64} call_point(fn {f64, f64}({f64, f64}), {f64, f64})",
                   "i32 call_bytes(fn i32(buf, len), str)",
                   "void call_fill(fn void(mut buf, len<u32>), mut buf, u32)",
                   "void call_void(fn void())", "i32 is_null(fn? void())"]
    prints("every type both ways", signatures, """
        for name, values in {"i64": [-2**63, 2**63 - 1], "i8": [-128, 127],
                             "u64": [0, 2**64 - 1], "f32": [1.5, -0.5], "f64": [0.1, 1e300],
                             "bool": [True, False]}.items():
            for value in values:
                seen = []
                def same(argument):
                    seen.append(argument)
                    return argument
                got = getattr(native, "call_" + name)(same, value)
                assert got == value and seen == [value] and type(got) is type(value), got
        seen = []
        native.call_str(seen.append, "caf\\xe9")
        native.call_str(seen.append, None)
        print(ascii(seen))
        print(native.call_point(lambda p: (p[1], -p[0]), (1, 2)))
        print(native.call_bytes(lambda data: len(data) * 10, "abc"))
        held = []
        def fill(view):
            held.append(view)
            view[:] = b"x" * len(view)
        to = bytearray(4)
        native.call_fill(fill, to, 3)
        print(to, error(lambda: held[0][0]))
        import pickle
        print(error(native.call_fill, lambda view: held.append(pickle.PickleBuffer(view)), to, 3))
        native.call_fill(fill, to, 4)
        print(to)
        print(native.call_void(lambda: None), native.call_void(lambda: 5), native.is_null(None),
              native.is_null(print))
        print(native.call_ptr(lambda p: p, None))
        """, [r"['caf\xe9', None]", "(2.0, -1.0)", "30",
              "bytearray(b'xxx\\x00') ValueError: operation forbidden on released memoryview "
              "object",
              "BufferError: callback: a buffer that was lent for the call is still in use behind "
              "it; copy what is to be kept", "bytearray(b'xxxx')", "None None 1 0", "None"])


@test
def errors(folder):
    signatures = ["i8 call_i8(fn i8(i8) = -5, i8)", "i32 count_zeros(fn i32(i32), i32)",
                  "f64 call_f64(fn f64(f64) = 2.5, f64)", "void call_void(fn void())"]
    prints("what it raises comes out of the call", signatures, """
        calls = 0
        def fails(value):
            global calls
            calls += 1
            return [1, 2][value]
        print(error(native.count_zeros, fails, 10), calls)
        print(error(native.call_i8, lambda v: 1000, 1))
        print(error(native.call_i8, lambda v: None, 1))
        print(error(native.call_i8, lambda: 1, 1).replace("<lambda>", "f"))
        print(error(native.call_f64, lambda v: "x", 1))
        print(error(native.call_void, 5))
        import sys
        try: native.call_void(lambda: sys.exit(3))
        except SystemExit as e: print("exit", e.code)
        # One call inside another: the inner one's own.
        print(native.call_i8(lambda v: len(error(native.call_i8, lambda w: 1 / 0, 1)), 1))
        print(error(native.call_i8, lambda v: native.call_i8(lambda w: 1 / 0, 1), 1))
        """, ["IndexError: list index out of range 3",
              "OverflowError: callback: the result does not fit i8 (-128 to 127)",
              "TypeError: callback: the result must be an integer, not None",
              "TypeError: f() takes 0 positional arguments but 1 was given",
              "TypeError: callback: the result must be a number, not str",
              "TypeError: call_void() argument 1 must be callable, not int", "exit 3", "35",
              "ZeroDivisionError: division by zero"])


@test
def stored(folder):
    signatures = ["void keep(fn? i32(i32) f)", "i32 call_kept(i32)"]
    prints("what C keeps lives until it is released", signatures, """
        import gc
        native.keep(native.callback(lambda v: v * 2, "i32(i32) = -1"))
        gc.collect()
        print(native.call_kept(21))
        with native.callback(lambda v: v + 1, "i32(i32) = -1") as callback:
            native.keep(callback)
            print(native.call_kept(1), callback.signature, callback.pointer.tag)
        print(error(native.keep, callback))
        native.keep(None)
        print(native.call_kept(1))
        other = native.callback(print, "void()")
        print(error(native.keep, other))
        print(error(native.callback, print, "i33()"))
        print(error(native.callback, 5, "void()"))
        print(ascii(error(native.callback, print, "\\xe9()")))
        print(error(native.callback, print, "u8() = -1"))
        """, ["42", "2 i32(i32) = -1 None",
              "ValueError: keep() argument 1 (f) is a Callback that was released", "-99",
              "TypeError: keep() argument 1 (f) is a Callback of another signature: void()",
              "ValueError: signature \"i33()\": column 1: unknown type 'i33'; the types are "
              "listed in docs/native.md",
              "TypeError: callback() argument 1 must be callable, not int",
              r"""'ValueError: signature "\xe9()": column 1: expected a type, found \'\xe9\''""",
              "ValueError: signature \"u8() = -1\": column 8: the default does not fit u8 "
              "(0 to 255)"])


@test
def unraisable(folder):
    result = run_with({LIBRARY: ["i32 call_on_threads(fn i32(i32) = 7, i32 threads)"]}, """
        import sys
        seen = []
        sys.unraisablehook = lambda info: seen.append((info.exc_type, info.object))
        def fails(value):
            raise ValueError(value)
        print(native.call_on_threads(fails, 3), seen == [(ValueError, fails)] * 3)
        """)
    equal((result.out, result.err), ("21 True\n", ""), "in a thread of C's own", result=result)


@test
def threads(folder):
    result = run_with({LIBRARY: ["i32 call_on_threads(fn i32(i32), i32 threads)"]}, """
        import subhost, threading
        names = set()
        def work(value):
            names.add(threading.get_ident())
            assert subhost.current().worker in (0, 1, 2)
            return value
        for _ in range(20):
            assert native.call_on_threads(work, 8) == 28
        print(len(names) >= 2)
        """, "-n", "3")
    equal((result.out, result.err), ("True\n" * 3, ""), "any thread, into the right interpreter",
          result=result)
    result = run_with({LIBRARY: ["i32 call_on_threads(fn i32(i32), i32 threads)"]},
                      "print(native.call_on_threads(lambda v: v, 8))", "--isolation", "process")
    equal((result.out, result.err), ("28\n", ""), "in a forked child", result=result)


@test
def sorting(folder):
    prints("qsort in two interpreters at once", {"libc.so.6": [QSORT]}, """
        import array, random, subhost
        numbers = array.array("i", [random.randrange(10**6) for _ in range(20_000)])
        wanted = sorted(numbers)
        native.qsort(numbers, len(numbers), 4, lambda a, b: (a > b) - (a < b))
        print(numbers.tolist() == wanted)
        """, ["True", "True"], "-n", "2")


@test
@each
def recursion(folder, isolation):
    """Through a bound function and its callback; under `python` ctypes gets as far."""
    program = """
        import array, sys, threading
        depth = 0
        def compare(a, b):
            global depth
            depth += 1
            native.qsort(array.array("i", [2, 1]), 2, 4, compare)
            return 0
        def recurse():
            global depth
            depth = 0
            reason = error(compare, 0, 0)
            print(reason.startswith("RecursionError: "), end=" ")
            return depth, reason
        """
    prints("ends at Python's limit", {"libc.so.6": [QSORT]}, program + """
        sys.setrecursionlimit(1500)
        print(recurse()[0] > 1000)
        """, ["True True"], "--isolation", isolation)
    prints("ends before the C stack is full", {"libc.so.6": [QSORT]}, program + """
        def check(least):
            reached, reason = recurse()
            print(reached > least, "stack" in reason.lower())
        sys.setrecursionlimit(100_000)
        for size, least in (256 << 10, 10), (1 << 20, 100):
            threading.stack_size(size)
            thread = threading.Thread(target=check, args=[least])
            thread.start()
            thread.join()
        check(1000)
        print(native.qsort(array.array("i", [2, 1]), 2, 4, lambda a, b: 0))
        """, ["True True True"] * 3 + ["None"], "--isolation", isolation)


@test
def later(folder):
    """A thread calls on after its interpreter has ended: it gets the default."""
    program = """
        import time
        callback = native.callback(lambda v: v, "i32(i32) = -7")
        native.call_later(callback, 300)
        time.sleep(0.05)
        """
    result = run_with({LIBRARY: ["i32 call_later(fn i32(i32) = -7, i32)"]}, program)
    equal(result.status, 0, "the process ends as ever", result=result)
    # Another worker keeps the process alive.
    result = run_with({LIBRARY: ["i32 call_later(fn i32(i32) = -7, i32)"]}, f"""
        import subhost, time
        if subhost.current().worker == 1:
            time.sleep(1)
            raise SystemExit
        {program.strip()}
        """, "-n", "2")
    words = result.err.split()
    ok(result.status == 0 and words[:1] == ["defaults:"] and 100 < int(words[1]) < 300,
       "defaults from its end on", result=result)


@test
def cancelled(folder):
    result = run_with({"libc.so.6": [QSORT]}, """
        import array, time, subhost
        numbers = array.array("i", range(1000, 0, -1))
        def compare(a, b):
            time.sleep(0.01)
            return (a > b) - (a < b)
        try:
            native.qsort(numbers, len(numbers), 4, compare)
        except subhost.Cancelled as exception:
            print("cancelled:", exception.reason)
        """, "--timeout", "300ms")
    equal((result.out, result.status), ("cancelled: deadline\n", 124),
          "in a callback: the call returns soon", result=result)
    ok(result.seconds < 2, "soon", result=result)
    result = run_with({LIBRARY: ["i32 call_on_threads(fn i32(i32) = 1, i32 threads)"]}, """
        import threading, subhost
        def forever(value):
            while True:
                threading.Event().wait(1)
        try:
            native.call_on_threads(forever, 4)
        except subhost.Cancelled as exception:
            print("cancelled:", exception.reason)
        """, "--timeout", "300ms")
    equal((result.out, result.status), ("cancelled: deadline\n", 124),
          "callbacks in threads of C's own", result=result)
    ok(result.seconds < 3, "soon", result=result)


main()
