"""The document as it is; docs/report.schema.json is its schema."""

import json


def render(document, kind, request):
    try:
        return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # a file's name that is not UTF-8: only escapes can say it
        return json.dumps(document, indent=2).encode() + b"\n"
