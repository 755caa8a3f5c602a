#!/usr/bin/env python3
# timeout: 170
"""The table of tests/bench/cancel with few rounds, and limits for a machine that does other
things as well: the outcomes are what counts here."""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "bench"))
from cancel_states import STATES
from tap import PATIENCE, PYTHON, SOURCE, main, ok, run, skip, test

BENCH = SOURCE / "tests" / "bench" / "cancel"
SLACK = 20 * PATIENCE


def rows(*options):
    # Its processes have time limits of their own.
    result = run([PYTHON, BENCH, "--json", "--slack", SLACK, *options], timeout=170)
    return [json.loads(line) for line in result.out.splitlines()], result


def check(names, rounds, grace):
    for thread in ("main", "second"):
        found, result = rows("--states", ",".join(names), "--threads", thread,
                             "--rounds", rounds, "--grace", grace)
        for row in found:
            name = f"{row['state']}, {row['thread']} thread"
            if "skipped" in row["outcomes"]:
                skip(name, "its module cannot be imported")
            else:
                ok(not row["broken"], f"{name}: {row['promise']}", row=row)
        ok(len(found) == len(names), f"the {thread} thread's table is complete", result=result)


def having(*promises):
    return [state.name for state in STATES.values() if state.promise in promises]


@test
def what_ends_at_once(tmp):
    check(having("cancelled"), 8, 2000)


@test
def what_takes_the_grace_period(tmp):
    check(having("either", "cleanup"), 2, 400)


@test
def what_cannot_be_interrupted(tmp):
    check(having("abandoned"), 1, 300)


main()
