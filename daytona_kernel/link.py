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
from collections import deque
from contextlib import suppress
from time import time as wall_clock
from typing import TYPE_CHECKING, Any

from . import payload, wire
from .errors import ConnectionFailed, DaytonaKernelError
from .execution import Close, ContextLost, Execution, SocketReader, SpoolReader, classify_close
from .toolbox import Toolbox, hedged

if TYPE_CHECKING:
    from .channel import Channel

log = logging.getLogger(__name__)

REFUSED_PATIENCE_S = 5.0
"""How long a socket may be refused: by then the control plane tells of a sandbox that has stopped."""
OPEN_PATIENCE_S = 10.0
"""How long a network is waited for before the request is given back as not sent."""
REOPEN_S = 2.0
"""How long a new socket may take once the toolbox has answered."""
PING_INTERVAL_S = 1.0
PING_TIMEOUT_S = 1.0
"""After so much silence the toolbox is asked; the socket is given up only if that answers meanwhile."""
READY_CHECK_S = 2.0
READY_CHECK_MAX_S = 60.0
"""How long a request may stay unheard before a copy is sent, four times longer each time. A waiting
execution's socket answers no pings (v0.190.0), so it can not be told from a dead one."""
SILENCE_S = 1.0
"""How long frames may stay away after the spool has shown the first."""
WARM_IDLE_S = 300.0
FAR_S = 0.05
"""An opening that takes longer shows a far sandbox."""
FAR_SOCKETS = 4
"""What is kept open to a far sandbox: opening takes three round trips (TCP, TLS, WebSocket), a short cell
takes one, so that cells which follow each other at once find the next socket open."""
ACK_BYTES = 4 * 1024 * 1024
ACK_CHUNKS = 150
ACK_ATTEMPTS = 60
POLL_MIN_S, POLL_MAX_S = 0.1, 1.0
ALIVE_CHECK_S = 2.0
DECLINED = (1002, 1003, 1007, 1009, 1011)
"""Close codes with which a peer refuses what it was sent (RFC 6455, section 7.4.1): it will again."""
DECLINED_MOST = 5
Moment = tuple[float, float]
"""A time by the steady clock and by the clock on the wall."""
AGAIN_S = 0.1
"""Before the next copy; twice as long after each that was declined."""


