"""Ends of workers, contexts and daemons, and who is told what."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil
import pytest

from daytona_kernel.local.toolbox import contexts, quirks

from .conftest import start_daemon
from .interpreter_client import PREFIX, Interpreter, Socket, daemon

IGNORE_SIGNALS = (
    "import signal\n"
    "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)\n"
    "print('on')\nwhile True: pass"
)


@pytest.fixture
async def python(tmp_path: Path) -> AsyncIterator[Interpreter]:
    async with daemon(tmp_path) as running:
        yield running


@pytest.fixture
async def forgiving(tmp_path: Path) -> AsyncIterator[Interpreter]:
    async with daemon(tmp_path, frozenset()) as running:
        yield running


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    assert contexts.GRACE == 2.0
    monkeypatch.setattr(contexts, "GRACE", 0.2)


async def gone(*pids: int) -> None:
    """Wait until these processes have ended (the test's own time limit applies)."""
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "death",
    ["os._exit(1)", "os.kill(os.getpid(), 9)", "import ctypes; ctypes.string_at(0)"],
)
async def test_the_death_of_a_worker_ends_its_execution_with_1001(python: Interpreter, death: str) -> None:
    context = await python.create()
    result = await python.run(f"import os; print('last words'); {death}", context, timeout=0)
    assert (result.text(), result.control) == ("last words\n", [])
    assert (result.code, result.reason) == (1001, "worker process ended")
    assert (await python.contexts())[context]["active"] is False
    assert await python.delete(context) == 200
    assert await python.contexts() == {}


@pytest.mark.parametrize(
    "error", ["GeneratorExit", "__import__('asyncio').CancelledError", "type('B', (BaseException,), {})"]
)
async def test_an_exception_outside_exception_completes_and_kills_the_worker(
    python: Interpreter, error: str
) -> None:
    context = await python.create()
    result = await python.run(f"x = 1; raise {error}", context)
    assert (result.kinds, result.control, result.code) == (["control"], ["completed"], 1001)
    # The execution had completed, so the queue is not stuck; but the state is gone, and nothing says so.
    result = await python.run("print('x' in globals())", context)
    assert (result.text(), result.code) == ("False\n", 1000)


async def test_after_a_death_the_queue_is_stuck_until_the_timeout_and_the_next_job_is_lost(
    python: Interpreter, short_grace: None
) -> None:
    context = await python.create()
    assert (await python.run("import os; os._exit(0)", context, timeout=1)).code == 1001
    result = await python.run("print('never')", context)
    assert (result.frames, result.code, result.reason) == ([], 1000, "")


async def test_a_job_that_was_queued_behind_a_dying_one_is_lost_too(
    python: Interpreter, short_grace: None
) -> None:
    context = await python.create()
    gate = python.home / "gate"
    code = f"import os, time; print('on')\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.005)\n"
    async with python.started(code + "os._exit(0)", context, timeout=1) as first:
        await first.until("on\n")
        async with python.started("print('never')", context) as second:
            await python.contexts()
            gate.touch()
            assert (await first.rest()).code == 1001
            result = await second.rest()
            assert (result.frames, result.code) == ([], 1000)


async def test_after_the_timeout_a_dead_context_works_again_with_nothing_in_it(
    python: Interpreter, short_grace: None
) -> None:
    context = await python.create()
    await python.run("x = 1", context)
    async with python.started("import os; os._exit(0)", context, timeout=1) as socket:
        await socket.rest()
    await asyncio.sleep(1.5)  # the wedge itself is a matter of time: timeout and grace
    assert (await python.run("print('x' in globals())", context)).text() == "False\n"


async def test_a_forgiving_server_goes_on_after_a_death(forgiving: Interpreter) -> None:
    context = await forgiving.create()
    for _ in range(3):
        assert (await forgiving.run("import os; os._exit(0)", context, timeout=0)).code == 1001
        assert (await forgiving.run("print('again')", context)).text() == "again\n"


async def test_output_before_a_death_is_not_lost(python: Interpreter) -> None:
    code = "import os\nfor i in range(3000): print(i)\nos._exit(1)"
    for context in [await python.create() for _ in range(3)]:
        result = await python.run(code, context)
        assert result.text() == "".join(f"{i}\n" for i in range(3000))


async def test_the_death_is_noticed_while_a_child_holds_the_pipe(python: Interpreter) -> None:
    context = await python.create()
    code = "import os, subprocess; print(subprocess.Popen(['sleep', '60']).pid); os._exit(1)"
    result = await python.run(code, context)
    assert result.code == 1001
    # The child lives on until its context is deleted.
    child = int(result.text())
    assert psutil.pid_exists(child)
    assert await python.delete(context) == 200
    await gone(child)


async def test_deleting_a_context_interrupts_its_code_and_ends_its_children(python: Interpreter) -> None:
    context = await python.create()
    code = (
        "import os, subprocess, time\n"
        "child = subprocess.Popen(['sh', '-c', 'trap \"\" TERM HUP INT; sleep 60 & wait'], process_group=0)\n"
        if sys.version_info >= (3, 11)
        else "import os, subprocess, time\nchild = subprocess.Popen(['sleep', '60'], preexec_fn=os.setpgrp)\n"
    )
    async with python.started(code + "print(os.getpid(), child.pid)\ntime.sleep(60)", context) as socket:
        await socket.until("\n")
        pids = [int(pid) for pid in socket.result.text().split()]
        assert await python.delete(context) == 200
        result = await socket.rest()
    assert (result.control, result.code) == (["interrupted"], 4008)
    await gone(*pids)


