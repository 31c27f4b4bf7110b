"""One request on its way: what is known of it, and how what arrives is read. No socket is opened here.

The link reads the same execution from two sources, the interpreter's socket and the agent's spool; both
readers feed one receiver, which takes each line once.
"""

from __future__ import annotations

import asyncio
import enum
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import payload, wire
from .errors import DaytonaKernelError
from .toolbox import Toolbox, hedged

log = logging.getLogger(__name__)

MIB = wire.MAX_MESSAGE_BYTES // 2**20
SILENCE_MIN_S, SILENCE_MAX_S = 1.0, 30.0
"""How long a part of the spool may stay away once the spool has been listed: a call that the network has
swallowed must not hold up what comes after it. Twice as long after each failure."""
LEFT_OUT = f"\n[daytona-kernel: an output was left out: more than {MIB} MiB, or damaged]\n"
PIECE_BYTES = 1024 * 1024
"""Bytes of the spool in one call, so that a slow line gets on within a call's time."""


GIVEN_UP = ("context canceled", "context deadline exceeded")
"""Words of proxies written in Go for a request that they gave up. The interpreter may well have it."""


class Close(enum.Enum):
    """What a socket's end means for the execution."""

    FINISHED = enum.auto()
    WORKER_DIED = enum.auto()
    INTERRUPTED = enum.auto()
    REFUSED = enum.auto()
    AGENT_MISSING = enum.auto()
    LOST = enum.auto()


def classify_close(code: int | None, reason: str) -> Close:
    """Read a close code of the interpreter (table in Daytona's toolbox, observed on v0.190.0)."""
    if code == 1000:
        return Close.FINISHED
    if code == 1001 and "worker process ended" in reason:
        return Close.WORKER_DIED
    if code == 4008:
        return Close.INTERRUPTED
    if code in (1008, 1011) and "context" in reason and not reason.rstrip(".").endswith(GIVEN_UP):
        return Close.REFUSED
    return Close.LOST


class ContextLost(DaytonaKernelError):
    """The context, or the agent in it, is not there any more.

    ``started``: whether the request had begun. ``died``: the process is dead. ``unknown``: the request may
    have begun, and nobody can tell.
    """

    internal = True

    def __init__(self, message: str, *, started: bool, died: bool = False, unknown: bool = False) -> None:
        super().__init__(message)
        self.started = started
        self.died = died
        self.unknown = unknown


@dataclass
class Execution:
    """One request on its way: what to send, where its frames go, and what is known of it."""

    request: dict[str, Any]
    on_frame: Callable[[wire.Frame], None]
    on_text: Callable[[str, str], None] = lambda name, text: None
    on_connection: Callable[[bool], None] = lambda connected: None
    previous: Execution | None = None
    """The cell before, whose late output may come first on this execution's socket."""
    code: str | None = None
    """Source to send instead of the plain request: a context's first execution brings the agent along."""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    result: dict[str, Any] | None = None
    has_started: asyncio.Event = field(default_factory=asyncio.Event)
    sent: int = 0
    """How many copies may have left this side."""
    connected: bool | None = None
    """``False`` while a lost connection is being got back, ``None`` before there was any trouble."""

    def __post_init__(self) -> None:
        self.receiver = wire.Receiver(self.id)

    @property
    def id(self) -> str:
        """The id that makes sending it twice harmless."""
        return str(self.request["id"])

    @property
    def started(self) -> bool:
        """Whether the agent has begun to serve the request."""
        return self.has_started.is_set()

    def set_connected(self, connected: bool) -> None:
        """Note that the connection is lost, or there again; whoever listens hears of changes only."""
        if connected is not self.connected and not (connected and self.connected is None):
            self.connected = connected
            self.on_connection(connected)

    def feed(self, line: wire.Line) -> None:
        """Take a line from the socket or from the spool. Raises :class:`wire.Gap`."""
        if self.previous is not None and line.execution_id == self.previous.id:
            self.previous.feed_over_gap(line)
            return
        dropped = self.receiver.dropped
        frame = self.receiver.feed(line)
        if frame is None:
            if self.receiver.dropped > dropped:
                self.on_text("stderr", LEFT_OUT)
            return
        self.has_started.set()
        if frame.type == "done":
            self.result = frame.content
            self.done.set()
        elif frame.type != "ready":
            self.on_frame(frame)

    def feed_over_gap(self, line: wire.Line) -> None:
        """Take a line after which nothing older can come; say so if some are missing."""
        try:
            self.feed(line)
        except wire.Gap as gap:
            lost = gap.got - gap.expected
            self.on_text("stderr", f"\n[daytona-kernel: {lost} blocks of output were lost]\n")
            self.receiver.next_number = gap.got
            self.feed(line)

    def resend_code(self) -> str:
        """Source for a further copy, which asks for the lines that have not come."""
        if self.code is not None:  # it brings the agent along if that has not come either
            return self.code
        return payload.request_code({**self.request, "from": self.receiver.next_number})


