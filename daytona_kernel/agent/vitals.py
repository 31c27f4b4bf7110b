"""What the process can not do without, put back after user code has broken it.

The interpreter's worker looks everything up when it uses it: ``json.dump``, modules, builtins. A cell that
changes these would end the worker with the next line it writes, and all variables with it.
"""

from __future__ import annotations

import builtins
import json
import sys
from typing import Any


class Vitals:
    """The state of a healthy process, as it was when the agent had started."""

    def __init__(self) -> None:
        self._builtins = dict(builtins.__dict__)
        self._json = dict(json.__dict__)
        self._modules: dict[str, Any] = {}
        self._users_json: dict[str, Any] = {}

    def learn_modules(self) -> None:
        """Remember the modules of Python, the agent and the shell."""
        self._modules = dict(sys.modules)

    def put_back(self) -> list[str]:
        """Make the process fit for the worker again; what the person should know of it.

        What was changed in ``json`` is kept for :meth:`give_back`.
        """
        said = []
        missing = [name for name in self._builtins if name not in builtins.__dict__]
        if missing:
            builtins.__dict__.update((name, self._builtins[name]) for name in missing)
            said.append(f"builtins that had been deleted are back: {', '.join(missing[:5])}")
        if any(name not in sys.modules for name in ("builtins", "sys", "os", "json")):
            for name, module in self._modules.items():
                sys.modules.setdefault(name, module)
            said.append("sys.modules had been emptied; the modules that the kernel needs are back")
        self._users_json = {
            name: value for name, value in json.__dict__.items() if self._json.get(name) is not value
        }
        if self._users_json or len(json.__dict__) != len(self._json):
            json.__dict__.update(self._json)
        return said

    def give_back(self) -> None:
        """Before a cell: what user code had put in the place of things that still work."""
        json.__dict__.update(self._users_json)
