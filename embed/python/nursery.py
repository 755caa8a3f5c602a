"""`subhost.open_nursery()`: runs when a program first asks for it, and in each interpreter
that runs a task of a nursery.

What users see of it is copied nowhere: the module's __getattr__ finds it here. `_host`
(functions in C, the base class) and `_prelude` (its namespace) are there when it runs.
Imports nothing that takes long: each task pays for it."""

import sys

try:
    import _pickle
except ImportError:  # a CPython built without it
    import pickle as _pickle

PicklingError = _pickle.PicklingError
_PROTOCOL = 5
_SELF = "<subhost.nursery>"  # the file name of this code


# ---- exceptions -----------------------------------------------------------------------


class RemoteError(Exception):
    """What a task ended with, where its own exception cannot be raised here: `type` (a
    name, or the outcome), `message` and `traceback` (text)."""

    def __init__(self, type, message, traceback=""):
        super().__init__(type, message, traceback)
        self.type, self.message, self.traceback = type, message, traceback

    def __str__(self):
        return f"{self.type}: {self.message}" if self.message else self.type


class _RemoteTraceback(Exception):
    """The cause of an exception that comes from a task: shows where it was raised."""

    def __init__(self, text):
        super().__init__(text)
        self.text = text

    def __str__(self):
        return f'\n"""\n{self.text}"""'


def _restore(error, state):
    """Sets what the exception's constructor does not; called by the unpickler."""
    own, text = state
    if own:
        error.__setstate__(own)
    if text:
        error.__cause__ = _RemoteTraceback(text)


for _class in (RemoteError, _RemoteTraceback):
    _class.__module__ = "subhost"


def _name_of(kind):
    module = kind.__module__
    if module in ("builtins", "__main__", "__mp_main__"):
        return kind.__qualname__
    return f"{module}.{kind.__qualname__}"


def _message_of(error):
    try:
        return str(error)
    except Exception:
        return "<exception str() failed>"


class _Lines(list):
    """A stream for PyTraceBack_Print()."""

    def write(self, text):
        self.append(text)


def _format(error, seen=()):
    """As python shows it; of a group without what is in it, which travels by itself."""
    if isinstance(error, SyntaxError) or (seen and isinstance(error, BaseExceptionGroup)):
        import traceback

        return "".join(traceback.format_exception(error))
    lines = _Lines()
    seen = (*seen, error)
    cause = error.__cause__
    context = None if error.__suppress_context__ else error.__context__
    link = "\nThe above exception was the direct cause of the following exception:\n\n"
    if isinstance(cause, _RemoteTraceback):
        if error.__traceback__ is None:
            return cause.text
        lines.write(cause.text + link)
    elif cause is not None and all(cause is not other for other in seen):
        lines.write(_format(cause, seen) + link)
    elif context is not None and all(context is not other for other in seen):
        lines.write(_format(context, seen) + "\nDuring handling of the above exception, "
                    "another exception occurred:\n\n")
    if error.__traceback__ is not None:
        _host.format_traceback(error.__traceback__, lines)
    message = _message_of(error)
    lines.write(_name_of(type(error)) + (f": {message}" if message else "") + "\n")
    for note in getattr(error, "__notes__", None) or ():
        lines.write(f"{note}\n")
    return "".join(lines)


# ---- pickles --------------------------------------------------------------------------


class _Buffer(bytearray):
    write = bytearray.extend


def _view(data, format, shape):
    view = memoryview(data)
    return view if format == "B" and len(shape) == 1 else view.cast(format, shape)


def _reduce_view(view):
    if not view.itemsize:
        raise BufferError("the items of a memoryview have no size")
    data = view.tobytes()
    return _view, (data if view.readonly else bytearray(data), view.format, view.shape)


def _dumps(value):
    """As pickle does, and memoryviews too: by their bytes."""
    buffer = _Buffer()
    pickler = _pickle.Pickler(buffer, _PROTOCOL)
    pickler.dispatch_table = sys.modules["copyreg"].dispatch_table | {memoryview: _reduce_view}
    pickler.dump(value)
    return bytes(buffer)


