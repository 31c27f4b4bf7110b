"""A TCP proxy that makes every fault a network can have, on command or by rule, and says what it has seen.

How to use it
=============

Take the fixture ``faulty`` (see ``conftest.py``): a local sandbox server whose toolbox address leads through
a proxy::

    async def test_output_survives_a_reset(faulty):
        # by rule: the second execution is cut after 5000 bytes of output
        faulty.proxy.plan(Plan(down=Cut(after=5000)), path="interpreter/execute", nth=2)
        ...
        # by command, at an event
        socket = await faulty.proxy.opened(path="interpreter/execute")
        await socket.down.passed(10_000)
        socket.reset()

or put a proxy in front of anything else: ``async with FaultProxy(port) as proxy``.

Words: a *connection* has two *pipes*, ``up`` (client to server) and ``down``. Bytes are *seen* when the proxy
has read them and *passed* when it has written them to the other side. Connections are counted from 1 in the
order in which they were accepted; with ``path``, in the order in which requests for it came. A connection's
path is that of its first request (a WebSocket has only one; a pooled HTTP connection may carry others later).

==============================  ==============================================================================
Fault                           How
==============================  ==============================================================================
round trip of 100 ms            ``Plan(delay=0.05)``; no jitter, throughput not limited. Connecting costs a
                                round trip too: the first bytes of a connection are held for it
slow link                       ``Plan(bandwidth=50_000)``, in bytes per second and direction
reset (RST) on both sides       ``connection.reset()``, ``proxy.reset_all()``, ``Cut(after=N)``
orderly end (FIN), both sides   ``connection.finish()``, ``proxy.finish_all()``, ``Cut(after=N,
how="finish")`` silent black hole               ``connection.swallow()``, ``Cut(after=N, how="swallow")``,
``Plan(swallow=True)``;
                                ``proxy.swallow_all()`` also swallows what connects later, until
                                ``proxy.heal()``
cut N bytes from the start      ``Plan(up=Cut(after=N))``, ``Plan(down=Cut(after=N))``
cut N bytes from now            ``connection.up.cut(after=N)``; exactly N bytes pass
stalled reader, back-pressure   ``connection.down.pause()``, ``.resume()``, ``proxy.pause_all()``
reset of each new connection    ``Plan(reset_at_once=True)``
connection refused              ``await proxy.refuse()``, until ``await proxy.accept()``
restart of a proxy on the way   ``await proxy.refuse(); proxy.reset_all(); await proxy.accept()``
server gone                     the same as when it is: a reset of whoever connects
==============================  ==============================================================================
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

READ_BYTES = 256 * 1024
IN_FLIGHT = 8 * 1024 * 1024
"""Bytes that a delayed pipe holds at most, as the buffers of a long line would; then it stops reading."""
REQUEST_LINE = re.compile(rb"[A-Z]+ (\S+) HTTP/1\.[01]\r\n")
MAYBE_REQUEST_LINE = re.compile(rb"[A-Z]{1,10}( [^\r\n]{0,16000}\r?)?")
"""The beginning of a request line, of which more has to come. Other protocols begin otherwise in our
tests.
"""

How = Literal["reset", "finish", "swallow"]


@dataclass(frozen=True)
class Cut:
    """End a connection when exactly `after` bytes have passed in one direction."""

    after: int
    how: How = "reset"


@dataclass(frozen=True)
class Plan:
    """What happens to a connection."""

    delay: float = 0.0
    """Seconds that each byte takes in each direction: half a round trip."""
    bandwidth: float = 0.0
    """Bytes per second in each direction; 0: not limited."""
    up: Cut | None = None
    down: Cut | None = None
    reset_at_once: bool = False
    """The connection is accepted (the system does that) and reset."""
    swallow: bool = False
    """The connection is accepted and nothing comes back, ever."""


@dataclass(eq=False)
class _Rule:
    plan: Plan
    path: str | None
    nth: int | None
    matched: int = 0


class Pipe:
    """One direction of a connection."""

    def __init__(self, connection: Connection, source: socket.socket, sink: socket.socket) -> None:
        self.bytes_seen = 0
        self.bytes_passed = 0
        self.delay = 0.0
        """Seconds between the reading of a byte and its passing on."""
        self.bandwidth = 0.0
        """Bytes per second; 0: not limited."""
        self.hold_until = 0.0
        """Nothing passes before this time of the event loop's clock."""
        self._connection = connection
        self._source = source
        self._sink = sink
        self._cut_at: int | None = None
        self._how: How = "reset"
        self._queue: deque[tuple[float, bytes]] = deque()
        self._held = 0
        self._link_free_at = 0.0
        self._running = asyncio.Event()
        self._running.set()
        self._changed = asyncio.Condition()

    def cut(self, after: int, how: How = "reset") -> None:
        """End the connection when exactly `after` more bytes have passed in this direction."""
        self._cut_at, self._how = self.bytes_passed + after, how
        if after == 0:
            self._connection.end(how)

    def pause(self) -> None:
        """Stop reading from the sender and passing on, both at once (a write that has begun goes on)."""
        self._running.clear()

    def resume(self) -> None:
        """Go on after :meth:`pause`."""
        self._running.set()

    async def seen(self, count: int) -> None:
        """Wait until the proxy has read `count` bytes since the start of the connection.

        ``ConnectionError``: it ended before.
        """
        await self._reached(lambda: self.bytes_seen >= count)

    async def passed(self, count: int) -> None:
        """Wait until `count` bytes have been written to the other side since the start of the connection.

        ``ConnectionError``: it ended before.
        """
        await self._reached(lambda: self.bytes_passed >= count)

    async def _reached(self, condition: Callable[[], bool]) -> None:
        await self._wait_until(lambda: condition() or self._connection.is_over)
        if not condition():
            raise ConnectionError(f"the connection ended before: {self._connection}")

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)

    async def notify(self) -> None:
        """Let whoever waits look again."""
        async with self._changed:
            self._changed.notify_all()

    async def read(self) -> bytes:
        """Read from the sender once; empty at its end."""
        await self._running.wait()
        data = await asyncio.get_running_loop().sock_recv(self._source, READ_BYTES)
        await self._running.wait()
        self.bytes_seen += len(data)
        await self.notify()
        return data

    async def run(self, data: bytes) -> None:
        """Carry `data`, which was read already, and all that follows until an end."""
        writer = asyncio.create_task(self._write())
        try:
            while data:
                await self._put(data)
                await self._wait_until(lambda: self._held < IN_FLIGHT or writer.done())
                data = await self.read()
            await self._put(b"")
            await writer
        finally:
            writer.cancel()

    async def _put(self, data: bytes) -> None:
        leaves = asyncio.get_running_loop().time()
        if self.bandwidth:
            self._link_free_at = max(leaves, self._link_free_at) + len(data) / self.bandwidth
            leaves = self._link_free_at
        self._queue.append((leaves + self.delay, data))
        self._held += len(data)
        await self.notify()

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wait_until(lambda: bool(self._queue))
            due, data = self._queue.popleft()
            wait = max(due, self.hold_until) - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            await self._running.wait()
            self._held -= len(data)
            if self._connection.swallows:
                await self.notify()
            elif data:
                await self._pass(data)
            else:
                with suppress(OSError):
                    self._sink.shutdown(socket.SHUT_WR)
            if not data:
                return

    async def _pass(self, data: bytes) -> None:
        left = None if self._cut_at is None else self._cut_at - self.bytes_passed
        if left is not None:
            data = data[:left]
        try:
            await asyncio.get_running_loop().sock_sendall(self._sink, data)
        except OSError:
            self._connection.reset()  # the other side is gone: so will be this one
            return
        self.bytes_passed += len(data)
        await self.notify()
        if left is not None and len(data) == left:
            self._connection.end(self._how)


