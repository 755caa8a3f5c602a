"""Pools with `reset`: what a call has left in its interpreter is not there for the next one.

Runs in an interpreter before its functions are imported; restore() after each call. The
program's own modules are forgotten, so that the next call imports them anew. Libraries stay as
they are: what they keep is dear to make again, and some extension modules cannot be loaded twice
(PEP 489, "Module Reloading"). `_prelude` is its namespace."""

import builtins
import sys
import warnings

_LISTS = "path", "meta_path", "path_hooks", "argv", "warnoptions"
_HOOKS = (
    "stdin", "stdout", "stderr", "displayhook", "excepthook", "unraisablehook",
    "breakpointhook", "pycache_prefix", "dont_write_bytecode", "tracebacklimit",
)
_NOTHING = object()

_is_process = _prelude["is_process"]
_modules = sys.modules.copy()
_lists = [(name, getattr(sys, name), list(getattr(sys, name))) for name in _LISTS]
_hooks = [(name, getattr(sys, name, _NOTHING)) for name in _HOOKS]
_limits = [
    (sys.setrecursionlimit, sys.getrecursionlimit, sys.getrecursionlimit()),
    (sys.set_int_max_str_digits, sys.get_int_max_str_digits, sys.get_int_max_str_digits()),
]
_dicts = [(space, space.copy()) for space in (builtins.__dict__, sys.modules["__main__"].__dict__)]
_libraries = set()  # names of modules


def _is_library(name, module):
    if name.partition(".")[0] in sys.stdlib_module_names:
        return True
    origin = getattr(getattr(module, "__spec__", None), "origin", None)
    origin = origin or getattr(module, "__file__", None)
    if not origin:
        # A package without a file is where its parts are; else a program has made it.
        origin = next(iter(getattr(module, "__path__", ())), None)
        if origin is None:
            return False
    elif not str(origin).endswith((".py", ".pyc")):
        return True  # built in, frozen, an extension module
    parts = str(origin).split("/")
    return "site-packages" in parts or "dist-packages" in parts


def _restore_modules():
    modules = sys.modules
    for name, module in list(modules.items()):
        if name in _libraries or name in _modules:
            continue
        if _is_library(name, module):
            _libraries.add(name)
        else:
            del modules[name]
    for name, module in _modules.items():
        if modules.get(name) is not module:
            modules[name] = module


def _restore_dict(space, before):
    if len(space) == len(before) and all(
            space.get(name, _NOTHING) is value for name, value in before.items()):
        return
    for name in [name for name in space if name not in before]:
        del space[name]
    space.update(before)


def _restore_sys():
    for name, kept, before in _lists:
        if getattr(sys, name, None) is not kept:
            setattr(sys, name, kept)
        if kept != before:
            kept[:] = before
    for name, before in _hooks:
        if getattr(sys, name, _NOTHING) is before:
            continue
        if before is _NOTHING:
            delattr(sys, name)
        else:
            setattr(sys, name, before)
    for set, get, before in _limits:
        if get() != before:
            set(before)
    if sys.gettrace() is not None:
        sys.settrace(None)
    if sys.getprofile() is not None:
        sys.setprofile(None)


def _describe_process():
    import os

    environ = os.environ._data.copy()
    if not _is_process:
        return environ, None, None  # the rest belongs to other interpreters, too
    try:
        cwd = os.getcwd()
    except OSError:
        cwd = None
    umask = os.umask(0o077)
    os.umask(umask)
    return environ, cwd, umask


def _restore_process():
    os = sys.modules["os"]
    environ, cwd, umask = _process
    if os.environ._data != environ:
        now = os.environ._data.copy()
        for name in now.keys() - environ.keys():
            os.unsetenv(name)
        for name, value in environ.items():
            if now.get(name) != value:
                os.putenv(name, value)
        os.environ._data.clear()
        os.environ._data.update(environ)
    if cwd is not None:
        os.chdir(cwd)
    if umask is not None:
        os.umask(umask)


_process = _describe_process() if "os" in sys.modules else None
_filters = warnings.filters.copy()


def restore():
    """Raises what prevents it: then the interpreter has to be replaced."""
    _prelude["rearm"]()
    _restore_modules()
    for space, before in _dicts:
        _restore_dict(space, before)
    _restore_sys()
    if _process is not None:
        _restore_process()
    if warnings.filters != _filters:
        warnings.resetwarnings()  # also what has been found by the old ones
        warnings.filters[:] = _filters
