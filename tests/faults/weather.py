"""A proxy that makes the local server a far, shared, imperfect service: control plane and toolbox alike.

Where :mod:`.proxy` knows bytes, this one knows HTTP and WebSockets: it answers in the service's place as load
balancers do, carries requests out and forgets to answer, closes sockets with codes, tells states late, and
writes right answers in unusual ways. What happens when is up to a seed, and :attr:`Weather.seen` counts it.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import socket
import struct
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web

PAGE = "<html>\r\n<head><title>{0} Bad Weather</title></head>\r\n<body><hr>nginx</body>\r\n</html>\r\n"
NO_ADDRESS = "bad request: no IP address found. Is the Sandbox started?"
OF_THE_HOP = frozenset(("connection", "keep-alive", "transfer-encoding", "upgrade", "content-length", "host"))
ENDS = ("reset", "1001", "1011", "1012", "1013", "1011 context canceled")
REFUSALS = (401, 429, 502, 503, 504)


@dataclass
class Climate:
    """How likely what is (0 to 1, for each request or answer), and how long it takes in seconds."""

    delay: tuple[float, float] = (0.0, 0.0)
    """Least and most, each way, of each message."""
    lost: float = 0.0
    """Before the request is carried out: a reset, or a gateway's page."""
    forgotten: float = 0.0
    """After it was carried out."""
    busy: float = 0.0
    """429, with a time to wait."""
    cut: float = 0.0
    """The answer ends in its middle."""
    odd: float = 0.0
    """Compressed, in chunks without a length, names of headers in lower case, fields that nobody knows."""
    refused: float = 0.0
    """A WebSocket is refused."""
    life: float = 0.0
    """How long a WebSocket lives on average; 0: until it is closed."""


