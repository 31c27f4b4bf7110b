"""A file that comes down over connections that break: every byte once, or an error."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from daytona_kernel import fetching
from daytona_kernel.errors import ConnectionFailed, SandboxProtocolError
from daytona_kernel.streaming import BLOCK
from daytona_kernel.toolbox import Endpoint, Toolbox, ToolboxError

CONTENT = os.urandom(3 << 20)
TIME = "Sat, 21 Nov 2026 07:00:00 GMT"


@dataclass
class Sandbox:
    """Serves one file, and breaks off where it is told to."""

    content: bytes = CONTENT
    time: str = TIME
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    """How many bytes each answer in turn sends before its connection breaks; after them they are whole."""
    statuses: list[int] = field(default_factory=list)
    """What the answers after the first say instead."""
    asked: list[str] = field(default_factory=list)
    taken: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a block has come."""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        wanted = request.headers.get("Range", "")
        self.asked.append(wanted)
        if len(self.asked) > 1 and self.statuses:
            return web.Response(status=self.statuses.pop(0))
        match = re.fullmatch(r"bytes=(\d+)-", wanted) if self.ranges else None
        start = int(match[1]) if match else 0
        if start >= len(self.content):
            return web.Response(status=416)
        response = web.StreamResponse(status=206 if match else 200)
        if match:
            last = len(self.content) - 1
            response.headers["Content-Range"] = f"bytes {start}-{last}/{len(self.content)}"
        if self.time:
            response.headers["Last-Modified"] = self.time
        response.content_length = len(self.content) - start
        await response.prepare(request)
        body = self.content[start:]
        if self.cuts:
            sent = body[: self.cuts.pop(0)]
            await response.write(sent)
            if len(sent) >= BLOCK:  # what was not read before the end may be gone with the connection
                await self.taken.wait()
                self.taken.clear()
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(body)
        return response


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new attempt follows at once."""
    monkeypatch.setattr(fetching, "PAUSES_S", (0.0, 0.0, 0.0))


@asynccontextmanager
async def reached(sandbox: Sandbox) -> AsyncIterator[Toolbox]:
    app = web.Application()
    app.router.add_get("/files/download", sandbox.serve)
    async with TestServer(app) as server:
        toolbox = Toolbox(Endpoint(str(server.make_url("")).rstrip("/"), {}))
        try:
            yield toolbox
        finally:
            await toolbox.close()


async def fetched(sandbox: Sandbox, meanwhile: Callable[[], None] = lambda: None) -> bytes:
    content = b""
    async with reached(sandbox) as toolbox:
        async for block in fetching.blocks(toolbox, "big.bin"):
            content += block
            meanwhile()
            sandbox.taken.set()
    return content


async def test_a_whole_file_is_asked_for_once() -> None:
    sandbox = Sandbox()
    assert await fetched(sandbox) == CONTENT
    assert sandbox.asked == [""]


@pytest.mark.parametrize("cuts", [[len(CONTENT) * 6 // 10], [1 << 20, 1 << 20], [(1 << 20) + 7] * 2])
async def test_what_is_missing_comes_over_another_connection(cuts: list[int]) -> None:
    sandbox = Sandbox(cuts=list(cuts))
    assert await fetched(sandbox) == CONTENT
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in sandbox.asked[1:]]
    assert len(starts) == len(cuts)
    assert all(start >= 1 << 20 for start in starts)  # nothing that was there is fetched again


async def test_a_proxy_that_is_back_before_the_sandbox_is_asked_again() -> None:
    sandbox = Sandbox(cuts=[2 << 20], statuses=[502, 503])
    assert await fetched(sandbox) == CONTENT


async def test_progress_gives_new_patience() -> None:
    """Many cuts are no reason to give up while something comes in between."""
    sandbox = Sandbox(content=CONTENT * 3, cuts=[1 << 20] * 8)
    assert await fetched(sandbox) == CONTENT * 3


async def test_it_ends_when_nothing_comes_any_more() -> None:
    sandbox = Sandbox(cuts=[2 << 20, 0, 0, 0, 0, 0, 0])
    with pytest.raises(ConnectionFailed):
        await fetched(sandbox)
    assert len(sandbox.asked) == 4  # the three pauses, each once


@pytest.mark.parametrize(
    "sandbox", [Sandbox(cuts=[2 << 20], time=""), Sandbox(cuts=[0])], ids=["no time", "no byte yet"]
)
async def test_what_can_not_be_told_apart_is_not_put_together(sandbox: Sandbox) -> None:
    if sandbox.time:
        assert await fetched(sandbox) == CONTENT  # from the beginning
        assert sandbox.asked == ["", ""]
    else:
        with pytest.raises(ConnectionFailed):
            await fetched(sandbox)


@pytest.mark.parametrize("change", ["time", "size", "shorter", "no ranges"])
async def test_a_file_that_has_changed_is_not_put_together(change: str) -> None:
    sandbox = Sandbox(cuts=[2 << 20])

    def meanwhile() -> None:
        if change == "time":
            sandbox.time = TIME.replace("07:", "08:")
        elif change == "no ranges":
            sandbox.ranges = False
        else:
            sandbox.content = CONTENT + b"x" if change == "size" else CONTENT[:BLOCK]

    with pytest.raises(SandboxProtocolError, match=r"big\.bin has changed"):
        await fetched(sandbox, meanwhile)


async def test_a_file_that_is_gone_is_told_so() -> None:
    with pytest.raises(ToolboxError, match="404"):
        await fetched(Sandbox(cuts=[2 << 20], statuses=[404]))
