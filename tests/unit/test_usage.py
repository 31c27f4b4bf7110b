"""The sandbox's use of CPU and memory: read by the agent's module, made a percentage by the kernel."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from daytona_kernel.agent.usage import usage
from daytona_kernel.toolbox import ToolboxError
from daytona_kernel.usage import Usage, ask


def test_children_count() -> None:
    program = "data = b'x' * 30_000_000; print('up', flush=True); input()"
    alone = usage(os.getpid())
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    together = usage(os.getpid())
    child.communicate("\n")
    assert together["kernel_memory"] > alone["kernel_memory"] + 29_000_000
    assert together["pid"] == os.getpid()
    assert together["cpu_seconds"] > 0
    assert together["host_virtual_memory"]["total"] > 0


def test_a_process_that_is_gone_uses_nothing() -> None:
    found = usage(2**30)
    assert (found["kernel_memory"], found["cpu_seconds"]) == (0, 0)


def test_percent_is_made_of_two_answers() -> None:
    use = Usage()
    assert use.reply({"at": 100.0, "cpu_seconds": 5.0, "pid": 7}) == {"pid": 7, "kernel_cpu": 0.0}
    assert use.reply({"at": 102.0, "cpu_seconds": 6.5, "pid": 7})["kernel_cpu"] == 75.0
    assert use.reply({"at": 103.0, "cpu_seconds": 0.5})["kernel_cpu"] == 0.0  # a new process
    assert use.reply({}) == {}


class Sandbox:
    """Answers commands."""

    def __init__(self, status: int, output: str) -> None:
        self.status, self.output = status, output

    async def execute(self, *argv: str, timeout_s: int) -> tuple[int, str]:
        if self.status < 0:
            raise ToolboxError(404, "gone")
        return self.status, self.output


@pytest.mark.parametrize(("status", "output"), [(1, "{}"), (0, "no json"), (0, "[1]"), (-1, "")])
async def test_what_can_not_be_known_is_left_out(status: int, output: str) -> None:
    assert await ask(Sandbox(status, output), "python", 1) == {}  # type: ignore[arg-type]
