"""The connection is cut at any byte of the request or of the first answer: once, or not at all; never twice.

The request travels on a socket that is open already, so every cut below falls into it or into what comes
back. ``DAYTONA_FAULTS_EVERY_BYTE=1`` tries each byte; by default some are left out in the middle.
"""

from __future__ import annotations

import os
from typing import Literal

import pytest

from .bench import Notebook

STEP = 1 if os.environ.get("DAYTONA_FAULTS_EVERY_BYTE") else 7
EDGE = 4 if STEP > 1 else 0
CODE = "once(); print('out')\n'end'"


def boundaries(size: int) -> list[int]:
    """Numbers of bytes after which to cut something of this size: its edges, and some in between."""
    return sorted({*range(EDGE), *range(0, size, STEP), *range(size - EDGE, size)})


async def size_of_cell(notebook: Notebook, way: Literal["up", "down"]) -> int:
    """How many bytes the test's cell takes in one direction."""
    socket = await notebook.warm()
    pipe = getattr(socket, way)
    before = int(pipe.bytes_passed)
    await notebook.run(CODE)
    await socket.closed()
    return int(pipe.bytes_passed) - before


@pytest.mark.slow
@pytest.mark.timeout(1500 if STEP == 1 else 180)
@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_cut_at_any_byte_neither_loses_nor_repeats_a_cell(
    notebook: Notebook, way: Literal["up", "down"]
) -> None:
    size = await size_of_cell(notebook, way)
    runs = await notebook.marks()
    cuts = 0
    for after in boundaries(size):
        socket = await notebook.warm()
        getattr(socket, way).cut(after, "reset")
        cell = notebook.start(CODE)
        assert (await cell.reply())["status"] == "ok", after
        cuts += socket.is_over
        messages = [(kind, content.get("text", "")) for kind, content in cell.messages]
        assert messages == [("stream", "out\n"), ("execute_result", "")], after
        runs += 1
        assert await notebook.marks() == runs, after
    print(f"{way}: {len(boundaries(size))} of {size} places tried, {cuts} times the connection was cut")
    assert cuts > len(boundaries(size)) // 2
