"""A file on its way up: read and hashed one block ahead of the network, with its length known beforehand."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from typing import IO

from aiohttp import payload

BLOCK = 1 << 20


class FileChanged(OSError):
    """A file has become shorter while it was sent."""


class FileStream:
    """The blocks of an open file, each read and hashed in a thread while the one before is being sent.

    What is added to the file meanwhile is not sent: its length has been promised. ``count`` hears the bytes.
    """

    def __init__(self, file: IO[bytes], count: Callable[[int], None]) -> None:
        self.size = os.fstat(file.fileno()).st_size
        self.failure: OSError | None = None
        """Why the file could not be read to its end; the HTTP client only says that sending has failed."""
        self._file, self._count = file, count
        self._left = self.size
        self._digest = hashlib.sha256()
        self._next = self._begin()

    @property
    def sha256(self) -> str:
        """The digest of what has been read, in hexadecimal."""
        return self._digest.hexdigest()

    def _begin(self) -> asyncio.Future[bytes]:
        return asyncio.get_running_loop().run_in_executor(None, self._read)

    def _read(self) -> bytes:
        block = self._file.read(min(BLOCK, self._left))
        if not block and self._left:
            raise FileChanged(None, "it became shorter while it was sent")
        self._left -= len(block)
        self._digest.update(block)
        return block

    async def blocks(self) -> AsyncIterator[bytes]:
        """The file's bytes, once. Raises :class:`OSError` if it can not be read, also kept as ``failure``."""
        try:
            while block := await asyncio.shield(self._next):
                self._next = self._begin()
                yield block
                self._count(len(block))
        except OSError as exc:
            self.failure = exc
            raise

    async def settle(self) -> None:
        """Wait for the block that is being read: only then may the file be closed."""
        await asyncio.wait([self._next])
        if not self._next.cancelled():
            self._next.exception()

    def body(self, filename: str) -> payload.Payload:
        """The file as a part of a form."""
        return _SizedBody(self, filename)


class _SizedBody(payload.AsyncIterablePayload):
    """With its size, the request has a Content-Length, and nobody on the way has to chop it into chunks."""

    def __init__(self, stream: FileStream, filename: str) -> None:
        super().__init__(stream.blocks(), filename=filename, content_type="application/octet-stream")
        self._size = stream.size
