"""For people: a line for each item, what is not as it should be with all that is known of it.
Colour on a terminal only, and never with NO_COLOR (no-color.org)."""

import os
import shutil
import textwrap

from subhost_audit import report

COLOURS = {"ok": "32", "finding": "31;1", "error": "31;1", "skipped": "33", "dim": "2",
           "bold": "1"}


class Style:
    """Width, and colour where it is wanted; for a kind's own sections, too."""

    def __init__(self, request):
        terminal = request.output is None and os.isatty(1)
        self.colour = (terminal and not os.environ.get("NO_COLOR")
                       and os.environ.get("TERM", "dumb") != "dumb")
        self.width = max(shutil.get_terminal_size((100, 24)).columns if terminal else 100, 40)
        self.verbose = request.verbose

    def paint(self, kind, text):
        return f"\x1b[{COLOURS[kind]}m{text}\x1b[0m" if self.colour else text

    def wrap(self, first, text, rest=None):
        """Lines of `text` behind `first`; what follows is indented as far, or by `rest`."""
        indent = " " * len(first) if rest is None else rest
        lines = []
        for paragraph in text.splitlines() or [""]:
            lines += textwrap.wrap(paragraph, self.width, initial_indent=indent if lines else first,
                                   subsequent_indent=indent, break_on_hyphens=False,
                                   break_long_words=False) or [indent if lines else first]
        return lines


def _clean(text):
    """What a child printed may hold control characters, which are not for a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode()
                   for c in text)


def _item(one, widest, style, lead="", shown=None):
    status, width = one["status"], max(map(len, report.STATUSES))
    head = f"{status:{width}}  {one['id']:{widest}}  {lead}"
    lines = style.wrap(head, _clean(one["title"]))
    yield lines[0].replace(status, style.paint(status, status), 1)
    yield from lines[1:]
    if status == "ok" and not style.verbose:
        return
    for key, word in report.TEXTS.items():
        if key in one:
            first = f"{'':{width}}    {word:11}"
            for index, line in enumerate(style.wrap(first, _clean(one[key]))):
                yield line if index else line.replace(word, style.paint("dim", word), 1)
    if style.verbose or status != "ok":
        for key, value in one["detail"].items():
            key, value = shown(key, value) if shown else (key, value)
            first = f"{'':{width}}    {key + ' ':11}"
            yield from style.wrap(first, _clean(str(value)), " " * (width + 15))


def render(document, kind, request):
    style = Style(request)
    lines = [style.paint("bold", f"subhost audit {document['kind']}"),
             report.heading(document), document["generated"], ""]
    widest = min(max((len(one["id"]) for one in document["items"]), default=0), 40)
    leads = kind.leads(document) if hasattr(kind, "leads") else {}
    for one in document["items"]:
        lines += _item(one, widest, style, leads.get(one["id"], ""),
                       getattr(kind, "shown", None))
    if hasattr(kind, "text"):
        lines += kind.text(document, style)
    lines += ["", report.totals(document)]
    return ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")
