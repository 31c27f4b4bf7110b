"""The link against a model of everything it talks to: any order of prints, losses, deaths and returns.

Hypothesis chooses what happens; a virtual clock lets 15 s or two minutes pass at once. After each step the
cell has exactly the beginning of what was printed; at the end, all of it, or an error that tells the truth.
`DAYTONA_LINK_EXAMPLES` tries that many random orders instead of the same 60.
"""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from daytona_kernel import link as module
from daytona_kernel import wire
from daytona_kernel.errors import ConnectionFailed
from daytona_kernel.execution import ContextLost, Execution
from daytona_kernel.link import Link

from .link_world import SPOOL, Context, ModelToolbox, World
from .virtual import VirtualLoop

EXAMPLES = int(os.environ.get("DAYTONA_LINK_EXAMPLES") or 0)
WAITS = st.sampled_from([0.0, 0.015, 0.03, 0.05, 0.07, 0.09, 0.15, 0.3])
"""Moments between the steps of a round trip of the model, which takes 40 ms."""
BACK_WITHIN_S = 2.0
"""From the network's return to live output, while the cell runs."""
NOTICED_WITHIN_S = 3.0
"""From the death of a socket that nothing tells of to the search for another one."""
PATIENCE_S = 400.0
"""Virtual; whatever happened, a cell whose sandbox is there and whose network is up has ended by then."""


class Cell:
    """An execution, and what came of it."""

    def __init__(self, number: int, previous: Cell | None) -> None:
        request: dict[str, Any] = {"id": f"e{number}", "type": "execute", "content": {"code": ""}}
        if previous is not None:
            request["late_from"] = previous.execution.receiver.next_number
        self.texts: list[str] = []
        self.stray: list[str] = []
        self.execution: Execution = Execution(
            request,
            self._take,
            lambda name, text: self.stray.append(text),
            previous=previous.execution if previous is not None else None,
        )
        self.task: asyncio.Task[dict[str, Any]] | None = None

    @property
    def is_good(self) -> bool:
        return self.execution.result is not None

    def _take(self, frame: wire.Frame) -> None:
        assert frame.type == "stream"
        self.texts.append(frame.content["text"])


