"""What the main interpreter starts with instead of importlib's external half, `encodings`
and `io`.

It runs no program, and what it imports is builtin or frozen. To load the rest would be a good
part of the start of `subhost run -c pass`. So this stands in for it, as
_frozen_importlib_external, while CPython starts (embed/boot.c). Where the rest is asked for
after all, as by the init function of an extension module, which CPython calls in the main
interpreter, complete() has CPython load what it would have loaded at its start."""

import _codecs
import _io
import gc
import sys

gc.disable()  # what is made at the start stays
_started = False


def _install(bootstrap):
    """As that of importlib._bootstrap_external: CPython's start calls it."""
    global _bootstrap
    _bootstrap = bootstrap
    sys.modules["io"] = _io
    sys.modules["zipimport"] = None  # an ImportError; there, that is no failure
    sys.meta_path.append(sys.modules[__name__])


def started():
    """Called when CPython has started: what is not CPython's own must not be found."""
    global _started
    _started = True
    for name in "encodings", "encodings.utf_8", "io", "zipimport":
        del sys.modules[name]
    _codecs.unregister(_search)  # which empties the codecs' cache
    _codecs.register(_search)


def complete(wanted):
    """Makes it an interpreter like any other, when the module `wanted` is asked for."""
    this = _bootstrap._bootstrap_external
    if this.__dict__ is not globals():
        return
    gc.enable()
    sys.meta_path.remove(this)
    _codecs.unregister(_search)
    del sys.modules[__name__]
    _bootstrap._install_external_importers()
    if wanted != "encodings":
        import encodings  # it registers itself
    sys.path_hooks.insert(0, _zip_hook)


def _zip_hook(path):
    import zipimport  # not earlier: it may be what asked for the rest

    return zipimport.zipimporter(path)


# ---- in the place of sys.path's finder, and of functions that CPython looks up here --------


def find_spec(name, path=None, target=None):
    if _started:
        complete(name)
        return _bootstrap._bootstrap_external.PathFinder.find_spec(name, path, target)
    return _bootstrap.ModuleSpec(name, sys.modules[__name__]) if name == "encodings" else None


def create_module(spec):
    return None  # the default


def exec_module(module):
    sys.modules["encodings.utf_8"] = module
    _codecs.register(_search)


def __getattr__(name):
    if name.startswith("__") or not _started:
        raise AttributeError(name)
    complete(name)
    return getattr(_bootstrap._bootstrap_external, name)


# ---- UTF-8, for the names of files and the standard streams ------------------------------


class _Encoder:
    def __init__(self, errors="strict"):
        self.errors = errors

    def encode(self, text, final=False):
        return _codecs.utf_8_encode(text, self.errors)[0]

    def reset(self):
        pass

    def getstate(self):
        return 0

    def setstate(self, state):
        pass


class _Decoder:
    def __init__(self, errors="strict"):
        self.errors = errors
        self.rest = b""

    def decode(self, data, final=False):
        data = self.rest + data
        text, used = _codecs.utf_8_decode(data, self.errors, final)
        self.rest = data[used:]
        return text

    def reset(self):
        self.rest = b""

    def getstate(self):
        return self.rest, 0

    def setstate(self, state):
        self.rest = state[0]


class _CodecInfo(tuple):
    name = "utf-8"
    _is_text_encoding = True
    incrementalencoder = _Encoder
    incrementaldecoder = _Decoder


def _search(name):
    if not _started:
        utf_8 = _codecs.utf_8_encode, _codecs.utf_8_decode, None, None
        return _CodecInfo(utf_8) if name in ("utf-8", "utf_8") else None
    complete("encodings.*")
    import encodings

    return encodings.search_function(name)
