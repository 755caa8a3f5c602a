"""What a trail tells: tasks with their parents, outcomes and cancels, processes, forks,
refusals. Made of its events; all times in seconds since the first one."""

import collections
import dataclasses

# What the rungs of a cancel are called; the words for people.
RUNGS = {"cancel-rung-1": "rung 1", "cancel-held": "held by a loop", "cancel-rung-2": "rung 2",
         "cancelled-raised": "raised", "cancel-rung-3": "rung 3", "abandoned": "rung 4",
         "killed": "SIGKILL"}
# Events that are looked at in one of the ways below; others are counted by their names.
KNOWN = {*RUNGS, "host-open", "host-close", "trail-continued", "trail-not-continued",
         "events-lost", "interp-created", "interp-failed", "interp-ended", "task-started",
         "task-ended", "cancel-requested", "forked", "not-forked", "fork-refused", "fork-by-c",
         "orphan", "signal", "python-event", "policy-refused", "recycle-wanted",
         "begun-anew", "import-warned"}
# Events of Python's are many: so many of a name are kept one by one.
KEPT = 100


@dataclasses.dataclass
class Task:
    """One task. In a forked child it is noted twice, by the child and by its supervisor."""

    id: int
    name: str = ""
    parent: int | None = None
    kind: str | None = None
    isolation: str | None = None
    pid: int | None = None
    thread: int | None = None
    interp: int | None = None
    started: float | None = None
    ended: float | None = None
    timeout: float | None = None
    outcome: str | None = None
    code: int | None = None
    status: int | None = None
    reason: str | None = None
    detail: str | None = None
    cancel: dict | None = None
    depth: int = 0
    children: list = dataclasses.field(default_factory=list)

    def document(self):
        """As JSON: what is not known is left out."""
        made = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        made["children"] = [child.id for child in self.children]
        made["ended_how"] = outcome(self)
        if self.cancel:
            made["ladder"] = ladder(self)
        return {key: value for key, value in made.items() if value is not None and value != ""}


