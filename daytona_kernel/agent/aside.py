"""Comm messages that reach a cell while it awaits: a widget that the cell waits for is moved.

The interpreter runs one execution at a time, so these come as files that the kernel uploads into the spool,
numbered, in order. A cell that has them says so with a frame ``aside``, and with ``aside_done`` after each.
What has not been answered when the cell ends never will be: the kernel then sends it as a request of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .outbox import Outbox

POLL_S = 0.01
_loads = json.JSONDecoder().decode  # user code may break what is in the module


class Aside:
    """Looks for such files while it is open. Runs in the cell's event loop."""

    def __init__(self, outbox: Outbox, directory: str, serve: Callable[[dict[str, Any]], None]) -> None:
        self._outbox = outbox
        self._directory = directory
        self._serve = serve
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._number = 0
        self.execution_id = ""

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """The cell awaits from now on."""
        if not self._directory:
            return
        self._loop, self._number = loop, 0
        self._outbox.post("aside", {}, flush=False)
        self._timer = loop.call_later(POLL_S, self._look)

    def close(self) -> None:
        """The cell has ended."""
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        loop = self._loop
        if loop is None:
            return
        try:
            while (request := self._next()) is not None:
                try:
                    # A context of its own: what it prints belongs to the message and not to the cell.
                    contextvars.copy_context().run(self._serve, request)
                finally:
                    self._outbox.post("aside_done", {"number": self._number})
                    self._number += 1
        finally:
            if self._loop is loop:
                self._timer = loop.call_later(POLL_S, self._look)

    def _next(self) -> dict[str, Any] | None:
        path = os.path.join(self._directory, f"aside-{self.execution_id}-{self._number}")
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except OSError:
            return None
        if not text.endswith("\n"):  # the upload is not complete yet
            return None
        with suppress(OSError):
            os.unlink(path)
        request = _loads(text)
        return request if isinstance(request, dict) else {}
