"""HTTP connections to a sandbox's daemon, kept open between requests.

The answer's body is handed on as the bytes that arrived, with the chunk marks of a chunked body in place: the
server does not look into bodies, it only has to know where one ends. That makes forwarding cheap enough for
gigabytes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

from multidict import CIMultiDict

HEAD_LIMIT = 1024 * 1024
HIGH_WATER = 512 * 1024
"""Bytes of an answer that may wait for the client before we stop reading."""
IDLE_SECONDS = 15.0
"""Unused connections are closed well before the daemon would close them (75 s)."""
MAX_IDLE = 8
CONNECT_SECONDS = 10.0


class UpstreamError(ConnectionError):
    """The daemon closed the connection, or sent something that is not HTTP."""


class ChunkedEnd:
    """Finds the end of a chunked body; fed with the body as it arrives. Pure."""

    def __init__(self) -> None:
        self._left = 0
        """Bytes of the current chunk, with its line end, that have not come yet."""
        self._line = bytearray()
        self._trailers = False

    def feed(self, data: bytes) -> int:
        """Position behind the body's end in `data`, or -1 if it goes on. ``UpstreamError``: bad framing."""
        place, size = 0, len(data)
        while place < size:
            if self._left:
                step = min(self._left, size - place)
                self._left -= step
                place += step
                continue
            end = data.find(b"\n", place)
            if end < 0:
                self._line += data[place:]
                if len(self._line) > 16384:
                    raise UpstreamError("a chunk's first line is too long")
                return -1
            line = bytes(self._line + data[place:end]).strip()
            self._line.clear()
            place = end + 1
            if self._trailers:
                if not line:
                    return place
                continue
            try:
                count = int(line.partition(b";")[0], 16)
            except ValueError:
                raise UpstreamError("a chunk without a size") from None
            self._trailers = count == 0
            self._left = count + 2 if count else 0
        return -1


class Answer:
    """Status line and headers of a daemon's answer."""

    def __init__(self, head: bytes) -> None:
        lines = head.decode("utf-8", "surrogateescape").split("\r\n")
        parts = lines[0].split(" ", 2)
        if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
            raise UpstreamError("the sandbox sent something that is not HTTP")
        self.status = int(parts[1])
        self.reason = parts[2] if len(parts) > 2 else ""
        self.headers: CIMultiDict[str] = CIMultiDict()
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if colon:
                self.headers.add(name.strip(), value.strip())
        self.chunked = "chunked" in self.headers.get("Transfer-Encoding", "").lower()
        length = self.headers.get("Content-Length", "")
        self.length = int(length) if length.isdigit() else None
        self.closes = "close" in self.headers.get("Connection", "").lower()


