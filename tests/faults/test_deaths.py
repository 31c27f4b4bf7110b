"""The Python process of the cells dies, or its sandbox does: said at once, with the cause, and put right."""

from __future__ import annotations

import asyncio
import time

import pytest
from daytona import Resources

from daytona_kernel.errors import (
    ExecutionUnknown,
    SandboxGone,
    SandboxProcessDied,
    SandboxStartFailed,
)

from .bench import PRELUDE, Notebook
from .conftest import Faulty

GENEROUS_S = 20
"""Where the promise is 1 s: only a hang, or an old timeout, takes so long."""
DEATHS = {
    "os._exit": ("os._exit(7)", "exit code 7"),
    "SIGKILL": ("os.kill(os.getpid(), 9)", "killed"),
    "SIGTERM": ("os.kill(os.getpid(), 15); time.sleep(60)", "killed"),
    "segmentation fault": ("import ctypes; ctypes.string_at(0)", "Segmentation fault"),
    "abort": ("os.abort()", "Aborted"),
}


@pytest.mark.parametrize("death", DEATHS)
async def test_a_dead_process_is_named_with_its_cause(notebook: Notebook, death: str) -> None:
    """What it printed before is there; the next cell runs in a new process and says what was lost."""
    code, cause = DEATHS[death]
    await notebook.run("kept = 1; open('file', 'w').write('there')")
    began = time.monotonic()
    cell = notebook.start(f"once(); print('last words'); sys.stdout.flush(); {code}")
    with pytest.raises(SandboxProcessDied, match=cause):
        await cell.reply()
    assert time.monotonic() - began < GENEROUS_S
    assert cell.lines == ["last words"]
    after = await notebook.run("print('kept' in globals(), open('file').read())")
    assert after.lines == ["False there"]
    assert any("variables are lost" in text for text in after.notices)
    assert await notebook.marks() == 1
    assert (await notebook.run("print(1)")).notices == []


