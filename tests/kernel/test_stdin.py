"""``input()`` and ``getpass()`` ask the front end, and nobody else is ever asked."""

from __future__ import annotations

import pytest

from .notebook import Notebook

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_line_is_asked_for_and_given(notebook: Notebook) -> None:
    cell = await notebook.run(
        "name = input('name? ')\nprint('hello', name)", answers=["J\u00f6rg \U0001f600"]
    )
    (request,) = cell.stdin
    assert request["content"] == {"prompt": "name? ", "password": False}
    assert cell.text() == "hello J\u00f6rg \U0001f600\n"


async def test_what_was_printed_before_is_seen_before_the_question(notebook: Notebook) -> None:
    cell = notebook.send_execute("print('think first', end='')\ninput()", answers=["<none>"])
    await notebook.until(cell, lambda e: bool(e.stdin))
    await notebook.says(cell, "think first")
    notebook.reply_to_input(cell.stdin[0], "")
    await notebook.until(cell, lambda e: e.finished())


async def test_a_password_is_asked_for_without_showing_it(notebook: Notebook) -> None:
    cell = await notebook.run("import getpass\nlen(getpass.getpass('secret: '))", answers=["hunter2"])
    (request,) = cell.stdin
    assert request["content"] == {"prompt": "secret: ", "password": True}
    (result,) = cell.of_type("execute_result")
    assert result["content"]["data"]["text/plain"] == "7"
    assert "hunter2" not in str([message["content"] for message in cell.iopub])


async def test_several_questions_are_answered_in_order(notebook: Notebook) -> None:
    cell = await notebook.run("print([input(str(i)) for i in range(3)])", answers=["a", "", "c"])
    assert cell.text() == "['a', '', 'c']\n"
    assert [request["content"]["prompt"] for request in cell.stdin] == ["0", "1", "2"]


async def test_a_stale_answer_is_not_taken_for_the_next_question(notebook: Notebook) -> None:
    """The person answered after the interrupt: that answer belongs to a question nobody asks any more."""
    first = notebook.send_execute("input('first? ')", answers=["<none>"])
    await notebook.until(first, lambda e: bool(e.stdin))
    await notebook.interrupt()
    await notebook.until(first, lambda e: e.finished())
    notebook.reply_to_input(first.stdin[0], "stale")
    # The answer is on its way on another channel; this makes sure that it has arrived.
    await notebook.request("kernel_info_request")
    second = await notebook.run("print(input('second? '))", answers=["fresh"])
    assert second.text() == "fresh\n"


async def test_a_front_end_without_input_gets_an_error_and_not_a_hang(notebook: Notebook) -> None:
    content = await notebook.fails("input('x')", allow_stdin=False)
    assert content["ename"] == "StdinNotImplementedError"
    content = await notebook.fails("import getpass; getpass.getpass()", allow_stdin=False)
    assert content["ename"] == "StdinNotImplementedError"


async def test_the_end_of_input_is_an_eof_error(notebook: Notebook) -> None:
    content = await notebook.fails("input()", answers=["\x04"])
    assert content["ename"] == "EOFError"


async def test_a_child_that_reads_finds_the_end_of_its_input(notebook: Notebook) -> None:
    """It must not eat the interpreter's commands: then the next cell would be lost."""
    cell = await notebook.run("import subprocess\nsubprocess.run(['cat']).returncode\nprint('after')")
    assert cell.text() == "after\n"
    assert (await notebook.run("import sys; print(repr(sys.stdin.readline()))")).text() == "''\n"
    assert (await notebook.run("print('next')")).text() == "next\n"


async def test_a_question_whose_prompt_is_no_valid_text(notebook: Notebook) -> None:
    cell = await notebook.run("print(input('\\udcff\\x00'))", answers=["ok"])
    assert cell.text() == "ok\n"


async def test_a_thread_may_ask(notebook: Notebook) -> None:
    cell = await notebook.run(
        "import threading\n"
        "t = threading.Thread(target=lambda: print(input('from a thread ')))\n"
        "t.start(); t.join()",
        answers=["fine"],
    )
    assert cell.text() == "fine\n"


async def test_the_debugger_can_be_used(notebook: Notebook) -> None:
    cell = await notebook.run("x = 41\nimport pdb; pdb.set_trace()\nx", answers=["x = x + 1", "p x", "c"])
    assert "42" in cell.text()
