#!/usr/bin/env python3
# timeout: 120
"""`subhost audit trail FILE`: what a run's trail tells, in each format; trails that are cut, in
several files, or none."""
import html.parser
import json
import os
import pathlib
import re
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from schema import is_valid
from tap import SUBHOST, equal, lacking, main, ok, run, script, subhost, test

# One of each: a fork refused, a task that raises, one that is cancelled, one whose deadline
# passes, one in a forked child that is killed, and at last a program that is abandoned.
RUN = """
    import os, time, subhost
    def leaf(what):
        if what == "fails":
            time.sleep(0.3)
            raise ValueError("the leaf <fails>")
        if what == "hangs":
            7 ** 7 ** 9
        time.sleep(0.001 if what == "returns" else 60)
    def branch():
        with subhost.open_nursery() as nursery:
            for what in ("returns", "sleeps", "fails"):
                nursery.start(leaf, what, name=what, isolation="process")
    if __name__ == "__main__":
        try:
            os.fork()
        except RuntimeError:
            pass
        for function, args, timeout in ((branch, (), None), (leaf, ("sleeps",), 0.1),
                                        (leaf, ("hangs",), 0.1)):
            try:
                with subhost.open_nursery() as nursery:
                    nursery.start(function, *args, timeout=timeout, isolation="process",
                                  name=f"{function.__name__} <&> {timeout}")
            except ExceptionGroup:
                pass
        7 ** 7 ** 9
"""
_made = []


def trail(folder):
    """The trail of RUN, made once."""
    if not _made:
        path = folder / "made"
        subhost("run", "--grace", "200ms", "--timeout", "3s", "--trail", path,
                script(folder, RUN, "tree.py"))
        _made.append(path.read_bytes())
    path = folder / "trail"
    path.write_bytes(_made[0])
    return path


def audited(path, *options, status=1):
    result = subhost("audit", "trail", *options, path)
    ok(result.status == status and result.err == "", f"status {status}", result=result)
    return result


def document(path, status=1):
    return json.loads(audited(path, "--format", "json", status=status).out)


@test
def model(folder):
    found = document(trail(folder))
    tasks = {task["name"]: task for task in found["tasks"]}
    equal(sorted((task["name"], task["outcome"]) for task in found["tasks"]),
          [("branch <&> None", "raised"), ("fails", "raised"), ("leaf <&> 0.1", "killed"),
           ("leaf <&> 0.1", "timed-out"), ("returns", "returned"), ("sleeps", "cancelled"),
           ("tree.py", "abandoned")], "the outcomes")
    root, branch = tasks["tree.py"], tasks["branch <&> None"]
    equal([task["parent"] for task in found["tasks"][1:]].count(root["id"]), 3,
          "three tasks of the program's")
    equal([tasks[name]["parent"] for name in ("returns", "sleeps", "fails")], [branch["id"]] * 3,
          "three below them")
    equal((root["depth"], branch["depth"], tasks["fails"]["depth"]), (0, 1, 2), "in a tree")
    ids = [task["id"] for task in found["tasks"]]
    ok(all(ids.index(task["parent"]) < ids.index(task["id"])
           for task in found["tasks"] if "parent" in task), "parents first", ids=ids)
    ok(all(0 <= task["started"] <= task["ended"] <= found["trail"]["duration"]
           for task in found["tasks"]), "times")
    equal(tasks["fails"]["ended_how"], "raised: ValueError: the leaf <fails>", "what it raised")
    cancel = tasks["sleeps"]["cancel"]
    # Where its CPU is taken away for long, it is raised a second time.
    equal((cancel["words"], list(dict.fromkeys(rung["rung"] for rung in cancel["rungs"]))),
          ("a sibling failed", ["rung 1", "rung 2", "raised"]), "the ladder of a cancel")
    ok(all(0 <= rung["after"] < 5 for rung in cancel["rungs"]), "its latencies", cancel=cancel)
    ok("rung 4" in [rung["rung"] for rung in root["cancel"]["rungs"]], "rung 4", root=root)
    statuses = {item["id"]: item["status"] for item in found["items"]}
    bad = {f"task-{task['id']}" for task in found["tasks"]
           if task["outcome"] in ("killed", "abandoned")}
    equal({id for id, status in statuses.items() if status != "ok"}, bad | {"refusal-1"},
          "the findings")
    [refusal] = found["refusals"]
    ok(refusal["what"] == "os.fork" and refusal["task"] == root["id"] and
       "tree.py:" in refusal["stack"][0], "the refusal", refusal=refusal)
    equal(len(found["forks"]), 6, "the forks")
    # The child's own may be missing: its supervisor's SIGKILL comes soon after the grace period.
    ok([one["what"] for one in found["failures"]][-2:] in (["quarantine"], ["quarantine"] * 2),
       "the quarantines: the child's, which then ends itself, and the program's",
       failures=found["failures"])
    equal((found["trail"]["complete"], found["trail"]["lost"], found["unknown_events"]),
          (True, 0, {}), "a whole trail")


