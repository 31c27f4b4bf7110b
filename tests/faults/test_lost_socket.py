"""The socket is lost while a cell runs: every line once and in order, the true result, live output again."""

from __future__ import annotations

import time
from typing import Literal

import pytest

from .bench import Cell, Notebook
from .conftest import Faulty
from .proxy import Plan

TALK = """
once()
for i in range(200):
    print(i, flush=True)
    time.sleep(0.005)
told("end")
"over"
"""
STEPS = """
once()
for i in range(3):
    print("step", i, flush=True)
    told(f"go{i}")
"over"
"""
GENEROUS_S = 15
"""What these tests allow where the promise is 2 s: only a hang, or an old timeout of 20 s, takes so long."""


def results(cell: Cell) -> list[str]:
    return [c["data"]["text/plain"] for t, c in cell.messages if t == "execute_result"]


@pytest.mark.parametrize("how", ["reset", "finish", "swallow"])
async def test_a_socket_lost_while_a_cell_talks_loses_nothing(
    faulty: Faulty, notebook: Notebook, how: Literal["reset", "finish", "swallow"]
) -> None:
    """Live output goes on while the cell still runs; then it ends with its own result."""
    socket = await notebook.warm()
    cell = notebook.start(TALK)
    await cell.printed("\n50\n")
    socket.end(how)
    await cell.printed("\n199\n", GENEROUS_S)
    assert cell.future is not None
    assert not cell.future.done()
    await notebook.tell("end")
    assert (await cell.reply())["status"] == "ok"
    assert cell.lines == [str(i) for i in range(200)]
    assert results(cell) == ["'over'"]
    assert await notebook.marks() == 1
    assert cell.lost_line == []


async def test_every_socket_of_a_cell_may_be_lost(faulty: Faulty, notebook: Notebook) -> None:
    socket = await notebook.warm()
    cell = notebook.start(TALK)
    for line in range(10, 190, 20):
        await cell.printed(f"\n{line}\n")
        faulty.proxy.reset_all()
    await notebook.tell("end")
    assert (await cell.reply())["status"] == "ok"
    assert cell.lines == [str(i) for i in range(200)]
    assert await notebook.marks() == 1
    assert socket.is_over


async def test_a_restarted_proxy_is_said_and_taken_back(faulty: Faulty, notebook: Notebook) -> None:
    """Nobody answers for a while: after 3 s a line says so; it goes when the connection is there again."""
    cell = notebook.start(STEPS)
    await cell.printed("step 0")
    await faulty.proxy.refuse()
    faulty.proxy.reset_all()
    await notebook.tell("go0")
    await cell.until(lambda: bool(cell.lost_line))
    assert "lost" in cell.lost_line[0]
    assert "step 1" not in cell.text()
    await faulty.proxy.accept()
    back = time.monotonic()
    await cell.printed("step 1")
    assert time.monotonic() - back < GENEROUS_S
    await cell.until(lambda: cell.lost_line[-1] == "")
    for name in ("go1", "go2"):
        await notebook.tell(name)
    assert (await cell.reply())["status"] == "ok"
    assert cell.lines == ["step 0", "step 1", "step 2"]
    assert results(cell) == ["'over'"]
    assert await notebook.marks() == 1


async def test_a_network_that_goes_dark_is_said_and_waited_for(faulty: Faulty, notebook: Notebook) -> None:
    """No reset and no end tells of it: pings do. What was swallowed comes from the recording."""
    cell = notebook.start(STEPS)
    await cell.printed("step 0")
    faulty.proxy.swallow_all()
    await notebook.tell("go0")
    await cell.until(lambda: bool(cell.lost_line))
    faulty.proxy.heal()
    back = time.monotonic()
    await cell.printed("step 1")
    assert time.monotonic() - back < GENEROUS_S
    await cell.until(lambda: cell.lost_line[-1] == "")
    for name in ("go1", "go2"):
        await notebook.tell(name)
    assert (await cell.reply())["status"] == "ok"
    assert cell.lines == ["step 0", "step 1", "step 2"]
    assert await notebook.marks() == 1


async def test_a_stalled_network_is_no_lost_one(faulty: Faulty, notebook: Notebook) -> None:
    """Everything stops and goes on, as with a bad radio link: whichever answers first brings the rest."""
    cell = notebook.start(STEPS)
    await cell.printed("step 0")
    faulty.proxy.pause_all()
    faulty.proxy.default = Plan(swallow=True)  # what connects meanwhile gets no answer
    await notebook.tell("go0")
    await cell.until(lambda: bool(cell.lost_line))
    faulty.proxy.default = Plan()
    faulty.proxy.resume_all()
    await cell.printed("step 1")
    for name in ("go1", "go2"):
        await notebook.tell(name)
    assert (await cell.reply())["status"] == "ok"
    assert cell.lines == ["step 0", "step 1", "step 2"]
    assert cell.lost_line[-1] == ""
    assert await notebook.marks() == 1


async def test_a_warm_socket_that_went_dark_does_not_hold_up_the_next_cell(
    faulty: Faulty, notebook: Notebook
) -> None:
    """An address translation has forgotten an idle connection: nothing says so, ever."""
    socket = await notebook.warm()
    socket.swallow()
    for other in faulty.proxy.alive():
        other.swallow()
    cell = await notebook.run("once(); print('there')", GENEROUS_S)
    assert cell.lines == ["there"]
    assert await notebook.marks() == 1


async def test_a_cell_is_not_sent_while_nobody_answers(faulty: Faulty, notebook: Notebook) -> None:
    """It waits, and says so; with the network it runs, once."""
    await faulty.proxy.refuse()
    faulty.proxy.reset_all()
    cell = notebook.start("once(); print('there')")
    await cell.until(lambda: bool(cell.lost_line))
    assert "not sent" in cell.lost_line[0]
    assert await notebook.marks() == 0
    await faulty.proxy.accept()
    assert (await cell.reply())["status"] == "ok"
    assert cell.lines == ["there"]
    assert await notebook.marks() == 1


async def test_output_between_cells_comes_with_the_next_socket(faulty: Faulty, notebook: Notebook) -> None:
    """A thread goes on printing while every connection is lost between two cells."""
    code = """
import threading
def talk():
    for i in range(40):
        print("late", i, flush=True); time.sleep(0.01)
    told("later"); print("last", flush=True); once("threads")
threading.Thread(target=talk).start()
"""
    first = await notebook.run(code)
    await first.printed("late 5")
    faulty.proxy.reset_all()
    await first.printed("late 39")
    faulty.proxy.reset_all()
    await notebook.tell("later")
    await first.printed("last")
    await notebook.run("pass")
    assert first.lines == [*(f"late {i}" for i in range(40)), "last"]
