"""What the tests of nurseries share: programs that start tasks, in each isolation."""

import textwrap

from programs import script, subhost
from tap import equal

ISOLATIONS = ("interpreter", "process")

START = """\
import functools, os, subhost, sys, threading, time
ISOLATION = {isolation!r}

def start(nursery, function, *args, **options):
    return nursery.start(function, *args, isolation=ISOLATION, **options)

def leaves(error):
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]

def double(x):
    return 2 * x

def fail(x):
    raise ValueError(x)

def sleep(seconds=60):
    time.sleep(seconds)

"""

# The beginning of programs whose tasks may fail: what came of it, or the first error.
TASKS = """
    import os, subhost, sys, time
    def tried(function, *args, **more):
        try:
            return function(*args, **more)
        except BaseException as error:
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            return f"{type(error).__name__}: {error}"
    def one(function, *args, **more):
        with subhost.open_nursery() as nursery:
            return nursery.start(function, *args, **more).result()
"""


def write(folder, functions, main, isolation="interpreter", name="program.py"):
    """A script with FUNCTIONS at its top level and MAIN behind the guard; its path."""
    text = START.format(isolation=isolation) + textwrap.dedent(functions)
    text += "\nif __name__ == '__main__':\n" + textwrap.indent(textwrap.dedent(main), "    ")
    return script(folder, text, name)


def prints(folder, functions, main, expected, name, *options, isolation="interpreter", status=0,
           **kw):
    """The script's output and status are as expected."""
    path = write(folder, functions, main, isolation)
    result = subhost("run", *options, path, **kw)
    equal((result.status, result.out), (status, expected), f"{isolation}: {name}", result=result)
    return result


def each(test):
    """The test, once for each isolation: test(folder, isolation)."""
    def function(folder):
        for isolation in ISOLATIONS:
            test(folder, isolation)

    function.__name__ = test.__name__
    return function
