"""What goes wrong outside the cell: an error of our tree that says what to do, and a kernel that lives."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from .conftest import MakePlace
from .notebook import Message, Notebook, Place, running_notebook


async def failed(notebook: Notebook, ename: str, *words: str) -> Message:
    """A cell fails with this error, which says these words, and no traceback of the SDK's."""
    content = await notebook.fails("ran = True")
    assert content["ename"] == ename, content
    for word in words:
        assert word in content["evalue"]
    assert "Traceback" not in "".join(content["traceback"])
    assert len(content["traceback"]) == 1
    return content


async def alive(notebook: Notebook) -> None:
    info = await notebook.request("kernel_info_request")
    assert info.content["status"] == "ok"
    assert await notebook.manager.is_alive()


async def test_a_wrong_key(place: Place) -> None:
    url = place.start_server().api_url
    async with running_notebook(place, DAYTONA_API_KEY="wrong-secret-key", DAYTONA_API_URL=url) as notebook:
        content = await failed(notebook, "CredentialsError", "DAYTONA_API_KEY")
        assert "wrong-secret-key" not in str(content)
        await alive(notebook)
        await failed(notebook, "CredentialsError")
    assert "wrong-secret-key" not in (place.root / "kernels.log").read_text()


async def test_a_service_that_can_not_be_reached(place: Place, unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}/api"
    async with running_notebook(place, DAYTONA_API_KEY="k", DAYTONA_API_URL=url) as notebook:
        await failed(notebook, "ConnectionFailed", "DAYTONA_API_URL", "run the cell again")
        await alive(notebook)
        # What a console asks at its first prompt needs no sandbox; it never asks again if nothing comes.
        found = await notebook.request("is_complete_request", {"code": "for i in x:"})
        assert found.content == {"status": "incomplete", "indent": "    "}
        content = {"hist_access_type": "tail", "n": 10, "output": False, "raw": True}
        assert (await notebook.request("history_request", content)).content["history"] == []


async def test_a_url_that_is_none(place: Place) -> None:
    async with running_notebook(place, DAYTONA_API_KEY="k", DAYTONA_API_URL="garbage") as notebook:
        await failed(notebook, "ConfigurationError", "garbage")
        await alive(notebook)


async def test_a_sandbox_that_does_not_exist(place: Place) -> None:
    async with running_notebook(place, DAYTONA_SANDBOX="no-such-box") as notebook:
        await failed(notebook, "SandboxNotFound", "'no-such-box'")
        await alive(notebook)


async def test_a_snapshot_that_does_not_exist(place: Place) -> None:
    async with running_notebook(place, DAYTONA_KERNEL_SNAPSHOT="no-such-snapshot") as notebook:
        await failed(notebook, "SandboxCreationFailed", "'no-such-snapshot'")
        await alive(notebook)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DAYTONA_KERNEL_BACKEND", "moon"),
        ("DAYTONA_KERNEL_AUTO_STOP", "90s"),
    ],
)
async def test_a_setting_that_can_not_be_right(place: Place, variable: str, value: str) -> None:
    async with running_notebook(place, **{variable: value}) as notebook:
        await failed(notebook, "ConfigurationError")
        await alive(notebook)


async def test_a_local_server_that_does_not_start(make_place: MakePlace) -> None:
    own = make_place(DAYTONA_LOCAL_PYTHON="/nowhere/python")
    async with running_notebook(own) as notebook:
        await failed(notebook, "ConnectionFailed", "local server", "daytona local logs")
        await alive(notebook)


@asynccontextmanager
async def service_notebook(place: Place, create: Any, **variables: str) -> AsyncIterator[Notebook]:
    """A notebook whose service can only be asked to create a sandbox, and answers with ``create``."""
    app = web.Application()
    app.router.add_post("/api/sandbox", create)
    async with TestServer(app) as server:
        url = str(server.make_url("/api"))
        async with running_notebook(place, DAYTONA_API_KEY="k", DAYTONA_API_URL=url, **variables) as notebook:
            yield notebook


