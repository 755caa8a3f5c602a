"""Pools with `reset`: what a call has left in its interpreter is not there for the next one.

Runs in an interpreter before its functions are imported; restore() after each call. The
program's own modules are forgotten, so that the next call imports them anew. Libraries stay as
they are: what they keep is dear to make again, and some extension modules cannot be loaded twice
(PEP 489, "Module Reloading"). `_prelude` is its namespace; `__builtins__` are a copy, for a call
may have changed the others."""

import builtins
import gc
import os
import sys
import warnings

_NOTHING = object()
_STREAMS = "stdin", "stdout", "stderr"
_LISTS = "path", "meta_path", "path_hooks", "argv", "warnoptions"

_is_process = _prelude["is_process"]
_stdlib = os.path.dirname(os.__file__) + os.sep
_modules = sys.modules
_kept = sys.modules.copy()
_sys = sys.__dict__.copy()
_lists = [(getattr(sys, name), list(getattr(sys, name))) for name in _LISTS]
_dicts = [(space, space.copy()) for space in (builtins.__dict__, sys.modules["__main__"].__dict__)]
_environ = os.environ._data.copy()
_filters = warnings.filters.copy()


_limits = [
    (sys.setrecursionlimit, sys.getrecursionlimit, sys.getrecursionlimit()),
    (sys.set_int_max_str_digits, sys.get_int_max_str_digits, sys.get_int_max_str_digits()),
    (sys.setswitchinterval, sys.getswitchinterval, sys.getswitchinterval()),
]
_asyncgen_hooks = sys.get_asyncgen_hooks()
_threshold, _collects = gc.get_threshold(), gc.isenabled()


# ---- modules --------------------------------------------------------------------------


def _origin(module):
    origin = getattr(getattr(module, "__spec__", None), "origin", None)
    origin = origin or getattr(module, "__file__", None)
    if not origin:  # a package without a file is where its parts are
        origin = next(iter(getattr(module, "__path__", ())), None)
    return origin if isinstance(origin, str) else None


def _is_loaded_once(origin):
    return not origin.endswith((".py", ".pyc")) and not os.path.isdir(origin)


def _is_library(origin):
    parts = origin.split(os.sep)
    return (origin.startswith(_stdlib) or "site-packages" in parts or "dist-packages" in parts
            or _is_loaded_once(origin))


def _keep(name, module, origin):
    _kept[name] = module
    if _is_loaded_once(origin):
        # What is imported with it has it as an attribute, which no second import would set.
        while "." in name:
            name = name.rpartition(".")[0]
            if name not in _kept and name in _modules:
                _kept[name] = _modules[name]


def _restore_modules():
    for name, module in list(_modules.items()):
        if name not in _kept and module is not None:
            origin = _origin(module)
            if origin is not None and _is_library(origin):
                _keep(name, module, origin)
    _restore_dict(_modules, _kept)


# ---- all the rest ---------------------------------------------------------------------


def _restore_dict(space, before):
    for name in [name for name in space if name not in before]:
        del space[name]
    for name, value in before.items():
        if space.get(name, _NOTHING) is not value:
            space[name] = value


def _restore_streams():
    for name in _STREAMS:
        now, before = getattr(sys, name, None), _sys.get(name)
        if now is not None and now is not before:
            buffer = getattr(before, "buffer", None)
            if buffer is not None and getattr(now, "buffer", None) is buffer:
                now.detach()  # its end would be that of what is below, too
        if getattr(before, "closed", False):
            raise ValueError(f"sys.{name} is closed")


def _restore_sys():
    _restore_streams()
    _restore_dict(sys.__dict__, _sys)
    for kept, before in _lists:
        if kept != before:
            kept[:] = before
    for set, get, before in _limits:
        if get() != before:
            set(before)
    if sys.get_asyncgen_hooks() != _asyncgen_hooks:
        sys.set_asyncgen_hooks(*_asyncgen_hooks)
    if sys.gettrace() is not None:
        sys.settrace(None)
    if sys.getprofile() is not None:
        sys.setprofile(None)


def _describe_process():
    """The working directory and the umask: in an interpreter they are others' as well."""
    if not _is_process:
        return None, None
    try:
        cwd = os.getcwd()
    except OSError:
        cwd = None
    umask = os.umask(0o077)
    os.umask(umask)
    return cwd, umask


_cwd, _umask = _describe_process()


def _restore_environ():
    now = os.environ._data
    if now == _environ:
        return
    for name in now.keys() - _environ.keys():
        os.unsetenv(name)
    for name, value in _environ.items():
        if now.get(name) != value:
            os.putenv(name, value)
    now.clear()
    now.update(_environ)


def _restore_gc():
    if gc.get_threshold() != _threshold:
        gc.set_threshold(*_threshold)
    if gc.isenabled() != _collects:
        (gc.enable if _collects else gc.disable)()
    # Forgotten modules are cycles. What is frozen is not looked at, so there is little to do.
    gc.collect()


def restore():
    """Raises what prevents it: then the interpreter has to be replaced."""
    _restore_sys()
    _prelude["rearm"]()
    for space, before in _dicts:
        _restore_dict(space, before)
    _restore_modules()
    _restore_environ()
    if _cwd is not None:
        os.chdir(_cwd)
    if _umask is not None:
        os.umask(_umask)
    if warnings.filters != _filters:
        warnings.resetwarnings()  # also what has been found by the old ones
        warnings.filters[:] = _filters
    _restore_gc()
