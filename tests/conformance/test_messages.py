"""Requests and their options: what `python3` answers, the kernel under test answers."""

from __future__ import annotations

import asyncio

import pytest

from .driver import REFERENCE, UNDER_TEST, Exchange
from .pair import Pair

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: For promises that ipykernel 7.4 does not keep.
not_ipykernel = pytest.mark.skipif(UNDER_TEST == REFERENCE, reason="ipykernel fails here itself")


# Execute options


async def test_silent_leaves_no_trace(pair: Pair) -> None:
    """A silent execution publishes no input and no result, and counts nothing."""
    await pair.same_cell("1 + 1", silent=True, store_history=False)
    await pair.same_cell("print('still printed')", silent=True, store_history=False)
    await pair.same_cell("1 / 0", silent=True, store_history=False)
    await pair.same_cell("1 + 1")


async def test_without_history_nothing_is_counted(pair: Pair) -> None:
    """`store_history` false: the result is shown, the counter stays."""
    await pair.same_cell("2 + 2", store_history=False)
    await pair.same_cell("In[-1], len(In)")


async def test_silent_with_history(pair: Pair) -> None:
    """`silent` wins over `store_history`."""
    await pair.same_cell("3 + 3", silent=True, store_history=True)
    await pair.same_cell("4 + 4")


EXPRESSIONS = {
    "good": "number + 1",
    "rich": "__import__('IPython').display.HTML('<b>x</b>')",
    "bad": "no_such_name",
    "division": "1 / 0",
    "syntax": "1 +",
    "empty": "",
    "text": "'a\\nb'",
}


async def test_user_expressions(pair: Pair) -> None:
    """Good ones give a bundle, bad ones an error of their own; the request is fine either way."""
    await pair.same_cell("number = 6", user_expressions=EXPRESSIONS)
    await pair.same_cell("", user_expressions={"n": "number"})
    await pair.same_cell("", silent=True, store_history=False, user_expressions={"n": "number"})


async def test_user_expressions_after_an_error(pair: Pair) -> None:
    """A failing cell evaluates none."""
    await pair.same_cell("1 / 0", user_expressions={"n": "number"})


async def test_queued_cells_are_aborted_after_an_error(pair: Pair) -> None:
    """`stop_on_error`: what was queued behind the failing cell is answered with `aborted`, and not run."""
    code = ["import time; time.sleep(0.5); 1 / 0", "ran = 'second'", "ran = 'third'"]
    recordings = []
    for kernel in (pair.reference, pair.tested):
        await kernel.execute("ran = 'none'")
        sent = [kernel.send_execute(one) for one in code]
        info = kernel.send("kernel_info_request")
        for exchange in [*sent, info]:
            await kernel.until(exchange, Exchange.finished)
        states = [exchange.content["status"] for exchange in [*sent, info]]
        recordings.append((states, [exchange.states() for exchange in sent], await kernel.evaluate("ran")))
    assert recordings[0] == recordings[1]
    assert recordings[1][0] == ["error", "aborted", "aborted", "ok"]


async def test_queued_cells_run_without_stop_on_error(pair: Pair) -> None:
    """`stop_on_error` false: the cells behind the failing one run."""
    for kernel in (pair.reference, pair.tested):
        failing = kernel.send_execute("1 / 0", stop_on_error=False)
        following = kernel.send_execute("'ran'")
        await kernel.until(failing, Exchange.finished)
        await kernel.until(following, Exchange.finished)
        assert (failing.content["status"], following.content["status"]) == ("error", "ok")


async def test_cells_run_in_the_order_of_their_requests(pair: Pair) -> None:
    """Ten cells at once: one after the other, each with its own outputs and its own count."""
    for kernel in (pair.reference, pair.tested):
        await kernel.execute("order = []")
        sent = [kernel.send_execute(f"order.append({n}); print({n}); {n}") for n in range(10)]
        for exchange in sent:
            await kernel.until(exchange, Exchange.finished)
        assert [exchange.text() for exchange in sent] == [f"{n}\n" for n in range(10)]
        counts = [exchange.content["execution_count"] for exchange in sent]
        assert counts == list(range(counts[0], counts[0] + 10))
        assert await kernel.evaluate("order") == str(list(range(10)))


