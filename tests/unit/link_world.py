"""A sandbox, its daemon and the network to it, as a model on a virtual clock: no socket, no thread, no wait.

What is modelled is what the link can see. The agent serves an id once, records each line before it sends
it, waits when too much is not acknowledged, and trims what is. The daemon serves one execution at a time,
also those of sockets that are gone, and drops output that nobody listens to. The network is up, refuses, or
is dark; a socket is open, paused (its bytes come later), swallowed (they never do) or closed.
"""

from __future__ import annotations

import ast
import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from websockets.exceptions import ConnectionClosedError

from daytona_kernel import wire
from daytona_kernel.errors import ConnectionFailed

SPOOL = "/spool"
LATENCY_S = 0.02
"""One way."""
WINDOW = 12
"""Lines that may be on their way without an acknowledgement."""
SEGMENT = 4
"""Lines in one file of a recording."""
ACK_PATIENCE_S = 15.0

T = TypeVar("T")
Network = Literal["up", "refused", "dark"]


# -- the agent -----------------------------------------------------------------------------------------


@dataclass
class Track:
    """One execution as the agent has it; `lines` is also the truth that tests compare with."""

    id: str
    lines: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    """What the cell has printed, in order."""
    trimmed: int = 0
    """Segments that are removed."""
    recorded: bool = True

    def add(self, frame: wire.Frame) -> str:
        (line,) = wire.encode(frame, len(self.lines))
        self.lines.append(line)
        return line

    def trim(self, number: int) -> None:
        while (self.trimmed + 1) * SEGMENT < len(self.lines) and (self.trimmed + 1) * SEGMENT <= number:
            self.trimmed += 1

    def kept(self, number: int) -> list[str]:
        return self.lines[max(number, self.trimmed * SEGMENT) :] if self.recorded else []

    def files(self) -> dict[str, str]:
        if not self.recorded:
            return {}
        count = max(1, -(-len(self.lines) // SEGMENT))
        return {
            f"{self.id}.{index}": "".join(self.lines[index * SEGMENT : (index + 1) * SEGMENT])
            for index in range(self.trimmed, count)
        }


class Context:
    """A worker with its agent, and the queue of the daemon before it."""

    def __init__(self, world: World, context_id: str) -> None:
        self.world = world
        self.id = context_id
        self.alive = True
        self.exists = True
        self.tracks: dict[str, Track] = {}
        self.ack: tuple[str, int] = ("", 0)
        self.last: Track | None = None
        self.before: Track | None = None
        """The cell before the last, whose recording is kept for who lost what was sent of it."""
        self.current: Track | None = None
        self._queue: deque[tuple[Channel, dict[str, Any]]] = deque()
        self._socket: Channel | None = None
        self._backlog: deque[wire.Frame] = deque()
        self._unacknowledged: deque[int] = deque()
        self._detached = False
        self.ending = False
        """Whether the running cell has come to its end, which may have to wait for the window."""
        self._timer: asyncio.TimerHandle | None = None

    def submit(self, channel: Channel, message: dict[str, Any]) -> None:
        """A request has arrived on a socket."""
        if message["contextId"] != self.id or not self.exists:
            channel.server_close(1008, "context not found: " + message["contextId"])
            return
        last = ast.parse(message["code"]).body[-1]
        assert isinstance(last, ast.Expr)
        assert isinstance(last.value, ast.Call)
        self._queue.append((channel, json.loads(ast.literal_eval(last.value.args[0]))))
        self._serve()

    def _serve(self) -> None:
        while self.alive and self.current is None and self._queue:
            channel, request = self._queue.popleft()
            self._socket = channel
            if request["id"] in self.tracks:
                self._resend(request)
                channel.server_close(1000, "")
            else:
                self._begin(request)

    def _begin(self, request: dict[str, Any]) -> None:
        late_from = request.get("late_from")
        if self.before is not None:
            self.before.recorded = False
        if self.last is not None and late_from is not None:
            self._send(self.last.kept(late_from))
        self.before = self.last
        self.current = self.last = self.tracks[request["id"]] = Track(request["id"])
        self._unacknowledged.clear()
        self._detached = self.ending = False
        self._post(wire.Frame(request["id"], "ready", {"token": "t"}))

    def _resend(self, request: dict[str, Any]) -> None:
        if self.last is None:
            return
        late_from = request.get("late_from")
        if self.before is not None and late_from is not None:
            self._send(self.before.kept(late_from))
        self._send(self.last.kept(request.get("from", 0)))

    def _send(self, lines: list[str]) -> None:
        if self._socket is not None:
            for line in lines:
                self._socket.server_send(line)

    def print(self, text: str) -> None:
        """The cell prints, or after it a thread of it does."""
        track = self.last
        assert track is not None
        track.texts.append(text)
        frame = wire.Frame(track.id, "stream", {"name": "stdout", "text": text})
        if self.current is None:
            track.add(frame)
        else:
            self._post(frame)

    @property
    def may_print_late(self) -> bool:
        """Whether there is a cell that is over, and a process whose threads may print."""
        return self.alive and self.last is not None and self.current is None

    def finish(self) -> None:
        """The cell ends."""
        assert self.current is not None
        self.ending = True
        content = {"reply": {"status": "ok", "id": self.current.id}, "state": {}}
        self._post(wire.Frame(self.current.id, "done", content))

    def die(self) -> None:
        """The worker dies: who listens hears of it, and the context serves nothing any more."""
        self.alive = False
        self._stop("worker process ended")

    def delete(self) -> None:
        """Somebody deletes the context."""
        self.alive = self.exists = False
        self._stop("context shutdown")
        while self._queue:
            self._queue.popleft()[0].server_close(1001, "context shutdown")

    def _stop(self, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.current = None
        self._backlog.clear()
        if self._socket is not None:
            self._socket.server_close(1001, reason)

    def acknowledge(self, execution_id: str, number: int) -> None:
        self.ack = (execution_id, number)
        self._pump()

    def _post(self, frame: wire.Frame) -> None:
        self._backlog.append(frame)
        self._pump()

    def _pump(self) -> None:
        """Record and send what waits, as far as the window allows."""
        while (track := self.current) is not None and self._backlog:
            if self.ack[0] == track.id:
                track.trim(self.ack[1])
                while self._unacknowledged and self._unacknowledged[0] < self.ack[1]:
                    self._unacknowledged.popleft()
            if len(self._unacknowledged) < WINDOW // 2:
                self._detached = False
            if len(self._unacknowledged) >= WINDOW and not self._detached:
                if self._timer is None:
                    self._timer = self.world.loop.call_later(ACK_PATIENCE_S, self._detach)
                return
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            frame = self._backlog.popleft()
            self._unacknowledged.append(len(track.lines))
            self._send([track.add(frame)])
            if frame.type == "done":
                self.current, self.ending = None, False
                if self._socket is not None:
                    self._socket.server_close(1000, "")
                self._serve()

    def _detach(self) -> None:
        self._timer = None
        self._detached = True
        self.world.detached += 1
        self._pump()

    def files(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for track in self.tracks.values():
            found |= track.files() if track in (self.last, self.before) else {}
        return found


# -- the network ---------------------------------------------------------------------------------------


class Channel:
    """What the link uses of a socket, and the daemon's end of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.close_code: int | None = None
        self.close_reason: str | None = None
        self.spoke = asyncio.Event()
        self.transport = self
        self.fate: Literal["open", "paused", "swallowed", "closed"] = "open"
        self._inbox: asyncio.Queue[str | None] = asyncio.Queue()
        self._server_gone = False
        self._flying: deque[Callable[[], None]] = deque()
        self._held: list[Callable[[], None]] = []
        self._closed = asyncio.Event()

    @property
    def is_open(self) -> bool:
        return self.close_code is None

    # The link's side.

    async def send(self, message: str) -> None:
        if not self.is_open:
            raise ConnectionClosedError(None, None)
        self._carry(lambda: self.world.arrive(self, json.loads(message)))

    async def __aiter__(self) -> AsyncIterator[str]:
        while (chunk := await self._inbox.get()) is not None:
            yield chunk
        if self.close_code not in (1000, 1001):
            raise ConnectionClosedError(None, None)

    async def is_silent(self, within_s: float) -> bool:
        if not self.is_open:
            raise ConnectionClosedError(None, None)
        self.spoke.clear()
        if not self._server_gone and self.world.listens_to(self):
            self._carry(lambda: self._carry(self.spoke.set))
        try:
            await asyncio.wait_for(self.spoke.wait(), within_s)
        except asyncio.TimeoutError:
            return True
        return False

    def abort(self) -> None:
        self.break_off()

    async def wait_closed(self) -> None:
        await self._closed.wait()

    async def close(self) -> None:
        self.break_off()

    # The daemon's side.

    def server_send(self, text: str) -> None:
        """Send a line in two chunks, as the daemon may."""
        if self._server_gone:
            return
        half = len(text) // 2
        for piece in (text[:half], text[half:]):
            chunk = json.dumps({"type": "stdout", "text": piece})
            self._carry(lambda chunk=chunk: self._hear(chunk))  # type: ignore[misc]

    def server_close(self, code: int, reason: str) -> None:
        if not self._server_gone:
            self._server_gone = True
            self._carry(lambda: self._end(code, reason))

    # The network's.

    def _carry(self, deliver: Callable[[], None]) -> None:
        self._flying.append(deliver)
        self.world.loop.call_later(LATENCY_S, self._land)

    def _land(self) -> None:
        self._arrive(self._flying.popleft())  # timers of one moment come in any order

    def _arrive(self, deliver: Callable[[], None]) -> None:
        if self.fate == "open":
            deliver()
        elif self.fate == "paused":
            self._held.append(deliver)

    def _hear(self, chunk: str) -> None:
        self.spoke.set()
        self._inbox.put_nowait(chunk)

    def _end(self, code: int, reason: str) -> None:
        if self.fate != "closed":
            self.fate = "closed"
            self.close_code, self.close_reason = code, reason
            self._inbox.put_nowait(None)
            self._closed.set()

    def break_off(self) -> None:
        """A reset: both sides notice."""
        self._server_gone = True
        self._held.clear()
        self._end(1006, "")

    def pause(self) -> None:
        if self.fate == "open":
            self.fate = "paused"

    def swallow(self) -> None:
        if self.fate in ("open", "paused"):
            self.fate = "swallowed"
            self._held.clear()

    def resume(self) -> None:
        if self.fate == "paused":
            self.fate = "open"
            held, self._held = self._held, []
            for deliver in held:
                self._arrive(deliver)


class ModelToolbox:
    """What the link uses of the toolbox."""

    def __init__(self, endpoint: World) -> None:
        self.endpoint = endpoint

    async def close(self) -> None:
        pass

    def renew(self) -> None:
        pass

    async def version(self) -> str:
        return await self._call(lambda: "0.190.0", 10)

    async def list_files(self, path: str) -> dict[str, int] | None:
        assert path == SPOOL
        world = self.endpoint
        return await self._call(lambda: {name: len(text) for name, text in world.context.files().items()}, 10)

    async def download(
        self, path: str, offset: int = 0, most: int | None = None, *, silence_s: float = 30
    ) -> bytes | None:
        def read() -> bytes | None:
            text = self.endpoint.context.files().get(path.removeprefix(SPOOL + "/"))
            return None if text is None else text.encode()[offset:][:most]

        return await self._call(read, silence_s)

    async def upload(self, path: str, data: bytes, timeout_s: float = 30) -> None:
        execution_id, number, end = data.decode().split(" ")
        assert (path, end) == (SPOOL + "/ack", "\n")
        await self._call(lambda: self.endpoint.acknowledge(execution_id, int(number)), timeout_s)

    async def shell(self, script: str, timeout_s: int = 20) -> tuple[int, str]:
        assert script.startswith("kill -0 ")
        return await self._call(lambda: (0 if self.endpoint.context.alive else 1, ""), timeout_s)

    async def _call(self, act: Callable[[], T], timeout_s: float) -> T:
        """A request and its answer; either may be lost."""
        await self.endpoint.travel(timeout_s)
        result = act()
        await self.endpoint.travel(timeout_s)
        return result


class World:
    """All of it: the context, the network, and the sockets that were ever opened."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.network: Network = "up"
        self.contexts = 0
        self.context = Context(self, "c0")
        self.channels: list[Channel] = []
        self.detached = 0
        self.on_acknowledged: Callable[[str, int], None] = lambda execution_id, number: None

    def renew_context(self) -> None:
        self.contexts += 1
        self.context = Context(self, f"c{self.contexts}")

    async def travel(self, timeout_s: float) -> None:
        """One way through the network. Raises `ConnectionFailed`."""
        await asyncio.sleep(LATENCY_S)
        if self.network == "refused":
            raise ConnectionFailed("refused")
        if self.network == "dark":
            await asyncio.sleep(timeout_s)
            raise ConnectionFailed("no answer")

    async def open_channel(self, endpoint: World) -> Channel:
        assert endpoint is self
        await self.travel(10)
        await self.travel(10)
        channel = Channel(self)
        self.channels.append(channel)
        return channel

    def arrive(self, channel: Channel, message: dict[str, Any]) -> None:
        self.context.submit(channel, message)

    def listens_to(self, channel: Channel) -> bool:
        """Whether the daemon answers pings there: not on a socket whose execution waits (v0.190.0)."""
        return self.context._socket is channel

    def acknowledge(self, execution_id: str, number: int) -> None:
        self.on_acknowledged(execution_id, number)
        self.context.acknowledge(execution_id, number)

    @property
    def open_channels(self) -> list[Channel]:
        return [channel for channel in self.channels if channel.fate != "closed"]
