"""The toolbox's client against a real HTTP server that answers well, badly, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from daytona_kernel import toolbox as module
from daytona_kernel.errors import ConnectionFailed, SandboxError, SandboxProtocolError
from daytona_kernel.toolbox import Endpoint, Toolbox, ToolboxError

from .virtual import VirtualLoop

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[str, str, Handler], AbstractAsyncContextManager[Toolbox]]


@asynccontextmanager
async def serving(method: str, path: str, handler: Handler) -> AsyncIterator[Toolbox]:
    app = web.Application()
    app.router.add_route(method, path, handler)
    async with TestServer(app) as server:
        toolbox = Toolbox(
            Endpoint(str(server.make_url("")).rstrip("/"), {"Authorization": "Bearer secret-key"})
        )
        try:
            yield toolbox
        finally:
            await toolbox.close()


def answer(status: int, body: object = None) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response(body, status=status)

    return handler


CONTEXT = "/process/interpreter/context"


# -- the endpoint --------------------------------------------------------------------------------------


def test_an_endpoint_does_not_show_its_key() -> None:
    assert "secret" not in repr(Endpoint("http://x/y", {"Authorization": "Bearer secret-key"}))


@pytest.mark.parametrize(
    ("url", "websocket", "local"),
    [
        ("http://127.0.0.1:3986/toolbox/a", "ws://127.0.0.1:3986/toolbox/a", True),
        ("http://localhost/toolbox/a", "ws://localhost/toolbox/a", True),
        ("http://[::1]:80/a", "ws://[::1]:80/a", True),
        ("https://proxy.app.daytona.io/toolbox/a", "wss://proxy.app.daytona.io/toolbox/a", False),
        ("https://localhost.evil.test/a", "wss://localhost.evil.test/a", False),
    ],
)
def test_an_endpoint_knows_its_websocket_url_and_whether_it_is_here(
    url: str, websocket: str, local: bool
) -> None:
    endpoint = Endpoint(url, {})
    assert endpoint.websocket_url == websocket
    assert endpoint.is_local is local


# -- contexts ------------------------------------------------------------------------------------------


async def test_a_context_is_made_with_the_key() -> None:
    async def handler(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer secret-key"
        assert await request.json() == {"cwd": "/home/x"}
        return web.json_response({"id": "c1"})

    async with serving("POST", CONTEXT, handler) as toolbox:
        assert await toolbox.create_context("/home/x") == "c1"


@pytest.mark.parametrize("body", [{}, {"id": 3}, [], None, "text"])
async def test_a_context_without_an_id_is_a_protocol_error(body: object) -> None:
    async with serving("POST", CONTEXT, answer(200, body)) as toolbox:
        with pytest.raises(SandboxProtocolError):
            await toolbox.create_context()


async def test_deleting_a_context_that_is_gone_is_no_error_and_its_id_stays_in_its_place() -> None:
    paths: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        paths.append(request.rel_url.raw_path)
        return web.json_response({"message": "no"}, status=404)

    async with serving("DELETE", CONTEXT + "/{id}", handler) as toolbox:
        await toolbox.delete_context("a/../b?c")
    assert paths == [CONTEXT + "/a%2F..%2Fb%3Fc"]


async def test_another_refusal_to_delete_is_an_error() -> None:
    async with serving("DELETE", CONTEXT + "/{id}", answer(400, {"message": "default"})) as toolbox:
        with pytest.raises(ToolboxError, match="400: default"):
            await toolbox.delete_context("default")


@pytest.mark.parametrize(
    ("body", "found"),
    [({"contexts": [{"id": "a"}, 3]}, [{"id": "a"}]), ({}, []), ([], []), ({"contexts": 1}, [])],
)
async def test_contexts_are_listed_and_nonsense_is_left_out(body: object, found: list[object]) -> None:
    async with serving("GET", CONTEXT, answer(200, body)) as toolbox:
        assert await toolbox.contexts() == found


# -- processes -----------------------------------------------------------------------------------------


async def test_a_command_is_quoted_so_that_no_shell_reads_it_differently() -> None:
    async def handler(request: web.Request) -> web.Response:
        body = await request.json()
        return web.json_response({"exitCode": 3, "result": body["command"]})

    async with serving("POST", "/process/execute", handler) as toolbox:
        assert await toolbox.execute("echo", "a b", "$(rm)", "it's") == (3, "echo 'a b' '$(rm)' 'it'\"'\"'s'")
        assert await toolbox.shell("a; b") == (3, "sh -c 'a; b'")


# -- files ---------------------------------------------------------------------------------------------


async def test_an_upload_arrives_as_path_and_bytes() -> None:
    got: dict[str, bytes] = {}

    async def handler(request: web.Request) -> web.Response:
        async for part in await request.multipart():
            got[str(part.name)] = bytes(await part.read())  # type: ignore[union-attr]
        return web.json_response({})

    async with serving("POST", "/files/bulk-upload", handler) as toolbox:
        await toolbox.upload("/tmp/ä b", b"\x00\xff\r\n--boundary")
    assert got == {"files[0].path": "/tmp/ä b".encode(), "files[0].file": b"\x00\xff\r\n--boundary"}


def file_server(data: bytes, *, ranges: bool) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        assert request.query["path"] == "/a b"
        header = request.headers.get("Range")
        if header is None or not ranges:
            return web.Response(body=data)
        first, _, last = header.removeprefix("bytes=").partition("-")
        if int(first) >= len(data):
            return web.Response(status=416)
        return web.Response(body=data[int(first) : int(last) + 1 if last else None], status=206)

    return handler


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(("offset", "rest"), [(0, b"hello"), (2, b"llo"), (5, b"")])
async def test_a_download_begins_at_its_offset_even_where_ranges_are_unknown(
    ranges: bool, offset: int, rest: bytes
) -> None:
    async with serving("GET", "/files/download", file_server(b"hello", ranges=ranges)) as toolbox:
        assert await toolbox.download("/a b", offset) == rest


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(("offset", "part"), [(0, b"he"), (2, b"ll"), (4, b"o"), (5, b"")])
async def test_a_download_may_be_limited(ranges: bool, offset: int, part: bytes) -> None:
    async with serving("GET", "/files/download", file_server(b"hello", ranges=ranges)) as toolbox:
        assert await toolbox.download("/a b", offset, 2) == part


async def test_a_download_is_given_up_when_nothing_comes() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with serving("GET", "/files/download", handler) as toolbox:
        with pytest.raises(ConnectionFailed):
            await toolbox.download("/x", silence_s=0.01)


async def test_a_missing_file_is_none() -> None:
    async with serving("GET", "/files/download", answer(404)) as toolbox:
        assert await toolbox.download("/x") is None


async def test_a_directory_is_listed_by_name_and_size() -> None:
    async with serving("GET", "/files", answer(200, [{"name": "a", "size": 3}, {"name": "b"}, 7])) as toolbox:
        assert await toolbox.list_files("/d") == {"a": 3, "b": 0}


async def test_a_missing_directory_is_none_and_a_strange_listing_an_error() -> None:
    async with serving("GET", "/files", answer(404)) as toolbox:
        assert await toolbox.list_files("/d") is None
    async with serving("GET", "/files", answer(200, {"a": 1})) as toolbox:
        with pytest.raises(SandboxProtocolError):
            await toolbox.list_files("/d")


# -- when it goes wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"message": "Is the Sandbox started?"}, "Is the Sandbox started?"),
        ({"error": "busy"}, "busy"),
        ({}, "no reason given"),
        ([], "no reason given"),
        (None, "no reason given"),
    ],
)
async def test_a_refusal_tells_its_status_and_reason(body: object, told: str) -> None:
    async with serving("GET", "/version", answer(400, body)) as toolbox:
        with pytest.raises(ToolboxError) as caught:
            await toolbox.version()
    assert caught.value.status == 400
    assert isinstance(caught.value, SandboxError)
    assert told in str(caught.value)


async def test_an_empty_answer_is_no_error_where_nothing_is_needed() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=200, body=b"")

    async with serving("GET", "/version", handler) as toolbox:
        assert await toolbox.version() == ""


async def test_a_redirect_is_not_followed_since_the_key_would_go_along() -> None:
    async def handler(request: web.Request) -> web.Response:
        raise web.HTTPFound("http://127.0.0.1:9/steal")

    async with serving("GET", "/version", handler) as toolbox:
        with pytest.raises(ToolboxError) as caught:
            await toolbox.version()
    assert caught.value.status == 302


async def test_nobody_there_is_a_failed_connection(unused_tcp_port: int) -> None:
    toolbox = Toolbox(Endpoint(f"http://127.0.0.1:{unused_tcp_port}", {}))
    with pytest.raises(ConnectionFailed, match="GET /version"):
        await toolbox.version()
    await toolbox.close()


async def test_no_answer_in_time_is_a_failed_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    release = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        await release.wait()
        return web.json_response({})

    async with serving("POST", "/process/execute", handler) as toolbox:
        with pytest.raises(ConnectionFailed, match="TimeoutError"):
            await toolbox._json("POST", "/process/execute", timeout_s=0.05)
        release.set()


async def test_a_connection_cut_in_the_middle_of_a_file_is_a_failed_connection() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"x" * 10)
        assert request.transport is not None
        request.transport.abort()
        return response

    async with serving("GET", "/files/download", handler) as toolbox:
        with pytest.raises(ConnectionFailed):
            await toolbox.download("/x")


async def test_a_body_that_is_cut_off_is_a_failed_connection_for_json_too() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(b'{"version":')
        assert request.transport is not None
        request.transport.abort()
        return response

    async with serving("GET", "/version", handler) as toolbox:
        with pytest.raises(ConnectionFailed):
            await toolbox.version()


async def test_a_closed_toolbox_opens_no_connection_again() -> None:
    """Work that is still under way when a session ends must not leave one behind."""
    async with serving("GET", "/version", answer(200, {"version": "0.190.0"})) as toolbox:
        assert await toolbox.version() == "0.190.0"
        await toolbox.close()
        with pytest.raises(ConnectionFailed, match="closed"):
            await toolbox.version()


async def test_a_renewed_toolbox_uses_new_connections() -> None:
    async with serving("GET", "/version", answer(200, {"version": "0.190.0"})) as toolbox:
        assert await toolbox.version() == "0.190.0"
        toolbox.renew()
        assert await toolbox.version() == "0.190.0"


def test_a_gateway_that_refuses_is_not_asked_on_and_on_while_a_call_hangs() -> None:
    loop = VirtualLoop()
    times: list[float] = []

    async def attempt() -> str:
        times.append(loop.time())
        if len(times) == 1:
            await asyncio.Event().wait()
        if len(times) < 4:
            raise ToolboxError(502, "")
        return "there"

    async def ask() -> str:
        return await module.hedged(attempt)

    assert loop.run_until_complete(ask()) == "there"
    loop.finish()
    assert times == [0.0, 1.0, 2.0, 3.0]


def test_the_critical_path_does_not_import_the_sdk() -> None:
    assert "daytona" not in {name.split(".")[0] for name in vars(module)}
