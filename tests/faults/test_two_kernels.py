"""Two kernels of one notebook, as with two front ends that start one each: they share its sandbox."""

from __future__ import annotations

import asyncio

import pytest

from .bench import Notebook
from .conftest import Faulty


@pytest.fixture
async def two(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> tuple[Notebook, Notebook]:
    monkeypatch.setenv("JPY_SESSION_NAME", f"/notebooks/{request.node.name}.ipynb")
    first = await Notebook.open(faulty, on_shutdown="auto").prepared()
    second = await Notebook.open(faulty, on_shutdown="auto").prepared()
    return first, second


def sandbox_id(notebook: Notebook) -> str:
    assert notebook.session.manager.sandbox is not None
    return notebook.session.manager.sandbox.id


async def ended(notebook: Notebook) -> str:
    """End a kernel in order; what became of its sandbox."""
    if notebook._direct is not None:
        await notebook._direct.close()
    released = await asyncio.wait_for(asyncio.wrap_future(notebook.session.close()), 30)
    await asyncio.to_thread(notebook.session.stop_thread)
    return released


async def test_the_last_of_two_kernels_stops_the_sandbox(two: tuple[Notebook, Notebook]) -> None:
    first, second = two
    assert sandbox_id(first) == sandbox_id(second)
    await second.run("kept = 5")
    running = second.start("print('begun', flush=True); told('end'); once()")
    await running.printed("begun")
    assert await ended(first) == "kept"
    assert len(await second.direct.contexts()) == 1
    await second.tell("end")
    assert (await running.reply())["status"] == "ok"
    after = await second.run("print(kept)")
    assert (after.lines, after.notices) == (["5"], [])
    assert await second.marks() == 1
    assert await ended(second) == "stopped"


async def test_of_two_kernels_that_end_at_once_one_stops_the_sandbox(two: tuple[Notebook, Notebook]) -> None:
    assert "stopped" in await asyncio.gather(*(ended(notebook) for notebook in two))


async def test_a_process_left_by_a_killed_kernel_does_not_keep_the_sandbox(
    two: tuple[Notebook, Notebook],
) -> None:
    """Its restarted kernel knows whose process that is."""
    first, second = two
    first.session.left_behind = second.session.context_id
    assert await ended(first) == "stopped"
    await ended(second)
