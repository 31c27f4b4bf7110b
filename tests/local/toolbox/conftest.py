"""A real daemon process per test session, and a client that speaks HTTP to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest


@dataclass
class Daemon:
    """A running daemon."""

    process: subprocess.Popen[bytes]
    url: str
    home: Path
    env: dict[str, str]

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(10)


def start_daemon(home: Path, **settings: Any) -> Daemon:
    """Start ``python -m daytona_kernel.local.toolbox`` for a sandbox whose home is ``home``."""
    home.mkdir(parents=True, exist_ok=True)
    env = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        **settings.pop("env", {}),
    }
    data = {
        "sandbox_id": "test",
        "home_dir": str(home),
        "work_dir": str(home),
        "python": sys.executable,
        "env": env,
        **settings,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "daytona_kernel.local.toolbox", "--port", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.defpath, "SECRET_OF_THE_DAEMON": "x", "TMPDIR": os.environ.get("TMPDIR", "/tmp")},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin as stdin:
        stdin.write(json.dumps(data).encode() + b"\n")
    with process.stdout as stdout:
        word, port = stdout.readline().split()
    assert word == b"ready"
    return Daemon(process, f"http://127.0.0.1:{int(port)}", home, env)


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    running = start_daemon(tmp_path_factory.mktemp("sandbox") / "home")
    yield running
    assert running.stop() == 0


@pytest.fixture
def home(daemon: Daemon, request: pytest.FixtureRequest) -> Path:
    """A directory of its own for each test, in the sandbox."""
    return Path(tempfile.mkdtemp(prefix=request.node.originalname + "-", dir=daemon.home))


@pytest.fixture
async def http(daemon: Daemon) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(daemon.url) as session:
        yield session


class Api:
    """Calls that check the status and give the JSON (or text) of the answer."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def __call__(self, method: str, path: str, *, status: int = 200, **options: Any) -> Any:
        async with self.session.request(method, path, **options) as answer:
            body = await answer.text()
            assert answer.status == status, f"{method} {path}: {answer.status} {body}"
            return json.loads(body) if answer.content_type == "application/json" else body

    async def error(self, method: str, path: str, status: int, **options: Any) -> dict[str, Any]:
        """Make a call that must fail, and check the shape of the error."""
        body = await self(method, path, status=status, **options)
        assert body["statusCode"] == status
        assert body["source"] == "DAYTONA_DAEMON"
        assert body["message"]
        assert {"code", "timestamp", "path", "method"} <= set(body)
        return body

    async def run(self, command: str, **fields: Any) -> dict[str, Any]:
        return await self("POST", "/process/execute", json={"command": command, **fields})


@pytest.fixture
def api(http: aiohttp.ClientSession) -> Api:
    return Api(http)
