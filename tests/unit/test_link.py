"""The link: one request runs exactly once, whatever becomes of the socket."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from daytona_kernel import link as module
from daytona_kernel import wire
from daytona_kernel.channel import Channel, open_channel
from daytona_kernel.errors import ConnectionFailed
from daytona_kernel.execution import ContextLost, Execution
from daytona_kernel.link import Link
from daytona_kernel.toolbox import Endpoint

from .fake_sandbox import SPOOL, Connection, FakeSandbox, fake_sandbox, line, succeed


@dataclass
class Bench:
    """A link to a fake sandbox."""

    sandbox: FakeSandbox
    link: Link
    said: list[str] = field(default_factory=list)
    connected: list[bool] = field(default_factory=list)
    stray: list[str] = field(default_factory=list)

    def execution(self, execution_id: str = "e1", code: str | None = None) -> Execution:
        return Execution(
            {"id": execution_id, "type": "execute", "content": {"code": "1"}},
            lambda frame: self.said.append(frame.content["text"]),
            lambda name, text: self.stray.append(text),
            self.connected.append,
            code=code,
        )


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(module, "POLL_MIN_S", 0.01)
    monkeypatch.setattr(module, "POLL_MAX_S", 0.02)
    monkeypatch.setattr(module, "FAR_S", 3600.0)  # however slow this machine is for a moment
    async with fake_sandbox() as (sandbox, toolbox):
        link = Link(toolbox, "c1", SPOOL)
        yield Bench(sandbox, link)
        await link.close()


def parsed(execution_id: str, number: int, item: str) -> wire.Line:
    found = wire.parse_line(line(execution_id, number, item).strip(f"{wire.RS}\n"))
    assert found is not None
    return found


# -- good days -----------------------------------------------------------------------------------------


async def test_a_request_runs_in_its_context_without_the_daemons_time_limit(bench: Bench) -> None:
    result = await bench.link.run(bench.execution())
    assert result["reply"] == {"status": "ok"}
    assert bench.said == ["hello"]
    (seen,) = bench.sandbox.executions
    assert (seen.message["contextId"], seen.message["timeout"]) == ("c1", 0)
    assert seen.request["id"] == "e1"


async def test_a_socket_does_not_count_as_activity_of_the_sandbox(bench: Bench) -> None:
    await bench.link.run(bench.execution())
    assert bench.sandbox.headers[0]["X-Daytona-Skip-Last-Activity-Update"] == "true"
    assert bench.sandbox.headers[0]["Authorization"] == "Bearer k"


async def test_done_ends_the_request_without_waiting_for_the_socket(bench: Bench) -> None:
    still_open = asyncio.Event()

    async def never_closes(connection: Connection) -> None:
        await connection.frames("ready", "done")
        still_open.set()
        await connection.until_closed()

    bench.sandbox.scripts = [never_closes]
    assert await bench.link.run(bench.execution())
    assert still_open.is_set()


async def test_a_warm_socket_is_used_for_the_next_request(bench: Bench) -> None:
    bench.link.warm_up()
    bench.link.warm_up()
    await bench.link.run(bench.execution())
    assert bench.sandbox.opened == 1


async def test_a_warm_socket_that_has_died_is_replaced(bench: Bench) -> None:
    bench.link.warm_up()
    channel = await bench.link._warm[0][0]
    channel.transport.abort()
    await channel.wait_closed()
    await bench.link.run(bench.execution())
    assert bench.said == ["hello"]
    assert bench.sandbox.opened == 2


async def test_a_far_sandbox_has_several_sockets_warm(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAR_S", 0.0)
    await bench.link.run(bench.execution())
    bench.link.warm_up()
    await asyncio.gather(*(opening for opening, _ in bench.link._warm))
    assert bench.sandbox.opened == 1 + module.FAR_SOCKETS
    await bench.link.run(bench.execution("e2"))
    await asyncio.gather(*(opening for opening, _ in bench.link._warm))
    assert bench.sandbox.opened == 2 + module.FAR_SOCKETS  # one was used, one opened for it


async def test_a_dead_warm_socket_condemns_the_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAR_S", 0.0)
    await bench.link.run(bench.execution())
    bench.link.warm_up()
    first, *others = [await opening for opening, _ in bench.link._warm]
    first.transport.abort()
    await first.wait_closed()
    await bench.link.run(bench.execution("e2"))
    for channel in others:
        await channel.wait_closed()


async def test_closing_closes_every_warm_socket(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAR_S", 0.0)
    await bench.link.run(bench.execution())
    bench.link.warm_up()
    channels = [await opening for opening, _ in bench.link._warm]
    await bench.link.close()
    assert [channel.is_open for channel in channels] == [False] * module.FAR_SOCKETS


async def test_a_warm_socket_that_is_too_old_is_replaced(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WARM_IDLE_S", 0.0)
    bench.link.warm_up()
    await bench.link.run(bench.execution())
    assert bench.sandbox.opened == 2


async def test_a_warm_socket_from_before_the_machine_slept_is_replaced(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steady clock stood still meanwhile; what lies between has forgotten the connection."""
    bench.link.warm_up()
    await bench.link._warm[0][0]
    morning = time.time() + 8 * 3600
    monkeypatch.setattr(module, "wall_clock", lambda: morning)
    await bench.link.run(bench.execution())
    assert bench.sandbox.opened == 2


