"""What a command of a session writes, followed over as many connections as it takes, and a session's end.

A command does not notice when nobody follows it: the daemon records its output, and tells it from the
beginning to whoever asks (v0.190.0). So a lost connection is taken up again, and what has been shown already
is left out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..translation import is_a, status_of

if TYPE_CHECKING:
    from daytona import AsyncSandbox

log = logging.getLogger(__name__)

T = TypeVar("T")

PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Before each new attempt; the last one again and again."""
PATIENCE_S = 300.0
"""How long nothing may come of any attempt before that is said."""
TOLD_AFTER = 3
"""Failures in a row after which the person hears of them: two are over in a moment."""
EMPTY_ENDS = 3
"""So many connections in a row that end in order, and bring nothing new: there is no exit code to come."""
LASTED_S = 10.0
"""A connection that was there for so long, and said nothing, was a good one all the same."""
PASSING = (401, 408, 425, 429)
"""Besides those from 500 on: statuses that may be others in a moment. 401 is also the proxy's word for
"could not ask whose key this is"."""
END_TIMEOUT_S = 15.0
"""Of one attempt to end a session; the daemon gives what runs in it 5 s (v0.190.0)."""
END_ATTEMPTS = 2
UNFINISHED = "\x01\x02\ufffd"
"""What a cut leaves at the end: pieces of the marks between the streams, or of a character."""
LOST = "The connection to the sandbox is lost; the program goes on there. Reconnecting …"


class Writing(Protocol):
    """What a program's output goes to."""

    def write(self, text: str, *, error: bool = False) -> None:
        """Take a piece of stdout, or with ``error`` of stderr."""

    def status(self, text: str | None) -> None:
        """Say what is being waited for; ``None``: it is over."""


class _Stream:
    """One stream over several connections: each begins anew, what was shown is not shown again."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.shown = 0
        self._write = write
        self._position = 0
        self._held = ""

    def __call__(self, text: str) -> None:
        skip = max(0, self.shown - self._position)
        self._position += len(text)
        self.shown = max(self.shown, self._position)
        whole = self._held + text[skip:]
        kept = whole.rstrip(UNFINISHED)
        self._held = whole[len(kept) :]
        if kept:
            self._write(kept)

    def lost(self) -> None:
        """The connection is gone; what it may have cut comes once more."""
        self.shown -= len(self._held)
        self._position, self._held = 0, ""

    def end(self) -> None:
        """Nothing more comes."""
        if self._held:
            self._write(self._held)


async def follow(host: Writing, sandbox: AsyncSandbox, session_id: str, command_id: str) -> int | None:
    """Show what a command of a session writes, until it ends. Its exit code; ``None``: it ended its shell.

    Raises what the SDK raises at last.
    """
    now = asyncio.get_running_loop().time
    out, err = _Stream(host.write), _Stream(lambda text: host.write(text, error=True))
    failures, good_at, told, empty_ends = 0, now(), False, 0
    try:
        while True:
            before, began = out.shown + err.shown, now()
            try:
                await sandbox.process.get_session_command_logs_async(session_id, command_id, out, err)
                code = await _exit_code(sandbox, session_id, command_id)
                empty_ends = 0 if out.shown + err.shown > before else empty_ends + 1
                if code is not None or empty_ends >= EMPTY_ENDS:
                    return code
                # An end in order, and the command goes on: a proxy's, which tidies up.
            except Exception as exc:
                if out.shown + err.shown > before or now() - began > LASTED_S:
                    failures, good_at = 0, now()
                    if told:
                        told = False
                        host.status(None)
                if not may_pass(exc) or now() - good_at > PATIENCE_S:
                    raise
                log.warning("the output of a command is taken up again: %s", exc)
            out.lost()
            err.lost()
            failures += empty_ends == 0
            if failures >= TOLD_AFTER and not told:
                told = True
                host.status(LOST)
            await asyncio.sleep(PAUSES_S[min(failures, len(PAUSES_S)) - 1])
    finally:
        if told:
            host.status(None)
        out.end()
        err.end()


async def _exit_code(sandbox: AsyncSandbox, session_id: str, command_id: str) -> int | None:
    command = await patiently(lambda: sandbox.process.get_session_command(session_id, command_id))
    return None if command.exit_code is None else int(command.exit_code)


def may_pass(exc: BaseException) -> bool:
    """Whether it is a failure of what is between us and the sandbox. The SDK hides statuses in causes."""
    one: BaseException | None = exc
    while one is not None:
        status = status_of(one)
        if status is not None:
            return status >= 500 or status in PASSING
        one = one.__cause__ or one.__context__
    return is_a(exc, "DaytonaError", "ClientError", "OSError", "TimeoutError")


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer to something that may be asked twice, although one or two answers are lost."""
    for pause_s in PAUSES_S[:3]:
        try:
            return await ask()
        except Exception as exc:
            if not may_pass(exc):
                raise
        await asyncio.sleep(pause_s)
    return await ask()


async def make_session(sandbox: AsyncSandbox, session_id: str) -> None:
    """Make a session of a name that is free. One that is there without a command is ours to use: the answer
    to whoever made it was lost. Raises what the SDK raises.
    """
    try:
        await patiently(lambda: sandbox.process.create_session(session_id))
    except Exception as exc:
        if status_of(exc) != 409:
            raise
        session = await patiently(lambda: sandbox.process.get_session(session_id))
        if session.commands:
            raise


async def end_session(sandbox: AsyncSandbox, session_id: str) -> None:
    """End a session with all that runs in it. That it can not be reached is no failure of who used it."""
    for _ in range(END_ATTEMPTS):
        try:
            await asyncio.wait_for(sandbox.process.delete_session(session_id), END_TIMEOUT_S)
            return
        except Exception as exc:
            if status_of(exc) == 404:
                return
            log.warning("session %s was not ended: %s", session_id, exc or type(exc).__name__)
        await asyncio.sleep(PAUSES_S[0])


async def tidied(work: Awaitable[Any]) -> None:
    """Tidy up after something that has ended well or not; also when we are cancelled, and whatever fails."""
    with suppress(Exception):
        await asyncio.shield(work)