def _reduce_view_apart(view):
    if not (view.c_contiguous and view.itemsize):
        return _reduce_view(view)
    return memoryview, (_pickle.PickleBuffer(view),)


def _is_constant(data):
    return type(memoryview(data).obj) is bytes


def _dumps_apart(value, only_constant=False):
    """A pickle, and a list of what it refers to instead of having its bytes (PEP 574).
    `only_constant`: nothing that could change before it is copied."""
    buffer, apart = _Buffer(), []

    def put_apart(data):
        if only_constant and not _is_constant(data):
            return True
        # An array in Fortran's order is, for its unpickler, a row of bytes.
        apart.append(data if memoryview(data).c_contiguous else data.raw())

    def reduce_view(view):
        apart = not only_constant or _is_constant(view)
        return _reduce_view_apart(view) if apart else _reduce_view(view)

    pickler = _pickle.Pickler(buffer, _PROTOCOL, buffer_callback=put_apart)
    pickler.dispatch_table = (
        sys.modules["copyreg"].dispatch_table | {memoryview: reduce_view}
    )
    pickler.dump(value)
    return bytes(buffer), apart


class _Large:
    """Bytes that a pickle refers to: copied once, where they are unpickled. Those of a
    bytearray are copied here as well, for it may change meanwhile."""

    def __init__(self, data):
        self._type, self._data = type(data), bytes(data)

    def __reduce__(self):
        return self._type, (_pickle.PickleBuffer(self._data),)


_LARGE = 1 << 16  # bytes; below, a buffer costs more than the copies it saves


def _by_reference(value):
    return _Large(value) if type(value) in (bytes, bytearray) and len(value) >= _LARGE else value


class _ErrorPickler(_pickle.Pickler):
    """Pickles exceptions with the text of their traceback. Those that would not survive it
    (a constructor with a signature of its own, say) become a RemoteError."""

    def __init__(self, buffer, checked, plain=None):
        super().__init__(buffer, _PROTOCOL)
        self._checked, self._plain = checked, plain

    def reducer_override(self, error):
        if not isinstance(error, BaseException) or error is self._plain:
            return NotImplemented
        text = _format(error)
        if not self._survives(error):
            args = (_name_of(type(error)), _message_of(error), text)
            return RemoteError, args, (None, text), None, None, _restore
        function, args, *rest = error.__reduce_ex__(_PROTOCOL)
        return function, args, (rest[0] if rest else None, text), None, None, _restore

    def _survives(self, error):
        known = self._checked.get(id(error))
        if known is None:
            try:
                buffer = _Buffer()
                _ErrorPickler(buffer, self._checked, error).dump(error)
                known = type(_loads(buffer)) is type(error)
                known = known and type(error.__reduce_ex__(_PROTOCOL)) is tuple
            except Exception:
                known = False
            self._checked[id(error)] = known
        return known


class _Unpickler(_pickle.Unpickler):
    def find_class(self, module, name):
        if module not in ("__main__", "__mp_main__"):
            return super().find_class(module, name)
        found = main = _main_module()
        try:
            for part in name.split("."):
                found = getattr(found, part)
        except AttributeError:
            raise AttributeError(
                f"{name!r} is not there when the script is imported as '__mp_main__' (as "
                "multiprocessing does it): define it at the script's top level, outside "
                "of `if __name__ == '__main__':`, or in a module",
                name=name,
                obj=main,
            ) from None
        return found


class _Reader:
    """What the unpickler needs of a file."""

    def __init__(self, data):
        self._data, self._at = memoryview(data), 0

    def read(self, size=-1):
        start, self._at = self._at, len(self._data) if size < 0 else self._at + size
        return bytes(self._data[start:self._at])

    def readline(self):
        rest = bytes(self._data[self._at:])
        return self.read(rest.index(b"\n") + 1 if b"\n" in rest else -1)

    def readinto(self, buffer):
        data = self._data[self._at:self._at + len(buffer)]
        buffer[:len(data)] = data
        self._at += len(data)
        return len(data)


