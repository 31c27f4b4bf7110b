"""The interrupt button: the cell ends with KeyboardInterrupt; what it printed and made is kept."""

from __future__ import annotations

import pytest

from .notebook import Notebook

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENDLESS = {
    "a loop": "while True: pass",
    "a loop that prints": "while True: print('more')",
    "a sleep": "time.sleep(3600)",
    "a wait for a child": "import subprocess; subprocess.run(['sleep', '3600'])",
    "an await": "import asyncio; await asyncio.sleep(3600)",
    "a lock": "import threading; threading.Event().wait()",
    "a comprehension": "[i for i in iter(int, 1)]",
    "a display in a loop": "while True: display('x', display_id='d')",
    "a join of a thread": "t = threading.Thread(target=time.sleep, args=(0.5,), daemon=True); "
    "t.start()\nwhile True: t.join(0.01)",
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_an_interrupt_ends_the_cell_and_keeps_output_and_state(notebook: Notebook, name: str) -> None:
    cell = notebook.send_execute(f"kept = {name!r}\nprint('begun')\n{ENDLESS[name]}\nprint('never')")
    await notebook.says(cell, "begun\n")
    await notebook.interrupt()
    await notebook.until(cell, lambda e: e.finished())
    assert cell.content["status"] == "error"
    # A cell that awaits is cancelled, as under ipykernel.
    assert cell.content["ename"] == ("CancelledError" if name == "an await" else "KeyboardInterrupt")
    assert cell.text().startswith("begun\n")
    assert "never" not in cell.text()
    assert await notebook.value("kept") == name


async def test_an_interrupted_shell_command_ends_alone_as_under_ipykernel(notebook: Notebook) -> None:
    cell = notebook.send_execute("print('begun')\n!sleep 3600\nprint('after')")
    await notebook.says(cell, "begun\n")
    await notebook.until_child("sleep")
    await notebook.interrupt()
    await notebook.until(cell, lambda e: e.finished())
    assert cell.content["status"] == "ok"
    assert cell.text().endswith("after\n")


async def test_the_traceback_of_an_interrupt_shows_where_it_hit(notebook: Notebook) -> None:
    cell = notebook.send_execute("def spin():\n    print('in')\n    while True: pass\nspin()")
    await notebook.says(cell, "in\n")
    await notebook.interrupt()
    await notebook.until(cell, lambda e: e.finished())
    assert "spin" in "\n".join(cell.content["traceback"])


async def test_a_child_of_the_cell_gets_the_interrupt_too(notebook: Notebook) -> None:
    cell = notebook.send_execute(
        "script = 'trap \"exit 7\" INT; echo ready; while :; do sleep 0.01; done'\n"
        "p = subprocess.Popen(['sh', '-c', script])\n"
        # Not p.wait(): interrupted as the child is reaped, it forgets how that ended (CPython, 1 in 300).
        "time.sleep(60)"
    )
    await notebook.says(cell, "ready\n")
    await notebook.interrupt()
    await notebook.until(cell, lambda e: e.finished())
    assert await notebook.value("p.wait()") == 7


async def test_a_cell_may_catch_the_interrupt_and_go_on(notebook: Notebook) -> None:
    cell = notebook.send_execute(
        "try:\n    print('waiting'); time.sleep(3600)\n"
        "except KeyboardInterrupt:\n    print('caught')\n'result'"
    )
    await notebook.says(cell, "waiting\n")
    await notebook.interrupt()
    await notebook.until(cell, lambda e: e.finished())
    assert cell.content["status"] == "ok"
    assert cell.text() == "waiting\ncaught\n"
    assert cell.of_type("execute_result")


async def test_an_interrupt_while_a_line_is_asked_for(notebook: Notebook) -> None:
    cell = notebook.send_execute("kept = 'before'\ninput('name? ')", answers=["<none>"])
    await notebook.until(cell, lambda e: bool(e.stdin))
    await notebook.interrupt()
    await notebook.until(cell, lambda e: e.finished())
    assert cell.content["ename"] == "KeyboardInterrupt"
    assert cell.content["evalue"] == "Interrupted by user"
    assert (await notebook.run("print(input('again? '))", answers=["yes"])).text() == "yes\n"
    assert await notebook.value("kept") == "before"


async def test_an_interrupt_while_nothing_runs_does_nothing(notebook: Notebook) -> None:
    exchange = await notebook.interrupt()
    assert exchange is not None
    await notebook.until(exchange, lambda e: bool(e.replies))
    assert exchange.content["status"] == "ok"
    assert (await notebook.run("print('fine')")).text() == "fine\n"


async def test_many_interrupts_are_one(notebook: Notebook) -> None:
    cell = notebook.send_execute("print('begun')\ntime.sleep(3600)")
    await notebook.says(cell, "begun\n")
    for _ in range(5):
        await notebook.interrupt()
    await notebook.until(cell, lambda e: e.finished())
    assert cell.content["ename"] == "KeyboardInterrupt"
    for number in range(3):
        assert (await notebook.run(f"print({number})")).text() == f"{number}\n"


async def test_an_interrupt_as_soon_as_the_cell_is_sent_reaches_it(notebook: Notebook) -> None:
    """It comes before the sandbox has begun with the cell, and is delivered as soon as it has."""
    cell = notebook.send_execute("time.sleep(3600)")
    await notebook.until(cell, lambda e: "busy" in e.states())
    await notebook.interrupt()
    await notebook.until(cell, lambda e: e.finished())
    assert cell.content["status"] == "error"


async def test_cells_queued_behind_an_interrupted_one_do_not_run(notebook: Notebook) -> None:
    first = notebook.send_execute("print('begun')\ntime.sleep(3600)")
    second = notebook.send_execute("ran = True")
    await notebook.says(first, "begun\n")
    await notebook.interrupt()
    await notebook.until(second, lambda e: e.finished())
    assert second.content["status"] == "aborted"
    assert await notebook.value("'ran' in globals()") is False


@pytest.mark.slow
async def test_hammering_a_printing_loop_never_loses_the_end_of_a_cell(notebook: Notebook) -> None:
    """On the bare interpreter 20 of 25 such interrupts cut a protocol line in two, and the context hung."""
    for round_number in range(25):
        cell = notebook.send_execute(f"n = {round_number}\nwhile True: print('x' * 200)")
        await notebook.says(cell, "x\n")
        await notebook.interrupt()
        await notebook.until(cell, lambda e: e.finished())
        assert cell.content["ename"] == "KeyboardInterrupt"
        assert await notebook.value("n") == round_number
