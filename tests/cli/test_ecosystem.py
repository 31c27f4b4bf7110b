"""Other programs that start kernels by name: nbclient's API, and Jupyter Server's REST as editors use it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

from daytona_kernel.local import launcher

pytestmark = pytest.mark.slow

LISTENS = re.compile(rb"http://127\.0\.0\.1:(\d+)/")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the server that the kernels of these tests start; it is stopped in the end."""
    folder = tmp_path_factory.mktemp("e")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("DAYTONA_", "JPY_"))]:
            patch.delenv(name)
        patch.setenv("DAYTONA_LOCAL_DIR", str(folder / "local"))
        patch.chdir(folder)
        yield folder
        launcher.stop()


async def test_nbclients_api(folder: Path) -> None:
    """Outputs are in the notebook; a cell that fails is its exception; the kernel is gone in the end."""
    notebook = new_notebook(cells=[new_code_cell("x = 20\nprint(x)"), new_code_cell("x + 1")])
    await NotebookClient(notebook, kernel_name="daytona", timeout=60).async_execute()
    assert notebook.cells[0].outputs[0].text == "20\n"
    assert notebook.cells[1].outputs[0].data["text/plain"] == "21"
    failing = new_notebook(cells=[new_code_cell("1 / 0"), new_code_cell("print('never')")])
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        await NotebookClient(failing, kernel_name="daytona", timeout=60).async_execute()
    assert failing.cells[1].outputs == []


@asynccontextmanager
async def jupyter_server(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """The address and the token of a server of this test's own."""
    token = uuid.uuid4().hex
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--ip=127.0.0.1", "--port=0"]
    command += [
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={folder}",
        f"--IdentityProvider.token={token}",
    ]
    if os.getuid() == 0:
        command.append("--allow-root")
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        seen = b""
        while not (found := LISTENS.search(seen)):
            line = await asyncio.wait_for(process.stderr.readline(), 60)
            assert line, seen.decode()
            seen += line
        draining = asyncio.ensure_future(process.stderr.read())
        base = f"http://127.0.0.1:{int(found[1])}"
        await asyncio.wait_for(answers(base), 60)  # it names its address before it listens there
        yield base, token
        process.terminate()
        await asyncio.wait_for(process.wait(), 60)
        await draining
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def answers(base: str) -> None:
    """Wait until the server at *base* does."""
    async with aiohttp.ClientSession(base) as client:
        while True:
            with contextlib.suppress(aiohttp.ClientConnectionError):
                async with client.get("/api"):
                    return
            await asyncio.sleep(0.1)


async def test_a_kernel_started_by_name_over_rest_answers_on_its_websocket(folder: Path) -> None:
    pytest.importorskip("jupyter_server", reason="jupyter_server is not installed (extra: test)")
    async with jupyter_server(folder) as (base, token):
        headers = {"Authorization": f"token {token}"}
        async with aiohttp.ClientSession(base, headers=headers) as client:
            async with client.get("/api/kernelspecs") as answer:
                specs = (await answer.json())["kernelspecs"]
            assert specs["daytona"]["spec"]["display_name"] == "Python 3 (Daytona)"
            async with client.post("/api/kernels", json={"name": "daytona"}) as answer:
                assert answer.status == 201
                kernel = (await answer.json())["id"]
            async with client.ws_connect(f"/api/kernels/{kernel}/channels") as socket:
                messages = await execute(socket, "print(6 * 7)")
            assert [content["text"] for kind, content in messages if kind == "stream"] == ["42\n"]
            assert [content["status"] for kind, content in messages if kind == "execute_reply"] == ["ok"]
            async with client.delete(f"/api/kernels/{kernel}") as answer:
                assert answer.status == 204


async def execute(socket: aiohttp.ClientWebSocketResponse, code: str) -> list[tuple[str, dict[str, Any]]]:
    """Send a cell as an editor does; all messages that belong to it, until it is idle and answered."""
    number = uuid.uuid4().hex
    header = {
        "msg_id": number,
        "msg_type": "execute_request",
        "session": number,
        "username": "",
        "version": "5.4",
    }
    content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    await socket.send_str(json.dumps({**message, "buffers": []}))
    found: list[tuple[str, dict[str, Any]]] = []
    missing = {"idle", "execute_reply"}
    while missing:
        received = json.loads(await socket.receive_str(timeout=60))
        if received["parent_header"].get("msg_id") != number:
            continue
        kind, body = received["header"]["msg_type"], received["content"]
        found.append((kind, body))
        missing -= {kind, body.get("execution_state", "")}
    return found