class LinkMachine(RuleBasedStateMachine):
    """A session's use of its link: one cell after the other, in one context until that is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.patch = pytest.MonkeyPatch()
        self.world = World(self.loop)
        self.world.on_acknowledged = self._check_acknowledged
        self.cells: list[tuple[Cell, Context]] = []
        self.printed = 0
        self.untrue: list[int] = []
        """Acknowledgements of what has not come."""

    @initialize()
    def begin(self) -> None:
        async def open_channel() -> Any:
            return await self.world.open_channel(self.world)

        self.patch.setattr(module, "Toolbox", ModelToolbox)
        self.patch.setattr(module, "time", SimpleNamespace(monotonic=self.loop.time))
        self.patch.setattr(module, "ACK_CHUNKS", 3)
        self.open_channel = open_channel
        asyncio.set_event_loop(self.loop)
        self._new_link()

    def _new_link(self) -> None:
        self.link = Link(ModelToolbox(self.world), self.world.context.id, SPOOL)  # type: ignore[arg-type]
        self.link.pid = 1
        self.link._open = self.open_channel  # type: ignore[method-assign]

    @property
    def accidents(self) -> bool:
        """Ends of a context are the exception, so that there is more to be seen between them."""
        return len(self.cells) % 4 == 3

    # -- the person ------------------------------------------------------------------------------------

    @property
    def running(self) -> Cell | None:
        cell = self.cells[-1][0] if self.cells else None
        return cell if cell is not None and cell.task is not None and not cell.task.done() else None

    @property
    def serving(self) -> bool:
        """Whether the agent runs a cell right now."""
        return self.world.context.current is not None and not self.world.context.ending

    @precondition(lambda self: self.running is None)
    @rule(warm=st.booleans(), wait=WAITS)
    def send_a_cell(self, warm: bool, wait: float) -> None:
        self._look_at_the_end()
        ended = [cell for cell, context in self.cells if context is self.world.context and cell.is_good]
        cell = Cell(len(self.cells), ended[-1] if ended else None)
        self.cells.append((cell, self.world.context))

        async def run() -> dict[str, Any]:
            try:
                return await self.link.run(cell.execution)
            finally:
                if warm:
                    self.link.warm_up()

        cell.task = self.loop.create_task(run())
        self.loop.pass_by(wait)

    @precondition(lambda self: self.cells and self.world.context.alive)
    @rule(count=st.sampled_from([1, 5]), wait=WAITS, fate=st.sampled_from(["break_off", "swallow", "pause"]))
    def lose_the_first_answer(self, count: int, wait: float, fate: str) -> None:
        """A thread of the last cell prints; that comes before the next cell's own output."""
        self._heal()
        if self.serving:
            self.world.context.finish()
        self.loop.pass_by(5)
        if self.running is not None or not self.world.context.may_print_late:
            return
        self.print(count=count, wait=0.0)
        self.send_a_cell(warm=True, wait=wait)
        self.world.context.print("of the new cell" if self.serving else "of the old cell")
        self.loop.pass_by(wait)
        for channel in self.world.open_channels:
            getattr(channel, fate)()

    def _look_at_the_end(self) -> None:
        """A cell is over: its result is its own, or the error says what is true."""
        if not self.cells:
            return
        cell, context = self.cells[-1]
        assert cell.task is not None
        if cell.task.cancelled():
            return
        ran = cell.execution.id in context.tracks
        error = cell.task.exception()
        if error is None:
            assert cell.task.result()["reply"] == {"status": "ok", "id": cell.execution.id}
            return
        if isinstance(error, ContextLost):
            assert not context.alive, error
            assert error.unknown or error.started == ran, (error, error.started, ran)
            self._replace_context()
        else:
            assert isinstance(error, ConnectionFailed), error
            assert not ran

    def _replace_context(self) -> None:
        """What the session does after the context is lost."""
        self.loop.run_until_complete(self.link.close())
        self.world.renew_context()
        self._new_link()

    @precondition(lambda self: self.running is not None and self.accidents)
    @rule()
    def give_up(self) -> None:
        """The person interrupts while nobody answers: what was sent goes on, the context is given up."""
        cell = self.running
        assert cell is not None
        assert cell.task is not None
        cell.task.cancel()
        self.loop.run_until_complete(asyncio.wait({cell.task}))
        self._replace_context()

    # -- the cell --------------------------------------------------------------------------------------

    @precondition(lambda self: self.serving or self.world.context.may_print_late)
    @rule(count=st.sampled_from([1, 2, 5, 30]), wait=WAITS)
    def print(self, count: int, wait: float) -> None:
        for _ in range(count):
            self.printed += 1
            self.world.context.print(str(self.printed))
        self.loop.pass_by(wait)

    @precondition(lambda self: self.serving)
    @rule(wait=WAITS)
    def end_the_cell(self, wait: float) -> None:
        self.world.context.finish()
        self.loop.pass_by(wait)

    @precondition(lambda self: self.world.context.alive and self.accidents)
    @rule()
    def kill_the_worker(self) -> None:
        self.world.context.die()

    @precondition(lambda self: self.world.context.alive and self.accidents)
    @rule()
    def delete_the_context(self) -> None:
        self.world.context.delete()

    # -- the network -----------------------------------------------------------------------------------

    @precondition(lambda self: self.world.open_channels and self.running)
    @rule(how=st.sampled_from(["break_off", "swallow", "pause", "resume"]), data=st.data())
    def hit_a_socket(self, how: str, data: st.DataObject) -> None:
        getattr(data.draw(st.sampled_from(self.world.open_channels)), how)()

    @precondition(lambda self: self.world.open_channels and self.running)
    @rule(
        end=st.sampled_from(
            [(1008, "slow consumer"), (1012, ""), (1001, ""), (1011, ""), (1006, ""), (1002, "protocol")]
        )
    )
    def have_the_server_close(self, end: tuple[int, str]) -> None:
        for channel in self.world.open_channels:
            channel.server_close(*end)

    @precondition(lambda self: self.world.network == "up")
    @rule(how=st.sampled_from(["refused", "dark"]), fate=st.sampled_from(["break_off", "swallow", "pause"]))
    def lose_the_network(self, how: Any, fate: str) -> None:
        self.world.network = how
        for channel in self.world.open_channels:
            getattr(channel, fate)()

    @precondition(lambda self: self.world.network != "up")
    @rule()
    def get_the_network_back(self) -> None:
        """What was printed meanwhile comes soon, while the cell still runs."""
        track = self.world.context.current
        recorded = len(track.lines) if track is not None else 0
        cell = self.running
        noticed = cell is not None and cell.execution.connected is False
        self._heal()
        self.loop.pass_by(BACK_WITHIN_S if noticed else BACK_WITHIN_S + NOTICED_WITHIN_S)
        if track is not None and (cell := self.running) is not None and cell.execution.id == track.id:
            assert cell.execution.receiver.next_number >= recorded, "live output is late"

    def _heal(self) -> None:
        self.world.network = "up"
        for channel in self.world.open_channels:
            channel.resume()

    @rule(seconds=st.sampled_from([0.01, 0.1, 1.0, 5.0, 120.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.loop.pass_by(seconds)

    # -- what must hold --------------------------------------------------------------------------------

    def _check_acknowledged(self, execution_id: str, number: int) -> None:
        """What is acknowledged may be forgotten over there, so it must be here."""
        for cell, _ in self.cells:
            if cell.execution.id == execution_id:
                self.untrue += [number] if number > cell.execution.receiver.next_number else []

    @invariant()
    def each_cell_has_the_beginning_of_what_it_printed(self) -> None:
        for cell, context in self.cells:
            track = context.tracks.get(cell.execution.id)
            printed = track.texts if track is not None else []
            assert cell.texts == printed[: len(cell.texts)]
            assert cell.stray == []
        assert self.untrue == []

    def teardown(self) -> None:
        try:
            if hasattr(self, "link"):
                self._come_to_an_end()
        finally:
            if hasattr(self, "link"):
                self.loop.run_until_complete(self.link.close())
            self.loop.finish()
            asyncio.set_event_loop(None)
            self.patch.undo()

    def _come_to_an_end(self) -> None:
        """The network is there again, and the cell ends: nothing is missing then."""
        self._heal()
        cell = self.running
        if cell is not None:
            self.loop.pass_by(PATIENCE_S)
            if self.serving:
                self.world.context.finish()
            self.loop.pass_by(PATIENCE_S)
            assert self.running is None, "the cell hangs"
        if self.cells:
            self._look_at_the_end()
            self._have_everything()

    def _have_everything(self) -> None:
        """Also what threads have printed between cells: it comes with the next one."""
        context = self.world.context
        if self.cells[-1][1] is context and context.alive and context.last is not None:
            self.send_a_cell(warm=False, wait=0)
            self.loop.pass_by(PATIENCE_S)
            context.finish()
            self.loop.pass_by(PATIENCE_S)
            assert self.running is None
            self._look_at_the_end()
        for cell, its_context in self.cells:
            if its_context is context and context.alive and cell.is_good:
                assert cell.texts == its_context.tracks[cell.execution.id].texts


@pytest.mark.slow
def test_each_line_comes_once_and_each_end_is_true_whatever_happens() -> None:
    machine = LinkMachine if EXAMPLES else seed(5)(LinkMachine)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES or 60,
            stateful_step_count=60,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # to shrink a failure takes minutes; its steps are printed as they are
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
