"""A sandbox whose interpreter does, connection by connection, what the test tells it to.

It is a real HTTP and WebSocket server. The spool is a dict of files; `acks` is what its ``ack`` got.
"""

from __future__ import annotations

import ast
import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import WSCloseCode, web
from aiohttp.test_utils import TestServer

from daytona_kernel import wire
from daytona_kernel.toolbox import Endpoint, Toolbox

SPOOL = "/spool"


class Connection:
    """One execution's socket, seen from the interpreter."""

    def __init__(self, sandbox: FakeSandbox, socket: web.WebSocketResponse, request: web.Request) -> None:
        self.sandbox = sandbox
        self.socket = socket
        self._request = request
        self.message: dict[str, Any] = {}

    @property
    def request(self) -> dict[str, Any]:
        """The agent's request, taken out of the code without running it."""
        last = ast.parse(self.message["code"]).body[-1]
        assert isinstance(last, ast.Expr)
        assert isinstance(last.value, ast.Call)
        request: dict[str, Any] = json.loads(ast.literal_eval(last.value.args[0]))
        return request

    async def chunk(self, kind: str, text: str = "", **fields: str) -> None:
        await self.socket.send_str(
            json.dumps({"type": kind, "text": text, "name": "", "value": "", "traceback": "", **fields})
        )

    async def frames(self, *types_and_texts: str, start: int = 0) -> None:
        """Send `ready`, `done`, or a stream message with that text; numbered from `start`."""
        for number, item in enumerate(types_and_texts, start):
            await self.chunk("stdout", line(self.request["id"], number, item))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.socket.close(code=code, message=reason.encode())

    async def abort(self) -> None:
        """Cut the connection, as a proxy does that is restarted."""
        assert self._request.transport is not None
        self._request.transport.abort()
        await asyncio.sleep(0)

    async def until_closed(self) -> None:
        """Stay until the client has gone."""
        while not self.socket.closed:
            await self.socket.receive()


def line(execution_id: str, number: int, item: str) -> str:
    """One line of the wire: ``ready``, ``done``, or text of stdout."""
    if item == "ready":
        frame = wire.Frame(execution_id, "ready", {"token": "t"})
    elif item == "done":
        frame = wire.Frame(execution_id, "done", {"reply": {"status": "ok"}, "state": {}})
    else:
        frame = wire.Frame(execution_id, "stream", {"name": "stdout", "text": item})
    return wire.encode(frame, number)[0]


Script = Callable[[Connection], Awaitable[None]]


async def succeed(connection: Connection) -> None:
    """What an interpreter does on a good day."""
    await connection.frames("ready", "hello", "done")
    await connection.chunk("control", "completed")
    await connection.close()


class FakeSandbox:
    """The server. `scripts` are used up one per execution; after the last one every execution succeeds."""

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.executions: list[Connection] = []
        self.opened = 0
        self.refuse_with: int | None = None
        self.files: dict[str, bytes] = {}
        self.acks: list[str] = []
        self.acknowledged = asyncio.Event()
        self.headers: list[dict[str, str]] = []
        self.toolbox_down = False

    def spool(self, execution_id: str, *items: str, segment: int = 0, start: int = 0) -> None:
        lines = [line(execution_id, number, item) for number, item in enumerate(items, start)]
        self.files[f"{execution_id}.{segment}"] = "".join(lines).encode()

    async def _execute(self, request: web.Request) -> web.StreamResponse:
        self.opened += 1
        self.headers.append(dict(request.headers))
        if self.refuse_with is not None:
            return web.Response(status=self.refuse_with)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        connection = Connection(self, socket, request)
        message = await socket.receive()
        if message.type is not web.WSMsgType.TEXT:
            return socket
        connection.message = json.loads(message.data)
        self.executions.append(connection)
        script = self.scripts.pop(0) if self.scripts else succeed
        await script(connection)
        return socket

    async def _list(self, request: web.Request) -> web.Response:
        self._maybe_down()
        return web.json_response([{"name": name, "size": len(data)} for name, data in self.files.items()])

    async def _version(self, request: web.Request) -> web.Response:
        self._maybe_down()
        return web.json_response({"version": "0.190.0"})

    async def _download(self, request: web.Request) -> web.Response:
        self._maybe_down()
        data = self.files.get(request.query["path"].removeprefix(SPOOL + "/"))
        if data is None:
            return web.json_response({}, status=404)
        first, _, last = request.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        data = data[int(first) : int(last) + 1 if last else None]
        return web.Response(body=data, status=206 if "Range" in request.headers else 200)

    async def _upload(self, request: web.Request) -> web.Response:
        self._maybe_down()
        async for part in await request.multipart():
            if part.name == "files[0].file":
                self.acks.append(bytes(await part.read()).decode())  # type: ignore[union-attr]
                self.acknowledged.set()
        return web.json_response({})

    def _maybe_down(self) -> None:
        if self.toolbox_down:
            raise web.HTTPBadGateway

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/process/interpreter/execute", self._execute)
        app.router.add_get("/version", self._version)
        app.router.add_get("/files", self._list)
        app.router.add_get("/files/download", self._download)
        app.router.add_post("/files/bulk-upload", self._upload)
        app.on_shutdown.append(self._close_sockets)
        return app

    async def _close_sockets(self, app: web.Application) -> None:
        for connection in self.executions:
            await connection.socket.close(code=WSCloseCode.GOING_AWAY)


@asynccontextmanager
async def fake_sandbox() -> AsyncIterator[tuple[FakeSandbox, Toolbox]]:
    """A running fake and a toolbox client for it."""
    sandbox = FakeSandbox()
    async with TestServer(sandbox.app()) as server:
        toolbox = Toolbox(Endpoint(str(server.make_url("")).rstrip("/"), {"Authorization": "Bearer k"}))
        try:
            yield sandbox, toolbox
        finally:
            await toolbox.close()
