"""A command's output over connections that are lost, refused and cut; and sessions that can not be ended."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from daytona_kernel.magics import following as module
from daytona_kernel.magics.following import LOST, end_session, follow, patiently


class DaytonaError(Exception):
    """As the SDK's: some have a status, others hide it in their cause."""

    def __init__(self, text: str, status_code: int | None = None) -> None:
        super().__init__(text)
        self.status_code = status_code


class Screen:
    def __init__(self) -> None:
        self.texts = {"stdout": "", "stderr": ""}
        self.said: list[str | None] = []

    def write(self, text: str, *, error: bool = False) -> None:
        self.texts["stderr" if error else "stdout"] += text

    def status(self, text: str | None) -> None:
        self.said.append(text)


Piece = tuple[str, str]
CUT = DaytonaError("WebSocket closed unexpectedly (close code 1006)")


class Processes:
    """Each connection tells the output from its beginning, in pieces of its own, and then ends as it does."""

    def __init__(self, *connections: tuple[list[Piece], Exception | None]) -> None:
        self.connections = [*connections]
        self.codes: list[int | None] = [0]
        self.ends: list[Any] = []

    async def get_session_command_logs_async(self, session: str, command: str, out: Any, err: Any) -> None:
        pieces, end = self.connections.pop(0)
        for name, text in pieces:
            (out if name == "out" else err)(text)
        if end is not None:
            raise end

    async def get_session_command(self, session: str, command: str) -> Any:
        return SimpleNamespace(exit_code=self.codes.pop(0))

    async def delete_session(self, session_id: str) -> None:
        end = self.ends.pop(0)
        if end is not None:
            raise end


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSES_S", (0.0,) * 5)


async def shown(processes: Processes) -> Screen:
    screen = Screen()
    await follow(screen, SimpleNamespace(process=processes), "s", "c")  # type: ignore[arg-type]
    assert not processes.connections
    return screen


async def test_what_was_shown_before_the_loss_is_not_shown_again() -> None:
    screen = await shown(
        Processes(
            ([("out", "one\ntw"), ("err", "bad\n")], CUT),
            ([("out", "on")], CUT),
            ([("out", "one\n"), ("err", "bad\nwor"), ("out", "two\nthree\n"), ("err", "se\n")], None),
        )
    )
    assert screen.texts == {"stdout": "one\ntwo\nthree\n", "stderr": "bad\nworse\n"}
    assert screen.said == []


async def test_an_end_in_order_while_the_command_goes_on_is_a_loss_too() -> None:
    """A proxy that is restarted may tidy up after itself."""
    processes = Processes(([("out", "a")], None), ([("out", "ab")], None), ([("out", "abc")], None))
    processes.codes = [None, None, 3]
    screen = Screen()
    assert await follow(screen, SimpleNamespace(process=processes), "s", "c") == 3  # type: ignore[arg-type]
    assert screen.texts["stdout"] == "abc"


async def test_a_command_that_has_ended_its_shell_has_no_exit_code() -> None:
    processes = Processes(*[([("out", "a")], None)] * (module.EMPTY_ENDS + 1))
    processes.codes = [None] * (module.EMPTY_ENDS + 1)
    assert await follow(Screen(), SimpleNamespace(process=processes), "s", "c") is None  # type: ignore[arg-type]
    assert not processes.connections


async def test_a_mark_or_a_character_that_was_cut_comes_whole() -> None:
    screen = await shown(
        Processes(
            ([("out", "caf\ufffd")], CUT), ([("out", "café\x01")], CUT), ([("out", "café\nend\n")], None)
        )
    )
    assert screen.texts["stdout"] == "café\nend\n"
    screen = await shown(Processes(([("out", "really \ufffd")], None)))
    assert screen.texts["stdout"] == "really \ufffd"


async def test_a_network_that_is_away_for_longer_is_said_and_taken_back() -> None:
    refused = DaytonaError("no")
    refused.__cause__ = DaytonaError("Invalid response status", 502)
    screen = await shown(
        Processes(
            ([("out", "a")], CUT), *[([], refused)] * 9, ([("out", "ab")], CUT), ([("out", "abc")], None)
        )
    )
    assert screen.texts["stdout"] == "abc"
    assert screen.said == [LOST, None]


async def test_a_network_that_stays_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    with pytest.raises(DaytonaError, match="1006"):
        await shown(Processes(([], CUT), ([], CUT)))


@pytest.mark.parametrize("status", [400, 404, 410])
async def test_a_command_that_is_gone_is_told_at_once(status: int) -> None:
    with pytest.raises(DaytonaError, match="gone"):
        await shown(Processes(([], DaytonaError("gone", status))))


async def test_an_error_of_our_own_is_not_taken_for_the_networks() -> None:
    with pytest.raises(TypeError):
        await shown(Processes(([], TypeError("ours"))))


async def test_a_question_is_asked_again_after_a_failure_on_the_way_only() -> None:
    answers: list[Any] = [DaytonaError("bad gateway", 502), CUT, "answer", DaytonaError("no", 404)]

    async def ask() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert await patiently(ask) == "answer"
    with pytest.raises(DaytonaError, match="no"):
        await patiently(ask)


@pytest.mark.parametrize(
    "ends", [[None], [CUT, None], [DaytonaError("gone", 404)], [CUT, DaytonaError("gone", 404)], [CUT, CUT]]
)
async def test_a_session_that_can_not_be_ended_is_no_error_of_the_command(ends: list[Any]) -> None:
    processes = Processes()
    processes.ends = [*ends]
    await end_session(SimpleNamespace(process=processes), "s")  # type: ignore[arg-type]
    assert processes.ends == []


async def test_a_session_that_is_swallowed_by_the_network_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "END_TIMEOUT_S", 0.01)

    async def delete(session_id: str) -> None:
        await asyncio.Event().wait()

    await end_session(SimpleNamespace(process=SimpleNamespace(delete_session=delete)), "s")  # type: ignore[arg-type]


@pytest.mark.parametrize(("commands", "usable"), [([], True), (None, True), (["another"], False)])
async def test_a_session_that_is_there_without_a_command_is_used(commands: Any, usable: bool) -> None:
    async def create(session_id: str) -> None:
        raise DaytonaError("it exists", 409)

    async def get(session_id: str) -> Any:
        return SimpleNamespace(commands=commands)

    sandbox: Any = SimpleNamespace(process=SimpleNamespace(create_session=create, get_session=get))
    if usable:
        await module.make_session(sandbox, "s")
    else:
        with pytest.raises(DaytonaError, match="exists"):
            await module.make_session(sandbox, "s")
