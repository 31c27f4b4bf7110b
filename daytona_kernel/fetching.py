"""The content of a file of the sandbox as it comes; if a connection breaks, the rest comes over another."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from .errors import ConnectionFailed, SandboxProtocolError
from .streaming import BLOCK
from .toolbox import Toolbox
from .toolbox import _raise_for_status as raise_for_status

if TYPE_CHECKING:
    from aiohttp import ClientResponse

TRANSFER_TIMEOUT_S = 6 * 3600.0
PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Before each new attempt; what comes then begins the row anew."""
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)\Z")


async def blocks(toolbox: Toolbox, path: str) -> AsyncIterator[bytes]:
    """The content of a file, block by block. Raises :class:`ConnectionFailed` if it ends too early."""
    async for pieces in gathered(toolbox, path):
        yield b"".join(pieces)


async def gathered(toolbox: Toolbox, path: str) -> AsyncIterator[list[bytes]]:
    """The content of a file as it comes, in lists of about a block.

    A connection that breaks is taken up again with a range (RFC 9110, section 14; Daytona's daemon serves
    them), as long as the file has the size and time that it had. Raises :class:`ConnectionFailed` when that
    fails too often in a row, and :class:`SandboxProtocolError` for a file that has changed.
    """
    source = _Source(toolbox, path)
    failures = 0
    while True:
        before = source.received
        try:
            async for pieces in source.rest():
                yield pieces
            return
        except ConnectionFailed:
            failures = failures + 1 if source.received == before else 1
            if not source.version or failures > len(PAUSES_S):
                raise
        await asyncio.sleep(PAUSES_S[failures - 1])


class _Source:
    """A file of the sandbox, and how much of which version of it has come."""

    def __init__(self, toolbox: Toolbox, path: str) -> None:
        self.received = 0
        self.version = ""
        """Time and size of the file as the first answer told them; empty if it can not be taken up again."""
        self._toolbox, self._path = toolbox, path

    async def rest(self) -> AsyncIterator[list[bytes]]:
        """What has not come yet."""
        async with self._toolbox._request(
            "GET",
            "/files/download",
            params={"path": self._path},
            headers={"Range": f"bytes={self.received}-"} if self.received else {},
            timeout_s=TRANSFER_TIMEOUT_S,
            read_bufsize=BLOCK,
        ) as answer:
            if self.received:
                await self._check(answer)
            else:
                await raise_for_status(answer)
                self.version = _version(answer, answer.headers.get("Content-Length", ""))
            async for pieces in _blocks_of(answer):
                self.received += sum(map(len, pieces))
                yield pieces

    async def _check(self, answer: ClientResponse) -> None:
        if answer.status >= 500:  # of a proxy, which is there again before the sandbox is
            raise ConnectionFailed(f"The sandbox did not go on sending {self._path} ({answer.status}).")
        if answer.status != 416:  # what has become too short has changed
            await raise_for_status(answer)
        found = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
        if (
            answer.status != 206
            or found is None
            or int(found[1]) != self.received
            or _version(answer, found[2]) != self.version
        ):
            raise SandboxProtocolError(f"{self._path} has changed while it was transferred.")


def _version(answer: ClientResponse, size: str) -> str:
    time = answer.headers.get("Last-Modified", "")
    return f"{time} {size}" if time and size else ""


async def _blocks_of(answer: ClientResponse) -> AsyncIterator[list[bytes]]:
    pending: list[bytes] = []
    size = 0
    async for piece in answer.content.iter_any():
        pending.append(piece)
        size += len(piece)
        if size >= BLOCK:
            yield pending
            pending, size = [], 0
    if pending:
        yield pending