async def test_a_process_that_uses_up_its_memory_is_named(notebook: Notebook) -> None:
    """The limit of the process itself gives a MemoryError in the cell; the process lives on."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)); x = bytearray(4 << 30)"
    )
    reply = await notebook.start(code).reply()
    assert reply["ename"] == "MemoryError"
    assert (await notebook.run("print(2)")).lines == ["2"]


async def test_a_death_while_the_network_is_away_is_found_out(faulty: Faulty, notebook: Notebook) -> None:
    """The socket that would have told of it is gone, and the context serves nothing any more."""
    cell = notebook.start("once(); print('begun', flush=True); told('die'); os.kill(os.getpid(), 9)")
    await cell.printed("begun")
    await faulty.proxy.refuse()
    faulty.proxy.reset_all()
    await notebook.tell("die")
    await cell.until(lambda: bool(cell.lost_line))
    await faulty.proxy.accept()
    with pytest.raises(SandboxProcessDied, match="killed"):
        await cell.reply(GENEROUS_S)
    assert await notebook.marks() == 1
    assert (await notebook.run("print(2)")).lines == ["2"]


async def test_a_context_deleted_by_somebody_else_is_made_anew(notebook: Notebook) -> None:
    """Between cells: the next cell runs, once, and says that variables are lost."""
    await notebook.direct.delete_context(notebook.session.context_id)
    cell = await notebook.run("import os; open('runs', 'a').write('x'); print('there')")
    assert cell.lines == ["there"]
    assert any("variables are lost" in text for text in cell.notices)
    assert await notebook.marks() == 1


async def test_a_context_deleted_during_a_cell_is_said(notebook: Notebook) -> None:
    cell = notebook.start("once(); print('begun', flush=True); time.sleep(60)")
    await cell.printed("begun")
    await notebook.direct.delete_context(notebook.session.context_id)
    with pytest.raises((SandboxProcessDied, ExecutionUnknown)):
        await cell.reply(GENEROUS_S)
    assert (await notebook.run("print(2)")).lines == ["2"]


# -- the sandbox ---------------------------------------------------------------------------------------


async def stop(notebook: Notebook, how: str) -> None:
    """Do to the sandbox what its owner, or the service, does."""
    known = notebook.session.manager.sandbox
    assert known is not None

    async def act() -> None:
        sandbox = await (await notebook.session.manager.client()).get(known.id)
        if how == "deleted":
            await sandbox.delete(timeout=60)
            return
        if how == "resized":
            await sandbox.resize(Resources(memory=sandbox.memory + 1))
            return
        await sandbox.stop(timeout=60)
        if how == "archived":
            await sandbox.archive()
        elif how == "restarted":
            await sandbox.start(timeout=60)

    await asyncio.wait_for(asyncio.wrap_future(notebook.session.run(act())), 90)


@pytest.mark.parametrize("how", ["stopped", "archived", "restarted", "deleted"])
async def test_a_sandbox_that_ends_between_two_cells_is_put_right(notebook: Notebook, how: str) -> None:
    """Started again, or replaced; the next cell runs and says what was lost."""
    await notebook.run("open('file', 'w').write('there'); kept = 1")
    await stop(notebook, how)
    cell = await notebook.run("import os; print('kept' in globals(), os.path.exists('file'))", 90)
    assert cell.lines == [f"False {how != 'deleted'}"]
    expected = "files are lost" if how == "deleted" else "variables are lost"
    assert any(expected in text for text in cell.notices)
    assert len(cell.notices) == 1


@pytest.mark.parametrize("how", ["stopped", "archived", "restarted", "deleted"])
async def test_a_sandbox_that_ends_during_a_cell_is_said_and_put_right(notebook: Notebook, how: str) -> None:
    cell = notebook.start("once(); print('begun', flush=True); time.sleep(120)")
    await cell.printed("begun")
    await stop(notebook, how)
    with pytest.raises((SandboxGone, SandboxProcessDied, ExecutionUnknown)) as caught:
        await cell.reply(60)
    if how != "restarted":
        assert isinstance(caught.value, SandboxGone)
    after = await notebook.run(PRELUDE + "print('there')", 90)
    assert after.lines == ["there"]
    assert after.notices
    if how != "deleted":
        assert await notebook.marks() == 1


async def test_a_sandbox_that_is_resized_keeps_its_processes(notebook: Notebook) -> None:
    """Also while a cell runs."""
    await stop(notebook, "resized")
    cell = notebook.start("once(); kept = 1; print('begun', flush=True); told('end')")
    await cell.printed("begun")
    await stop(notebook, "resized")
    await notebook.tell("end")
    assert (await cell.reply())["status"] == "ok"
    after = await notebook.run("print(kept)")
    assert (after.lines, after.notices) == (["1"], [])
    assert await notebook.marks() == 1


async def state(notebook: Notebook) -> str:
    """The sandbox's state as the control plane has it."""
    return await asyncio.wrap_future(notebook.session.run(notebook.session.manager.state()))


@pytest.mark.parametrize("when", ["between", "during"])
async def test_a_sandbox_in_error_is_recovered(notebook: Notebook, when: str) -> None:
    """Code has killed the sandbox's own daemon: the next cell has it recovered, with its files."""
    await notebook.run("open('file', 'w').write('there')")
    kill = "import os, threading, time; end = lambda: os.kill(os.getppid(), 9)\n"
    if when == "during":
        with pytest.raises(SandboxGone):
            await notebook.start(f"{kill}end(); time.sleep(60)").reply()
    else:
        await notebook.run(f"{kill}threading.Timer(0.2, end).start()")
        while await state(notebook) != "error":
            await asyncio.sleep(0.05)
    cell = await notebook.run("import os; print(open('file').read(), 'once' in globals())", 90)
    assert cell.lines == ["there False"]
    assert any("variables are lost" in text for text in cell.notices)


async def test_a_named_sandbox_that_is_deleted_is_not_replaced(faulty: Faulty, notebook: Notebook) -> None:
    """Somebody chose that one: an error says so, each time."""
    await notebook.run("pass")
    sandbox = notebook.session.manager.sandbox
    assert sandbox is not None
    other = Notebook.open(faulty, sandbox=sandbox.name)
    try:
        await other.prepared()
        await stop(notebook, "deleted")
        for _ in range(2):
            with pytest.raises((SandboxGone, SandboxStartFailed, Exception), match=r"deleted|no sandbox"):
                await other.start("1").reply(60)
    finally:
        await other.close()
