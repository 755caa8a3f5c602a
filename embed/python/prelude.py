"""What runs in every hosted interpreter before the program does.

Its namespace is the host's, not the program's. `_host` (functions in C) is there when it
runs. Kept small: each interpreter pays for it at its start."""

import _signal
import _thread
import sys


# ---- signals: as in python's main thread, taken by the host --------------------------

_handlers = _host.handlers  # {number: callable, SIG_IGN or SIG_DFL}
_default_int_handler = _signal.default_int_handler
_SIG_DFL, _SIG_IGN = 0, 1


def _number(signalnum):
    import operator

    number = operator.index(signalnum)
    if not -(2**31) <= number < 2**31:
        raise OverflowError("Python int too large to convert to C int")
    if not 1 <= number < _signal.NSIG:
        raise ValueError("signal number out of range")
    return number


def _initial(number):
    kind = _host.initial_disposition(number)
    if kind == "d":
        return _SIG_DFL
    return _SIG_IGN if kind == "i" else None


def _check_thread(what):
    if _thread.get_ident() != _host.driver_ident():
        raise ValueError(what + " only works in main thread of the main interpreter")


def signal(signalnum, handler, /):
    """Set the action for the given signal (the host takes it on its main thread)."""
    if not callable(handler) and handler not in (_SIG_DFL, _SIG_IGN):
        raise TypeError(
            "signal handler must be signal.SIG_IGN, signal.SIG_DFL, or a callable object"
        )
    _check_thread("signal")
    signalnum = _number(signalnum)
    old = getsignal(signalnum)
    if not callable(handler):
        handler = int(handler)
    before = _handlers.get(signalnum)
    _handlers[signalnum] = handler
    try:
        _host.take_signal(signalnum, _action(signalnum, handler))
    except BaseException:
        if before is None:
            _handlers.pop(signalnum, None)
        else:
            _handlers[signalnum] = before
        raise
    return old


def _action(signalnum, handler):
    """0: the host's default, 1: ignored, 2: the program's own handler, 3: the kernel's
    default."""
    if handler is _default_int_handler:
        return 0 if signalnum == _signal.SIGINT else 2
    if not callable(handler):
        return 1 if handler == _SIG_IGN else 3
    # asyncio.run() puts its handler in place of the default one; a cancel for SIGINT calls
    # it as its first rung.
    return 0 if signalnum == _signal.SIGINT and _runner_handler(handler) else 2


def _runner_handler(handler):
    runners = sys.modules.get("asyncio.runners")
    function = getattr(getattr(handler, "func", None), "__func__", None)
    return runners is not None and function is runners.Runner._on_sigint


def getsignal(signalnum, /):
    """Return the current action for the given signal."""
    signalnum = _number(signalnum)
    try:
        return _handlers[signalnum]
    except KeyError:
        if signalnum == _signal.SIGINT and _host.initial_disposition(signalnum) == "d":
            return _default_int_handler
        return _initial(signalnum)


def set_wakeup_fd(fd, /, *, warn_on_full_buffer=True):
    """Sets the fd to be written to (with the signal number) when a signal comes in."""
    import operator

    fd = operator.index(fd)
    _check_thread("set_wakeup_fd")
    if fd != -1:
        import os

        os.fstat(fd)
        if os.get_blocking(fd):
            raise ValueError("the fd %i must be in non-blocking mode" % fd)
    return _host.set_wakeup_fd(fd)


def siginterrupt(signalnum, flag, /):
    """Accepted and without effect: no system call of the program's is interrupted."""
    _number(signalnum)


_pthread_sigmask = _signal.pthread_sigmask


def pthread_sigmask(how, mask, /):
    """Fetch and/or change the signal mask of the calling thread."""
    old = _pthread_sigmask(how, mask)
    if _thread.get_ident() == _host.driver_ident():
        # The host's main thread must not take what the program's main thread blocks.
        _host.block_signals(sum(1 << (s - 1) for s in _pthread_sigmask(0, ())))
    return old


def interrupt_main(signum=_signal.SIGINT, /):
    """Simulate the arrival of the given signal in the program's main thread."""
    if callable(getsignal(_number(signum))):
        _host.post_signal(signum)


