#!/usr/bin/env python3
"""A task's policy can only be narrowed: through nesting, through processes, and by whatever
way it is given. Nothing comes back below a strict task."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from nurseries import TASKS
from tap import equal, main, ok, script, subhost, test

PROGRAM = TASKS + """
    def system():
        return tried(os.system, "true")

    def below(policies, isolations, function=system):
        "Calls the function below tasks with these policies, each within the one before."
        if not policies:
            return function()
        return tried(one, below, policies[1:], isolations[1:], isolation=isolations[0],
                      policy=policies[0])

    if __name__ == "__main__":
        for line in sys.argv[1:]:
            policies, isolations = eval(line)
            print(below(policies, isolations), flush=True)
"""
WAYS = ["interpreter", "process"]


def below(folder, cases, *options):
    """What system() says below tasks with the policies of each case."""
    path = script(folder, PROGRAM)
    result = subhost("run", *options, path, *map(repr, cases), timeout=120)
    lines = result.out.splitlines()
    ok(result.status == 0 and len(lines) == len(cases), "the program ends", result=result)
    return lines


@test
def nothing_comes_back(folder):
    """Below a task that may not run other programs, in whatever it lives, no policy brings that
    back."""
    closed = {"exec.allow": False}
    cases = [([closed, again], [outer, inner])
             for outer in WAYS for inner in WAYS
             for again in ({"exec.allow": True}, "legacy", None, "default", {"cancel.grace": "1s"})]
    for (policies, ways), line in zip(cases, below(folder, cases)):
        name = f"{'/'.join(ways)}: {policies[1]}"
        if policies[1] == {"exec.allow": True}:
            equal(line, "PermissionError: the task could not be started: exec.allow = true would "
                        "widen what the policy 'default' allows: exec.allow = false (from the "
                        "task's policy); a task can only narrow it", name)
        elif policies[1] == "legacy":
            ok(line.startswith("PermissionError: the task could not be started: interpreter.gil = "
                               "shared would widen"), name, line=line)
        else:
            ok("os.system: the policy" in line and "exec.allow = false" in line, name, line=line)


@test
def strict(folder):
    """What the preset takes stays taken."""
    widen = [{"exec.allow": True}, {"threads.daemon": True}, {"signals.handlers": True},
             {"fork.mode": "thread"}, {"fork.orphan": "detach"}, {"fork.pass": ["cwd"]},
             {"cancel.grace": "2s"}, {"limits.memory": 0}, {"limits.memory": "2GiB"},
             {"limits.timeout": "0"}, {"limits.open_files": 300}, {"interpreter.gil": "shared"},
             {"interpreter.reuse": 0}, "legacy", "server", "actors"]
    cases = [(["strict", policy], ["interpreter", "interpreter"]) for policy in widen]
    for (policies, _), line in zip(cases, below(folder, cases)):
        ok(line.startswith("PermissionError: the task could not be started: ")
           and "would widen what the policy 'strict' allows" in line
           and "(from preset strict)" in line, f"strict: not {policies[1]}", line=line)
    cases = [(["strict", None], ["interpreter", "process"]), ([None], ["process"])]
    one, other = below(folder, cases[:1]) + below(folder, cases[1:], "--policy", "strict")
    ok("fork.mode = deny" in one and "fork.mode = deny" in other, "strict: no processes",
       one=one, other=other)
    again = below(folder, [(["strict", "strict", {"cancel.grace": "500ms"}, None],
                            ["interpreter"] * 4)])[0]
    ok("PermissionError: os.system: the policy 'strict' forbids it (exec.allow = false, from preset "
       "strict)" in again, "strict: within strict, and narrower still", again=again)


@test
def of_the_run(folder):
    """The policy of `subhost run` is the outermost."""
    line = below(folder, [([{"exec.allow": True}], ["interpreter"])], "--set", "exec.allow=false")[0]
    ok("would widen" in line and "(from --set)" in line, "--set: cannot be widened", line=line)
    (folder / "p.toml").write_text("version = 1\n\nexec.allow = false\n")
    line = below(folder, [([{"exec.allow": True}], ["process"])], "--policy", folder / "p.toml")[0]
    ok("would widen" in line and f"(from {folder / 'p.toml'}:3)" in line,
       "--policy: nor a file, and its line is named", line=line)
    line = below(folder, [([str(folder / "p.toml"), None], ["process", "interpreter"])])[0]
    ok("os.system: the policy" in line and "p.toml:3)" in line, "a file for a task", line=line)
    line = below(folder, [([None], ["interpreter"])], "--isolation", "process", "--set",
                 "exec.allow=false")[0]
    ok("os.system: the policy 'default' forbids it" in line, "a program in a process", line=line)


@test
def a_task_alone(folder):
    """A task's policy holds for it and what is below it, and for nobody beside it."""
    closed = {"exec.allow": False}
    lines = below(folder, [([closed], ["interpreter"]), ([None], ["interpreter"]),
                           ([closed], ["process"]), ([None], ["process"]), ([], [])])
    equal([line == "0" for line in lines], [False, True, False, True, True],
          "its siblings, and those that come later, are free")