async def test_the_system_looks_after_a_socket_that_waits(bench: Bench) -> None:
    """No router must forget it, and its death must be noticed; without a request, which wakes sandboxes."""
    bench.link.warm_up()
    plain = (await bench.link._warm[0][0]).transport.get_extra_info("socket")
    assert plain.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    if hasattr(socket, "TCP_KEEPIDLE"):
        assert plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) < 60


async def test_a_process_is_not_taken_for_dead_because_nobody_could_look(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """-1: no shell could be started there, or the answer was no daemon's."""
    codes = iter([-1, 127, 0, 1])

    async def shell(script: str, timeout_s: int) -> tuple[int, str]:
        return next(codes), ""

    monkeypatch.setattr(bench.link.toolbox, "shell", shell)
    bench.link.pid = 77
    assert [await bench.link._worker_is_gone() for _ in range(4)] == [False, False, False, True]


async def test_a_warm_socket_that_could_not_be_opened_is_replaced(bench: Bench) -> None:
    bench.sandbox.refuse_with = 502
    bench.link.warm_up()
    with pytest.raises(ConnectionFailed):
        await bench.link._warm[0][0]
    bench.sandbox.refuse_with = None
    await bench.link.run(bench.execution())
    assert bench.said == ["hello"]


async def test_output_that_is_no_frame_is_passed_on(bench: Bench) -> None:
    async def loose(connection: Connection) -> None:
        await connection.chunk("stdout", "loose\n")
        await succeed(connection)

    bench.sandbox.scripts = [loose]
    await bench.link.run(bench.execution())
    assert bench.stray == ["loose\n"]


async def test_what_has_arrived_is_acknowledged_now_and_then(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ACK_CHUNKS", 3)

    async def talks(connection: Connection) -> None:
        await connection.frames("ready", "a", "b")
        await bench.sandbox.acknowledged.wait()
        await connection.frames("done", start=3)

    bench.sandbox.scripts = [talks]
    await bench.link.run(bench.execution())
    assert bench.sandbox.acks == ["e1 3 \n"]


# -- bad days: it certainly did not run ----------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 404])
async def test_nobody_there_is_a_failed_connection_and_nothing_was_sent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(module, "REFUSED_PATIENCE_S", 0.0)
    bench.sandbox.refuse_with = status
    with pytest.raises(ConnectionFailed, match=str(status)):
        await bench.link.run(bench.execution())
    assert bench.sandbox.executions == []


@pytest.mark.parametrize("status", [400, 401, 404, 429, 502, 503, 504, 522])
async def test_a_proxy_that_is_away_for_a_moment_is_waited_for(bench: Bench, status: int) -> None:
    """Its words for a key that it could not ask about are 401; those for a sandbox that it wakes, 503; and
    400 those for one that has stopped, which the control plane may tell some seconds later.
    """
    bench.sandbox.refuse_with = status
    running = asyncio.ensure_future(bench.link.run(bench.execution()))
    while bench.sandbox.opened < 5:
        await asyncio.sleep(0.01)
    bench.sandbox.refuse_with = None
    await running
    assert len(bench.sandbox.executions) == 1


async def test_a_proxy_that_stays_away_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN_PATIENCE_S", 0.0)
    bench.sandbox.refuse_with = 502
    with pytest.raises(ConnectionFailed, match="502"):
        await bench.link.run(bench.execution())
    assert bench.sandbox.executions == []


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1008, "context not found: c1"), (1008, "context is not active"), (1011, "no context")],
)
async def test_a_refused_context_is_lost_and_the_request_did_not_start(
    bench: Bench, code: int, reason: str
) -> None:
    bench.sandbox.scripts = [lambda connection: connection.close(code, reason)]
    with pytest.raises(ContextLost) as caught:
        await bench.link.run(bench.execution())
    assert not caught.value.started