_thread.interrupt_main = interrupt_main

for _function in (signal, getsignal, set_wakeup_fd, siginterrupt, pthread_sigmask):
    _function.__module__ = "_signal"
    setattr(_signal, _function.__name__, _function)


# ---- threads --------------------------------------------------------------------------

# threading asks for the process's main thread; a program's is its interpreter's driver.
_thread._get_main_thread_ident = _host.driver_ident

# CPython's own walk the threads of all interpreters without their GILs.
sys._current_frames = _host.current_frames
sys._current_exceptions = _host.current_exceptions

_excepthook = _thread._excepthook


def excepthook(args, /):
    """As threading's own, but a cancelled thread ends without a traceback; with what its
    event loop made of the cancel, too."""
    if issubclass(args.exc_type, _host.Cancelled):
        return
    if _host.cancel_requested() and is_cancel(args.exc_value):
        return
    _excepthook(args)


excepthook.__module__ = "_thread"
_thread._excepthook = excepthook


def join_threads():
    """What the end of python does before atexit: waits for non-daemon threads."""
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()


_run_exitfuncs = None


def prepare_finish():
    """In the image that children are forked from: an import less for each of them."""
    global _run_exitfuncs
    known = "atexit" in sys.modules
    import atexit

    _run_exitfuncs = atexit._run_exitfuncs
    if not known:
        del sys.modules["atexit"]  # as under python, where the program is the first


def finish():
    """What follows the program's end: threads, atexit. Errors are printed, as there."""
    join_threads()
    if _run_exitfuncs is None:
        prepare_finish()
    _run_exitfuncs()


import _io

_buffered = _io.TextIOWrapper, _io.BufferedWriter, _io.BufferedRandom
_unflushed = None  # while flush_files() is under way, or was interrupted


def flush_files():
    """What the program has left open has its buffers written, as at the end of python, where
    its modules go: the text first, whose bytes go to a buffer. Errors are not told. After a
    cancel, which comes out of a file that blocks, it goes on with the next one."""
    global _unflushed
    if _unflushed is None:
        _unflushed = _host.unflushed(*_buffered)
    while _unflushed:
        try:
            _unflushed.pop().flush()
        except Exception:
            pass
    _unflushed = None


def end_quietly():
    """Before the threads that are left get Cancelled: where a callback of C code was, CPython
    would print it. No program is left that it would tell anything."""
    hook, cancelled = sys.unraisablehook, _host.Cancelled

    def unraisablehook(args, /):
        if not issubclass(args.exc_type, cancelled):
            hook(args)

    sys.unraisablehook = unraisablehook


def forget_atexits():
    """Before Py_EndInterpreter(), which would run them a second time."""
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._threading_atexits = []


def rearm():
    """Makes the interpreter good for a next task after finish()."""
    global _unflushed
    _unflushed = None
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._SHUTTING_DOWN = False
    pool = sys.modules.get("concurrent.futures.thread")
    if pool is not None:
        pool._shutdown = False
    process_pool = sys.modules.get("concurrent.futures.process")
    if process_pool is not None:
        process_pool._global_shutdown = False
    for number in list(_handlers):
        del _handlers[number]
        _host.forget_signal(number)
    _host.set_wakeup_fd(-1)
    _callbacks.clear()


# ---- garbage ------------------------------------------------------------------------------

import gc as _gc

del sys.modules["gc"]  # as under python, where the program is the first to import it


def settle():
    """What the start has made lives as long as the interpreter does, so collections leave it
    out; above all those of Py_EndInterpreter(), a good part of `subhost run -c pass`. What
    the program leaves in __main__ is collected there, so that must be made anew."""
    _gc.freeze()
    old = sys.modules["__main__"]
    main = sys.modules["__main__"] = type(old)("__main__")
    main.__dict__.update(old.__dict__)


# Before the end of an interpreter whose process lives on: its memory is wanted back.
unsettle = _gc.unfreeze


# ---- processes that the program has left --------------------------------------------------