@test
def text(folder):
    result = audited(trail(folder))
    lines = result.out.splitlines()
    ok(max(map(len, lines)) <= 100 and "\x1b" not in result.out, "100 columns, no colour")
    for pattern in (r"^finding +task-1 +tree\.py: abandoned; a cancel came: deadline, after",
                    r"^ok +task-\d+ +\|- branch <&> None: raised: ExceptionGroup",
                    r"^ok +task-\d+ +\|  [|`]- fails: raised: ValueError: the leaf <fails>, after",
                    r"^ok +task-\d+ +\|  [|`]- sleeps: cancelled: a sibling failed, after",
                    r"^ok +task-\d+ +\|- leaf <&> 0\.1: timed-out, after",
                    r"^finding +task-\d+ +`- leaf <&> 0\.1: killed by signal 9",
                    r"^finding +refusal-1 +os\.fork in task 1 \(tree\.py\): refused",
                    r"^Cancels\n  \(rung 1: ", r"^  task \d+ \(sleeps\): a sibling failed, grace",
                    r"^Quarantines, orphans, failures\n  [\d.]+ \w+: interpreter",
                    r"^  7 tasks: 2 raised, .*; 6 forks; 1", r"^Forks\n  [\d.]+ \w+: process \d+ \(",
                    r"^Refusals\n  .*: os\.fork, process",
                    r"rung 1 after [\d.]+ .?s, rung 2 \(1\s+thread\)\s+after"):
        ok(re.search(pattern, result.out, re.MULTILINE), pattern, text=result.out)
    ok(lines[-1].endswith("3 findings"), "the total", last=lines[-1])


@test
def schema(folder):
    path = trail(folder)
    for name, change in {"a whole trail": bytes, "a cut one": lambda data: data[:-700],
                         "one line": lambda data: data.splitlines(True)[3]}.items():
        path.write_bytes(change(_made[0]))
        is_valid(json.dumps(document(path)), f"{name}: the document is valid")


@test
def tap(folder):
    path = trail(folder)
    result = subhost("audit", "trail", "--format", "tap", path, env={"HARNESS_ACTIVE": None})
    points = re.findall(r"^((?:not )?ok) \d+ - ([\w-]+): ", result.out, re.MULTILINE)
    equal(sorted(id for point, id in points if point == "not ok")[:1], ["refusal-1"],
          "findings are not ok", points=points)
    equal((len([1 for point, _ in points if point == "not ok"]), f"1..{len(points)}" in result.out),
          (3, True), "as many as planned")
    if not shutil.which("prove"):
        lacking("prove", "prove", "perl")
        return
    quiet = folder / "quiet"
    subhost("run", "--trail", quiet, "-c", "pass")
    for file, status in ((path, False), (quiet, True)):
        proved = run(["prove", "-e", f"{SUBHOST} audit --format tap trail", file])
        equal(proved.status == 0, status, f"prove: {'success' if status else 'failure'}",
              result=proved)


