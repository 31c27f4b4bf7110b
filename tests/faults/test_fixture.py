"""The proxy stands where it should: before the daemons of a real local server, on the way of the real SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from daytona import AsyncDaytona, AsyncSandbox, DaytonaConfig

from .conftest import Faulty
from .proxy import Cut, Plan

EXECUTE = "process/interpreter/execute"


@pytest.fixture
async def client(faulty: Faulty) -> AsyncIterator[AsyncDaytona]:
    config = DaytonaConfig(
        api_key=faulty.server.server.api_key, api_url=faulty.server.api_url, target="local"
    )
    async with AsyncDaytona(config) as daytona:
        yield daytona


@pytest.fixture
async def sandbox(client: AsyncDaytona) -> AsyncIterator[AsyncSandbox]:
    made = await client.create()
    yield made
    await made.delete()


async def test_the_sdk_runs_code_through_the_proxy(faulty: Faulty, sandbox: AsyncSandbox) -> None:
    result = await sandbox.code_interpreter.run_code("print(6 * 7)")
    assert result.stdout == "42\n"
    socket = await faulty.proxy.opened(path=EXECUTE)
    assert socket.path is not None
    assert socket.path.startswith(f"/toolbox/{sandbox.id}/")
    assert socket.down.bytes_passed > 0


async def test_a_cut_socket_loses_the_output_and_not_the_run(faulty: Faulty, sandbox: AsyncSandbox) -> None:
    """What the kernel has to make good: the code runs on, its output is gone, nothing can be attached to."""
    context = await sandbox.code_interpreter.create_context()
    faulty.proxy.plan(Plan(down=Cut(after=300)), path=EXECUTE, nth=1)
    headers = {"Authorization": f"Bearer {faulty.server.server.api_key}"}
    url = f"{faulty.proxy.url}/toolbox/{sandbox.id}/{EXECUTE}"
    code = "for i in range(100): print('x' * 50)\nran = True"
    async with aiohttp.ClientSession(headers=headers) as session, session.ws_connect(url) as ws:
        await ws.send_json({"code": code, "contextId": context.id})
        frames = [message async for message in ws]
    assert ws.close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE
    assert len(frames) < 100
    result = await sandbox.code_interpreter.run_code("print(ran)", context=context)
    assert result.stdout == "True\n"


async def test_the_control_plane_can_go_through_the_proxy_too(faulty: Faulty) -> None:
    config = DaytonaConfig(
        api_key=faulty.server.server.api_key, api_url=faulty.server.proxied_api_url, target="local"
    )
    async with AsyncDaytona(config) as daytona:
        assert [found async for found in daytona.list()] == []
    await faulty.proxy.opened(path="/api/sandbox")