def leave_children():
    """Before the end of an interpreter whose process lives on. subprocess keeps the Popen
    objects that nobody has any more, to wait for their processes when it starts the next one:
    that is the host's part now, as for those that come while the interpreter is taken apart."""
    subprocess = sys.modules.get("subprocess")
    if subprocess is None:
        return
    adopt = _host.adopt

    class Left(list):
        def append(self, popen, /):
            adopt(popen.pid)

    subprocess._cleanup()  # first: a pid that somebody else has waited for may be another's
    left, subprocess._active = subprocess._active, Left()
    for popen in left:
        adopt(popen.pid)


# ---- fork ---------------------------------------------------------------------------------

import posix


def forkpty():
    """Refused, as fork() is; CPython would say less."""
    _host.refuse_fork("os.forkpty")


posix.forkpty = forkpty


# ---- site ---------------------------------------------------------------------------------

_path_before_site = sys.path.copy()


def forget_site():
    """In a process whose image has imported site, for a task that is to be without: as after
    python -S. What .pth files and sitecustomize have imported stays."""
    import builtins

    for name in ("site", "sitecustomize", "usercustomize"):
        sys.modules.pop(name, None)
    for name in ("quit", "exit", "copyright", "credits", "license", "help"):
        builtins.__dict__.pop(name, None)
    sys.__dict__.pop("__interactivehook__", None)
    sys.path[:] = _path_before_site


# ---- policy -------------------------------------------------------------------------------

is_process = False  # this is a forked child, and its main interpreter
passes = None  # in a process whose task does not get everything: what it gets


def set_environ(wanted):
    """The environment of this process, C's as well: there is in it what programs of other
    interpreters have set, who share it with theirs."""
    import os

    _host.set_environ(wanted)
    if os.environ._data != wanted:
        os.environ._data.clear()
        os.environ._data.update(wanted)


def confine(no_exec, passed):
    """Before a task whose policy asks for it. `passed`: None, or in a process what it gets of
    whoever started it."""
    global passes, _guarded
    if no_exec and not _guarded:
        _guarded = True
        _guard_exec()
    if passed is None:
        return
    import os

    passes = passed
    if "environ" not in passed:
        set_environ({})
    if "cwd" not in passed:
        os.chdir("/")


_guarded = False


def _guard_exec():
    """multiprocessing starts its helpers by a function that raises no audit event."""
    try:
        import _posixsubprocess
    except ImportError:
        return
    original = _posixsubprocess.fork_exec

    def fork_exec(*args):
        _host.refuse_exec("fork_exec")
        return original(*args)

    _posixsubprocess.fork_exec = fork_exec


# ---- imports ------------------------------------------------------------------------------

import _imp

_check_modules = _imp._override_multi_interp_extensions_check


def _override_multi_interp_extensions_check(override, /):
    """(internal-only) As CPython's; what the policy refuses cannot be asked for with it."""
    if override < 0 and not _host.loads_anything():
        raise RuntimeError("the check of extension modules stays on: a module without support "
                           "for a GIL of its own would be shared by several GILs. "
                           "imports.unsupported = warn, of a policy, turns it off")
    return _check_modules(override)


_imp._override_multi_interp_extensions_check = _override_multi_interp_extensions_check


def _loading_anything(create):
    def load(spec, *args):
        try:
            return create(spec, *args)
        except ImportError as error:
            name = refused_module(error)
            if name is None:
                raise
        import warnings

        _host.note_import(name)
        warnings.warn(f"the extension module {name!r} does not support a GIL of its own, and was "
                      "loaded all the same: it may crash this process, or corrupt its memory. "
                      "imports.unsupported = shared or process is safe", RuntimeWarning, 2)
        before = _check_modules(-1)
        try:
            return create(spec, *args)
        finally:
            _check_modules(before)

    load.__name__ = load.__qualname__ = create.__name__
    load.__module__ = "_imp"
    return load


if _host.loads_anything():
    _imp.create_dynamic = _loading_anything(_imp.create_dynamic)
    _imp.create_builtin = _loading_anything(_imp.create_builtin)


# ---- calls of a pool ------------------------------------------------------------------

class ProcessExit(BaseException):
    """Instead of the end of the process, which would be that of all other calls, too."""