@pytest.mark.parametrize(
    ("status", "body", "ename"),
    [
        (500, {"message": "on fire"}, "SandboxCreationFailed"),
        (403, {"message": "over quota"}, "CredentialsError"),
        (200, "<html>a login page</html>", "SandboxProtocolError"),
    ],
)
async def test_a_service_that_refuses(place: Place, status: int, body: Any, ename: str) -> None:
    async def create(request: web.Request) -> web.Response:
        if isinstance(body, str):
            return web.Response(text=body, content_type="text/html", status=status)
        return web.json_response(body, status=status)

    async with service_notebook(place, create) as notebook:
        await failed(notebook, ename, body["message"] if isinstance(body, dict) and body else "")
        await alive(notebook)


async def test_a_creation_that_takes_too_long(place: Place) -> None:
    release = asyncio.Event()

    async def create(request: web.Request) -> web.Response:
        await release.wait()
        return web.json_response({}, status=500)

    async with service_notebook(place, create, DAYTONA_KERNEL_CREATE_TIMEOUT="1s") as notebook:
        await failed(notebook, "SandboxCreationFailed", "within 1 s", "DAYTONA_KERNEL_CREATE_TIMEOUT")
        await alive(notebook)
        release.set()


async def test_an_interrupt_while_the_sandbox_is_being_made(place: Place) -> None:
    """The cell ends at once, says that it did not run, and the next one waits again."""
    release = asyncio.Event()

    async def create(request: web.Request) -> web.Response:
        await release.wait()
        return web.json_response({"message": "at last"}, status=500)

    async with service_notebook(place, create) as notebook:
        cell = notebook.send_execute("1")
        await notebook.until(cell, lambda e: bool(e.of_type("display_data")))  # what it waits for
        assert "sandbox" in cell.of_type("display_data")[0]["content"]["data"]["text/plain"]
        await notebook.interrupt()
        await notebook.until(cell, lambda e: e.finished())
        assert cell.content["ename"] == "KeyboardInterrupt"
        assert "did not run" in cell.content["evalue"]
        release.set()
        await failed(notebook, "SandboxCreationFailed", "at last")


async def test_the_next_cell_tries_again(place: Place) -> None:
    """The service is down for the first cell and back for the second."""
    server = place.start_server()
    target = server.api_url.removesuffix("/api")
    up = False

    async def forward(request: web.Request) -> web.StreamResponse:
        if not up:
            return web.json_response({"message": "down"}, status=503)
        # The toolbox is reached directly: the control plane's answers name its address.
        headers = {k: v for k, v in request.headers.items() if k.lower() in ("authorization", "content-type")}
        body = await request.read()
        async with (
            aiohttp.ClientSession() as session,
            session.request(request.method, target + request.raw_path, data=body, headers=headers) as answer,
        ):
            content = await answer.read()
            return web.Response(body=content, status=answer.status, content_type=answer.content_type)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", forward)
    async with TestServer(app) as proxy:
        url = str(proxy.make_url("/api"))
        variables = {"DAYTONA_API_KEY": server.api_key, "DAYTONA_API_URL": url}
        async with running_notebook(place, **variables) as notebook:
            await failed(notebook, "SandboxCreationFailed", "down")
            up = True
            assert (await notebook.run("print('back')")).text() == "back\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        ("", "is not JSON"),
        ("[]", "is not a connection file"),
        ('{"shell_port": 1}', "is not a connection file"),
    ],
)
async def test_a_bad_connection_file_is_one_line_and_exit_code_1(
    tmp_path: Path, content: str | None, words: str
) -> None:
    path = tmp_path / "connection.json"
    if content is not None:
        path.write_text(content)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "daytona_kernel",
        "-f",
        str(path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert out == b""
    assert len(err.decode().splitlines()) == 1
    assert words in err.decode()
