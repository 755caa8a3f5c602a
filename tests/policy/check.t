#!/usr/bin/env python3
"""`subhost policy`: what check reports of a file, exactly; show and list; --policy and --set of
`subhost run`."""
import pathlib
import sys
import tomllib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import SOURCE, equal, main, ok, subhost, test


def check(folder, text, expected, status=1, name="p.toml"):
    """`policy check` of a file with this text reports these lines."""
    data = text.encode() if isinstance(text, str) else text
    (folder / name).write_bytes(data)
    result = subhost("policy", "check", name, cwd=folder)
    shown = text.splitlines()[-1] if isinstance(text, str) and text.strip() else repr(text)[:40]
    equal((result.out.splitlines(), result.status, result.err),
          ([f"{name}:{line}" for line in expected], status, ""), f"check: {shown[:60]}")


HEAD = "version = 1\n"


@test
def good_files(folder):
    for text in ("", '[exec]\nallow = false\n', 'exec.allow = false\n', '"exec" = {allow = true}\n',
                 'extends = "strict"\n[cancel]\ngrace = 3\n', "[cancel]\ngrace = 0.5\r\n",
                 'fork.pass = [\n  "cwd", # a\n  \'environ\'\n]\nexec.allow = true',
                 "[limits]\nmemory = 1_000_000\n", "[exec]\n[fork]\n", "cancel.grace = '1m'"):
        check(folder, HEAD + text, [], 0)


@test
def every_problem_in_one_report(folder):
    check(folder, """\
extends = "strct"
version = 2
[fork]
orphn = "kill"
orphan = "eat"
orphan = "kill"
[limits]
memory = true
interpreters = -3
"children" = 4.5
[cancel]
grace = [
 1, 2]
[exec]
allow = "no"
[wild]
x = {y = 1}
""", ["2: version: 2 is not a version that this subhost knows; it knows 1",
      "1: extends: 'strct' is not a preset; did you mean strict? there are default, actors, legacy, server, strict",
      "4: fork.orphn: unknown key; did you mean fork.orphan?",
      "5: fork.orphan: 'eat' is not detach, cancel or kill",
      "6: fork.orphan: given twice",
      '8: limits.memory: expected a size ("64MiB", "2GiB", or bytes), found a boolean',
      "9: limits.interpreters: -3 is out of range: 0 to 1000000",
      "10: limits.children: expected a whole number, found a float",
      '12: cancel.grace: expected a duration ("500ms", "1.5s", "2m", or seconds), found an array '
      "of other things than strings",
      "15: exec.allow: expected true or false, found a string",
      "17: wild.x: unknown key"])


@test
def lines(folder):
    """Each problem is found in its line, however the key is written."""
    for text, line, key in (
        ('"exec"."allow" = 1\n', 2, "exec.allow"),
        ("exec . allow = 1\n", 2, "exec.allow"),
        ("'exec'.allow = 1\n", 2, "exec.allow"),
        ("\n# [fork]\n\nexec = {allow = 1}\n", 5, "exec.allow"),
        ('[audit]\ntrail = """\n[exec]\nallow = 1\n"""\n[exec]\nallow = 1\n', 8, "exec.allow"),
        ("[audit]\ntrail = '''\nexec.allow = 1\n'''\n[ exec ] # x\n  allow=1\n", 7, "exec.allow"),
        ('[audit]\nevents = [ "]",\n"[exec]", "allow = 1" ]\n[exec]\nallow = 1\n', 6, "exec.allow"),
        ('[audit]\ntrail = "a\\"#"\n["exec"]\nallow = 1', 5, "exec.allow"),
        ("\r\n[exec]\r\nallow = 1\r\n", 4, "exec.allow"),
    ):
        check(folder, HEAD + text,
              [f"{line}: {key}: expected true or false, found an integer"])


