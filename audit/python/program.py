"""The program of an audit, run in an interpreter of its own (audit/report.c): makes the
frozen files of this directory importable as the package `subhost_audit`, collects, renders,
writes and answers."""

import sys
from importlib.machinery import ModuleSpec

import _subhost_audit

PACKAGE = "subhost_audit"


class Frozen:
    """Finder and loader of the package: its modules are in the library."""

    names = frozenset(_subhost_audit.names())

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == PACKAGE:
            return ModuleSpec(name, cls, origin="subhost", is_package=True)
        package, _, leaf = name.rpartition(".")
        if package == PACKAGE and leaf in cls.names:
            return ModuleSpec(name, cls, origin="subhost")
        return None

    @staticmethod
    def create_module(spec):
        return None

    @staticmethod
    def exec_module(module):
        leaf = module.__name__.partition(".")[2]
        if leaf:
            exec(_subhost_audit.code(leaf), module.__dict__)


def main():
    from importlib import import_module

    from subhost_audit import report

    request = report.Request(**_subhost_audit.request())
    try:
        kind = import_module(f"{PACKAGE}.{request.kind}")
        renderer = import_module(f"{PACKAGE}.render_{request.format}")
        document = report.complete(request, kind.collect(request))
        report.write(request, renderer.render(document, kind, request))
    except report.Failed as error:
        _subhost_audit.fail(str(error))
    else:
        _subhost_audit.answer(report.findings(document))


sys.meta_path.insert(0, Frozen)
main()
