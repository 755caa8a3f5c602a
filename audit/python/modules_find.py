"""In a child (audit/modules_child.c): the modules that the given names stand for, written to a
descriptor as records (audit/records.h). Nothing that was named is imported.

Names that C sets: OUT, a descriptor; NAMES, of modules, distributions and files; none: every
extension module on sys.path, and the builtin ones."""

import importlib.machinery
import importlib.metadata
import os
import sys

SUFFIXES = importlib.machinery.EXTENSION_SUFFIXES
found = {}  # full name: its record, in the order in which they were found
unknown = []


def _leaf(filename):
    """("_json", suffix) of "_json.cpython-314-x86_64-linux-gnu.so"; a suffix only where this
    CPython loads it."""
    leaf, dot, rest = filename.partition(".")
    return leaf, dot + rest if dot + rest in SUFFIXES else ""


def _hook(name):
    leaf = name.rpartition(".")[2]
    if leaf.isascii():
        return "_" + leaf
    return "U_" + leaf.encode("punycode").decode().replace("-", "_")


def _identity(path):
    try:
        status = os.stat(path)
    except OSError:
        return "0"
    return f"{status.st_size}:{status.st_mtime_ns}"


def add(name, kind, path="", root="", **more):
    if name in found:
        return
    record = {"module": name, "kind": kind, "path": path, "root": root,
              "identity": _identity(path) if path else "0", **more}
    if kind in ("extension", "builtin"):
        record["hook"] = _hook(name)
    found[name] = record


# ---- all of a directory ----------------------------------------------------------------


def walk(folder, prefix="", root="", seen=None):
    """Extension modules in it and in what can be its packages."""
    seen = set() if seen is None else seen
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    extensions = {}
    for entry in entries:
        leaf, suffix = _leaf(entry.name)
        if suffix and leaf.isidentifier():
            rank = SUFFIXES.index(suffix)
            if leaf not in extensions or rank < extensions[leaf][0]:
                extensions[leaf] = rank, entry.path
    for leaf, (_, path) in sorted(extensions.items()):
        if leaf == "__init__" and prefix:
            add(prefix[:-1], "extension", path, root)
        else:
            add(prefix + leaf, "extension", path, root)
    for entry in entries:
        if (entry.name.isidentifier() and entry.name != "__pycache__" and entry.is_dir()
                and os.path.realpath(entry.path) not in on_path):
            walk(entry.path, f"{prefix}{entry.name}.", root, seen)


def everything():
    for name in sys.builtin_module_names:
        if not name.startswith("_subhost") and name != "subhost":
            add(name, "builtin")
    for folder in sys.path:
        walk(folder or ".")


# ---- a name ----------------------------------------------------------------------------


def _spec(name):
    """As importlib.util.find_spec() without the import of the parents."""
    where, spec = None, None
    for part in range(len(name.split("."))):
        full = ".".join(name.split(".")[: part + 1])
        if part and where is None:
            return None
        if not part and full in sys.builtin_module_names:
            spec = importlib.machinery.BuiltinImporter.find_spec(full)
        elif not part and (spec := importlib.machinery.FrozenImporter.find_spec(full)):
            pass
        else:
            spec = importlib.machinery.PathFinder.find_spec(full, where)
        if spec is None:
            return None
        where = spec.submodule_search_locations
    return spec


def module(name):
    try:
        spec = _spec(name)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return False
    if spec.loader is importlib.machinery.BuiltinImporter:
        add(name, "builtin")
    elif isinstance(spec.loader, importlib.machinery.ExtensionFileLoader):
        add(name, "extension", spec.origin)
    elif spec.submodule_search_locations is None:
        add(name, "module")
    else:
        add(name, "package")
        for folder in spec.submodule_search_locations:
            walk(folder, name + ".")
    return True


def distribution(name):
    try:
        dist = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False
    wanted = dist.metadata["Name"]
    tops = [top for top, names in packages.items() if wanted in names]
    for file in dist.files or ():
        leaf, suffix = _leaf(file.name)
        parts = [*file.parts[:-1], leaf]
        if suffix and all(part.isidentifier() for part in parts):
            tops.append(parts[0])
    for top in sorted(set(tops)):
        if top.isidentifier():
            module(top)
    return bool(tops)


def file(given):
    if os.sep not in given and not given.endswith(".so"):
        return False
    if not os.path.isfile(given):
        unknown.append((given, "no such file"))
        return True
    path = os.path.abspath(given)
    root, filename = os.path.split(path)
    leaf, suffix = _leaf(filename)
    if not leaf.isidentifier():
        unknown.append((given, "not the name of an extension module's file"))
        return True
    name = leaf
    while os.path.isfile(os.path.join(root, "__init__.py")):
        root, package = os.path.split(root)
        name = f"{package}.{name}"
    more = {} if suffix else {
        "misfit": f"this CPython loads {', '.join(SUFFIXES)}, not {filename[len(leaf):]}"}
    add(name, "extension", path, "" if os.path.realpath(root) in on_path else root, **more)
    return True


# ---- all of it -------------------------------------------------------------------------


def known():
    names = {*sys.builtin_module_names, *sys.stdlib_module_names, *packages}
    names |= {dist.metadata["Name"] for dist in importlib.metadata.distributions()
              if dist.metadata["Name"]}
    return sorted(names)


def write(record):
    out = b"".join(b"%s\0%s\0" % (key.encode(), os.fsencode(value))
                   for key, value in record.items() if value)
    rest = memoryview(out + b"\0")
    while rest:
        rest = rest[os.write(OUT, rest):]


on_path = {os.path.realpath(folder or ".") for folder in sys.path}
packages = importlib.metadata.packages_distributions()
if NAMES:
    for given in NAMES:
        if not (file(given) or module(given) or distribution(given)):
            unknown.append((given, "neither a module on sys.path nor a distribution"))
else:
    everything()
for given, why in unknown:
    write({"unknown": given, "why": why})
if unknown:
    write({"known": "\n".join(known())})
else:
    for name, record in found.items():
        owners = packages.get(name.partition(".")[0]) if record["kind"] != "builtin" else None
        if owners:
            record["distribution"] = owners[0]
            record["distribution_version"] = importlib.metadata.version(owners[0])
        write(record)
write({"modules": str(len(found)), "path": "\n".join(sys.path)})
