"""Ports: which are listened on, and the way to them."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from daytona_kernel.local.toolbox.ports import listening


@pytest.fixture
async def server():
    """A server in the sandbox that tells what it gets."""

    async def echo(request):
        body = await request.read()
        headers = [(name, value) for name, value in request.headers.items()]
        return web.json_response(
            {"method": request.method, "path": request.raw_path, "headers": headers, "body": body.decode()},
            status=int(request.query.get("status", 200)),
            headers={"X-Answer": "yes", "Set-Cookie": "a=b", "Location": "/elsewhere"},
        )

    async def stream(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await go.wait()
        await response.write(b"second")
        return response

    async def broken(request):
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"half")
        request.transport.abort()
        return response

    async def sockets(request):
        ws = web.WebSocketResponse(protocols=["chat"], max_msg_size=0)
        await ws.prepare(request)
        await ws.send_str(f"hello {request.query_string} {request.headers.get('X-Mine')}")
        async for message in ws:
            if message.data == "close":
                await ws.close(code=4321, message=b"as asked")
            elif message.type is aiohttp.WSMsgType.TEXT:
                await ws.send_str(message.data.upper())
            else:
                await ws.send_bytes(message.data[::-1])
        closed.set_result(ws.close_code)
        return ws

    app = web.Application(client_max_size=0)
    app.router.add_get("/stream", stream)
    app.router.add_get("/broken", broken)
    app.router.add_get("/ws", sockets)
    app.router.add_route("*", "/{path:.*}", echo)
    go = asyncio.Event()
    closed = asyncio.get_running_loop().create_future()
    async with TestServer(app) as running:
        running.go, running.client_closed = go, closed
        yield running


async def test_requests_pass_with_path_query_headers_and_body(api, http, server):
    url = URL(f"/proxy/{server.port}/a%2Fb/%E9?x=1%20&y=a+b&x=2", encoded=True)
    headers = {"X-Mine": "1", "Host": "preview.example", "Connection": "X-Secret", "X-Secret": "no"}
    async with http.post(url, data=b"payload", headers=headers, allow_redirects=False) as answer:
        assert answer.status == 200
        assert answer.headers["X-Answer"] == "yes"
        assert answer.headers["Set-Cookie"] == "a=b"
        seen = await answer.json()
    assert (seen["method"], seen["path"], seen["body"]) == ("POST", "/a%2Fb/%E9?x=1%20&y=a+b&x=2", "payload")
    got = {name.lower(): value for name, value in seen["headers"]}
    assert (got["x-mine"], got["host"], got["content-length"]) == ("1", "preview.example", "7")
    assert "x-secret" not in got


@pytest.mark.parametrize("status", [204, 302, 404, 500])
async def test_answers_of_any_status_pass(http, server, status):
    async with http.get(f"/proxy/{server.port}/?status={status}", allow_redirects=False) as answer:
        assert answer.status == status
        assert answer.headers["Location"] == "/elsewhere"


async def test_the_root_may_be_named_without_a_slash(http, server):
    async with http.get(f"/proxy/{server.port}", allow_redirects=False) as answer:
        assert (await answer.json())["path"] == "/"
    async with http.head(f"/proxy/{server.port}/", allow_redirects=False) as answer:
        assert (answer.status, await answer.read()) == (200, b"")


async def test_answers_stream(http, server):
    async with http.get(f"/proxy/{server.port}/stream") as answer:
        assert await answer.content.readexactly(5) == b"first"
        server.go.set()
        assert await answer.content.read() == b"second"


async def test_an_answer_that_breaks_off_breaks_off(http, server):
    with pytest.raises(aiohttp.ClientPayloadError):
        async with http.get(f"/proxy/{server.port}/broken") as answer:
            await answer.read()


async def test_large_bodies_pass(http, server):
    async def body():
        for _ in range(64):
            yield b"x" * 65536

    async with http.put(f"/proxy/{server.port}/", data=body(), allow_redirects=False) as answer:
        assert len((await answer.json())["body"]) == 64 * 65536


async def test_websockets_pass_both_ways_with_their_close(http, server):
    url = f"/proxy/{server.port}/ws?a=b"
    options = {"protocols": ["other", "chat"], "headers": {"X-Mine": "1"}, "max_msg_size": 0}
    async with http.ws_connect(url, **options) as ws:
        assert ws.protocol == "chat"
        assert await ws.receive_str() == "hello a=b 1"
        await ws.send_str("abc")
        assert await ws.receive_str() == "ABC"
        await ws.send_bytes(b"x" * 5_000_000 + b"y")
        assert await ws.receive_bytes() == b"y" + b"x" * 5_000_000
        await ws.ping(b"p")
        await ws.send_str("close")
        message = await ws.receive()
        assert (message.type, message.data, message.extra) == (aiohttp.WSMsgType.CLOSE, 4321, "as asked")


async def test_a_close_of_the_client_reaches_the_server(http, server):
    ws = await http.ws_connect(f"/proxy/{server.port}/ws", max_msg_size=0)
    await ws.close(code=4000)
    assert await asyncio.wait_for(server.client_closed, 10) == 4000


async def test_a_refused_handshake_keeps_its_status(http, server):
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await http.ws_connect(f"/proxy/{server.port}/none?status=403")
    assert caught.value.status == 403


async def test_nothing_there_is_502_with_an_empty_body(http):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        async with http.get(f"/proxy/{port}/x") as answer:
            assert (answer.status, await answer.read()) == (502, b"")
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await http.ws_connect(f"/proxy/{port}/x")
        assert caught.value.status == 502


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
async def test_what_is_no_port_is_400(api, port):
    await api.error("GET", f"/proxy/{port}/x", 400)


async def test_listening_ports_are_listed(api, server):
    assert server.port in (await api("GET", "/port"))["ports"]


def free_port(low=3000, high=9999):
    for port in range(low, high):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


async def test_a_port_is_in_use_when_somebody_accepts(api):
    port = free_port()
    assert await api("GET", f"/port/{port}/in-use") == {"isInUse": False}
    with socket.create_server(("127.0.0.1", port)):
        assert await api("GET", f"/port/{port}/in-use") == {"isInUse": True}
    for bad in ("2999", "10000", "x"):
        await api.error("GET", f"/port/{bad}/in-use", 400)


def test_only_listening_sockets_count():
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 111 1 x\n"
        "   1: 0100007F:1F91 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 222 1 x\n"
    )
    assert listening(table) == {"111": 8080}
    assert listening("") == {}
