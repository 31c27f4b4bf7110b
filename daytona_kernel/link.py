"""One interpreter execution is one WebSocket: sending it, reading it, losing it, and getting it back.

What makes "exactly once" possible: every request has an id, and the agent serves an id once. A copy of the
same request that reaches it later only gets the recorded lines again. So after a loss the link does two
things at a time: it reads the agent's spool through the toolbox, which gives live output while the cell
runs on, and it sends the same request over a new socket, which waits in the interpreter's queue and ends
with whatever is still missing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from . import payload, wire
from .errors import ConnectionFailed, DaytonaKernelError
from .execution import Close, ContextLost, Execution, SocketReader, SpoolReader, classify_close
from .toolbox import Toolbox

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

log = logging.getLogger(__name__)

PATH = "/process/interpreter/execute"
OPEN_TIMEOUT_S = 20.0
PING_INTERVAL_S = 10.0
PING_TIMEOUT_S = 10.0
READY_CHECK_S = 4.0
"""A waiting execution's socket answers no pings (v0.190.0); the spool tells whether it has begun."""
SILENCE_S = 1.0
"""How long frames may stay away after the spool has shown the first."""
WARM_IDLE_S = 300.0
ACK_BYTES = 4 * 1024 * 1024
ACK_CHUNKS = 150
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""The daemon's frames are at most about 6 MiB: 1 MiB of worker line, escaped (v0.190.0)."""
POLL_MIN_S, POLL_MAX_S = 0.1, 1.0