class Model:
    """The whole."""

    def __init__(self, events):
        self.events = sorted(events, key=lambda event: event["t"])
        self.origin = self.events[0]["t"]
        self.head = next((e for e in self.events if e["event"] == "host-open"), {})
        self.close = next((e for e in self.events if e["event"] == "host-close"), {})
        self.tasks, self.processes, self.interps = {}, {}, {}
        self.forks, self.refusals, self.signals, self.failures = [], [], [], []
        self.python, self.unknown = {}, collections.Counter()
        self.lost = 0
        self.root = self.head.get("pid", self.events[0]["pid"])
        for event in self.events:
            self._process(event["pid"])
            name = event["event"]
            handler = getattr(self, "_" + name.replace("-", "_"), None)
            if name not in KNOWN:
                self.unknown[name] += 1
            elif handler:
                handler(event, round(event["t"] - self.origin, 9))
            if name in RUNGS:
                self._rung(event)
        self.duration = round(self.events[-1]["t"] - self.origin, 9)
        self.lost = max(self.lost, self.close.get("lost", 0))
        self.order = self._tree()

    # ---- processes and interpreters

    def _process(self, pid):
        return self.processes.setdefault(pid, {"pid": pid, "name": "", "threads": {}})

    def _thread(self, event, name):
        self._process(event["pid"])["threads"].setdefault(event["thread"], name)

    def _interp(self, event):
        key = event["pid"], event.get("interp")
        return self.interps.setdefault(key, {"pid": event["pid"], "interp": event.get("interp")})

    def _interp_created(self, event, at):
        interp = self._interp(event)
        interp |= {"name": event.get("name", ""), "created": at,
                   "isolation": event.get("isolation"), "child": event.get("child")}
        if not event.get("child"):
            self._thread(event, event.get("name", ""))

    def _interp_ended(self, event, at):
        self._interp(event)["ended"] = at
        if event.get("child"):
            self._process(event["child"])["end"] = event.get("why", "")

    def _interp_failed(self, event, at):
        self.failures.append({"at": at, "pid": event["pid"], "what": "interpreter",
                              "name": event.get("name", ""), "why": event.get("why", "")})

    def _forked(self, event, at):
        child = self._process(event["child"])
        child["name"] = event.get("name", "")
        self.forks.append({"at": at, "pid": event["child"], "name": event.get("name", ""),
                           "supervisor": event.get("supervisor")})

    def _not_forked(self, event, at):
        self.failures.append({"at": at, "pid": event["pid"], "what": "fork",
                              "name": event.get("name", ""), "why": event.get("why", "")})

    def _orphan(self, event, at):
        self.failures.append({"at": at, "pid": event["pid"], "what": "orphan", "name": "",
                              "why": event.get("why", "")})

    # ---- tasks

    def _task(self, event):
        return self.tasks.setdefault(event["task"], Task(event["task"])) if event.get("task") \
            else None

    def _is_supervisors(self, event):
        """Whether it tells of a task in another process."""
        return bool(self._interp(event).get("child"))

    def _task_started(self, event, at):
        task = self._task(event)
        if not task:
            return
        task.name = event.get("name", task.name)
        task.parent = event.get("parent", task.parent)
        task.kind, task.isolation = event.get("kind"), event.get("isolation")
        task.timeout = event.get("timeout")
        task.started = at if task.started is None else min(at, task.started)
        if task.pid is None or not self._is_supervisors(event):
            task.pid, task.thread, task.interp = event["pid"], event["thread"], event.get("interp")
            if not self._is_supervisors(event):
                self._thread(event, task.name)

    def _task_ended(self, event, at):
        task = self._task(event)
        if not task:
            return
        task.name = task.name or event.get("name", "")
        task.parent = event.get("parent", task.parent)
        task.ended = at if task.ended is None else max(at, task.ended)
        # The supervisor has the last word: it knows of a child that was killed.
        if task.outcome is None or self._is_supervisors(event):
            task.outcome, task.code = event.get("outcome"), event.get("code")
            task.status, task.detail = event.get("status"), event.get("detail")
            task.reason = event.get("reason")
        if task.pid is None:
            task.pid, task.thread, task.interp = event["pid"], event["thread"], event.get("interp")

    def _cancel_requested(self, event, at):
        task = self._task(event)
        if task and not task.cancel:
            task.cancel = {"at": at, "reason": event.get("reason", ""),
                           "grace": event.get("grace"), "rungs": []}
            if event.get("words"):
                task.cancel["words"] = event["words"]

    def _rung(self, event):
        task = self._task(event)
        if not task:
            return
        at = round(event["t"] - self.origin, 9)
        if not task.cancel:  # its request was lost, or there was none (an interpreter's end)
            task.cancel = {"at": at - event.get("after", 0), "reason": "", "grace": None,
                           "rungs": []}
        rung = {"rung": RUNGS[event["event"]], "after": round(at - task.cancel["at"], 9)}
        for key in ("threads", "scope", "round", "insists", "child"):
            if key in event:
                rung[key] = event[key]
        task.cancel["rungs"].append(rung)

    def _abandoned(self, event, at):
        self.failures.append({"at": at, "pid": event["pid"], "what": "quarantine",
                              "name": self._interp(event).get("name", ""),
                              "task": event.get("task"), "gil": event.get("gil"),
                              "why": event.get("why", "")})

    # ---- the rest

    def _events_lost(self, event, at):
        self.lost += event.get("count", 0)

    def _fork_refused(self, event, at):
        self.refusals.append({"at": at, "pid": event["pid"], "thread": event["thread"],
                              "interp": event.get("interp"), "task": event.get("task"),
                              "what": event.get("what", ""),
                              "thread_name": event.get("thread_name", ""),
                              "stack": event.get("stack", [])})

    def _policy_refused(self, event, at):
        self.failures.append({"at": at, "pid": event["pid"], "what": "policy",
                              "name": event.get("what", ""), "task": event.get("task"),
                              "why": event.get("why", "")})

    def _fork_by_c(self, event, at):
        self.forks.append({"at": at, "name": event.get("thread_name", ""), "by_c": True,
                           "supervisor": event["pid"]})

    def _signal(self, event, at):
        self.signals.append({"at": at, "pid": event["pid"]} | {
            key: event[key] for key in ("signal", "handled", "cancelled", "waiting")
            if key in event})

    def _python_event(self, event, at):
        name = event.get("name", "")
        kept = self.python.setdefault(name, {"count": 0, "first": []})
        kept["count"] += 1
        if len(kept["first"]) < KEPT:
            kept["first"].append({"at": at, "pid": event["pid"]} | {
                key: event[key] for key in ("interp", "task", "args") if key in event} | (
                    {"where": event["at"]} if "at" in event else {}))

    def _tree(self):
        """All tasks, parents before their children, in the order in which they began."""
        roots = []
        for task in sorted(self.tasks.values(), key=lambda t: (begin(t), t.id)):
            parent = self.tasks.get(task.parent)
            (parent.children if parent and parent is not task else roots).append(task)
        order, stack, seen = [], list(reversed(roots)), set()
        while stack or len(seen) < len(self.tasks):
            if not stack:  # parents in a ring, which no host writes
                stack = [next(t for t in self.tasks.values() if t.id not in seen)]
            task = stack.pop()
            if task.id in seen:
                continue
            seen.add(task.id)
            order.append(task)
            for child in reversed(task.children):
                child.depth = task.depth + 1
                stack.append(child)
        return order


