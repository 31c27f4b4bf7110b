"""What the server forwards, exactly and in constant memory. The daemon is one of the test's."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import shutil
import socket
import struct
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import websockets.asyncio.client
import websockets.exceptions
from aiohttp import WSMsgType, web

from daytona_kernel.local.upstream import ChunkedEnd, Upstream, UpstreamError

from .conftest import Running

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024


class Daemon:
    """Stands in a sandbox's place behind the server; remembers what reached it."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.requests: list[str] = []
        self.aborted = asyncio.Event()
        self.sent = 0
        self.stalled = asyncio.Event()

    async def echo(self, request: web.Request) -> web.Response:
        self.headers.append(dict(request.headers))
        self.requests.append(f"{request.method} {request.raw_path}")
        body = await request.read()
        return web.Response(status=int(request.query.get("status", 200)), body=body, headers={"X-Own": "yes"})

    async def digest(self, request: web.Request) -> web.Response:
        found = hashlib.sha256()
        async for chunk in request.content.iter_any():
            found.update(chunk)
        return web.Response(text=found.hexdigest())

    async def stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if "length" in request.query:
            response.content_length = int(request.query["length"])
        else:
            response.enable_chunked_encoding()
        await response.prepare(request)
        for index in range(int(request.query["chunks"])):
            await response.write(bytes([index % 256]) * int(request.query["size"]))
        return response

    async def cut(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    async def dies(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} dies")
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def ws(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        if "refuse" in request.query:
            return web.json_response({"message": "taken"}, status=409)
        socket = web.WebSocketResponse(max_msg_size=0, protocols=("one", "two"))
        await socket.prepare(request)
        async for message in socket:
            if message.type == WSMsgType.BINARY:
                await socket.send_bytes(message.data)
            elif message.data.startswith("close "):
                code, _, reason = message.data[6:].partition(" ")
                await socket.close(code=int(code), message=reason.encode())
            elif message.data == "abort":
                assert request.transport is not None
                request.transport.abort()
            elif message.data == "flood":
                await self._flood(socket)
            else:
                await socket.send_str(message.data)
        if socket.close_code == 1006 or socket.close_code is None:
            self.aborted.set()
        return socket

    async def _flood(self, socket: web.WebSocketResponse) -> None:
        block = bytes(256 * 1024)
        for _ in range(400):
            try:
                await asyncio.wait_for(socket.send_bytes(block), 1)
            except asyncio.TimeoutError:
                self.stalled.set()
                raise
            self.sent += len(block)


@pytest_asyncio.fixture(loop_scope="module")
async def daemon(running: Running, sandbox: dict[str, Any]) -> AsyncIterator[Daemon]:
    """A sandbox whose requests go to the test's daemon instead of its own."""
    fake = Daemon()
    app = web.Application(client_max_size=0)
    app.router.add_get("/ws", fake.ws)
    app.router.add_get("/stream", fake.stream)
    app.router.add_post("/digest", fake.digest)
    app.router.add_get("/cut", fake.cut)
    app.router.add_route("*", "/dies", fake.dies)
    app.router.add_route("*", "/{tail:.*}", fake.echo)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    # Not in the sandbox's own directory: the name of a Unix socket has at most 107 characters.
    place = tempfile.mkdtemp()
    path = f"{place}/fake.sock"
    await web.UnixSite(runner, path).start()
    live = running.manager.find(sandbox["id"])
    own, live.upstream = live.upstream, Upstream(path)
    yield fake
    live.upstream.close()
    live.upstream = own
    await runner.cleanup()
    shutil.rmtree(place)


@pytest.fixture
def url(running: Running, sandbox: dict[str, Any]) -> str:
    return f"{running.base}/toolbox/{sandbox['id']}"


async def test_request_passes_with_its_path_query_and_body(
    running: Running, daemon: Daemon, url: str
) -> None:
    """The path stays percent-encoded, credentials and connection headers do not reach the sandbox."""
    target = aiohttp.client.URL(f"{url}/a%2Fb/%20c?x=%2F&y=1+2", encoded=True)
    headers = {"X-Daytona-Preview-Token": "secret", "X-Mine": "ü", "Cookie": "a=b"}
    async with running.http.put(target, data=b"body", headers=headers) as answer:
        assert (answer.status, await answer.read(), answer.headers["X-Own"]) == (200, b"body", "yes")
    assert daemon.requests == ["PUT /a%2Fb/%20c?x=%2F&y=1+2"]
    seen = {name.lower(): value for name, value in daemon.headers[0].items()}
    assert not {"authorization", "x-daytona-preview-token", "cookie"} & set(seen)
    assert seen["x-mine"] == "ü"


@pytest.mark.parametrize("status", [201, 204, 304, 400, 404, 408, 500, 503])
async def test_every_status_passes(running: Running, daemon: Daemon, url: str, status: int) -> None:
    """Statuses with and without a body, and the connection stays usable after each."""
    for _ in range(2):
        async with running.http.get(f"{url}/x?status={status}") as answer:
            assert answer.status == status


@pytest.mark.parametrize(
    "query", ["chunks=0&size=1", "chunks=300&size=100000", "chunks=64&size=65536&length=4194304"]
)
async def test_answers_stream_whole(running: Running, daemon: Daemon, url: str, query: str) -> None:
    """Chunked bodies and bodies of known length arrive complete, and the connection can be used again."""
    values = dict(part.split("=") for part in query.split("&"))
    wanted = b"".join(bytes([i % 256]) * int(values["size"]) for i in range(int(values["chunks"])))
    async with running.http.get(f"{url}/stream?{query}") as answer:
        assert await answer.read() == wanted
    async with running.http.head(f"{url}/x") as answer:
        assert answer.status == 200


async def test_uploads_stream_whole(running: Running, daemon: Daemon, url: str) -> None:
    """A chunked upload and one of known length reach the daemon byte for byte."""
    data = os.urandom(5 * MIB)

    async def pieces() -> AsyncIterator[bytes]:
        for place in range(0, len(data), 70_000):
            yield data[place : place + 70_000]

    wanted = hashlib.sha256(data).hexdigest()
    async with running.http.post(f"{url}/digest", data=pieces()) as answer:
        assert await answer.text() == wanted
    async with running.http.post(f"{url}/digest", data=io.BytesIO(data)) as answer:
        assert await answer.text() == wanted


async def test_cut_answer_is_cut_for_the_client(running: Running, daemon: Daemon, url: str) -> None:
    """A body that ends half-way is an error for the client, never a short success."""
    async with running.http.get(f"{url}/cut") as answer:
        with pytest.raises(aiohttp.ClientError):
            await answer.read()


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_lost_request_is_answered_and_not_repeated(
    running: Running, daemon: Daemon, url: str, method: str
) -> None:
    """If the daemon dies during a request, the client gets 502; a request with side effects ran once."""
    async with running.http.request(method, f"{url}/dies", data=b"x" if method == "POST" else None) as answer:
        assert answer.status == 502
        body = await answer.json()
        assert "does not answer" in body["message"]
    assert daemon.requests == [f"{method} dies"]


async def test_daemon_that_does_not_listen_is_a_bad_gateway(
    running: Running, sandbox: dict[str, Any], url: str
) -> None:
    """Connection refused is 502 with words, not a dropped connection."""
    live = running.manager.find(sandbox["id"])
    own, live.upstream = live.upstream, Upstream("/nonexistent.sock")
    try:
        async with running.http.post(f"{url}/process/execute", json={"command": "true"}) as answer:
            assert answer.status == 502
        with pytest.raises(aiohttp.WSServerHandshakeError, match="502"):
            await running.http.ws_connect(f"{url}/ws")
    finally:
        live.upstream = own


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1008, 1011, 4008])
@pytest.mark.parametrize("reason", ["", "worker process ended"])
async def test_close_codes_and_reasons_pass(
    running: Running, daemon: Daemon, url: str, code: int, reason: str
) -> None:
    """The client sees the daemon's own close frame."""
    async with websockets.asyncio.client.connect(
        url.replace("http", "ws", 1) + "/ws", additional_headers={"Authorization": f"Bearer {running.key}"}
    ) as ws:
        await ws.send(f"close {code} {reason}")
        with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
            await ws.recv()
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (code, reason)


