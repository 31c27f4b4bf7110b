"""What the daemon is told about its sandbox when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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


SETTINGS = web.AppKey("settings", ToolboxSettings)
SPAWN_ENV = web.AppKey("spawn_env", dict[str, str])
"""The environment of processes started from now on: settings.env as changed by ``POST /env``."""