@test
def versions(folder):
    check(folder, "", ["1: version: missing; the first key must be version = 1"])
    check(folder, "[exec]\nallow = true\n",
          ["1: version: missing; the first key must be version = 1"])
    check(folder, "extends = 'strict'\nversion = 1\n",
          ["2: version: must be the first key of the file"])
    check(folder, "version = '1'\n", ["1: version: expected a whole number, found a string"])
    check(folder, "version = {}\n", ["1: version: expected a whole number, found a table"])
    check(folder, "version = 1\nversion = 2\nextends = 'strict'\nextends = 'server'\n",
          ["2: version: given twice", "4: extends: given twice"])


@test
def names(folder):
    check(folder, HEAD + "extnds = 'strict'\n", ["2: extnds: unknown key; did you mean extends?"])
    check(folder, HEAD + "extends = 3\n", ["2: extends: expected a string, found an integer"])
    check(folder, HEAD + "extends = 'fantastic'\n", ["2: extends: 'fantastic' is not a preset; "
          "there are default, actors, legacy, server, strict"])
    check(folder, HEAD + "[exce]\n[wild]\n[fork]\n", ["2: exce: unknown table; did you mean exec?",
                                                    "3: wild: unknown table"])


@test
def control_characters(folder):
    """A NUL ends no string here, and no report."""
    nul = "\\u0000"
    check(folder, HEAD + f'audit.trail = "a{nul}b"\naudit.events = ["{nul}"]\nexec.allow = 1\n'
          f'"exec{nul}" = {{allow = true}}\n"ex\\nec{nul}" = 1\n',
          ["2: audit.trail: expected a string, found a string with a NUL character",
           "3: audit.events: expected an array of strings, found an array with a NUL character",
           "4: exec.allow: expected true or false, found an integer",
           "5: exec\\x00.allow: unknown key; did you mean exec.allow?",
           "6: ex\\nec\\x00: unknown key"])


@test
def not_toml(folder):
    check(folder, HEAD + "x = = 3\n", ["2: invalid value"])
    check(folder, HEAD + "[exec]\nallow = false\n[exec]\nallow = true\n",
          ["4: cannot declare ('exec',) twice"])
    # Behind what is given twice, whose line is looked up before all is known to be TOML.
    check(folder, HEAD + 'exec.allow = true\nexec.allow = true\n"\x02" = 1\n',
          ["4: illegal character '\\x02'"])
    check(folder, b"version = 1\n# \xff\n", ["2: not UTF-8"])
    result = subhost("policy", "check", "p.toml", cwd=folder)
    equal(result.status, 1, "a file that is no TOML has problems")
    check(folder, HEAD + "x = " + "[" * 3000 + "]" * 3000 + "\n",
          ["1: nested too deeply"])


@test
def together(folder):
    (folder / "p.toml").write_text(HEAD + 'interpreter.obmalloc = "main"\n')
    result = subhost("policy", "check", "p.toml", cwd=folder)
    equal((result.status, result.out),
          (1, "p.toml: interpreter.obmalloc: the main interpreter's allocator cannot be used with "
              "a GIL of its own (interpreter.gil = \"own\")\n"), "two keys that cannot be together")


@test
def could_not_be_done(folder):
    for name, words in (("nothere.toml", "nothere.toml: No such file or directory"),
                        ("strikt", "no policy is named 'strikt'"), (".", "Is a directory")):
        result = subhost("policy", "check", name, cwd=folder)
        ok(result.status == 125 and words in result.err and not result.out, f"check {name}: 125",
           result=result)
    for args in ((), ("shw",), ("show",), ("check",), ("list", "x"), ("show", "a", "b"),
                 ("list", "--set", "a=b"), ("show", "--st", "strict"), ("show", "--set")):
        result = subhost("policy", *args)
        ok(result.status == 125 and "subhost policy --help" in result.err, f"policy {args}: 125",
           result=result)
    ok("did you mean show?" in subhost("policy", "shw").err, "the nearest word is named")
    ok("did you mean strict?" in subhost("policy", "show", "strct").err, "so is the nearest preset")


