#!/usr/bin/env python3
# timeout: 240
"""`nested-cancel`: trees of tasks always tear down, whatever they are made of and whatever
their leaves do: errors gathered, nothing hung, no zombie, no stray, no leaked descriptor.

SUBHOST_TEST_ROUNDS   how often each tree (default: 6; the promise is 1,000 times)"""
import json
import os
import pathlib
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import PATIENCE, SUBHOST, diag, main, ok, test
from sessions import ROUNDS, batches, finished, rounds

TREE = pathlib.Path(__file__).resolve().parent / "programs" / "tree.py"
FULL = bool(ROUNDS)
MIXES = ("processes", "interpreters", "mixed", "levels")
GRACE = 0.5


def grow(tmp, *words, options=(), grace=10 * GRACE, times=1, timeout=15, **more):
    """(Result, what was left, one dict a round) of `subhost run OPTIONS tree.py WORDS`.

    A grace period that would be seen: no timeout may be what ends a tree. Nor is a task that
    got no CPU time for half a second, and was killed for it, among the errors."""
    report = tmp / "report"
    report.unlink(missing_ok=True)
    result, left = finished([SUBHOST, "run", "--grace", f"{grace}s", *options, TREE, "--report",
                             report, "--rounds", times, *words], timeout=timeout, **more)
    lines = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
    return result, left, lines


def sound(result, left, lines, times, status=(0,)):
    """What is wrong with a run, whichever tree it was; {} when nothing is."""
    wrong = {}
    if result.status not in status:
        wrong["status"] = f"{result.status}, not {status}"
    if len(lines) != times:
        wrong["rounds"] = f"{len(lines)} of {times}"
    if left:
        wrong["left behind"] = left
    if others := [line["others"] for line in lines if line["others"]]:
        wrong["still there after a round"] = others[:3]
    # The first round may open what stays (a link to the forkserver thread, say).
    counts = [line["descriptors"] for line in lines[1:]]
    if counts and max(counts) > counts[0]:
        wrong["descriptors"] = counts
    if "Fatal Python error" in result.err or "Segmentation" in result.err:
        wrong["crash"] = "see stderr"
    return wrong


def judge(name, run, times, status=(0,), **checks):
    """One result: a sound run whose rounds pass every check(line)."""
    result, left, lines = run
    wrong = sound(result, left, lines, times, status)
    for label, check in checks.items():
        if bad := [line for line in lines if not check(line)]:
            wrong[label] = bad[:3]
    slowest = max((line["seconds"] for line in lines), default=0)
    median = statistics.median([line["seconds"] for line in lines] or [0])
    ok(not wrong, f"{name} (median {median:.3f} s, slowest {slowest:.3f} s)",
       **({} if not wrong else wrong | {"result": result}))
    return median


def only_leaf_errors(line):
    return set(line["errors"]) == {"LeafError"}


@test
def tree_of_15(tmp):
    times = rounds(6)
    for mix in MIXES:
        medians = []
        for part in [times] if mix == "processes" else batches(times):
            run = grow(tmp, "--mix", mix, times=part, timeout=20 + 2 * part)
            medians.append(judge(f"the tree of 15, {mix}, leaves that raise", run, part,
                                 errors=only_leaf_errors))
        # The promise is for 3.14 on a quiet machine.
        limit = 0.4 if FULL else 2.5 * PATIENCE
        median = statistics.median(medians)
        ok(0 < median <= limit, f"{mix}: within {limit} s", median=median)


@test
def every_error_is_gathered(tmp):
    times = rounds(3)
    for mix in MIXES:
        judge(f"{mix}: 8 leaves that raise when they are cancelled: 8 errors",
              grow(tmp, "--mix", mix, "--leaf", "late", times=times, timeout=15 + 3 * times), times,
              errors=lambda line: line["errors"] == {"LeafError": 8},
              late=lambda line: line["teardown"] < GRACE * PATIENCE)


@test
def leaves_that_block(tmp):
    times = rounds(2)
    for mix in MIXES:
        judge(f"{mix}: leaves in Event.wait(1)",
              grow(tmp, "--mix", mix, "--leaf", "wait", times=times, timeout=15 + 3 * times), times,
              errors=only_leaf_errors, late=lambda line: line["teardown"] < GRACE * PATIENCE)
        judge(f"{mix}: leaves that spin",
              grow(tmp, "--mix", mix, "--leaf", "spin", times=times, timeout=15 + 4 * times), times,
              errors=only_leaf_errors, late=lambda line: line["teardown"] < 2 * GRACE * PATIENCE)


