"""A context in a sandbox that has only just started: patience with what stands before it."""

from __future__ import annotations

from typing import Any

import pytest

from daytona_kernel import context as module
from daytona_kernel.context import ContextStarter
from daytona_kernel.errors import ConnectionFailed, DaytonaKernelError, SandboxError, SandboxProtocolError
from daytona_kernel.toolbox import ToolboxError


class Toolbox:
    """Makes a context once all of ``failures`` have been met."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = [*failures]
        self.calls = 0

    async def create_context(self) -> str:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return "c1"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_MIN_S", 0.0)
    monkeypatch.setattr(module, "PAUSE_MAX_S", 0.0)


async def made(toolbox: Any) -> tuple[str, list[str | None]]:
    said: list[str | None] = []
    return await ContextStarter("n", said.append)._create_context(toolbox), said


async def test_a_sandbox_that_does_not_answer_yet_is_waited_for() -> None:
    """What the proxy of v0.190.0 says in turn: not known, no address, nobody listens, connection refused."""
    failures = [ToolboxError(status, "Is the Sandbox started?") for status in (404, 401, 400, 429, 502, 503)]
    toolbox = Toolbox(*failures, ConnectionFailed("refused"))
    context_id, said = await made(toolbox)
    assert (context_id, toolbox.calls) == ("c1", 8)
    assert said[0] == "Waiting for the sandbox to answer …"
    assert said[-1] is None


@pytest.mark.parametrize(
    ("failure", "ours", "words"),
    [
        (ToolboxError(500, ""), SandboxProtocolError, "could not start Python"),
        (ToolboxError(403, "no"), ToolboxError, "403"),
    ],
)
async def test_what_waiting_does_not_change_is_told_at_once(
    failure: Exception, ours: type[DaytonaKernelError], words: str
) -> None:
    toolbox = Toolbox(failure)
    with pytest.raises(ours, match=words):
        await made(toolbox)
    assert toolbox.calls == 1


@pytest.mark.parametrize(
    ("failure", "ours"), [(ToolboxError(400, ""), SandboxError), (ConnectionFailed("x"), ConnectionFailed)]
)
async def test_patience_has_an_end(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, ours: type[DaytonaKernelError]
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", -1.0)
    with pytest.raises(ours) as caught:
        await made(Toolbox(failure))
    assert type(caught.value) is ours