class SocketReader:
    """Reads the interpreter's chunks of one socket into an execution."""

    def __init__(
        self,
        execution: Execution,
        acknowledge: Callable[[Execution, int], None],
        *,
        over_gaps: bool = False,
    ) -> None:
        """``over_gaps``: what is missing here is missing for good; else it raises :class:`wire.Gap`."""
        self._execution = execution
        self._acknowledge = acknowledge
        self._feed = execution.feed_over_gap if over_gaps else execution.feed
        self._splitter = wire.Splitter()
        self.agent_missing = False
        self.heard = False

    def feed(self, chunk: str | bytes) -> None:
        """Take one chunk: a JSON object with ``type`` and ``text``; anything else is ignored."""
        self.heard = True
        try:
            message = json.loads(chunk)
            kind, text = message["type"], message["text"]
        except (ValueError, KeyError, TypeError, RecursionError):
            log.debug("a chunk of the interpreter is not understood (%d bytes)", len(chunk))
            return
        if kind == "stdout" and isinstance(text, str):
            for item in self._splitter.feed(text):
                self._take(item)
            self._acknowledge(self._execution, len(chunk))
        elif kind == "stderr" and isinstance(text, str):
            self._execution.on_text("stderr", text)
        elif kind == "error":
            self._error(message)

    def finish(self) -> None:
        """The socket has ended: show what is left over."""
        for item in self._splitter.finish():
            self._take(item)

    def _take(self, item: wire.Line | wire.Text) -> None:
        if isinstance(item, wire.Text):
            self._execution.on_text("stdout", item.text)
        else:
            self._feed(item)

    def _error(self, message: dict[str, Any]) -> None:
        """An error outside of the agent: it is missing, or could not start."""
        name, value = message.get("name"), message.get("value")
        if name == "NameError" and payload.ENTRY in str(value):
            self.agent_missing = True
        else:
            self._execution.on_text("stderr", f"{name}: {value}\n")


class SpoolReader:
    """Reads the agent's files of one execution, segment by segment, from where the last read ended."""

    def __init__(self, toolbox: Toolbox, directory: str, execution: Execution, position: Any = None) -> None:
        """``position``: segment and byte to begin at, as the agent gave it; else the beginning."""
        self._toolbox = toolbox
        self._directory = directory
        self._execution = execution
        self._segment: int | None = None
        self._offset = 0
        if isinstance(position, list) and len(position) == 2 and all(type(n) is int for n in position):
            self._segment, self._offset = position
        self._splitter = wire.Splitter()
        self._silence_s = SILENCE_MIN_S
        self.recorded = False
        """Whether the directory of recordings is there."""
        self.found = False
        """Whether it has, or had, a recording of this execution."""

    async def read(self) -> bool:
        """Feed what is new; whether there was anything. Raises what the toolbox raises."""
        files = await hedged(self._list) if self._directory else None
        if files is None:  # no such directory; or this is a proxy's 404, and the sandbox itself is gone
            await hedged(self._toolbox.version)
            return False
        self.recorded = True
        prefix = self._execution.id + "."
        sizes = {
            int(n[len(prefix) :]): s
            for n, s in files.items()
            if n.startswith(prefix) and n[len(prefix) :].isdigit()
        }
        if not sizes:
            return False
        self.found = True
        if self._segment is None or self._segment not in sizes:
            self._segment, self._offset = min(sizes), 0
        new = False
        for segment in sorted(s for s in sizes if s >= self._segment):
            if segment != self._segment:
                # the one before is complete now; it may have grown after it was listed
                new = await self._read_segment(self._segment) or new
                self._segment, self._offset = segment, 0
            if sizes[segment] > self._offset:
                new = await self._read_segment(segment) or new
        return new

    async def _list(self) -> dict[str, int] | None:
        return await self._toolbox.list_files(self._directory)

    async def _read_segment(self, segment: int) -> bool:
        path = f"{self._directory}/{self._execution.id}.{segment}"
        new = False
        while True:
            silence_s, self._silence_s = self._silence_s, min(self._silence_s * 2, SILENCE_MAX_S)
            data = await self._toolbox.download(path, self._offset, PIECE_BYTES, silence_s=silence_s)
            self._silence_s = SILENCE_MIN_S
            if data:
                new = True
                self._offset += len(data)
                for item in self._splitter.feed(data.decode("ascii", "replace")):
                    if isinstance(item, wire.Line):
                        self._execution.feed_over_gap(item)
            if not data or len(data) < PIECE_BYTES:
                return new