async def test_a_clean_end_without_any_frame_means_that_the_code_did_not_run(bench: Bench) -> None:
    bench.sandbox.scripts = [lambda connection: connection.close()]
    with pytest.raises(ContextLost) as caught:
        await bench.link.run(bench.execution())
    assert not caught.value.started
    assert len(bench.sandbox.executions) == 1


async def test_a_missing_agent_is_a_lost_context(bench: Bench) -> None:
    async def no_agent(connection: Connection) -> None:
        await connection.chunk("error", name="NameError", value="name '__daytona__' is not defined")
        await connection.close()

    bench.sandbox.scripts = [no_agent]
    with pytest.raises(ContextLost, match="agent") as caught:
        await bench.link.run(bench.execution())
    assert not caught.value.started


# -- bad days: it was running --------------------------------------------------------------------------


async def test_a_dead_worker_is_told_with_the_output_that_the_spool_still_has(bench: Bench) -> None:
    async def dies(connection: Connection) -> None:
        await connection.frames("ready", "one")
        bench.sandbox.spool("e1", "ready", "one", "two")
        await connection.close(1001, "worker process ended")

    bench.sandbox.scripts = [dies]
    with pytest.raises(ContextLost) as caught:
        await bench.link.run(bench.execution())
    assert caught.value.started
    assert caught.value.died
    assert bench.said == ["one", "two"]


@pytest.mark.parametrize("how", ["abort", "close 1006-like", "slow consumer", "gap"])
async def test_a_lost_socket_is_got_back_without_loss_and_without_a_second_run(
    bench: Bench, how: str
) -> None:
    async def lost(connection: Connection) -> None:
        await connection.frames("ready", "one")
        if how == "abort":
            await connection.abort()
        elif how == "gap":
            await connection.frames("three", start=3)
            await connection.until_closed()
        else:
            await connection.close(1008 if how == "slow consumer" else 1012, how)

    async def again(connection: Connection) -> None:
        """The agent knows the id and sends its recorded lines only."""
        assert connection.request["id"] == "e1"
        start = connection.request["from"]
        await connection.frames(*["ready", "one", "two", "three", "done"][start:], start=start)
        await connection.close()

    bench.sandbox.scripts = [lost, again]
    result = await bench.link.run(bench.execution())
    assert result["reply"] == {"status": "ok"}
    assert bench.said == ["one", "two", "three"]
    assert bench.connected[0] is False
    assert bench.connected[-1] is True


