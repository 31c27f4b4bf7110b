"""Sandboxes that are already half started, so that creating one takes milliseconds.

A daemon needs a third of a second to import what it needs, and nothing of that depends on the sandbox. So one
or two daemons wait for their settings, each in its own private files under an id that the next sandbox will
take over. The pool is filled in the background and emptied when nobody has created a sandbox for a while.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

from .daemon import Daemon

log = logging.getLogger(__name__)

IDLE_SECONDS = 300.0
REFILL_SECONDS = 0.5


class WarmPool:
    """Daemons of the default kind, waiting. All methods run on the server's loop."""

    def __init__(self, size: int, start: Callable[[str], Awaitable[Daemon]], sandbox_dir: Path) -> None:
        self._size = self._least = size
        """How many spares there are to be, and how many of that without anybody's wish."""
        self._start = start
        self._sandbox_dir = sandbox_dir
        self._ready: list[Daemon] = []
        self._starting: set[asyncio.Task[Daemon | None]] = set()
        self._last_use = time.monotonic()
        self._closed = False

    @property
    def ids(self) -> list[str]:
        """Ids that are taken by waiting daemons."""
        return [daemon.spec.sandbox_id for daemon in self._ready]

    def want(self, count: int) -> None:
        """Keep at least so many spares, for as long as somebody wants them; 0 takes the wish back."""
        self._size = max(self._least, count)
        self.fill()

    def fill(self) -> None:
        """Start a daemon if one is missing, and the next when that one waits; returns at once.

        One at a time: on a small machine two would make the first one late, for which somebody may wait.
        """
        if self._closed or self._starting or len(self._ready) >= self._size:
            return
        task = asyncio.create_task(self._start_one())
        self._starting.add(task)
        task.add_done_callback(self._started)

    def fill_later(self) -> None:
        """Like :meth:`fill`, when the sandbox that was just taken has had a moment for itself."""
        if not self._closed:
            asyncio.get_running_loop().call_later(REFILL_SECONDS, self.fill)

    def _started(self, task: asyncio.Task[Daemon | None]) -> None:
        self._starting.discard(task)
        if task.result() is not None:
            self.fill_later()

    async def _start_one(self) -> Daemon | None:
        sandbox_id = str(uuid.uuid4())
        try:
            daemon = await self._start(sandbox_id)
        except Exception:
            log.exception("a spare sandbox could not be started")
            return None
        self._ready.append(daemon)
        return daemon

    async def take(self) -> Daemon | None:
        """A waiting daemon, also one that is being started; ``None`` if the pool is off or empty."""
        self._last_use = time.monotonic()
        if self._size and not self._ready and not self._starting:
            self.fill()
        while not self._ready and self._starting:
            await asyncio.wait(set(self._starting), return_when=asyncio.FIRST_COMPLETED)
        while self._ready:
            daemon = self._ready.pop(0)
            if daemon.alive:
                return daemon
            await self._discard(daemon)
        return None

    async def trim(self) -> None:
        """Give the spare daemons up when no sandbox was created for five minutes. Called now and then."""
        wanted = self._size if self._size > self._least else 0
        if len(self._ready) > wanted and time.monotonic() - self._last_use > IDLE_SECONDS:
            spare, self._ready = self._ready[wanted:], self._ready[:wanted]
            await asyncio.gather(*(self._discard(daemon) for daemon in spare))

    async def empty(self) -> None:
        """End all spare daemons."""
        spare, self._ready = self._ready, []
        await asyncio.gather(*(self._discard(daemon) for daemon in spare))

    async def close(self) -> None:
        """End all spare daemons and start no more."""
        self._closed = True
        while self._starting:
            await asyncio.wait(set(self._starting))
        await self.empty()

    async def _discard(self, daemon: Daemon) -> None:
        await daemon.stop(grace=0)
        await asyncio.to_thread(shutil.rmtree, self._sandbox_dir / daemon.spec.sandbox_id, True)
