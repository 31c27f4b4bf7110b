"""A local sandbox server in the test's own process, and helpers to talk to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from daytona_kernel.local.options import ServerOptions
from daytona_kernel.local.paths import local_paths
from daytona_kernel.local.sandboxes import SandboxManager
from daytona_kernel.local.server import LocalServer


@dataclass
class Running:
    """A running server and a client that has its key."""

    server: LocalServer
    http: aiohttp.ClientSession
    base: str

    @property
    def manager(self) -> SandboxManager:
        return self.server.state.manager

    @property
    def key(self) -> str:
        return self.server.state.api_key

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        """One control plane call: status and parsed answer."""
        async with self.http.request(method, f"{self.base}/api{path}", json=body, **options) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None

    async def create(self, **body: Any) -> dict[str, Any]:
        """A started sandbox."""
        status, sandbox = await self.call(
            "POST", "/sandbox", {"env": {}, "labels": {}, "volumes": [], **body}
        )
        assert status == 200, sandbox
        assert sandbox["state"] == "started", sandbox
        return sandbox

    async def run(self, sandbox: dict[str, Any], command: str, **options: Any) -> tuple[int, str]:
        """Exit code and output of a shell command in a sandbox."""
        url = f"{self.base}/toolbox/{sandbox['id']}/process/execute"
        async with self.http.post(url, json={"command": command, **options}) as answer:
            body = await answer.json()
            assert answer.status == 200, body
            return body["exitCode"], body["result"]

    async def delete(self, sandbox: dict[str, Any]) -> None:
        await self.call("DELETE", f"/sandbox/{sandbox['id']}")


async def open_server(directory: Path, **options: Any) -> Running:
    """Start a server in this process with its files in `directory`."""
    paths = local_paths({"DAYTONA_LOCAL_DIR": str(directory)})
    server = LocalServer(ServerOptions(paths=paths, idle_minutes=0, **{"pool_size": 1, **options}))
    await server.open()
    state = server.state
    http = aiohttp.ClientSession(headers={"Authorization": f"Bearer {state.api_key}"})
    return Running(server, http, f"http://127.0.0.1:{state.port}")


async def close_server(running: Running) -> None:
    await running.http.close()
    await running.server.close()
    running.server.release()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """One server for all tests of a module; its loop is the module's."""
    running = await open_server(tmp_path_factory.mktemp("local"))
    yield running
    await close_server(running)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox(running: Running) -> dict[str, Any]:
    """One started sandbox for all tests of a module that leave it as it is."""
    return await running.create()


@pytest_asyncio.fixture
async def make_server(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Running]]]:
    """Starts servers for one test, with options."""
    opened: list[Running] = []

    async def make(directory: Path | None = None, **options: Any) -> Running:
        running = await open_server(directory or tmp_path, **options)
        opened.append(running)
        return running

    yield make
    for running in opened:
        await close_server(running)
