"""`subhost audit host`: what the probes saw (audit/host.c), made into items."""

import re

from subhost_audit import report


def collect(request):
    records = report.records(request)
    for record in records:
        if "unknown" in record:
            name, known = record["unknown"], sorted(_list(record["known"]))
            raise report.Failed(f"no probe '{name}'{report.nearest(name, known)}\n"
                                f"There are: {', '.join(known)}")
    return {"items": [_item(record) for record in records]}


def _list(value):
    return value if isinstance(value, list) else [value] if value else []


def _join(clauses):
    """One text; "name:" goes with the clause behind it."""
    return "; ".join(clauses).replace(":; ", ": ")


def _item(record):
    detail = {key.removeprefix("detail."): value for key, value in record.items()
              if key.startswith("detail.")}
    detail["milliseconds"] = int(record["milliseconds"])
    output = record.get("output", "").strip()
    ended_well = record["ending"] == "exit status 0"
    seen = list(_list(record.get("seen")))
    if not ended_well:
        seen.append(_ending(record["ending"], output))
    status, reason = "ok", ""
    if "skip" in record:
        status, reason = "skipped", _list(record["skip"])[0]
    elif "failed" in record:
        status, reason = "error", _list(record["failed"])[0]
    elif _join(seen) != record["expected"]:
        status = "finding"
    if output and (status != "ok" or not ended_well):
        detail["output"] = output[-4000:]
    texts = {key: record[key] for key in ("constraint", "source", "expected", "meaning")
             if key in record}
    return report.item(record["id"], status, record["title"], seen=_join(seen),
                       reason=reason, detail=detail, **texts)


def _ending(ending, output):
    """ "SIGABRT (Fatal Python error: ...)": CPython's last words belong to what was seen."""
    fatal = re.search(r"^Fatal Python error: (.*)$", output, re.MULTILINE)
    return f"{ending} ({fatal[0]})" if fatal else ending