async def test_input_is_refused_without_stdin(pair: Pair) -> None:
    """`allow_stdin` false: StdinNotImplementedError, and no request."""
    one, two = await pair.execute("input('?')", allow_stdin=False)
    assert two.content["ename"] == one.content["ename"] == "StdinNotImplementedError"
    assert two.content["evalue"] == one.content["evalue"]
    assert two.stdin == one.stdin == []


async def test_stale_input_replies_are_ignored(pair: Pair) -> None:
    """An answer that nobody asked for is not the answer to the next question."""
    for kernel in (pair.reference, pair.tested):
        kernel.client.input("stale")
        exchange = await kernel.execute("input('fresh? ')", answers=["fresh"])
        assert exchange.of_type("execute_result")[0]["content"]["data"]["text/plain"] == "'fresh'"


async def test_cell_ids_reach_the_hooks(pair: Pair) -> None:
    """The id of the cell is in `ExecutionInfo`, as ipykernel has it there."""
    await pair.same_cell(
        "seen = []\n"
        "get_ipython().events.register('pre_run_cell', lambda i: seen.append((i.cell_id, i.raw_cell)))",
        metadata={"cellId": "first-id"},
    )
    await pair.same_cell("len(seen)", metadata={"cellId": "second-id"})
    await pair.same_cell("seen[:2]", metadata={"cellId": "third-id"})
    await pair.execute("get_ipython().events.callbacks['pre_run_cell'].clear()")


# The other requests


async def test_kernel_info(pair: Pair) -> None:
    """The language is described in the same words; each key of ipykernel's reply is there."""
    one, two = await pair.request("kernel_info_request")
    assert two.content["language_info"] == one.content["language_info"]
    assert two.content["protocol_version"] == one.content["protocol_version"]
    assert two.content["status"] == "ok"
    assert set(two.content) >= set(one.content) - {"supported_features"}


async def test_kernel_info_on_the_control_channel(pair: Pair) -> None:
    """Front ends ask there as well."""
    one, two = await pair.request("kernel_info_request", channel="control")
    assert two.content["language_info"] == one.content["language_info"]


async def test_comm_info(pair: Pair) -> None:
    """Open comms by id, all of them or those of one target."""
    await pair.same("comm_info_request", {})
    await pair.same_cell("from comm import create_comm\nmine = create_comm('mine', comm_id='my-comm')")
    await pair.same("comm_info_request", {})
    await pair.same("comm_info_request", {"target_name": "mine"})
    await pair.same("comm_info_request", {"target_name": "other"})
    await pair.same_cell("mine.close()")
    await pair.same("comm_info_request", {})


async def test_comm_messages_from_the_front_end(pair: Pair) -> None:
    """Open, message with buffers and close reach the handlers, whose output has them as parents."""
    await pair.same_cell(
        "import comm\n"
        "def opened(c, message):\n"
        "    print('opened', message['content']['data'])\n"
        "    c.on_msg(lambda m: (print('got', m['content']['data'], [bytes(b) for b in m['buffers']]),"
        " c.send({'echo': m['content']['data']}, buffers=m['buffers'])))\n"
        "    c.on_close(lambda m: print('closed', m['content']['data']))\n"
        "comm.get_comm_manager().register_target('from_front', opened)"
    )
    await pair.same_comm("comm_open", {"comm_id": "c1", "target_name": "from_front", "data": {"x": 1}})
    await pair.same_comm("comm_msg", {"comm_id": "c1", "data": {"y": 2}}, [b"\x00\xff", b"two"])
    await pair.same_comm("comm_close", {"comm_id": "c1", "data": {"z": 3}})


async def test_comm_open_of_an_unknown_target_is_closed(pair: Pair) -> None:
    """The front end is told with comm_close."""
    await pair.same_comm("comm_open", {"comm_id": "c9", "target_name": "nobody", "data": {}})


async def test_comm_message_for_an_unknown_comm(pair: Pair) -> None:
    """Nothing happens."""
    await pair.same_comm("comm_msg", {"comm_id": "no-such", "data": {}})


