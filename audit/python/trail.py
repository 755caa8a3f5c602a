"""`subhost audit trail FILE`: what a run's trail tells, made into a report.

An item for each task, in the order of the tree; then one for each thing that is not a task's: a
fork that was refused, a quarantine, events that were lost, a trail that is not whole. A task
that ended in whatever way is as it should be, an exception or a cancel too: that is what the
program and its user did. A finding is one that was killed or abandoned, that could not be
started, or whose end is not in the trail."""

import collections

from subhost_audit import report, trail_files, trail_html, trail_model
from subhost_audit.trail_html import STYLE, html, picture  # noqa: F401: parts of the kind's
from subhost_audit.trail_model import ladder, outcome, seconds
from subhost_audit.trail_model import shown  # noqa: F401: a part of the kind's

BAD = {"killed": "a signal ended its process", "failed": "it could not be started",
       "abandoned": "it could not be interrupted; its interpreter is in quarantine"}
# Above the ladders of cancels, for who has not read docs/cancel.md.
RUNGS = ("(rung 1: on_cancel callbacks are called, event loops told; 2: Cancelled is raised; 3: raised "
         "again where it was swallowed; 4: quarantine; a process is killed)")
# So many stacks, signals and the like are shown as text; JSON has all.
SHOWN = 20


def collect(request):
    names = request.names
    if not names:
        raise report.Failed("which trail? subhost audit trail FILE; " + trail_files.HINT)
    parts, problems = trail_files.read(names)
    model = trail_model.Model([event for part in parts for event in part.events])
    only = model.head.get("only")
    ends = not only or "task-ended" in only
    items = [_task_item(task, ends) for task in model.order]
    items += [_refusal_item(number, refusal, model)
              for number, refusal in enumerate(model.refusals, 1)]
    items += [_failure_item(number, failure)
              for number, failure in enumerate(model.failures, 1)
              if failure["what"] != "quarantine" or not failure.get("task")]
    items += _trail_items(parts, problems, model)
    return {
        "trail": _about(parts, problems, model),
        "tasks": [task.document() for task in model.order],
        "processes": [_process(process) for process in model.processes.values()],
        "forks": model.forks, "refusals": model.refusals, "signals": model.signals,
        "failures": model.failures,
        "python_events": [{"name": name, **kept} for name, kept in sorted(model.python.items())],
        "unknown_events": dict(model.unknown), "items": items,
    }


def _about(parts, problems, model):
    about = {"files": [part.name for part in parts], "complete": not problems and not model.lost,
             "problems": problems, "events": len(model.events), "lost": model.lost,
             "duration": model.duration, "root": model.root,
             "began": model.events[0].get("wall", "")}
    for key in ("version", "doorbell", "interruptible", "limit", "files", "only",
                "python_events"):
        if key in model.head:
            about["host_" + key if key == "files" else key] = model.head[key]
    about["counters"] = {key: value for key, value in model.close.items()
                         if key in ("tasks", "cancels", "forks", "signals", "abandoned")}
    return about


def _process(process):
    """As JSON, whose keys are strings."""
    return process | {"threads": [{"thread": thread, "name": name}
                                  for thread, name in process["threads"].items()]}


# ---- items -----------------------------------------------------------------------------


def _task_item(task, ends):
    """`ends`: the trail has the ends of tasks."""
    title = f"{task.name or '?'}: {outcome(task)}"
    if task.started is None:
        title += "; it was never begun"
    elif task.ended is not None:
        title += f", after {seconds(task.ended - task.started)}"
    reason = BAD.get(task.outcome, "")
    if task.ended is None and ends:
        reason = "its end is not in the trail"
    detail = {"at": task.started if task.started is not None else task.ended,
              "pid": task.pid, "interp": task.interp}
    if task.isolation:
        detail["isolation"] = task.isolation
    if task.parent:
        detail["parent"] = task.parent
    if task.detail and task.outcome == "killed":
        detail["detail"] = task.detail
    if task.cancel:
        detail["cancel"] = ladder(task)
    return report.item(f"task-{task.id}", "finding" if reason else "ok", title, reason=reason,
                       detail={key: value for key, value in detail.items() if value is not None})


def _refusal_item(number, refusal, model):
    task = model.tasks.get(refusal["task"])
    where = f" in task {task.id} ({task.name})" if task else ""
    return report.item(
        f"refusal-{number}", "finding", f"{refusal['what']}{where}: refused",
        reason="a fork of the program's own: its child would die before it runs Python",
        meaning="use subprocess, os.posix_spawn, or a nursery with isolation='process'",
        detail={"at": refusal["at"], "pid": refusal["pid"], "thread": refusal["thread"],
                "thread_name": refusal["thread_name"], "stack": "\n".join(refusal["stack"])})


FAILURES = {"interpreter": "interpreter {name} could not be created",
            "fork": "process {name} could not be forked",
            "orphan": "process {pid} lost the process that it belongs to",
            "quarantine": "interpreter {name} is in quarantine",
            "policy": "{name}: the policy forbids it"}


