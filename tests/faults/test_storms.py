"""Restarts in a row, shutdown at any moment: nothing is left behind, on either side."""

from __future__ import annotations

import asyncio
import threading

import psutil
import pytest
from daytona import AsyncDaytona, DaytonaConfig

from .bench import Notebook
from .conftest import Faulty


async def restarted(notebook: Notebook, faulty: Faulty) -> Notebook:
    """What a front end's "restart" does: this kernel ends, the next one has its sandbox."""
    session = notebook.session
    sandbox = session.manager.sandbox
    known = sandbox.id if sandbox is not None else session._remembered.get("sandbox_id", "")
    state = {"sandbox_id": known, "owned": True, "context_id": session.context_id}
    if notebook._direct is not None:
        await notebook._direct.close()
    await asyncio.wait_for(asyncio.wrap_future(session.close(restarting=True)), 30)
    await asyncio.to_thread(session.stop_thread)
    return Notebook.open(faulty, state, name="storm")


def footprint() -> tuple[int, int]:
    """Descriptors and threads of this process."""
    # threads of executors come and stay, up to their limit
    threads = [each for each in threading.enumerate() if not each.name.startswith("asyncio_")]
    return psutil.Process().num_fds(), len(threads)


@pytest.mark.slow
async def test_twenty_restarts_leave_nothing_behind(faulty: Faulty) -> None:
    """Idle, with a cell running, and before it is ready; in the sandbox and in the kernel's process."""
    notebook = await Notebook.open(faulty, name="storm").prepared()
    server = psutil.Process(faulty.server.server.pid)
    try:
        for turn in range(20):
            if turn % 3 == 1:
                cell = notebook.start("print('begun', flush=True)\nimport time; time.sleep(600)")
                await cell.printed("begun")
            elif turn % 3 == 2:
                await notebook.run("print(1)")
            notebook = await restarted(notebook, faulty)
            if turn == 5:
                await notebook.run("print(1)")
                before, server_before = footprint(), server.num_fds()
        await notebook.run("print(1)")
        assert len(await notebook.direct.contexts()) == 1
        code = "import glob; print(len(glob.glob('/tmp/.daytona-kernel-*/storm-*')))"
        kept = int((await notebook.run(code)).text())
        assert kept <= 5
        after = footprint()
        assert after[1] <= before[1]
        assert after[0] <= before[0] + 12  # the proxy's own sockets in this process vary
        assert server.num_fds() <= server_before + 12
    finally:
        await notebook.close()


async def test_a_shutdown_while_the_sandbox_is_made_leaves_no_sandbox(faulty: Faulty) -> None:
    before = set(await sandboxes(faulty))
    notebook = Notebook.open(faulty)
    await asyncio.wait_for(asyncio.to_thread(_until_started, notebook), 30)
    await notebook.close()
    check = Notebook.open(faulty)  # its client sees what there is
    try:
        await check.prepared()
        found = await sandboxes(faulty)
        assert check.session.manager.sandbox is not None
        assert set(found) - before == {check.session.manager.sandbox.id}
    finally:
        await check.close()


async def sandboxes(faulty: Faulty) -> list[str]:
    """The ids of all sandboxes of the server."""
    config = DaytonaConfig(
        api_key=faulty.server.server.api_key, api_url=faulty.server.api_url, target="local"
    )
    async with AsyncDaytona(config) as client:
        return [item.id async for item in client.list()]


def _until_started(notebook: Notebook) -> None:
    import time

    while notebook.session._ready is None:
        time.sleep(0.005)


async def test_requests_of_two_front_ends_are_served_one_after_the_other(notebook: Notebook) -> None:
    first = [notebook.start(f"print('a{i}'); once()") for i in range(10)]
    second = [notebook.start(f"print('b{i}'); once()") for i in range(10)]
    for name, cells in (("a", first), ("b", second)):
        for number, cell in enumerate(cells):
            assert (await cell.reply())["status"] == "ok"
            assert cell.lines == [f"{name}{number}"]
    assert await notebook.marks() == 20
