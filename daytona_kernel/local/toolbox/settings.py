"""What the daemon is told about its sandbox when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(frozen=True)
class ToolboxSettings:
    """Facts about one sandbox, fixed for the life of its daemon. Paths are as seen inside the sandbox."""

    sandbox_id: str
    home_dir: str
    work_dir: str
    python: str
    """The Python that runs user code: the interpreter worker and ``python3`` on the PATH."""
    env: Mapping[str, str] = field(default_factory=dict)
    """The whole environment of user processes; nothing of the daemon's own environment leaks into them."""
    version: str = "0.190.0"
    entrypoint: str = ""
    """A shell command that runs as the session ``entrypoint`` from the start; empty for none."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ToolboxSettings:
        """Build settings from a JSON object; unknown keys are ignored.

        :raises ValueError: if a required key is missing or not a string.
        """
        for name in ("sandbox_id", "home_dir", "work_dir", "python"):
            if not isinstance(data.get(name), str):
                raise ValueError(f"{name} must be a string")
        return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})


SETTINGS = web.AppKey("settings", ToolboxSettings)
SPAWN_ENV = web.AppKey("spawn_env", dict[str, str])
"""The environment of processes started from now on: settings.env as changed by ``POST /env``."""