@test
def leaves_that_ignore_cancelled(tmp):
    # A process is killed, an interpreter abandoned. The first failure is a leaf's; its node fails
    # when its other leaf has been given up, and so on up.
    for mix in MIXES:
        times = rounds(2) if mix == "processes" else 1  # what was abandoned stays
        judge(f"{mix}: leaves that ignore Cancelled",
              grow(tmp, "--mix", mix, "--leaf", "ignore", grace=GRACE, times=times,
                   timeout=15 + 4 * times),
              times, status=(0,) if mix == "processes" else (0, 137),
              errors=lambda line: line["errors"].get("LeafError") == 1,
              late=lambda line: GRACE * 0.8 <= line["teardown"] < 3 * GRACE + 1.0 * PATIENCE)


def full_pipe():
    """Both ends of a pipe with no room left."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, bytes(65536))
    except BlockingIOError:
        pass
    try:
        while True:
            os.write(writer, b"x")
    except BlockingIOError:
        pass
    os.set_blocking(writer, True)
    return reader, writer


@test
def nobody_reads(tmp):
    reader, writer = full_pipe()
    try:
        for mix in MIXES:
            judge(f"{mix}: stdout is a full pipe, a line in each task's buffer",
                  grow(tmp, "--mix", mix, "--leaf", "wait", "--say", grace=GRACE,
                       stdout=writer, timeout=8), 1,
                  status=(0, 120, 137), errors=lambda line: line["errors"].get("LeafError") == 1,
                  late=lambda line: line["teardown"] < 3 * GRACE + 1.0 * PATIENCE)
            judge(f"{mix}: stdout is a full pipe, leaves that print",
                  grow(tmp, "--mix", mix, "--leaf", "print", grace=GRACE, stdout=writer,
                       timeout=8), 1,
                  status=(0, 120, 137), errors=lambda line: line["errors"].get("LeafError") == 1,
                  late=lambda line: line["teardown"] < 3 * GRACE + 1.0 * PATIENCE)
        for mix in ("processes", "mixed"):
            judge(f"{mix}: stdout and stderr are a full pipe, captured, leaves that print",
                  grow(tmp, "--mix", mix, "--leaf", "print", options=("--capture",), grace=GRACE,
                       stdout=writer, stderr=writer, timeout=8), 1, status=(0, 120, 137),
                  errors=lambda line: line["errors"].get("LeafError") == 1,
                  late=lambda line: line["teardown"] < 3 * GRACE + 1.0 * PATIENCE)
    finally:
        os.close(reader)
        os.close(writer)


@test
def deep_and_broad(tmp):
    for mix in ("processes", "levels"):
        judge(f"{mix}: depth 4, breadth 3, leaves that raise",
              grow(tmp, "--mix", mix, "--depth", "4", "--breadth", "3", timeout=30), 1,
              errors=only_leaf_errors)
    judge("processes: depth 4, breadth 3, leaves that wait",
          grow(tmp, "--depth", "4", "--breadth", "3", "--leaf", "wait", timeout=30), 1,
          errors=only_leaf_errors, late=lambda line: line["teardown"] < 2 * PATIENCE)


@test
def in_a_child(tmp):
    """The program itself in a forked child: nothing is different below it."""
    for mix in ("processes", "mixed"):
        judge(f"the root in a child, {mix}",
              grow(tmp, "--mix", mix, times=2, options=("--isolation", "process")), 2,
              errors=only_leaf_errors)


@test
def all_levels_at_once(tmp):
    times = rounds(3)
    one = judge("one process, cancelled",
                grow(tmp, "--depth", "0", "--leaf", "wait", "--cancel", times=times), times,
                outcome=lambda line: line["outcome"] == "cancelled")
    run = grow(tmp, "--depth", "3", "--breadth", "4", "--leaf", "wait", "--cancel", times=times,
               timeout=30 + 5 * times)
    judge("85 processes, depth 3, breadth 4, cancelled", run, times,
          outcome=lambda line: line["outcome"] == "cancelled")
    single = grow(tmp, "--depth", "0", "--leaf", "wait", "--cancel", times=times)[2]
    one, many = (statistics.median([line["teardown"] for line in lines] or [0])
                 for lines in (single, run[2]))
    diag(f"cancel of one process {one * 1000:.1f} ms, of 85 {many * 1000:.1f} ms")
    ok(0 < many < (3 * one if FULL else 1.0 * PATIENCE),
       f"a cancel of 85 takes {many / (one or 1):.1f} times one process's", one=one, many=many)


main()