async def test_a_request_that_is_refused_again_and_again_is_given_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon, or somebody before it, that takes no messages of that size: it did not run."""
    monkeypatch.setattr(module, "AGAIN_S", 0.001)

    async def decline(connection: Connection) -> None:
        await connection.close(1009, "message too big")

    bench.sandbox.scripts = [decline] * 20
    with pytest.raises(ContextLost, match="1009 message too big") as caught:
        await bench.link.run(bench.execution())
    assert (caught.value.started, caught.value.unknown) == (False, False)
    assert len(bench.sandbox.executions) == 1 + module.DECLINED_MOST


async def test_a_cell_that_runs_is_not_given_back_however_its_copies_fare(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN_S", 0.001)

    async def lost(connection: Connection) -> None:
        await connection.frames("ready")
        await connection.abort()

    async def decline(connection: Connection) -> None:
        if len(bench.sandbox.executions) > 2 * module.DECLINED_MOST:
            bench.sandbox.spool("e1", "ready", "one", "done")
        await connection.close(1011, "internal error")

    bench.sandbox.scripts = [lost, *[decline] * 60]
    assert await bench.link.run(bench.execution())
    assert bench.said == ["one"]


async def test_while_the_cell_runs_on_its_spool_gives_live_output(bench: Bench) -> None:
    """The copy waits in the interpreter's queue until the cell ends; until then the spool is read."""
    release = asyncio.Event()

    async def lost(connection: Connection) -> None:
        await connection.frames("ready", "one")
        await connection.abort()

    async def queued(connection: Connection) -> None:
        await release.wait()
        await connection.frames("done", start=3)

    bench.sandbox.scripts = [lost, queued]
    running = asyncio.ensure_future(bench.link.run(bench.execution()))
    while bench.said != ["one"]:
        await asyncio.sleep(0.01)
    bench.sandbox.spool("e1", "ready", "one", "two")
    while bench.said != ["one", "two"]:
        await asyncio.sleep(0.01)
    assert not running.done()
    release.set()
    await running
    assert bench.said == ["one", "two"]


async def test_the_end_may_come_from_the_spool_alone(bench: Bench) -> None:
    async def lost(connection: Connection) -> None:
        await connection.frames("ready")
        bench.sandbox.spool("e1", "ready", "one", "done")
        await connection.abort()

    bench.sandbox.scripts = [lost, lambda connection: connection.until_closed()]
    assert await bench.link.run(bench.execution())
    assert bench.said == ["one"]


async def test_late_output_of_the_cell_before_that_went_with_the_socket_is_in_the_spool(bench: Bench) -> None:
    """It is sent first on the next cell's socket, of which nothing arrived."""
    before = bench.execution("e0")
    for number, item in enumerate(["ready", "in time", "done"]):
        before.feed(parsed("e0", number, item))
    bench.sandbox.spool("e0", "ready", "in time", "done", "late")

    async def lost(connection: Connection) -> None:
        bench.sandbox.spool("e1", "ready", "one", "done")
        await connection.abort()

    bench.sandbox.scripts = [lost, lambda connection: connection.until_closed()]
    execution = bench.execution()
    execution.previous = before
    await bench.link.run(execution)
    assert bench.said == ["in time", "late", "one"]
    assert bench.stray == []


async def test_an_acknowledgement_that_did_not_get_through_is_sent_again(bench: Bench) -> None:
    """Else a cell with much output would wait for it in the sandbox."""
    release = asyncio.Event()

    async def flood(connection: Connection) -> None:
        bench.sandbox.toolbox_down = True
        await connection.frames("ready", *["x"] * module.ACK_CHUNKS)
        await release.wait()
        await connection.frames("done", start=module.ACK_CHUNKS + 1)

    bench.sandbox.scripts = [flood]
    running = asyncio.ensure_future(bench.link.run(bench.execution()))
    while len(bench.said) < module.ACK_CHUNKS:
        await asyncio.sleep(0.01)
    assert bench.sandbox.acks == []
    bench.sandbox.toolbox_down = False
    await asyncio.wait_for(bench.sandbox.acknowledged.wait(), 10)
    release.set()
    await running
    assert bench.sandbox.acks[0] in [f"e1 {module.ACK_CHUNKS + n} \n" for n in (0, 1)]


async def test_a_network_that_is_away_for_long_is_waited_out(bench: Bench) -> None:
    async def lost(connection: Connection) -> None:
        await connection.frames("ready", "one")
        bench.sandbox.refuse_with, bench.sandbox.toolbox_down = 502, True
        await connection.abort()

    # A copy, which may be there before the recording is read, has nothing to say.
    bench.sandbox.scripts = [lost, Connection.until_closed]
    running = asyncio.ensure_future(bench.link.run(bench.execution()))
    while bench.sandbox.opened < 4:
        await asyncio.sleep(0.01)
    assert not running.done()
    bench.sandbox.refuse_with, bench.sandbox.toolbox_down = None, False
    bench.sandbox.spool("e1", "ready", "one", "two", "done")
    await running
    assert bench.said == ["one", "two"]


