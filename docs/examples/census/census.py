"""A census of the Python standard library's source, shared among the workers.

    subhost run -n N census.py WORKERS [DIRECTORY]

Each of the N workers parses every N-th file below DIRECTORY (default: the standard
library of sys.executable) with `ast`, counts, and prints its part as one table. WORKERS
is N once more: a worker knows its own number, not how many there are.
"""
import ast
import os
import sys
import sysconfig
import time
import tokenize

import subhost


def sources(directory):
    """The .py files below the directory, in an order that all workers agree on."""
    found = []
    for folder, folders, files in os.walk(directory):
        # Not the standard library's: what pip has installed beside it.
        folders[:] = sorted(set(folders) - {"site-packages", "dist-packages", "__pycache__"})
        found += [os.path.join(folder, name) for name in sorted(files) if name.endswith(".py")]
    return found


class Census:
    """Counts over the files it is given."""

    def __init__(self):
        self.files = self.lines = self.functions = self.classes = 0
        self.refused = []  # files that are not valid source, of which the tests have some
        self.longest = []  # (lines, name, file) of the longest functions

    def take(self, path, name):
        try:
            with tokenize.open(path) as file:
                text = file.read()
            tree = ast.parse(text, path)
        except (SyntaxError, ValueError, RecursionError):
            self.refused.append(name)
            return
        self.files += 1
        self.lines += text.count("\n")
        self.visit(tree.body, "", name)

    def visit(self, body, scope, file):
        """Definitions are statements, so expressions need not be looked at."""
        for node in body:
            if isinstance(node, ast.ClassDef):
                self.classes += 1
                self.visit(node.body, f"{scope}{node.name}.", file)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self.functions += 1
                length = node.end_lineno - node.lineno + 1
                self.longest.append((length, scope + node.name, file))
                self.visit(node.body, f"{scope}{node.name}.", file)
            else:
                for part in ("body", "orelse", "finalbody", "handlers", "cases"):
                    self.visit(getattr(node, part, ()), scope, file)

    def keep_longest(self, count):
        self.longest = sorted(self.longest, reverse=True)[:count]


def main(workers, directory):
    started = time.perf_counter()
    worker = subhost.current().worker
    census = Census()
    for path in sources(directory)[worker::workers]:
        census.take(path, os.path.relpath(path, directory))
        census.keep_longest(3)
    seconds = time.perf_counter() - started
    report = (
        f"worker {worker} of {workers}: {census.files:5} files {census.lines:8} lines "
        f"{census.functions:6} functions {census.classes:6} classes "
        f"{len(census.refused):3} not parsed {seconds:7.2f} s\n"
    )
    for length, function, file in census.longest:
        report += f"    {length:5} lines  {function} ({file})\n"
    # One write for each worker: lines of one do not get between those of another.
    sys.stdout.flush()
    os.write(sys.stdout.fileno(), report.encode("utf-8", "backslashreplace"))


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3 or not sys.argv[1].isdigit() or int(sys.argv[1]) < 1:
        sys.exit(__doc__)
    main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else sysconfig.get_path("stdlib"))
