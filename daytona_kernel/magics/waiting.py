"""A sign of life from whatever takes more than a moment."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

from .host import Host
from .words import duration

SHOW_AFTER_S = 1.0
EACH_S = 1.0


class Waiting:
    """Says that a command goes on, and since when, until it shows something itself.

    The words vanish when it is over. Where nobody looks, hosts show none of them.
    """

    def __init__(self, host: Host, name: str) -> None:
        self._host, self._name = host, name

    async def __aenter__(self) -> Waiting:
        self._task = asyncio.ensure_future(self._tick())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _tick(self) -> None:
        host, said, started = self._host, self._host.said, time.monotonic()
        await asyncio.sleep(SHOW_AFTER_S)
        try:
            while host.said == said:
                since = duration(int(time.monotonic() - started))
                host.show_status(f"{host.phase or self._name + ' …'} {since}")
                await asyncio.sleep(EACH_S)
        finally:
            if host.said == said:
                host.show_status(None)