ProcessExit.__module__ = "subhost"
_HARMLESS = ("SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH")  # by default they are ignored
_CRASHES = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT")


def contain(process):
    """In an interpreter of a pool: what Python code ends its process with ends the call. What
    C code does to it, only a process of its own contains; there it is about the signals that
    the host takes, which end everything."""
    harmless = {getattr(_signal, name) for name in _HARMLESS}
    crashes = {getattr(_signal, name) for name in _CRASHES}
    taken = {_signal.SIGINT, _signal.SIGTERM}
    kill, killpg = posix.kill, posix.killpg
    raise_signal, pthread_kill = _signal.raise_signal, _signal.pthread_kill
    set_alarm, set_timer = _signal.alarm, _signal.setitimer

    def is_default(number):
        if number in harmless or process and number not in taken:
            return False
        handler = getsignal(number)
        # A handler in C of a crash (the runner's, faulthandler's) tells of it, and lets it end.
        return (handler == _SIG_DFL or handler is None and number in crashes
                or number in (_signal.SIGKILL, _signal.SIGSTOP))

    def told(number):
        """True: it needs not be sent, the program has been told."""
        if number not in range(1, _signal.NSIG):
            return False
        if is_default(number):
            raise ProcessExit(f"the signal {_signal_name(number)} to itself")
        handler = getsignal(number)
        if number not in taken:
            return False
        if not callable(handler):
            return handler == _SIG_IGN  # the process does not ignore it
        if handler is _default_int_handler and _thread.get_ident() == _host.driver_ident():
            raise KeyboardInterrupt
        _host.post_signal(number)  # to all of the process it would be the end of the calls
        return True

    def check_timer(number, what):
        if not process and is_default(number):
            raise RuntimeError(f"{what}: {_signal_name(number)}, which has no handler here, would "
                               "end the process of all calls; set one before, or use "
                               "--isolation process")

    def _exit(status):
        raise ProcessExit(f"os._exit({status!r})")

    def abort():
        raise ProcessExit("os.abort()")

    def contained_kill(pid, signal, /):
        if pid not in (posix.getpid(), 0, -posix.getpgrp()) or not told(signal):
            kill(pid, signal)

    def contained_killpg(pgid, signal, /):
        if pgid not in (0, posix.getpgrp()) or not told(signal):
            killpg(pgid, signal)

    def contained_raise_signal(signalnum, /):
        if not told(signalnum):
            raise_signal(signalnum)

    def contained_pthread_kill(thread_id, signalnum, /):
        if not told(signalnum):
            pthread_kill(thread_id, signalnum)

    def contained_alarm(seconds, /):
        if seconds:
            check_timer(_signal.SIGALRM, "signal.alarm()")
        return set_alarm(seconds)

    def contained_setitimer(which, seconds, interval=0.0, /):
        number = {_signal.ITIMER_REAL: _signal.SIGALRM, _signal.ITIMER_VIRTUAL: _signal.SIGVTALRM,
                  _signal.ITIMER_PROF: _signal.SIGPROF}.get(which)
        if seconds and number:
            check_timer(number, "signal.setitimer()")
        return set_timer(which, seconds, interval)

    _replace("os", posix, contained_kill, contained_killpg)
    _replace("signal", _signal, contained_raise_signal, contained_pthread_kill)
    if not process:
        _replace("os", posix, _exit, abort)
        _replace("signal", _signal, contained_alarm, contained_setitimer)


def _signal_name(number):
    return next((name for name in dir(_signal) if name.startswith("SIG")
                 and not name.startswith("SIG_") and getattr(_signal, name) == number),
                f"number {number}")


def _replace(above, module, *functions):
    """In `module`, and in the one that has its names from there."""
    for function in functions:
        function.__name__ = function.__qualname__ = function.__name__.removeprefix("contained_")
        for module_or_above in (module, sys.modules.get(above)):
            if module_or_above is not None:
                setattr(module_or_above, function.__name__, function)


def is_process_exit(error):
    return isinstance(error, ProcessExit)


