"""What the hosted programs of these tests share. Imported in every interpreter and child."""
import json
import os
import re
import subhost


def kind(task):
    """A task's outcome as CONTRACT.md writes it: "returned", "exited(3)", "killed(9)"."""
    outcome = task.outcome
    if outcome is None:
        return None
    name = getattr(outcome, "kind", None)
    if name is None:
        return str(outcome)
    detail = str(getattr(outcome, "detail", "") or "")
    code = getattr(outcome, "code", None)
    if name in ("exited", "killed"):
        number = code if code is not None else (re.search(r"\d+", detail) or ["?"])[0]
        return f"{name}({int(number) if str(number).isdigit() else number})"
    return str(name)


def leaves(error):
    """The exceptions in a group, however deep, and those which a RemoteError stands for."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def run_alone(function, *args, **kw):
    """Start it as the only task of a nursery; ("value", it) or ("error", type, text), and the
    outcome. start() itself may raise; what its nursery raises besides is the same error."""
    task = found = None
    try:
        with subhost.open_nursery() as nursery:
            task = nursery.start(function, *args, **kw)
            try:
                found = ("value", task.result(timeout=30))
            except Exception as error:
                found = ("error", type(error).__name__, str(error))
    except BaseExceptionGroup as group:
        if not found:
            error = leaves(group)[0]
            found = ("error", type(error).__name__, str(error))
    return found, kind(task) if task else "not started"


def session_others():
    """[pid state] of the other processes of this session but the root, after they had up to a
    second to go: the root's children are reaped by its main loop."""
    import time
    session, end = os.getsid(0), time.monotonic() + 1
    while True:
        found = []
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) in (session, os.getpid()):
                continue
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, _, _, its = file.read().rpartition(b")")[2].split()[:4]
            except OSError:
                continue
            if int(its) == session:
                found.append(f"{name} {state.decode()}")
        if not found or time.monotonic() >= end:
            return found
        time.sleep(0.01)


def descriptors():
    """{number: what it is} without the one that lists them."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink("/proc/self/fd/" + name)
        except OSError:
            continue
        if not re.fullmatch(r"/proc/\d+/fd", target):
            found[int(name)] = target
    return found


def report(**values):
    """One JSON object on a line, in one write: no other output gets in between."""
    os.write(1, (json.dumps(values) + "\n").encode())
