"""Sandboxes without bubblewrap: plain processes, honest about it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from daytona_kernel.local.daemon import marked_pids

from .conftest import Running, close_server, open_server

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A server with isolation switched off."""
    os.environ["HOST_SECRET"] = "secret-of-the-host"
    running = await open_server(tmp_path_factory.mktemp("local"), isolation="none")
    yield running
    await close_server(running)
    del os.environ["HOST_SECRET"]


async def test_it_says_that_it_is_not_isolated(running: Running, sandbox: dict[str, Any]) -> None:
    """In the sandbox object, in the configuration with the reason, and in the status."""
    assert sandbox["daemonVersion"].endswith("+local.none")
    assert sandbox["runnerId"] == "local-none"
    _, config = await running.call("GET", "/config")
    assert config["localIsolation"] == "none"
    assert "switched off" in config["localIsolationReason"]
    _, status = await running.call("GET", "/local/status")
    assert {item["isolation"] for item in status["sandboxes"]} == {"none"}


async def test_home_and_environment_are_private(running: Running, sandbox: dict[str, Any]) -> None:
    """An own home and temporary directory below the state directory, and nothing of the host's variables."""
    code, output = await running.run(
        sandbox, "env; pwd; python -c 'import tempfile; print(tempfile.gettempdir())'"
    )
    assert code == 0
    assert "secret-of-the-host" not in output
    files = running.manager.find(sandbox["id"]).files
    assert f"HOME={files}/home" in output
    assert output.splitlines()[-2:] == [f"{files}/home", f"{files}/tmp"]


async def test_python_is_the_sandbox_s_own(running: Running, sandbox: dict[str, Any]) -> None:
    """Packages of the host are there, the environment is the sandbox's."""
    code, output = await running.run(sandbox, "python -c 'import aiohttp, sys; print(sys.prefix)'")
    assert (code, output.strip()) == (0, str(running.manager.find(sandbox["id"]).files / "venv"))


async def test_nothing_survives_deletion(running: Running) -> None:
    """Not even a process in a session of its own that ignores signals."""
    sandbox = await running.create()
    script = 'trap "" TERM HUP INT; while :; do sleep 1; done'
    await running.run(sandbox, f"setsid nohup bash -c '{script}' >/dev/null 2>&1 &")
    assert marked_pids(sandbox["id"])
    directory = running.manager.find(sandbox["id"]).directory
    await running.delete(sandbox)
    assert [pid for pid in marked_pids(sandbox["id"]) if Path(f"/proc/{pid}/exe").exists()] == []
    assert not directory.exists()


async def test_volumes_are_links_in_the_home(running: Running) -> None:
    """Below the home a volume works; elsewhere it is refused with the reason."""
    _, volume = await running.call("POST", "/volumes", {"name": "v"})
    wish = {"volumeId": volume["id"], "mountPath": "/home/daytona/data/v"}
    for _ in range(2):
        sandbox = await running.create(volumes=[wish])
        assert (await running.run(sandbox, "echo x >> data/v/f"))[0] == 0
        await running.call("POST", f"/sandbox/{sandbox['id']}/stop")
        assert (await running.call("POST", f"/sandbox/{sandbox['id']}/start"))[1]["state"] == "started"
        await running.delete(sandbox)
    sandbox = await running.create(volumes=[wish])
    assert await running.run(sandbox, "cat data/v/f") == (0, "x\nx\n")
    await running.delete(sandbox)
    status, answer = await running.call("POST", "/sandbox", {"volumes": [{**wish, "mountPath": "/data"}]})
    assert (status, "bubblewrap" in answer["message"]) == (400, True)


async def test_blocked_network_is_refused(running: Running) -> None:
    """A promise that plain processes can not keep is not made."""
    status, answer = await running.call("POST", "/sandbox", {"networkBlockAll": True})
    assert (status, "bubblewrap" in answer["message"]) == (400, True)


async def test_pause_works_on_plain_processes(running: Running, sandbox: dict[str, Any]) -> None:
    """Paused and resumed, the sandbox still answers."""
    path = f"/sandbox/{sandbox['id']}"
    assert (await running.call("POST", f"{path}/pause"))[1]["state"] == "paused"
    assert (await running.call("POST", f"{path}/start"))[1]["state"] == "started"
    assert await running.run(sandbox, "echo on") == (0, "on\n")
