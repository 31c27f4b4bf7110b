"""Runs a family of cells in a kernel, and writes down what the kernel said as text that can be compared."""

from __future__ import annotations

import asyncio
import difflib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import spec
from .corpus import Cell, Family
from .driver import Exchange, KernelDied, KernelUnderTest, Message, NoAnswer, is_status, running_kernel
from .normalise import Normaliser, merge_streams, streams_apart

#: In seconds: ipykernel reads its own pipes in a thread and publishes what it read 0.2 s later, so that the
#: output of a child may come after the cell. The next cell waits for that; nothing is compared with a clock.
SETTLE = 0.5


@dataclass
class Recording:
    """What the kernel said to one cell.

    `lines` is compared; `faults` are against the messaging specification; `trouble` is why there is no
    whole answer.
    """

    cell: Cell
    lines: list[str]
    faults: list[str]
    trouble: str = ""


async def record_family(kernel_name: str, family: Family) -> dict[str, Recording]:
    """Runs all cells of a family in a fresh kernel, by cell id.

    Recordings are written when the kernel has ended, so that late output is in them. After a cell that
    hangs or kills the kernel, the remaining cells are recorded as not run.
    """
    with tempfile.TemporaryDirectory(prefix="conformance-", ignore_cleanup_errors=True) as directory:
        home = Path(directory, "home")
        home.mkdir()
        async with running_kernel(kernel_name, home) as kernel:
            normaliser = await Normaliser.for_kernel(kernel)
            ran: list[tuple[Cell, Exchange, str]] = []
            trouble = ""
            for cell in family.cells:
                if trouble:
                    ran.append((cell, Exchange("", "execute_request", "shell"), "not run"))
                    continue
                exchange = _send(kernel, cell)
                trouble = await _finish(kernel, exchange, cell.flags)
                ran.append((cell, exchange, trouble))
    return {cell.id: record(cell, exchange, trouble, normaliser) for cell, exchange, trouble in ran}


def _send(kernel: KernelUnderTest, cell: Cell) -> Exchange:
    return kernel.send_execute(
        cell.code,
        # JupyterLab names the cell in the metadata of each request.
        metadata={"cellId": f"cell-{cell.name}", "deletedCells": [], "recordTiming": False},
        answers=cell.answers,
        interrupt_on=cell.interrupt_on,
        allow_stdin="no stdin" not in cell.flags,
        silent="silent" in cell.flags,
        store_history=not cell.flags & {"silent", "no history"},
    )


async def _finish(kernel: KernelUnderTest, exchange: Exchange, flags: set[str]) -> str:
    try:
        await kernel.until(exchange, Exchange.finished)
    except (KernelDied, NoAnswer) as error:
        return ": ".join(map(str, error.args))
    if "streams apart" in flags:
        await asyncio.sleep(SETTLE)
    return ""


def record(cell: Cell, exchange: Exchange, trouble: str, normaliser: Normaliser) -> Recording:
    """The recording of one finished exchange."""
    normaliser.new_cell()
    lines: list[str] = []
    if "setup" in cell.flags:
        status = exchange.replies[0]["content"]["status"] if exchange.replies else "no reply"
        return Recording(cell, [f"setup: {status}"], [], trouble)
    messages = exchange.iopub
    if cell.flags & {"late output", "streams apart", "any order"}:
        messages = [m for m in messages if not is_status(m, "idle")]
    if cell.flags & {"streams apart", "any order"}:
        messages = streams_apart(messages)
    blocks = [normaliser.lines(message) for message in merge_streams(messages)]
    if "any order" in cell.flags:
        blocks.sort()
    lines += [line for block in blocks for line in block]
    for message in exchange.stdin:
        lines += normaliser.lines(message)
    for reply in exchange.replies:
        lines += normaliser.lines(without_repetition(reply, exchange))
    return Recording(cell, lines, spec.faults_of_exchange(exchange) if not trouble else [], trouble)


def without_repetition(reply: Message, exchange: Exchange) -> Message:
    """The reply; a traceback that the error message before it has shown is named, not repeated."""
    errors = exchange.of_type("error")
    content = reply["content"]
    if errors and errors[-1]["content"]["traceback"] == content.get("traceback"):
        return {**reply, "content": {**content, "traceback": "the same as in the error message"}}
    return reply


def difference(expected: Recording, actual: Recording, names: tuple[str, str]) -> list[str]:
    """A unified diff, empty when both recordings are equal."""
    if expected.lines == actual.lines:
        return []
    return list(difflib.unified_diff(expected.lines, actual.lines, *names, n=4, lineterm=""))
