"""TAP version 14 (testanything.org): a test point for each item, with a YAML diagnostic, which
is JSON inside: any YAML reader takes it. The document is valid as version 13, too, and says so
to Perl's harness, which takes no later one."""

import json
import os

from subhost_audit import report


def _name(text):
    """Of a test point: '#' would begin a directive, a line end the next line."""
    return " ".join(text.replace("\\", "\\\\").replace("#", "\\#").split())


def _scalar(value):
    return json.dumps(value, ensure_ascii=True)


def render(document, kind, request):
    items = document["items"]
    version = 13 if os.environ.get("HARNESS_ACTIVE") else 14
    lines = [f"TAP version {version}", f"# {report.heading(document)}, {document['generated']}"]
    if items:
        lines.append(f"1..{len(items)}")
    else:
        lines.append("1..0 # SKIP nothing to examine")
    for number, one in enumerate(items, 1):
        bad = one["status"] in ("finding", "error")
        point = f"{'not ok' if bad else 'ok'} {number} - {_name(one['id'] + ': ' + one['title'])}"
        if one["status"] == "skipped":
            point += f" # SKIP {_name(one['reason'])}"
        lines.append(point)
        lines.append("  ---")
        lines.append(f"  status: {one['status']}")
        lines += [f"  {key}: {_scalar(one[key])}" for key in report.TEXTS if key in one]
        if one["detail"]:
            lines.append(f"  detail: {_scalar(one['detail'])}")
        lines.append("  ...")
    return ("\n".join(lines) + "\n").encode()
