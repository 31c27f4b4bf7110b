"""Two front ends of one kernel: each gets the replies to its own requests, and both see all output."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from jupyter_client.asynchronous.client import AsyncKernelClient

from ..conformance.driver import TIMEOUT, KernelUnderTest
from .notebook import Notebook

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def other(notebook: Notebook) -> AsyncIterator[KernelUnderTest]:
    """A second client of the kernel, which knows its connection file only."""
    client = AsyncKernelClient(connection_file=notebook.manager.connection_file)
    client.load_connection_file()
    client.start_channels()
    other = KernelUnderTest(notebook.manager, client, "other", notebook.log)
    try:
        await client.wait_for_ready(timeout=TIMEOUT)
        other.start_reading()
        yield other
    finally:
        await other.stop_reading()
        client.stop_channels()


async def test_cells_of_two_front_ends_run_once_in_turn(notebook: Notebook, other: KernelUnderTest) -> None:
    await notebook.run("order = []")
    mine = [notebook.send_execute(f"order.append('a{n}'); print('a{n}')") for n in range(5)]
    theirs = [other.send_execute(f"order.append('b{n}'); print('b{n}')") for n in range(5)]
    for kernel, name, cells in ((notebook, "a", mine), (other, "b", theirs)):
        for number, cell in enumerate(cells):
            await kernel.until(cell, lambda exchange: exchange.finished())
            assert cell.content["status"] == "ok"
            assert cell.text() == f"{name}{number}\n"
    order = await notebook.value("order")
    assert sorted(order) == sorted([*(f"a{n}" for n in range(5)), *(f"b{n}" for n in range(5))])
    assert [item for item in order if item[0] == "b"] == [f"b{n}" for n in range(5)]


async def test_each_front_end_sees_the_output_of_the_others_cell(
    notebook: Notebook, other: KernelUnderTest
) -> None:
    cell = await notebook.run("print('for both')")
    seen = await other.execute("pass")  # IOPub keeps its order, so what came before is there now
    assert seen.content["status"] == "ok"
    texts = [m["content"]["text"] for m in other.orphans if m["msg_type"] == "stream"]
    assert "for both\n" in texts
    assert {m["parent_header"]["msg_id"] for m in other.orphans} >= {cell.msg_id}


async def test_one_front_end_interrupts_the_others_cell_and_leaves(
    notebook: Notebook, other: KernelUnderTest
) -> None:
    """What runs is the kernel's, not the front end's; the one that stays goes on."""
    cell = other.send_execute("print('begun', flush=True)\nimport time; time.sleep(600)")
    await other.until(cell, lambda exchange: "begun" in exchange.text())
    await notebook.interrupt()
    await other.until(cell, lambda exchange: exchange.finished())
    assert cell.content["ename"] == "KeyboardInterrupt"
    other.client.stop_channels()
    assert (await notebook.run("print(1)")).text() == "1\n"
