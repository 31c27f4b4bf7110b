"""A bar for whatever takes more than a second."""

from __future__ import annotations

import time
from types import TracebackType

from .host import Host

SHOW_AFTER_S = 1.0
UPDATE_S = 0.25


class Progress:
    """Shows how far a command is, in one line that is written over, as tqdm does.

    Nothing is shown of what takes less than a second. Use it as a context manager.
    """

    def __init__(self, host: Host, label: str, total: float | None = None, unit: str = "B") -> None:
        self.done = 0.0
        self.total = total
        self.label = label
        self._host, self._unit = host, unit
        self._started = time.monotonic()
        self._shown_at = 0.0
        self._width = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        if self._width:
            self._show()
            self._host.progress(None)

    def add(self, count: float) -> None:
        """Count on."""
        self.done += count
        moment = time.monotonic()
        if moment - self._started >= SHOW_AFTER_S and moment - self._shown_at >= UPDATE_S:
            self._show()

    def _show(self) -> None:
        from tqdm import tqdm

        self._shown_at = time.monotonic()
        line = tqdm.format_meter(
            self.done,
            self.total or 0,
            self._shown_at - self._started,
            ncols=78,
            prefix=self.label,
            unit=self._unit,
            unit_scale=self._unit == "B",
            unit_divisor=1024,
        )
        self._host.progress(line.ljust(self._width))
        self._width = len(line)
