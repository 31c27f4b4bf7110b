"""State events over Socket.IO, so that clients do not have to poll.

Just the part of Engine.IO 4 and Socket.IO 5 that a client with the websocket transport uses: the open packet,
CONNECT with the key in it, EVENT packets from the server, pings from the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
from typing import Any

from aiohttp import WSMsgType, web

from .records import new_token

log = logging.getLogger(__name__)

PING_SECONDS = 25.0
CONNECT_SECONDS = 10.0
MAX_STRANGERS = 128
"""Connections that may wait for their CONNECT at a time; one more is turned away, and polls instead."""
QUEUE_LENGTH = 256
"""Events that may wait for one client; one that reads slower is disconnected and falls back to polling."""


class EventHub:
    """All connected listeners."""

    def __init__(self, api_key: str) -> None:
        self._api_key = api_key
        self._listeners: dict[web.WebSocketResponse, asyncio.Queue[str]] = {}
        self._strangers = 0

    @property
    def listeners(self) -> int:
        """How many clients are connected."""
        return len(self._listeners)

    def emit(self, event: str, data: dict[str, Any]) -> None:
        """Send an event to every listener, without waiting for any."""
        if not self._listeners:
            return
        packet = "42" + json.dumps([event, data], separators=(",", ":"))
        for socket, queue in list(self._listeners.items()):
            try:
                queue.put_nowait(packet)
            except asyncio.QueueFull:
                self._listeners.pop(socket, None)
                log.warning("an event listener is too slow and was disconnected")
                _abort(socket)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """``GET /api/socket.io/``: the websocket transport alone; anything else is refused."""
        if request.query.get("transport") != "websocket" or request.query.get("EIO", "4") != "4":
            return web.json_response({"code": 0, "message": "Transport unknown"}, status=400)
        if self._strangers >= MAX_STRANGERS:
            return web.json_response({"code": 3, "message": "Too many connections"}, status=503)
        socket = web.WebSocketResponse(max_msg_size=1_000_000)
        await socket.prepare(request)
        try:
            await self._converse(socket)
        except ConnectionError:
            log.debug("an event listener went away")
        return socket

    async def _converse(self, socket: web.WebSocketResponse) -> None:
        hello = {
            "sid": new_token(20),
            "upgrades": [],
            "pingInterval": 25000,
            "pingTimeout": 20000,
            "maxPayload": 1000000,
        }
        self._strangers += 1
        try:
            await socket.send_str("0" + json.dumps(hello, separators=(",", ":")))
            known = await self._connect(socket)
        finally:
            self._strangers -= 1
        if known:
            await self._serve(socket)
        await socket.close()

    async def _connect(self, socket: web.WebSocketResponse) -> bool:
        """Read the CONNECT packet and check its token."""
        try:
            packet = await asyncio.wait_for(socket.receive(), CONNECT_SECONDS)
        except asyncio.TimeoutError:
            return False
        token = ""
        if packet.type == WSMsgType.TEXT and packet.data.startswith("40"):
            with contextlib.suppress(ValueError):
                body = json.loads(packet.data[2:] or "{}")
                token = str(body.get("token", "")) if isinstance(body, dict) else ""
        if not hmac.compare_digest(token.encode(), self._api_key.encode()):
            await socket.send_str('44{"message":"Unauthorized"}')
            return False
        await socket.send_str("40" + json.dumps({"sid": new_token(20)}))
        return True

    async def _serve(self, socket: web.WebSocketResponse) -> None:
        queue: asyncio.Queue[str] = asyncio.Queue(QUEUE_LENGTH)
        self._listeners[socket] = queue
        sender = asyncio.create_task(self._send(socket, queue))
        try:
            async for message in socket:
                if message.type == WSMsgType.TEXT and message.data in ("1", "41"):
                    break
        finally:
            self._listeners.pop(socket, None)
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await sender

    async def _send(self, socket: web.WebSocketResponse, queue: asyncio.Queue[str]) -> None:
        while True:
            try:
                packet = await asyncio.wait_for(queue.get(), PING_SECONDS)
            except asyncio.TimeoutError:
                packet = "2"
            await socket.send_str(packet)

    async def close(self) -> None:
        """Disconnect everybody."""
        for socket in list(self._listeners):
            await socket.close(code=1001, message=b"server shutdown")


def _abort(socket: web.WebSocketResponse) -> None:
    request = socket._req  # the only way to the transport of a prepared response
    if request is not None and request.transport is not None:
        request.transport.abort()
