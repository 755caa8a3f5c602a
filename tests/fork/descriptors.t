#!/usr/bin/env python3
"""A child's descriptor table holds stdio, two control sockets and its own loop, and nothing of
its parents', at any depth, however many descriptors they have open."""
import collections
import json
import os
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import SUBHOST, equal, main, ok, script, test
from sessions import finished, run_hosted

PROGRAM = pathlib.Path(__file__).resolve().parent / "programs" / "table.py"
# What a host needs itself: its epoll, eventfds and timer; a pidfd of what it supervises. And
# two sockets: to its supervisor, and to the root, which forks.
OWN = {"anon_inode:[eventpoll]", "anon_inode:[eventfd]", "anon_inode:[timerfd]",
       "anon_inode:[pidfd]", "pidfd"}


def tables(tmp, count, depth, *options, **kw):
    folder = tmp / f"open-{count}-{depth}-{len(options)}"
    folder.mkdir()
    result, left = run_hosted(*options, PROGRAM, str(count), str(depth), folder, **kw)
    found = {}
    for line in result.out.splitlines():
        if line.startswith("{"):
            value = json.loads(line)
            found[value["depth"]] = {int(fd): what for fd, what in value["table"].items()}
    return found, result, left


def kinds(table):
    """How many of each kind, stdio apart: a socket or a pipe has a number of its own."""
    return dict(collections.Counter(re.sub(r"\d+", "N", what) if "[" in what and "anon" not in what
                                    else re.sub(r"^anon_inode:\[pidfd\]$", "pidfd", what)
                                    for fd, what in table.items() if fd > 2))


@test
def exactly_what_it_should(tmp):
    few, result, left = tables(tmp, 0, 4)
    many, result_many, left_many = tables(tmp, 500, 4)
    equal((result.status, result_many.status, sorted(few), sorted(many), left, left_many),
          (0, 0, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [], []), "both chains of four ran",
          result=result, many=result_many)
    if not (few.get(4) and many.get(4)):
        return
    for depth in (1, 4):
        table = many[depth]
        sockets = [what for fd, what in table.items() if fd > 2 and what.startswith("socket:")]
        rest = {fd: what for fd, what in table.items()
                if fd > 2 and what not in OWN and not what.startswith("socket:")}
        equal((len(sockets), rest), (2, {}), f"depth {depth}, 500 open in each parent: two sockets, "
              "and nothing but the host's own", table=table)
        ok({0, 1, 2} <= set(table), f"depth {depth}: stdio is there", table=table)
        equal([table[fd] for fd in range(3)], [many[0][fd] for fd in range(3)],
              f"depth {depth}: stdio is the parent's")
        parents = {what for above in range(depth) for fd, what in many[above].items()
                   if fd > 2 and "anon" not in what}
        equal(parents & {what for fd, what in table.items() if fd > 2}, set(),
              f"depth {depth}: nothing of the parents'")
        equal(kinds(table), kinds(few[depth]), f"depth {depth}: the same with 0 and 500 open")
    equal(kinds(many[4]), kinds(many[1]), "the same at depth 1 and 4")
    ok(min(fd for fd in many[4] if fd > 2) >= 512, "the low numbers are the program's",
       table=many[4])


@test
def whatever_the_parent_was_given(tmp):
    """Descriptors which subhost itself inherited are no task's business either."""
    extra = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
    for descriptor in extra:
        os.set_inheritable(descriptor, True)
    folder = tmp / "given"
    folder.mkdir()
    result, left = finished([SUBHOST, "run", PROGRAM, "0", "1", folder], pass_fds=extra)
    for descriptor in extra:
        os.close(descriptor)
    lines = [json.loads(line)["table"] for line in result.out.splitlines() if line[:1] == "{"]
    ok(len(lines) == 2 and "/dev/null" in {what for fd, what in lines[0].items() if int(fd) > 2}
       and "/dev/null" not in {what for fd, what in lines[1].items() if int(fd) > 2},
       "what subhost inherited stays with it", result=result)


