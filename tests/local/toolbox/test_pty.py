"""Terminals: a shell behind a WebSocket."""

from __future__ import annotations

import asyncio
import base64
import json
import signal

import aiohttp
import pytest

from daytona_kernel.local.toolbox import terminals
from daytona_kernel.local.toolbox.app import create_app
from daytona_kernel.local.toolbox.settings import ToolboxSettings
from daytona_kernel.local.toolbox.terminals import exit_report

EXIT_CONTROL = "X-Daytona-Pty-Exit-Control"
CONNECTED = {"type": "control", "status": "connected"}


class Screen:
    """A client of a terminal."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.output = b""
        self.controls: list[dict] = []

    async def see(self, text: str) -> str:
        """Read until ``text`` shows up."""
        while text.encode() not in self.output:
            message = await self.socket.receive(timeout=15)
            if message.type is aiohttp.WSMsgType.BINARY:
                self.output += message.data
            elif message.type is aiohttp.WSMsgType.TEXT:
                self.controls.append(json.loads(message.data))
            else:
                raise AssertionError(f"closed ({self.socket.close_code}) before {text!r}: {self.output!r}")
        return self.output.decode("utf-8", "replace")

    async def end(self) -> int | None:
        """Read until the socket closes."""
        async for message in self.socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                self.output += message.data
            else:
                self.controls.append(json.loads(message.data))
        return self.socket.close_code

    async def type(self, text: str) -> None:
        await self.socket.send_bytes(text.encode())


class Terminals:
    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.http = http

    async def open(self, name: str, *, protocols=(EXIT_CONTROL,), envs=None, **query) -> Screen:
        protocols = list(protocols)
        if envs is not None:
            raw = base64.urlsafe_b64encode(json.dumps(envs).encode()).decode().rstrip("=")
            protocols.append(f"X-Daytona-Pty-Envs~{raw}")
        socket = await self.http.ws_connect(
            "/process/pty/create-connect", params={"id": name, **query}, protocols=protocols
        )
        return await self._connected(socket)

    async def connect(self, name: str, protocols=()) -> Screen:
        return await self._connected(
            await self.http.ws_connect(f"/process/pty/{name}/connect", protocols=protocols)
        )

    async def _connected(self, socket) -> Screen:
        assert json.loads(await socket.receive_str(timeout=10)) == CONNECTED
        return Screen(socket)


@pytest.fixture
def terminal(http):
    return Terminals(http)


@pytest.fixture(autouse=True)
async def no_terminals_left(api):
    yield
    for one in (await api("GET", "/process/pty"))["sessions"]:
        await api("DELETE", f"/process/pty/{one['id']}")


async def test_a_terminal_is_created_listed_and_described(api, terminal, daemon):
    screen = await terminal.open("t1", cols="100", rows="30", envs={"GREETING": "hi there"})
    await screen.type("tty; stty size; echo $TERM $GREETING; pwd\n")
    shown = await screen.see(f"{daemon.home}\r\n")
    assert "/dev/pts/" in shown
    assert "30 100\r\n" in shown
    assert "xterm-256color hi there\r\n" in shown
    info = await api("GET", "/process/pty/t1")
    assert info.pop("createdAt").endswith("Z")
    assert info == {
        "id": "t1",
        "cwd": str(daemon.home),
        "envs": {"GREETING": "hi there"},
        "cols": 100,
        "rows": 30,
        "active": True,
        "lazyStart": False,
    }
    assert [one["id"] for one in (await api("GET", "/process/pty"))["sessions"]] == ["t1"]


async def test_the_shell_has_job_control_and_ctrl_c(terminal):
    screen = await terminal.open("t2")
    await screen.type("PS1='rea''dy-$?> '; sh -c 'echo job-$((40+2)); exec sleep 60'\n")
    await screen.see("job-42\r\n")
    await screen.type("\x03")
    await screen.see("ready-130> ")
    assert b"no job control" not in screen.output


async def test_text_messages_type_too_and_utf8_passes(terminal):
    screen = await terminal.open("t3")
    await screen.socket.send_str("printf 'é%s\\n' ü\n")
    await screen.see("éü\r\n")


async def test_exit_is_told_by_a_control_message_to_who_understands_it(api, terminal):
    screen = await terminal.open("t4")
    assert screen.socket.protocol == EXIT_CONTROL
    await screen.type("exit 3\n")
    assert await screen.end() == 1000
    assert screen.controls == [
        {"type": "control", "status": "exited", "exitCode": 3, "exitReason": "non-zero exit"}
    ]
    await api.error("GET", "/process/pty/t4", 404)
    assert (await api("GET", "/process/pty"))["sessions"] == []


@pytest.mark.parametrize(("command", "code", "report"), [("exit 0", 1000, 0), ("exit 7", 1011, 7)])
async def test_exit_is_told_by_the_close_frame_to_others(http, terminal, command, code, report):
    screen = await terminal.open("t5", protocols=())
    await screen.type(f"{command}\n")
    reason = b""
    while True:
        message = await screen.socket.receive(timeout=10)
        if message.type is aiohttp.WSMsgType.CLOSE:
            reason = message.extra
            break
    assert screen.socket.close_code == code
    assert json.loads(reason)["exitCode"] == report


@pytest.mark.parametrize(
    ("returncode", "report"),
    [
        (0, {"exitCode": 0}),
        (1, {"exitCode": 1, "exitReason": "non-zero exit"}),
        (-signal.SIGKILL, {"exitCode": 137, "exitReason": "SIGKILL"}),
        (-signal.SIGTERM, {"exitCode": -1, "exitReason": "SIGTERM"}),
    ],
)
def test_exit_reports(returncode, report):
    assert exit_report(returncode) == report


async def test_deleting_kills_the_shell_and_its_jobs(api, terminal, home):
    screen = await terminal.open("t6")
    await screen.type(f"set -m; sleep 60 & echo $! > {home}/pid; echo ready-$((1+1))\n")
    await screen.see("ready-2")
    answer = await api("DELETE", "/process/pty/t6")
    assert answer.keys() == {"message"}
    assert await screen.end() == 1000
    assert screen.controls == [
        {"type": "control", "status": "exited", "exitCode": 137, "exitReason": "SIGKILL"}
    ]
    pid = (home / "pid").read_text().strip()
    while (await api.run(f"kill -0 {pid}"))["exitCode"] == 0:
        await asyncio.sleep(0.01)
    await api.error("DELETE", "/process/pty/t6", 404)


async def test_a_terminal_survives_its_client_and_takes_several(api, terminal):
    first = await terminal.open("t7")
    await first.type("x=kept\n")
    await first.see("x=kept")
    await first.socket.close()
    second, third = await terminal.connect("t7"), await terminal.connect("t7")
    await second.type("echo $x-$((6*7))\n")
    await second.see("kept-42")
    await third.see("kept-42")
    await third.type("exit\n")
    assert (await second.end(), await third.end()) == (1000, 1000)


async def test_post_creates_and_connect_attaches(api, terminal, home):
    body = {"id": "t8", "cwd": home.name, "envs": {"A": "b"}, "cols": 90}
    assert await api("POST", "/process/pty", status=201, json=body) == {"sessionId": "t8"}
    screen = await terminal.connect("t8")
    await screen.type("pwd; echo $A; stty size\n")
    shown = await screen.see("24 90\r\n")
    assert f"{home}\r\nb\r\n" in shown


async def test_a_lazy_terminal_starts_with_its_first_client(api, terminal):
    await api("POST", "/process/pty", status=201, json={"id": "t9", "lazyStart": True})
    assert (await api("GET", "/process/pty/t9"))["active"] is False
    await api("POST", "/process/pty/t9/resize", json={"cols": 50, "rows": 10})
    screen = await terminal.connect("t9")
    await screen.type("stty size\n")
    await screen.see("10 50\r\n")
    assert (await api("GET", "/process/pty/t9"))["active"] is True
    await api("POST", "/process/pty", status=201, json={"id": "never", "lazyStart": True})
    await api("DELETE", "/process/pty/never")
    await api.error("GET", "/process/pty/never", 404)


async def test_resizing_reaches_the_program_that_runs(api, terminal):
    screen = await terminal.open("t10")
    await screen.type("trap 'echo now $(stty size)' WINCH; echo trap-$((1+1))\n")
    await screen.see("trap-2")
    info = await api("POST", "/process/pty/t10/resize", json={"cols": 132, "rows": 50})
    assert (info["cols"], info["rows"]) == (132, 50)
    await screen.type("\n")
    await screen.see("now 50 132\r\n")


async def test_resizing_what_is_gone_is_410_and_bad_sizes_400(api, terminal):
    await api.error("POST", "/process/pty/gone/resize", 410, json={"cols": 80, "rows": 24})
    await terminal.open("t11")
    for size in (
        {"cols": 0, "rows": 24},
        {"cols": 80},
        {"cols": 80, "rows": 1001},
        {"cols": "80", "rows": 24},
    ):
        await api.error("POST", "/process/pty/t11/resize", 400, json=size)


@pytest.mark.parametrize(
    ("query", "protocol", "status"),
    [
        ({"id": "x", "cols": "1001"}, EXIT_CONTROL, 400),
        ({"id": "x", "cols": "many"}, EXIT_CONTROL, 400),
        ({}, EXIT_CONTROL, 400),
        ({"id": "x", "cwd": "/no/such/place"}, EXIT_CONTROL, 400),
        ({"id": "x"}, "X-Daytona-Pty-Envs~bm90IGpzb24", 400),
        ({"id": "x"}, "X-Daytona-Pty-Envs~eyJhIGIiOiAiYyJ9", 400),
        ({"id": "taken"}, EXIT_CONTROL, 409),
    ],
)
async def test_problems_are_told_before_the_upgrade(api, http, terminal, query, protocol, status):
    await terminal.open("taken")
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await http.ws_connect("/process/pty/create-connect", params=query, protocols=[protocol])
    assert caught.value.status == status


async def test_bad_creations_are_400_and_duplicates_409(api):
    for body in (
        {},
        {"id": ""},
        {"id": "x", "cols": -1},
        {"id": "x", "envs": {"a-b": "c"}},
        {"id": "x", "cwd": 5},
    ):
        await api.error("POST", "/process/pty", 400, json=body)
    await api("POST", "/process/pty", status=201, json={"id": "dup"})
    await api.error("POST", "/process/pty", 409, json={"id": "dup"})
    await api.error("GET", "/process/pty/create-connect", 400, params={"id": "y"})
    await api.error("GET", "/process/pty/dup/connect", 400)


async def test_connecting_to_what_is_not_there_is_told_on_the_socket(http):
    async with http.ws_connect("/process/pty/gone/connect") as socket:
        message = json.loads(await socket.receive_str())
        assert (message["type"], message["status"]) == ("control", "error")
        assert "gone" in message["error"]
        assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSE)


async def test_a_message_that_is_too_long_closes_the_socket_not_the_terminal(api, terminal):
    screen = await terminal.open("t12")
    await screen.type("x" * 70_000)
    assert await screen.end() == 1009
    assert (await api("GET", "/process/pty/t12"))["active"] is True


async def test_much_output_arrives_whole(terminal):
    screen = await terminal.open("t13")
    await screen.type("seq 100000; echo done-$((1+1))\n")
    shown = await screen.see("done-2")
    assert "\r\n".join(str(n) for n in range(1, 100_001)) in shown


@pytest.fixture
async def in_process(tmp_path):
    """The application in this process, so that a test can shorten its patience."""
    from aiohttp.test_utils import TestClient, TestServer

    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    app = create_app(ToolboxSettings("s", str(tmp_path), str(tmp_path), "/usr/bin/python3", env))
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_a_client_that_does_not_read_pauses_the_terminal_and_is_closed_then(in_process, monkeypatch):
    monkeypatch.setattr(terminals, "SLOW_SECONDS", 0.2)
    flooded = await in_process.ws_connect("/process/pty/create-connect?id=f", max_msg_size=0)
    other = await in_process.ws_connect("/process/pty/f/connect")
    protocol = flooded._response.connection.protocol
    protocol.transport.pause_reading()
    await flooded.send_bytes(b"head -c 30000000 /dev/zero | tr '\\0' x; echo done-$((1+1))\n")
    count, tail = 0, b""
    while b"done-2" not in tail:  # the other client gets on once the slow one has been given up
        message = await other.receive(timeout=15)
        assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), message
        if message.type is aiohttp.WSMsgType.BINARY:
            count += message.data.count(b"x")
            tail = (tail + message.data)[-1000:]
    assert count >= 30_000_000
    protocol.transport.resume_reading()
    received = 0
    async for message in flooded:
        received += len(message.data)
    assert received < 30_000_000
    assert flooded.close_code in (1008, 1006)
    await other.close()