async def test_abrupt_end_stays_abrupt(running: Running, daemon: Daemon, url: str) -> None:
    """If the daemon drops the connection, the client sees 1006, not a polite close."""
    async with running.http.ws_connect(f"{url}/ws") as ws:
        await ws.send_str("abort")
        message = await ws.receive()
        assert message.type in (WSMsgType.CLOSED, WSMsgType.ERROR, WSMsgType.CLOSE)
        assert ws.close_code == 1006


def handshake(running: Running, sandbox_id: str) -> bytes:
    """A WebSocket handshake by hand."""
    lines = [
        f"GET /toolbox/{sandbox_id}/ws HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {running.key}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def test_client_that_vanishes_is_noticed_by_the_daemon(
    running: Running, daemon: Daemon, url: str, sandbox: dict[str, Any]
) -> None:
    """A reset of the client's connection reaches the daemon, and is no activity any more."""
    port = running.server.state.port
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, handshake(running, sandbox["id"]))
    assert (await loop.sock_recv(sock, 4096)).startswith(b"HTTP/1.1 101")
    live = running.manager.find(sandbox["id"])
    assert live.connections == 1
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    await asyncio.wait_for(daemon.aborted.wait(), 10)
    assert live.connections == 0


async def test_frames_behind_the_handshake_are_not_lost(running: Running, daemon: Daemon, url: str) -> None:
    """A client may send its first frame together with the handshake."""
    port, sandbox_id = running.server.state.port, url.rpartition("/")[2]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    frame = bytes([0x81, 0x85, 0, 0, 0, 0]) + b"hello"
    writer.write(handshake(running, sandbox_id) + frame)
    await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(7) == bytes([0x81, 5]) + b"hello"
    writer.close()
    await writer.wait_closed()


