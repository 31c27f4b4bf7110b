"""Forwarding requests to the daemon of a sandbox: HTTP and WebSocket, streaming both ways."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping

from aiohttp import web
from multidict import CIMultiDict

from .booting import Sandbox
from .errors import proxy_error_response
from .sandboxes import SandboxManager
from .splice import Hijacked, open_handshake, reset, splice
from .upstream import Answer, Connection, Upstream, UpstreamError, borrowed

log = logging.getLogger(__name__)

SKIP_ACTIVITY = "X-Daytona-Skip-Last-Activity-Update"
HOP_BY_HOP = frozenset(
    (
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te"),
        *("trailer", "transfer-encoding", "upgrade", "expect"),
    )
)
REFUSAL_SECONDS = 10.0
NOT_STARTED = "bad request: no IP address found. Is the Sandbox started?"
"""The service's words for a toolbox call to a sandbox that does not run."""
NO_HEADERS: CIMultiDict[str] = CIMultiDict()
REPEATABLE = ("GET", "HEAD", "OPTIONS")


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


class Forwarded(Hijacked):
    """An answer that was written to the client's connection as it came from the daemon."""

    def __init__(self, status: int, *, keep_alive: bool) -> None:
        super().__init__(status)
        self._stays_open = keep_alive

    @property
    def keep_alive(self) -> bool | None:
        """Whether the client's connection can carry another request."""
        return self._stays_open


class Relayed(web.Response):
    """An answer of the daemon, or of a program behind it, that was read whole before it goes on."""


def is_upgrade(request: web.Request) -> bool:
    """Whether the request asks for a WebSocket."""
    return (
        request.headers.get("Upgrade", "").lower() == "websocket"
        and "upgrade" in request.headers.get("Connection", "").lower()
    )


async def forward(
    manager: SandboxManager,
    sandbox: Sandbox,
    request: web.Request,
    target: str,
    headers: CIMultiDict[str],
    *,
    extra: Mapping[str, str] = NO_HEADERS,
) -> web.StreamResponse:
    """Send a request on to the sandbox's daemon at `target` (path and query, still encoded).

    `extra` headers are added to the answer.
    """
    upstream = sandbox.upstream
    if upstream is None or not sandbox.running or sandbox.record.state == "paused":
        return proxy_error_response(request, 400, NOT_STARTED)
    with ActivityGuard(manager, sandbox, request):
        try:
            if is_upgrade(request):
                return await _forward_websocket(upstream, request, target, headers)
            return await _forward_http(upstream, request, target, headers, extra)
        except (OSError, asyncio.TimeoutError) as exc:
            log.warning("sandbox %s: request could not be forwarded: %r", sandbox.record.id, exc)
            message = f"bad gateway: the sandbox's daemon does not answer ({type(exc).__name__})"
            return proxy_error_response(request, 502, message)


def request_headers(request: web.Request, drop: frozenset[str] = frozenset()) -> CIMultiDict[str]:
    """The client's headers without those of a single connection, and without `drop` (lower case)."""
    headers: CIMultiDict[str] = CIMultiDict()
    for name, value in request.headers.items():
        lowered = name.lower()
        if lowered not in HOP_BY_HOP and lowered not in drop:
            headers.add(name, value)
    return headers


def head_bytes(first_line: str, headers: Mapping[str, str], *more: str) -> bytes:
    """A request's or answer's head. Line ends in values can not occur: the parsers refuse them."""
    lines = [first_line, *(f"{name}: {value}" for name, value in headers.items()), *more, "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape")


async def _forward_websocket(
    upstream: Upstream, request: web.Request, target: str, headers: CIMultiDict[str]
) -> web.StreamResponse:
    head = head_bytes(f"GET {target} HTTP/1.1", headers, "Connection: Upgrade", "Upgrade: websocket")
    side, answer_head = await open_handshake(upstream.path, head)
    answer = Answer(answer_head[:-4])
    if answer.status == 101:
        return await splice(request, side, answer_head)
    body = await asyncio.wait_for(side.read_early(answer.length or 0), REFUSAL_SECONDS)
    side.abort()
    kept = _answer_headers(answer)
    kept.popall("Content-Length", None)
    return Relayed(status=answer.status, body=body, headers=kept)


