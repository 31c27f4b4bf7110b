"""An interrupt is always answered, and only the cell that it was meant for is interrupted."""

from __future__ import annotations

import asyncio

import pytest

from daytona_kernel.session import Interrupted

from .bench import Cell, Notebook
from .conftest import Faulty

LOOPS = {
    "a loop": "while True: pass",
    "a sleep": "time.sleep(600)",
    "an await": "import asyncio; await asyncio.sleep(600)",
    "a child process": "import subprocess; subprocess.run(['sleep', '600'])",
    "a lock": "import threading; threading.Event().wait()",
    "a join": "import threading; t = threading.Thread(target=time.sleep, args=(3,)); t.start(); t.join()",
    "prints": "i = 0\nwhile True:\n    print(i); i += 1",
}


async def begun(notebook: Notebook, code: str, **options: object) -> Cell:
    """Start a cell and wait until it is just about to run `code`."""
    cell = notebook.start(f"print('begun', flush=True)\n{code}", **options)  # type: ignore[arg-type]
    await cell.printed("begun")
    return cell


@pytest.mark.parametrize("situation", LOOPS)
async def test_an_interrupt_ends_a_cell_and_keeps_its_state(notebook: Notebook, situation: str) -> None:
    cell = await begun(notebook, "kept = 5\nprint('set', flush=True)\n" + LOOPS[situation])
    await cell.printed("set")
    await notebook.interrupt()
    reply = await cell.reply()
    assert reply["status"] == "error"
    assert reply["ename"] in ("KeyboardInterrupt", "CancelledError")
    assert (await notebook.run("print(kept)")).lines == ["5"]


async def test_an_interrupt_ends_a_shell_command(notebook: Notebook) -> None:
    """IPython lets the cell go on after it, as it does everywhere."""
    cell = notebook.start("get_ipython().system('echo begun; sleep 600')\nprint('after')")
    await cell.printed("begun")
    await notebook.interrupt()
    assert (await cell.reply())["status"] == "ok"
    assert cell.lines[-1] == "after"


async def test_an_interrupt_ends_the_waiting_for_input(notebook: Notebook) -> None:
    cell = await begun(notebook, "input('? ')", allow_stdin=True)
    await cell.asked.wait()
    await notebook.interrupt()
    reply = await cell.reply()
    assert (reply["ename"], reply["evalue"]) == ("KeyboardInterrupt", "Interrupted by user")
    assert (await notebook.run("print(1)")).lines == ["1"]


async def test_an_interrupt_when_nothing_runs_does_nothing(notebook: Notebook) -> None:
    await notebook.interrupt()
    await notebook.interrupt()
    cell = await notebook.run("time.sleep(0.3); print('whole')")
    assert cell.lines == ["whole"]


async def test_an_interrupt_never_hits_the_next_cell(notebook: Notebook) -> None:
    """It is sent while the cell ends; whatever its way takes, the next cell waits for it."""
    for turn in range(10):
        cell = await begun(notebook, f"time.sleep(0.0{turn})")
        interrupting = asyncio.ensure_future(notebook.interrupt())
        reply = await cell.reply()
        assert reply["status"] in ("ok", "error")
        after = await notebook.run("time.sleep(0.1); print('whole')")
        assert after.lines == ["whole"]
        await interrupting


async def test_two_quick_interrupts_do_no_harm(notebook: Notebook) -> None:
    cell = await begun(notebook, "time.sleep(600)")
    await asyncio.gather(notebook.interrupt(), notebook.interrupt())
    assert (await cell.reply())["ename"] == "KeyboardInterrupt"
    assert (await notebook.run("print(1)")).lines == ["1"]


async def test_code_that_ignores_interrupts_is_explained(notebook: Notebook) -> None:
    code = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("deaf", flush=True)
told("end")
"""
    cell = await begun(notebook, code)
    await cell.printed("deaf")
    await notebook.interrupt()
    await notebook.interrupt()
    await cell.until(lambda: any("restart the kernel" in text for text in cell.notices))
    await notebook.tell("end")
    assert (await cell.reply())["status"] == "ok"
    cell = await begun(notebook, "time.sleep(600)")
    await notebook.interrupt()
    assert (await cell.reply())["ename"] == "KeyboardInterrupt"


async def test_an_interrupt_before_the_sandbox_is_ready_ends_the_cell(faulty: Faulty) -> None:
    await faulty.proxy.refuse()
    notebook = Notebook.open(faulty)
    try:
        cell = notebook.start("1")
        await asyncio.wait_for(asyncio.to_thread(_until_busy, notebook), 30)
        await notebook.interrupt()
        with pytest.raises(Interrupted):
            await cell.reply()
        await faulty.proxy.accept()
        assert (await notebook.run("print(1)", 90)).lines == ["1"]
    finally:
        await faulty.proxy.accept()
        await notebook.close()


def _until_busy(notebook: Notebook) -> None:
    import time

    while not notebook.session.busy:
        time.sleep(0.01)


async def test_an_interrupt_while_the_connection_is_lost_arrives_with_it(
    faulty: Faulty, notebook: Notebook
) -> None:
    cell = await begun(notebook, "kept = 5\nprint('set', flush=True)\ntime.sleep(600)")
    await cell.printed("set")
    await faulty.proxy.refuse()
    faulty.proxy.reset_all()
    await cell.until(lambda: bool(cell.lost_line))
    await notebook.interrupt()
    await faulty.proxy.accept()
    assert (await cell.reply())["ename"] == "KeyboardInterrupt"
    assert (await notebook.run("print(kept)")).lines == ["5"]


async def test_a_second_interrupt_while_the_connection_is_lost_gives_up(
    faulty: Faulty, notebook: Notebook
) -> None:
    """The person is free at once, and told that the cell may still run; the next one ends it."""
    cell = await begun(notebook, "kept = 5; time.sleep(600); once()")
    await faulty.proxy.refuse()
    faulty.proxy.reset_all()
    await cell.until(lambda: bool(cell.lost_line))
    await notebook.interrupt()
    await notebook.interrupt()
    with pytest.raises(Interrupted, match="not known"):
        await cell.reply(10)
    await faulty.proxy.accept()
    assert (await notebook.run("print(kept)")).lines == ["5"]
    assert await notebook.marks() == 0
