"""The fault proxy does what its table says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from .proxy import Cut, FaultProxy, Plan

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Peer:
    """A server whose side of each connection the test plays itself."""

    def __init__(self) -> None:
        self.port = 0
        self._sides: asyncio.Queue[Streams] = asyncio.Queue()
        self._all: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Peer:
        self._server = await asyncio.start_server(self._on_client, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._all:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in self._all), return_exceptions=True)

    async def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._all.append(writer)
        self._sides.put_nowait((reader, writer))

    async def side(self) -> Streams:
        return await self._sides.get()

    async def connect(self, port: int) -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        self._all.append(writer)
        return reader, writer


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with Peer() as running:
        yield running


@pytest.fixture
async def proxy(peer: Peer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(peer.port) as running:
        yield running


async def test_bytes_pass_unchanged_in_both_directions_to_the_end(peer: Peer, proxy: FaultProxy) -> None:
    client, to_server = await peer.connect(proxy.port)
    server, to_client = await peer.side()
    big = bytes(range(256)) * 20_000
    to_server.write(b"x" + big)
    to_server.write_eof()
    assert await server.read() == b"x" + big
    to_client.write(big)
    to_client.write_eof()
    assert await client.read() == big
    connection = await proxy.opened()
    await connection.closed()
    assert connection.up.bytes_seen == connection.up.bytes_passed == len(big) + 1
    assert connection.down.bytes_passed == len(big)
    assert connection.is_over
    assert proxy.alive() == []


async def test_connections_are_announced_in_order_and_by_path(peer: Peer, proxy: FaultProxy) -> None:
    second_run = asyncio.ensure_future(proxy.opened(2, path="/run"))
    writers = []
    for line in (
        b"GET /other HTTP/1.1\r\n\r\n",
        b"GET /run?a=1 HTTP/1.1\r\n\r\n",
        b"POST /x/run HTTP/1.1\r\n\r\n",
    ):
        _, writer = await peer.connect(proxy.port)
        writers.append(writer)
        for piece in (line[:2], line[2:9], line[9:]):  # a head may come in pieces
            writer.write(piece)
            await writer.drain()
        server, _ = await peer.side()
        assert await server.readexactly(len(line)) == line
    connection = await second_run
    assert (connection.number, connection.path) == (3, "/x/run")
    assert (await proxy.opened(path="/run")).number == 2
    assert (proxy.count(), proxy.count("/run"), proxy.count("/none")) == (3, 2, 0)
    assert proxy.alive("/other") == [proxy.connections[0]]


async def test_bytes_seen_and_passed_are_events(peer: Peer, proxy: FaultProxy) -> None:
    _, to_server = await peer.connect(proxy.port)
    server, _ = await peer.side()
    connection = await proxy.opened()
    waiting = asyncio.ensure_future(connection.up.passed(10))
    to_server.write(b"x" * 9)
    assert await server.readexactly(9)
    assert not waiting.done()
    to_server.write(b"x")
    await waiting
    await connection.up.seen(10)


async def test_waiting_for_bytes_ends_with_the_connection(peer: Peer, proxy: FaultProxy) -> None:
    await peer.connect(proxy.port)
    await peer.side()
    connection = await proxy.opened()
    waiting = asyncio.ensure_future(connection.down.passed(10))
    connection.reset()
    with pytest.raises(ConnectionError, match="connection 1"):
        await waiting


async def test_a_reset_is_an_rst_on_both_sides(peer: Peer, proxy: FaultProxy) -> None:
    client, _ = await peer.connect(proxy.port)
    server, _ = await peer.side()
    (await proxy.opened()).reset()
    for side in (client, server):
        with pytest.raises(ConnectionResetError):
            await side.read()


async def test_an_orderly_end_is_an_end_of_file_on_both_sides(peer: Peer, proxy: FaultProxy) -> None:
    client, to_server = await peer.connect(proxy.port)
    server, _ = await peer.side()
    connection = await proxy.opened()
    to_server.write(b"before")
    await connection.up.passed(6)
    connection.finish()
    to_server.write(b"after")
    assert await server.read() == b"before"
    assert await client.read() == b""
    assert not connection.is_over


async def test_a_reset_by_one_side_reaches_the_other(peer: Peer, proxy: FaultProxy) -> None:
    client, _ = await peer.connect(proxy.port)
    _, to_client = await peer.side()
    import socket
    import struct

    raw = to_client.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    to_client.transport.abort()
    with pytest.raises(ConnectionResetError):
        await client.read()


async def test_a_black_hole_takes_everything_and_says_nothing(peer: Peer, proxy: FaultProxy) -> None:
    client, to_server = await peer.connect(proxy.port)
    server, to_client = await peer.side()
    connection = await proxy.opened()
    proxy.swallow_all()
    to_server.write(b"lost")
    to_client.write(b"lost too")
    to_server.write_eof()
    await connection.up.seen(4)
    await connection.down.seen(8)
    other_client, to_other = await peer.connect(proxy.port)
    other_server, _ = await peer.side()
    to_other.write(b"lost")
    await (await proxy.opened(2)).up.seen(4)
    proxy.heal()
    _, to_new = await peer.connect(proxy.port)
    new_server, _ = await peer.side()
    to_new.write(b"x")
    assert await new_server.read(1) == b"x"
    for side in (client, server, other_client, other_server):
        assert not side.at_eof()
        assert not side._buffer  # type: ignore[attr-defined]
    assert connection.up.bytes_passed == connection.down.bytes_passed == 0


@pytest.mark.parametrize("size", [1, 1000, 300_000])
@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("how", ["reset", "finish", "swallow"])
async def test_a_cut_lets_exactly_so_many_bytes_pass(
    peer: Peer, proxy: FaultProxy, size: int, direction: str, how: str
) -> None:
    proxy.plan(Plan(**{direction: Cut(size, how)}))  # type: ignore[arg-type]
    client = await peer.connect(proxy.port)
    server = await peer.side()
    (_, sending), (receiving, _) = (client, server) if direction == "up" else (server, client)
    sending.write(b"x" * 600_000)
    assert await receiving.readexactly(size) == b"x" * size
    if how == "reset":
        with pytest.raises(ConnectionResetError):
            await receiving.read()
    elif how == "finish":
        assert await receiving.read() == b""
    else:
        connection = await proxy.opened()
        await getattr(connection, direction).seen(600_000)
        assert (connection.swallows, connection.is_over) == (True, False)
        assert getattr(connection, direction).bytes_passed == size


async def test_a_cut_on_command_counts_from_now(peer: Peer, proxy: FaultProxy) -> None:
    client, _ = await peer.connect(proxy.port)
    _, to_client = await peer.side()
    connection = await proxy.opened()
    to_client.write(b"12345")
    assert await client.readexactly(5)
    connection.down.cut(3)
    to_client.write(b"67890")
    assert await client.readexactly(3) == b"678"
    with pytest.raises(ConnectionResetError):
        await client.read()
    other, _ = await peer.connect(proxy.port)
    (await proxy.opened(2)).up.cut(0)
    with pytest.raises(ConnectionResetError):
        await other.read()


async def test_a_rule_can_name_the_kth_connection_or_the_kth_for_a_path(
    peer: Peer, proxy: FaultProxy
) -> None:
    proxy.plan(Plan(reset_at_once=True), nth=2)
    proxy.plan(Plan(swallow=True), path="/run", nth=2)
    proxy.plan(Plan(up=Cut(5)), path="/run")
    ends = []
    for line in (
        b"GET /run HTTP/1.1\r\n",
        b"GET /run HTTP/1.1\r\n",
        b"GET /x HTTP/1.1\r\n",
        b"GET /run HTTP/1.1\r\n",
    ):
        client, to_server = await peer.connect(proxy.port)
        to_server.write(line)
        ends.append(client)
    first, second = await proxy.opened(1), await proxy.opened(2)
    await first.closed()
    await second.closed()
    assert (first.up.bytes_passed, second.up.bytes_seen) == (5, 0)
    third, fourth = await proxy.opened(3), await proxy.opened(4)
    await third.up.passed(19 - 2)
    await fourth.up.seen(19)
    assert (fourth.swallows, fourth.up.bytes_passed) == (True, 0)
    proxy.forget_rules()
    _, to_server = await peer.connect(proxy.port)
    to_server.write(b"GET /run HTTP/1.1\r\n")
    await (await proxy.opened(5)).up.passed(19)


async def test_refused_connections_work_again_at_the_same_port(peer: Peer, proxy: FaultProxy) -> None:
    client, to_server = await peer.connect(proxy.port)
    server, _ = await peer.side()
    await proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await peer.connect(proxy.port)
    to_server.write(b"x")
    assert await server.read(1) == b"x"
    port = proxy.port
    await proxy.accept()
    assert proxy.port == port
    await peer.connect(port)
    await peer.side()
    proxy.reset_all()
    with pytest.raises(ConnectionResetError):
        await client.read()


async def test_a_server_that_is_gone_resets_who_connects(peer: Peer, proxy: FaultProxy) -> None:
    await peer.__aexit__()
    client, _ = await peer.connect(proxy.port)
    with pytest.raises(ConnectionResetError):
        await client.read()


async def test_a_paused_pipe_pushes_back_and_loses_nothing(peer: Peer, proxy: FaultProxy) -> None:
    client, _ = await peer.connect(proxy.port)
    _, to_client = await peer.side()
    connection = await proxy.opened()
    proxy.pause_all()
    data = bytes(range(256)) * 100_000
    to_client.write(data)
    draining = asyncio.ensure_future(to_client.drain())
    reading = asyncio.ensure_future(client.readexactly(len(data)))
    await asyncio.sleep(0.05)  # time for what must not happen
    assert not draining.done()
    assert connection.down.bytes_passed == 0
    proxy.resume_all()
    assert await reading == data
    await draining


async def test_delay_costs_each_round_trip_and_connecting_one_more(peer: Peer, proxy: FaultProxy) -> None:
    """By the event loop's own clock; what is asserted is a wait that was long enough, never a quick one."""
    proxy.default = Plan(delay=0.02)
    loop = asyncio.get_running_loop()
    start = loop.time()
    client, to_server = await peer.connect(proxy.port)
    server, to_client = await peer.side()
    for round_trips in (2, 3, 4):
        to_server.write(b"x")
        await server.readexactly(1)
        to_client.write(b"y")
        await client.readexactly(1)
        assert loop.time() - start >= round_trips * 0.04