class Weather:
    """The proxy. ``async with``: it listens on ``port``, and passes on to ``target`` on this machine."""

    def __init__(self, target: int, port: int, seed: int) -> None:
        self.climate = Climate()
        self.seen: Counter[str] = Counter()
        self.late: dict[str, str] = {}
        """States that are told of sandboxes, by id, in place of the true ones."""
        self.stopped: set[str] = set()
        """Sandboxes whose toolbox has no address."""
        self._target, self._port = target, port
        self._rng = random.Random(seed)
        self._ends: set[asyncio.Future[str]] = set()
        self._client: aiohttp.ClientSession
        self._runner: web.AppRunner

    async def __aenter__(self) -> Weather:
        self._client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_sockets("reset")
        await self._runner.cleanup()
        await self._client.close()

    def end_sockets(self, how: str) -> None:
        """End every WebSocket: ``reset``, or a close code with or without a reason."""
        for end in self._ends:
            if not end.done():
                end.set_result(how)

    def _hit(self, chance: float) -> bool:
        return self._rng.random() < chance

    async def _travel(self) -> None:
        await asyncio.sleep(self._rng.uniform(*self.climate.delay))

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        try:
            await self._travel()
            where, _, rest = request.path.lstrip("/").partition("/")
            if where == "toolbox" and rest.partition("/")[0] in self.stopped:
                self.seen["no address"] += 1
                return web.json_response({"statusCode": 400, "message": NO_ADDRESS}, status=400)
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await self._serve_socket(request)
            return await self._serve_call(request)
        except ConnectionResetError:
            _reset(request)
            return web.Response()  # nobody gets it

    # -- calls -----------------------------------------------------------------------------------------

    async def _serve_call(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if self._hit(self.climate.busy):
            self.seen["429"] += 1
            return web.json_response({"message": "Too Many"}, status=429, headers={"Retry-After": "0"})
        if self._hit(self.climate.lost):
            return self._lose("before")
        headers = {name: text for name, text in request.headers.items() if name.lower() not in OF_THE_HOP}
        url = f"http://127.0.0.1:{self._target}{request.raw_path}"
        async with self._client.request(
            request.method, url, data=body or None, headers=headers, allow_redirects=False
        ) as answer:
            data, status, kept = await answer.read(), answer.status, answer.headers.copy()
        await self._travel()
        if self._hit(self.climate.forgotten):
            return self._lose("after")
        for name in (*OF_THE_HOP, "Content-Encoding"):
            kept.popall(name, None)
        if status == 204 or not data:
            return web.Response(status=status, headers=kept)
        return await self._answer(request, status, dict(kept), self._rewritten(request, data))

    def _lose(self, when: str) -> web.Response:
        if self._hit(0.4):
            self.seen[f"reset {when}"] += 1
            raise ConnectionResetError
        status = self._rng.choice((502, 503, 504, 522))
        self.seen[f"{status} {when}"] += 1
        return web.Response(status=status, text=PAGE.format(status), content_type="text/html")

    def _rewritten(self, request: web.Request, data: bytes) -> bytes:
        """With states of a while ago, and fields of a later version."""
        try:
            content = json.loads(data) if request.path.startswith("/api/sandbox") else None
        except ValueError:
            content = None
        if not isinstance(content, dict) or "state" not in content:
            return data
        content["state"] = self.late.get(content["id"], content["state"])
        if self._hit(self.climate.odd):
            content |= {"someNewField": {"deep": [None]}, "backupState": "Frobnicated", "errorReason": None}
        return json.dumps(content).encode()

    async def _answer(
        self, request: web.Request, status: int, headers: dict[str, str], data: bytes
    ) -> web.StreamResponse:
        if self._hit(self.climate.odd):
            headers = {name.lower(): text for name, text in headers.items()}
        if status == 200 and self._hit(self.climate.odd):
            headers["content-encoding"], data = "gzip", gzip.compress(data, 1)
        answer = web.StreamResponse(status=status, headers=headers)
        cut = self._hit(self.climate.cut)
        if self._hit(self.climate.odd) and not cut:
            answer.enable_chunked_encoding()
        else:
            answer.content_length = len(data)
        await answer.prepare(request)
        if cut:
            self.seen["cut"] += 1
            await answer.write(data[: self._rng.randrange(len(data))])
            raise ConnectionResetError
        for start in range(0, len(data), max(1, len(data) // 3)):
            await answer.write(data[start : start + max(1, len(data) // 3)])
        await answer.write_eof()
        return answer

    # -- sockets ---------------------------------------------------------------------------------------

    async def _serve_socket(self, request: web.Request) -> web.StreamResponse:
        if self._hit(self.climate.refused):
            status = self._rng.choice(REFUSALS)
            self.seen[f"socket refused {status}"] += 1
            return web.Response(status=status, text=PAGE.format(status), content_type="text/html")
        headers = {
            name: text
            for name, text in request.headers.items()
            if name.lower() not in OF_THE_HOP and not name.lower().startswith("sec-")
        }
        url = f"http://127.0.0.1:{self._target}{request.raw_path}"
        try:
            up = await self._client.ws_connect(
                url, headers=headers, autoping=False, autoclose=False, max_msg_size=0
            )
        except aiohttp.WSServerHandshakeError as exc:
            return web.Response(status=exc.status)
        down = web.WebSocketResponse(autoping=False, autoclose=False, max_msg_size=0, timeout=0.5)
        await down.prepare(request)
        end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._ends.add(end)
        tasks = [asyncio.ensure_future(self._carry(*way, end)) for way in ((down, up), (up, down))]
        if self.climate.life:
            tasks.append(asyncio.ensure_future(self._live(end)))
        try:
            await self._end(request, down, up, await end)
        finally:
            self._ends.discard(end)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await up.close()
        return down

    async def _live(self, end: asyncio.Future[str]) -> None:
        await asyncio.sleep(self._rng.expovariate(1 / self.climate.life))
        if not end.done():
            how = self._rng.choice(ENDS)
            self.seen[f"socket {how}"] += 1
            end.set_result(how)

    async def _carry(self, source: Any, sink: Any, end: asyncio.Future[str]) -> None:
        """Pass messages on, in their order and each with its delay, until one is an end."""
        leaves = 0.0
        try:
            while True:
                message = await source.receive()
                leaves = max(leaves, time.monotonic() + self._rng.uniform(*self.climate.delay))
                await asyncio.sleep(leaves - time.monotonic())
                if message.type is WSMsgType.TEXT:
                    await sink.send_str(message.data)
                elif message.type is WSMsgType.BINARY:
                    await sink.send_bytes(message.data)
                elif message.type is WSMsgType.PING:
                    await sink.ping(message.data)
                elif message.type is WSMsgType.PONG:
                    await sink.pong(message.data)
                else:
                    code = message.data if message.type is WSMsgType.CLOSE else None
                    if not end.done():
                        end.set_result(f"{code} {message.extra or ''}".strip() if code else "reset")
                    return
        except (ConnectionError, RuntimeError):
            if not end.done():
                end.set_result("reset")

    async def _end(self, request: web.Request, down: Any, up: Any, how: str) -> None:
        code, _, reason = how.partition(" ")
        if how == "reset":
            _reset(request)
            return
        with suppress(asyncio.TimeoutError, ConnectionError, RuntimeError):
            await asyncio.wait_for(down.close(code=int(code), message=reason.encode()), 1)


def _reset(request: web.Request) -> None:
    if request.transport is not None:
        plain = request.transport.get_extra_info("socket")
        with suppress(OSError, AttributeError):
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