class Checker(html.parser.HTMLParser):
    """Collects tags, and complains of those that are not closed or that load something."""

    def __init__(self):
        super().__init__()
        self.stack, self.bad, self.tags = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "input"):
            self.stack.append(tag)
        for key, value in attributes:
            if key in ("src", "href", "action") and not value.startswith(("#", "data:")):
                self.bad.append((tag, key, value))

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.stack or self.stack.pop() != tag:
            self.bad.append(("not closed", tag))


@test
def page(folder):
    result = audited(trail(folder), "--format", "html")
    checker = Checker()
    checker.feed(result.out)
    equal((checker.bad, checker.stack), ([], []), "each element is closed, nothing is loaded")
    bars = [given["class"] for tag, given in checker.tags
            if tag == "rect" and "task" in given.get("class", "").split()]
    equal((len(bars), sum("bad" in bar for bar in bars), sum("process" in bar for bar in bars)),
          (7, 2, 6), "a bar for each task", bars=bars)
    ok(sum(given.get("class") == "cancelling" for _, given in checker.tags) >= 4 and
       sum(given.get("class") == "mark" for _, given in checker.tags) >= 6, "cancels and rungs")
    ok("branch &lt;&amp;&gt; None" in result.out and "&lt;dt&gt;" not in result.out and
       "leaf <fails>" not in result.out, "text is escaped, once")


BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@test
def browser(folder):
    command = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not command:
        lacking("the page in a browser", "chromium", "chromium-headless-shell")
        return
    result = audited(trail(folder), "--format", "html")
    probe = ("<script>document.documentElement.dataset.seen = JSON.stringify({"
             "wide: document.documentElement.scrollWidth, inner: innerWidth,"
             "bars: document.querySelectorAll('svg.tree rect.task').length,"
             "drawn: document.querySelector('svg.tree').getBoundingClientRect().height,"
             "rows: document.querySelector('table.rows tbody').rows.length,"
             "requests: performance.getEntriesByType('resource').length,"
             "ground: getComputedStyle(document.body).backgroundColor})</script></body>")
    grounds = set()
    for dark in ("1", "0"):
        file = folder / "page.html"
        file.write_text(result.out.replace("</body>", probe))
        seen = run([command, "--headless", "--no-sandbox", "--disable-gpu",
                    "--window-size=1400,900", f"--blink-settings=preferredColorScheme={dark}",
                    "--dump-dom", f"file://{file}"], timeout=60)
        match = re.search(r'data-seen="([^"]*)"', seen.out)
        if not ok(match, "the page's scripts run", result=seen):
            return
        values = json.loads(match[1].replace("&quot;", '"'))
        ok(values["wide"] <= values["inner"], "no wider than the window", values=values)
        equal((values["bars"], values["rows"], values["requests"]), (7, 8, 0),
              "the picture, the table, no request", values=values)
        ok(values["drawn"] > 150, "it is drawn", values=values)
        grounds.add(values["ground"])
    equal(len(grounds), 2, "light and dark", grounds=grounds)


