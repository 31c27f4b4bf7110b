"""First code in the sandbox: imports the agent's modules from the sources sent along.

Run by ``exec`` in a namespace of its own that holds ``SOURCES`` (module path to source text), ``PACKAGE``,
``USER_NS`` (the context's globals) and ``OPTIONS``. Standard library only.
"""

import importlib.abc
import importlib.util
import sys
from typing import Any

_given = globals()
SOURCES = _given["SOURCES"]
PACKAGE = _given["PACKAGE"]


class _Importer(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds the agent's modules in ``SOURCES``; asked last, and only ever for names of the package."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname not in SOURCES:
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package=self.is_package(fullname))

    def is_package(self, fullname: str) -> bool:
        return fullname in (PACKAGE, PACKAGE + ".agent")

    def get_source(self, fullname: str) -> str:
        return str(SOURCES[fullname])

    def get_code(self, fullname: str) -> Any:
        return compile(SOURCES[fullname], "<" + fullname + ">", "exec", dont_inherit=True)


if PACKAGE not in sys.modules:
    sys.meta_path.append(_Importer())
importlib.import_module(PACKAGE + ".agent.bootstrap").start(_given["USER_NS"], _given["OPTIONS"])