def _failure(failure):
    """In words; the interpreter of a forked child is its main one, and has no name."""
    return FAILURES[failure["what"]].format(**failure | {"name": failure["name"] or "main"})


def _failure_item(number, failure):
    return report.item(f"failure-{number}", "finding", _failure(failure),
                       reason=failure["why"] or "no reason is given",
                       detail={"at": failure["at"], "pid": failure["pid"]})


def _trail_items(parts, problems, model):
    name = parts[-1].name
    if problems:
        yield report.item("trail", "finding", f"{name}: the trail is not whole",
                          reason="; ".join(problems),
                          meaning="what is missing is not in this report")
    if model.lost:
        yield report.item("trail-lost", "finding", f"{name}: {model.lost} events were lost",
                          reason="the file did not take them in time",
                          meaning="what is missing is not in this report")


def leads(document):
    """{id of an item: the branches of the tree that stand in front of it in text}"""
    found, tasks = {}, {task["id"]: task for task in document["tasks"]}
    last = {child: number == len(task["children"]) - 1 for task in tasks.values()
            for number, child in enumerate(task["children"])}
    for task in document["tasks"]:
        branches, at = [], task
        while at["id"] in last and len(branches) < at["depth"] + 1:
            if at is task:
                branches.append("`- " if last[at["id"]] else "|- ")
            else:
                branches.append("   " if last[at["id"]] else "|  ")
            at = tasks[at["parent"]]
        found[f"task-{task['id']}"] = "".join(reversed(branches))
    return found


# ---- text ------------------------------------------------------------------------------


def text(document, style):
    """Sections behind the items."""
    about = document["trail"]
    began = f", {about['began']}" if about["began"] else ""
    yield ""
    yield style.paint("bold", "Trail")
    yield from style.wrap("  ", f"{', '.join(about['files'])}: {about['events']} events in "
                                f"{seconds(about['duration'])}{began}; {about['lost']} lost")
    if "version" in about:
        yield from style.wrap("  ", f"{about['version']}; doorbell {about.get('doorbell', '?')}; "
                                    f"interruptible calls {about.get('interruptible', '?')}")
    yield from style.wrap("  ", _clean(_story(document)))
    for heading, lines in _sections(document):
        lines = list(lines)
        if lines:
            yield ""
            yield style.paint("bold", heading)
        for line in lines[:SHOWN]:
            yield from style.wrap("  ", _clean(line), "      ")
        if len(lines) > SHOWN:
            yield f"  and {len(lines) - SHOWN} more"


def _clean(line):
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def _count(number, one, many=None):
    return f"{number} {one if number == 1 else many or one + 's'}"


def _story(document):
    """ "3 tasks: 2 returned, 1 killed; 1 fork; 1 refusal" """
    outcomes = collections.Counter(task.get("outcome", "without an end")
                                   for task in document["tasks"])
    kinds = collections.Counter(one["what"] for one in document["failures"])
    told = [(len(document["forks"]), "fork", "forks"),
            (len(document["refusals"]) + kinds["policy"], "refusal", "refusals"),
            (kinds["quarantine"], "quarantine", "quarantines"),
            (len(document["signals"]), "signal", "signals")]
    ends = ", ".join(f"{count} {name}" for name, count in outcomes.most_common())
    return "; ".join([_count(len(document["tasks"]), "task") + (f": {ends}" if ends else "")]
                     + [_count(*one) for one in told if one[0]])


def _sections(document):
    ladders = [f"task {task['id']} ({task.get('name', '?')}): {task['ladder']}"
               for task in document["tasks"] if "ladder" in task]
    yield "Cancels", [RUNGS][:len(ladders)] + ladders
    yield "Quarantines, orphans, failures", (
        f"{seconds(one['at'])}: " + _failure(one)
        + f", process {one['pid']}" + (f", task {one['task']}" if one.get("task") else "")
        + (f": {one['why']}" if one["why"] else "") for one in document["failures"])
    yield "Forks", (f"{seconds(fork['at'])}: " + (
        f"by C code in process {fork['supervisor']}, thread {fork['name']}" if "by_c" in fork
        else f"process {fork['pid']} ({fork['name']}) for {fork['supervisor']}")
        for fork in document["forks"])
    yield "Refusals", (f"{seconds(one['at'])}: {one['what']}, process {one['pid']}, thread "
                       f"{one['thread_name']} ({one['thread']}): {' < '.join(one['stack'])}"
                       for one in document["refusals"])
    yield "Signals", (f"{seconds(one['at'])}: {one.get('signal', '?')}, process {one['pid']}: "
                      f"{one.get('handled', 0)} handlers, {one.get('cancelled', 0)} cancels begun, "
                      f"{one.get('waiting', 0)} under way" for one in document["signals"])
    yield "Python's events", (f"{one['name']}: {one['count']}"
                              for one in document["python_events"])
    yield "Events that this subhost does not know", (
        f"{name}: {count}" for name, count in document["unknown_events"].items())


def columns(document):
    return trail_html.columns(document)