def capture(stdout, stderr):
    """sys.stdout and sys.stderr into these descriptors, line by line. They stay the host's:
    what a program does to them must not close them."""
    import io

    for name, fd in (("stdout", stdout), ("stderr", stderr)):
        old = getattr(sys, name)
        stream = io.TextIOWrapper(
            io.BufferedWriter(io.FileIO(fd, "w", closefd=False)),
            encoding=getattr(old, "encoding", None) or "utf-8",
            errors=getattr(old, "errors", None) or "backslashreplace",
            line_buffering=True,
        )
        stream.mode = "w"
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


_at_fork = []  # what modules of the image have called in a child


def prepare_image():
    """In the main interpreter, before it imports what children are to have: what modules have
    called in a child waits for the child's main thread. The thread that forks is not that one,
    and threading would take it for it."""
    register = posix.register_at_fork

    def register_at_fork(**callbacks):
        others = dict(callbacks)
        in_child = others.pop("after_in_child", None)
        if is_process or not callable(in_child):
            register(**callbacks)
            return
        if others:
            register(**others)
        _at_fork.append(in_child)

    _replace("os", posix, register_at_fork)


def _run_at_fork():
    threading = sys.modules.get("threading")
    if threading is not None:
        # It is the thread that forked, of which nothing is left in this process.
        image = threading._main_thread
        threading._active.pop(image.ident, None)
        threading._dangling.discard(image)
    for function in _at_fork:
        try:
            function()
        except BaseException:  # as after a fork of CPython's: it is shown, and that is all
            sys.excepthook(*sys.exc_info())


def _refresh_environ():
    """An embedder may have changed it since the image was made."""
    os = sys.modules.get("os")
    if os is not None and os.environ._data != (now := _host.environ()):
        os.environ._data.clear()
        os.environ._data.update(now)


def become_child():
    """In a forked child, on the driver: this thread is the program's main thread, and state
    that belongs to the parent's helper processes is forgotten. What has at-fork handlers of
    its own (random, ssl, logging, threading) is put right by them."""
    global is_process
    is_process = True
    _refresh_environ()
    _run_at_fork()
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        process._children.clear()
        process._process_counter = type(process._process_counter)(1)
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._finalizer_registry.clear()
        util._run_after_forkers()
    for name, attribute in (
        ("multiprocessing.resource_tracker", "_resource_tracker"),
        ("multiprocessing.forkserver", "_forkserver"),
    ):
        module = sys.modules.get(name)
        if module is not None:
            # Its process would outlive us, and its pipe is closed here.
            helper = type(getattr(module, attribute))()
            old = getattr(module, attribute)
            setattr(module, attribute, helper)
            for function in [n for n in vars(module) if callable(vars(module)[n])]:
                if getattr(vars(module)[function], "__self__", None) is old:
                    setattr(module, function, getattr(helper, function))


# ---- cancel -----------------------------------------------------------------------------

_callbacks = []  # of on_cancel(), in the order in which they were registered


def begin_cancel(by_sigint):
    """Rung 1. The idents of threads that run an event loop, which was told: raising has to
    wait there."""
    for callback in list(_callbacks):
        try:
            callback()
        except BaseException:  # of a callback, SystemExit ends no program
            sys.excepthook(*sys.exc_info())
    told = []
    if not _host.cancel_requested():
        return told  # the task ended meanwhile
    for ident, frame in list(_host.current_frames().items()):
        while frame is not None:
            if _cancel_loop(frame, by_sigint):
                told.append(ident)
            frame = frame.f_back
    return told


def _cancel_loop(frame, by_sigint):
    """Has the event loop that this frame runs cancel its main task, in its own way."""
    name = frame.f_code.co_name
    if name == "run_until_complete":
        if by_sigint and "asyncio" in sys.modules:
            handler = _handlers.get(_signal.SIGINT)
            if handler is not None and _runner_handler(handler):
                handler(_signal.SIGINT, None)
                return True
        loop = frame.f_locals.get("self")
        future = frame.f_locals.get("future")
        if hasattr(future, "cancel") and hasattr(loop, "call_soon_threadsafe"):
            loop.call_soon_threadsafe(future.cancel)
            return True
    elif name in ("run", "unrolled_run") and (
        frame.f_globals.get("__name__") == "trio._core._run"
    ):
        runner = frame.f_locals.get("runner")
        if runner is not None and runner.main_task is not None:
            runner.entry_queue.run_sync_soon(_cancel_trio, runner)
            return True
    return False


