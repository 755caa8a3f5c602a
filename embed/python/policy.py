"""Policy files: TOML to entries with the lines they stand in.

Runs when a file is read, in whichever interpreter is at hand, and in the build, for the
presets. tomllib decides what is valid; it does not tell lines, so these are looked up in the
text, which it has accepted by then."""

import re
import tomllib

_KINDS = ((bool, "boolean"), (int, "integer"), (float, "float"), (str, "string"),
          (list, "array"), (dict, "table"))
_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
_KEY = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_STATEMENT = re.compile(rf"[ \t]*(?:(?P<header>\[\[?)[ \t]*(?P<table>{_KEY})"
                        rf"|(?P<key>{_KEY})[ \t]*=)")
_SKIP = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}' "|'''.*?'{3,5}"
                   r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'|#[^\n]*|[\[{]|[\]}]|\n", re.DOTALL)


def _parts(key):
    """The parts of a key as it is written, quotes taken off."""
    return tuple(_part(part) for part in re.findall(_PART, key))


def _part(text):
    try:
        return next(iter(tomllib.loads(text + "=0")))
    except ValueError:  # behind what is given twice there may be what is no TOML
        return text


def _end_of_value(text, at):
    depth = 0
    for match in _SKIP.finditer(text, at):
        found = match[0]
        if found in "[{":
            depth += 1
        elif found in "]}":
            depth -= 1
        elif found == "\n" and depth <= 0:
            return match.end()
    return len(text)


def _statements(text):
    """(parts of the key, its line, start, end, whether it is a table's header)."""
    at, table = 0, ()
    while at < len(text):
        match = _STATEMENT.match(text, at)
        line = text.count("\n", 0, at) + 1
        if match is None:
            end = text.find("\n", at) + 1 or len(text)
        elif match["header"]:
            table = _parts(match["table"])
            end = text.find("\n", match.end()) + 1 or len(text)
            yield table, line, at, end, True
        else:
            end = _end_of_value(text, match.end())
            yield table + _parts(match["key"]), line, at, end, False
        at = max(end, at + 1)


def _place(error, text):
    """(what is wrong, its line) of a TOMLDecodeError, which has them in its text."""
    message, _, place = str(error).rpartition(" (at ")
    if not message:
        return str(error), 1
    match = re.match(r"line (\d+)", place)
    return message, int(match[1]) if match else text.rstrip().count("\n") + 1


def _load(text, problems, again):
    """The document, or None. What is given twice goes to `again`: the first one counts, and
    reading goes on, so that other problems are found as well."""
    while True:
        try:
            return tomllib.loads(text)
        except RecursionError:
            problems.append((1, "", "nested too deeply"))
            return None
        except tomllib.TOMLDecodeError as error:
            message, line = _place(error, text)
            if message != "Cannot overwrite a value":
                problems.append((line, "", message[:1].lower() + message[1:]))
                return None
            found = None
            for parts, first, start, end, header in _statements(text):
                if first <= line < first + max(text.count("\n", start, end), 1):
                    found = ".".join(parts), first, start, end
            if found is None:
                problems.append((line, "", "a value is given twice"))
                return None
            key, first, start, end = found
            again.append((key, "second one", "", first))
            blank = "\n" * text.count("\n", start, end)
            text = text[:start] + (blank or " ") + text[end:]


def _flatten(table, lines, prefix=()):
    for name, value in table.items():
        key = (*prefix, name)
        if isinstance(value, dict) and value and len(key) < 2:
            yield from _flatten(value, lines, key)
            continue
        line = next((lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in lines), 1)
        kind = next((kind for type, kind in _KINDS if isinstance(value, type)), "date")
        if kind == "array" and not all(isinstance(word, str) for word in value):
            kind = "array of other things than strings"
        if kind == "array":
            value = "\n".join(value)
        elif kind == "boolean":
            value = "true" if value else "false"
        elif kind == "table":
            value = "keys" if value else ""
        if "\0" in str(value):
            kind, value = kind + " with a NUL character", ""
        yield ".".join(key), kind, str(value)[:8192], line


def _shown(key):
    """A key that C can take, and that stays within its line of the report."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in key)


def read(data):
    """([(key, kind, text, line)], [(line, key, problem)]) of the bytes of a file. The kind
    "second one" is that of a key that was there before; a "table" without text has no keys."""
    problems = []
    try:
        text = data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        return [], [(data.count(b"\n", 0, error.start) + 1, "", "not UTF-8")]
    again, lines = [], {}
    document = _load(text, problems, again)
    for parts, line, _, _, _ in _statements(text) if document else ():
        lines.setdefault(parts, line)
    entries = [*_flatten(document or {}, lines), *again]
    return ([(_shown(key), *more) for key, *more in sorted(entries, key=lambda entry: entry[3])],
            problems)
