"""The files of a trail, read: events in order of time, and what is wrong with the files."""

import itertools
import json
import math
import os

from subhost_audit import report

FORMAT = 1
# Lines that are no events are named up to so many.
NAMED = 5
HEADS = ("host-open", "trail-continued")
# What is reckoned with must be what it should be; docs/trail.md has all of them.
KINDS = {key: kind for kind, keys in {
    (int, float): "t after grace duration timeout",
    int: "pid thread interp task parent child supervisor count lost part round threads code "
         "status handled cancelled waiting",
    str: "event wall name kind isolation gil outcome reason words detail why what thread_name "
         "signal trail version scope at",
    list: "stack args python_events",
}.items() for key in keys.split()}
HINT = "a trail is what `subhost run --trail FILE` writes"


class Part:
    """One file: its events as they stand there, and what is wrong with it."""

    def __init__(self, name, data):
        self.name, self.problems, self.events = name, [], []
        lines = data.split(b"\n")
        # Behind the last line's end there is nothing.
        rest = lines.pop()
        bad = []
        for number, line in enumerate(lines, 1):
            event = parsed(line)
            if event:
                self.events.append(event)
            else:
                bad.append(number)
        if not self.events:
            what = "it is empty" if not data else "no line of it is an event"
            raise report.Failed(f"{name}: not a trail: {what}; {HINT}")
        if rest:
            self.problems.append(f"{name}: the last line is cut off after {len(rest)} bytes")
        if bad:
            more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
            self.problems.append(f"{name}: no events: line {', '.join(map(str, bad[:NAMED]))}"
                                 f"{more}")
        self.head = next((event for event in self.events if event["event"] in HEADS), {})
        form = self.head.get("format", FORMAT)
        if form != FORMAT:
            raise report.Failed(f"{name}: a trail of format {form}, which a later subhost has "
                                f"written; this one reads format {FORMAT}")

    @property
    def trail(self):
        return self.head.get("trail")

    @property
    def number(self):
        part = self.head.get("part")
        return part if isinstance(part, int) else None


def parsed(line):
    """The event of a line, or None."""
    try:
        event = json.loads(line, parse_constant=int)  # NaN is no JSON: int() refuses it
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not {"event", "t", "pid"} <= event.keys():
        return None
    event.setdefault("thread", 0)
    for key, kind in KINDS.items():
        if key in event and not isinstance(event[key], kind):
            return None
    return event if math.isfinite(event["t"]) else None


def contents(name):
    """The bytes of a file; "-" is standard input."""
    try:
        with open(0 if name == "-" else name, "rb", closefd=name != "-") as file:
            return file.read()
    except OSError as error:
        raise report.Failed(f"{name}: {error.strerror}") from error


def older(newest):
    """The parts before this one that lie beside it, FILE.1 first, while they belong to it."""
    expected = newest.number or 1
    for number in itertools.count(1):
        name = f"{newest.name}.{number}"
        expected -= 1
        if newest.name == "-" or expected < 1 or not os.path.exists(name):
            return
        try:
            part = Part(name, contents(name))
        except report.Failed:
            return
        if part.trail != newest.trail or part.number != expected:
            return
        yield part


def read(names):
    """(parts from the oldest on, problems)"""
    parts = [Part(name, contents(name)) for name in names]
    first = parts[0]
    for part in parts[1:]:
        if part.trail != first.trail or not part.trail:
            raise report.Failed(f"{part.name} and {first.name} are not files of one trail: "
                                "name them one by one")
    if len(parts) == 1:
        parts += older(first)
    parts.sort(key=lambda part: part.number or 0)
    problems = [problem for part in parts for problem in part.problems]
    numbers = [part.number for part in parts]
    if parts[0].events[0]["event"] != "host-open":
        problems.append("the beginning is missing" if not numbers[0] else
                        f"the beginning is missing: {parts[0].name} is part {numbers[0]} of it")
    for before, after in itertools.pairwise(numbers):
        if before is not None and after is not None and after != before + 1:
            problems.append(f"between part {before} and part {after} some are missing")
    last = parts[-1].events[-1]
    if last["event"] != "host-close":
        problems.append("the end is missing: the process was killed, or still runs")
    return parts, problems
