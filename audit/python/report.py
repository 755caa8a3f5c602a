"""The model of a report: one JSON document, whatever was audited, whatever it is rendered as.

    {"report": 1, "kind": "host", "generated": "2026-01-31T12:00:00Z",
     "versions": {"subhost": ..., "cpython": ..., ...}, "machine": {...},
     "summary": {"items": 9, "ok": 7, "finding": 1, "error": 0, "skipped": 1},
     "items": [item, ...], and parts of the kind's own}

docs/report.schema.json is its schema. A kind is a module of this package with the kind's
name:

    collect(request) -> {"items": [item(...), ...], more parts}    may raise Failed
    columns(document) -> [(heading, function of an item), ...]     optional, for tables
    text(document, style) -> lines                                 optional: own sections
    leads(document) -> {id: text in front of an item's title}      optional, in text
    html(document, page) -> [(heading, html), ...]                 optional: own sections
    picture(document, page) -> (heading, html)                     optional, before the items
    shown(key, value) -> (word, text)                              optional: of a detail
    STYLE, SCRIPT = "css", "javascript"                            optional, for html()

A renderer is a module render_FORMAT with render(document, kind, request) -> bytes.
"""

import dataclasses
import datetime
import difflib
import os
import platform
import re
import select
import stat

VERSION = 1
# One list, in the order in which summaries name them.
STATUSES = ("ok", "finding", "error", "skipped")
# The texts of an item, in the order in which reports show them, with the word for people.
TEXTS = {"constraint": "constraint", "source": "source", "expected": "expected", "seen": "seen",
         "meaning": "means", "reason": "reason"}


class Failed(Exception):
    """The audit could not be done; the text is for the user: what, and the way out."""


@dataclasses.dataclass
class Request:
    """What the user asked for. `records`: what C found, as bytes; see records()."""

    kind: str
    format: str
    output: str | None
    names: list
    jobs: int
    verbose: int
    records: bytes
    version: str
    details: str


def item(id, status, title, *, constraint="", source="", expected="", seen="", meaning="",
         reason="", detail=None):
    """One thing that was examined. `status`: "ok" as it should be; "finding" not so; "error"
    it could not be examined; "skipped" on purpose. All but ok say why in `reason`, a
    finding at least by `expected` and `seen`. `detail`: whatever JSON can hold."""
    if status not in STATUSES:
        raise ValueError(f"{id}: status {status!r}")
    if status in ("error", "skipped") and not reason:
        raise ValueError(f"{id}: {status} without a reason")
    made = {"id": id, "status": status, "title": title}
    texts = {"constraint": constraint, "source": source, "expected": expected, "seen": seen,
             "meaning": meaning, "reason": reason}
    made |= {key: text for key, text in texts.items() if text}
    made["detail"] = dict(detail or {})
    return made


def records(request):
    """[{key: text}] of what audit/records.c wrote. A key that comes several times is a list."""
    found, present = [], {}
    fields = iter(request.records.split(b"\0"))
    for key in fields:
        if not key:
            if present:
                found.append(present)
            present = {}
            continue
        name, value = key.decode(), next(fields).decode(errors="backslashreplace")
        if name in present:
            before = present[name]
            present[name] = [*before, value] if isinstance(before, list) else [before, value]
        else:
            present[name] = value
    return found


def nearest(name, known):
    """ "; did you mean X?" or "". """
    close = difflib.get_close_matches(name, known, 1, 0.6)
    return f"; did you mean {close[0]}?" if close else ""


def versions(request):
    """{"subhost": "0.1.0", "cpython": "3.14.8", "libffi": ..., "gcc": ..., "glibc": ...}"""
    found = {"subhost": request.version, "cpython": platform.python_version()}
    inside = re.search(r"\((.*)\)", request.details)
    for part in inside[1].split(", ") if inside else ():
        name, _, version = part.rpartition(" ")
        found.setdefault(name.lower(), version)
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        if version:
            found[name] = version
    except ValueError:
        pass  # another libc
    return found


def machine():
    system = os.uname()
    return {"system": system.sysname, "release": system.release, "machine": system.machine,
            "processors": len(os.sched_getaffinity(0)),
            "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")}


def complete(request, collected):
    """The document of what a kind's collect() returned."""
    items = collected["items"]
    counts = {status: 0 for status in STATUSES}
    for one in items:
        counts[one["status"]] += 1
    now = datetime.datetime.now(datetime.timezone.utc)
    head = {"report": VERSION, "kind": request.kind,
            "generated": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "versions": versions(request), "machine": machine(),
            "summary": {"items": len(items), **counts}}
    return head | {key: part for key, part in collected.items() if key != "items"} | {
        "items": items}


def findings(document):
    return document["summary"]["finding"] + document["summary"]["error"]


def heading(document):
    """ "CPython 3.14.8, subhost 0.1.0, Linux 6.1 x86_64, 2 processors" """
    machine, versions = document["machine"], document["versions"]
    plural = "" if machine["processors"] == 1 else "s"
    return (f"CPython {versions['cpython']}, subhost {versions['subhost']}, "
            f"{machine['system']} {machine['release']} {machine['machine']}, "
            f"{machine['processors']} processor{plural}")


def totals(document):
    """ "31 examined: 29 ok, 1 finding, 1 skipped" """
    summary = document["summary"]
    plural = {"finding": "findings", "error": "errors"}
    parts = [f"{summary[status]} {plural.get(status, status) if summary[status] != 1 else status}"
             for status in STATUSES if summary[status] or status == "ok"]
    return f"{summary['items']} examined: {', '.join(parts)}"


# ---- writing ---------------------------------------------------------------------------


def write(request, data):
    """To standard output, or whole into the file, which is there only when it is complete."""
    if request.output is None or request.output == "-":
        _write_all(1, data, "standard output")
        return
    try:
        special = not stat.S_ISREG(os.stat(request.output).st_mode)
    except OSError:
        special = False
    if special:  # a device or a FIFO cannot be replaced by a file
        fd = _open(request.output, request.output, os.O_WRONLY)
        try:
            _write_all(fd, data, request.output)
        finally:
            os.close(fd)
        return
    path = os.path.realpath(request.output)  # a link stays one
    temporary = f"{path}.{os.getpid()}.tmp"
    fd = _open(temporary, request.output, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        try:
            _write_all(fd, data, request.output)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError as error:
        raise Failed(f"{request.output}: {error.strerror}") from error
    finally:
        try:
            os.unlink(temporary)
        except OSError:
            pass  # renamed


def _open(path, name, flags):
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise Failed(f"{name}: {error.strerror}") from error


def _write_all(fd, data, name):
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest):]
        except BlockingIOError:  # somebody made it so; a report waits for its reader
            select.select([], [fd], [])
        except OSError as error:
            raise Failed(f"{name}: {error.strerror}") from error
