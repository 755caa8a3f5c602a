"""The trail's report in HTML: the tree of tasks and its timeline, drawn as one picture (a row
for each task, below its parent; time goes to the right), and tables of the rest. The picture is
SVG in the page, in the page's colours; it needs no script."""

import html as escaping
import math

from subhost_audit.render_html import Html, Page
from subhost_audit.trail_model import seconds, shown

# Tasks that are drawn; a picture of more would help nobody. The table has all of them.
DRAWN = 1000
LABEL, CHART, ROW, TOP, INDENT = 300, 1000, 22, 30, 14

STYLE = """
svg.tree { display: block; width: 100%; min-width: 50rem; height: auto; background: var(--panel); font: 12px system-ui, sans-serif; }
svg.tree text { fill: var(--text); }
svg.tree .dim { fill: var(--dim); }
svg.tree line, svg.tree path.link { stroke: var(--line); fill: none; }
svg.tree rect.stripe { fill: var(--row); }
svg.tree rect.task { fill: var(--accent); fill-opacity: .55; }
svg.tree rect.process { stroke: var(--text); stroke-width: 1; }
svg.tree rect.returned { fill: var(--ok); fill-opacity: .65; }
svg.tree rect.raised, svg.tree rect.timed-out, svg.tree rect.cancelled {
  fill: var(--skipped); fill-opacity: .65;
}
svg.tree rect.bad { fill: var(--finding); fill-opacity: .8; }
svg.tree rect.cancelling { fill: none; stroke: var(--finding); stroke-dasharray: 3 2; }
svg.tree .mark { stroke: var(--finding); stroke-width: 1.5; }
svg.tree .refused {
  fill: var(--finding); font-weight: 700; stroke: var(--panel); stroke-width: 3;
  paint-order: stroke;
}
ul.key { display: flex; flex-wrap: wrap; gap: 1rem; list-style: none; padding: 0;
  color: var(--dim); margin: .4rem 0; }
ul.key i { display: inline-block; width: 1rem; height: .7rem; margin-right: .35rem; }
i.returned { background: var(--ok); opacity: .65; }
i.raised { background: var(--skipped); opacity: .65; }
i.bad { background: var(--finding); opacity: .8; }
i.exited { background: var(--accent); opacity: .55; }
i.process { border: 1px solid var(--text); }
i.cancelling { border: 1px dashed var(--finding); }
"""
KEY = [("returned", "returned"), ("exited", "exited, or other ends of its own"),
       ("raised", "raised, timed out, cancelled"),
       ("bad", "killed, abandoned, not started, no end"), ("process", "in a forked child"),
       ("cancelling", "from the cancel to the end; strokes are its rungs")]
BAD = ("killed", "abandoned", "failed")


def columns(document):
    """Of the table of items."""
    tasks, page = {f"task-{task['id']}": task for task in document["tasks"]}, Page(shown)

    def task(one):
        return tasks.get(one["id"], {})

    def time(value):
        return ("", -1) if value is None else (seconds(value), round(value, 9))

    def took(one):
        it = task(one)
        return time(it["ended"] - it["started"] if {"started", "ended"} <= it.keys() else None)

    return [
        ("id", lambda one: page.element("code", one["id"])),
        ("what", lambda one: page.details(one, task(one).get("name") or one["title"])),
        ("how it ended", lambda one: task(one).get("ended_how", one.get("reason", ""))),
        ("began", lambda one: time(one["detail"].get("at"))),
        ("took", took),
        ("process", lambda one: one["detail"].get("pid")),
        ("cancel", lambda one: task(one).get("ladder", "")),
    ]


def picture(document, page):
    """The section in front of the items."""
    key = page.element("ul", *(page.element("li", page.element("i", class_=name), text)
                               for name, text in KEY), class_="key")
    return "Tree and timeline", page.element("div", _picture(document), class_="wide") + key


def html(document, page):
    """The sections behind them."""
    yield "Trail", _about(document, page)
    for heading, rows, names in (
            ("Forks", document["forks"], ("at", "pid", "name", "supervisor", "by_c")),
            ("Refusals", document["refusals"],
             ("at", "pid", "thread", "thread_name", "task", "what", "stack")),
            ("Quarantines, orphans, failures", document["failures"],
             ("at", "what", "name", "pid", "task", "why")),
            ("Signals", document["signals"],
             ("at", "signal", "pid", "handled", "cancelled", "waiting")),
            ("Python's events", _python_rows(document),
             ("name", "count", "at", "pid", "task", "args", "where"))):
        if rows:
            yield heading, page.table([(name, _cell(page, name)) for name in names], rows)


def _python_rows(document):
    return [{"name": one["name"], "count": one["count"]} | first
            for one in document["python_events"] for first in one["first"]]


def _cell(page, name):
    def cell(row):
        value = row.get(name, "")
        if name == "at" and value != "":
            return seconds(value), f"{value:.9f}"
        if isinstance(value, list):
            return page.element("pre", "\n".join(map(str, value)))
        return value

    return cell


