"""A raw client of the interpreter's endpoints, on a daemon in this process."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.test_utils import TestServer

from daytona_kernel.local.toolbox import interpreter, quirks
from daytona_kernel.local.toolbox.app import create_app
from daytona_kernel.local.toolbox.settings import ToolboxSettings

PREFIX = "/process/interpreter"


@dataclass
class Result:
    """All that one execute socket gave."""

    frames: list[dict[str, str]] = field(default_factory=list)
    code: int | None = None
    reason: str | None = None

    def text(self, kind: str = "stdout") -> str:
        return "".join(frame["text"] for frame in self.frames if frame["type"] == kind)

    @property
    def kinds(self) -> list[str]:
        return [frame["type"] for frame in self.frames]

    @property
    def error(self) -> dict[str, str]:
        (frame,) = (frame for frame in self.frames if frame["type"] == "error")
        return frame

    @property
    def control(self) -> list[str]:
        return [frame["text"] for frame in self.frames if frame["type"] == "control"]


class Socket:
    """An execute socket: what to send, and what comes, one frame at a time."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.result = Result()

    async def send(self, code: str, context: str = "", **fields: Any) -> None:
        await self.ws.send_json({"code": code, "contextId": context, **fields})

    async def frame(self) -> dict[str, str] | None:
        """The next frame; ``None`` when the socket is closed."""
        message = await self.ws.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            frame = json.loads(message.data)
            self.result.frames.append(frame)
            return frame
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        self.result.code, self.result.reason = self.ws.close_code, message.extra
        return None

    async def until(self, text: str) -> None:
        """Read until *text* has come on stdout."""
        while text not in self.result.text():
            assert await self.frame() is not None, f"closed before {text!r}: {self.result}"

    async def rest(self) -> Result:
        """Read to the end."""
        while await self.frame() is not None:
            pass
        return self.result


class Interpreter:
    """The endpoints of one daemon."""

    def __init__(self, session: aiohttp.ClientSession, home: Path) -> None:
        self.session = session
        self.home = home

    async def create(self, **body: Any) -> str:
        async with self.session.post(f"{PREFIX}/context", json=body) as answer:
            assert answer.status == 200, answer.status
            return (await answer.json())["id"]

    async def contexts(self) -> dict[str, dict[str, Any]]:
        async with self.session.get(f"{PREFIX}/context") as answer:
            assert answer.status == 200
            return {context["id"]: context for context in (await answer.json())["contexts"]}

    async def delete(self, context: str) -> int:
        async with self.session.delete(f"{PREFIX}/context/{context}") as answer:
            return answer.status

    @asynccontextmanager
    async def socket(self, **options: Any) -> AsyncIterator[Socket]:
        async with self.session.ws_connect(f"{PREFIX}/execute", max_msg_size=0, **options) as ws:
            yield Socket(ws)

    @asynccontextmanager
    async def started(self, code: str, context: str = "", **fields: Any) -> AsyncIterator[Socket]:
        async with self.socket() as socket:
            await socket.send(code, context, **fields)
            yield socket

    async def run(self, code: str, context: str = "", **fields: Any) -> Result:
        async with self.started(code, context, **fields) as socket:
            return await socket.rest()

    async def pid(self, context: str = "") -> int:
        return int((await self.run("import os; print(os.getpid())", context)).text())


@asynccontextmanager
async def daemon(
    home: Path,
    traits: frozenset[str] = quirks.ALL,
    *,
    python: str = sys.executable,
    work_dir: Path | None = None,
) -> AsyncIterator[Interpreter]:
    """A daemon for a sandbox whose home is *home*."""
    temp = home / "tmp"
    temp.mkdir(parents=True, exist_ok=True)
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(temp), "LANG": "C.UTF-8"}
    app = create_app(ToolboxSettings("test", str(home), str(work_dir or home), python, env))
    app[interpreter.QUIRKS] = traits
    async with TestServer(app) as server, aiohttp.ClientSession(server.make_url("/")) as session:
        yield Interpreter(session, home)
