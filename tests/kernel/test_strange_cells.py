"""Cells that no one should write: each does what it does under ipykernel, and the next one works."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from .notebook import Notebook

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def the_next_cell_works(notebook: Notebook) -> AsyncIterator[None]:
    await notebook.run("still = 'here'")
    yield
    cell = await notebook.run("print(still)\n1 + 1")
    assert cell.text() == "here\n"
    (result,) = cell.of_type("execute_result")
    assert result["content"]["data"]["text/plain"] == "2"


@pytest.mark.parametrize("code", ["", " ", "\n\n", "# only a comment", "pass", ";"])
async def test_cells_without_anything_to_do(notebook: Notebook, code: str) -> None:
    exchange = await notebook.execute(code)
    if code != ";":
        assert exchange.content["status"] == "ok"
    assert exchange.states() == ["busy", "idle"]


@pytest.mark.parametrize(
    ("code", "ename"),
    [
        ("1 +", "SyntaxError"),
        ("def f(:", "SyntaxError"),
        ("  x = 1\n y = 2", "IndentationError"),
        ("'unterminated", "SyntaxError"),
        ("return 1", "SyntaxError"),
        ("1/0", "ZeroDivisionError"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import asyncio; raise asyncio.CancelledError", "CancelledError"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("class Mine(BaseException): pass\nraise Mine('x')", "Mine"),
        ("def f(): f()\nf()", "RecursionError"),
        ("raise ExceptionGroup('g', [ValueError(1)])", "ExceptionGroup"),
        ("import sys; sys.exit('bye')", "SystemExit"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("raise SystemExit", "SystemExit"),
        ("assert False, 'no'", "AssertionError"),
        ("x = 10**100000; x = f'{x}'", "ValueError"),
        ("%nosuchmagic", ""),
        ("get_ipython().nosuch", "AttributeError"),
    ],
)
async def test_errors_are_told_in_a_message_and_in_the_reply(
    notebook: Notebook, code: str, ename: str
) -> None:
    exchange = await notebook.execute(code)
    if not ename:  # an unknown magic is a line on stderr, as under ipykernel
        assert "nosuchmagic" in exchange.text("stderr")
        return
    assert exchange.content["status"] == "error", exchange.content
    assert exchange.content["ename"] == ename


async def test_a_null_byte_in_a_cell_is_an_error_of_that_cell(notebook: Notebook) -> None:
    exchange = await notebook.execute("x = '\x00'\nprint(1)")
    assert exchange.content["status"] == "error"
    assert exchange.content["ename"] in ("SyntaxError", "ValueError")


async def test_a_lone_surrogate_in_a_cell_is_an_error_of_that_cell(notebook: Notebook) -> None:
    """A front end in JavaScript can send one, escaped; jupyter_client's own packing can not."""
    session = notebook.client.session
    pack = session.pack
    session.pack = lambda content: json.dumps(content, default=str).encode("ascii")
    try:
        exchange = await notebook.execute("x = '\ud800'\nprint('never')")
    finally:
        session.pack = pack
    assert exchange.content["status"] == "error"
    assert exchange.content["ename"] == "UnicodeEncodeError"


async def test_an_error_whose_text_fails(notebook: Notebook) -> None:
    """IPython tells the error of the text instead, and twice."""
    code = "class Bad(Exception):\n    def __str__(self): raise ValueError('no text')\nraise Bad"
    exchange = await notebook.execute(code)
    assert exchange.content["ename"] == "ValueError"
    assert exchange.of_type("error")


async def test_an_error_whose_text_is_huge(notebook: Notebook) -> None:
    content = await notebook.fails("raise ValueError('x' * 3_000_000)")
    assert content["ename"] == "ValueError"


async def test_a_result_whose_repr_fails(notebook: Notebook) -> None:
    exchange = await notebook.execute(
        "class Bad:\n    def __repr__(self): raise ValueError('no repr')\nBad()"
    )
    assert "no repr" in exchange.text("stderr") + str([m["content"] for m in exchange.of_type("error")])


async def test_a_result_whose_repr_is_no_text(notebook: Notebook) -> None:
    await notebook.execute("class Bad:\n    def __repr__(self): return 7\nBad()")


BRANCHES = [
    "import sys; del sys.stdout",
    "import sys; sys.stdout = None",
    "import sys; sys.stdout.close()",
    "import sys; sys.stdin.close()",
    "import sys; del sys.stdin",
    "import sys; sys.__stdout__ = None",
    "import json; json.loads = json.dumps = None",
    "import os; os.closerange(3, 300)",
    "import os; os.close(1)",
    "import os; os.close(0)",
    "import os; os.dup2(os.open('/dev/null', os.O_WRONLY), 1)",
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
    "import asyncio; asyncio.get_event_loop().stop()",
    "import sys; sys.displayhook = None",
    "import sys; sys.excepthook = None",
    "import os; os.chdir('/')",
    "import os; os.environ.clear()",
    "import warnings; warnings.simplefilter('error')",
    "import sys; sys.setrecursionlimit(100)",
]


@pytest.mark.parametrize("code", BRANCHES)
async def test_a_cell_that_saws_off_the_branch_it_sits_on(notebook: Notebook, code: str) -> None:
    """The fixture then runs an ordinary cell, which finds its variables."""
    await notebook.execute(code)


@pytest.mark.parametrize(
    "code",
    [
        "import os; os._exit(3)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import ctypes; ctypes.string_at(0)",
    ],
)
async def test_a_cell_that_ends_its_process_says_so_and_the_next_one_has_a_new_one(
    notebook: Notebook, code: str
) -> None:
    content = await notebook.fails(code)
    assert content["ename"] in ("SandboxProcessDied", "ExecutionUnknown")
    assert "ariables" in content["evalue"]
    exchange = await notebook.run("still = 'here'\nprint('new')")
    assert exchange.text() == "new\n"
    assert "variables are lost" in exchange.text("stderr")


@pytest.mark.slow
async def test_a_cell_of_five_megabytes(notebook: Notebook) -> None:
    text = "\u20ac<&>'" * 1_000_000
    code = f'text = """{text}"""\nprint(len(text))'
    exchange = await notebook.run(code)
    assert exchange.text() == f"{len(text)}\n"


@pytest.mark.slow
async def test_a_cell_of_ten_thousand_lines(notebook: Notebook) -> None:
    exchange = await notebook.run("\n".join(["a = 1"] * 10_000) + "\nprint(a)")
    assert exchange.text() == "1\n"
