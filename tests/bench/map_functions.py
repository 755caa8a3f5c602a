"""What tests/bench/map has called, by subhost and by its peers alike. What is large is imported
where it is needed: the memory of an interpreter is measured, too."""
import time


def same(x):
    return x


def nap(x):
    """Long enough for as many as `x` interpreters to be there."""
    time.sleep(0.05 + 0.03 * x)
    return x


def spin(x):
    total = 0
    for i in range(x):
        total += i * i
    return total


def count(path):
    """The nodes of a source file, by kind."""
    import ast

    with open(path, "rb") as file:
        source = file.read()
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        return {"path": path, "error": str(error)}
    kinds = {}
    for node in ast.walk(tree):
        kinds[type(node).__name__] = kinds.get(type(node).__name__, 0) + 1
    return {"path": path, "kinds": kinds}


field = None


def depends(package):
    """What a Debian package depends on, with the versions."""
    global field
    if field is None:
        import re

        field = re.compile(r"([a-z0-9][a-z0-9+.-]+)(?:\s*\(([<=>]+)\s*([^)]+)\))?")
    found = {}
    for name, relation, version in field.findall(package.get("Depends", "")):
        found.setdefault(name, []).append([relation, version])
    return {"name": package["Package"], "depends": found}