class Connection:
    """One client's connection through the proxy."""

    def __init__(self, proxy: FaultProxy, client: socket.socket, number: int) -> None:
        self.number = number
        """Its place in the order of all connections, from 1."""
        self.path: str | None = None
        """The path (with query) of its first request, once that has come; stays ``None`` if it is not
        HTTP.
        """
        self.is_over = False
        self.swallows = False
        """Whether bytes of both directions vanish."""
        self._proxy = proxy
        self._client = client
        self._server = socket.socket()
        self._server.setblocking(False)
        for side in (self._client, self._server):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.up = Pipe(self, self._client, self._server)
        self.down = Pipe(self, self._server, self._client)
        self._closed = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        # a task that is cancelled before its first step runs no `finally`
        self._task.add_done_callback(lambda _: self._close())

    def __repr__(self) -> str:
        state = "over" if self.is_over else "swallows" if self.swallows else "open"
        return f"<connection {self.number} {self.path or ''} {state}>"

    def apply(self, plan: Plan) -> None:
        """Follow `plan` from now on; its cuts count from here."""
        for pipe, cut in ((self.up, plan.up), (self.down, plan.down)):
            pipe.delay, pipe.bandwidth = plan.delay, plan.bandwidth
            if cut is not None:
                pipe.cut(cut.after, cut.how)
        self.swallows = self.swallows or plan.swallow
        if plan.reset_at_once:
            self.reset()

    def reset(self) -> None:
        """Cut it: both sides get an RST."""
        for side in (self._client, self._server):
            with suppress(OSError):
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._stop()

    def finish(self) -> None:
        """End it in order: both sides get a FIN; what they still send is thrown away until they close."""
        self.swallows = True
        for side in (self._client, self._server):
            with suppress(OSError):
                side.shutdown(socket.SHUT_WR)

    def swallow(self) -> None:
        """Let nothing through any more, in either direction, and say nothing."""
        self.swallows = True

    def end(self, how: How) -> None:
        """:meth:`reset`, :meth:`finish` or :meth:`swallow`."""
        {"reset": self.reset, "finish": self.finish, "swallow": self.swallow}[how]()

    def pause(self) -> None:
        """Stop both directions."""
        self.up.pause()
        self.down.pause()

    def resume(self) -> None:
        """Go on after :meth:`pause`."""
        self.up.resume()
        self.down.resume()

    async def close(self) -> None:
        """Reset it if it is not over, and wait until nothing of it is left."""
        self.reset()
        self._task.cancel()
        await asyncio.wait({self._task})

    async def closed(self) -> None:
        """Wait until the proxy has closed both sides, after a fault or because they had ended by
        themselves.
        """
        await self._closed.wait()

    def _stop(self) -> None:
        if not self.is_over:
            self.is_over = True
            if asyncio.current_task() is not self._task:
                self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._serve()
        except OSError:
            self.reset()  # one side has been reset, or the server refuses: so does this proxy
        except asyncio.CancelledError:
            if not self.is_over:
                raise
        finally:
            self._close()
            await self.up.notify()
            await self.down.notify()

    def _close(self) -> None:
        self.is_over = True
        self._client.close()
        self._server.close()
        self._closed.set()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        opened = loop.time()
        self.apply(self._proxy.plan_for(self) or self._proxy.default)
        if self.is_over:
            return
        await loop.sock_connect(self._server, self._proxy.target)
        both = {asyncio.create_task(self._carry_up(opened)), asyncio.create_task(self._carry_down())}
        try:
            ended, _ = await asyncio.wait(both, return_when=asyncio.FIRST_EXCEPTION)
            for task in ended:
                task.result()
        finally:
            for task in both:
                task.cancel()
            await asyncio.wait(both)

    async def _carry_up(self, opened: float) -> None:
        first = await self._read_head()
        if self.path is not None and (plan := self._proxy.plan_for(self)) is not None:
            self.apply(plan)
        # The handshake with a server that is so far away would have taken a round trip before the first byte.
        self.up.hold_until = opened + 3 * self.up.delay
        await self.up.run(first)

    async def _carry_down(self) -> None:
        await self.down.run(await self.down.read())

    async def _read_head(self) -> bytes:
        """Read until it is clear whether this is HTTP and which path is asked for."""
        head = data = await self.up.read()
        while data and MAYBE_REQUEST_LINE.fullmatch(head):
            data = await self.up.read()
            head += data
        if match := REQUEST_LINE.match(head):
            self.path = match[1].decode("latin-1")
            await self._proxy.announce(self)
        return head