def _loads(data, buffers=()):
    return _Unpickler(_Reader(data), buffers=buffers).load()


def describe_exception(error):
    """What a pool's call ended with, as two texts: in one line, and with its traceback."""
    line = _name_of(type(error))
    message = _message_of(error)
    explanation = _prelude["explain"](error)
    if _prelude["is_process_exit"](error):
        others = "" if _prelude["is_process"] else (
            ", and all other calls with it: only isolation in a process contains that"
        )
        return f"{message} would have ended the process{others}", _format(error)
    return (
        (f"{line}: {message}" if message else line)
        + (f" ({explanation})" if explanation else ""),
        _format(error),
    )


def pack_exception(error):
    """The result of a call that ended with an exception."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code.co_filename == _SELF:
        traceback = traceback.tb_next
    error.__traceback__ = traceback
    if _prelude["explain"](error):
        error.add_note("subhost: the module refuses an interpreter with a GIL of its own, as "
                       "tasks have it; isolation='process' is the way out")
    text, data = _format(error), _Buffer()
    try:
        _ErrorPickler(data, {}).dump(error)
    except Exception:
        data = b""
    pack = (_name_of(type(error)), _message_of(error), text, bytes(data))
    return b"E" + _pickle.dumps(pack, _PROTOCOL)


# ---- the script's __main__ --------------------------------------------------------------

_main = None  # in a task: how the program that started it all can be imported
_main_imported = False
_importing = False

_NO_GUARD = """
        A task was started while the script is being imported for a task that needs
        something of it.

        Most likely the script's main part is not guarded. The proper idiom is:

            if __name__ == '__main__':
                with subhost.open_nursery() as nursery:
                    ...

        because each task imports the script that its function is defined in, as with
        multiprocessing."""


def _describe_main():
    """How a task can import this program: (kind, what), or None."""
    global _description
    if _main is not None:
        return _main
    if _description is None or _description[0] is not sys.modules.get("__main__"):
        _description = sys.modules.get("__main__"), _new_description()
    return _description[1]


_description = None  # (of this module, what _describe_main() found)


def _new_description():
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    name = getattr(spec, "name", None)
    if name == "__main__":
        return "archive", sys.path[:1]
    if name is not None:
        return "module", name
    file = getattr(main, "__file__", None)
    if file is None:
        command = _prelude["command"]
        return None if command is None else ("command", command)
    if file == "<stdin>":
        return None
    if file.endswith(".pyc"):
        return "file", file
    # Compiled once, and not by each task: to them it would be most of their time.
    import marshal

    try:
        with open(file, "rb") as stream:
            return "code", (file, marshal.dumps(_host.compile(stream.read(), file)))
    except (OSError, SyntaxError):
        return "file", file  # changed since: the task's import says how


def _find_main(module):
    """The code of the main program; fills in what its module should know of itself."""
    kind, what = _main
    if kind == "command":
        code = _host.compile(what, "<string>")
        _prelude["register_command"](code, what)
        return code
    if kind == "code":
        import marshal

        what, code = what
        _name_file(module, what)
        return marshal.loads(code)
    if kind == "file":
        loader = _name_file(module, what)
        if what.endswith(".pyc"):
            return loader.get_code("__mp_main__")
        return _host.compile(loader.get_data(what), what)  # leaves no .pyc behind
    if kind == "archive":
        import importlib.machinery

        name, spec = "__main__", importlib.machinery.PathFinder.find_spec("__main__", what)
    else:
        import importlib.util

        name, spec = what, importlib.util.find_spec(what)
    if spec is None:
        raise ImportError(f"the main program, {what!r}, cannot be imported again")
    module.__file__, module.__spec__ = spec.origin, spec
    module.__loader__, module.__package__ = spec.loader, spec.parent
    return spec.loader.get_code(name)


def _name_file(module, what):
    """Makes it the module of that file; its loader."""
    external = sys.modules["_frozen_importlib_external"]
    loader = (external.SourcelessFileLoader if what.endswith(".pyc") else
              external.SourceFileLoader)("__mp_main__", what)
    module.__file__, module.__loader__, module.__package__ = what, loader, None
    return loader


def _main_module():
    """The module of the script that the program began with."""
    global _main_imported, _importing
    if _main is None or _main_imported:
        return sys.modules.get("__main__")
    module = type(sys)("__mp_main__")
    before = sys.modules.get("__main__")
    _main_imported = _importing = True
    try:
        code = _find_main(module)
        sys.modules["__main__"] = sys.modules["__mp_main__"] = module
        exec(code, module.__dict__)
    except BaseException:
        sys.modules["__main__"] = before
        sys.modules.pop("__mp_main__", None)
        _main_imported = False
        raise
    finally:
        _importing = False
    return module


# ---- a call, on both sides ------------------------------------------------------------


def _way_out(function):
    """Why the function cannot be sent, or None: before anything is started."""
    target = function
    while hasattr(target, "__wrapped__") or hasattr(target, "func"):
        inner = getattr(target, "func", None) or target.__wrapped__
        if inner is target or not callable(inner):
            break
        target = inner
    name = getattr(target, "__qualname__", "")
    if not isinstance(name, str):
        return None
    if "<lambda>" in name or "<locals>" in name:
        kind = "a lambda" if name.endswith("<lambda>") else "defined inside a function"
        return (f"{name!r} is {kind}: a task's function must be importable, that is, defined "
                "at the top level of a module or of the script (whose main part is then "
                "guarded by `if __name__ == '__main__':`)")
    module = getattr(target, "__module__", "")
    if module in ("__main__", "__mp_main__") and _describe_main() is None:
        return (f"{name!r} is defined in a program that was read from standard input, which "
                "a task cannot import: define it in a module, or in a script with a file")
    return None


def _pack_call(function, args, is_process, may_be_process):
    """What run_call() gets: bytes, and a list of the buffers that these refer to."""
    if not callable(function):
        raise TypeError(f"a task's function must be callable, not {type(function).__name__!r}")
    why = _way_out(function)
    if why:
        raise PicklingError(why)
    try:
        call, buffers = _dumps_apart((function, tuple(map(_by_reference, args))), is_process)
    except Exception as error:
        what = _unpicklable(function, args)
        raise PicklingError(f"{what} cannot be pickled, and so not be sent to a task: "
                            f"{_message_of(error)}") from error
    preparation = {"path": list(sys.path), "argv": list(sys.argv), "main": _describe_main()}
    if may_be_process:
        import os

        # Of its bytes in one piece, for each start of a process pays for it.
        preparation["cwd"], preparation["environ"] = _cwd(), os.environ._data.copy()
    return _pickle.dumps((preparation, call), _PROTOCOL), buffers


def _unpicklable(function, args):
    for number, value in enumerate((function, *args)):
        try:
            _dumps(value)
        except Exception:
            if number == 0:
                return f"the function {function!r}"
            return f"argument {number}, of type {_name_of(type(value))!r},"
    return "the call"


def _cwd():
    import os

    try:
        return os.getcwdb()
    except OSError:
        return None  # it was removed


def _prepare(preparation):
    global _main
    sys.path[:] = preparation["path"]
    sys.argv[:] = preparation["argv"]
    _main = preparation["main"]
    passes = _prelude["passes"]
    if "environ" in preparation and _prelude["is_process"]:
        import os

        cwd = preparation["cwd"]
        if cwd is not None and (passes is None or "cwd" in passes) and _cwd() != cwd:
            os.chdir(cwd)
        if passes is None or "environ" in passes:
            _prelude["set_environ"](preparation["environ"])


def run_call(payload, buffers):
    """Runs in the task's interpreter; what it returns is the task's result, again as bytes
    and buffers."""
    preparation, call = _pickle.loads(payload)
    _prepare(preparation)
    function, args = _loads(call, buffers)
    value = function(*args)
    try:
        data, buffers = _dumps_apart(_by_reference(value))
        return b"V" + data, buffers
    except Exception as error:
        name = getattr(function, "__qualname__", repr(function))
        raise PicklingError(
            f"the result of {name}(), of type {_name_of(type(value))!r}, cannot be pickled: "
            f"{_message_of(error)}"
        ) from error


def rehearse():
    """In the image that children are forked from: what the first calls make for themselves
    (caches, specialised bytecode) is made before, once, and not on pages copied by each
    child."""
    if "os" not in sys.modules:
        return  # the policy is without site; then each import counts
    import os

    # Not what is the process's: programs of other interpreters may be changing it.
    preparation = {"path": sys.path.copy(), "argv": sys.argv.copy(), "main": _main}
    payload = _pickle.dumps((preparation, _dumps((abs, (0,)))), _PROTOCOL)
    for _ in range(8):  # CPython specialises after a few
        run_call(payload, [])
        os.getcwdb()


# ---- tasks ----------------------------------------------------------------------------


class Outcome:
    """How a task ended: `kind` ("returned", "raised", "cancelled", "timed-out", "exited",
    "killed", "abandoned", "failed"), `code` (exited: the status; killed: the signal) and
    `detail` (text)."""

    __slots__ = ("kind", "code", "detail", "duration")

    def __init__(self, kind, code, detail, duration=0.0):
        self.kind, self.detail, self.duration = kind, detail, duration
        self.code = code if kind in ("exited", "killed") else None

    def __str__(self):
        return self.kind if self.code is None else f"{self.kind}({self.code})"

    def __repr__(self):
        return f"<subhost.Outcome {self}{': ' if self.detail else ''}{self.detail}>"


class NurseryTask:
    """A function that runs in an interpreter, or a process, of its own."""

    def __init__(self, nursery, name):
        self._nursery, self.name, self.id = nursery, name, 0
        self._handle = self._outcome = self._ending = None
        self._failed = False

    def __repr__(self):
        return f"<subhost.NurseryTask {self.name!r} id={self.id} {self.outcome or 'running'}>"

    @property
    def outcome(self):
        """None while it runs; how it ended."""
        if self._outcome is None and self._handle is not None:
            found = _host.outcome(self._handle)
            if found is not None:
                kind, code, detail, reason, words, duration, self._failed = found
                if kind in ("cancelled", "timed-out"):
                    head, _, text = detail.partition(": ")
                    if words:
                        detail = words  # whatever its function has made of it
                    elif head == "subhost.Cancelled" and text:
                        detail = text
                    elif duration or not detail:  # else it has not begun
                        detail = reason
                self._outcome = Outcome(kind, code, detail or "", duration)
        return self._outcome

    @property
    def pid(self):
        """The process that it runs in; None while that is not forked yet."""
        return _host.pid(self._handle)

    def done(self):
        """Whether it has ended."""
        return self.outcome is not None

    def cancel(self, reason=""):
        """Asks for its end, and for that of all that it has started. No failure for the
        nursery; result() raises Cancelled then."""
        if not isinstance(reason, str):
            raise TypeError("cancel() needs its reason as a str")
        reason = reason.replace("\0", " ").encode(errors="replace").decode()
        _host.cancel(self._handle, reason)

    def result(self, timeout=None):
        """What the function returned, or raises what it raised, with the traceback from
        there as its cause. Raises Cancelled when the task was cancelled, RemoteError when it
        ended in another way, TimeoutError when it has not ended within `timeout` seconds."""
        nursery = self._nursery  # before the look: it goes when all have ended
        if not self.done() and not _host.wait(nursery, self._handle, _seconds(timeout)):
            raise TimeoutError(f"task {self.name!r} has not ended within {timeout} s")
        value, error = self._end()
        if error is not None:
            try:
                raise error
            finally:
                del error
        return value

    def _end(self):
        """(value, None) or (None, the exception), of an ended task."""
        if self._ending is None:
            outcome = self.outcome
            payload, buffers = _host.result(self._handle)
            if outcome.kind == "returned" and payload is not None:
                try:
                    self._ending = _loads(memoryview(payload)[1:], buffers), None
                except BaseException as error:
                    error.add_note(f"(the result of task {self.name!r} could not be unpickled here)")
                    raise
            elif outcome.kind == "exited" and not self._failed:
                self._ending = None, None
            else:
                self._ending = None, self._error(outcome, payload)
        return self._ending

    def _failure(self):
        """What the nursery makes of a task that failed."""
        if self.outcome.kind != "cancelled":
            return self._end()[1]
        # By a signal, say: Cancelled itself is for those who are cancelled.
        return RemoteError("cancelled", f"task {self.name!r} ({self.outcome.detail})")

    def _error(self, outcome, payload):
        name = message = text = data = ""
        if payload is not None and payload[:1] == b"E":
            name, message, text, data = _pickle.loads(memoryview(payload)[1:])
        error = None
        if outcome.kind == "raised" and data:
            try:
                return _loads(data)
            except Exception as problem:
                error = RemoteError(name, message, text)
                error.add_note(f"(it could not be unpickled here: {_message_of(problem)})")
        elif outcome.kind == "raised":
            error = RemoteError(name or "task", message or outcome.detail, text)
        elif outcome.kind == "cancelled":
            error = _host.Cancelled(outcome.detail)
            error.reason = outcome.detail
        else:
            detail = f" ({outcome.detail})" if outcome.detail else ""
            error = RemoteError(str(outcome), f"task {self.name!r}{detail}", text)
        if text:
            error.__cause__ = _RemoteTraceback(text)
        return error


def _seconds(timeout):
    if timeout is None:
        return -1.0
    seconds = float(timeout)
    if seconds != seconds:
        raise ValueError("a timeout must be a number")
    return max(seconds, 0.0)


# ---- nurseries ------------------------------------------------------------------------

_ISOLATIONS = {"interpreter": 0, "process": 1}


def _describe_policy(policy):
    """(name or None, ["key=value" ...]) of what start() was given."""
    if policy is None or isinstance(policy, str):
        return policy, []
    if hasattr(policy, "__fspath__"):
        return policy.__fspath__(), []
    if not isinstance(policy, dict):
        raise TypeError("policy must be a preset's name, the path of a file, or a dict of "
                        f"keys, not {type(policy).__name__!r}")
    return None, [f"{key}={_policy_text(value)}" for key, value in policy.items()]


def _policy_text(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(value) if isinstance(value, (list, tuple, set)) else str(value)


def _is_own_cancel(error):
    """Raised to end this program, or task, or in a loop's own way a task of its event loop."""
    return isinstance(error, (_host.Cancelled, KeyboardInterrupt)) or (
        error is not None and _prelude["is_of_loop"](error))