@test
def show(folder):
    """What show prints is a policy file with the same values."""
    for preset in ("default", "actors", "legacy", "server", "strict"):
        text = subhost("policy", "show", preset).out
        (folder / "shown.toml").write_text(text)
        again = subhost("policy", "show", "shown.toml", cwd=folder)
        equal(tomllib.loads(again.out), tomllib.loads(text), f"{preset}: can be read again")
        source = tomllib.loads((SOURCE / "policies" / f"{preset}.toml").read_text())
        shown = tomllib.loads(text)
        given = {(g, k): v for g, keys in source.items() if isinstance(keys, dict)
                 for k, v in keys.items()}
        equal({at: shown[at[0]][at[1]] for at in given},
              {at: sorted(v) if isinstance(v, list) else v for at, v in given.items()},
              f"{preset}: has what its file says")
        for (group, name), _ in given.items():
            line = next(line for line in text.split(f"[{group}]")[1].splitlines()
                        if line.startswith(f"{name} = "))
            ok(line.endswith(f"# preset {preset}"), f"{preset}: {group}.{name} says where from")
    (folder / "p.toml").write_text(HEAD + 'extends = "strict"\n[exec]\nallow = true\n')
    lines = subhost("policy", "show", "--set", "cancel.grace=7s", "p.toml", cwd=folder).out
    for line in ("allow = true                             # p.toml:4",
                 'grace = "7s"                             # --set',
                 "daemon = false                           # preset strict",
                 "site = true                              # default"):
        ok(line + "\n" in lines, f"show: {line.split('#')[1].strip()}", lines=lines)


@test
def listed(folder):
    result = subhost("policy", "list")
    names = [line.split()[0] for line in result.out.splitlines()]
    equal(sorted(names), sorted(p.stem for p in (SOURCE / "policies").glob("*.toml")),
          "list has every preset")
    ok(all(len(line.split(None, 1)) == 2 for line in result.out.splitlines()),
       "and whom it serves", result=result)
    help = subhost("policy", "--help").out
    shown = tomllib.loads(subhost("policy", "show", "default").out)
    missing = [f"{g}.{k}" for g, keys in shown.items() if isinstance(keys, dict) for k in keys
               if f"\n  {g}.{k} = " not in help]
    equal(missing, [], "--help has every key")


@test
def of_run(folder):
    (folder / "p.toml").write_text(HEAD + '[exec]\nallow = "no"\nalow = 1\n')
    result = subhost("run", "--policy", "p.toml", "-c", "print(1)", cwd=folder)
    equal((result.status, result.out, result.err),
          (125, "", "subhost: run: p.toml:3: exec.allow: expected true or false, found a string "
                    "(and 1 more; `subhost policy check` lists them)\n"), "run: the first problem")
    for args, words in ((("--policy", "strct"), ("strct", "did you mean strict?")),
                        (("--set", "exec.alow=1"), ("--set: exec.alow", "exec.allow?")),
                        (("--set", "exec"), ("'exec' is not KEY=VALUE",)),
                        (("--policy",), ("--policy needs an argument",))):
        result = subhost("run", *args, *([] if len(args) == 1 else ["-c", "pass"]))
        ok(result.status == 125 and all(word in result.err for word in words), f"run {args}",
           result=result)
    # What is said last counts, and the command line goes before the file.
    text = "import os; print(os.system('true'))"
    (folder / "p.toml").write_text(HEAD + "exec.allow = false\n")
    for args, good in ((("--policy", "p.toml"), False),
                       (("--policy", "p.toml", "--set", "exec.allow=true"), True),
                       (("--set", "exec.allow=true", "--policy", "p.toml"), True),
                       (("--set", "exec.allow=true", "--set", "exec.allow=false"), False)):
        result = subhost("run", *args, "-c", text, cwd=folder)
        equal(result.status, 0 if good else 1, f"run {' '.join(args)}")


main()
