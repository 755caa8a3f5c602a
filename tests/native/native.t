#!/usr/bin/env python3
"""subhost.native: C functions of every type, both ways; errors; the GIL; cancels."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from natives import library, run_with
from tap import equal, main, ok, subhost, test

TYPES = library("every_type")
INTEGERS = {f"{sign}{bits}": bits for sign in "iu" for bits in (8, 16, 32, 64)}
INTEGERS |= {"size": 64, "ssize": 64}


def limits(word):
    bits = INTEGERS[word]
    return (0, 2**bits - 1) if word[0] == "u" or word == "size" else \
        (-2**(bits - 1), 2**(bits - 1) - 1)


def prints(name, functions, code, lines, *options, **kw):
    """The program prints these lines, and nothing on stderr."""
    result = run_with(functions, code, *options, **kw)
    equal((result.status, result.out.splitlines(), result.err), (0, lines, ""), name,
          result=result)


@test
def integers(folder):
    words = list(INTEGERS)
    signatures = [f"{word} same_{word}({word} value)" for word in words]
    signatures += [f"void through_{word}(in {word}, out {word})" for word in words]
    code = f"""
for word, (low, high) in {({word: limits(word) for word in words})!r}.items():
    same, through = (getattr(native, f"{{how}}_{{word}}") for how in ("same", "through"))
    for value in (low, high, 0, 1, 100):
        assert same(value) == through(value) == value, (word, value)
    for value in (low - 1, high + 1, 2**100, -2**100):
        print(word, error(same, value))
    print(word, error(same, 1.0))
class Index:
    def __index__(self): return 7