async def _forward_http(
    upstream: Upstream,
    request: web.Request,
    target: str,
    headers: CIMultiDict[str],
    extra: Mapping[str, str],
) -> web.StreamResponse:
    chunked = request.body_exists and "Content-Length" not in headers
    more = ["Transfer-Encoding: chunked"] if chunked else []
    head = head_bytes(f"{request.method} {target} HTTP/1.1", headers, *more)
    if not request.body_exists and request.method in REPEATABLE:
        # The daemon may close a kept connection just when we take it. Without a body and side effects the
        # request can go out again on a new one; anything else gets a 502 rather than a second run.
        with contextlib.suppress(StaleConnectionError):
            return await _exchange(upstream, request, head, extra, fresh=False)
        return await _exchange(upstream, request, head, extra, fresh=True)
    try:
        return await _exchange(upstream, request, head, extra, fresh=request.body_exists, chunked=chunked)
    except StaleConnectionError as exc:
        raise UpstreamError(str(exc)) from exc


class StaleConnectionError(Exception):
    """A kept connection turned out to be closed before a byte of an answer came."""


async def _exchange(
    upstream: Upstream,
    request: web.Request,
    head: bytes,
    extra: Mapping[str, str],
    *,
    fresh: bool,
    chunked: bool = False,
) -> web.StreamResponse:
    async with borrowed(upstream, fresh=fresh) as (connection, used):
        sender: asyncio.Task[None] | None = None
        try:
            await connection.send(head)
            if request.body_exists:
                sender = asyncio.create_task(_send_body(request, connection, chunked=chunked))
            answer = await connection.read_head()
        except UpstreamError as exc:
            if used:
                raise StaleConnectionError(str(exc)) from exc
            raise
        finally:
            if sender is not None and not sender.done():
                await _settle_sender(sender, connection)
        return await _relay(request, connection, answer, extra)


async def _settle_sender(sender: asyncio.Task[None], connection: Connection) -> None:
    """An answer came (or the connection broke) before the whole body was sent: the rest is not wanted."""
    sender.cancel()
    await asyncio.wait([sender])
    connection.spoil()


async def _send_body(request: web.Request, connection: Connection, *, chunked: bool) -> None:
    while data := await request.content.readany():
        await connection.send(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
    if chunked:
        await connection.send(b"0\r\n\r\n")


async def _relay(
    request: web.Request, connection: Connection, answer: Answer, extra: Mapping[str, str]
) -> web.StreamResponse:
    """Write the daemon's answer to the client, as fast as the client reads."""
    transport = request.transport
    if transport is None:
        connection.abort()
        return Forwarded(answer.status, keep_alive=False)
    delimited = answer.length is not None or answer.chunked or answer.status in (204, 304)
    old_client = request.version < (1, 1)
    stays = bool(
        request.keep_alive and delimited and not (old_client and answer.chunked) and not answer.closes
    )
    headers = _answer_headers(answer)
    headers.extend(extra)
    if answer.chunked:
        headers["Transfer-Encoding"] = "chunked"
    headers["Connection"] = "keep-alive" if stays else "close"
    transport.write(head_bytes(f"HTTP/1.1 {answer.status} {answer.reason}", headers))
    try:
        async for data in connection.body(answer, no_body=request.method == "HEAD"):
            transport.write(data)
            await request.writer.drain()
    except UpstreamError as exc:
        # The status is out already; the client learns from the cut connection that the body is not whole.
        log.info("a forwarded answer was cut: %s", exc)
        reset(transport)
        return Forwarded(answer.status, keep_alive=False)
    except ConnectionError:
        connection.abort()
        return Forwarded(answer.status, keep_alive=False)
    return Forwarded(answer.status, keep_alive=stays)


def _answer_headers(answer: Answer) -> CIMultiDict[str]:
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in answer.headers.items():
        if name.lower() not in HOP_BY_HOP:
            kept.add(name, value)
    return kept