async def test_large_messages_and_subprotocols_pass(running: Running, daemon: Daemon, url: str) -> None:
    """No size limit of the server's own; the daemon chooses the subprotocol."""
    data = os.urandom(20 * MIB)
    async with running.http.ws_connect(f"{url}/ws", max_msg_size=0, protocols=("two",)) as ws:
        assert ws.protocol == "two"
        await ws.send_bytes(data)
        assert await ws.receive_bytes() == data


async def test_refused_handshake_passes_with_its_body(running: Running, daemon: Daemon, url: str) -> None:
    """A 409 before the upgrade reaches the client with the daemon's words."""
    headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
    async with running.http.get(f"{url}/ws?refuse=1", headers=headers) as answer:
        assert (answer.status, await answer.json()) == (409, {"message": "taken"})


async def test_client_that_does_not_read_stops_the_daemon(running: Running, daemon: Daemon, url: str) -> None:
    """The server holds back what its buffers cannot take: a flood stalls at the daemon, not in our memory."""
    async with running.http.ws_connect(f"{url}/ws", max_msg_size=0) as ws:
        connection = ws.get_extra_info("socket")
        assert connection is not None
        ws._response.connection.transport.pause_reading()  # type: ignore[union-attr]
        await ws.send_str("flood")
        await asyncio.wait_for(daemon.stalled.wait(), 30)
        assert daemon.sent < 40 * MIB
        ws._response.connection.transport.abort()  # type: ignore[union-attr]


async def test_activity_counts_unless_the_header_says_not(
    running: Running, daemon: Daemon, url: str, sandbox: dict[str, Any]
) -> None:
    """A request renews the last activity; one with the skip header does not."""
    record = running.manager.find(sandbox["id"]).record
    for header, counts in (({"X-Daytona-Skip-Last-Activity-Update": "true"}, False), ({}, True)):
        record.last_activity_at = 5.0
        async with running.http.get(f"{url}/x", headers=header):
            pass
        assert (record.last_activity_at > 5.0) is counts


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": ""}, 401),
        ({"Authorization": "Basic eA=="}, 401),
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost.evil.example:80"}, 403),
    ],
)
async def test_strangers_are_refused(
    running: Running, daemon: Daemon, url: str, headers: dict[str, str], status: int
) -> None:
    """Without the key, or under a foreign host name, nothing reaches the sandbox or the control plane."""
    for target in (f"{url}/x", f"{running.base}/api/sandbox"):
        async with running.http.get(target, headers=headers) as answer:
            assert answer.status == status
            assert "message" in await answer.json()
    assert daemon.requests == []


async def test_health_needs_no_key(running: Running) -> None:
    """Anybody may ask whether the server is there."""
    async with aiohttp.ClientSession() as http, http.get(f"{running.base}/health") as answer:
        assert (answer.status, (await answer.json())["status"]) == (200, "ok")


def feed_in_pieces(data: bytes, size: int) -> tuple[int, ChunkedEnd]:
    """Where the body ends when it arrives in pieces of `size` bytes."""
    end = ChunkedEnd()
    for place in range(0, len(data), size):
        found = end.feed(data[place : place + size])
        if found >= 0:
            return place + found, end
    return -1, end


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_end_of_a_chunked_body_is_found_however_it_is_cut(size: int) -> None:
    """Also with chunk extensions and trailers, and not a byte beyond."""
    body = b"5\r\nhello\r\nA;x=1\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n"
    assert feed_in_pieces(body + b"HTTP/1.1", size)[0] == len(body)
    assert feed_in_pieces(body[:-1], size)[0] == -1


async def test_chunk_without_a_size_is_an_error() -> None:
    """Broken framing is noticed instead of being passed on as a body."""
    with pytest.raises(UpstreamError):
        ChunkedEnd().feed(b"xyz\r\n")