print(native.same_i8(Index()), native.same_u64(True), native.same_i32(value=5))
"""
    lines = []
    for word in words:
        low, high = limits(word)
        lines += [f"{word} OverflowError: same_{word}() argument 1 (value) does not fit {word} "
                  f"({low} to {high})"] * 4
        lines += [f"{word} TypeError: same_{word}() argument 1 (value) must be an integer, "
                  "not float"]
    prints("integers: limits and errors", {TYPES: signatures}, code, [*lines, "7 1 5"])


@test
def other_scalars(folder):
    signatures = ["f32 same_f32(f32)", "f64 same_f64(f64)", "bool same_bool(bool)",
                  "void through_f32(in f32, out f32)", "void through_f64(in f64, out f64)",
                  "void through_bool(in bool, out bool)"]
    prints("floats and bools", {TYPES: signatures}, """
        import math
        print(native.same_f32(1.5), native.same_f32(0.1), native.same_f64(0.1),
              native.same_f64(7), native.same_f32(math.inf), native.same_f64(math.nan))
        print(native.same_bool(True), native.same_bool(False))
        print(native.through_f32(2.5), native.through_f64(-0.1), native.through_bool(True))
        print(error(native.same_f32, 1e39))
        print(error(native.same_f64, 10**400))
        print(error(native.same_f64, "1"))
        print(error(native.same_bool, 1))
        """, ["1.5 0.10000000149011612 0.1 7.0 inf nan", "True False", "2.5 -0.1 True",
              "OverflowError: same_f32() argument 1 does not fit f32",
              "OverflowError: same_f64() argument 1 does not fit f64",
              "TypeError: same_f64() argument 1 must be a number, not str",
              "TypeError: same_bool() argument 1 must be a bool, not int"])


@test
def strings(folder):
    signatures = ["i32 string_length(str? text)", "str constant(i32)", "str copied(str) free",
                  "void find_name(i32, out str)"]
    prints("strings in and out", {TYPES: signatures}, r"""
        print(native.string_length("caf\xe9"), native.string_length(b"abc"),
              native.string_length(None), native.string_length(""))
        print(ascii(native.constant(1)), native.constant(0))
        print(native.copied("twice"), ascii(native.copied(b"\xff")))
        print(native.find_name(1), native.find_name(0))
        print(error(native.string_length, "a\0b"))
        print(error(native.string_length, 5))
        print(error(native.copied, None))
        print(error(native.copied, "\ud800"))
        import os
        print(ascii(native.copied(os.fsencode(native.copied(b"\xff")))))
        """, ["5 3 -1 0", r"'caf\xe9' None", r"twice '\udcff'", "one None",
              "ValueError: string_length() argument 1 (text) has a null character in it",
              "TypeError: string_length() argument 1 (text) must be str, bytes or None, not int",
              "TypeError: copied() argument 1 must be str or bytes, not None",
              "ValueError: copied() argument 1 is no UTF-8: it has surrogates; pass bytes, as "
              "those of os.fsencode()", r"'\udcff'"])


@test
def buffers(folder):
    signatures = ["u64 sum_bytes(buf bytes, len)", "f64 sum_doubles(buf<f64> values, len<i32>)",
                  "void fill(mut buf to, len, i32 value)", "i32 tiny_length(buf? bytes, len<u8>)"]
    prints("buffers with their lengths", {TYPES: signatures}, """
        from array import array
        print(native.sum_bytes(b"abc"), native.sum_bytes(bytearray(5)),
              native.sum_bytes(memoryview(b"xabcx")[1:4]), native.sum_bytes(array("H", [257])))
        print(native.sum_doubles(array("d", [1, 2, 3.5])))
        to = bytearray(4)
        native.fill(to, 7)
        print(list(to), native.tiny_length(bytes(255)), native.tiny_length(None))
        to.append(1)    # nobody holds it any more
        print(error(native.fill, b"abcd", 7))
        print(error(native.sum_bytes, "abc"))
        print(error(native.sum_bytes, memoryview(b"abcd")[::2]))
        print(error(native.sum_doubles, array("f", [1])))
        print(error(native.sum_doubles, b"12345678"))
        print(error(native.tiny_length, bytes(256)))
        print(error(native.fill, None, 1))
        """, ["294 0 294 2", "6.5", "[7, 7, 7, 7] 255 -1",
              "TypeError: fill() argument 1 (to) must be a writable, contiguous buffer",
              "TypeError: sum_bytes() argument 1 (bytes) must be a bytes-like object, not str",
              "TypeError: sum_bytes() argument 1 (bytes) must be a contiguous buffer",
              "TypeError: sum_doubles() argument 1 (values) must be a buffer of f64, not of format "
              "'f'",
              "TypeError: sum_doubles() argument 1 (values) must be a buffer of f64, not of format "
              "'B'",
              "OverflowError: tiny_length() argument 1 (bytes) is too long for len<u8>",
              "TypeError: fill() argument 1 (to) must be a bytes-like object, not None"])


@test
def structs(folder):
    mixed = "{i8 a, i64 b, f32 c, ptr? d, {f64, f64} e}"
    signatures = ["{f64 x, f64 y} swap({f64, f64} point)", f"{mixed} negate({mixed})",
                  "void move(inout {f64, f64} p, in {f64, f64} by)"]
    prints("structs by value", {TYPES: signatures}, """
        print(native.swap((1, 2.5)), native.swap([3, 4]))
        print(native.negate((1, 2**40, 0.5, None, (1, 2))))
        print(native.move((1, 2), (10, 20)))
        print(error(native.swap, (1, 2, 3)))
        print(error(native.swap, 5))
        print(error(native.negate, (128, 0, 0, None, (0, 0))))
        """, ["(2.5, 1.0) (4.0, 3.0)", "(-1, -1099511627776, -0.5, None, (-1.0, -2.0))",
              "(11.0, 22.0)", "TypeError: swap() argument 1 (point) must have 2 fields, not 3",
              "TypeError: swap() argument 1 (point) must be a tuple, not int",
              "OverflowError: negate() argument 1 does not fit i8 (-128 to 127)"])


@test
def handles(folder):
    signatures = ["ptr<node> node_new(i32)", "i32 node_value(ptr<node>? node)",
                  "void node_free(ptr<node>)", "ptr same_ptr(ptr?)",
                  "void through_ptr(in ptr?, out ptr<node>)"]
    prints("pointers are handles with a tag", {TYPES: signatures}, """
        import re
        node = native.node_new(42)
        print(type(node).__name__, node.tag, node.address > 0,
              re.sub("0x[0-9a-f]+", "0x", repr(node)))
        print(native.node_value(node), native.node_value(None))
        same = native.same_ptr(node)
        print(same.tag, same == node, same.address == node.address, native.same_ptr(None))
        again = native.through_ptr(node)
        print(again == node, hash(again) == hash(node), again != node, again is node)
        print(node.read("i32"), node.read_bytes(4) == (42).to_bytes(4, "little"))
        node.write("i32", 43)
        print(native.node_value(node))
        print(error(native.node_value, same))
        print(error(native.node_value, 5))
        print(error(native.node_free, None))
        print(error(node.read, "i33"))
        print(error(type(node)))
        native.node_free(node)
        """, ["Pointer node True <subhost.native.Pointer node 0x>", "42 -1",
              "None False True None", "True True False False", "42 True", "43",
              "TypeError: node_value() argument 1 (node) must be a ptr<node>, not a ptr",
              "TypeError: node_value() argument 1 (node) must be a subhost.native.Pointer or "
              "None, not int",
              "TypeError: node_free() argument 1 must be a subhost.native.Pointer, not None",
              "ValueError: signature \"i33\": column 1: unknown type 'i33'; the types are listed "
              "in docs/native.md",
              "TypeError: cannot create 'subhost.native.Pointer' instances"])


@test
def results(folder):
    signatures = ["i32 divide(i32 a, i32 b, out i32 quotient, out i32 remainder) negative",
                  "void increment(inout i32 value)", "i32 fail_errno(i32) errno",
                  "ptr null_errno(i32) errno", "i32 give(i32) negerrno"]
    prints("out-parameters and conventions for errors", {TYPES: signatures}, """
        print(native.divide(17, 5), native.increment(9), native.fail_errno(0))
        print(error(native.divide, 1, 0))
        try: native.divide(1, 0)
        except RuntimeError as e: print(e.code)
        print(error(native.fail_errno, 2), error(native.null_errno, 13), sep=", ")
        print(native.null_errno(0) is None, native.give(5), error(native.give, -17), sep=", ")
        """, ["(0, 3, 2) 10 5", "RuntimeError: divide() failed: it returned -1", "-1",
              "FileNotFoundError: [Errno 2] No such file or directory, PermissionError: "
              "[Errno 13] Permission denied", "False, 5, FileExistsError: [Errno 17] File exists"])
    prints("nonzero", {TYPES: ["i32 give(i32) nonzero"]}, """
        print(native.give(0), error(native.give, 3))
        """, ["None RuntimeError: give() failed: it returned 3"])


@test
def arguments(folder):
    signatures = ["f64 sum_all(i8 a, f64 b, u16 c, f32 d, i64 e, f64 f, i32 g, i32 h, i32 i, "
                  "i32 j, i32 k, f64 l)", "i32 divide(i32, i32, out i32 q, out i32 r)",
                  "i32 give(i32 value)"]
    prints("positional and keyword arguments", {TYPES: signatures}, """
        import inspect
        print(native.sum_all(1, 2, 3, 4.5, 5, 6, 7, 8, 9, 10, 11, 12),
              native.sum_all(1, 2, 3, 4.5, l=12, k=11, j=10, i=9, h=8, g=7, f=6, e=5))
        print(inspect.signature(native.divide), inspect.signature(native.give))
        print(native.give.__doc__, native.give.__name__, native.give.__module__)
        print(native.give(**{"val" + "ue": 3}))
        print(error(native.give))
        print(error(native.give, 1, 2))
        print(error(native.give, valu=1))
        print(error(native.give, 1, value=1))
        print(error(native.divide, 1, arg2=1))
        print(error(native.sum_all, 1, 2, c=3))
        """, ["78.5 78.5", "(arg1, arg2, /) (value)",
              "C: i32 give(i32 value) give subhost.native", "3",
              "TypeError: give() takes 1 argument (0 given)",
              "TypeError: give() takes 1 argument (2 given)",
              "TypeError: give() got an unexpected keyword argument 'valu'",
              "TypeError: give() got multiple values for argument 'value'",
              "TypeError: divide() got an unexpected keyword argument 'arg2'",
              "TypeError: sum_all() missing argument 4 (d)"])


@test
def variadic(folder):
    prints("variadic functions", {TYPES: ["i32 join(mut buf to, len, str format, ...)"]},
           """
        to = bytearray(100)
        n = native.join(to, "%d %s %.2f %lld %llu %s %d", -5, "text", 2.5, -2**40, 2**64 - 1,
                        b"bytes", True)
        print(to[:n].decode())
        print(native.join(to, "none"), native.join(to, "%s", bytearray(b"abc\\0")),
              native.join(to, "%p", None))
        print(error(native.join, to, "%d", 2**64))
        print(error(native.join, to, "%d", []))
        print(error(native.join, to))
        print(error(native.join, to, "", *range(40)))
        """, ["-5 text 2.50 -1099511627776 18446744073709551615 bytes 1", "4 3 5",
              "OverflowError: join() argument 3 does not fit u64 (0 to 18446744073709551615)",
              "TypeError: join() argument 3 cannot be passed behind '...': list is neither int, "
              "float, str, bytes-like, Pointer nor None",
              "TypeError: join() takes at least 2 arguments (1 given)",
              "TypeError: join() takes at most 32 arguments"])


@test
def the_module(folder):
    prints("attributes", {TYPES: ["i32 give(i32)"]}, """
        import subhost, subhost.native
        print(native.give is subhost.native.give, dir(native))
        print(error(lambda: native.nothing))
        from subhost.native import give
        print(give(4))
        """, ["True ['Callback', 'Pointer', 'callback', 'give']",
              "AttributeError: no C function 'nothing' is bound; subhost_bind() does it, or "
              "subhost run --native LIB:SIGNATURE", "4"])
    prints("in each of several interpreters", {TYPES: ["i32 give(i32)"]},
           "print(native.give(5))", ["5"] * 3, "-n", "3")
    prints("in a forked child", {TYPES: ["i32 give(i32)"]},
           "print(native.give(5))", ["5"], "--isolation", "process")
    prints("with the shared GIL", {TYPES: ["i32 give(i32)"]},
           "print(native.give(5))", ["5"], "--gil", "shared")


@test
def in_a_nursery(folder):
    program = folder / "program.py"
    program.write_text("""
