"""Compiles policies/*.toml into a C header: what the presets say, so that no file and no
tomllib is needed when one is used.

usage: presets.py OUTPUT.h INPUT.toml...
"""
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))
sys.dont_write_bytecode = True
import policy  # noqa: E402: embed/python/policy.py


def quote(text):
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}
    return '"' + "".join(escapes.get(c, c) for c in text) + '"'


def serves(text):
    """The first sentence at the top: whom the preset serves."""
    words = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        words.append(line.lstrip("# "))
    return " ".join(words).split(": ")[0].removeprefix("For ").rstrip(".")


def main(header_path, *paths):
    rows, presets = [], []
    # `default` first, for those who read the list.
    for path in sorted(map(pathlib.Path, paths), key=lambda p: (p.stem != "default", p.stem)):
        data = path.read_bytes()
        entries, problems = policy.read(data)
        if problems:
            line, key, problem = problems[0]
            sys.exit(f"{path}:{line}: error: {key}{': ' if key else ''}{problem}")
        rows.append(f"static const struct policy_entry preset_{path.stem}[] = {{\n")
        rows += [f"    {{{quote(key)}, {quote(kind)}, {quote(text)}, {line}}},\n"
                 for key, kind, text, line in entries]
        rows.append("};\n\n")
        presets.append(f"    {{{quote(path.stem)}, {quote(serves(data.decode()))}, "
                       f"preset_{path.stem}, {len(entries)}}},\n")
    text = ("/* Made by presets.py from policies. Do not edit. */\n\n" + "".join(rows)
            + "static const struct policy_preset presets[] = {\n" + "".join(presets) + "};\n")
    with open(header_path + ".tmp", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(header_path + ".tmp", header_path)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
