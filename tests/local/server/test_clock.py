"""What happens by itself: auto-stop, auto-archive, auto-delete, time to live."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from daytona_kernel.local.clock import Clock, from_iso, to_iso
from daytona_kernel.local.housekeeping import Housekeeper, due_action, owner_gone, process_start
from daytona_kernel.local.records import SandboxRecord

from .conftest import Running, close_server, open_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

MINUTE = 60.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A server whose clock only the tests drive."""
    running = await open_server(tmp_path_factory.mktemp("local"))
    assert running.server._housekeeping is not None
    running.server._housekeeping.cancel()
    yield running
    await close_server(running)


def record(state: str, **values: object) -> SandboxRecord:
    made = SandboxRecord("id", "name", 0.0, 0.0, 0.0, state=state)
    for name, value in values.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("made", "minutes", "active", "action"),
    [
        (record("started"), 14, False, ""),
        (record("started"), 16, False, "stop"),
        (record("started"), 16, True, ""),
        (record("started", auto_stop_interval=0), 99999, False, ""),
        (record("started", auto_stop_interval=0, auto_pause_interval=3), 4, False, "pause"),
        (record("stopped", auto_archive_interval=30), 29, False, ""),
        (record("stopped", auto_archive_interval=30), 31, False, "archive"),
        (record("stopped", auto_delete_interval=10), 11, False, "delete"),
        (record("archived", auto_delete_interval=10), 11, False, "delete"),
        (record("stopped", auto_delete_interval=0), 0, False, "delete"),
        (record("stopped", auto_delete_interval=-1), 9999, False, ""),
        (record("started", auto_destroy_at=300.0), 6, True, "delete"),
        (record("stopping", auto_destroy_at=300.0), 6, False, ""),
        (record("error"), 99999, False, ""),
    ],
)
async def test_what_is_due(made: SandboxRecord, minutes: float, active: bool, action: str) -> None:
    """Intervals count from the last activity; an open request keeps a sandbox alive; a move is waited for."""
    assert due_action(made, minutes * MINUTE, MINUTE, active) == action


async def tick(running: Running) -> None:
    """One round of housekeeping, and everything that it started."""
    keeper = Housekeeper(running.server.state, lambda reason: None)
    await keeper.tick()
    while keeper._actions:
        await asyncio.wait(set(keeper._actions))


async def state_of(running: Running, sandbox_id: str) -> str:
    status, body = await running.call("GET", f"/sandbox/{sandbox_id}")
    return body["state"] if status == 200 else "gone"


async def test_idle_sandbox_is_stopped_archived_and_deleted(running: Running) -> None:
    """The life of a forgotten sandbox, on the clock."""
    sandbox = await running.create(autoStopInterval=5, autoArchiveInterval=10, autoDeleteInterval=20)
    seen = []
    for minutes in (4, 2, 11, 21):
        running.manager.clock.advance(minutes * MINUTE)
        await tick(running)
        seen.append(await state_of(running, sandbox["id"]))
    assert seen == ["started", "stopped", "archived", "gone"]


async def test_ephemeral_sandbox_is_gone_after_its_idle_time(running: Running) -> None:
    """Auto-stop of an ephemeral sandbox deletes it."""
    sandbox = await running.create(autoStopInterval=5, autoDeleteInterval=0)
    running.manager.clock.advance(6 * MINUTE)
    await tick(running)
    assert await state_of(running, sandbox["id"]) == "gone"


async def test_activity_and_open_connections_keep_a_sandbox_alive(running: Running) -> None:
    """A request, an explicit call, and an open WebSocket each count; reading the record does not."""
    sandbox = await running.create(autoStopInterval=5)
    for _ in range(3):
        running.manager.clock.advance(4 * MINUTE)
        await running.call("POST", f"/sandbox/{sandbox['id']}/last-activity")
        await tick(running)
    url = f"{running.base}/toolbox/{sandbox['id']}/process/interpreter/execute"
    async with running.http.ws_connect(url):
        running.manager.clock.advance(30 * MINUTE)
        await tick(running)
        assert await state_of(running, sandbox["id"]) == "started"
    while running.manager.find(sandbox["id"]).connections:
        await asyncio.sleep(0.01)
    async with running.http.ws_connect(url, headers={"X-Daytona-Skip-Last-Activity-Update": "true"}):
        running.manager.clock.advance(6 * MINUTE)
        await state_of(running, sandbox["id"])
        await tick(running)
    assert await state_of(running, sandbox["id"]) == "stopped"
    await running.delete(sandbox)


async def test_time_to_live_ends_a_busy_sandbox(running: Running) -> None:
    """ttlMinutes counts from creation, whatever the activity."""
    sandbox = await running.create(ttlMinutes=10)
    assert from_iso(sandbox["autoDestroyAt"]) - from_iso(sandbox["createdAt"]) == 600
    running.manager.clock.advance(11 * MINUTE)
    await running.call("POST", f"/sandbox/{sandbox['id']}/last-activity")
    await tick(running)
    assert await state_of(running, sandbox["id"]) == "gone"


async def test_sandbox_over_its_disk_size_is_ended_with_its_files_kept(running: Running) -> None:
    """Many files together over the size: error with the figures; recover starts it again."""
    sandbox = await running.create()
    live = running.manager.find(sandbox["id"])
    await running.run(sandbox, "for i in 1 2 3; do head -c 400M /dev/zero > f$i; done; ln f1 again")
    live.record.disk = 1
    await tick(running)
    _, failed = await running.call("GET", f"/sandbox/{sandbox['id']}")
    assert (failed["state"], failed["errorReason"]) == ("error", "its files use 1.2 GiB of 1 GiB")
    live.record.disk = 2
    _, again = await running.call("POST", f"/sandbox/{sandbox['id']}/recover")
    assert again["state"] == "started"
    await running.delete(sandbox)


async def test_owner_label_is_read_carefully() -> None:
    """A live process is alive, another start time or a missing process is gone, nonsense is nothing."""
    start = process_start(os.getpid())
    if not Path("/proc").exists():
        pytest.skip("there is no /proc here")
    assert owner_gone(f"{os.getpid()}:{start}") is False
    assert owner_gone(f"{os.getpid()}:1") is True
    assert owner_gone(f"{2**22 - 1}:5") is True
    assert owner_gone("nonsense") is False


@pytest.mark.parametrize(
    "text",
    ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000000+0000", "2026-01-01T01:00:00+01:00", "2026-01-01"],
)
async def test_times_of_queries_are_understood(text: str) -> None:
    """The SDK writes offsets without a colon; a plus that was not escaped arrives as a space."""
    assert to_iso(from_iso(text)) == "2026-01-01T00:00:00.000Z"
    assert from_iso(text.replace("+", " ")) == from_iso(text)


async def test_clock_can_be_scaled() -> None:
    """Sixty times faster: a minute is a second."""
    assert Clock(60).minutes(2) == 2
    with pytest.raises(ValueError, match="greater than zero"):
        Clock(0)
