#!/usr/bin/env python3
# timeout: 90
"""The sibling trap's fallback: where the runtime's list of interpreters cannot be checked
(forced: SUBHOST_SIBLING_DETACH=off), forks without siblings work, and forks with live siblings
are refused with an error that says so, in the parent, before anything is forked."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import equal, main, ok, script, subhost, test

OFF = {"SUBHOST_SIBLING_DETACH": "off"}


@test
def without_siblings(folder):
    result = subhost("run", "--isolation", "process", "-n", "2", "-c", "print('there')", env=OFF)
    equal((result.status, result.out), (0, "there\n" * 2), "no sibling lives: it is forked",
          result=result)


@test
def with_siblings(folder):
    program = script(folder, """
        import subhost
        def there(): return "there"
        if __name__ == "__main__":
            for isolation in ("process", "interpreter"):
                try:
                    with subhost.open_nursery() as nursery:
                        task = nursery.start(there, name="it", isolation=isolation)
                    print(task.result())
                except* subhost.RemoteError as group:
                    print(*group.exceptions)
        """)
    result = subhost("run", "--stats", program, env=OFF)
    refused, other = (result.out.splitlines() + ["", ""])[:2]
    ok("failed: task 'it'" in refused and "the process could not be forked" in refused
       and "while other interpreters are alive" in refused and "asked for" in refused,
       "a sibling lives: refused, with the reason", result=result)
    equal(other, "there", "an interpreter is the way out", result=result)
    ok("forks 0" in result.err, "nothing was forked", result=result)
    result = subhost("run", "--stats", program)
    equal((result.status, result.out), (0, "there\n" * 2), "and with the check it works",
          result=result)
    ok("forks 1" in result.err, "by one fork", result=result)


main()
