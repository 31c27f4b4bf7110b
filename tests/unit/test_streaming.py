"""A file on its way up, to a server that takes forms."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from daytona_kernel.streaming import BLOCK, FileStream
from daytona_kernel.toolbox import Endpoint, Toolbox
from daytona_kernel.transfer import Item, Outcome, upload


@dataclass
class Site:
    """A toolbox that keeps the file it gets, and whether it was told the length of the request."""

    content: bytes = b""
    lengths: list[int | None] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    toolbox: Toolbox = field(init=False)

    async def take(self, request: web.Request) -> web.Response:
        """``/files/bulk-upload``."""
        self.lengths.append(request.content_length)
        async for part in await request.multipart():
            assert isinstance(part, aiohttp.BodyPartReader)
            if part.name == "files[0].file":
                self.content = bytes(await part.read())
        return web.json_response({})

    async def execute(self, request: web.Request) -> web.Response:
        """Whatever is executed after the upload succeeds."""
        self.commands.append((await request.json())["command"])
        return web.json_response({"exitCode": 0, "result": '\x1e{"errors": []}'})

    async def send(self, path: Path, count: Callable[[int], None]) -> Outcome:
        """Upload one file."""
        item = Item(path, "/tmp/there", path.stat().st_size, 0o644, 0.0)
        return await upload(self.toolbox, [item], count)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    app = web.Application(client_max_size=64 * BLOCK)
    app.router.add_post("/files/bulk-upload", site.take)
    app.router.add_post("/process/execute", site.execute)
    server = TestServer(app)
    await server.start_server()
    site.toolbox = Toolbox(Endpoint(str(server.make_url("")).rstrip("/"), {}))
    try:
        yield site
    finally:
        await site.toolbox.close()
        await server.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "big"
    path.write_bytes(os.urandom(4 * BLOCK + 17))
    return path


async def test_a_file_arrives_whole_with_its_length_told_beforehand(site: Site, file: Path) -> None:
    heard: list[int] = []
    outcome = await site.send(file, heard.append)
    assert site.content == file.read_bytes()
    assert [digest for _, digest in outcome.moved] == [hashlib.sha256(site.content).hexdigest()]
    assert sum(heard) == len(site.content)
    (length,) = site.lengths
    assert length is not None
    assert length > len(site.content)


async def test_what_is_added_meanwhile_is_not_sent(site: Site, file: Path) -> None:
    before = file.read_bytes()

    def grow(count: int) -> None:
        with open(file, "ab") as more:
            more.write(b"more")

    outcome = await site.send(file, grow)
    assert site.content == before
    assert [digest for _, digest in outcome.moved] == [hashlib.sha256(before).hexdigest()]


async def test_a_file_that_becomes_shorter_is_an_error_and_no_file(site: Site, file: Path) -> None:
    outcome = await site.send(file, lambda count: os.truncate(file, BLOCK))
    assert outcome.errors == [(str(file), "it became shorter while it was sent")]
    assert not outcome.moved
    assert [command.split()[0] for command in site.commands] == ["rm"]  # what has come of it


async def test_a_stream_that_is_given_up_leaves_its_file_to_be_closed(file: Path) -> None:
    with open(file, "rb") as source:
        stream = FileStream(source, lambda count: None)
        blocks = stream.blocks()
        assert len(await anext(blocks)) == BLOCK
        await stream.settle()
    assert stream.failure is None
