"""A reader that stops reading: its process is stopped, as a laptop's lid does it, or its network stalls.

Meanwhile the daemon's queue runs over, so it closes the socket, and the agent finds nobody who acknowledges.
Its patience is shortened in the cell, so that these tests need not wait for it; with
``DAYTONA_FAULTS_ASLEEP_SECONDS`` the laptop sleeps for that long, and nothing is shortened.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ..kernel import notebook as real
from .bench import Content, Notebook
from .conftest import Faulty

SLEEP_S = float(os.environ.get("DAYTONA_FAULTS_ASLEEP_SECONDS") or 0)
IMPATIENT = """
agent = next(module for name, module in sys.modules.items() if name.endswith(".outbox"))
agent.ACK_PATIENCE_S = 0.2
"""
LINES = 3000
FLOOD = f"""
print("begun", flush=True)
told("go")
for i in range({LINES}):
    print(i, "x" * 4000, flush=True)
open("all-printed", "w").close()
told("end")
print("over")
"""
EXPECTED = ["begun", *(f"{i} {'x' * 4000}" for i in range(LINES)), "over"]


def has_the_last_line(content: Content) -> bool:
    return bool(content.get("text", "").endswith(EXPECTED[-2] + "\n"))


async def all_printed(notebook: Notebook) -> None:
    """Wait until the cell has printed everything, heard or not."""
    while await notebook.direct.download(f"{notebook.home}/all-printed") is None:
        await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_a_slow_consumer_is_cut_off_and_misses_nothing(
    faulty: Faulty, notebook: Notebook, caplog: pytest.LogCaptureFixture
) -> None:
    """More chunks wait for it than the daemon queues: 1008, or 1006 where even that can not be written."""
    caplog.set_level(logging.DEBUG, "daytona_kernel.link")
    await notebook.run(IMPATIENT)
    socket = await notebook.warm()
    cell = notebook.start(FLOOD)
    await cell.printed("begun")
    socket.pause()
    await notebook.tell("go")
    await all_printed(notebook)
    socket.resume()
    await cell.until(lambda: any(has_the_last_line(content) for _, content in cell.messages[-9:]))
    assert any(
        f"socket ended with {code} LOST" in record.getMessage()
        for code in (1006, 1008)
        for record in caplog.records
    )
    await notebook.tell("end")
    assert (await cell.reply())["status"] == "ok"
    assert cell.lines == EXPECTED


@pytest.fixture
async def kernel(faulty: Faulty) -> AsyncIterator[real.Notebook]:
    """A real kernel in a process of its own, behind the proxy."""
    root = Path(tempfile.mkdtemp(prefix="asleep-"))
    # the place is where the test looks at the server, without the proxy
    place = real.Place(root, {"DAYTONA_LOCAL_DIR": str(faulty.server.directory)})
    try:
        async with real.running_notebook(place, **faulty.server.environment()) as notebook:
            yield notebook
    finally:
        shutil.rmtree(root, ignore_errors=True)


async def signed(kernel: real.Notebook, name: str) -> None:
    """Wait until the cell has taken or made a sign."""
    async with kernel.toolbox() as toolbox:
        while await toolbox.download(f"/tmp/{name}") is None:
            await asyncio.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["stays", "goes dark"])
async def test_a_laptop_that_slept_has_each_line_once(
    faulty: Faulty, kernel: real.Notebook, network: str
) -> None:
    """The process is stopped while its cell prints far more than sockets hold, and goes on later."""
    patience = "" if SLEEP_S else IMPATIENT
    await kernel.run(f"import sys{patience}{real.AWAIT_SIGN}\nruns = 0")
    cell = kernel.send_execute(
        "runs += 1\n" + FLOOD.replace('told("', 'await_sign("').replace('open("all', 'open("/tmp/all'),
    )
    await kernel.says(cell, "begun\n")
    process = real.kernel_pid(kernel)
    os.kill(process, signal.SIGSTOP)
    try:
        await kernel.sign("go")
        await signed(kernel, "all-printed")
        await asyncio.sleep(SLEEP_S)
        if network == "goes dark":
            faulty.proxy.swallow_all()
            faulty.proxy.heal()
    finally:
        os.kill(process, signal.SIGCONT)
    await kernel.until(cell, lambda e: any(has_the_last_line(one["content"]) for one in e.iopub[-9:]))
    assert not cell.replies
    await kernel.sign("end")
    await kernel.until(cell, lambda exchange: exchange.finished())
    assert cell.content["status"] == "ok"
    assert cell.text().splitlines() == EXPECTED
    assert cell.text("stderr") == ""
    assert await kernel.value("runs") == 1