async def test_deleting_a_context_kills_code_that_does_not_listen_and_cuts_its_client(
    python: Interpreter, short_grace: None
) -> None:
    context = await python.create()
    pid = await python.pid(context)
    async with python.started(IGNORE_SIGNALS, context) as socket:
        await socket.until("on\n")
        assert await python.delete(context) == 200
        assert (await socket.rest()).code == 1006
    await gone(pid)


async def test_deleting_a_context_lets_idle_workers_exit_normally(python: Interpreter) -> None:
    context = await python.create()
    await python.run("import atexit, pathlib; atexit.register(pathlib.Path('left').touch)", context)
    assert await python.delete(context) == 200
    assert (python.home / "left").exists()


async def test_executions_in_the_queue_of_a_deleted_context_are_told(python: Interpreter) -> None:
    context = await python.create()
    async with python.started("import time; print('on'); time.sleep(60)", context) as first:
        await first.until("on\n")
        async with python.started("print('never')", context) as second:
            await python.contexts()
            assert await python.delete(context) == 200
            result = await second.rest()
            assert (result.frames, result.code, result.reason) == ([], 1001, "context shutdown")


@pytest.mark.parametrize("quirk", [True, False])
async def test_a_busy_context_being_deleted_holds_up_the_others_only_with_the_quirk(
    tmp_path: Path, quirk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts, "GRACE", 0.5)
    async with daemon(tmp_path, frozenset({quirks.GLOBAL_LOCK} if quirk else ())) as python:
        context = await python.create()
        pid = await python.pid(context)
        async with python.started(IGNORE_SIGNALS, context) as socket:
            await socket.until("on\n")
            deleting = asyncio.ensure_future(python.delete(context))
            while context in await python.contexts():
                pass
            # Without the quirk the context leaves the list at once, with it only when its worker is dead.
            assert psutil.pid_exists(pid) is not quirk
            assert await deleting == 200


async def test_a_context_restarts_in_its_directory_or_not_at_all(
    python: Interpreter, short_grace: None
) -> None:
    (python.home / "sub").mkdir()
    context = await python.create(cwd="sub")
    os.kill(await python.pid(context), signal.SIGKILL)
    while (await python.contexts())[context]["active"]:
        await asyncio.sleep(0.01)
    assert (await python.run("import os; print(os.getcwd())", context)).text() == f"{python.home / 'sub'}\n"
    os.kill(await python.pid(context), signal.SIGKILL)
    (python.home / "sub").rmdir()
    while (await python.contexts())[context]["active"]:
        await asyncio.sleep(0.01)
    result = await python.run("1", context)
    assert (result.code, result.reason) == (1008, "context is not active")


async def test_the_end_of_the_daemon_ends_workers_and_cuts_clients(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        async with daemon(tmp_path) as python:
            pid = await python.pid(await python.create())
            ws = await session.ws_connect(f"{python.session._base_url}{PREFIX[1:]}/execute")
            socket = Socket(ws)
            await socket.send("import time; print('on'); time.sleep(60)")
            await socket.until("on\n")
            ending = asyncio.ensure_future(socket.rest())
        await gone(pid)
        assert (await ending).code == 1006


def test_sigterm_to_the_daemon_leaves_no_worker(tmp_path: Path) -> None:
    running = start_daemon(tmp_path / "home", env={"TMPDIR": str(tmp_path)})

    async def start() -> list[int]:
        async with aiohttp.ClientSession(running.url) as session:
            python = Interpreter(session, running.home)
            async with python.started("import os; print(os.getpid(), flush=True)\n" + IGNORE_SIGNALS) as busy:
                await busy.until("on\n")
                return [int(busy.result.text().split()[0]), await python.pid(await python.create())]

    pids = asyncio.run(start())
    assert running.stop() == 0
    asyncio.run(gone(*pids))


def pythons() -> list[Path]:
    """What pyenv has, beside the Python of this run too, since HOME may be another one; at least this one."""
    places = {Path(sys.base_prefix).parent, Path.home() / ".pyenv" / "versions"}
    found = {path for place in places for path in place.glob("3.*/bin/python")}
    return sorted(found) or [Path(sys.executable)]


@pytest.mark.parametrize("interpreter", pythons(), ids=lambda path: path.parts[-3])
async def test_workers_run_on_every_python(tmp_path: Path, interpreter: Path) -> None:
    version = subprocess.run(
        [interpreter, "-c", "import sys; print(sys.version_info >= (3, 8))"], capture_output=True
    )
    if version.stdout.strip() != b"True":
        pytest.skip("older than the worker supports")
    async with daemon(tmp_path, python=str(interpreter)) as python:
        result = await python.run("import sys; print(sys.executable)\ndef f(x: int): 1/0\nf(1)")
        assert result.text() == f"{interpreter}\n"
        assert '  File "<stdin>", line 3\n  File "<stdin>", line 2\n' in result.error["traceback"]