import subhost
def work(n):
    return subhost.native.give(n)
if __name__ == "__main__":
    with subhost.open_nursery() as nursery:
        tasks = [nursery.start(work, n, isolation=how)
                 for n, how in enumerate(["interpreter", "process"] * 2)]
    print([task.result() for task in tasks])
""")
    result = subhost("run", "--native", f"{TYPES}:i32 give(i32)", program)
    equal((result.out, result.status), ("[0, 1, 2, 3]\n", 0), "in every task", result=result)


@test
def the_gil(folder):
    """Released unless told otherwise: another thread counts meanwhile, or it does not."""
    for attribute, released in ("", True), ("nogil", True), ("gil", False):
        result = run_with({"libc.so.6": [f"i32 usleep(u32) {attribute}"]}, """
            import threading, time
            count, stop = 0, False
            def counting():
                global count
                while not stop:
                    count += 1
            thread = threading.Thread(target=counting)
            thread.start()
            def counted(sleep, how_long):
                before = count
                sleep(how_long)
                return count - before
            freely = counted(time.sleep, 0.3)
            print(counted(native.usleep, 300_000) > freely / 4)
            stop = True
            thread.join()
            """)
        equal(result.out, f"{released}\n", f"GIL with '{attribute}'", result=result)


@test
def parallel(folder):
    """Calls that keep the GIL keep each interpreter's own."""
    result = run_with({"libc.so.6": ["i32 usleep(u32) gil"]}, "native.usleep(500_000)",
                      "-n", "4")
    ok(result.status == 0 and result.seconds < 1.5, "four interpreters sleep at once",
       result=result)


