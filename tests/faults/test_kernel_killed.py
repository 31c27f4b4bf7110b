"""A kernel is killed while its cell runs; the next one finds its process, its variables and its output."""

from __future__ import annotations

import asyncio

import pytest

from daytona_kernel.errors import SandboxError

from .bench import Cell, Content, Notebook
from .conftest import Faulty


async def killed(notebook: Notebook) -> Content:
    """End a session as SIGKILL does: nothing is said to anybody. What it has written down for the next."""
    session = notebook.session
    assert session.manager.sandbox is not None
    state = {"sandbox_id": session.manager.sandbox.id, "context_id": session.context_id, "owned": True}

    async def cut() -> None:
        link, toolbox = session._link, session._toolbox
        assert link is not None
        assert toolbox is not None
        others = {task for task in asyncio.all_tasks() if "_serve" in str(task.get_coro())}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await link.close()
        await toolbox.close()
        await session.manager.close()

    await asyncio.wait_for(asyncio.wrap_future(session.run(cut())), 30)
    if notebook._direct is not None:
        await notebook._direct.close()
    await asyncio.to_thread(session.stop_thread)
    return state


@pytest.fixture
async def first(faulty: Faulty) -> Notebook:
    return await Notebook.open(faulty, name="n").prepared()


async def attach(notebook: Notebook) -> Content:
    return await asyncio.wait_for(asyncio.wrap_future(notebook.session.attach()), 60)


def missed(notebook: Notebook) -> Cell:
    cell = Cell(asyncio.get_running_loop())
    cell.future = notebook.session.missed(cell)
    return cell


async def test_variables_and_missed_output_are_found_again(faulty: Faulty, first: Notebook) -> None:
    """The cell ended while nobody was there."""
    await first.run("kept = 5")
    running = first.start("once(); print('before', flush=True); told('go'); print('after'); 6 * 7")
    await running.printed("before")
    state = await killed(first)
    second = Notebook.open(faulty, state, name="n")
    try:
        cell = await second.run("print('kept' in globals())")
        assert cell.lines == ["False"]
        assert any("ended abruptly" in text for text in cell.notices)
        assert (await attach(second)) == {"context_id": state["context_id"], "running": True}
        output = missed(second)
        await output.printed("before")
        await second.tell("go")
        assert (await output.reply())["status"] == "ok"
        assert output.lines == ["before", "after"]
        assert output.messages[-1][1]["data"] == {"text/plain": "42"}
        again = missed(second)
        await again.reply()
        assert again.lines == ["before", "after"]
        assert (await second.run("print(kept)")).lines == ["5"]
        assert await second.marks() == 1
    finally:
        await second.close()


async def test_a_notebook_that_is_opened_elsewhere_finds_what_runs(faulty: Faulty, first: Notebook) -> None:
    """Another machine knows the sandbox's name and nothing else; the first kernel is gone, or asleep."""
    running = first.start("kept = 5; print('before', flush=True); told('go'); print('after')")
    await running.printed("before")
    state = await killed(first)
    second = Notebook.open(faulty, sandbox=state["sandbox_id"], name="elsewhere")
    try:
        assert await attach(second) == {"context_id": state["context_id"], "running": True}
        output = missed(second)
        await output.printed("before")
        await second.tell("go")
        assert (await output.reply())["status"] == "ok"
        assert output.lines == ["before", "after"]
        assert (await second.run("print(kept)")).lines == ["5"]
    finally:
        sandbox = second.session.manager.sandbox
        assert sandbox is not None
        await asyncio.wait_for(asyncio.wrap_future(second.session.run(sandbox.delete())), 60)
        await second.close()


async def test_a_cell_that_is_waited_for_can_be_interrupted(faulty: Faulty, first: Notebook) -> None:
    running = first.start("print('begun', flush=True); time.sleep(600)")
    await running.printed("begun")
    state = await killed(first)
    second = Notebook.open(faulty, state, name="n")
    try:
        await second.run("pass")
        await attach(second)
        output = missed(second)
        await output.printed("begun")
        await second.interrupt()
        assert (await output.reply())["ename"] == "KeyboardInterrupt"
        assert (await second.run("print(1)")).lines == ["1"]
    finally:
        await second.close()


async def test_a_kernel_that_ends_in_order_leaves_no_process(faulty: Faulty, first: Notebook) -> None:
    """Restarting is asking for a fresh state: nothing is kept to go back to."""
    sandbox = first.session.manager.sandbox
    assert sandbox is not None
    state = {"sandbox_id": sandbox.id, "context_id": first.session.context_id, "owned": True}
    await asyncio.wait_for(asyncio.wrap_future(first.session.close(restarting=True)), 30)
    await asyncio.to_thread(first.session.stop_thread)
    second = Notebook.open(faulty, state, name="n")
    try:
        assert (await second.run("print(1)")).notices == []
        with pytest.raises(SandboxError, match="no other Python process"):
            await attach(second)
        assert len(await second.direct.contexts()) == 1
    finally:
        await second.close()
