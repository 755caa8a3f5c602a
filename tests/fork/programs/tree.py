"""A tree of tasks that fails or is cancelled: subhost run tree.py [OPTION...]

Each round runs a whole tree below this program and reports it as a JSON line into --report.
--depth 3 --breadth 2 is the tree of 15 of `nested-cancel`: the program, 2 top tasks, 4
spawners, 8 leaves."""
import argparse
import collections
import json
import os
import shutil
import sys
import tempfile
import threading
import time

import subhost
from common import count_descriptors, kind, leaves, session_others


class LeafError(Exception):
    pass


def isolation(path, o):
    if o["mix"] == "mixed":  # of each two siblings one
        return ("process", "interpreter")[path[-1] % 2]
    if o["mix"] == "levels":
        return ("process", "interpreter")[len(path) % 2]
    return {"processes": "process", "interpreters": "interpreter"}[o["mix"]]


def announce(o, *words):
    # A file each: what is in it is there when its name is.
    name = os.path.join(o["meeting"], "-".join(map(str, words)))
    with open(name + ".new", "w") as file:
        file.write(repr(time.monotonic()))
    os.rename(name + ".new", name)


def meet(o):
    """Wait until every leaf is there."""
    count, end = o["breadth"] ** o["depth"], time.monotonic() + 50
    while sum(name.startswith("leaf") and not name.endswith(".new")
              for name in os.listdir(o["meeting"])) < count:
        if time.monotonic() > end:
            raise RuntimeError(f"not all leaves came: {sorted(os.listdir(o['meeting']))}")
        time.sleep(0.005)


def late(path, o):
    try:
        announce(o, "leaf", *path)  # from here on the cancel may come
        while True:
            time.sleep(60)
    except subhost.Cancelled:
        raise LeafError(path) from None


def leaf(path, o):
    if o["leaf"] == "raise":
        raise LeafError(path)
    if o["say"]:
        print("one line of", path)  # is in the stream's buffer when the cancel comes
    if o["leaf"] == "late" and (o["cancel"] or any(path)):
        late(path, o)
    announce(o, "leaf", *path)
    if not o["cancel"] and not any(path):
        meet(o)
        announce(o, "raised")
        raise LeafError(path)
    match o["leaf"]:
        case "wait":
            while True:
                threading.Event().wait(1.0)
        case "spin":
            while True:
                pass
        case "ignore":
            while True:
                try:
                    while True:
                        time.sleep(60)
                except BaseException:
                    pass
        case "print":
            while True:
                print("x" * 1000)


def node(path, o):
    if len(path) == o["depth"]:
        return leaf(path, o)
    if o["say"] and path:  # python too would wait for ever to flush what the root says
        print("one line of", path)
    with subhost.open_nursery() as nursery:
        for number in range(o["breadth"]):
            below = (*path, number)
            nursery.start(node, below, o, name="n" + "".join(map(str, below)),
                          isolation=isolation(below, o))


def moment(o, name):
    try:
        with open(os.path.join(o["meeting"], name)) as file:
            return float(file.read())
    except FileNotFoundError:
        return None


def cancelled(o):
    """The whole tree below one top task, cancelled once every leaf is there."""
    with subhost.open_nursery() as nursery:
        top = nursery.start(node, (), o, name="top", isolation=isolation((0,), o))
        meet(o)
        since = time.monotonic()
        top.cancel("the test")
    return since, kind(top)


def one_round(o):
    o["meeting"] = tempfile.mkdtemp(prefix="subhost-tree-")
    found, began, outcome = [], time.monotonic(), None
    try:
        if o["cancel"]:
            since, outcome = cancelled(o)
        else:
            node((), o)
    except BaseExceptionGroup as error:
        found = leaves(error)
    end = time.monotonic()
    if not o["cancel"]:
        since = moment(o, "raised")
    shutil.rmtree(o["meeting"], ignore_errors=True)
    return {
        "seconds": end - began, "teardown": end - since if since else None, "outcome": outcome,
        "errors": dict(collections.Counter(
            "LeafError" if "LeafError" in f"{type(e).__name__} {e}" else type(e).__name__
            for e in found)),
        # What should not be among them first.
        "texts": sorted({f"{type(e).__name__}: {e}"[:300] for e in found},
                        key=lambda text: ("LeafError" in text, text))[:5],
        "others": session_others(), "descriptors": count_descriptors(o["open"]),
    }


def main():
    it = argparse.ArgumentParser()
    it.add_argument("--depth", type=int, default=3)
    it.add_argument("--breadth", type=int, default=2)
    it.add_argument("--mix", choices=("processes", "interpreters", "mixed", "levels"),
                    default="processes")
    it.add_argument("--leaf", choices=("raise", "wait", "spin", "ignore", "late", "print"),
                    default="raise")
    it.add_argument("--say", action="store_true", help="print a line in each task")
    it.add_argument("--cancel", action="store_true", help="nobody fails: the root cancels")
    it.add_argument("--rounds", type=int, default=1)
    it.add_argument("--report", required=True)
    arguments = it.parse_args()
    o = vars(arguments)
    o["open"] = 0
    for number in range(o["rounds"]):
        line = one_round(o) | {"round": number}
        o["open"] = line["descriptors"]
        with open(o["report"], "a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
