"""Programs with C functions bound: the libraries of tests/native, and their signatures."""
import sysconfig
import textwrap

from programs import NATIVE, subhost


def library(name):
    """A library that was built from tests/native/NAME.c."""
    return NATIVE / (name + sysconfig.get_config_var("EXT_SUFFIX"))


PREAMBLE = """\
from subhost import native
def error(function, *args, **kwargs):
    try:
        return function(*args, **kwargs)
    except Exception as exception:
        return f"{type(exception).__name__}: {exception}"
"""


def run_with(functions, code, *options, **kw):
    """`subhost run` of CODE with {library: [signature ...]} bound; error(FUNCTION, ...) is what
    it returns, or the exception in words."""
    bound = [word for lib, signatures in functions.items()
             for signature in signatures for word in ("--native", f"{lib}:{signature}")]
    code = PREAMBLE + textwrap.dedent(code)
    return subhost("run", *options, *bound, "-c", code, **kw)
