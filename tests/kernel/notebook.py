"""A notebook with kernel ``daytona``: cells in, messages out, and a second way into its sandbox.

The messages are recorded as in the conformance suite. `Notebook.toolbox` talks to the same sandbox behind the
kernel's back, which is how tests look at it or give a running cell its sign without a clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import AsyncKernelManager

from daytona_kernel.local.launcher import LocalServer, ensure_running, find_running, status
from daytona_kernel.local.paths import LocalPaths, local_paths
from daytona_kernel.toolbox import Endpoint, Toolbox

from ..conformance.driver import TIMEOUT, Exchange, KernelUnderTest

Message = dict[str, Any]
HIDDEN = ("PYTEST", "PYTHON", "DAYTONA_", "JPY_", "IPYTHON", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")


@dataclass
class Place:
    """Directories of a test's own, and the local server that lives in them."""

    root: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What a kernel here has for an environment: nothing of this test run or of the user."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(HIDDEN)}
        home = self.root / "home"
        home.mkdir(exist_ok=True)
        return {
            **kept,
            "HOME": str(home),
            "IPYTHONDIR": str(home / ".ipython"),
            "JUPYTER_RUNTIME_DIR": str(self.root / "jupyter"),
            "DAYTONA_LOCAL_DIR": str(self.root / "local"),
            **self.variables,
        }

    @property
    def paths(self) -> LocalPaths:
        return local_paths(self.environment)

    def start_server(self) -> LocalServer:
        """The server, with this place's variables."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("DAYTONA_LOCAL_DIR", *self.variables):
                patch.setenv(name, self.environment[name])
            return ensure_running(self.paths)

    def server(self) -> LocalServer:
        found = find_running(self.paths)
        assert found is not None
        return found

    def sandboxes(self) -> dict[str, Message]:
        """What the server knows of its sandboxes, by id; none if it does not run."""
        found = status(self.paths)
        return {item["id"]: item for item in found["sandboxes"]} if found else {}


class Notebook(KernelUnderTest):
    """A running kernel ``daytona``. :func:`running_notebook` makes one."""

    place: Place

    @property
    def state(self) -> Message:
        """What the kernel wrote down for its restart: ``sandbox_id`` and ``context_id``."""
        name = Path(self.manager.connection_file).stem + ".json"
        found: Message = json.loads((self.place.root / "jupyter" / "daytona-kernel" / name).read_text())
        return found

    @property
    def sandbox_id(self) -> str:
        return str(self.state["sandbox_id"])

    @contextlib.asynccontextmanager
    async def toolbox(self) -> AsyncIterator[Toolbox]:
        """Another client of this notebook's sandbox."""
        server = self.place.server()
        base = server.api_url.removesuffix("/api")
        headers = {"Authorization": f"Bearer {server.api_key}"}
        toolbox = Toolbox(Endpoint(f"{base}/toolbox/{self.sandbox_id}", headers))
        try:
            yield toolbox
        finally:
            await toolbox.close()

    async def sign(self, name: str) -> None:
        """Make the file that a cell waits for: see :data:`AWAIT_SIGN`."""
        async with self.toolbox() as toolbox:
            await toolbox.upload(f"/tmp/{name}", b"x")

    async def says(self, exchange: Exchange, text: str) -> None:
        """Wait until the cell's output has ``text``."""
        await self.until(exchange, lambda e: text in e.text() + e.text("stderr"))

    async def run(self, code: str, **options: Any) -> Exchange:
        """Run a cell that must succeed."""
        exchange = await self.execute(code, **options)
        assert exchange.content["status"] == "ok", exchange.content
        return exchange

    async def value(self, expression: str) -> Any:
        """The value of an expression in the sandbox; a literal."""
        import ast

        exchange = await self.run(f"print(repr({expression}))", store_history=False)
        return ast.literal_eval(exchange.text())

    async def fails(self, code: str, **options: Any) -> Message:
        """Run a cell that must fail, with one `error` message that says the same as its reply; the reply."""
        exchange = await self.execute(code, **options)
        content = exchange.content
        assert content["status"] == "error", content
        (error,) = exchange.of_type("error")
        for key in ("ename", "evalue", "traceback"):
            assert error["content"][key] == content[key]
        return content

    async def until_child(self, name: str) -> None:
        """Wait until a process of that name runs in the sandbox."""
        async with self.toolbox() as toolbox:
            script = f"grep -lsx {name} /proc/[0-9]*/comm"
            while (await toolbox.shell(script))[1].strip() == "":
                await asyncio.sleep(0.02)


AWAIT_SIGN = """
import os, time
def await_sign(name):
    while not os.path.exists("/tmp/" + name):
        time.sleep(0.005)
    os.unlink("/tmp/" + name)
"""


async def until_true(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds; it is asked again and again."""

    async def ask() -> None:
        while not condition():
            await asyncio.sleep(0.02)

    await asyncio.wait_for(ask(), TIMEOUT)


@contextlib.asynccontextmanager
async def running_notebook(place: Place, **variables: str) -> AsyncIterator[Notebook]:
    """A fresh kernel in `place`, with these environment variables; shut down at the end."""
    environment = {**place.environment, **variables}
    manager = AsyncKernelManager(kernel_name="daytona")
    log_file = place.root / "kernels.log"
    log = log_file.open("ab")
    await manager.start_kernel(cwd=environment["HOME"], env=environment, stdout=log, stderr=log)
    client = manager.client()
    client.start_channels()
    notebook = Notebook(manager, client, "daytona", log_file)
    notebook.place = place
    try:
        await client.wait_for_ready(timeout=TIMEOUT)
        notebook.start_reading()
        yield notebook
    finally:
        await notebook.stop_reading()
        client.stop_channels()
        await manager.shutdown_kernel()
        manager.context.destroy(linger=0)
        log.close()


def kernel_pid(notebook: Notebook) -> int:
    """The process of the kernel."""
    provisioner = notebook.manager.provisioner
    assert provisioner is not None
    return int(provisioner.pid)  # type: ignore[attr-defined]


def kill(notebook: Notebook) -> None:
    """End the kernel's process without a word."""
    os.kill(kernel_pid(notebook), signal.SIGKILL)