def begin(task):
    """When it began; one that did not run: when it ended."""
    return task.started if task.started is not None else task.ended or 0.0


def seconds(value):
    """ "12.3 us", "4.56 ms", "7.89 s" """
    if value is None:
        return "?"
    for unit, factor in (("s", 1), ("ms", 1e3), ("us", 1e6)):
        if abs(value) * factor >= 1 or unit == "us":
            return f"{value * factor:.3g} {unit}" if abs(value) * factor < 1000 else \
                f"{value * factor:.0f} {unit}"
    return ""


def outcome(task):
    """ "exited with 3", "killed by signal 9", "raised: ValueError: x", "timed-out" """
    if task.ended is None:
        words = "no end"
    elif task.outcome == "exited":
        words = f"exited with {task.code}"
    elif task.outcome == "killed":
        words = f"killed by signal {task.code}"
    elif task.outcome in ("raised", "failed") and task.detail:
        words = f"{task.outcome}: {task.detail}"
    else:
        words = task.outcome or "ended"
    if not task.cancel or task.outcome == "timed-out":
        return words
    why = task.cancel.get("words") or task.cancel["reason"] or "?"
    return f"cancelled: {why}" if words == "cancelled" else f"{words}; a cancel came: {why}"


def shown(key, value):
    """A detail of an item for people."""
    return ("at", seconds(value)) if key == "at" else (key.replace("_", " "), value)


def ladder(task):
    """ "deadline, grace 2 s: rung 1 after 82 us, rung 2 (1 thread) after ..., ended after 3 ms" """
    cancel = task.cancel
    words = [cancel.get("words") or cancel["reason"] or "?"]
    if cancel["grace"] is not None:
        words.append(f"grace {seconds(cancel['grace'])}")
    steps = []
    for rung in cancel["rungs"]:
        name = rung["rung"]
        if "threads" in rung:
            name += f" ({rung['threads']} thread{'' if rung['threads'] == 1 else 's'})"
        if "round" in rung:
            name += f" (round {rung['round']}{', insisting' if rung.get('insists') else ''})"
        steps.append(f"{name} after {seconds(rung['after'])}")
    if task.ended is not None:
        steps.append(f"ended after {seconds(task.ended - cancel['at'])}")
    return f"{', '.join(words)}: {', '.join(steps) or 'no step is known'}"
