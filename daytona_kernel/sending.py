"""Bytes on their way into the sandbox, over a line that breaks and past proxies that take no big bodies."""

from __future__ import annotations

import asyncio
import logging
import shlex
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from .errors import ConnectionFailed, DaytonaKernelError, SandboxProtocolError
from .remote import APPEND, run_script
from .toolbox import Toolbox, ToolboxError

log = logging.getLogger(__name__)

T = TypeVar("T")

PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Before each new attempt at the same bytes."""
PASSING = (408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524)
"""Statuses of what is in between, or of a connection that broke there, which may be others in a moment."""
TOO_LARGE = 413
PIECE_BYTES = 8 << 20
SMALLEST_BYTES = 256 << 10
"""Proxies that take less than that in one request are not met halfway."""
PIECE_TIMEOUT_S = 600.0
SECOND = ".2"
"""Ending of what is sent in pieces: the first attempt may still be being written there."""


def may_pass(exc: DaytonaKernelError) -> bool:
    """Whether the same request may succeed if it is made once more."""
    return isinstance(exc, ConnectionFailed) or (isinstance(exc, ToolboxError) and exc.status in PASSING)


def calls_for_pieces(exc: DaytonaKernelError) -> bool:
    """Whether what failed as one request may succeed as several."""
    return may_pass(exc) or is_too_large(exc)


def is_too_large(exc: DaytonaKernelError) -> bool:
    """Whether a proxy has said that the request has too many bytes."""
    return isinstance(exc, ToolboxError) and exc.status == TOO_LARGE


async def patiently(attempt: Callable[[], Awaitable[T]]) -> T:
    """What something gives that may be done twice, once the line is good enough. Raises its last error."""
    for pause_s in PAUSES_S:
        try:
            return await attempt()
        except DaytonaKernelError as exc:
            if not may_pass(exc):
                raise
            log.info("once more in %s s: %s", pause_s, exc)
        await asyncio.sleep(pause_s)
    return await attempt()


class Pieces:
    """Writes a file of the sandbox piece by piece; what has arrived is not sent again.

    A piece is a file of its own, of a new name at each attempt: an upload that was given up here may still
    be written there. Appending it may be asked for twice.
    """

    def __init__(self, toolbox: Toolbox, path: str) -> None:
        self.size = 0
        """Bytes that are in the file."""
        self._toolbox, self._path = toolbox, path
        self._most = PIECE_BYTES
        self._names: list[str] = []

    async def add(self, data: bytes) -> None:
        """Append bytes. Raises :class:`ConnectionFailed` and :class:`ToolboxError` if they do not arrive."""
        view = memoryview(data)
        while view:
            name, length = await self._upload(view)
            await self._append(name, length)
            view = view[length:]

    async def _upload(self, view: memoryview) -> tuple[str, int]:
        """Send as much as gets through in one request: the name of that piece, and its length.

        Short pieces rather get through a bad line; and who cuts off large ones does not always say so.
        """
        failures = 0
        while True:
            piece = bytes(view[: self._most])
            name = f"{self._path}.{uuid.uuid4().hex[:8]}"
            self._names.append(name)
            try:
                await self._toolbox.upload(name, piece, timeout_s=PIECE_TIMEOUT_S)
                return name, len(piece)
            except DaytonaKernelError as exc:
                if not calls_for_pieces(exc) or failures == len(PAUSES_S):
                    raise
                log.info("a piece of %d bytes did not arrive: %s", len(piece), exc)
                if is_too_large(exc) and self._most <= SMALLEST_BYTES:
                    raise
                if failures or is_too_large(exc):
                    self._most = max(SMALLEST_BYTES, min(self._most, len(piece)) // 2)
                if is_too_large(exc):
                    continue
            await asyncio.sleep(PAUSES_S[failures])
            failures += 1

    async def _append(self, name: str, length: int) -> None:
        async def ask() -> object:
            return await run_script(self._toolbox, APPEND, piece=name, path=self._path, offset=self.size)

        found = await patiently(ask)
        self.size += length
        if found != self.size:
            raise SandboxProtocolError(
                f"{self._path} has {found} bytes in the sandbox instead of {self.size}."
            )
        self._names.remove(name)

    async def tidy(self, *others: str) -> None:
        """Remove what failed attempts have left, and the others."""
        names, self._names = [*self._names, *others], []
        if names:
            with suppress(DaytonaKernelError):
                await self._toolbox.shell(f"rm -f {' '.join(map(shlex.quote, names))}")


async def store(toolbox: Toolbox, path: str, data: bytes, *, timeout_s: float) -> str:
    """Write a file, in one request if that gets through, else in pieces. The path that it is at then."""
    try:
        await toolbox.upload(path, data, timeout_s=timeout_s)
        return path
    except DaytonaKernelError as exc:
        if not calls_for_pieces(exc):
            raise
        log.info("%d bytes are sent in pieces: %s", len(data), exc)
    pieces = Pieces(toolbox, path + SECOND)
    try:
        await pieces.add(data)
    finally:
        await pieces.tidy(path)
    return path + SECOND
