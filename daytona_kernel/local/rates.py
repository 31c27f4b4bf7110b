"""How many requests the server takes in a time, by kind, as the service limits them.

The kinds and their names in headers are the service's (``RateLimitConfig`` of its OpenAPI specification,
``X-RateLimit-{Limit,Remaining,Reset}-{name}``), the numbers are this server's: far above what kernels and
scripts need, and low enough that a loop gone wild does not take the machine. Calls to a sandbox's toolbox are
not counted, as its files may be thousands.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

WINDOW_S = 60.0
FAILED_AUTH = "failed-auth"
"""Requests without the key, wherever one is needed. Those with the key never wait for others' failures."""
AUTHENTICATED = "authenticated"
CREATE = "sandbox-create"
LIFECYCLE = "sandbox-lifecycle"
LIST = "sandbox-list"
PER_MINUTE: Mapping[str, int] = {
    FAILED_AUTH: 300,
    AUTHENTICATED: 30_000,
    CREATE: 600,
    LIFECYCLE: 3_000,
    LIST: 3_000,
}
"""Requests a minute; 0 stands for no limit."""

_LIFECYCLE = re.compile(r"/api/sandbox/[^/]+(/(start|stop|pause|archive|recover|resize|fork|snapshot))?")
_LISTS = ("/api/sandbox", "/api/sandbox/paginated")


def rates_of(text: str) -> dict[str, int]:
    """``sandbox-create=10,failed-auth=0`` as numbers a minute. ``ValueError``: no such kind, no number."""
    rates = dict(PER_MINUTE)
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = part.partition("=")
        if name not in rates or not re.fullmatch(r"[0-9]{1,9}", number):
            raise ValueError(
                f"DAYTONA_LOCAL_RATES has NAME=NUMBER with commas between, numbers a minute, names "
                f"{', '.join(rates)}; not {part!r}"
            )
        rates[name] = int(number)
    return rates


def kinds_of(method: str, path: str) -> tuple[str, ...]:
    """What a request with the key counts as."""
    if method == "GET" and path in _LISTS:
        return (AUTHENTICATED, LIST)
    if method == "POST" and path == "/api/sandbox":
        return (AUTHENTICATED, CREATE)
    match = _LIFECYCLE.fullmatch(path)
    if match and (method == "POST") == bool(match[1]) and method in ("POST", "DELETE"):
        return (AUTHENTICATED, LIFECYCLE)
    return (AUTHENTICATED,)


@dataclass
class _Window:
    """The requests of one kind since the window opened."""

    began: float = -math.inf
    used: int = 0


@dataclass
class Verdict:
    """Whether requests may pass, and what their answer's headers say about it."""

    headers: dict[str, str] = field(default_factory=dict)
    retry_after_s: int = 0
    """0: they may pass."""


class RateLimiter:
    """Counts by kind, in windows of a minute that open with the first request after the last one's end."""

    def __init__(self, rates: Mapping[str, int], clock: Callable[[], float] = time.monotonic) -> None:
        self._rates = rates
        self._clock = clock
        self._windows = {name: _Window() for name in rates}

    def take(self, *kinds: str) -> Verdict:
        """Count one request of all these kinds. One that may not pass is not counted."""
        now = self._clock()
        verdict = Verdict()
        limited = [(name, self._rates[name], self._window(name, now)) for name in kinds if self._rates[name]]
        full = [(name, window) for name, rate, window in limited if window.used >= rate]
        for name, rate, window in limited:
            window.used += not full
            reset = math.ceil(window.began + WINDOW_S - now)
            verdict.headers[f"X-RateLimit-Limit-{name}"] = str(rate)
            verdict.headers[f"X-RateLimit-Remaining-{name}"] = str(rate - window.used)
            verdict.headers[f"X-RateLimit-Reset-{name}"] = str(reset)
            if (name, window) in full:
                verdict.retry_after_s = max(verdict.retry_after_s, reset, 1)
        if full:
            verdict.headers["Retry-After"] = str(verdict.retry_after_s)
        return verdict

    def config(self) -> dict[str, dict[str, int]]:
        """The ``RateLimitConfig`` of ``GET /api/config``: its names are the kinds in camel case."""
        return {
            re.sub(r"-(\w)", lambda match: match[1].upper(), name): {"ttl": int(WINDOW_S), "limit": rate}
            for name, rate in self._rates.items()
            if rate
        }

    def _window(self, name: str, now: float) -> _Window:
        window = self._windows[name]
        if now - window.began >= WINDOW_S:
            window.began, window.used = now, 0
        return window