async def test_error_in_a_comm_handler(pair: Pair) -> None:
    """The kernel goes on."""
    await pair.same_cell(
        "def failing(c, m): raise ValueError('in a handler')\n"
        "comm.get_comm_manager().register_target('failing', failing)"
    )
    for kernel in (pair.reference, pair.tested):
        exchange = kernel.send(
            "comm_open", {"comm_id": "c5", "target_name": "failing", "data": {}}, wants_reply=False
        )
        await kernel.until(exchange, Exchange.idle)
    await pair.same_cell("'alive'")


async def test_comm_message_while_a_cell_runs(pair: Pair) -> None:
    """It is handled when the cell has ended, before the next cell."""
    await pair.same_cell(
        "got = []; c7 = comm.create_comm('x', comm_id='c7'); c7.on_msg(lambda m: got.append(1))"
    )
    for kernel in (pair.reference, pair.tested):
        cell = kernel.send_execute("import time; time.sleep(0.5); len(got)")
        message = kernel.send("comm_msg", {"comm_id": "c7", "data": {}}, wants_reply=False)
        after = kernel.send_execute("len(got)")
        await kernel.until(after, Exchange.finished)
        results = [e.of_type("execute_result")[0]["content"]["data"]["text/plain"] for e in (cell, after)]
        assert results == ["0", "1"]
        assert message.states() == ["busy", "idle"]


async def test_unknown_request_is_ignored(pair: Pair) -> None:
    """Busy, idle, no reply; the kernel goes on."""
    for kernel in (pair.reference, pair.tested):
        exchange = kernel.send("nonsense_request", {"x": 1}, wants_reply=False)
        await kernel.until(exchange, Exchange.finished)
        assert exchange.replies == []
        assert exchange.states() == ["busy", "idle"]
    await pair.same_cell("'alive'")


async def test_malformed_execute_request(pair: Pair) -> None:
    """A request without code: busy, idle, and the next one is answered."""
    for kernel in (pair.reference, pair.tested):
        exchange = kernel.send("execute_request", {"silent": False}, wants_reply=False)
        await kernel.until(exchange, Exchange.finished)
    await pair.same_cell("'alive'")


async def test_interrupt_of_an_idle_kernel(pair: Pair) -> None:
    """The reply is `ok`, and the next cell is not interrupted."""
    _, two = await pair.request("interrupt_request", channel="control")
    assert two.content["status"] == "ok"
    await pair.same_cell("import time; time.sleep(0.2); 'not interrupted'")


async def test_usage(pair: Pair) -> None:
    """The numbers that JupyterLab's resource display asks for, by the same names."""
    one, two = await pair.request("usage_request", channel="control")
    assert set(two.content) == set(one.content)
    assert isinstance(two.content["kernel_cpu"], (int, float))
    assert two.content["kernel_memory"] > 0


async def test_subshell_requests(pair: Pair) -> None:
    """Declared in kernel_info: supported and answered; or not supported and refused with an error."""
    _, info = await pair.request("kernel_info_request")
    exchange = pair.tested.send("create_subshell_request", channel="control")
    supported = "kernel subshells" in info.content.get("supported_features", [])
    await pair.tested.until(exchange, Exchange.finished if supported else Exchange.idle)
    if supported:
        assert exchange.content["status"] == "ok"
    else:
        assert not exchange.replies or exchange.content["status"] == "error"


async def test_debug_request_is_refused_politely(pair: Pair) -> None:
    """A kernel that says `debugger: false` answers or ignores; it does not break."""
    request = {"type": "request", "seq": 1, "command": "debugInfo", "arguments": {}}
    exchange = pair.tested.send("debug_request", request, channel="control", wants_reply=False)
    await pair.tested.until(exchange, Exchange.finished)
    await pair.same_cell("'alive'")


# Input while other things happen


async def test_input_can_be_interrupted(pair: Pair) -> None:
    """Interrupt while waiting for an answer: KeyboardInterrupt with the words of ipykernel."""
    for kernel in (pair.reference, pair.tested):
        exchange = kernel.send_execute("input('never ')", answers=["<none>"])
        await kernel.until(exchange, lambda e: bool(e.stdin))
        await kernel.interrupt()
        await kernel.until(exchange, Exchange.finished)
        assert exchange.content["ename"] == "KeyboardInterrupt"
    # Asked of the kernel under test alone: ipykernel adds these words only if the signal finds it past the
    # request (in 7 of 12 tries).
    if UNDER_TEST != REFERENCE:
        assert exchange.content["evalue"] == "Interrupted by user"
    await pair.same_cell("input('again ')", answers=["yes"])


