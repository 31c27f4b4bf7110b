"""The sandbox server itself: its clock stops idle sandboxes, it may be killed, and refuse the key."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from daytona_kernel import sandbox as module
from daytona_kernel.errors import CredentialsError, SandboxGone
from daytona_kernel.local.launcher import ensure_running, status, stop
from daytona_kernel.local.paths import LocalPaths, local_paths

from .bench import Notebook
from .conftest import Faulty, ProxiedServer, free_port
from .proxy import FaultProxy

TIME_SCALE = 15
"""A minute of the server's takes 4 s."""


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPaths]:
    root = Path(tempfile.mkdtemp(prefix="hasty-"))
    monkeypatch.setenv("DAYTONA_LOCAL_DIR", str(root))
    monkeypatch.setenv("DAYTONA_LOCAL_PYTHON", sys.executable)
    monkeypatch.setenv("DAYTONA_LOCAL_TIME_SCALE", str(TIME_SCALE))
    monkeypatch.setenv("DAYTONA_LOCAL_POOL", "1")
    found = local_paths(os.environ)
    yield found
    stop(found)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
async def hasty(paths: LocalPaths) -> AsyncIterator[Faulty]:
    port = free_port()
    server = ensure_running(paths, ["--advertise", f"http://127.0.0.1:{port}"])
    behind = ProxiedServer(server, port, paths.state_dir)
    async with FaultProxy(behind.port, port=port) as proxy:
        yield Faulty(behind, proxy)


async def until_state(paths: LocalPaths, notebook: Notebook, state: str) -> None:
    """Look at the server until it has the sandbox in that state."""
    assert notebook.session.manager.sandbox is not None
    key = notebook.session.manager.sandbox.id

    async def look() -> None:
        while True:
            found = await asyncio.to_thread(status, paths)
            if found and {item["id"]: item for item in found["sandboxes"]}[key]["state"] == state:
                return
            await asyncio.sleep(0.1)

    await asyncio.wait_for(look(), 60)


async def count_on(notebook: Notebook) -> None:
    """Short cells one after the other, until cancelled."""
    await notebook.run("count = 0")
    while True:
        await notebook.run("count += 1")
        await asyncio.sleep(0.2)


@pytest.mark.slow
async def test_cells_keep_their_sandbox_and_an_idle_notebook_does_not(
    paths: LocalPaths, hasty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three notebooks: one runs a long cell and one short ones; the one that is idle was used last."""
    monkeypatch.setattr(module, "KEEPALIVE_S", 60 / TIME_SCALE / 20)
    busy = await Notebook.open(hasty, auto_stop="1m").prepared()
    cell = busy.start("once(); print('begun', flush=True); told('end')")
    await cell.printed("begun")
    often = await Notebook.open(hasty, auto_stop="1m").prepared()
    counting = asyncio.ensure_future(count_on(often))
    idle = await Notebook.open(hasty, auto_stop="1m").prepared()
    try:
        await until_state(paths, idle, "stopped")
        counting.cancel()
        await asyncio.gather(counting, return_exceptions=True)
        assert (await often.run("print(count > 1)")).lines == ["True"]
        await busy.tell("end")
        assert (await cell.reply())["status"] == "ok"
        assert await busy.marks() == 1
        after = await idle.run("print('once' in globals())", 90)
        assert after.lines == ["False"]
        assert any("variables are lost" in text for text in after.notices)
    finally:
        counting.cancel()
        for notebook in (busy, often, idle):
            await notebook.close()


@pytest.mark.slow
async def test_a_killed_local_server_is_started_again_and_the_cell_is_told(
    paths: LocalPaths, hasty: Faulty
) -> None:
    """Its sandboxes end with it. Nobody else would start it, and the next one has another key."""
    notebook = await Notebook.open(hasty, auto_stop="60m", backend="local", api_key="", api_url="").prepared()
    try:
        await notebook.run("open('file', 'w').write('there')")
        cell = notebook.start("once(); print('begun', flush=True); told('end')")
        await cell.printed("begun")
        os.kill(hasty.server.server.pid, signal.SIGKILL)
        with pytest.raises(SandboxGone):
            await cell.reply()
        cell = await notebook.run("import os; print(open('file').read(), 'once' in globals())")
        assert cell.lines == ["there False"]
        assert any("variables are lost" in text for text in cell.notices)
    finally:
        await notebook.close()


@pytest.mark.slow
async def test_a_key_that_is_refused_during_a_cell_ends_it(paths: LocalPaths, hasty: Faulty) -> None:
    """As after a revoked key: no hang, and no word of a network that is away."""
    notebook = await Notebook.open(hasty, auto_stop="60m").prepared()
    cell = notebook.start("print('begun', flush=True); told('end')")
    await cell.printed("begun")
    os.kill(hasty.server.server.pid, signal.SIGKILL)
    await asyncio.to_thread(
        ensure_running, paths, ["--advertise", f"http://127.0.0.1:{hasty.server.proxy_port}"]
    )
    with pytest.raises(CredentialsError):
        await cell.reply()
    await notebook.close()
