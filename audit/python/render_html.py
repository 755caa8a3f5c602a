"""One file that asks for no other: style and script are inside, and the page's own policy
forbids every request. Complete without its script, which sorts and filters."""

import html

from subhost_audit import report
from subhost_audit.html_script import SCRIPT
from subhost_audit.html_style import STYLE

POLICY = ("default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
          "img-src data:")

# A text of more characters has a column that is wide enough for it.
LONG = 40
# Texts that have no column of their own in the general table.
ELSEWHERE = ("constraint", "source", "meaning", "reason")


class Html(str):
    """Text that is HTML already; all else is escaped."""


class Page:
    """What sections of a kind's own are made with. `shown`: the kind's, of details."""

    def __init__(self, shown=None):
        self.shown = shown or (lambda key, value: (key, value))

    def text(self, value):
        if isinstance(value, Html):
            return value
        text = str(value).encode(errors="backslashreplace").decode()
        return Html(html.escape(text))

    def element(self, name, *inside, **attributes):
        """element("td", "a < b", class_="x") -> <td class="x">a &lt; b</td>"""
        given = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
                        for key, value in attributes.items() if value is not None)
        return Html(f"<{name}{given}>{''.join(map(self.text, inside))}</{name}>")

    def table(self, columns, rows, status=None):
        """A table that can be sorted and filtered. `columns`: [(heading, function of a row)],
        whose results are text, Html, numbers (aligned so), or (shown, key to sort by).
        `status(row)`: what the status filter goes by."""
        head = self.element("tr", *(self.element("th", name) for name, _ in columns))
        body = Html("\n".join(
            self.element("tr", *(self._cell(function(row)) for _, function in columns),
                         data_status=status(row) if status else None) for row in rows))
        return self.element(
            "div", self.element("table", self.element("thead", head),
                                self.element("tbody", body), class_="rows"), class_="wide")

    def _cell(self, value):
        shown, key = value if isinstance(value, tuple) else (value, None)
        measure = shown if key is None else key  # "69.2 ms" is a number, too
        number = isinstance(measure, (int, float)) and not isinstance(shown, (bool, Html))
        wide = not isinstance(shown, Html) and len(str(shown)) > LONG
        if isinstance(key, float):
            key = f"{key:.9f}"  # without an exponent: sorted as text with numbers in it
        return self.element("td", "" if shown is None else shown, data_key=key,
                            class_="number" if number else "long" if wide else None)

    def status(self, one):
        """A cell: sorted by what needs attention, and not by the alphabet."""
        status = one["status"]
        order = {"finding": 0, "error": 1, "skipped": 2, "ok": 3}
        return self.element("span", status, class_=f"status {status}"), order[status]

    def details(self, one, short, keys=tuple(report.TEXTS)):
        """`short`, which opens to the item's texts and details."""
        pairs = [(report.TEXTS[key], one[key]) for key in keys if key in one]
        pairs += [self.shown(key, value) for key, value in one["detail"].items()]
        inside = [self.element("dt", key) + self.element("dd", self._value(value))
                  for key, value in pairs]
        if not inside:
            return self.text(short)
        return self.element("details", self.element("summary", short),
                            self.element("dl", *map(Html, inside)))

    def _value(self, value):
        """Several lines are what a program printed."""
        return self.element("pre", value) if "\n" in str(value) else self.text(value)


def _items(document, kind, page):
    if hasattr(kind, "columns"):
        columns = kind.columns(document)
    else:
        columns = [("id", lambda one: page.element("code", one["id"])),
                   ("what", lambda one: page.details(one, one["title"], ELSEWHERE)),
                   ("expected", lambda one: one.get("expected", "")),
                   ("seen", lambda one: one.get("seen", one.get("reason", "")))]
    return page.table([("status", page.status), *columns], document["items"],
                      lambda one: one["status"])


def render(document, kind, request):
    page = Page(getattr(kind, "shown", None))
    title = f"subhost audit {document['kind']}"
    numbers = [page.element("li", page.element("b", document["summary"][status]),
                            page.element("span", status, class_=status))
               for status in report.STATUSES if document["summary"][status]]
    sections = [kind.picture(document, page)] if hasattr(kind, "picture") else []
    sections.append(("Items", _items(document, kind, page)))
    if hasattr(kind, "html"):
        sections += kind.html(document, page)
    parts = [
        page.element("h1", title),
        page.element("p", report.heading(document), class_="machine"),
        page.element("p", document["generated"], class_="machine"),
        page.element("ul", *numbers, class_="summary"),
    ]
    parts += [page.element("section", page.element("h2", name), Html(inside))
              for name, inside in sections]
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    parts.append(page.element("p", versions, class_="machine"))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{page.text(title)}: {page.text(report.totals(document))}</title>
<style>{STYLE}{getattr(kind, "STYLE", "")}</style>
</head>
<body>
{"\n".join(parts)}
<script>{SCRIPT}{getattr(kind, "SCRIPT", "")}</script>
</body>
</html>
""".encode()
