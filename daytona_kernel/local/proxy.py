"""Forwarding requests to the daemon of a sandbox: HTTP and WebSocket, streaming both ways."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from .errors import proxy_error_response
from .sandboxes import Sandbox, SandboxManager
from .splice import HeaderList, open_handshake, parse_head, splice

log = logging.getLogger(__name__)

SKIP_ACTIVITY = "X-Daytona-Skip-Last-Activity-Update"
HOP_BY_HOP = frozenset(
    ["connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade", "proxy-connection", "expect"]
)
EXTRA_HEADERS = "daytona-extra-headers"
"""Key of the request under which the preview leaves headers for the answer."""
REFUSAL_SECONDS = 10.0
NOT_STARTED = "bad request: no IP address found. Is the Sandbox started?"
"""The service's words for a toolbox call to a sandbox that does not run."""


class ActivityGuard:
    """Marks a sandbox as active while a request or WebSocket is open."""

    def __init__(self, manager: SandboxManager, sandbox: Sandbox, request: web.Request) -> None:
        self._manager = manager
        self._sandbox = sandbox
        self._counts = request.headers.get(SKIP_ACTIVITY, "").lower() != "true"

    def __enter__(self) -> None:
        if self._counts:
            self._sandbox.connections += 1
            self._manager.touch(self._sandbox)

    def __exit__(self, *_: object) -> None:
        if self._counts:
            self._sandbox.connections -= 1
            self._manager.touch(self._sandbox)


def is_upgrade(request: web.Request) -> bool:
    """Whether the request asks for a WebSocket."""
    return (
        request.headers.get("Upgrade", "").lower() == "websocket"
        and "upgrade" in request.headers.get("Connection", "").lower()
    )


async def forward(
    manager: SandboxManager, sandbox: Sandbox, request: web.Request, target: str, headers: CIMultiDict[str]
) -> web.StreamResponse:
    """Send a request on to the sandbox's daemon at `target` (path and query, still encoded)."""
    session = sandbox.session
    if session is None or not sandbox.running or sandbox.record.state == "paused":
        return proxy_error_response(request, 400, NOT_STARTED)
    with ActivityGuard(manager, sandbox, request):
        try:
            if is_upgrade(request):
                return await _forward_websocket(manager, sandbox, request, target, headers)
            return await _forward_http(session, request, target, headers)
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as exc:
            log.warning("sandbox %s: request could not be forwarded: %r", sandbox.record.id, exc)
            message = f"bad gateway: the sandbox's daemon does not answer ({type(exc).__name__})"
            return proxy_error_response(request, 502, message)


def request_headers(request: web.Request, drop: frozenset[str] = frozenset()) -> CIMultiDict[str]:
    """The client's headers without those that concern one connection only, and without `drop` (lower case)."""
    headers: CIMultiDict[str] = CIMultiDict()
    for name, value in request.headers.items():
        lowered = name.lower()
        if lowered not in HOP_BY_HOP and lowered not in drop:
            headers.add(name, value)
    return headers


async def _forward_websocket(
    manager: SandboxManager, sandbox: Sandbox, request: web.Request, target: str, headers: CIMultiDict[str]
) -> web.StreamResponse:
    lines: HeaderList = [*headers.items(), ("Connection", "Upgrade"), ("Upgrade", "websocket")]
    upstream, head = await open_handshake(manager.socket_name(sandbox), target, lines)
    status, answered = parse_head(head)
    if status == 101:
        return await splice(request, upstream, head)
    length = answered.get("Content-Length", "0")
    body = await asyncio.wait_for(
        upstream.read_early(int(length) if length.isdigit() else 0), REFUSAL_SECONDS
    )
    assert upstream.transport is not None
    upstream.transport.abort()
    return web.Response(
        status=status, body=body, headers=_answer_headers(answered, drop=frozenset({"content-length"}))
    )


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    while chunk := await request.content.readany():
        yield chunk


async def _forward_http(
    session: aiohttp.ClientSession, request: web.Request, target: str, headers: CIMultiDict[str]
) -> web.StreamResponse:
    data = _body(request) if request.body_exists else None
    url = URL(f"http://daemon{target}", encoded=True)
    async with session.request(
        request.method, url, headers=headers, data=data, allow_redirects=False
    ) as answer:
        response = web.StreamResponse(status=answer.status, reason=answer.reason)
        response.headers.extend(_answer_headers(answer.headers))
        for name, value in request.get(EXTRA_HEADERS, {}).items():
            response.headers.add(name, value)
        if "Content-Length" not in answer.headers and _has_body(request, answer):
            response.enable_chunked_encoding()
        try:
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
        except (aiohttp.ClientError, OSError) as exc:
            # The status has been sent; the client learns from the cut connection that the body is not whole.
            log.info("a forwarded answer was cut: %r", exc)
            _cut(request)
        except asyncio.CancelledError:
            answer.close()
            raise
        return response


def _has_body(request: web.Request, answer: aiohttp.ClientResponse) -> bool:
    return request.method != "HEAD" and answer.status not in (204, 304) and request.version >= (1, 1)


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _answer_headers(headers: object, drop: frozenset[str] = frozenset()) -> CIMultiDict[str]:
    assert hasattr(headers, "items")
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        lowered = name.lower()
        if lowered not in HOP_BY_HOP and lowered not in drop:
            kept.add(name, value)
    return kept