@test
def chrome(folder):
    path = trail(folder)
    trace = json.loads(audited(path, "--format", "chrome").out)
    events, found = trace["traceEvents"], document(path)
    ok(all({"ph", "pid", "tid"} <= event.keys() for event in events), "each has its thread")
    slices = [event for event in events if event["ph"] == "X"]
    equal(sorted(event["args"]["id"] for event in slices),
          sorted(task["id"] for task in found["tasks"]), "a slice for each task")
    by_thread = {}
    for event in sorted(slices, key=lambda event: event["ts"]):
        before = by_thread.get((event["pid"], event["tid"]))
        ok(before is None or before["ts"] + before["dur"] <= event["ts"] + 0.001,
           f"{event['name']}: slices of a thread do not overlap")
        by_thread[event["pid"], event["tid"]] = event
    begins = {event["id"]: event for event in events if event["ph"] == "s"}
    ends = {event["id"]: event for event in events if event["ph"] == "f"}
    equal(set(begins), set(ends), "each arrow has two ends")
    equal(set(begins), {task["id"] for task in found["tasks"] if "parent" in task},
          "one for each child")
    tasks = {event["args"]["id"]: event for event in slices}
    for task in found["tasks"]:
        if "parent" in task:
            parent, begin = tasks[task["parent"]], begins[task["id"]]
            ok((begin["pid"], begin["tid"]) == (parent["pid"], parent["tid"]) and
               parent["ts"] <= begin["ts"] <= parent["ts"] + parent["dur"],
               f"the arrow to {task['name']} comes from its parent's slice")
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    ok("subhost" in names and len(names) > 3, "processes have names", names=names)
    instants = [event["name"] for event in events if event["ph"] == "i"]
    ok("os.fork refused" in instants and "rung 2" in instants and "cancel: a sibling failed" in
       instants, "instants", instants=instants)
    result = subhost("audit", "host", "debug-offsets", "--format", "chrome")
    ok(result.status == 125 and "the chrome format is for trails" in result.err,
       "of other audits there is none", result=result)


def line(event, t, **fields):
    return json.dumps({"t": t, "wall": "2026-01-01T00:00:00.000000Z", "pid": 7, "thread": 7}
                      | {"event": event} | fields) + "\n"


def head(part, t=0.0, trail="7-1", event=None):
    return line(event or ("host-open" if part == 1 else "trail-continued"), t, format=1,
                trail=trail, part=part)


CLOSE = line("host-close", 99, events=1, lost=0, tasks=0, cancels=0, forks=0, signals=0,
             abandoned=0)


def reasons(found):
    return {item["id"]: item.get("reason", "") for item in found["items"]
            if item["status"] == "finding"}


@test
def several_files(folder):
    file = folder / "t"
    # The newest last: parts 2, 3, 4 of a trail whose first one is gone; and another's file.
    (folder / "t.3").write_text(head(1, trail="other") + line("task-started", 1, task=9, name="no"))
    (folder / "t.2").write_text(head(2) + line("task-started", 1, task=1, name="one"))
    (folder / "t.1").write_text(head(3) + line("task-started", 2, task=2, parent=1, name="two"))
    file.write_text(head(4, 3.0) + line("task-ended", 4, task=2, name="two", outcome="returned")
                    + line("task-ended", 5, task=1, name="one", outcome="exited", code=3) + CLOSE)
    found = document(file)
    equal(([task["name"] for task in found["tasks"]], found["trail"]["files"]),
          (["one", "two"], [f"{file}.2", f"{file}.1", str(file)]), "its files are found")
    equal(reasons(found), {"trail": f"the beginning is missing: {file}.2 is part 2 of it"},
          "a missing beginning is said")
    (folder / "t.2").rename(folder / "first")
    (folder / "first").write_text(head(1) + line("task-started", 1, task=1, name="one")
                                  + line("host-later", 2) * 2)
    (folder / "t.1").write_text(head(2) + line("task-started", 2, task=2, parent=1, name="two"))
    file.write_text(file.read_text().replace('"part": 4', '"part": 3'))
    result = subhost("audit", "trail", file, folder / "first", folder / "t.1", "--format=json")
    found = json.loads(result.out)
    equal((result.status, found["trail"]["complete"], found["unknown_events"]),
          (0, True, {"host-later": 2}), "given by name; events of a later subhost are counted")
    result = subhost("audit", "trail", file, folder / "t.3")
    ok(result.status == 125 and "are not files of one trail" in result.err, "not of another's",
       result=result)