@pytest.mark.parametrize("steps", range(8))
async def test_a_socket_that_opens_as_nobody_wants_it_any_more_is_closed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """The end came from the spool so many steps of the loop after the new socket was there."""
    opened: list[Channel] = []

    def cancel_in(steps: int) -> None:
        if steps:
            asyncio.get_running_loop().call_soon(cancel_in, steps - 1)
        else:
            sending.cancel()

    async def open_and_end(endpoint: Endpoint) -> Channel:
        opened.append(await open_channel(endpoint))
        cancel_in(steps)
        return opened[-1]

    monkeypatch.setattr("daytona_kernel.channel.open_channel", open_and_end)
    sending = asyncio.ensure_future(bench.link._reopen(asyncio.Event()))
    await asyncio.wait({sending})
    if not sending.cancelled():
        sending.result().transport.abort()
    await asyncio.wait_for(opened[0].wait_closed(), 5)


async def test_a_context_that_dies_while_the_socket_is_away_is_lost(bench: Bench) -> None:
    async def lost(connection: Connection) -> None:
        await connection.frames("ready", "one")
        await connection.abort()

    bench.sandbox.scripts = [lost, lambda connection: connection.close(1001, "worker process ended")]
    with pytest.raises(ContextLost) as caught:
        await bench.link.run(bench.execution())
    assert caught.value.died
    assert caught.value.started


async def test_a_record_that_is_gone_is_said_so_instead_of_asking_for_ever(bench: Bench) -> None:
    async def lost(connection: Connection) -> None:
        await connection.frames("ready", "one")
        await connection.abort()

    bench.sandbox.scripts = [lost, lambda connection: connection.close()]
    with pytest.raises(ContextLost, match="recorded output") as caught:
        await bench.link.run(bench.execution())
    assert caught.value.started


async def test_a_socket_that_is_silent_although_the_cell_has_begun_is_given_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half-open connection: the spool shows that the cell runs, and nothing of it arrives."""
    monkeypatch.setattr(module, "READY_CHECK_S", 0.01)
    monkeypatch.setattr(module, "SILENCE_S", 0.01)

    async def silent(connection: Connection) -> None:
        bench.sandbox.spool("e1", "ready", "one", "done")
        await connection.until_closed()

    bench.sandbox.scripts = [silent, lambda connection: connection.until_closed()]
    assert await bench.link.run(bench.execution())
    assert bench.said == ["one"]


async def test_a_peer_that_answers_no_pings_any_more_is_given_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And pings draw nothing from the generator that a person may have seeded."""
    drawn: list[int] = []
    monkeypatch.setattr("websockets.asyncio.connection.random", SimpleNamespace(getrandbits=drawn.append))
    monkeypatch.setattr(module, "READY_CHECK_S", 0.01)
    monkeypatch.setattr(module, "PING_INTERVAL_S", 0.01)
    monkeypatch.setattr(module, "PING_TIMEOUT_S", 0.01)
    release = asyncio.Event()

    async def hangs(connection: Connection) -> None:
        await connection.frames("ready", "one")
        await release.wait()  # reads nothing, so answers nothing

    bench.sandbox.scripts = [hangs]
    running = asyncio.ensure_future(bench.link.run(bench.execution()))
    while len(bench.sandbox.executions) < 2:
        bench.sandbox.spool("e1", "ready", "one", "done")
        await asyncio.sleep(0.01)
    release.set()
    await running
    assert bench.said == ["one"]
    assert drawn == []


# -- ends ----------------------------------------------------------------------------------------------


async def test_closing_ends_all_background_work(bench: Bench) -> None:
    bench.link.warm_up()
    await bench.link.run(bench.execution())
    bench.link.warm_up()
    await bench.link.close()
    assert not bench.link._tasks
    bench.link.warm_up()
    assert not bench.link._warm


async def test_cancelling_a_run_leaves_no_socket_open(bench: Bench) -> None:
    begun = asyncio.Event()
    gone = asyncio.Event()

    async def runs_on(connection: Connection) -> None:
        begun.set()
        try:
            await connection.until_closed()
        finally:
            gone.set()

    bench.sandbox.scripts = [runs_on]
    running = asyncio.ensure_future(bench.link.run(bench.execution()))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await bench.link.close()
    await asyncio.wait_for(gone.wait(), 10)
