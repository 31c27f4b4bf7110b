"""First code in the sandbox: imports the agent's modules from the sources sent along.

Run by ``exec`` in a namespace of its own that holds ``SOURCES`` (module path to source text), ``PACKAGE``,
``USER_NS`` (the context's globals) and ``OPTIONS``. Standard library only.
"""

import importlib.abc
import importlib.util
import sys

SOURCES: dict
PACKAGE: str
USER_NS: dict
OPTIONS: dict


class _Importer(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds the agent's modules in ``SOURCES``; asked last, and only ever for names of the package."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in SOURCES:
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package=self.is_package(fullname))

    def is_package(self, fullname):
        return fullname in (PACKAGE, PACKAGE + ".agent")

    def get_source(self, fullname):
        return SOURCES[fullname]

    def get_code(self, fullname):
        return compile(SOURCES[fullname], "<" + fullname + ">", "exec", dont_inherit=True)


if PACKAGE not in sys.modules:
    sys.meta_path.append(_Importer())
importlib.import_module(PACKAGE + ".agent.bootstrap").start(USER_NS, OPTIONS)
