#!/usr/bin/env python3
# timeout: 120
"""The HTML report in a real browser: complete in one file, sorted and filtered by hand, light
and dark, and no request leaves the page.

SUBHOST_TEST_SCREENSHOTS   a directory in which pictures of the page are left"""
import html.parser
import os
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import browser
from tap import equal, lacking, main, ok, subhost, test

QUICK = ("thread-state-ensure", "debug-offsets", "pending-call-capacity", "fork-refused",
         "audit-hooks")
ROWS = "[...document.querySelectorAll('table.rows tbody tr')]"
SHOWN = f"{ROWS}.filter(r => !r.hidden).map(r => r.cells[1].textContent)"


def report(tmp):
    """A report with a finding: no program is found in PATH."""
    path = tmp / "report.html"
    result = subhost("audit", "host", "--format", "html", "-o", path, *QUICK,
                     env={"PATH": str(tmp)})
    assert result.status == 1, result
    return path


def picture(page, name):
    folder = os.environ.get("SUBHOST_TEST_SCREENSHOTS")
    if folder:
        page.screenshot(pathlib.Path(folder) / name)


class Parser(html.parser.HTMLParser):
    """Whether each element is closed, and what names another resource."""

    VOID = {"meta", "link", "input", "br", "img"}

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.resources, self.rows = [], [], [], 0

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        self.rows += tag == "tr"
        self.resources += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@test
def one_file(tmp):
    text = report(tmp).read_text()
    parser = Parser()
    parser.feed(text)
    equal((parser.wrong, parser.open), ([], []), "every element is closed")
    equal(parser.rows, 1 + len(QUICK), "the rows are there without a script")
    equal([name for name in parser.resources if not name.startswith(("#", "data:"))], [],
          "it names no other file")
    ok("default-src 'none'" in text, "its policy forbids requests")
    ok("url(" not in text and "@import" not in text and "fetch(" not in text,
       "nor do style and script ask for one")
    hostile = subhost("audit", "host", "--format", "html", "debug-offsets")
    ok(not re.search(r"<(?!/?(html|head|meta|link|title|style|body|h1|h2|p|ul|li|b|span|section|"
                     r"div|table|thead|tbody|tr|th|td|code|details|summary|dl|dt|dd|pre|script|"
                     r"!DOCTYPE)\b)", hostile.out.split("<script>")[0], re.IGNORECASE),
       "texts of probes are escaped")


@test
def in_a_browser(tmp):
    if not browser.find():
        lacking("the page in a browser", "chromium", "chromium-headless-shell")
        return
    path = report(tmp)
    with browser.Page(path) as page:
        equal(page.run("document.title"), "subhost audit host: 5 examined: 4 ok, 1 finding",
              "the title")
        equal(page.run(SHOWN), list(QUICK), "every row is shown")
        picture(page, "host-light.png")

        page.click("th button", 1)
        equal(page.run(SHOWN), sorted(QUICK), "a click sorts by id")
        page.click("th button", 1)
        equal(page.run(SHOWN), sorted(QUICK, reverse=True), "another the other way round")
        equal(page.run("document.querySelectorAll('th')[1].getAttribute('aria-sort')"),
              "descending", "and says so")
        page.click("th button", 0)
        equal(page.run(SHOWN)[0], "fork-refused", "by status: findings come first")

        page.type("input[type=search]", "call pending")
        equal(page.run(SHOWN), ["pending-call-capacity"], "words filter, in any order")
        equal(page.run("document.querySelector('output').textContent"), "1 of 5 rows",
              "and it says how many are left")
        picture(page, "host-filtered.png")
        page.run("document.querySelector('input').value = ''")
        page.run("document.querySelector('input').dispatchEvent(new Event('input'))")
        equal(len(page.run(SHOWN)), 5, "without words all are back")
        page.run("""(() => {
            const select = document.querySelector('select');
            select.value = 'finding';
            select.dispatchEvent(new Event('change'));
        })()""")
        equal(page.run(SHOWN), ["fork-refused"], "the status filters, too")

        page.click("tr:not([hidden]) summary")
        page.settle()
        ok(page.run("document.querySelector('tr:not([hidden]) details').open"),
           "a row opens to its details")
        ok("C API, PyInterpreterConfig" in page.run(
            "document.querySelector('tr:not([hidden]) dl').innerText"), "which are all there")
        picture(page, "host-details.png")
        # Any request would be forbidden; this is the proof that the policy is in force.
        refused = page.run("fetch('data:text/plain,x').then(() => 'sent', () => 'refused')")
        equal(refused, "refused", "a request would be refused")
        equal([url for url in page.requests
               if not url.startswith(("data:", "about:")) and url != page.url], [],
              "none was made")
        equal([error for error in page.errors if "Content Security Policy" not in error
               and "Content-Security-Policy" not in error], [], "no errors in the console")


def brightness(colour):
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


@test
def light_and_dark(tmp):
    if not browser.find():
        lacking("light and dark", "chromium", "chromium-headless-shell")
        return
    path = report(tmp)
    for dark in (False, True):
        with browser.Page(path, dark=dark) as page:
            ground, text = (page.run(f"getComputedStyle(document.body).{name}")
                            for name in ("backgroundColor", "color"))
            ok((brightness(ground) < 60) == dark and (brightness(text) > 190) == dark,
               f"{'dark' if dark else 'light'}: {text} on {ground}")
            if dark:
                picture(page, "host-dark.png")
    with browser.Page(path, width=420) as page:
        ok(page.run("document.documentElement.scrollWidth <= innerWidth"),
           "on a narrow screen the page does not scroll sideways, its table does")
        picture(page, "host-narrow.png")


main()
