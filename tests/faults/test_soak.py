"""A long random run: cells with checkable output, and the network's faults at any moment of them.

``DAYTONA_SOAK_SECONDS`` and ``DAYTONA_SOAK_SEED`` choose another length and a certain run; the seed is
printed.
"""

from __future__ import annotations

import asyncio
import os
import random
import time

import pytest

from .bench import EXECUTE, Cell, Notebook
from .conftest import Faulty
from .proxy import FaultProxy

SECONDS = float(os.environ.get("DAYTONA_SOAK_SECONDS") or 30)
HANGS_S = 120


class Weather:
    """Does random things to the network until it is told to stop."""

    def __init__(self, proxy: FaultProxy, rng: random.Random) -> None:
        self.proxy = proxy
        self.rng = rng
        self.faults: dict[str, int] = {}
        self.stop = asyncio.Event()

    async def run(self) -> None:
        while not self.stop.is_set():
            await asyncio.sleep(self.rng.expovariate(14))
            kinds = ["reset one", "finish one", "cut up", "cut down", "reset all", "swallow one", "stall"]
            kind = self.rng.choices([*kinds, "restart", "dark"], [30, 10, 20, 30, 10, 1, 2, 2, 0.5])[0]
            await self.act(kind)

    async def act(self, kind: str) -> None:
        proxy, rng = self.proxy, self.rng
        alive = proxy.alive(EXECUTE) if rng.random() < 0.8 else proxy.alive()
        one = rng.choice(alive) if alive else None
        if kind == "restart":
            await proxy.refuse()
            proxy.reset_all()
            await asyncio.sleep(rng.random())
            await proxy.accept()
        elif kind == "dark":
            proxy.swallow_all()
            await asyncio.sleep(rng.random() * 3)
            proxy.heal()
        elif kind == "reset all":
            proxy.reset_all()
        elif one is None:
            return
        elif kind == "stall":
            one.pause()
            await asyncio.sleep(rng.random())
            one.resume()
        elif kind.startswith("cut"):
            pipe = one.up if kind == "cut up" else one.down
            pipe.cut(rng.randrange(1, 3000), rng.choice(["reset", "finish"]))
        else:
            {"reset one": one.reset, "finish one": one.finish, "swallow one": one.swallow}[kind]()
        self.faults[kind] = self.faults.get(kind, 0) + 1


def code_of(number: int, rng: random.Random) -> tuple[str, list[str], str]:
    """A cell, the lines that it prints, and its result."""
    lines = rng.choice([0, 1, 10, 100, 1000])
    width = rng.choice([0, 10, 300])
    pause = rng.choice([0, 0, 0.3 / max(lines, 1), 1.0 / max(lines, 1)])
    flush = rng.random() < 0.5
    code = (
        f"once('n{number}')\nfor i in range({lines}):\n"
        f"    print({number}, i, 'x' * {width}, flush={flush}); time.sleep({pause})\n({number}, 'end')"
    )
    return code, [f"{number} {i} {'x' * width}" for i in range(lines)], f"({number}, 'end')"


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
async def test_nothing_is_lost_and_nothing_runs_twice(faulty: Faulty, notebook: Notebook) -> None:
    seed = int(os.environ.get("DAYTONA_SOAK_SEED") or time.time())
    print(f"seed {seed}")
    rng = random.Random(seed)
    weather = Weather(faulty.proxy, random.Random(seed + 1))
    raging = asyncio.ensure_future(weather.run())
    cells = printed = lost_lines = 0
    until = time.monotonic() + SECONDS
    try:
        while time.monotonic() < until:
            cells += 1
            code, lines, result = code_of(cells, rng)
            cell = notebook.start(code)
            reply = await cell.reply(HANGS_S)
            assert reply["status"] == "ok", (seed, cells, reply)
            assert cell.lines == lines, (seed, cells)
            assert results(cell) == [result], (seed, cells)
            assert cell.text("stderr") == "", (seed, cells)
            printed += len(lines)
            lost_lines += bool(cell.lost_line)
            assert await notebook.marks(f"n{cells}") == 1, (seed, cells)
    finally:
        weather.stop.set()
        await raging
        faults = sum(weather.faults.values())
        print(
            f"seed {seed}: {cells} cells, {printed} lines, {faults} faults {weather.faults}, "
            f"{lost_lines} cells showed a status line"
        )
    assert faults


def results(cell: Cell) -> list[str]:
    return [c["data"]["text/plain"] for t, c in cell.messages if t == "execute_result"]
