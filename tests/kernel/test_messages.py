"""What front ends send besides cells, and what they send at once."""

from __future__ import annotations

import pytest

from .notebook import Notebook

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_two_cells_sent_at_once_run_one_after_the_other(notebook: Notebook) -> None:
    first = notebook.send_execute("print('a'); await_sign('go'); order = [1]")
    second = notebook.send_execute("order.append(2); print(order)")
    await notebook.says(first, "a\n")
    assert second.iopub == []
    await notebook.sign("go")
    await notebook.until(second, lambda e: e.finished())
    assert first.text() == "a\n"
    assert second.text() == "[1, 2]\n"
    assert second.content["execution_count"] == first.content["execution_count"] + 1


async def test_an_error_stops_the_cells_that_wait(notebook: Notebook) -> None:
    first = notebook.send_execute("await_sign('go'); 1/0")
    second = notebook.send_execute("ran = True")
    await notebook.until(first, lambda e: "busy" in e.states())
    await notebook.sign("go")
    await notebook.until(second, lambda e: e.finished())
    assert first.content["ename"] == "ZeroDivisionError"
    assert second.content["status"] == "aborted"
    assert await notebook.value("'ran' in globals()") is False


async def test_an_error_does_not_stop_them_if_the_front_end_says_so(notebook: Notebook) -> None:
    first = notebook.send_execute("await_sign('go'); 1/0", stop_on_error=False)
    second = notebook.send_execute("print('ran')")
    await notebook.until(first, lambda e: "busy" in e.states())
    await notebook.sign("go")
    await notebook.until(second, lambda e: e.finished())
    assert second.text() == "ran\n"


async def test_an_error_of_the_sandbox_stops_them_too(notebook: Notebook) -> None:
    first = notebook.send_execute("await_sign('go'); import os; os._exit(3)")
    second = notebook.send_execute("ran = True")
    await notebook.until(first, lambda e: "busy" in e.states())
    await notebook.sign("go")
    await notebook.until(second, lambda e: e.finished())
    assert first.content["ename"] == "SandboxProcessDied"
    assert second.content["status"] == "aborted"
    again = await notebook.run("print('ran' in globals())")
    assert "variables are lost" in again.text("stderr")
    assert again.text() == "False\n"
    from .notebook import AWAIT_SIGN

    await notebook.run(AWAIT_SIGN)


COMMS = """
import comm
log = []
def opened(c, message):
    log.append(('open', message['content']['data'], [bytes(b) for b in message['buffers']]))
    def got(message):
        log.append(('msg', message['content']['data'], [bytes(b) for b in message['buffers']]))
        print('got', message['content']['data'])
        c.send({'echo': message['content']['data']}, buffers=[b'\\x00back'])
    c.on_msg(got)
    c.on_close(lambda message: log.append(('close', message['content']['data'])))
comm.get_comm_manager().register_target('test-target', opened)
"""


async def test_a_comm_is_opened_used_and_closed_by_the_front_end(notebook: Notebook) -> None:
    await notebook.run(COMMS)
    content = {"comm_id": "c-1", "target_name": "test-target", "data": {"a": 1}}
    opened = notebook.send("comm_open", content, wants_reply=False, buffers=[b"\x00\xff", b""])
    await notebook.until(opened, lambda e: e.idle())
    message = {"comm_id": "c-1", "data": {"b": [2]}}
    exchange = notebook.send("comm_msg", message, wants_reply=False, buffers=[b"in"])
    await notebook.until(exchange, lambda e: e.idle())
    assert exchange.text() == "got {'b': [2]}\n"
    (echo,) = exchange.of_type("comm_msg")
    assert echo["content"] == {"comm_id": "c-1", "data": {"echo": {"b": [2]}}}
    assert [bytes(buffer) for buffer in echo["buffers"]] == [b"\x00back"]
    info = await notebook.request("comm_info_request", {"target_name": "test-target"})
    assert info.content["comms"] == {"c-1": {"target_name": "test-target"}}
    closed = notebook.send("comm_close", {"comm_id": "c-1", "data": {"bye": 1}}, wants_reply=False)
    await notebook.until(closed, lambda e: e.idle())
    assert await notebook.value("log") == [
        ("open", {"a": 1}, [b"\x00\xff", b""]),
        ("msg", {"b": [2]}, [b"in"]),
        ("close", {"bye": 1}),
    ]