def _about(document, page):
    about = document["trail"]
    pairs = [("files", ", ".join(about["files"])), ("began", about["began"]),
             ("duration", seconds(about["duration"])), ("events", about["events"]),
             ("lost", about["lost"]), ("processes", len(document["processes"])),
             ("whole", "yes" if about["complete"] else "; ".join(about["problems"]) or "no")]
    pairs += [(key, about[key]) for key in ("version", "doorbell", "interruptible")
              if key in about]
    pairs += [(f"unknown event {name}", count)
              for name, count in document["unknown_events"].items()]
    return page.element("dl", *(page.element(name, text) for pair in pairs
                                for name, text in zip(("dt", "dd"), pair)))


# ---- the picture -----------------------------------------------------------------------


def _text(value):
    return escaping.escape(str(value).encode(errors="backslashreplace").decode())


def ticks(duration, wanted=8):
    """Round steps of time from 0 on."""
    if duration <= 0:
        return [0.0]
    step = 10 ** math.floor(math.log10(duration / wanted))
    step = next(step * factor for factor in (1, 2, 5, 10) if duration / (step * factor) <= wanted)
    return [number * step for number in range(int(duration / step) + 1)]


def _picture(document):
    tasks = document["tasks"][:DRAWN]
    duration = max(document["trail"]["duration"], 1e-6)
    height = TOP + ROW * max(len(tasks), 1) + 8
    width = LABEL + CHART + 20
    rows = {task["id"]: number for number, task in enumerate(tasks)}

    def x(at):
        return LABEL + CHART * min(max(at / duration, 0), 1)

    parts = [f'<rect class="stripe" x="0" y="{TOP + ROW * number}" width="{width}" '
             f'height="{ROW}"/>' for number in range(0, len(tasks), 2)]
    for tick in ticks(duration):
        parts.append(f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP - 6}" '
                     f'y2="{height - 8}"/><text class="dim" x="{x(tick) + 3:.1f}" '
                     f'y="{TOP - 10}">{seconds(tick) if tick else "0"}</text>')
    for task in tasks:
        parts += _row(task, rows, x, duration)
    for refusal in document["refusals"]:
        if refusal["task"] in rows:
            parts.append(f'<text class="refused" x="{x(refusal["at"]) - 4:.1f}" '
                         f'y="{TOP + ROW * rows[refusal["task"]] + 15}">&#10005;'
                         f'<title>{_text(refusal["what"])} refused</title></text>')
    more = ""
    if len(document["tasks"]) > DRAWN:
        more = f"<p>The first {DRAWN} of {len(document['tasks'])} tasks are drawn.</p>"
    return Html(f'<svg class="tree" role="img" aria-label="tree and timeline of tasks" '
                f'width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
                + "".join(parts) + "</svg>" + more)


def _row(task, rows, x, duration):
    number = rows[task["id"]]
    top, left = TOP + ROW * number, 8 + INDENT * min(task["depth"], 12)
    parent = rows.get(task.get("parent"))
    if parent is not None and task["depth"]:
        bend = left - INDENT + 4
        yield (f'<path class="link" d="M{bend} {TOP + ROW * parent + 17}V{top + 11}H{left - 2}"/>')
    name, room = task.get("name") or "?", max((LABEL - left - 8) // 7, 8)
    shown = name if len(name) <= room else name[:room - 1] + "\u2026"
    yield (f'<text x="{left}" y="{top + 15}">{_text(shown)}<title>task {task["id"]}: '
           f'{_text(name)}</title></text>')
    outcome = task.get("outcome", "no end")
    begin = task.get("started", task.get("ended", 0))
    end = task.get("ended", duration)
    kind = "bad" if outcome in BAD or outcome == "no end" else outcome
    classes = f"task {kind}" + (" process" if task.get("isolation") == "process" else "")
    said = f"{name}: {task['ended_how']}, {seconds(end - begin)}"
    if task.get("ladder"):
        said += f"\n{task['ladder']}"
    yield (f'<rect class="{_text(classes)}" x="{x(begin):.1f}" y="{top + 5}" rx="2" '
           f'width="{max(x(end) - x(begin), 2):.1f}" height="12"><title>{_text(said)}</title>'
           '</rect>')
    if task.get("cancel"):
        yield from _cancel(task["cancel"], end, top, x)


def _cancel(cancel, end, top, x):
    at = cancel["at"]
    yield (f'<rect class="cancelling" x="{x(at):.1f}" y="{top + 3}" '
           f'width="{max(x(end) - x(at), 2):.1f}" height="16"/>')
    for rung in cancel["rungs"]:
        where = x(at + rung["after"])
        yield (f'<line class="mark" x1="{where:.1f}" x2="{where:.1f}" y1="{top + 4}" '
               f'y2="{top + 18}"><title>{_text(rung["rung"])} after '
               f'{seconds(rung["after"])}</title></line>')
