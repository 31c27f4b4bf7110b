"""Kept shells, with a daemon that never tells the end of a command that ends its shell."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from daytona_kernel.errors import ConnectionFailed
from daytona_kernel.magics import process as module
from daytona_kernel.magics.host import CommandFailed
from daytona_kernel.magics.process import AS_BASH, HAS_ENDED, Written, run_line
from daytona_kernel.toolbox import shell_words


class Gone(Exception):
    status_code = 410


class Processes:
    """Sessions of v0.190.0: logs are followed until the command has an exit code, which may never be."""

    def __init__(self, *, ends: bool) -> None:
        self.ends = ends
        self.lines: list[str] = []
        self.calls: list[str] = []
        self.gone = 0

    async def create_session(self, session_id: str) -> None:
        self.calls.append("create")

    async def delete_session(self, session_id: str) -> None:
        self.calls.append("delete")

    async def execute_session_command(self, session_id: str, request: Any) -> Any:
        if self.gone:
            self.gone -= 1
            raise Gone
        self.lines.append(request.command)
        return SimpleNamespace(cmd_id="c1")

    async def get_session_command_logs_async(self, session: str, command: str, out: Any, err: Any) -> None:
        out("said\n")
        if not self.ends:
            await asyncio.Event().wait()

    async def get_session_command(self, session_id: str, command_id: str) -> Any:
        return SimpleNamespace(exit_code=0 if self.ends else None)


class Looks:
    """A toolbox: the shell is there for the first look, and gone at the second."""

    def __init__(self) -> None:
        self.scripts: list[str] = []

    async def shell(self, script: str, timeout_s: int) -> tuple[int, str]:
        self.scripts.append(script)
        return (0 if len(self.scripts) > 1 else 1), ""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHELL_LOOK_S", 0.0)
    monkeypatch.setattr(module, "SHELL_GRACE_S", 0.0)


async def run(processes: Processes, toolbox: Any) -> tuple[int | None, str]:
    written, sandbox = Written(), SimpleNamespace(process=processes)
    code = await run_line(
        written,
        sandbox,
        "exit 3\n",
        what="The script",
        keep="work",
        toolbox=toolbox,  # type: ignore[arg-type]
    )
    return code, written.texts["stdout"]


async def test_a_script_that_ends_its_shell_is_told_and_the_shell_given_up() -> None:
    processes, toolbox = Processes(ends=False), Looks()
    with pytest.raises(CommandFailed, match="exit was called"):
        await run(processes, toolbox)
    assert processes.calls == ["create", "delete"]
    assert len(toolbox.scripts) == 2


async def test_a_script_that_ends_by_itself_leaves_its_shell_open() -> None:
    processes = Processes(ends=True)
    assert await run(processes, Looks()) == (0, "said\n")
    assert processes.calls == ["create"]
    assert processes.lines[0].endswith("; exit 3\n")  # on the first line: messages count them


async def test_a_session_whose_shell_has_ended_gets_a_new_one() -> None:
    processes = Processes(ends=True)
    processes.gone = 1
    assert (await run(processes, Looks()))[0] == 0
    assert processes.calls == ["create", "delete", "create"]


async def test_a_line_whose_answer_was_lost_is_found_and_not_sent_again() -> None:
    processes = Processes(ends=True)
    begin = processes.execute_session_command

    async def lose(session_id: str, request: Any) -> Any:
        await begin(session_id, request)
        raise ConnectionResetError

    async def get_session(session_id: str) -> Any:
        commands = [
            SimpleNamespace(id=f"c{n}", command=line) for n, line in enumerate(["older", *processes.lines])
        ]
        return SimpleNamespace(commands=commands)

    processes.execute_session_command = lose  # type: ignore[method-assign]
    processes.get_session = get_session  # type: ignore[attr-defined]
    assert await run(processes, Looks()) == (0, "said\n")
    assert len(processes.lines) == 1


async def test_a_line_that_did_not_arrive_is_told() -> None:
    processes = Processes(ends=True)

    async def lose(session_id: str, request: Any) -> Any:
        raise ConnectionResetError

    async def get_session(session_id: str) -> Any:
        return SimpleNamespace(commands=None)

    processes.execute_session_command = lose  # type: ignore[method-assign]
    processes.get_session = get_session  # type: ignore[attr-defined]
    with pytest.raises(ConnectionFailed):
        await run(processes, Looks())
    assert not processes.lines


def look(path: Path, mark: str = "m1") -> int:
    return subprocess.run(
        ["sh", "-c", HAS_ENDED.format(path=path, mark=mark)], capture_output=True
    ).returncode


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="looks into /proc, as in a sandbox")
def test_whether_a_shell_is_there_is_told_by_its_process(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    path = tmp_path / "mark"
    assert look(path) == 1  # the script has not begun
    path.write_text(f"m0 {child.pid}\n")
    assert look(path) == 1  # an older one of that name
    path.write_text(f"m1 {child.pid}\n")
    assert look(path) == 1
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert look(path) == 0  # dead, and nobody has fetched its status
    child.communicate()
    assert look(path) == 0


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_words_for_zsh_mean_nothing_to_other_shells(shell: str) -> None:
    done = subprocess.run([shell, "-uc", AS_BASH + "echo $0 ok"], capture_output=True, text=True, check=True)
    assert (done.stdout.split()[-1], done.stderr) == ("ok", "")


def test_words_stay_words_in_every_shell() -> None:
    assert shell_words(["echo", "=ls", "a=b", "it's", "", "= x"]) == "echo '=ls' a=b 'it'\"'\"'s' '' '= x'"