async def test_a_comm_is_opened_used_and_closed_by_a_cell(notebook: Notebook) -> None:
    cell = await notebook.run(
        "c = comm.create_comm(target_name='front', data={'x': 1}, metadata={'m': 1}, buffers=[b'12'])\n"
        "c.send({'y': 2})\nc.close()"
    )
    kinds = [message["msg_type"] for message in cell.iopub if message["msg_type"].startswith("comm_")]
    assert kinds == ["comm_open", "comm_msg", "comm_close"]
    opened = cell.of_type("comm_open")[0]
    assert opened["content"]["target_name"] == "front"
    assert [bytes(buffer) for buffer in opened["buffers"]] == [b"12"]


async def test_a_message_for_a_comm_that_is_not_there_does_no_harm(notebook: Notebook) -> None:
    exchange = notebook.send("comm_msg", {"comm_id": "nobody", "data": {}}, wants_reply=False)
    await notebook.until(exchange, lambda e: e.idle())
    await notebook.run("print('fine')")


async def test_a_comm_whose_target_is_unknown_is_closed_again(notebook: Notebook) -> None:
    content = {"comm_id": "c-2", "target_name": "nobody", "data": {}}
    exchange = notebook.send("comm_open", content, wants_reply=False)
    await notebook.until(exchange, lambda e: e.idle())
    info = await notebook.request("comm_info_request", {})
    assert "c-2" not in info.content["comms"]


async def test_questions_are_answered_by_the_sandbox(notebook: Notebook) -> None:
    await notebook.run("a_long_name_in_the_sandbox = 1\ndef f(x):\n    'docs of f'")
    found = await notebook.request("complete_request", {"code": "a_long_na", "cursor_pos": 9})
    assert found.content["matches"] == ["a_long_name_in_the_sandbox"]
    found = await notebook.request("inspect_request", {"code": "f", "cursor_pos": 1, "detail_level": 0})
    assert "docs of f" in found.content["data"]["text/plain"]
    found = await notebook.request("is_complete_request", {"code": "for i in x:"})
    assert found.content == {"status": "incomplete", "indent": "    "}


async def test_kernel_info_is_answered_while_a_cell_runs_on_the_control_channel(notebook: Notebook) -> None:
    cell = notebook.send_execute("print('busy'); await_sign('go')")
    await notebook.says(cell, "busy\n")
    info = notebook.send("kernel_info_request", channel="control")
    await notebook.until(info, lambda e: bool(e.replies))
    assert info.content["language_info"]["name"] == "python"
    await notebook.sign("go")
    await notebook.until(cell, lambda e: e.finished())


async def test_a_request_of_an_unknown_type_does_no_harm(notebook: Notebook) -> None:
    notebook.send("make_coffee_request", {"sugar": 2})
    await notebook.run("print('fine')")


@pytest.mark.parametrize("content", [{}, {"code": 7}, {"code": None}, {"code": "1", "user_expressions": 3}])
async def test_a_malformed_execute_request_does_no_harm(
    notebook: Notebook, content: dict[str, object]
) -> None:
    exchange = notebook.send("execute_request", content)
    await notebook.until(exchange, lambda e: e.idle())
    assert [reply for reply in exchange.replies if reply["content"]["status"] == "ok"] == []
    await notebook.run("print('fine')")


async def test_a_silent_cell_says_nothing_and_counts_nothing(notebook: Notebook) -> None:
    before = await notebook.run("1")
    exchange = await notebook.execute("2", silent=True, store_history=False)
    after = await notebook.run("3")
    assert exchange.of_type("execute_result", "execute_input") == []
    assert after.content["execution_count"] == before.content["execution_count"] + 1


async def test_expressions_of_the_request_are_evaluated_in_the_sandbox(notebook: Notebook) -> None:
    exchange = await notebook.execute("x = 5", user_expressions={"good": "x + 1", "bad": "1/0"})
    found = exchange.content["user_expressions"]
    assert found["good"]["data"]["text/plain"] == "6"
    assert found["bad"]["ename"] == "ZeroDivisionError"