def _cancel_trio(runner):
    runner.main_task.parent_nursery.cancel_scope.cancel()


def release_waiter():
    """Wakes this thread out of Condition.wait(): a spurious wake-up, which is legal, and
    after which the exception that is pending here is raised at once."""
    threading = sys.modules.get("threading")
    if threading is None:
        return
    frame = sys._getframe(1)
    if frame.f_code is not threading.Condition.wait.__code__:
        return
    waiter = frame.f_locals.get("waiter")
    condition = frame.f_locals.get("self")
    if waiter is None or not waiter.locked():
        return
    try:
        condition._waiters.remove(waiter)
    except ValueError:
        return  # notified meanwhile, or on its way out
    waiter.release()


def without_idle(idents):
    """The idents without those of threads that have nothing to be interrupted in:

    - a pool's idle workers: they wait for work, end when their pool is shut down, and would
      only log what is raised in them;
    - asyncio's helper that shuts such a pool down: its event loop would wait for ever;
    - threads that are just being started: who starts them would wait for ever;
    - threads that take or give back a Condition's lock: the `with` would not give it back."""
    pool = sys.modules.get("concurrent.futures.thread")
    base_events = sys.modules.get("asyncio.base_events")
    threading = sys.modules.get("threading")
    worker = _code(pool, "_worker")
    shutdown = _code(base_events, "BaseEventLoop", "_do_shutdown")
    thread_run = _code(threading, "Thread", "run")
    bootstrap = _code(threading, "Thread", "_bootstrap")
    bootstrap_inner = _code(threading, "Thread", "_bootstrap_inner")
    at_lock = [_code(threading, "Condition", name) for name in ("__enter__", "__exit__")]
    frames = _host.current_frames()

    def is_busy(ident):
        frame, above = frames.get(ident), None
        while frame is not None and frame.f_globals is globals():
            frame = frame.f_back  # this thread's own: what it is interrupted in
        if frame is None:
            return ident == _host.driver_ident()  # a cancel that came at the program's very end
        if frame.f_code is worker or frame.f_code in at_lock:
            return False
        if frame.f_code is thread_run:
            # About to call its target, which is not on the stack yet.
            target = _code(frame.f_locals.get("self"), "_target")
            if target is not None and target in (worker, shutdown):
                return False
        while frame is not None:
            if frame.f_code is shutdown or frame.f_code is bootstrap:
                return False
            if frame.f_code is bootstrap_inner:
                # Before and after run() it is threading's own functions that run there.
                return above is not None and (
                    above.f_code.co_name in ("run", "invoke_excepthook")
                    or above.f_globals is not frame.f_globals
                )
            frame, above = frame.f_back, frame
        return True

    busy = [ident for ident in idents if is_busy(ident)]
    # This frame is one of them: a cycle, which would keep the program's frames alive, and what
    # is to be closed with them.
    frames.clear()
    return busy


def _code(found, *names):
    """The code of the function that `found` is, or has behind these names; else None."""
    for name in names:
        found = getattr(found, name, None)
    return getattr(getattr(found, "__func__", found), "__code__", None)


def swallowers(idents, insist):
    """Of the threads that Cancelled was raised in, those that go on without it: it is not
    being handled there (an except or finally clause, a with statement's exit)."""
    current = _host.current_exceptions()
    found = []
    for ident in without_idle(idents):
        if insist or not _follows_cancelled(current.get(ident)):
            found.append(ident)
    return found


def _follows_cancelled(exception):
    seen = set()
    while exception is not None and id(exception) not in seen:
        if isinstance(exception, _host.Cancelled):
            return True
        seen.add(id(exception))
        exception = exception.__context__
    return False


