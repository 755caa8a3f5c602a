#!/usr/bin/env python3
"""Policies of `subhost map`: they hold for the items; times are those of an item."""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import equal, main, ok, script, subhost, test


def mapped(folder, body, *options, items=(1, 2, 3)):
    script(folder, f"""
        import os, time
        def function(value):
            {body}
    """, "functions.py")
    result = subhost("map", *options, "functions:function", cwd=folder, stdin=None,
                     input="".join(f"{item}\n" for item in items))
    return result, [json.loads(line) for line in result.out.splitlines()]


@test
def items(folder):
    for options in (("--policy", "strict"), ("--set", "exec.allow=false"),
                    ("--set", "exec.allow=false", "--isolation", "process")):
        result, lines = mapped(folder, "return os.system('true')", *options)
        ok(result.status == 1 and len(lines) == 3
           and all("exec.allow = false" in line["error"] for line in lines),
           f"{' '.join(options)}: refused in each item", result=result)
    result, lines = mapped(folder, "return value * 2", "--policy", "strict")
    equal([line.get("value") for line in lines], [2, 4, 6], "strict: work is done", result=result)


@test
def times(folder):
    result, lines = mapped(folder, "time.sleep(5 if value == 2 else 0.4); return value", "-j", "1",
                           "--set", "limits.timeout=800ms", "--set", "cancel.grace=200ms")
    equal([line.get("kind", "ok") for line in lines], ["ok", "timed-out", "ok"],
          "limits.timeout is for each item", result=result)


@test
def bad_values(folder):
    for options, words in ((("--policy", "strct"), "did you mean strict?"),
                           (("--set", "exec.alow=1"), "did you mean exec.allow?")):
        result, _ = mapped(folder, "return 1", *options)
        ok(result.status == 125 and words in result.err, f"{' '.join(options)}: refused",
           result=result)


main()