@test
def cut_and_lossy(folder):
    file = folder / "t"
    begun = head(1) + line("task-started", 1, task=1, name="b\udc80n\x1b")
    for name, text, wanted in (
            ("a line cut off", begun + CLOSE[:40], "the last line is cut off after 40 bytes"),
            ("no end", begun, "the end is missing: the process was killed, or still runs"),
            ("no events", begun + "{}\nhello\n[1]\n" + line("task-ended", "x") + CLOSE,
             "no events: line 3, 4, 5, 6"),
            ("nonsense", begun + line("task-ended", float("nan")) + "[" * 5000 + "\n" + CLOSE,
             "no events: line 3, 4"),
            ("of wrong kinds", begun + line("task-ended", 2, task="x") + CLOSE,
             "no events: line 3")):
        file.write_text(text, encoding="utf-8", errors="surrogateescape")
        found = document(file)
        ok(wanted in reasons(found)["trail"], f"{name}: {wanted}", reasons=reasons(found))
        equal(reasons(found)["task-1"], "its end is not in the trail", f"{name}: the task's end")
    file.write_text(begun + line("events-lost", 2, count=5) + line("events-lost", 3, count=2)
                    + line("task-ended", 4, task=1, outcome="returned") + CLOSE)
    found = document(file)
    equal((found["trail"]["lost"], list(reasons(found))), (7, ["trail-lost"]), "lost events")
    result = audited(file)
    ok("\x1b" not in result.out and "\\x1b" in result.out, "control characters are shown as such")
    file.write_text(head(1) + line("task-ended", 4, task=5, parent=4, name="five",
                                   outcome="cancelled", reason="host closes")
                    + line("cancelled-raised", 5, task=4, after=0.5) + CLOSE)
    found = document(file)
    equal([task["ended_how"] for task in found["tasks"]],
          ["no end; a cancel came: ?", "cancelled"], "a task of which little is known")
    for form in ("text", "html", "tap", "chrome"):
        audited(file, "--format", form)


@test
def mistakes(folder):
    (folder / "empty").write_text("")
    (folder / "text").write_text("hello\nworld\n")
    (folder / "json").write_text('{"event": 1}\n{"a": 2}\n')
    (folder / "later").write_text(line("host-open", 0, format=2, trail="x", part=1))
    for words, error in {
        (): "which trail? subhost audit trail FILE; a trail is what `subhost run --trail FILE`",
        ("nothere",): "nothere: No such file or directory",
        (".",): ".: Is a directory",
        ("empty",): "empty: not a trail: it is empty; a trail is what",
        ("text",): "text: not a trail: no line of it is an event; a trail is what",
        ("json",): "json: not a trail: no line of it is an event",
        ("later",): "later: a trail of format 2, which a later subhost has written; this one reads",
    }.items():
        result = subhost("audit", "trail", *words, cwd=folder)
        ok(result.status == 125 and not result.out and
           result.err.startswith(f"subhost: audit trail: {error}"), error, result=result)
    result = subhost("audit", "trail", "-", input=head(1) + CLOSE)
    equal((result.status, result.err), (0, ""), "- is standard input", result=result)


@test
def many(folder):
    """A tree of 3,000 tasks, 60 deep, is no problem of time or of the stack."""
    file = folder / "t"
    with open(file, "w") as out:
        out.write(head(1))
        for n in range(1, 3001):
            out.write(line("task-started", n, task=n, parent=n - 1 if n % 60 else 0, name=f"t{n}"))
        for n in range(1, 3001):
            out.write(line("task-ended", 4000 + n, task=n, outcome="returned"))
        out.write(CLOSE.replace("99", "9999"))
    for form in ("text", "html", "chrome"):
        result = audited(file, "--format", form, status=0)
        ok("t3000" in result.out, f"{form}: all are there")
    ok("The first 1000 of 3000 tasks are drawn." in audited(file, "--format=html", status=0).out,
       "the picture says what it leaves out")


main()