async def test_delay_does_not_limit_what_is_under_way(peer: Peer, proxy: FaultProxy) -> None:
    """A hundred pieces sent one by one are all under way before the first has arrived."""
    proxy.default = Plan(delay=0.2)
    _, to_server = await peer.connect(proxy.port)
    server, _ = await peer.side()
    connection = await proxy.opened()
    for _ in range(100):
        to_server.write(b"x" * 1000)
        await to_server.drain()
    await connection.up.seen(100_000)
    assert connection.up.bytes_passed == 0
    assert await server.readexactly(100_000)


async def test_bandwidth_limits_both_directions(peer: Peer, proxy: FaultProxy) -> None:
    proxy.default = Plan(bandwidth=1_000_000)
    client, to_server = await peer.connect(proxy.port)
    server, to_client = await peer.side()
    loop = asyncio.get_running_loop()
    start = loop.time()
    to_server.write(b"x" * 100_000)
    to_client.write(b"y" * 100_000)
    await asyncio.gather(server.readexactly(100_000), client.readexactly(100_000))
    assert loop.time() - start >= 0.1


async def test_leaving_closes_everything(peer: Peer) -> None:
    async with FaultProxy(peer.port) as proxy:
        clients = [(await peer.connect(proxy.port))[0] for _ in range(3)]
        (await proxy.opened(1)).finish()
        (await proxy.opened(2)).pause()
        await proxy.opened(3)
    assert all(connection.is_over for connection in proxy.connections)
    assert await clients[0].read() == b""
    for client in clients[1:]:
        with pytest.raises(ConnectionResetError):
            await client.read()
