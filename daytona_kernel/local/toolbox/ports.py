"""Listening ports (``/port``) and a way to what listens on them (``/proxy/{port}/...``)."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web
from multidict import CIMultiDict
from yarl import URL

from .errors import ToolboxError

LOWEST_CHECKED, HIGHEST_CHECKED = 3000, 9999
"""The range for which ``in-use`` answers (v0.190.0)."""
REFRESH_SECONDS = 1.0
PROBE_SECONDS = 0.5
_LISTEN = "0A"
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "expect",
        "host",
    }
)
_SOCKET_HEADERS = _HOP_BY_HOP | {
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
}

CLIENT = web.AppKey("proxy_client", list[aiohttp.ClientSession])
PORTS = web.AppKey("ports", dict[str, Any])
ALIASES = web.AppKey("port_aliases", dict[int, int])
"""Ports under which clients know programs of ours -> where these had to listen instead."""


# --- which ports --------------------------------------------------------------------------------------------


def listening(table: str) -> dict[str, int]:
    """Parse ``/proc/net/tcp``: the inode of each listening socket and its port. Pure."""
    found = {}
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTEN:
            found[fields[9]] = int(fields[1].rpartition(":")[2], 16)
    return found


def socket_inodes() -> set[str]:
    """List the sockets of all processes that can be seen: in a sandbox, those of the sandbox."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with os.scandir(f"/proc/{pid}/fd") as descriptors:
                for descriptor in descriptors:
                    match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(descriptor.path))
                    if match:
                        found.add(match[1])
        except OSError:
            continue  # it has ended, or is not ours to see
    return found


def listening_ports() -> list[int]:
    """List the TCP ports on which processes of the sandbox listen.

    A sandbox without a network of its own sees the whole machine's table; so only sockets that belong to a
    visible process count.
    """
    sockets: dict[str, int] = {}
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/net/{name}", encoding="ascii") as file:
                sockets |= listening(file.read())
        except OSError:
            continue
    if not sockets:
        return []
    own = socket_inodes()
    return sorted({port for inode, port in sockets.items() if inode in own})


async def list_ports(request: web.Request) -> web.Response:
    """List the listening ports; looked up at most once a second."""
    cache = request.app[PORTS]
    if time.monotonic() - cache.get("at", -REFRESH_SECONDS) >= REFRESH_SECONDS:
        cache["ports"] = await asyncio.to_thread(listening_ports)
        cache["at"] = time.monotonic()
    return web.json_response({"ports": cache["ports"]})


def port_of(request: web.Request, low: int = 1, high: int = 65535) -> int:
    """Read the port from the path.

    :raises ToolboxError: 400 if it is no number within the range.
    """
    text = request.match_info["port"]
    if not text.isdecimal() or not low <= int(text) <= high:
        raise ToolboxError(400, f"port must be a number from {low} to {high}, not {text!r}")
    return int(text)


async def in_use(request: web.Request) -> web.Response:
    """Tell whether something accepts connections on a port."""
    port = port_of(request, LOWEST_CHECKED, HIGHEST_CHECKED)
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection("localhost", port), PROBE_SECONDS)
    except (OSError, asyncio.TimeoutError):
        return web.json_response({"isInUse": False})
    writer.close()
    return web.json_response({"isInUse": True})


# --- the way there ------------------------------------------------------------------------------------------


def forwarded(headers: Iterable[tuple[str, str]], without: frozenset[str]) -> CIMultiDict[str]:
    """Copy headers for the next hop: without those named, and without those that Connection names."""
    pairs = list(headers)
    named = {
        token.strip().lower()
        for name, value in pairs
        if name.lower() == "connection"
        for token in value.split(",")
    }
    return CIMultiDict([(n, v) for n, v in pairs if n.lower() not in without and n.lower() not in named])


