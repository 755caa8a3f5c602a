"""A trail for Chrome's about:tracing and ui.perfetto.dev: JSON, the "Trace Event Format". A row
for each thread, tasks as slices on it, cancels and refusals as instants, arrows from a task to
those that it started."""

import json

from subhost_audit import report
from subhost_audit.trail_model import seconds


def render(document, kind, request):
    if document["kind"] != "trail":
        raise report.Failed(f"the chrome format is for trails; audit {document['kind']} has "
                            "text, json, tap and html")
    events = [*_names(document), *_tasks(document), *_instants(document)]
    trace = {"traceEvents": events, "displayTimeUnit": "ms",
             "otherData": {key: value for key, value in document["trail"].items()
                           if isinstance(value, (str, int, float, bool))}}
    return json.dumps(trace, indent=1).encode() + b"\n"


def _us(value):
    return round(value * 1e6, 3)


def _names(document):
    root = document["trail"]["root"]
    for number, process in enumerate(document["processes"]):
        pid = process["pid"]
        name = "subhost" if pid == root else process["name"] or "forked child"
        common = {"ph": "M", "pid": pid, "tid": pid}
        yield common | {"name": "process_name", "args": {"name": name}}
        yield common | {"name": "process_sort_index", "args": {"sort_index": number}}
        yield common | {"name": "thread_name", "args": {"name": "main loop"}}
        for thread in process["threads"]:
            if thread["thread"] != pid:
                yield common | {"tid": thread["thread"], "name": "thread_name",
                                "args": {"name": thread["name"] or "thread"}}


def _end(task, document):
    return task.get("ended", document["trail"]["duration"])


def _tasks(document):
    tasks = {task["id"]: task for task in document["tasks"]}
    for task in document["tasks"]:
        if "started" not in task:
            continue
        place = {"pid": task["pid"], "tid": task["thread"], "cat": "task"}
        args = {key: task[key] for key in ("id", "parent", "kind", "isolation", "outcome", "code",
                                           "status", "reason", "detail", "ladder") if key in task}
        name, at = task.get("name") or f"task {task['id']}", task["started"]
        length = _us(_end(task, document) - at)
        if task["thread"] == task["pid"]:
            # Known by its supervisor only, whose main thread has many at a time.
            span = place | {"name": name, "cat": "task", "id": task["id"]}
            yield span | {"ph": "b", "ts": _us(at), "args": args}
            yield span | {"ph": "e", "ts": _us(at) + length}
        else:
            yield place | {"ph": "X", "name": name, "ts": _us(at), "dur": length, "args": args}
        parent = tasks.get(task.get("parent"))
        if parent and "started" in parent:
            flow = {"name": "starts", "cat": "flow", "id": task["id"]}
            # An arrow begins inside the slice that it comes from.
            begin = min(max(at, parent["started"]), _end(parent, document))
            yield flow | {"ph": "s", "pid": parent["pid"], "tid": parent["thread"],
                          "ts": _us(begin)}
            yield flow | {"ph": "f", "bp": "e", "pid": task["pid"], "tid": task["thread"],
                          "ts": _us(at)}


def _instants(document):
    for task in document["tasks"]:
        cancel = task.get("cancel")
        if not cancel or "thread" not in task:
            continue
        place = {"ph": "i", "s": "t", "pid": task["pid"], "tid": task["thread"], "cat": "cancel"}
        reason = cancel.get("words") or cancel["reason"] or "?"
        yield place | {"name": f"cancel: {reason}", "ts": _us(cancel["at"])}
        for rung in cancel["rungs"]:
            args = {key: value for key, value in rung.items() if key != "rung"}
            args["latency"] = seconds(rung["after"])
            yield place | {"name": rung["rung"], "ts": _us(cancel["at"] + rung["after"]),
                           "args": args}
    for one in document["refusals"]:
        yield {"ph": "i", "s": "t", "cat": "refusal", "name": f"{one['what']} refused",
               "pid": one["pid"], "tid": one["thread"], "ts": _us(one["at"]),
               "args": {"stack": one["stack"]}}
    for kind, rows, name in (("fork", document["forks"], "name"),
                             ("signal", document["signals"], "signal"),
                             ("failure", document["failures"], "what")):
        for one in rows:
            pid = one.get("supervisor") or one["pid"]
            yield {"ph": "i", "s": "p", "cat": kind, "name": f"{kind}: {one.get(name, '')}",
                   "pid": pid, "tid": pid, "ts": _us(one["at"]),
                   "args": {key: value for key, value in one.items() if key != "at"}}
    for group in document["python_events"]:
        for one in group["first"]:
            yield {"ph": "i", "s": "p", "cat": "python", "name": group["name"],
                   "pid": one["pid"], "tid": one["pid"], "ts": _us(one["at"]),
                   "args": {key: value for key, value in one.items() if key != "at"}}
