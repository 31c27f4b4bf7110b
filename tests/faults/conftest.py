"""A local sandbox server of this directory's own, and a fault proxy between its daemons and their clients.

``local_server`` runs for the whole session. It tells clients to reach its toolboxes through
``http://127.0.0.1:P``; the function-scoped fixture ``faulty`` puts a fresh :class:`~.proxy.FaultProxy` at
that port and gives both. The control plane is reached directly (``api_url``), or through the proxy as well
(``proxied_api_url``).
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from daytona_kernel import link
from daytona_kernel.local.launcher import LocalServer, ensure_running, stop
from daytona_kernel.local.paths import local_paths

from .proxy import FaultProxy

if TYPE_CHECKING:
    from .bench import Notebook


@dataclass(frozen=True)
class ProxiedServer:
    """A local sandbox server that advertises the address of a proxy."""

    server: LocalServer
    proxy_port: int
    directory: Path

    @property
    def port(self) -> int:
        """The server's own port."""
        port = urlsplit(self.server.api_url).port
        assert port is not None
        return port

    @property
    def api_url(self) -> str:
        """The control plane, without the proxy."""
        return self.server.api_url

    @property
    def proxied_api_url(self) -> str:
        """The control plane, through the proxy."""
        return f"http://127.0.0.1:{self.proxy_port}{urlsplit(self.server.api_url).path}"

    def environment(self, *, proxied_api: bool = False) -> dict[str, str]:
        """What a client's environment needs to use this server."""
        found = self.server.environment()
        if proxied_api:
            found["DAYTONA_API_URL"] = self.proxied_api_url
        return found


@dataclass(frozen=True)
class Faulty:
    """A server and the proxy in front of it, alive during one test."""

    server: ProxiedServer
    proxy: FaultProxy


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def local_server() -> Iterator[ProxiedServer]:
    # Not pytest's own directory: paths of Unix sockets are short (108 bytes).
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    proxy_port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAYTONA_LOCAL_DIR", str(root))
        patch.setenv("DAYTONA_LOCAL_PYTHON", sys.executable)
        paths = local_paths(os.environ)
        server = ensure_running(paths, ["--advertise", f"http://127.0.0.1:{proxy_port}"])
    try:
        yield ProxiedServer(server, proxy_port, root)
    finally:
        stop(paths)
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
async def faulty(local_server: ProxiedServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Faulty]:
    # A moment in which this machine is slow must not make it a far one: tests cut the one warm socket.
    monkeypatch.setattr(link, "FAR_S", 3600.0)
    async with FaultProxy(local_server.port, port=local_server.proxy_port) as proxy:
        yield Faulty(local_server, proxy)


@pytest.fixture
async def notebook(faulty: Faulty) -> AsyncIterator[Notebook]:
    """A notebook with a sandbox of its own, ready, behind the proxy."""
    from .bench import Notebook  # it needs this module

    notebook = Notebook.open(faulty)
    try:
        yield await notebook.prepared()
    finally:
        faulty.proxy.forget_rules()
        faulty.proxy.heal()
        await faulty.proxy.accept()
        await notebook.close()
