"""Time as the local server sees it: wall clock, ISO text, and a scale that tests use to shorten minutes."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone


def to_iso(moment: float) -> str:
    """Unix seconds as the control plane writes them: ``2026-01-01T00:00:00.000Z``."""
    text = datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def iso_now() -> str:
    """The current wall clock time as ISO text."""
    return to_iso(time.time())


def from_iso(text: str) -> float:
    """Unix seconds of an ISO time; also of the ``+0000`` form that the SDK puts into queries.

    ``ValueError``: if the text is no time.
    """
    cleaned = text.strip().replace(" ", "+")  # a "+" of a query that was not escaped
    if cleaned.endswith("Z"):
        cleaned = cleaned[:-1] + "+00:00"
    elif len(cleaned) > 5 and cleaned[-5] in "+-" and cleaned[-3] != ":":
        cleaned = f"{cleaned[:-2]}:{cleaned[-2:]}"
    parsed = datetime.fromisoformat(cleaned)
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=timezone.utc)
    return parsed.timestamp()


class Clock:
    """Wall clock whose minutes can be made shorter, and which tests can push forward."""

    def __init__(self, scale: float = 1.0) -> None:
        if scale <= 0:
            raise ValueError("the time scale must be greater than zero")
        self.scale = scale
        self._offset = timedelta(0)

    def now(self) -> float:
        """Unix seconds."""
        return time.time() + self._offset.total_seconds()

    def minutes(self, count: float) -> float:
        """Seconds that so many minutes of an interval last on this clock."""
        return count * 60.0 / self.scale

    def advance(self, seconds: float) -> None:
        """Push the clock forward, for tests."""
        self._offset += timedelta(seconds=seconds)
