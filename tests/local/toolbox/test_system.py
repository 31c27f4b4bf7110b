"""Metrics and environment."""

from __future__ import annotations

import asyncio
from datetime import datetime

import aiohttp
import pytest

from daytona_kernel.local.toolbox.metrics import CpuSampler
from daytona_kernel.local.toolbox.system import changed_environment

from .conftest import Api, start_daemon


async def test_metrics_are_plausible_whole_numbers(api):
    first = await api("GET", "/system/metrics")
    datetime.fromisoformat(first["timestamp"].replace("Z", "+00:00"))
    for name in ("cpuCount", "memTotal", "memUsed", "diskTotal", "diskUsed", "diskFree", "timestampUnix"):
        assert isinstance(first[name], int), name
        assert first[name] > 0, name
    assert first["memUsed"] <= first["memTotal"]
    assert first["diskUsed"] + first["diskFree"] <= first["diskTotal"]
    await api.run("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
    assert 0 <= (await api("GET", "/system/metrics"))["cpuUsedPct"] <= 100


def test_load_is_the_share_of_the_limit_since_the_last_look(monkeypatch):
    clock, used = iter([10.0, 12.0, 12.0]), iter([100.0, 101.0, 101.0])
    monkeypatch.setattr("daytona_kernel.local.toolbox.metrics.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("daytona_kernel.local.toolbox.metrics.cpu_seconds", lambda: next(used))
    monkeypatch.setattr("daytona_kernel.local.toolbox.metrics.cpu_limit", lambda: 2.0)
    sampler = CpuSampler()
    assert [sampler.percent() for _ in range(3)] == [0.0, 25.0, 0.0]


@pytest.mark.parametrize(
    ("new", "unset", "prefix", "expected"),
    [
        ({"A": "2", "N": "x"}, [], "", {"A": "2", "B": "ph:1", "C": "ph:2", "N": "x"}),
        ({}, ["A", "missing"], "", {"B": "ph:1", "C": "ph:2"}),
        ({"C": "ph:3"}, [], "ph:", {"A": "1", "C": "ph:3"}),
        ({"A": "9"}, ["A"], "", {"A": "9", "B": "ph:1", "C": "ph:2"}),
    ],
)
def test_environment_updates(new, unset, prefix, expected):
    env = {"A": "1", "B": "ph:1", "C": "ph:2"}
    assert changed_environment(env, new, unset, prefix) == expected


async def test_a_new_environment_reaches_what_starts_later_and_not_what_runs(tmp_path):
    daemon = start_daemon(tmp_path / "home")
    async with aiohttp.ClientSession(daemon.url) as session:
        api = Api(session)
        await api("POST", "/process/session", status=201, json={"sessionId": "old"})
        answer = await api("POST", "/env", json={"set": {"FRESH": "1"}, "unset": ["LANG"]})
        assert answer["FRESH"] == "1"
        assert "LANG" not in answer
        assert (await api.run("echo [$FRESH$LANG]"))["result"] == "[1]\n"
        code = {"code": "import os; print(os.environ['FRESH'])", "language": "python"}
        assert (await api("POST", "/process/code-run", json=code))["result"] == "1\n"
        old = await api("POST", "/process/session/old/exec", json={"command": "echo [$FRESH]"})
        assert old["stdout"] == "[]\n"
        assert await api("POST", "/env", json={}) == answer
        await api.error("POST", "/env", 400, json={"set": {"a-b": "x"}})
        await api.error("POST", "/env", 400, json={"set": ["a"]})
        await api.error("POST", "/env", 400, json={"unset": "a"})
    assert await asyncio.to_thread(daemon.stop) == 0
