"""The log of one command: two streams in one file, told apart by labels.

Each line is stored as three label bytes (stdout 01, stderr 02), the line, and a newline (observed on
v0.190.0). The file is the buffer: however slow a reader is and however much a command prints, nothing piles
up in memory.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator

STDOUT = b"\x01\x01\x01"
STDERR = b"\x02\x02\x02"
MAX_PARTIAL_BYTES = 1024 * 1024
"""A line may get this long before its beginning is logged without waiting for its end."""
READ_BYTES = 32 * 1024

_LABELLED = re.compile(rb"(\x01\x01\x01|\x02\x02\x02)((?:(?!\x01\x01\x01|\x02\x02\x02).)*)", re.DOTALL)


class Labeller:
    """Turns one stream into labelled lines. Pure. NULs are dropped, an unfinished line waits for its end."""

    def __init__(self, label: bytes) -> None:
        self._label = label
        self._partial = b""

    def feed(self, data: bytes) -> bytes:
        """Give the labelled form of the lines that ``data`` completes."""
        data = self._partial + data.replace(b"\0", b"")
        end = data.rfind(b"\n") + 1
        lines, self._partial = data[:end], data[end:]
        out = b""
        if lines:
            out = self._label + lines[:-1].replace(b"\n", b"\n" + self._label) + b"\n"
        if len(self._partial) > MAX_PARTIAL_BYTES:
            out += self._label + self._partial
            self._partial = b""
        return out

    def finish(self) -> bytes:
        """Give what is left as a line."""
        partial, self._partial = self._partial, b""
        return self._label + partial + b"\n" if partial else b""


def split(raw: bytes) -> tuple[str, str]:
    """Take a labelled log apart: (stdout, stderr). Bytes before the first label are dropped."""
    parts: dict[bytes, list[bytes]] = {STDOUT: [], STDERR: []}
    for label, text in _LABELLED.findall(raw):
        parts[label].append(text)
    out, err = (b"".join(parts[label]).decode("utf-8", "replace") for label in (STDOUT, STDERR))
    return out, err


def without_labels(raw: bytes) -> str:
    """Give a log as plain text, both streams in the order they came."""
    return raw.replace(STDOUT, b"").replace(STDERR, b"").decode("utf-8", "replace")


class CommandLog:
    """A log file that grows, and those who follow it."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._ended = False
        self._waiting: set[asyncio.Future[None]] = set()

    def append(self, data: bytes) -> None:
        """Add labelled lines. A full disk loses them; the command itself goes on."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            pass
        self._wake()

    def end(self) -> None:
        """Let the followers know that the command has ended."""
        self._ended = True
        self._wake()

    def close(self) -> None:
        """Release the file; followers end."""
        self.end()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def content(self) -> bytes:
        """Give everything logged so far."""
        if self._fd < 0:
            return b""
        size = os.fstat(self._fd).st_size
        return os.pread(self._fd, size, 0)

    async def follow(self) -> AsyncIterator[bytes]:
        """Give the log from its start in pieces, waiting for more until the command has ended."""
        offset = 0
        while self._fd >= 0:
            if piece := os.pread(self._fd, READ_BYTES, offset):
                offset += len(piece)
                yield piece
            elif self._ended:
                return
            else:
                await self._grown()

    async def _grown(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
