"""Cells of the kernel that have `%daytona` in them: one cell, whoever ran its parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from .doors import KernelDoor


def test_parts_run_in_order_as_one_cell(kernel: KernelDoor) -> None:
    before = kernel("0").count
    outcome = kernel("print('one')\n%daytona exec -- echo two\nprint('three')\n1+1").ok()
    assert outcome.stdout.split() == ["one", "two", "three"]
    assert outcome.count == before + 1
    assert len(outcome.inputs) == 1
    assert outcome.results[0]["text/plain"] == "2"
    assert kernel("_").results[0]["text/plain"] == "2"
    assert kernel("0").count == before + 3


def test_only_the_last_expression_of_a_cell_is_shown(kernel: KernelDoor) -> None:
    outcome = kernel("5\n%daytona exec -- true\n6").ok()
    assert [one["text/plain"] for one in outcome.results] == ["6"]
    assert not kernel("7\n%daytona exec -- true").ok().results


def test_the_whole_cell_is_once_in_the_history(kernel: KernelDoor) -> None:
    text = "marker = 1\n%daytona exec -- true\nmarker = 2"
    count = kernel(text).ok().count
    outcome = kernel(
        "raw = get_ipython().history_manager.input_hist_raw\n"
        f"print(raw[{count}] == {text!r}, raw.count({text!r}), len(raw) == len(In) == {count + 2})"
    )
    assert outcome.stdout.split() == ["True", "1", "True"]


def test_a_value_is_assigned_in_the_sandbox(kernel: KernelDoor) -> None:
    outcome = kernel("code = %daytona exec --no-raise -- sh -c 'exit 3'\nprint(type(code), code)").ok()
    assert outcome.stdout.strip() == "<class 'int'> 3"
    outcome = kernel("d = {}\nd['f'] = %daytona status\nprint(d['f']['state'])").ok()
    assert outcome.stdout.strip() == "started"
    assert not outcome.shown


def test_a_value_is_data_whatever_is_in_it(kernel: KernelDoor) -> None:
    nasty = "a'''\\\"\n{x}"
    kernel(f"open('nasty.txt','w').write({nasty!r})").ok()
    outcome = kernel(f"text = %daytona cat nasty.txt\nprint(text == {nasty!r})").ok()
    assert outcome.stdout.strip() == "True"


def test_tracebacks_count_lines_from_the_top_of_the_cell(kernel: KernelDoor) -> None:
    outcome = kernel("a = 1\n%daytona exec -- true\nb = 2\n1/0")
    assert outcome.failed("ZeroDivisionError") == "division by zero"
    assert "line 4" in outcome.traceback
    assert "----> 4 1/0" in outcome.traceback


def test_an_error_ends_the_cell(kernel: KernelDoor) -> None:
    kernel("done = []").ok()
    before = kernel("0").count
    outcome = kernel("done.append(1)\n%daytona nonsense\ndone.append(2)")
    outcome.failed("UsageError")
    assert outcome.count == before + 1
    assert kernel("done").results[0]["text/plain"] == "[1]"
    outcome = kernel("1/0\n%daytona mkdir must-not-be")
    outcome.failed("ZeroDivisionError")
    assert "must-not-be" not in kernel("%daytona ls").text


def test_a_syntax_error_runs_nothing_of_the_cell(kernel: KernelDoor) -> None:
    outcome = kernel("%daytona mkdir not-made\nx = = 1")
    outcome.failed("SyntaxError")
    assert "not-made" not in kernel("%daytona ls").text


@pytest.mark.parametrize(
    "code",
    [
        "for i in range(2):\n    %daytona mkdir asked",
        "def f():\n    %daytona mkdir asked\nf()",
        "get_ipython().run_cell('%daytona mkdir asked')\n1/0",
        "exec(\"get_ipython().run_line_magic('daytona', 'mkdir asked')\")",
    ],
)
def test_code_in_the_sandbox_can_not_ask_for_a_local_action(kernel: KernelDoor, code: str) -> None:
    outcome = kernel(code)
    assert outcome.ename
    assert "top level of a cell" in outcome.stderr + outcome.evalue
    assert "asked" not in kernel("%daytona ls").text


def test_nothing_is_published_for_a_silent_cell(kernel: KernelDoor) -> None:
    before = kernel("0").count
    outcome = kernel("%daytona exec -- echo loud", silent=True, store_history=False).ok()
    assert not outcome.stdout
    assert kernel("0").count == before + 1


def test_a_cell_that_is_not_stored_does_not_count(kernel: KernelDoor) -> None:
    before = kernel("0").count
    outcome = kernel("%daytona exec -- echo hi", store_history=False).ok()
    assert outcome.stdout == "hi\n"
    assert kernel("0").count == before + 1


def test_user_expressions_are_evaluated_after_the_last_part(kernel: KernelDoor) -> None:
    kernel.client.execute("v = 1\n%daytona exec -- true", user_expressions={"v": "v + 1"})
    reply = kernel.client.get_shell_msg(timeout=60)["content"]
    assert reply["user_expressions"]["v"]["data"]["text/plain"] == "2"


def test_an_interrupt_ends_the_cell_with_its_command(kernel: KernelDoor) -> None:
    code = "%daytona exec -- sh -c 'echo begun; exec sleep 600'\nprint('not reached')"
    outcome = kernel.interrupted(code, "begun")
    assert (outcome.ename, outcome.stdout) == ("KeyboardInterrupt", "begun\n")


def test_help_needs_no_sandbox(kernel: KernelDoor, tmp_path: Path) -> None:
    assert "upload" in kernel("%daytona").ok().text
    assert "usage: %daytona upload" in kernel("%daytona help upload").ok().text
    assert "usage: %daytona upload" in kernel("%daytona upload --help").ok().text
    assert "%daytona help" in kernel("%daytona?").ok().text or kernel("%daytona?").ok().text
