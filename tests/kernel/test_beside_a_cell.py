"""What is served while a cell runs: comm messages when it awaits, and the sandbox's use of CPU and memory."""

from __future__ import annotations

import pytest

from ..conformance.driver import Exchange
from .notebook import Notebook

pytestmark = pytest.mark.asyncio(loop_scope="module")

WIDGET = """
import asyncio, comm
widget = comm.create_comm(target_name="beside")
log = []
changed = asyncio.Event()
def on_message(message):
    log.append((message["content"]["data"]["n"], [bytes(buffer) for buffer in message["buffers"]]))
    print("handled", log[-1][0])
    if message["content"]["data"].get("fails"):
        raise ValueError("in the handler")
    changed.set()
widget.on_msg(on_message)
async def until(count):
    while len(log) < count:
        changed.clear()
        await changed.wait()
"""


async def make_widget(notebook: Notebook) -> str:
    """The id of a comm whose messages are noted in ``log``."""
    cell = await notebook.run(WIDGET)
    return str(cell.of_type("comm_open")[0]["content"]["comm_id"])


def send(notebook: Notebook, comm_id: str, **data: object) -> Exchange:
    """A message of the widget's view."""
    content = {"comm_id": comm_id, "data": data}
    return notebook.send("comm_msg", content, wants_reply=False, buffers=[b"\x00%d" % int(str(data["n"]))])


async def test_a_cell_that_awaits_gets_the_messages_of_its_widget_in_order(notebook: Notebook) -> None:
    comm_id = await make_widget(notebook)
    cell = notebook.send_execute("print('waits'); await until(5); print('has', len(log))")
    queued = notebook.send_execute("print('next', len(log))")
    await notebook.says(cell, "waits\n")
    messages = [send(notebook, comm_id, n=n) for n in range(5)]
    for exchange in (*messages, queued):
        await notebook.until(exchange, lambda e: e.finished())
    assert cell.text() == "waits\nhas 5\n"
    assert queued.text() == "next 5\n"
    assert [exchange.text() for exchange in messages] == [f"handled {n}\n" for n in range(5)]
    assert all(exchange.states() == ["busy", "idle"] for exchange in messages)
    assert await notebook.value("log") == [(n, [b"\x00%d" % n]) for n in range(5)]


async def test_a_message_sent_together_with_the_cell_that_awaits_it_arrives(notebook: Notebook) -> None:
    comm_id = await make_widget(notebook)
    cell = notebook.send_execute("await until(1); print('has', log[0][0])")
    message = send(notebook, comm_id, n=7)
    await notebook.until(cell, lambda e: e.finished())
    await notebook.until(message, lambda e: e.finished())
    assert cell.text() == "has 7\n"


async def test_a_handler_that_fails_beside_a_cell_harms_neither(notebook: Notebook) -> None:
    comm_id = await make_widget(notebook)
    cell = notebook.send_execute("print('waits'); await until(2); print('has', len(log))")
    await notebook.says(cell, "waits\n")
    failing, good = send(notebook, comm_id, n=1, fails=True), send(notebook, comm_id, n=2)
    await notebook.until(cell, lambda e: e.finished())
    await notebook.until(failing, lambda e: e.finished())
    await notebook.until(good, lambda e: e.finished())
    assert cell.text() == "waits\nhas 2\n"
    assert "ValueError: in the handler" in failing.text("stderr")


async def test_a_cell_that_does_not_await_is_not_disturbed(notebook: Notebook) -> None:
    comm_id = await make_widget(notebook)
    cell = notebook.send_execute("print('runs'); await_sign('go'); print('still', len(log))")
    await notebook.says(cell, "runs\n")
    message = send(notebook, comm_id, n=1)
    queued = notebook.send_execute("print('then', len(log))")
    await notebook.sign("go")
    for exchange in (cell, message, queued):
        await notebook.until(exchange, lambda e: e.finished())
    assert (cell.text(), queued.text()) == ("runs\nstill 0\n", "then 1\n")
    assert message.states() == ["busy", "idle"]


async def test_an_interrupt_ends_the_cell_and_its_messages_are_served_after_it(notebook: Notebook) -> None:
    comm_id = await make_widget(notebook)
    cell = notebook.send_execute("print('waits'); await until(1)")
    await notebook.says(cell, "waits\n")
    await notebook.interrupt()
    await notebook.until(cell, lambda e: e.finished())
    message = send(notebook, comm_id, n=1)
    await notebook.until(message, lambda e: e.finished())
    assert cell.content["status"] == "error"
    assert await notebook.value("len(log)") == 1


async def test_the_use_of_cpu_and_memory_is_known_while_a_cell_runs(notebook: Notebook) -> None:
    idle = await notebook.request("usage_request", channel="control")
    cell = notebook.send_execute("data = b'x' * 50_000_000; print('runs'); await_sign('go')")
    await notebook.says(cell, "runs\n")
    busy = await notebook.request("usage_request", channel="control")
    await notebook.sign("go")
    await notebook.until(cell, lambda e: e.finished())
    assert busy.content["pid"] == idle.content["pid"] == await notebook.value("os.getpid()")
    assert busy.content["kernel_memory"] > idle.content["kernel_memory"] + 40_000_000
    assert set(busy.content) == set(idle.content)
    await notebook.run("del data")
