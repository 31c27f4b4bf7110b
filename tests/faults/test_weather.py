"""A notebook in the weather of a far, busy service: each line once, each cell once, no hang, true words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import cast

import pytest

from daytona_kernel import questions
from daytona_kernel.magics import following
from daytona_kernel.magics.process import Written, run_line

from .bench import Notebook
from .conftest import Faulty, ProxiedServer
from .proxy import Cut, FaultProxy, Plan
from .weather import Climate, Weather

BAD = Climate(
    delay=(0.002, 0.02),
    lost=0.06,
    forgotten=0.04,
    busy=0.04,
    cut=0.03,
    odd=0.4,
    refused=0.15,
    life=0.5,
)
TALK = """
import time
once("n{number}")
for i in range(30):
    print(i, flush=True); time.sleep(0.01)
{number}
"""
COUNT = "for i in $(seq 30); do echo line $i; echo err $i >&2; sleep 0.03; done; exit 3"

Open = Callable[[int], AbstractAsyncContextManager[tuple[Notebook, Weather]]]


@pytest.fixture
def notebook_in_weather(local_server: ProxiedServer) -> Open:
    """A notebook whose every call goes through the weather, which is fair until a test changes it."""

    @asynccontextmanager
    async def opened(seed: int) -> AsyncIterator[tuple[Notebook, Weather]]:
        async with Weather(local_server.port, local_server.proxy_port, seed) as weather:
            faulty = Faulty(local_server, cast(FaultProxy, weather))
            notebook = Notebook.open(faulty, api_url=local_server.proxied_api_url)
            try:
                yield await notebook.prepared(), weather
            finally:
                weather.climate = Climate()
                weather.late.clear()
                weather.stopped.clear()
                await notebook.close()

    return opened


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_cells_run_once_and_whole_in_bad_weather(notebook_in_weather: Open, seed: int) -> None:
    async with notebook_in_weather(seed) as (notebook, weather):
        weather.climate = BAD
        for number in range(3):
            cell = notebook.start(TALK.format(number=number))
            reply = await cell.reply(120)
            told = (seed, number, dict(weather.seen), reply)
            assert reply["status"] == "ok", told
            assert cell.lines == [str(i) for i in range(30)], told
            assert cell.text("stderr") == "", told
            assert await notebook.marks(f"n{number}") == 1, told
        assert weather.seen, seed


@pytest.mark.slow
async def test_a_program_goes_on_in_bad_weather(
    notebook_in_weather: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would end with its session, as it did when the first connection was lost."""
    monkeypatch.setattr(following, "PAUSES_S", (0.05,) * 5)
    async with notebook_in_weather(3) as (notebook, weather):
        written = Written()

        async def run() -> int | None:
            sandbox = await notebook.session.manager.sdk_sandbox()
            return await run_line(written, sandbox, f"bash -c '{COUNT}'", what="bash")

        running = asyncio.wrap_future(notebook.session.run(run()))
        for line, how in ((5, "reset"), (12, "1011"), (19, "1000")):
            while f"line {line}\n" not in written.texts["stdout"]:
                assert not running.done(), running
                await asyncio.sleep(0.01)
            weather.end_sockets(how)
        assert await asyncio.wait_for(running, 60) == 3
        assert written.texts["stdout"].splitlines() == [f"line {i}" for i in range(1, 31)]
        assert written.texts["stderr"].splitlines() == [f"err {i}" for i in range(1, 31)]


@pytest.mark.slow
async def test_a_stop_that_is_told_late_is_waited_for(notebook_in_weather: Open) -> None:
    """The service still calls it started, and its proxy has no address any more."""
    async with notebook_in_weather(4) as (notebook, weather):
        sandbox = notebook.session.manager.sandbox
        assert sandbox is not None
        weather.late[sandbox.id] = "started"
        weather.stopped.add(sandbox.id)
        await asyncio.wrap_future(notebook.session.run(sandbox.stop()))
        weather.end_sockets("reset")
        cell = notebook.start("print('once' in globals())")
        while weather.seen["no address"] < 3:
            await asyncio.sleep(0.01)
        assert cell.future is not None
        assert not cell.future.done()
        weather.stopped.clear()
        weather.late.clear()
        assert (await cell.reply())["status"] == "ok"
        assert cell.lines == ["False"]
        assert any("had stopped" in notice for notice in cell.notices)


async def test_an_answer_to_input_outlives_the_network(
    faulty: Faulty, notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cell waits for it: to give it up would be to let the cell wait for ever."""
    monkeypatch.setattr(questions, "ANSWER_MIN_S", 0.0)
    for nth in range(1, 6):
        faulty.proxy.plan(Plan(up=Cut(after=0)), path="files/bulk-upload", nth=nth)
    cell = await notebook.run("once(); print('got', input('? '))", answer=lambda prompt: "it")
    assert cell.lines == ["got it"]
    assert await notebook.marks() == 1


def test_the_weather_ends_sockets_as_an_interpreter_never_does() -> None:
    """Else a cell would be told that its context is gone, which it is not."""
    from daytona_kernel.execution import Close, classify_close

    from .weather import ENDS

    for how in ENDS[1:]:
        code, _, reason = how.partition(" ")
        assert classify_close(int(code), reason) is Close.LOST
