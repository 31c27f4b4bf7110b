"""Passing a WebSocket through the server as bytes.

After the handshake neither side is parsed: what arrives on one connection is written to the other, so frames,
pings, close codes and reasons, and sudden ends pass exactly as they are, messages may have any size, and a
message costs two system calls. A side that does not read makes us stop reading from the other one, so memory
stays constant.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct

from aiohttp import web

log = logging.getLogger(__name__)

MAX_HEAD = 256 * 1024
HIGH_WATER = 256 * 1024
"""Bytes that may wait for one side before we stop reading from the other."""


class Side(asyncio.Protocol):
    """One of the two connections of a splice."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer: Side | None = None
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._early = bytearray()
        self._more: asyncio.Future[None] | None = None
        self._inner: asyncio.BaseProtocol | None = None

    def take_over(self, transport: asyncio.Transport, inner: asyncio.BaseProtocol | None) -> None:
        """Become the protocol of an open connection; `inner` is told when the connection ends."""
        self._inner = inner
        self.connection_made(transport)
        transport.set_protocol(self)
        with contextlib.suppress(RuntimeError):
            transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)

    def pair(self, peer: Side) -> None:
        """Send everything that this side receives to `peer` from now on, also what it received earlier."""
        self.peer = peer
        if self._early:
            self.data_received(bytes(self._early))
            self._early.clear()

    def data_received(self, data: bytes) -> None:  # noqa: D102
        if self.peer is None:
            self._early += data
            if self._more is not None and not self._more.done():
                self._more.set_result(None)
        elif self.peer.transport is not None and not self.peer.transport.is_closing():
            self.peer.transport.write(data)

    def pause_writing(self) -> None:  # noqa: D102
        if self.peer is not None and self.peer.transport is not None:
            with contextlib.suppress(RuntimeError):
                self.peer.transport.pause_reading()

    def resume_writing(self) -> None:  # noqa: D102
        if self.peer is not None and self.peer.transport is not None and not self.peer.transport.is_closing():
            with contextlib.suppress(RuntimeError):
                self.peer.transport.resume_reading()

    def eof_received(self) -> bool:  # noqa: D102
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        if self._inner is not None:
            self._inner.connection_lost(exc)
        if not self.lost.done():
            self.lost.set_result(None)
        if self.peer is None or self.peer.transport is None:
            return
        if exc is None:
            self.peer.transport.close()
        else:
            reset(self.peer.transport)

    async def read_early(self, count: int) -> bytes:
        """The first `count` bytes that arrived and nobody took, or fewer if the connection ends first."""
        while len(self._early) < count and not self.lost.done():
            self._more = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._more, self.lost], return_when=asyncio.FIRST_COMPLETED)
        return bytes(self._early[:count])

    def abort(self) -> None:
        """End the connection at once."""
        if self.transport is not None:
            reset(self.transport)

    def write(self, data: bytes) -> None:
        """Write bytes of our own, for the handshake."""
        assert self.transport is not None
        self.transport.write(data)


class HandshakeSide(Side):
    """The daemon's connection until its answer to the handshake is complete."""

    def __init__(self) -> None:
        super().__init__()
        self.head: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._received = bytearray()

    def data_received(self, data: bytes) -> None:  # noqa: D102
        if self.head.done():
            super().data_received(data)
            return
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end >= 0:
            head, rest = bytes(self._received[: end + 4]), bytes(self._received[end + 4 :])
            self._received.clear()
            self.head.set_result(head)
            if rest:
                super().data_received(rest)
        elif len(self._received) > MAX_HEAD:
            self.head.set_exception(ConnectionError("the answer to the handshake is too long"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        if not self.head.done():
            self.head.set_exception(exc or ConnectionError("the sandbox closed the connection"))
            self.head.exception()  # marks it as seen: the waiter may be gone
        super().connection_lost(exc)


class Hijacked(web.StreamResponse):
    """What a handler returns when it has answered on the bare connection itself."""

    def __init__(self, status: int = 101) -> None:
        super().__init__(status=status)
        self.force_close()

    @property
    def prepared(self) -> bool:
        """Nobody may add headers any more."""
        return True

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing: the answer has been sent."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing: the answer has been sent."""


def reset(transport: asyncio.Transport) -> None:
    """End a connection at once and visibly so: RST where there is one."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def open_handshake(path: str, head: bytes) -> tuple[HandshakeSide, bytes]:
    """Send an upgrade request to a daemon and return its connection and the head of its answer.

    ``OSError``: if there is no connection or it ends before the answer.
    """
    loop = asyncio.get_running_loop()
    _, upstream = await loop.create_unix_connection(HandshakeSide, path)
    upstream.write(head)
    try:
        return upstream, await upstream.head
    except BaseException:
        upstream.abort()
        raise


async def splice(request: web.Request, upstream: HandshakeSide, head: bytes) -> web.StreamResponse:
    """Answer `request` with the daemon's 101 and pass bytes until one side ends the connection."""
    transport = request.transport
    if transport is None:
        upstream.abort()
        return Hijacked()
    protocol = request.protocol
    # What the client sent right behind its handshake has been read by aiohttp already, into a private
    # attribute.
    early = bytes(getattr(protocol, "_message_tail", b""))
    client = Side()
    client.take_over(transport, protocol)
    client.write(head)
    upstream.pair(client)
    if early:
        upstream.write(early)
    client.pair(upstream)
    if upstream.lost.done():
        transport.close()
    try:
        await client.lost
    except asyncio.CancelledError:
        upstream.abort()
        client.abort()
        raise
    return Hijacked()