ATTACKS = PROGRAM.split("    def below(")[0] + """
    import _interpreters, _signal, importlib.util, resource, subprocess, threading, types

    def system():
        return os.system("true")
    def in_a_thread():
        found = []
        thread = threading.Thread(target=lambda: found.append(tried(os.system, "true")))
        thread.start()
        thread.join()
        return found[0]
    def bare_fork_exec():
        "What subprocess does, without the audit event and past the prelude's guard."
        fork_exec = subprocess._fork_exec
        for cell in getattr(fork_exec, "__closure__", None) or ():
            if callable(cell.cell_contents):
                fork_exec = cell.cell_contents
        subprocess._fork_exec = fork_exec
        subprocess.sys = types.SimpleNamespace(**{**vars(sys), "audit": lambda *args: None})
        return subprocess.run(["true"]).returncode
    def own_policy():
        with open(f"{os.getpid()}.toml", "w") as file:
            file.write("version = 1\\nexec.allow = true\\n")
        return one(os.system, "true", policy=os.path.abspath(file.name))
    def of_the_parent():
        return _interpreters.exec(int(sys.argv[1]), "import sys; sys.taken = True")
    def without_the_parent():
        return _interpreters.destroy(int(sys.argv[1]))
    def of_its_own():
        return _interpreters.create("legacy")
    def no_check():
        with importlib.util._incompatible_extension_module_restrictions(disable_check=True):
            return "off"
    def prelude():
        return _signal.signal.__globals__["_host"].take_signal(10, 2)
    def more_files():
        return resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 30, 1 << 30))
    def more_memory():
        return resource.prlimit(0, resource.RLIMIT_DATA, (-1, -1))
    def more_cpu():
        class Changing(list):
            def __iter__(self):
                return iter((-1, -1))
        return resource.setrlimit(resource.RLIMIT_CPU, Changing([1, 1]))
    def less_files():
        return resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))

    def all_of_them():
        return [(attack.__name__, tried(attack)) for attack in (
            system, in_a_thread, bare_fork_exec, own_policy, of_the_parent, without_the_parent,
            of_its_own, no_check, prelude, more_files, more_memory, more_cpu, less_files)]

    if __name__ == "__main__":
        sys.argv[1:] = [str(_interpreters.get_current()[0])]
        for policy, isolation in (("strict", "interpreter"),
                                  ({"exec.allow": False, "interpreter.create": False,
                                    "signals.handlers": False, "limits.open_files": 50,
                                    "limits.memory": "1GiB", "limits.cpu": "60s"}, "process")):
            for name, found in one(all_of_them, policy=policy, isolation=isolation):
                print(isolation, name, repr(found), flush=True)
            print("taken" if hasattr(sys, "taken") else "not taken")
"""


@test
def ways_around(folder):
    """What a task can try with Python alone, under strict, and in a process as root."""
    result = subhost("run", script(folder, ATTACKS), cwd=folder, timeout=60)
    lines = result.out.splitlines()
    ok(result.status == 0 and len(lines) == 28, "every way was tried", result=result)
    words = {"system": "exec.allow = false", "in_a_thread": "exec.allow = false",
             "bare_fork_exec": "PermissionError: [Errno 13]", "own_policy": "exec.allow = true",
             "of_the_parent": "interpreter ", "without_the_parent": "interpreter",
             "of_its_own": "InterpreterError", "no_check": "RuntimeError",
             "prelude": "signals.handlers = false", "more_files": "limits.open_files",
             "more_memory": "limits.memory", "more_cpu": "limits.cpu", "less_files": "None"}
    for line in lines:
        isolation, name, *found = line.split(" ", 2)
        if isolation in ("taken", "not"):
            equal(line, "not taken", "nothing has run in the parent's interpreter")
        elif (isolation, name) == ("interpreter", "more_memory"):
            ok(found[0] in ("(-1, -1)", repr((2 ** 64 - 1,) * 2)),
               "interpreter: it has no limit of memory that could go", found=found)
        else:
            ok(words[name] in found[0], f"{isolation}: {name}", line=line)


@test
def bad_arguments(folder):
    cases = [([policy], ["interpreter"]) for policy in (
        "strct", {"exec.alow": 1}, {"exec.allow": "maybe"}, {"limits.children": 3}, 7,
        str(folder / "none.toml"), {"interpreter.gil": "own", "interpreter.obmalloc": "main"})]
    (folder / "bad.toml").write_text("version = 1\nexec.allow = 3\n")
    cases.append(([str(folder / "bad.toml")], ["process"]))
    for line, words in zip(below(folder, cases), (
        "ValueError: policy: no policy is named 'strct': there are default, actors, legacy, server,"
        " strict, and files",
        "ValueError: policy: exec.alow: unknown key; did you mean exec.allow?",
        "ValueError: policy: exec.allow: 'maybe' is neither true nor false",
        "ValueError: policy: limits.children is the host's and cannot be set for a task",
        "TypeError: policy must be a preset's name, the path of a file, or a dict of keys, not "
        "'int'",
        f"OSError: policy: {folder / 'none.toml'}: No such file or directory",
        "PermissionError: the task could not be started: interpreter.obmalloc = main would widen",
        f"ValueError: policy: {folder / 'bad.toml'}:2: exec.allow: expected true or false, found "
        "an integer",
    )):
        ok(line.startswith(words), words[:70], line=line)


main()