@test
def cancelled(folder):
    pipe = ["i32 pipe(out {i32, i32}) errno"]
    for signature in "ssize read_pipe(i32 fd, mut buf to, len) errno", \
            "ssize read_pipe(i32 fd, mut buf to, len)":
        result = run_with({"libc.so.6": pipe, TYPES: [signature]}, """
            import subhost
            fd = native.pipe()[1][0]
            try:
                native.read_pipe(fd, bytearray(10))
            except BaseException as exception:
                print(type(exception).__mro__[-3].__name__, exception.reason)
            """, "--timeout", "200ms")
        equal((result.out, result.status), ("Cancelled deadline\n", 124),
              f"blocking in libc: {signature}", result=result)
        ok(result.seconds < 2, "at once", result=result)
    result = run_with({TYPES: ["i32 spin()"]}, """
        import subhost
        try:
            native.spin()
        except subhost.Cancelled as exception:
            print("cancelled:", exception.reason)
        """, "--timeout", "200ms")
    equal((result.out, result.status), ("cancelled: deadline\n", 124), "one that asks",
          result=result)
    ok(result.seconds < 2, "at once", result=result)


@test
def the_option(folder):
    for value, message in {
        "libm.so.6": "run: --native: 'libm.so.6' is not LIB:SIGNATURE, as "
                     "'libm.so.6:f64 pow(f64, f64)'",
        ":f64 pow(f64)": "run: --native: ':f64 pow(f64)' is not LIB:SIGNATURE, as "
                         "'libm.so.6:f64 pow(f64, f64)'",
        "libnone.so:i32 f()": "binding a function of libnone.so: cannot open shared "
                              "object file: No such file or directory; name an installed "
                              "library (libm.so.6) or a path with a slash (./libmine.so)",
        "libm.so.6:i32 nothing()": "binding a function of libm.so.6: it has no function "
                                   "nothing; `nm -D` lists what a library has",
        "libm.so.6:i32 (i32)": 'binding a function of libm.so.6: signature "i32 (i32)": which '
                               "function? Write its name behind the result's type, as in "
                               "f64 pow(f64, f64)",
        "libm.so.6:f64 pow(f64": 'binding a function of libm.so.6: signature "f64 pow(f64": '
                                 "column 12: expected ')' or ',' behind a parameter, found "
                                 "the end",
        "libm.so.6:f64 callback(f64)": None,
    }.items():
        result = subhost("run", "--native", value, "-c", "print('ran')")
        if message is None:
            ok(result.status == 125 and "callback" in result.err, value, result=result)
            continue
        equal((result.status, result.err.splitlines()[0], result.out),
              (125, "subhost: " + message, ""), value)
    result = subhost("run", *["--native", "libm.so.6:f64 pow(f64, f64)"] * 2, "-c", "pass")
    equal((result.status, result.err),
          (125, "subhost: binding a function of libm.so.6: pow is bound already\n"), "twice")


main()
