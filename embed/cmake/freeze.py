"""Compiles a Python file into a C header: its bytecode and its source.

usage: freeze.py INPUT.py OUTPUT.h

For embed/python/NAME.py the header holds

    PRELUDE_NAME_MAGIC      what PyImport_GetMagicNumber() returns where the code fits
    prelude_NAME_code[], prelude_NAME_code_size       the marshalled code object
    prelude_NAME_source[], prelude_NAME_source_size   the text, with a final NUL, for a
                                                      libpython with another magic
"""
import importlib.util
import marshal
import os
import re
import sys


def c_array(data):
    lines = []
    for start in range(0, len(data), 16):
        lines.append("    " + ", ".join(str(byte) for byte in data[start : start + 16]) + ",")
    return "\n".join(lines)


def main(source_path, header_path):
    name = os.path.splitext(os.path.basename(source_path))[0]
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        sys.exit(f"freeze: {source_path}: the name must be an identifier")
    with open(source_path, "rb") as file:
        source = file.read()
    if b"\0" in source:
        sys.exit(f"freeze: {source_path}: a NUL in the source")
    try:
        code = compile(source, f"<subhost.{name}>", "exec", dont_inherit=True)
    except SyntaxError as error:
        # With the real file's name, so that the build's output leads there.
        sys.exit(f"{source_path}:{error.lineno}:{error.offset}: error: {error.msg}")
    magic = int.from_bytes(importlib.util.MAGIC_NUMBER, "little")
    marshalled = marshal.dumps(code)
    guard = f"PRELUDE_{name.upper()}_H"
    # Initialisers in decimal and not string literals: those have a length limit.
    # Signed char: a byte of the source above 127 must not overflow.
    text = [byte - 256 if byte > 127 else byte for byte in source + b"\0"]
    version = ".".join(map(str, sys.version_info[:3]))
    header = f"""\
/* Made by freeze.py from {name}.py with CPython {version}. Do not edit. */
#ifndef {guard}
#define {guard}

#include <stddef.h>

#define PRELUDE_{name.upper()}_MAGIC {magic}L

static const unsigned char prelude_{name}_code[] = {{
{c_array(marshalled)}
}};
static const size_t prelude_{name}_code_size = sizeof(prelude_{name}_code);

static const char prelude_{name}_source[] = {{
{c_array(text)}
}};
/* Without the final NUL. */
static const size_t prelude_{name}_source_size = sizeof(prelude_{name}_source) - 1;

#endif
"""
    temporary = header_path + ".tmp"
    with open(temporary, "w", encoding="ascii") as file:
        file.write(header)
    os.replace(temporary, header_path)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
