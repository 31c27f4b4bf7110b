"""The request that a session serves right now, the cell before it, and what the person is told meanwhile."""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from . import wire
from .errors import DaytonaKernelError
from .execution import Execution, SpoolReader
from .outflow import Outflow
from .toolbox import Toolbox

log = logging.getLogger(__name__)

Content = dict[str, Any]

CONNECTION_STATUS_S = 3.0
WAITING_TEXT = "The sandbox does not answer; the cell is not sent yet. Connecting …"
LOST_TEXT = "The connection to the sandbox is lost; the cell goes on there. Reconnecting …"
LATE_POLL_MIN_S, LATE_POLL_MAX_S = 0.2, 3.0
LATE_FAILED_MAX_S = 60.0
"""While nothing answers: the sandbox may have stopped, and some kinds are started again by who asks them."""


class Sink(Protocol):
    """Where a request's output goes. Called on the session's thread; must not block."""

    def publish(self, type: str, content: Content, metadata: Content, buffers: tuple[bytes, ...]) -> None:
        """Send an IOPub message with the request's parent header."""

    def status(self, text: str | None) -> None:
        """Show the person what is being waited for; ``None``: it is over."""

    def notice(self, text: str) -> None:
        """Tell the person something that must not be missed, in the cell."""

    def ask(self, prompt: str, password: bool, cancelled: threading.Event) -> str | None:
        """Ask the front end for a line; called on a thread of its own. ``None`` if ``cancelled``."""


class Sinks:
    """The sinks of the last requests: what a task of an earlier cell prints belongs to that cell."""

    KEPT = 1000

    def __init__(self) -> None:
        self._by_id: dict[str, Sink] = {}

    def add(self, parent: Content, sink: Sink) -> None:
        """Remember the sink of a request by its message id."""
        message_id = (parent.get("header") or {}).get("msg_id")
        if message_id:
            self._by_id[message_id] = sink
            if len(self._by_id) > self.KEPT:
                del self._by_id[next(iter(self._by_id))]

    def get(self, message_id: str, default: Sink) -> Sink:
        """The sink of that request. The sandbox may name anything: what is not known goes to ``default``."""
        return self._by_id.get(message_id, default)


class Aside:
    """Requests beside a cell that awaits: uploaded as numbered files, which the agent looks for."""

    def __init__(self, execution_id: str) -> None:
        self._execution_id = execution_id
        self._waiting: dict[int, asyncio.Future[bool]] = {}
        self._count = 0

    async def send(self, toolbox: Toolbox, spool: str, request: Content) -> bool:
        """Whether the cell has served the request; if not, it has ended without."""
        number = self._count
        self._count += 1
        served: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[number] = served
        path = f"{spool}/aside-{self._execution_id}-{number}"
        data = wire.dumps(request).encode() + b"\n"
        for delay in (0.2, 1.0, 0.0):
            try:
                await toolbox.upload(path, data)
                break
            except DaytonaKernelError as exc:
                log.warning("a message beside the cell did not get through: %s", exc)
                await asyncio.sleep(delay)
        return await served

    def served(self, number: Any) -> None:
        """The agent has served that request."""
        future = self._waiting.pop(number, None) if type(number) is int else None
        if future is not None and not future.done():
            future.set_result(True)

    def close(self) -> None:
        """The cell has ended; what it has not served by now it never will."""
        for future in self._waiting.values():
            if not future.done():
                future.set_result(False)
        self._waiting.clear()


@dataclass
class Running:
    """The request that is being served right now."""

    sink: Sink
    execution: Execution | None = None
    interrupts: int = 0
    sent: int = 0
    """How many of the interrupts have been passed on to the sandbox."""
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)
    input_cancelled: threading.Event = field(default_factory=threading.Event)
    outflow: Outflow | None = None
    """The way of its output to the sink."""
    dropped: int = 0
    """How many of its messages were none."""
    aside: Aside | None = None
    """Where comm messages go while the cell awaits."""


class LateOutput:
    """What threads, tasks and children print after their cell: fetched from the spool while nothing runs.

    No socket is open between cells, so it is polled, more and more seldom while nothing comes.
    """

    def __init__(self, execution: Execution, sink: Sink) -> None:
        self.execution = execution
        self.sink = sink
        self._task: asyncio.Task[None] | None = None

    def start(self, toolbox: Toolbox, spool: str, position: Any) -> None:
        """Begin to poll. ``position``: segment and byte where the cell's recording ended."""
        reader = SpoolReader(toolbox, spool, self.execution, position)
        self._task = asyncio.ensure_future(self._poll(reader))

    async def stop(self) -> int:
        """Stop polling before the next request; the number of the first line that has not come."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return self.execution.receiver.next_number

    async def _poll(self, reader: SpoolReader) -> None:
        delay = LATE_POLL_MIN_S
        while True:
            await asyncio.sleep(delay)
            try:
                new = await reader.read()
            except DaytonaKernelError:
                delay = min(delay * 2, LATE_FAILED_MAX_S)
            else:
                delay = LATE_POLL_MIN_S if new else min(delay * 1.5, LATE_POLL_MAX_S)


class ConnectionStatus:
    """Tells the person of a lost connection once it has lasted, and takes the words back."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._timer: asyncio.TimerHandle | None = None
        self._clear: Callable[[], None] | None = None

    def set(self, connected: bool) -> None:
        """The link has lost the connection, or has it again."""
        if connected:
            self._end()
        elif self._timer is None and self._clear is None:
            self._timer = asyncio.get_running_loop().call_later(CONNECTION_STATUS_S, self._show)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._clear is not None:
            self._clear()
            self._clear = None

    def _show(self) -> None:
        self._timer = None
        transient = {"display_id": f"daytona-{uuid.uuid4().hex}"}

        def publish(type: str, text: str) -> None:
            content = {"data": {"text/plain": text}, "metadata": {}, "transient": transient}
            self._running.sink.publish(type, content, {}, ())

        execution = self._running.execution
        publish("display_data", LOST_TEXT if execution is not None and execution.sent else WAITING_TEXT)
        self._clear = lambda: publish("update_display_data", "")