@test
def the_program_in_a_child(tmp):
    """`run --isolation process`: what was handed to the program by number is python's matter:
    stdio at least; its own children again get nothing of it."""
    found, result, left = tables(tmp, 100, 2, "--isolation", "process")
    ok(result.status == 0 and not left and sorted(found) == [0, 1, 2], "it runs", result=result)
    if found.get(2):
        equal(kinds(found[2]), kinds(found[1]), "depth 1 and 2 alike")


@test
def closed_stdio(tmp):
    """Stdio that is closed stays closed; the control socket does not take its number."""
    file = script(tmp, """
        import os, subhost
        def show():
            found = {}
            for fd in range(3):
                try: found[fd] = os.readlink(f"/proc/self/fd/{fd}").split(":")[0]
                except OSError: found[fd] = "closed"
            return found
        if __name__ == "__main__":
            with subhost.open_nursery() as nursery:
                inside = nursery.start(show, isolation="process").result()
            text = f"{inside == show()} {inside}"  # before a file takes a number
            with open("result", "w") as file: file.write(text)
    """)
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        (tmp / "result").unlink(missing_ok=True)
        result, left = finished(["bash", "-c", f"'{SUBHOST}' run '{file}' {closed}"], cwd=tmp)
        text = (tmp / "result").read_text() if (tmp / "result").exists() else "no result"
        ok(result.status == 0 and text.startswith("True") and not left,
           f"{closed}: the child has the parent's stdio", text=text, result=result)


@test
def numbers_of_choice(tmp):
    """dup2() onto a number that the program has not opened."""
    file = script(tmp, """
        import os, time
        reader, writer = os.pipe()
        print(reader, writer)
        for number in range(writer + 1, 40):
            os.dup2(writer, number, inheritable=number % 2 == 0)
        refused = []
        for number in range(40, 1024):
            try:
                os.dup2(writer, number)
                os.close(number)
            except OSError as error: refused.append(error.strerror)
        print(len(refused) > 3, set(refused))
        time.sleep(0.1)
        print("end", os.write(20, b"x"), os.read(reader, 5))
    """)
    for isolation in ("interpreter", "process"):
        result, left = run_hosted("--isolation", isolation, file)
        equal((result.status, result.out, left),
              (0, "3 4\nTrue {'Device or resource busy'}\nend 1 b'x'\n", []),
              f"{isolation}: a low one is free, one of the host's is refused", result=result)
    # A child between fork and exec has a table of its own.
    result, left = run_hosted("-c", "import subprocess\nprint(subprocess.run(['cat'], input=b'x', "
                              "capture_output=True, close_fds=False).stdout)")
    equal((result.status, result.out), (0, "b'x'\n"), "a subprocess with pipes", result=result)
    result, left = finished(["bash", "-c", f"ulimit -n 40; exec '{SUBHOST}' run -c 'import os\n"
                             "r, w = os.pipe(); os.dup2(w, 5); print(r, w)'"])
    equal((result.status, result.out), (0, "3 4\n"), "with few descriptors in all, too",
          result=result)


@test
def none_is_leaked_by_many(tmp):
    file = script(tmp, """
        import os, subhost, time
        def nothing(): pass
        def fail(): raise ValueError
        def die(): os._exit(3)
        def count(): return len(os.listdir("/proc/self/fd"))
        if __name__ == "__main__":
            seen = []
            for _ in range(12):
                for function in (nothing, fail, die):
                    try:
                        with subhost.open_nursery() as nursery:
                            for _ in range(3): nursery.start(function, isolation="process")
                    except ExceptionGroup: pass
                if not seen: time.sleep(1)  # the main loop closes what is over, soon
                seen.append(count())
            time.sleep(1)
            print(count() <= seen[0], count(), seen)
    """)
    result, left = run_hosted(file)
    ok(result.status == 0 and result.out.startswith("True") and not left,
       "108 children that return, fail and exit leak none in the parent", result=result)


main()