def target_url(request: web.Request, port: int) -> URL:
    """Give the URL inside the sandbox; path and query keep their exact bytes."""
    raw_path = request.rel_url.raw_path.split("/", 3)[3:]  # "", "proxy", port, rest
    query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
    return URL(f"http://localhost:{port}/{''.join(raw_path)}{query}", encoded=True)


async def proxy(request: web.Request) -> web.StreamResponse:
    """Pass a request on to what listens on a port; 502 with an empty body if nothing does."""
    port = port_of(request)
    port = request.app[ALIASES].get(port, port)
    if request.headers.get("Upgrade", "").lower() == "websocket":
        return await _proxy_socket(request, port)
    headers = forwarded(request.headers.items(), _HOP_BY_HOP)
    headers["Host"] = request.headers.get("Host", f"localhost:{port}")
    body = request.content.iter_any() if request.body_exists else None
    try:
        answer = await _client(request.app).request(
            request.method,
            target_url(request, port),
            headers=headers,
            data=body,
            allow_redirects=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )
    except aiohttp.ClientError:
        return web.Response(status=502)
    async with answer:
        response = web.StreamResponse(status=answer.status, reason=answer.reason)
        response.headers.extend(forwarded(answer.headers.items(), _HOP_BY_HOP))
        await response.prepare(request)
        if request.method != "HEAD":
            try:
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
            except aiohttp.ClientError:
                _cut(request)  # the answer broke off; so does this one
        return response


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _client(app: web.Application) -> aiohttp.ClientSession:
    """Give the session for proxied requests; made when it is first needed, as it is not when nobody asks."""
    if not app[CLIENT]:
        app[CLIENT].append(
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(limit=0, force_close=True),
            )
        )
    return app[CLIENT][0]


async def _proxy_socket(request: web.Request, port: int) -> web.StreamResponse:
    protocols = [p.strip() for p in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if p.strip()]
    try:
        inner = await _client(request.app).ws_connect(
            target_url(request, port),
            headers=forwarded(request.headers.items(), _SOCKET_HEADERS),
            protocols=protocols,
            max_msg_size=0,
            autoping=False,
            autoclose=False,
        )
    except aiohttp.WSServerHandshakeError as exc:
        return web.Response(status=exc.status)
    except aiohttp.ClientError:
        return web.Response(status=502)
    outer = web.WebSocketResponse(
        protocols=[inner.protocol] if inner.protocol else [],
        max_msg_size=0,
        autoping=False,
        autoclose=False,
        compress=False,
    )
    await outer.prepare(request)
    ways = [asyncio.ensure_future(_relay(inner, outer)), asyncio.ensure_future(_relay(outer, inner))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.wait(ways)
        await inner.close()
        await outer.close()
    return outer


async def _relay(source: Any, target: Any) -> None:
    """Pass messages on until one side closes; its code and reason are passed on too."""
    try:
        while True:
            message = await source.receive()
            if message.type is WSMsgType.TEXT:
                await target.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await target.send_bytes(message.data)
            elif message.type is WSMsgType.PING:
                await target.ping(message.data)
            elif message.type is WSMsgType.PONG:
                await target.pong(message.data)
            else:
                break
        if message.type is WSMsgType.CLOSE and message.data:
            reason = (message.extra or "").encode()
            await target.close(code=message.data, message=reason)
            await source.close(code=message.data, message=reason)
    except ConnectionError:
        pass


async def _close_client(app: web.Application) -> AsyncIterator[None]:
    yield
    for session in app[CLIENT]:
        await session.close()


def setup(app: web.Application) -> None:
    """Add the routes and the clean-up."""
    app[CLIENT] = []
    app[PORTS] = {}
    app[ALIASES] = {}
    app.cleanup_ctx.append(_close_client)
    app.router.add_get("/port", list_ports)
    app.router.add_get("/port/{port}/in-use", in_use)
    app.router.add_route("*", "/proxy/{port}", proxy)
    app.router.add_route("*", "/proxy/{port}/{path:.*}", proxy)