class Nursery(_host.Nursery):
    """Tasks that are started in it end before it is left. Made by open_nursery(); to be
    used in a with statement."""

    def __init__(self):
        self._tasks, self._open, self._many = [], None, 32

    def __enter__(self):
        if self._open is not None:
            raise RuntimeError("a nursery can be entered only once")
        self._open = True
        return self

    def start(self, function, *args, name=None, isolation="interpreter", timeout=None,
              policy=None, **more):
        """Has function(*args) run in an interpreter of its own, or with
        isolation="process" in a forked child; returns the task. The function must be
        importable, or of the script's top level. `timeout`: seconds, from its start on.
        `policy`: a preset's name, the path of a file, or a dict of keys, which may only
        narrow the policy that holds here, for the task and all that it starts."""
        if more:
            word = next(iter(more))
            raise TypeError(f"start() got an unexpected keyword argument {word!r}; for one "
                            "of the function's use functools.partial")
        if not self._open:
            raise RuntimeError("tasks can be started only inside the nursery's with block")
        if isolation not in _ISOLATIONS:
            raise ValueError(f"isolation must be 'interpreter' or 'process', not {isolation!r}")
        if _importing:
            raise RuntimeError(_NO_GUARD)
        seconds, policy = _seconds(timeout), _describe_policy(policy)
        # Where a module refuses an interpreter the task may move (imports.unsupported).
        is_process = isolation == "process"
        call = _pack_call(function, args, is_process, is_process or _host.may_move(self)
                          or policy[0] is not None or bool(policy[1]))
        if name is None:
            name = getattr(function, "__qualname__", None) or type(function).__name__
        task = NurseryTask(self, str(name).replace("\0", " "))
        self._forget()
        # Which puts it into the list: there is no moment in which it runs and is not there.
        _host.submit(self, task, *call, task.name.encode(errors="replace").decode(),
                     _ISOLATIONS[isolation], seconds, *policy)
        return task

    def _forget(self):
        """What has returned, of a nursery that lives long: nobody will ask it for a failure."""
        if len(self._tasks) < self._many:
            return
        kept = [task for task in self._tasks if not task.outcome or task._failed
                or task.outcome.kind != "returned"]
        for task in self._tasks:
            if task.outcome and task.outcome.kind == "returned" and not task._failed:
                task._nursery = None
        self._tasks[:], self._many = kept, 2 * len(kept) + 32

    def _conclude(self, error, interruption):
        """After all have ended. `error`: the body's; `interruption`: what was to be raised
        while they were waited for. What __exit__ returns."""
        self._open = False
        for task in self._tasks:
            task._nursery = None  # a cycle, and nothing waits for it any more
        ended = error if interruption is None else interruption
        # What cancels this program, or task, may well have cancelled its tasks directly. What
        # result() has raised in the body is a task's, and no cancel of ours.
        cancelled = _host.cancel_requested(self) or (
            _is_own_cancel(ended) and not self._is_of_tasks(ended, ()))
        errors = [task._failure() for task in self._tasks if task.outcome and task._failed
                  and not (cancelled and task.outcome.kind in ("cancelled", "timed-out"))]
        if interruption is not None:
            if error is not None and not self._is_of_tasks(error, errors):
                errors.append(error)
            error = interruption
        elif error is None:
            if errors:
                raise BaseExceptionGroup("errors in a nursery", errors) from None
            if cancelled and any(task.outcome.kind in ("cancelled", "timed-out")
                                 for task in self._tasks if task.outcome):
                _host.checkpoint()  # what ended them is about to be raised here
            return False
        elif self._is_of_tasks(error, errors):
            if errors:
                raise BaseExceptionGroup("errors in a nursery", errors) from None
            return False
        if isinstance(error, _host.Cancelled) and not isinstance(error, KeyboardInterrupt):
            # As asyncio and trio do it: what tasks raise is not lost below a nursery that is
            # cancelled. That some had to be killed is, to who cancelled it, no news.
            if any(task._failed and task.outcome.kind in ("raised", "exited")
                   for task in self._tasks):
                group = BaseExceptionGroup("errors in a nursery", errors)
                group.__context__ = error
                raise group
        if isinstance(error, GeneratorExit) and errors:
            # close() would pass over it, and over what has failed.
            raise BaseExceptionGroup("errors in a nursery", errors) from None
        if _is_own_cancel(error) or isinstance(error, (SystemExit, GeneratorExit)):
            # These end the whole program, or task: they pass, and take the rest along.
            if errors and error.__cause__ is None:
                error.__cause__ = BaseExceptionGroup("errors in a nursery", errors)
            if interruption is None:
                return False
            raise error
        raise BaseExceptionGroup("errors in a nursery", [*errors, error]) from None

    def _is_of_tasks(self, error, errors):
        """Whether result() raised it in the body: it is a task's, and counted already."""
        return any(error is other for other in errors) or any(
            task._ending is not None and task._ending[1] is error for task in self._tasks)


for _class in (Outcome, NurseryTask, Nursery):
    _class.__module__ = "subhost"