class FaultProxy:
    """A proxy on loopback in front of ``127.0.0.1:target_port``, with the faults of the module's table.

    Use it in ``async with``; everything happens in the running event loop.
    """

    def __init__(self, target_port: int, *, port: int = 0, host: str = "127.0.0.1") -> None:
        self.target = ("127.0.0.1", target_port)
        self.host = host
        self.port = port
        """Its own port; chosen by the system at the start if 0."""
        self.default = Plan()
        """For connections that no rule names."""
        self.connections: list[Connection] = []
        """All there have been, in order."""
        self._rules: list[_Rule] = []
        self._by_path: list[Connection] = []
        self._swallows = False
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._news = asyncio.Condition()

    async def __aenter__(self) -> FaultProxy:
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.refuse()
        await asyncio.gather(*(connection.close() for connection in self.connections))

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://{self.host}:{self.port}"

    # Rules.

    def plan(self, plan: Plan, *, path: str | None = None, nth: int | None = None) -> None:
        """Make a rule for connections that come from now on: all, or the `nth` from now, counted from 1.

        With `path` only connections whose first request's path holds that text are meant and counted. The
        first rule that fits wins, rules with a path before others.
        """
        self._rules.append(_Rule(plan, path, nth))

    def forget_rules(self) -> None:
        """New connections follow :attr:`default` again."""
        self._rules.clear()

    def plan_for(self, connection: Connection) -> Plan | None:
        """The plan that the rules have for a connection.

        Asked once when it is accepted, and again, of the rules with a path, when its path is known.
        """
        chosen: Plan | None = None
        for rule in self._rules:
            fits = connection.path is None if rule.path is None else rule.path in (connection.path or "")
            if fits:
                rule.matched += 1
                if chosen is None and rule.nth in (None, rule.matched):
                    chosen = rule.plan
        return chosen

    # Faults of the whole proxy.

    async def refuse(self) -> None:
        """New connections are refused; those that exist go on."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait({self._accepting})
            self._accepting = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def accept(self) -> None:
        """Take connections (again), at the same port as before."""
        if self._listener is None:
            self._listener = socket.create_server((self.host, self.port), backlog=256)
            self._listener.setblocking(False)
            self.port = self._listener.getsockname()[1]
            self._accepting = asyncio.create_task(self._accept())

    def reset_all(self) -> None:
        """Reset every connection that there is now."""
        for connection in self.alive():
            connection.reset()

    def finish_all(self) -> None:
        """End every connection that there is now in order."""
        for connection in self.alive():
            connection.finish()

    def swallow_all(self) -> None:
        """The network goes dark: connections stay and nothing passes, for new ones too, until
        :meth:`heal`.
        """
        self._swallows = True
        for connection in self.alive():
            connection.swallow()

    def heal(self) -> None:
        """New connections work again. Those that lost bytes in the dark stay dark."""
        self._swallows = False

    def pause_all(self) -> None:
        """Stop every connection that there is now; nothing is lost."""
        for connection in self.alive():
            connection.pause()

    def resume_all(self) -> None:
        """Go on after :meth:`pause_all`."""
        for connection in self.alive():
            connection.resume()

    # What has happened.

    def alive(self, path: str = "") -> list[Connection]:
        """The connections that are not over, optionally of one path."""
        return [each for each in self.connections if not each.is_over and path in (each.path or "")]

    def count(self, path: str | None = None) -> int:
        """How many connections there have been, or how many with this path."""
        return len(self._matching(path))

    async def opened(self, nth: int = 1, path: str | None = None) -> Connection:
        """Wait for the `nth` connection since the start of the proxy, or the `nth` for a path that holds
        `path`.

        For the next one from now on: ``nth=proxy.count(path) + 1``.
        """
        async with self._news:
            await self._news.wait_for(lambda: len(self._matching(path)) >= nth)
        return self._matching(path)[nth - 1]

    async def announce(self, connection: Connection) -> None:
        """A connection's path has become known (the connection says so itself)."""
        self._by_path.append(connection)
        async with self._news:
            self._news.notify_all()

    def _matching(self, path: str | None) -> list[Connection]:
        if path is None:
            return self.connections
        return [each for each in self._by_path if path in (each.path or "")]

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        assert self._listener is not None
        while True:
            client, _ = await loop.sock_accept(self._listener)
            client.setblocking(False)
            connection = Connection(self, client, len(self.connections) + 1)
            connection.swallows = self._swallows
            self.connections.append(connection)
            async with self._news:
                self._news.notify_all()