class Link:
    """The way into one context. One execution at a time; use it on one event loop only."""

    def __init__(self, toolbox: Toolbox, context_id: str, spool: str = "") -> None:
        self.toolbox = toolbox
        self.context_id = context_id
        self.spool = spool
        self._warm: asyncio.Task[ClientConnection] | None = None
        self._warm_since = 0.0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ack_bytes = self._ack_chunks = 0
        self._ack_wanted: tuple[str, int] | None = None
        self._ack_task: asyncio.Task[None] | None = None
        self._closed = False

    # -- life --------------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Open the next execution's socket ahead of time."""
        if self._warm is None and not self._closed:
            self._warm = asyncio.ensure_future(self._open())
            self._warm.add_done_callback(_retrieve)
            self._warm_since = time.monotonic()

    async def close(self) -> None:
        """Close the sockets and end the background work. The context itself stays."""
        self._closed = True
        warm, self._warm = self._warm, None
        if warm is not None:
            warm.cancel()
            with suppress(BaseException):
                await (await warm).close()
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- executing ---------------------------------------------------------------------------------

    async def run(self, execution: Execution) -> dict[str, Any]:
        """Run a request in the context exactly once; return the content of its ``done``.

        Raises :class:`ConnectionFailed` if it could not be sent at all, and :class:`ContextLost` if the
        context or its agent is gone. A lost connection is no error here: it is waited out for as long as
        the caller waits. Cancelling it leaves the request running in the sandbox.
        """
        socket = await self._take_socket()
        try:
            close = await self._run_on(socket, execution, execution.code)
        finally:
            self._retire(socket)
        if execution.result is None:
            await self._after_close(execution, close)
        assert execution.result is not None
        return execution.result

    async def _after_close(self, execution: Execution, close: Close) -> None:
        """The socket has ended before the execution's ``done`` came."""
        if close is Close.REFUSED:
            raise ContextLost("The interpreter context is gone.", started=execution.started)
        if close is Close.WORKER_DIED:
            await self._fetch_rest(execution)
            raise ContextLost("The Python process died.", started=execution.started, died=True)
        if close is Close.FINISHED and not execution.started and not await self._fetch_rest(execution):
            raise ContextLost("The interpreter did not run the request.", started=False)
        if execution.result is None:
            await self._recover(execution)

    async def _run_on(self, socket: ClientConnection, execution: Execution, code: str | None) -> Close:
        """Send ``execution`` over ``socket`` and read until its ``done`` or the socket's end."""
        from websockets.exceptions import ConnectionClosed

        message = {"contextId": self.context_id, "timeout": 0}
        message["code"] = code or payload.request_code(execution.request)
        reader = SocketReader(execution, self._acknowledge)
        watch = asyncio.ensure_future(self._watch(socket, execution, reader))
        try:
            await socket.send(json.dumps(message))
            async for chunk in socket:
                reader.feed(chunk)
                if execution.result is not None:
                    return Close.FINISHED
            close = classify_close(socket.close_code, socket.close_reason or "")
        except ConnectionClosed:
            close = classify_close(socket.close_code, socket.close_reason or "")
        except (wire.Gap, OSError) as exc:
            log.warning("execution %s: %s", execution.id, exc)
            close = Close.LOST
        finally:
            watch.cancel()
        reader.finish()
        if reader.agent_missing:
            raise ContextLost("The agent is not in the context any more.", started=execution.started)
        log.debug("execution %s: socket ended with %s %s", execution.id, socket.close_code, close.name)
        return close

    async def _watch(self, socket: ClientConnection, execution: Execution, reader: SocketReader) -> None:
        """Close a socket that is dead without saying so.

        While a request waits in the queue nothing answers pings (v0.190.0), so its spool is asked instead.
        """
        from websockets.exceptions import ConnectionClosed

        with suppress(ConnectionClosed):
            while not reader.heard:
                await asyncio.sleep(READY_CHECK_S)
                if not reader.heard and not execution.started and await self._has_begun(execution):
                    await asyncio.sleep(SILENCE_S)
                    if not reader.heard:
                        log.warning("execution %s has begun but its socket is silent", execution.id)
                        socket.transport.abort()
                        return
            while True:
                await asyncio.sleep(PING_INTERVAL_S)
                try:
                    await asyncio.wait_for(await socket.ping(), PING_TIMEOUT_S)
                except asyncio.TimeoutError:
                    log.warning("execution %s: no answer to a ping", execution.id)
                    socket.transport.abort()
                    return

    # -- losing and getting back -------------------------------------------------------------------

    async def _recover(self, execution: Execution) -> None:
        """Get the rest of an execution whose socket was lost, however long the network is away."""
        log.warning(
            "execution %s: connection lost after line %d", execution.id, execution.receiver.next_number
        )
        execution.on_connection(False)
        poll = asyncio.ensure_future(self._poll_spool(execution))
        again = asyncio.ensure_future(self._send_again(execution))
        done = asyncio.ensure_future(execution.done.wait())
        try:
            await asyncio.wait({again, done}, return_when=asyncio.FIRST_COMPLETED)
            if again.done() and execution.result is None:
                again.result()
        finally:
            for task in (poll, again, done):
                task.cancel()
            await asyncio.gather(poll, again, done, return_exceptions=True)
        execution.on_connection(True)
        log.warning("execution %s: recovered", execution.id)

    async def _send_again(self, execution: Execution) -> None:
        """Send copies until one of them brings the end."""
        delay = 0.1
        while not execution.done.is_set():
            try:
                socket = await self._open()
            except (ConnectionFailed, OSError):
                delay = min(delay * 1.5, POLL_MAX_S)
                await asyncio.sleep(delay)
                continue
            delay = 0.1
            started = execution.started
            try:
                close = await self._run_on(socket, execution, execution.resend_code())
            finally:
                self._retire(socket)
            if execution.done.is_set():
                return
            if close in (Close.REFUSED, Close.WORKER_DIED):
                await self._fetch_rest(execution)
                died = close is Close.WORKER_DIED
                raise ContextLost("The interpreter context is gone.", started=execution.started, died=died)
            if close is Close.FINISHED and not started and not execution.started:
                raise ContextLost("The interpreter did not run the request.", started=False)
            if close is Close.FINISHED and not await self._fetch_rest(execution):
                raise ContextLost("The recorded output of the cell is not there any more.", started=True)

    async def _poll_spool(self, execution: Execution) -> None:
        reader = SpoolReader(self.toolbox, self.spool, execution)
        delay = POLL_MIN_S
        while execution.result is None:
            try:
                new = await reader.read()
                if reader.found:  # a 404 may also come from a proxy whose sandbox is gone
                    execution.on_connection(True)
                if new:
                    self._acknowledge(execution, 0, force=True)
            except DaytonaKernelError:
                execution.on_connection(False)
                new = False
            delay = POLL_MIN_S if new else min(delay * 1.5, POLL_MAX_S)
            await asyncio.sleep(delay)

    async def _fetch_rest(self, execution: Execution) -> bool:
        """Read the spool once; whether it has the execution at all."""
        reader = SpoolReader(self.toolbox, self.spool, execution)
        try:
            while await reader.read():
                pass
        except DaytonaKernelError as exc:
            log.warning("execution %s: spool not readable: %s", execution.id, exc)
        return reader.found

    async def _has_begun(self, execution: Execution) -> bool:
        if not self.spool:
            return False
        try:
            files = await self.toolbox.list_files(self.spool) or {}
        except DaytonaKernelError:
            return False
        return any(name.startswith(execution.id + ".") for name in files)

    # -- acknowledging -----------------------------------------------------------------------------

    def _acknowledge(self, execution: Execution, size: int, *, force: bool = False) -> None:
        """Tell the agent, now and then, what has arrived: its window and its spool depend on it."""
        if not self.spool:
            return
        self._ack_bytes += size
        self._ack_chunks += 1
        if not force and self._ack_bytes < ACK_BYTES and self._ack_chunks < ACK_CHUNKS:
            return
        self._ack_bytes = self._ack_chunks = 0
        self._ack_wanted = (execution.id, execution.receiver.next_number)
        if self._ack_task is None or self._ack_task.done():
            self._ack_task = self._spawn(self._send_acknowledgements())

    async def _send_acknowledgements(self) -> None:
        while self._ack_wanted is not None:
            (execution_id, number), self._ack_wanted = self._ack_wanted, None
            with suppress(DaytonaKernelError):
                await self.toolbox.upload(f"{self.spool}/ack", f"{execution_id} {number} \n".encode())

    # -- sockets -----------------------------------------------------------------------------------

    async def _take_socket(self) -> ClientConnection:
        """A socket that is open as far as anybody can know: the warm one, or a new one."""
        from websockets.protocol import State

        warm, self._warm = self._warm, None
        if warm is not None:
            try:
                socket = await asyncio.shield(warm)
                if socket.state is State.OPEN and time.monotonic() - self._warm_since < WARM_IDLE_S:
                    return socket
                self._retire(socket)
            except (DaytonaKernelError, OSError):
                pass
        for attempt in range(3):
            try:
                return await self._open()
            except ConnectionFailed:
                if attempt == 2:
                    raise
                await asyncio.sleep(0.2 * 3**attempt)
        raise AssertionError("unreachable")

    async def _open(self) -> ClientConnection:
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidHandshake, InvalidStatus

        endpoint = self.toolbox.endpoint
        headers = {**endpoint.headers, "X-Daytona-Skip-Last-Activity-Update": "true"}
        try:
            return await connect(
                endpoint.websocket_url + PATH,
                additional_headers=headers,
                open_timeout=OPEN_TIMEOUT_S,
                ping_interval=None,
                max_size=MAX_MESSAGE_BYTES,
                compression=None,
                proxy=None if endpoint.is_local else True,
                close_timeout=2,
            )
        except InvalidStatus as exc:
            status = exc.response.status_code
            raise ConnectionFailed(
                f"The sandbox refused the interpreter's socket with status {status}."
            ) from exc
        except (OSError, TimeoutError, asyncio.TimeoutError, InvalidHandshake, EOFError) as exc:
            raise ConnectionFailed(f"The sandbox's interpreter could not be reached ({exc}).") from exc

    def _retire(self, socket: ClientConnection) -> None:
        """Let a used socket end by itself: the daemon closes it within its 50 ms poll."""
        task = self._spawn(_finish(socket))
        # a task that is cancelled before its first step runs no `finally` either
        task.add_done_callback(lambda _: socket.transport.abort())

    def _spawn(self, coroutine: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _finish(socket: ClientConnection) -> None:
    """Read a socket to its end, at most for a moment, and close it."""
    with suppress(Exception):
        await asyncio.wait_for(socket.wait_closed(), 1.0)
    with suppress(Exception):
        await socket.close()


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Mark a background task's exception as seen; whoever takes its result meets it again."""
    if not task.cancelled():
        task.exception()