@not_ipykernel
async def test_a_sleeping_await_can_be_interrupted(pair: Pair) -> None:
    """An await that nothing wakes. (ipykernel's own loop sleeps through the signal.)"""
    exchange = pair.tested.send_execute("import asyncio\nprint('started')\nawait asyncio.sleep(300)")
    await pair.tested.until(exchange, lambda e: "started" in e.text())
    await asyncio.sleep(0.3)
    await pair.tested.interrupt()
    await pair.tested.until(exchange, Exchange.finished)
    assert exchange.content["status"] == "error"
    await pair.tested.execute("'alive'")


async def test_output_is_live(pair: Pair) -> None:
    """What a cell prints arrives while it runs: here it is asked for something that depends on it."""
    exchange = pair.tested.send_execute(
        "print('first')\nanswer = input('go on? ')\nprint('second')", answers=["<none>"]
    )
    await pair.tested.until(exchange, lambda e: "first" in e.text() and bool(e.stdin))
    assert not exchange.idle()
    pair.tested.reply_to_input(exchange.stdin[0], "yes")
    await pair.tested.until(exchange, Exchange.finished)
    assert exchange.text() == "first\nsecond\n"


# What kernels do to themselves


@not_ipykernel
async def test_deleting_stdout_does_not_stop_the_kernel(fresh: Pair) -> None:
    """The next cells are answered. (ipykernel 7.4 never answers the cell that deletes sys.stdout.)"""
    await fresh.tested.execute("import sys; del sys.stdout; print('nowhere')")
    await fresh.tested.execute("sys.stdout = None")
    exchange = await fresh.tested.execute("1 + 1")
    assert exchange.content["status"] == "ok"


@not_ipykernel
async def test_the_kernel_survives_its_process(fresh: Pair) -> None:
    """A cell that ends the process gets an error; the kernel lives and says that the variables are lost."""
    await fresh.tested.execute("x = 1")
    died = await fresh.tested.execute("import os; os._exit(3)")
    assert died.content["status"] == "error"
    assert died.of_type("error")
    exchange = await fresh.tested.execute("'x' in globals()")
    assert exchange.of_type("execute_result")[0]["content"]["data"]["text/plain"] == "False"


@pytest.mark.parametrize("restart", [False, True])
async def test_shutdown_is_confirmed(fresh: Pair, restart: bool) -> None:
    """The reply repeats `restart`, on the control channel, and as a message to all."""
    for kernel in (fresh.reference, fresh.tested):
        exchange = kernel.send("shutdown_request", {"restart": restart}, channel="control")
        await kernel.until(exchange, lambda e: bool(e.replies))
        assert exchange.content == {"status": "ok", "restart": restart}
        while await kernel.manager.is_alive():
            await asyncio.sleep(0.05)
        announced = [
            m["content"] for m in kernel.everything if m["channel"] == "iopub" and "shutdown" in m["msg_type"]
        ]
        assert announced == [{"status": "ok", "restart": restart}]


@pytest.mark.parametrize("code", ["quit()", "get_ipython().ask_exit()"])
async def test_exit_asks_the_front_end(fresh: Pair, code: str) -> None:
    """The payload `ask_exit`, with or without keeping the kernel."""
    await fresh.same_cell(code)


async def test_restart_forgets_everything(fresh: Pair) -> None:
    """After a restart the counter is 1 and the names are gone."""
    for kernel in (fresh.reference, fresh.tested):
        await kernel.execute("kept = 1")
        await kernel.stop_reading()
        await kernel.manager.restart_kernel(now=False)
        await kernel.client.wait_for_ready(timeout=60)
        kernel.start_reading()
        exchange = await kernel.execute("'kept' in globals()")
        assert exchange.of_type("execute_result")[0]["content"]["data"]["text/plain"] == "False"
        assert exchange.content["execution_count"] == 1