class Link:
    """The way into one context. One execution at a time; use it on one event loop only."""

    def __init__(self, toolbox: Toolbox, context_id: str, spool: str = "") -> None:
        self.toolbox = toolbox
        self.context_id = context_id
        self.spool = spool
        self.pid = 0
        """The process of the context, once its agent has told it."""
        self._warm: deque[tuple[asyncio.Task[Channel], Moment]] = deque()
        """Sockets that are open or being opened, oldest first, each with the time when that began."""
        self._opening_s = 0.0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ack_bytes = self._ack_chunks = 0
        self._ack_wanted: tuple[str, int] | None = None
        self._ack_task: asyncio.Task[None] | None = None
        self._closed = False

    # -- life --------------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Open the next execution's socket ahead of time, and those of some more if the sandbox is far."""
        wanted = FAR_SOCKETS if self._opening_s > FAR_S else 1
        while len(self._warm) < wanted and not self._closed:
            opening = asyncio.ensure_future(self._open())
            opening.add_done_callback(_retrieve)
            self._warm.append((opening, (time.monotonic(), wall_clock())))

    async def close(self) -> None:
        """Close the sockets and end the background work. The context itself stays."""
        self._closed = True
        for task in [*self._tasks]:
            task.cancel()
        self._drop_warm()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- executing ---------------------------------------------------------------------------------

    async def run(self, execution: Execution) -> dict[str, Any]:
        """Run a request in the context exactly once; return the content of its ``done``.

        Raises :class:`ConnectionFailed` if it could not be sent at all, and :class:`ContextLost` if the
        context or its agent is gone. A lost connection is no error here: it is waited out for as long as
        the caller waits. Cancelling it leaves the request running in the sandbox.
        """
        channel = await self._take_channel(execution)
        try:
            close = await self._run_on(channel, execution, execution.code)
        finally:
            self._retire(channel)
        if execution.result is None:
            await self._after_end(execution, close, copy=False)
        assert execution.result is not None
        return execution.result

    async def _after_end(self, execution: Execution, close: Close, *, copy: bool) -> None:
        """A socket has ended without the execution's ``done``: get it back, or say what was lost.

        ``copy``: it was not the first socket, so what it says of itself is not said of the request.
        """
        if close is Close.LOST:
            if not copy:
                await self._recover(execution)
            return
        recorded = None if close is Close.REFUSED and not copy else await self._fetch_rest(execution)
        if execution.result is not None:
            return
        again = close in (Close.FINISHED, Close.INTERRUPTED) and execution.started
        if again and not copy:
            await self._recover(execution)
            return
        died = close is Close.WORKER_DIED or (execution.started and await self._worker_is_gone())
        # Nothing has been heard of it, and nobody can say any more what became of its first copy.
        unknown = copy and not execution.started and recorded is None
        raise ContextLost(_LOST[close], started=execution.started, died=died, unknown=unknown)

    async def _run_on(
        self, channel: Channel, execution: Execution, code: str | None, *, copy: bool = False
    ) -> Close:
        """Send ``execution`` over ``channel`` and read until its ``done`` or the socket's end."""
        from websockets.exceptions import ConnectionClosed

        message = {"contextId": self.context_id, "timeout": 0}
        message["code"] = code or payload.request_code(execution.request)
        reader = SocketReader(execution, self._acknowledge, over_gaps=copy)
        watch = asyncio.ensure_future(self._watch(channel, execution, reader))
        watch.add_done_callback(_retrieve)
        execution.sent += 1
        try:
            await channel.send(json.dumps(message))
            async for chunk in channel:
                reader.feed(chunk)
                if execution.result is not None:
                    return Close.FINISHED
            close = classify_close(channel.close_code, channel.close_reason or "")
        except ConnectionClosed:
            close = classify_close(channel.close_code, channel.close_reason or "")
        except (wire.Gap, OSError) as exc:
            log.warning("execution %s: %s", execution.id, exc)
            close = Close.LOST
        finally:
            watch.cancel()
        reader.finish()
        if reader.agent_missing:
            close = Close.AGENT_MISSING
        log.debug("execution %s: socket ended with %s %s", execution.id, channel.close_code, close.name)
        return close

    # -- noticing a dead socket --------------------------------------------------------------------

    async def _watch(self, channel: Channel, execution: Execution, reader: SocketReader) -> None:
        """Give up a socket that is dead without saying so, but only while the toolbox answers.

        As long as nothing answers at all, the socket may come back to life with the network.
        """
        from websockets.exceptions import ConnectionClosed

        patience = min(READY_CHECK_S * 4 ** (execution.sent - 1), READY_CHECK_MAX_S)
        with suppress(ConnectionClosed):
            while True:
                if reader.heard:
                    await asyncio.sleep(PING_INTERVAL_S)
                    silent = await channel.is_silent(PING_TIMEOUT_S)
                else:
                    await self._wait_unheard(execution, reader, patience)
                    channel.spoke.clear()
                    silent = not reader.heard
                if silent and await self._others_answer(channel, execution):
                    log.warning("execution %s: its socket is silent", execution.id)
                    channel.transport.abort()
                    return

    async def _wait_unheard(self, execution: Execution, reader: SocketReader, patience_s: float) -> None:
        """Wait for the first chunk, for not longer than that; less long once the spool shows the request."""
        until = time.monotonic() + patience_s
        while not reader.heard and (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, READY_CHECK_S))
            if not reader.heard and not execution.started and await self._has_begun(execution):
                await asyncio.sleep(SILENCE_S)
                return

    async def _others_answer(self, channel: Channel, execution: Execution) -> bool:
        """Ask the toolbox until it answers (``True``) or the socket speaks (``False``)."""
        looking: asyncio.Future[Any] = asyncio.ensure_future(self._until_answered(execution))
        spoke: asyncio.Future[Any] = asyncio.ensure_future(channel.spoke.wait())
        try:
            await asyncio.wait({looking, spoke}, return_when=asyncio.FIRST_COMPLETED)
            if spoke.done():
                execution.set_connected(True)
            return not spoke.done()
        finally:
            for task in (looking, spoke):
                task.cancel()
            await asyncio.gather(looking, spoke, return_exceptions=True)

    async def _until_answered(self, execution: Execution) -> None:
        notice = asyncio.get_running_loop().call_later(PING_TIMEOUT_S, execution.set_connected, False)
        toolbox = Toolbox(self.toolbox.endpoint)  # connections of the past may be as dead as the socket
        try:
            while True:
                try:
                    await hedged(toolbox.version)
                    return
                except DaytonaKernelError:
                    execution.set_connected(False)
                    await asyncio.sleep(POLL_MAX_S)
        finally:
            notice.cancel()
            await toolbox.close()

    # -- losing and getting back -------------------------------------------------------------------

    async def _recover(self, execution: Execution) -> None:
        """Get the rest of an execution whose socket was lost, however long the network is away."""
        log.warning(
            "execution %s: connection lost after line %d", execution.id, execution.receiver.next_number
        )
        execution.set_connected(False)
        self.toolbox.renew()
        self._drop_warm()
        answered = asyncio.Event()
        toolbox = Toolbox(self.toolbox.endpoint)
        tasks: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(self._poll_spool(toolbox, execution, answered)),
            asyncio.ensure_future(self._send_again(execution, answered)),
            asyncio.ensure_future(execution.done.wait()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if execution.result is None:
                for task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await toolbox.close()
        execution.set_connected(True)
        log.warning("execution %s: recovered", execution.id)

    async def follow(self, execution: Execution) -> None:
        """Read the recording of an execution that somebody else has begun, until it ends.

        Raises :class:`ContextLost` if its process dies. Waits for as long as the network is away.
        """
        toolbox = Toolbox(self.toolbox.endpoint)
        try:
            await self._poll_spool(toolbox, execution, asyncio.Event())
        finally:
            await toolbox.close()

    async def _send_again(self, execution: Execution, answered: asyncio.Event) -> None:
        """Send copies until one of them brings the end."""
        delay = 0.1
        declined = 0
        while not execution.done.is_set():
            try:
                channel = await self._reopen(answered)
            except (ConnectionFailed, OSError):
                delay = min(delay * 1.5, POLL_MAX_S)
                await asyncio.sleep(delay)
                continue
            delay = 0.1
            try:
                close = await self._run_on(channel, execution, execution.resend_code(), copy=True)
            finally:
                self._retire(channel)
            if execution.result is None:
                await self._after_end(execution, close, copy=True)
                declined = declined + 1 if channel.close_code in DECLINED else 0
                if declined >= DECLINED_MOST and not execution.started:
                    await self._give_up_declined(execution, f"{channel.close_code} {channel.close_reason}")
                await asyncio.sleep(AGAIN_S * 2 ** min(declined, 4))

    async def _give_up_declined(self, execution: Execution, words: str) -> None:
        """The interpreter refuses each copy of a request that nothing has been heard of."""
        recorded = await self._fetch_rest(execution)
        if not execution.started:
            text = f"The sandbox's interpreter refuses the cell ({words.strip()})."
            raise ContextLost(text, started=False, unknown=recorded is None)

    async def _reopen(self, answered: asyncio.Event) -> Channel:
        """A new socket; an attempt that began in the dark is given up soon after the toolbox has answered."""
        answered.clear()
        opening: asyncio.Task[Channel] = self._spawn(self._open())
        light = self._spawn(answered.wait())
        taken = False
        try:
            await asyncio.wait({opening, light}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({opening}, timeout=REOPEN_S)
            if not opening.done():
                raise ConnectionFailed("A new socket took too long.")
            taken = True
            return opening.result()
        finally:
            # Nothing is waited for here: whoever is cancelled while he has the socket loses it, still open.
            light.cancel()
            if not taken:
                opening.add_done_callback(_abort)
                opening.cancel()

    async def _poll_spool(self, toolbox: Toolbox, execution: Execution, answered: asyncio.Event) -> None:
        """Read the spool again and again. Raises :class:`ContextLost` once the process is found dead."""
        late, reader = self._readers(toolbox, execution)
        delay = POLL_MIN_S
        checked = time.monotonic()
        while execution.result is None:
            try:
                while late is not None and await late.read():
                    pass
                late = None
                new = await reader.read()
            except DaytonaKernelError:
                execution.set_connected(False)
                new = False
            else:
                answered.set()
                execution.set_connected(True)
                if new:
                    self._acknowledge(execution, 0, force=True)
                elif time.monotonic() - checked > ALIVE_CHECK_S:
                    checked = time.monotonic()
                    await self._check_worker(execution, reader)
            delay = POLL_MIN_S if new else min(delay * 1.5, POLL_MAX_S)
            await asyncio.sleep(delay)

    async def _check_worker(self, execution: Execution, reader: SpoolReader) -> None:
        """A dead worker's context says nothing and serves nothing (wedged, v0.190.0)."""
        if not await self._worker_is_gone():
            return
        with suppress(DaytonaKernelError):
            await reader.read()
        if execution.result is None:
            unknown = not execution.started and not reader.recorded
            raise ContextLost(_LOST[Close.WORKER_DIED], started=execution.started, died=True, unknown=unknown)

    async def _worker_is_gone(self) -> bool:
        """Whether the context's process certainly does not exist any more."""
        if not self.pid:
            return False
        try:
            status, _ = await self.toolbox.shell(f"kill -0 {self.pid}", 5)
        except DaytonaKernelError:
            return False
        return status == 1  # -1: no shell could be started there, or somebody else has answered

    async def _fetch_rest(self, execution: Execution) -> bool | None:
        """Read the spool to its end; whether it has the execution, ``None`` if nobody can tell."""
        late, reader = self._readers(self.toolbox, execution)
        try:
            while late is not None and await late.read():
                pass
            while await reader.read():
                pass
        except DaytonaKernelError as exc:
            log.warning("execution %s: spool not readable: %s", execution.id, exc)
            return None
        return reader.found if reader.recorded else None

    def _readers(self, toolbox: Toolbox, execution: Execution) -> tuple[SpoolReader | None, SpoolReader]:
        """For an execution, and for the cell before, whose late output came first on the lost socket."""
        previous = execution.previous
        late = SpoolReader(toolbox, self.spool, previous) if previous is not None else None
        return late, SpoolReader(toolbox, self.spool, execution)

    async def _has_begun(self, execution: Execution) -> bool:
        if not self.spool:
            return False
        try:
            files = await hedged(lambda: self.toolbox.list_files(self.spool)) or {}
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
        failures = 0
        while (wanted := self._ack_wanted) is not None and failures < ACK_ATTEMPTS:
            self._ack_wanted = None
            data = "{} {} \n".format(*wanted).encode()
            try:
                await hedged(lambda data=data: self.toolbox.upload(f"{self.spool}/ack", data))  # type: ignore[misc]
                failures = 0
            except DaytonaKernelError:  # the cell waits in the sandbox if none gets through
                failures += 1
                self._ack_wanted = self._ack_wanted or wanted
                await asyncio.sleep(POLL_MAX_S)

    # -- sockets -----------------------------------------------------------------------------------

    async def _take_channel(self, execution: Execution) -> Channel:
        """A socket that is open as far as anybody can know: a warm one, or a new one."""
        if self._warm:
            warm, since = self._warm.popleft()
            if self._opening_s > FAR_S:
                self.warm_up()  # it would not be there in time if this waited for the end of the cell
            with suppress(DaytonaKernelError, OSError):
                channel = await asyncio.shield(warm)
                if channel.is_open and _age_s(since) < WARM_IDLE_S:
                    return channel
                self._retire(channel)
            self._drop_warm()  # what happened to one has happened to all
        try:
            return await self._open_patiently(execution)
        finally:
            execution.set_connected(True)

    async def _open_patiently(self, execution: Execution) -> Channel:
        from .channel import Refused

        began = time.monotonic()
        delay = 0.2
        notice = asyncio.get_running_loop().call_later(PING_TIMEOUT_S, execution.set_connected, False)
        try:
            while True:
                try:
                    return await self._open()
                except ConnectionFailed as exc:
                    stays = isinstance(exc, Refused) and not exc.passing
                    if time.monotonic() - began > (REFUSED_PATIENCE_S if stays else OPEN_PATIENCE_S):
                        raise
                await asyncio.sleep(delay)
                delay = min(delay * 2, POLL_MAX_S)
        finally:
            notice.cancel()

    async def _open(self) -> Channel:
        from .channel import open_channel

        began = time.monotonic()
        channel = await open_channel(self.toolbox.endpoint)
        self._opening_s = time.monotonic() - began
        return channel

    def _drop_warm(self) -> None:
        """Close the sockets that wait."""
        while self._warm:
            opening, _ = self._warm.popleft()
            if not opening.cancel() and not opening.cancelled() and opening.exception() is None:
                self._spawn(_close(opening.result()))

    def _retire(self, channel: Channel) -> None:
        """Let a used socket end by itself: the daemon closes it within its 50 ms poll."""
        task = self._spawn(_finish(channel))
        # a task that is cancelled before its first step runs no `finally` either
        task.add_done_callback(lambda _: channel.transport.abort())

    def _spawn(self, coroutine: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


_LOST = {
    Close.FINISHED: "The recorded output of the cell is not there any more.",
    Close.INTERRUPTED: "The recorded output of the cell is not there any more.",
    Close.WORKER_DIED: "The Python process died.",
    Close.REFUSED: "The interpreter context is gone.",
    Close.AGENT_MISSING: "The agent is not in the context any more.",
}


def _age_s(since: Moment) -> float:
    """How long ago that was. One clock stands still while the machine sleeps, the other may be set back."""
    return max(time.monotonic() - since[0], wall_clock() - since[1])


async def _finish(channel: Channel) -> None:
    """Read a socket to its end, at most for a moment, and close it."""
    with suppress(Exception):
        await asyncio.wait_for(channel.wait_closed(), 1.0)
    with suppress(Exception):
        await channel.close()


async def _close(channel: Channel) -> None:
    with suppress(Exception):
        await channel.close()


def _abort(opening: asyncio.Future[Channel]) -> None:
    """Close what a task has opened, if it has."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().transport.abort()


def _retrieve(task: asyncio.Future[Any]) -> None:
    """Mark a background task's exception as seen; whoever takes its result meets it again."""
    if not task.cancelled():
        task.exception()
