"""Tells CMake about the interpreter that runs it: one KEY=VALUE a line.

Run as `PYTHON -I -S interrogate.py` by FindCPython.cmake. It must also parse in
interpreters that are too old, so that they are refused for their age.
"""
import os
import sys
import sysconfig


def first(paths, *names):
    for path in paths:
        for name in names:
            if path and name and os.path.exists(os.path.join(path, name)):
                return os.path.join(path, name)
    return ""


var = sysconfig.get_config_var
base = getattr(sys, "base_prefix", sys.prefix)
multiarch = var("MULTIARCH") or ""

# A relocated CPython (python-build-standalone) records the prefix it was built
# for in the config variables; the paths derived from the running one are right.
include = first(
    [sysconfig.get_path("include"), var("INCLUDEPY")], "Python.h"
)
plat_include = first(
    [sysconfig.get_path("platinclude"), var("CONFINCLUDEPY")], "pyconfig.h"
)

# Where the linker's name of libpython (or, without it, its soname) may be.
library_dirs = [
    var("LIBDIR"),
    os.path.join(var("LIBDIR") or "", multiarch) if multiarch else "",
    os.path.join("/usr/lib", multiarch) if multiarch else "",
    os.path.join(base, "lib"),
    os.path.join(base, "lib64"),
    var("LIBPL"),
]
ldlibrary = var("LDLIBRARY") or ""
soname = var("INSTSONAME") or ""
library = first(
    library_dirs,
    ldlibrary if ".so" in ldlibrary else "",
    soname if ".so" in soname else "",
)

facts = {
    "implementation": getattr(getattr(sys, "implementation", None), "name", "python"),
    "version": "%d.%d.%d" % sys.version_info[:3],
    "level": sys.version_info[3],
    "bits": 64 if sys.maxsize > 2**32 else 32,
    "executable": sys.executable or "",
    "base_prefix": base,
    "include_dir": os.path.dirname(include),
    "plat_include_dir": os.path.dirname(plat_include),
    "include_expected": sysconfig.get_path("include") or "",
    "library": library,
    "library_expected": soname or ldlibrary,
    "shared": 1 if var("Py_ENABLE_SHARED") else 0,
    "free_threaded": 1 if var("Py_GIL_DISABLED") else 0,
    "ldversion": var("LDVERSION") or "",
    "multiarch": multiarch,
    "ext_suffix": var("EXT_SUFFIX") or "",
}
for key in sorted(facts):
    sys.stdout.write("%s=%s\n" % (key, facts[key]))
