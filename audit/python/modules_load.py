"""In each interpreter of an examined module's child (audit/modules_child.c): imports it, and
says what came of it. Names that C sets: FD, NAME, ROOT, PATH, QUIET,
and SYS_PATH where site has not run: its entries, a line each.

What it needs itself is builtin: an import of more would be examined along."""

import _imp
import gc
import posix
import sys

HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE
IMMORTAL = 1 << 30  # sys.getrefcount() of an immortal object is larger
MOST_FRAMES = 12

failed = []  # (name, exception) of extension modules that could not be loaded, in that order


def say(key, value):
    text = " ".join(str(value).split("\0"))
    posix.write(FD, b"%s\0%s\0" % (key.encode(), text.encode("utf-8", "replace")[:3500]))


def _watched(function):
    """Who is being loaded is said before: what crashes cannot say it afterwards."""
    def watched(what, *more):
        name = getattr(what, "name", None) or getattr(what, "__name__", "?")
        if not QUIET:
            say("loading", name)
        try:
            result = function(what, *more)
        except BaseException as error:
            failed.append((name, error))
            raise
        finally:
            if not QUIET:
                say("loaded", name)
        return result
    return watched


def _text(error):
    try:
        text = str(error)
    except Exception:
        text = "?"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _chain(error):
    found = []
    while error is not None and not any(error is one for one in found):
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _frames(error):
    """[(module, "FILE:LINE in FUNCTION")] without importlib's, innermost last."""
    found, trace = [], error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        module = trace.tb_frame.f_globals.get("__name__", "?")
        if not code.co_filename.startswith(("<frozen importlib", "<subhost")):
            found.append((module, f"{code.co_filename}:{trace.tb_lineno} in {code.co_qualname}"))
        trace = trace.tb_next
    return found


def _blame(chain):
    """The module because of which it failed."""
    for name, error in failed:
        if any(error is one for one in chain):
            return name
    for error in reversed(chain):
        if isinstance(error, ModuleNotFoundError) and error.name:
            return error.name
    for error in reversed(chain):
        if frames := _frames(error):
            return frames[-1][0]
    return NAME


def _explain(error):
    chain = _chain(error)
    blame = _blame(chain)
    say("blame", blame)
    say("error", _text(error))
    for name, its in failed:
        if name == blame and its is not error:
            say("cause", _text(its))
            break
    for module, frame in [pair for one in reversed(chain) for pair in _frames(one)][-MOST_FRAMES:]:
        say("frame", frame)


def load():
    """Whether it could be imported."""
    for name in ("create_dynamic", "exec_dynamic", "create_builtin", "exec_builtin"):
        setattr(_imp, name, _watched(getattr(_imp, name)))
    if SYS_PATH:
        sys.path[:] = SYS_PATH.split("\n")
    if ROOT:
        sys.path.insert(0, ROOT)
    if not NAME:
        return True
    if NAME in sys.modules and not QUIET:
        say("preloaded", "1")
    try:
        __import__(NAME)
        module = sys.modules[NAME]
        if ROOT and PATH and not _same_file(getattr(module, "__file__", None)):
            raise ImportError(f"another module of that name comes first: {module!r}")
    except BaseException as error:
        _explain(error)
        return False
    for name, error in failed:
        if not QUIET:
            say("without", f"{name}: {_text(error)}")
    return True


def _same_file(path):
    try:
        return path is not None and posix.stat(path)[1:3] == posix.stat(PATH)[1:3]
    except OSError:
        return False


# ---- what can be reached ---------------------------------------------------------------


def _reachable():
    """Objects that are tracked, what they refer to, and what is in static types, which the
    collector does not visit."""
    tracked = gc.get_objects()
    found = {id(one): one for one in tracked}
    for one in gc.get_referents(*tracked):
        found[id(one)] = one
    for one in list(found.values()):
        if isinstance(one, type) and not one.__flags__ & HEAP_TYPE:
            for inner in type.__dict__["__dict__"].__get__(one).values():
                found[id(inner)] = inner
    return found


def objects():
    """The addresses of all objects with a counted reference."""
    count = sys.getrefcount
    return b"".join([number.to_bytes(8, sys.byteorder) for number, one in _reachable().items()
                     if count(one) < IMMORTAL])


def _inside(value):
    if isinstance(value, type):
        for key, inner in type.__dict__["__dict__"].__get__(value).items():
            yield f".{key}", inner
    elif type(value) is dict:
        for key, inner in list(value.items()):
            yield f"[{key if isinstance(key, int) else repr(key)[:40]}]", inner
    elif type(value) in (list, tuple):
        for index, inner in enumerate(list(value)):
            yield f"[{index}]", inner


def _name_of(wanted):
    module = sys.modules.get(NAME)
    names = list(vars(module).items()) if module is not None else []
    for key, value in names:
        if id(value) == wanted:
            return f"{NAME}.{key}, a {type(value).__name__}"
    for key, value in names:
        for inside, inner in _inside(value):
            if id(inner) == wanted:
                return f"{NAME}.{key}{inside}, a {type(inner).__name__}"
    one = _reachable().get(wanted)
    return "an object of another interpreter" if one is None else f"a {type(one).__name__}"


def label(wanted, where):
    """Says what two interpreters have in common; `where`: in static memory."""
    if where:
        say("static", f"{where} refers to {_name_of(wanted)}")
    else:
        say("shared", _name_of(wanted))
