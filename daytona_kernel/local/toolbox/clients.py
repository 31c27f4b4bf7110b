"""The daemon's side of one execute socket: a bounded queue of frames and a task that writes them."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from aiohttp import WSMsgType, web

QUEUE_FRAMES = 1024
"""Frames that may wait for a client (v0.190.0)."""
GRACE = 0.25
"""Seconds that a full queue may stay full; the worker waits meanwhile. The real daemon gives none (quirk
``strict-queue``), but there the reader has a machine of its own."""
SLOW_CLOSE = 5.0
"""Seconds a slow consumer has to take what was queued and the close frame; then the connection is cut
(v0.190.0)."""
WRITE_DEADLINE = 10.0
"""Seconds that one write to a client may block before the connection is cut (v0.190.0)."""

SLOW_CONSUMER = "slow consumer"


class Client:
    """One execute socket after its first message.

    Frames given to :meth:`push` are written in order. Exactly one of :meth:`finish`, :meth:`overflow` (when
    nothing moves) and :meth:`abort` ends it; what comes later is dropped without a word, as the real daemon
    does.
    """

    def __init__(self, ws: web.WebSocketResponse, request: web.Request, *, strict: bool = False) -> None:
        self._strict = strict
        self._ws = ws
        self._transport = request.transport
        self._frames: deque[str] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._ending: tuple[int, str] | None = None
        self._busy_since: float | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._reader: asyncio.Task[None] | None = None
        self._writer = asyncio.create_task(self._write())
        self._gone = False

    @property
    def listening(self) -> bool:
        """Whether frames still have somewhere to go."""
        return not self._gone and self._ending is None and not self._ws.closed

    def push(self, frame: str) -> bool:
        """Queue *frame*; ``False`` if the queue is full (then call :meth:`overflow` and push again)."""
        if not self.listening:
            return True
        if len(self._frames) >= QUEUE_FRAMES:
            return False
        self._frames.append(frame)
        self._wake.set()
        return True

    async def overflow(self) -> None:
        """Wait until a full queue has room again or the client has been given up as a slow consumer.

        A consumer is slow when nothing at all moved for :data:`GRACE` seconds; a *strict* one as soon as its
        queue is full. It then has :data:`SLOW_CLOSE` seconds to take what was queued and a close with 1008;
        whoever still does not read is cut off (the client sees 1006).
        """
        await asyncio.sleep(0)  # the writer may not have had a turn since the flood began
        if len(self._frames) < QUEUE_FRAMES:
            return
        self._room.clear()
        if not self._strict:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._room.wait(), GRACE)
                return
        self.finish(1008, SLOW_CONSUMER)
        await asyncio.wait({self._writer}, timeout=SLOW_CLOSE)
        self.abort()

    def finish(self, code: int, reason: str = "") -> None:
        """Close with *code* and *reason* once everything queued has been written."""
        if self._ending is None and not self._gone:
            self._ending = (code, reason)
            self._wake.set()

    def abort(self) -> None:
        """Cut the connection; the client sees 1006. Does nothing if it has been closed properly."""
        self.leave()
        if not self._writer.done():
            self._writer.cancel()
            if self._transport is not None:
                self._transport.abort()

    def leave(self) -> None:
        """Drop what is queued and all that follows: there is no client any more."""
        self._gone = True
        self._frames.clear()
        self._room.set()
        self._wake.set()

    def listen(self) -> None:
        """From now on answer pings, ignore messages and notice when the client leaves."""
        if not self._writer.done():
            self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while True:
            message = await self._ws.receive()
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                break
        self.leave()

    async def closed(self) -> None:
        """Wait until the closing handshake is over or has been given up."""
        await asyncio.wait({self._writer})

    async def _write(self) -> None:
        try:
            while True:
                while self._frames:
                    await self._send(self._frames.popleft())
                if self._ending is not None or self._gone:
                    break
                self._wake.clear()
                await self._wake.wait()
            if self._ending is not None and not self._gone:
                code, reason = self._ending
                await self._close(code, reason)
        except (ConnectionError, RuntimeError):
            # the client went away in the middle; RuntimeError: "cannot write to closing transport"
            self.leave()
        finally:
            if self._watchdog is not None:
                self._watchdog.cancel()
            if self._reader is not None:
                self._reader.cancel()

    async def _send(self, frame: str) -> None:
        self._watch()
        await self._ws.send_str(frame)
        self._busy_since = None
        self._room.set()

    def _watch(self) -> None:
        """Start the clock of one write."""
        loop = asyncio.get_running_loop()
        self._busy_since = loop.time()
        if self._watchdog is None:
            self._watchdog = loop.call_later(WRITE_DEADLINE, self._check_progress)

    def _check_progress(self) -> None:
        """Cut the connection if the write in progress is past its deadline; else look again later."""
        loop = asyncio.get_running_loop()
        left = WRITE_DEADLINE
        if self._busy_since is not None:
            left -= loop.time() - self._busy_since
        if left <= 0:
            self._watchdog = None
            self.abort()
        else:
            self._watchdog = loop.call_later(left, self._check_progress)

    async def _close(self, code: int, reason: str) -> None:
        data = reason.encode()
        if len(data) > 123:
            # No close frame can carry it; the real daemon's attempt fails and the client sees 1006.
            if self._transport is not None:
                self._transport.abort()
            return
        self._watch()
        if self._reader is not None:
            # aiohttp would drop the connection without waiting for the answer if somebody still received,
            # and a client that then sends anything (a ping) would lose what it has not read yet.
            self._reader.cancel()
            await asyncio.wait({self._reader})
        await self._ws.close(code=code, message=data)