class Connection(asyncio.Protocol):
    """One connection to a daemon; carries one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.lost = False
        self._pieces: deque[bytes] = deque()
        self._waiting = 0
        self._reading_paused = False
        self._wake: asyncio.Future[None] | None = None
        self._drain: asyncio.Future[None] | None = None
        self._used_up = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)

    def data_received(self, data: bytes) -> None:  # noqa: D102
        self._pieces.append(data)
        self._waiting += len(data)
        if self._waiting > HIGH_WATER and not self._reading_paused and self.transport is not None:
            self.transport.pause_reading()
            self._reading_paused = True
        self._notify()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self.lost = True
        self._notify()
        if self._drain is not None and not self._drain.done():
            self._drain.set_result(None)

    def pause_writing(self) -> None:  # noqa: D102
        self._drain = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:  # noqa: D102
        if self._drain is not None and not self._drain.done():
            self._drain.set_result(None)
        self._drain = None

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    @property
    def reusable(self) -> bool:
        """Whether another request may use the connection."""
        return not (self.lost or self._used_up or self._pieces)

    def spoil(self) -> None:
        """Use the connection for the current answer only."""
        self._used_up = True

    def abort(self) -> None:
        """End the connection at once."""
        self._used_up = True
        if self.transport is not None:
            self.transport.abort()

    async def send(self, data: bytes) -> None:
        """Write, and wait while the daemon reads slower than we write. ``UpstreamError``: it is gone."""
        if self.lost or self.transport is None:
            raise UpstreamError("the sandbox closed the connection")
        self.transport.write(data)
        if self._drain is not None:
            await self._drain

    async def _next(self) -> bytes:
        """The next bytes; empty at the end of the connection."""
        while not self._pieces:
            if self.lost:
                return b""
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        data = self._pieces.popleft()
        self._waiting -= len(data)
        if self._reading_paused and self._waiting < HIGH_WATER // 2 and self.transport is not None:
            self._reading_paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()
        return data

    def _push_back(self, data: bytes) -> None:
        if data:
            self._pieces.appendleft(data)
            self._waiting += len(data)

    async def read_head(self) -> Answer:
        """The next answer's status and headers; interim answers (1xx, but not 101) are skipped.

        ``UpstreamError``: the connection ended before.
        """
        received = b""
        while True:
            end = received.find(b"\r\n\r\n")
            if end >= 0:
                answer = Answer(received[:end])
                received = received[end + 4 :]
                if answer.status >= 200 or answer.status == 101:
                    self._push_back(received)
                    return answer
                continue
            if len(received) > HEAD_LIMIT:
                self.abort()
                raise UpstreamError("the sandbox's answer has too many headers")
            piece = await self._next()
            if not piece:
                raise UpstreamError("the sandbox closed the connection without an answer")
            received += piece

    async def body(self, answer: Answer, *, no_body: bool) -> AsyncIterator[bytes]:
        """The answer's body as it arrives, chunk marks included. ``UpstreamError``: it ends too early."""
        if answer.closes:
            self._used_up = True
        if no_body or answer.status in (204, 304) or answer.length == 0:
            return
        end = ChunkedEnd() if answer.chunked else None
        left = answer.length
        whole = False
        try:
            while not whole:
                data = await self._next()
                if not data:
                    if end is None and left is None:
                        return
                    raise UpstreamError("the sandbox's answer ended too early")
                if end is not None:
                    place = end.feed(data)
                elif left is not None:
                    place = left if len(data) >= left else -1
                    left -= min(len(data), left)
                else:
                    place = -1
                if place >= 0:
                    self._push_back(data[place:])
                    data = data[:place]
                    whole = True
                yield data
        finally:
            if not whole:
                self._used_up = True


class Upstream:
    """The connections to one daemon."""

    def __init__(self, path: str) -> None:
        self.path = path
        """Address of the daemon's socket."""
        self._idle: list[tuple[float, Connection]] = []
        self._open: set[Connection] = set()
        self._closed = False

    async def connect(self) -> tuple[Connection, bool]:
        """A connection and whether it has been used before. ``OSError``: the daemon does not listen."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            since, connection = self._idle.pop()
            if connection.reusable and now - since < IDLE_SECONDS:
                return connection, True
            self._drop(connection)
        return await self.fresh(), False

    async def fresh(self) -> Connection:
        """A new connection. ``OSError``: the daemon does not listen."""
        if self._closed:
            raise UpstreamError("the sandbox has stopped")
        loop = asyncio.get_running_loop()
        opening = loop.create_unix_connection(Connection, self.path)
        _, connection = await asyncio.wait_for(opening, CONNECT_SECONDS)
        self._open.add(connection)
        return connection

    def release(self, connection: Connection) -> None:
        """Give a connection back after a whole answer; one that can not be used again is closed."""
        if self._closed or not connection.reusable:
            self._drop(connection)
        else:
            self._idle.append((asyncio.get_running_loop().time(), connection))
            if len(self._idle) > MAX_IDLE:
                self._drop(self._idle.pop(0)[1])

    def _drop(self, connection: Connection) -> None:
        self._open.discard(connection)
        connection.abort()

    def close(self) -> None:
        """End all connections, also those in use."""
        self._closed = True
        self._idle.clear()
        for connection in list(self._open):
            self._drop(connection)


@contextlib.asynccontextmanager
async def borrowed(upstream: Upstream, *, fresh: bool = False) -> AsyncIterator[tuple[Connection, bool]]:
    """A connection for one request; given back when the request ends well, ended otherwise."""
    connection, used = (await upstream.fresh(), False) if fresh else await upstream.connect()
    try:
        yield connection, used
    except BaseException:
        connection.abort()
        raise
    finally:
        upstream.release(connection)
