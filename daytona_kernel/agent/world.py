"""The cell's world: what the interpreter's worker sets up differently from a Python of its own."""

from __future__ import annotations

import os
import sys
import sysconfig
import types
from typing import Any


class _AsModules(type):
    """A type that is found where modules' own type is looked up, as dill does to save a session."""

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is types.ModuleType

    def __hash__(cls) -> int:
        return hash(types.ModuleType)


class MainModule(types.ModuleType, metaclass=_AsModules):
    """``__main__`` around a namespace that exists already: the context's globals.

    The worker runs cells in a dict that belongs to no module, so pickling a class made in a cell, or spawning
    a process, can not find it (observed on v0.190.0). A module's own ``__dict__`` can not be set, so this one
    passes every access on.
    """

    def __init__(self, namespace: dict[str, Any]) -> None:
        super().__init__("__main__", "Automatically created module for IPython interactive environment")
        object.__setattr__(self, "_namespace", namespace)
        for name in ("__name__", "__package__", "__loader__", "__spec__"):
            namespace.setdefault(name, super().__getattribute__(name))
        namespace["__doc__"] = super().__getattribute__("__doc__")

    def __getattribute__(self, name: str) -> Any:
        namespace = object.__getattribute__(self, "_namespace")
        if name == "__dict__":
            return namespace
        if name in namespace:
            return namespace[name]
        return super().__getattribute__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__getattribute__(self, "_namespace")[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del object.__getattribute__(self, "_namespace")[name]
        except KeyError:
            raise AttributeError(name) from None

    def __dir__(self) -> list[str]:
        return sorted(object.__getattribute__(self, "_namespace"))

    def __repr__(self) -> str:
        return "<module '__main__'>"


# Libraries print the name of the type of a module.
MainModule.__name__ = MainModule.__qualname__ = "module"


def put_right(user_ns: dict[str, Any]) -> MainModule:
    """Give the namespace a ``__main__``, and ``sys.path`` and ``sys.argv`` what ipykernel's cells see."""
    module = MainModule(user_ns)
    sys.modules["__main__"] = module
    worker = getattr(sys, "argv", [""])[0]
    if sys.path and worker and sys.path[0] == os.path.dirname(os.path.abspath(worker)):
        del sys.path[0]
    # The arguments of a kernel's process, as a cell sees them that parses its own.
    launcher = os.path.join(sysconfig.get_path("purelib"), "ipykernel_launcher.py")
    sys.argv = [launcher, "-f", os.path.join(os.path.expanduser("~"), "kernel.json")]
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        # a group of its own, so that an interrupt reaches the cell's children and not the daemon
        if os.getpgid(0) != os.getpid():
            os.setpgid(0, 0)
    except OSError:
        pass
    return module
