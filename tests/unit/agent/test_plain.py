"""Cells without IPython: results, errors with their source lines, displays, completion."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from daytona_kernel.agent.plain import PlainBackend
from daytona_kernel.agent.world import MainModule

from .conftest import Bench


class Plain:
    """A backend, and what its cells make the kernel show."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.namespace: dict[str, Any] = {"__name__": "__main__"}
        module = MainModule(self.namespace)
        self.backend = PlainBackend(self.namespace, module, bench.outbox, bench.interrupts)
        self._number = 0

    async def run(self, code: str, **options: Any) -> tuple[dict[str, Any], list[Any]]:
        """The reply to a cell, and its messages."""
        self._number += 1
        self.bench.outbox.begin(f"e{self._number}")
        content = {"silent": False, "store_history": True, "user_expressions": {}, **options}
        reply = await self.backend.execute({"code": code, **content})
        self.bench.outbox.flush()
        self.bench.outbox.end()
        return reply, self.bench.frames(f"e{self._number}")


@pytest.fixture
def plain(bench: Bench) -> Iterator[Plain]:
    before = sys.modules["__main__"]
    yield Plain(bench)
    sys.modules["__main__"] = before


async def test_the_last_expression_is_the_result(plain: Plain) -> None:
    reply, (message,) = await plain.run("x = 6\nx * 7")
    assert (reply["status"], reply["execution_count"]) == ("ok", 1)
    assert message.type == "execute_result"
    assert message.content["data"]["text/plain"] == "42"
    assert plain.namespace["x"] == 6
    assert plain.namespace["_"] == 42


@pytest.mark.parametrize("code", ["x = 1", "None", "6 * 7;", "", "# nothing"])
async def test_cells_without_a_result_show_none(plain: Plain, code: str) -> None:
    reply, messages = await plain.run(code)
    assert reply["status"] == "ok"
    assert messages == []


async def test_a_silent_cell_shows_nothing_and_counts_nothing(plain: Plain) -> None:
    _, messages = await plain.run("42", silent=True, store_history=False)
    assert messages == []
    assert plain.backend.execution_count == 1


async def test_an_error_shows_the_line_it_came_from(plain: Plain) -> None:
    reply, (message,) = await plain.run("def f():\n    return 1 / 0\nf()")
    assert message.type == "error"
    assert reply["ename"] == message.content["ename"] == "ZeroDivisionError"
    text = "\n".join(message.content["traceback"])
    assert "return 1 / 0" in text


@pytest.mark.parametrize(
    ("code", "ename"),
    [
        ("1 +", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise BaseException('x')", "BaseException"),
        ("x = '\x00'", "SyntaxError"),
    ],
)
async def test_no_exception_leaves_the_cell(plain: Plain, code: str, ename: str) -> None:
    reply, (message,) = await plain.run(code)
    assert reply["status"] == "error"
    assert message.content["ename"] == ename or (code[0] == "x" and message.content["ename"] == "ValueError")


async def test_rich_results_have_their_forms(plain: Plain) -> None:
    code = "class Rich:\n    def _repr_html_(self): return '<b>x</b>'\nRich()"
    _, (message,) = await plain.run(code)
    assert message.content["data"]["text/html"] == "<b>x</b>"
    _, (message,) = await plain.run("display(Rich())")
    assert message.type == "display_data"
    assert message.content["data"]["text/html"] == "<b>x</b>"


async def test_expressions_of_the_request_are_evaluated(plain: Plain) -> None:
    reply, _ = await plain.run("x = 1", user_expressions={"good": "x + 1", "bad": "nope"})
    found = reply["user_expressions"]
    assert found["good"]["data"]["text/plain"] == "2"
    assert (found["bad"]["status"], found["bad"]["ename"]) == ("error", "NameError")


async def test_names_are_completed(plain: Plain) -> None:
    await plain.run("a_long_name = 1\nimport os")
    found = plain.backend.complete({"code": "print(a_long", "cursor_pos": 12})
    assert found["matches"] == ["a_long_name"]
    assert (found["cursor_start"], found["cursor_end"]) == (6, 12)
    assert "os.path" in plain.backend.complete({"code": "os.pat", "cursor_pos": None})["matches"]