def is_cancel(exception):
    """True for what a cancelled program may end with: Cancelled, what the event loop
    makes of it, and the error of a call that was ended early."""
    if isinstance(exception, (_host.Cancelled, KeyboardInterrupt)):
        return True
    if isinstance(exception, OSError):
        import errno

        return exception.errno == errno.ECANCELED
    if isinstance(exception, BaseExceptionGroup):
        return all(is_cancel(e) for e in exception.exceptions)
    if isinstance(exception, RuntimeError) and str(exception) in (
        "release unlocked lock",
        "cannot release un-acquired lock",
    ):
        # Raised between Condition.wait()'s release and its try: the `with` around it then
        # releases a lock that is not held. KeyboardInterrupt has the same race in python.
        return _follows_cancelled(exception)
    return is_of_loop(exception)


def is_of_loop(exception):
    """What an event loop raises in a task of its own that is cancelled."""
    for module, name in (("asyncio", "CancelledError"), ("trio", "Cancelled")):
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(exception, kind):
            return True
    return False


# ---- what `import subhost` shows beside the types in C --------------------------------


class _OnCancel:
    """The handle of an on_cancel() callback."""

    __slots__ = ("_callback",)

    def __init__(self, callback):
        self._callback = callback

    def remove(self):
        for i, callback in enumerate(_callbacks):
            if callback is self._callback:
                del _callbacks[i]
                return

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.remove()


def on_cancel(callback, /):
    """Have callback() run in this interpreter when a cancel arrives, before anything is
    raised. Returns a handle: .remove(), usable in `with`."""
    if not callable(callback):
        raise TypeError("on_cancel() needs a callable")

    def call():  # an identity of its own for each registration
        callback()

    _callbacks.append(call)
    return _OnCancel(call)


# ---- the start of a program ---------------------------------------------------------------


def prepare_command(source):
    """What of `-c CODE` is compiled."""
    # Only where it can change something: textwrap takes as long as all the rest.
    if sys.version_info >= (3, 14) and source.lstrip("\n")[:1] in (" ", "\t"):
        import textwrap

        source = textwrap.dedent(source)
    return source


command = None  # of `-c CODE`: what a nursery's tasks import as __mp_main__


def register_command(code, source):
    """Makes the lines of `-c CODE` known to tracebacks, as under python."""
    import linecache

    global command
    command = source
    if not hasattr(linecache, "_interactive_cache"):
        code = "<string>"  # 3.13.0: by the file's name
    linecache._register_code(code, source, "<string>")


def module_status(exception):
    """The exit status for runpy's complaint that -m MODULE is not there (127) or cannot be
    run (126); 0 when the program itself has exited."""
    traceback = exception.__traceback__
    if traceback is None or exception.__context__ is None or traceback.tb_next:
        return 0
    if traceback.tb_frame.f_code.co_name != "_run_module_as_main":
        return 0
    text = str(exception.code).removeprefix(sys.executable + ": ")
    exception.code = "subhost: " + text
    return 126 if "cannot be directly executed" in text else 127


# ---- the end of a program: what python's main() does ------------------------------------


def refused_module(exception):
    """The name of the module that refused a subinterpreter, else None. Its package may have
    raised an ImportError of its own for it."""
    for _ in range(10):
        if not isinstance(exception, ImportError):
            break
        text = exception.msg if isinstance(exception.msg, str) else ""
        name, mark, _ = text.partition(" does not support loading in subinterpreters")
        if mark and name.strip():
            return _full_name(name.split()[-1], exception.__traceback__)
        cause, context = exception.__cause__, exception.__context__
        exception = context if cause is None and not exception.__suppress_context__ else cause
    return None


def _full_name(name, traceback):
    """CPython often tells the last part only: then it is looked for beside who imports it."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    space = traceback.tb_frame.f_globals if traceback is not None else {}
    package, file = space.get("__package__"), space.get("__file__")
    if "." in name or not isinstance(package, str) or not package or not isinstance(file, str):
        return name
    from importlib.machinery import PathFinder

    full = f"{package}.{name}"
    return full if PathFinder.find_spec(full, [file.rpartition("/")[0]]) else name


def explain(exception):
    """A line for the user where a module refused a subinterpreter, else None."""
    name = refused_module(exception)
    return name and (
        f"subhost: the extension module {name!r} refuses an interpreter with a GIL of its"
        " own. Run the program with `--isolation process` or with `--gil shared`."
        f" `subhost audit modules {name}` says more."
    )
