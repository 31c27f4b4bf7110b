"""What the daemon's WebSocket endpoints have in common."""

from __future__ import annotations

from aiohttp import web

VERSION_PROTOCOL = "X-Daytona-SDK-Version~"


def offered_protocols(request: web.Request) -> list[str]:
    """List the subprotocols that the client offers."""
    values = request.headers.getall("Sec-WebSocket-Protocol", [])
    return [token.strip() for value in values for token in value.split(",") if token.strip()]


def wants_upgrade(request: web.Request) -> bool:
    """Tell whether the client asks for a WebSocket."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


async def upgrade(
    request: web.Request, *, accept: frozenset[str] = frozenset(), max_message_bytes: int = 64 * 1024
) -> web.WebSocketResponse:
    """Accept a WebSocket. Of the subprotocols offered, ``accept`` and the SDK's version are echoed."""
    known = [
        token for token in offered_protocols(request) if token in accept or token.startswith(VERSION_PROTOCOL)
    ]
    socket = web.WebSocketResponse(protocols=known, compress=False, max_msg_size=max_message_bytes)
    await socket.prepare(request)
    return socket
