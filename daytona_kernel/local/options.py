"""How the local server is set up: command line over environment over defaults."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from .paths import LocalPaths, local_paths
from .rates import PER_MINUTE, rates_of

IDLE_MINUTES = 15.0


@dataclass(frozen=True)
class ServerOptions:
    """Settings of one server process."""

    paths: LocalPaths = field(default_factory=local_paths)
    port: int = 0
    """TCP port on 127.0.0.1; 0 takes the last one again if it is free, else any."""
    advertise: str = ""
    """Base URL that clients are told (``toolboxProxyUrl``, preview links) where they come through a proxy."""
    isolation: str = "auto"
    """``auto``, ``bubblewrap`` or ``none``."""
    network: str = "auto"
    """``own``: each sandbox has one, by slirp4netns; ``shared``: the host's; ``auto``: own if possible."""
    python: str = sys.executable
    """Interpreter that sandboxes are made from by default."""
    bare: bool = False
    """Whether default sandboxes lack the host's packages."""
    idle_minutes: float = IDLE_MINUTES
    """The server ends after so many minutes without a started sandbox and a request; 0 never."""
    pool_size: int = 2
    """Spare daemons kept warm."""
    time_scale: float = 1.0
    """How much faster than real time intervals run, for tests."""
    preview_warning: bool = False
    """Whether browsers see the warning page before a preview."""
    rates: Mapping[str, int] = field(default_factory=lambda: dict(PER_MINUTE))
    """Requests a minute by kind (:mod:`.rates`); 0 for no limit."""

    def __post_init__(self) -> None:
        if self.advertise:
            parts = urlsplit(self.advertise)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"--advertise needs an http(s) URL, not {self.advertise!r}")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"{self.port} is no TCP port")
        if self.idle_minutes < 0 or self.pool_size < 0 or self.time_scale <= 0:
            raise ValueError(
                "idle minutes and pool size can not be negative, the time scale must be positive"
            )


def options_from_env(env: Mapping[str, str] | None = None) -> ServerOptions:
    """Read the ``DAYTONA_LOCAL_*`` variables.

    ``ValueError``: names the variable whose value makes no sense.
    """
    env = os.environ if env is None else env

    def number(name: str, default: float) -> float:
        text = env.get(name, "")
        try:
            return float(text) if text else default
        except ValueError:
            raise ValueError(f"{name} must be a number, not {text!r}") from None

    return ServerOptions(
        paths=local_paths(env),
        isolation=env.get("DAYTONA_LOCAL_ISOLATION") or "auto",
        network=env.get("DAYTONA_LOCAL_NETWORK") or "auto",
        python=env.get("DAYTONA_LOCAL_PYTHON") or sys.executable,
        bare=env.get("DAYTONA_LOCAL_BARE", "") in ("1", "true"),
        idle_minutes=number("DAYTONA_LOCAL_IDLE_MINUTES", IDLE_MINUTES),
        pool_size=int(number("DAYTONA_LOCAL_POOL", 2)),
        time_scale=number("DAYTONA_LOCAL_TIME_SCALE", 1.0),
        preview_warning=env.get("DAYTONA_LOCAL_PREVIEW_WARNING", "") in ("1", "true"),
        rates=rates_of(env.get("DAYTONA_LOCAL_RATES", "")),
    )
