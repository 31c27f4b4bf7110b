"""Sessions: one shell, many commands, their logs and their input."""

from __future__ import annotations

import asyncio
import os
import uuid

import aiohttp
import pytest

from .conftest import Api, start_daemon

OUT, ERR = "\x01\x01\x01", "\x02\x02\x02"
SDK = {"X-Daytona-SDK-Version": "0.226.1"}


class Shell:
    """A session as a test uses it."""

    def __init__(self, api: Api, name: str) -> None:
        self.api = api
        self.name = name
        self.url = f"/process/session/{name}"

    async def run(self, command, *, status=200, **fields):
        body = {"command": command, **fields}
        return await self.api("POST", f"{self.url}/exec", status=status, json=body, headers=SDK)

    async def start(self, command, **fields):
        """Run in the background; give the command's URL."""
        answer = await self.run(command, status=202, runAsync=True, **fields)
        assert answer.keys() == {"cmdId", "output", "stdout", "stderr", "exitCode"}
        assert {answer[key] for key in answer if key != "cmdId"} == {None}
        return f"{self.url}/command/{answer['cmdId']}"

    async def logs(self, command):
        return await self.api("GET", f"{command}/logs", headers=SDK)


@pytest.fixture
async def shell(api):
    name = f"s-{uuid.uuid4()}"
    await api("POST", "/process/session", status=201, json={"sessionId": name})
    yield Shell(api, name)
    await api("DELETE", f"/process/session/{name}", status=204)


async def follow(http, url):
    """Follow a log over a WebSocket to its end: (bytes, close code)."""
    async with http.ws_connect(f"{url}/logs?follow=true") as socket:
        data = b"".join([message.data async for message in socket])
        return data, socket.close_code


async def test_commands_share_one_shell(shell, daemon):
    assert (await shell.run("pwd"))["stdout"] == f"{daemon.home}\n"
    await shell.run("cd /usr; export A=1; B=2; f() { echo f-$1; }")
    answer = await shell.run("pwd; echo $A$B; f x; echo oops >&2; (exit 3)")
    assert answer["stdout"] == "/usr\n12\nf-x\n"
    assert answer["stderr"] == "oops\n"
    assert answer["exitCode"] == 3
    assert sorted(answer["output"].splitlines()) == sorted(
        [f"{OUT}/usr", f"{OUT}12", f"{OUT}f-x", f"{ERR}oops"]
    )


async def test_an_old_client_gets_output_without_labels(api, shell):
    body = {"command": "echo a; echo b >&2"}
    for headers in ({}, {"X-Daytona-SDK-Version": "0.166.9"}):
        answer = await api("POST", f"{shell.url}/exec", json=body, headers=headers)
        assert sorted(answer["output"].split()) == ["a", "b"]
        assert (answer["stdout"], answer["stderr"]) == ("a\n", "b\n")


async def test_sessions_and_commands_are_listed(api, shell):
    first = await shell.run("echo 1")
    background = await shell.start("read x")
    session = await api("GET", shell.url)
    assert session == {
        "sessionId": shell.name,
        "commands": [
            {"id": first["cmdId"], "command": "echo 1", "exitCode": 0},
            {"id": background.rpartition("/")[2], "command": "read x"},
        ],
    }
    assert session in await api("GET", "/process/session")
    assert await api("GET", background) == session["commands"][1]


async def test_what_does_not_exist_is_404(api, shell):
    missing = f"{shell.url}/command/none"
    for path in ("/process/session/none", missing, f"{missing}/logs", "/process/session/none/command/x"):
        await api.error("GET", path, 404)
    await api.error("DELETE", "/process/session/none", 404)
    await api.error("POST", "/process/session/none/exec", 404, json={"command": "true"})
    await api.error("POST", f"{missing}/input", 404, json={"data": "x"})
    await api.error("GET", "/process/session/entrypoint", 404)
    await api.error("GET", "/process/session/entrypoint/logs", 404)


@pytest.mark.parametrize("body", [{}, {"sessionId": ""}, {"sessionId": 1}, {"sessionId": "entrypoint"}])
async def test_bad_session_ids_are_400(api, body):
    await api.error("POST", "/process/session", 400, json=body)


async def test_a_second_session_of_the_same_name_is_409(api, shell):
    error = await api.error("POST", "/process/session", 409, json={"sessionId": shell.name})
    assert shell.name in error["message"]


async def test_an_id_may_hold_anything(api):
    name = "a/b c%é"
    await api("POST", "/process/session", status=201, json={"sessionId": name})
    from urllib.parse import quote

    from yarl import URL

    url = URL(f"/process/session/{quote(name, safe='')}", encoded=True)
    assert (await api("GET", url))["sessionId"] == name
    await api("DELETE", url, status=204)


@pytest.mark.parametrize("command", ["", "  \n", None, 5])
async def test_a_blank_command_is_400(api, shell, command):
    await api.error("POST", f"{shell.url}/exec", 400, json={"command": command})


async def test_a_synchronous_command_reads_end_of_file(shell):
    assert (await shell.run("cat; echo end"))["stdout"] == "end\n"


async def test_a_syntax_error_does_not_end_the_session(shell):
    answer = await shell.run("if then fi (")
    assert answer["exitCode"] != 0
    assert "syntax" in answer["stderr"].lower()
    assert (await shell.run("echo on"))["stdout"] == "on\n"


async def test_a_function_called_echo_does_not_break_the_session(shell):
    await shell.run("echo() { command echo mine; }; alias command=false")
    assert (await shell.run("echo x"))["stdout"] == "mine\n"


async def test_an_unfinished_line_and_nul_bytes(shell):
    assert (await shell.run(r"printf 'a\0b'; printf 'c' >&2"))["output"].replace(
        f"{ERR}c\n", ""
    ) == f"{OUT}ab\n"


async def test_background_commands_queue_and_their_logs_can_be_read_meanwhile(api, shell, home):
    os.mkfifo(home / "gate")
    first = await shell.start(
        f"echo started; read x < {home}/gate; echo $x; exit_code() {{ return 7; }}; exit_code"
    )
    second = await shell.start("echo second")
    while "started" not in (await shell.logs(first))["stdout"]:
        await asyncio.sleep(0.01)
    assert (await shell.logs(second))["output"] == ""
    assert "exitCode" not in await api("GET", first)
    with open(home / "gate", "w") as gate:
        gate.write("go\n")
    assert (await shell.run("echo third"))["stdout"] == "third\n"
    assert (await api("GET", first))["exitCode"] == 7
    assert await shell.logs(first) == {
        "output": f"{OUT}started\n{OUT}go\n",
        "stdout": "started\ngo\n",
        "stderr": "",
    }
    assert (await shell.logs(second))["stdout"] == "second\n"


async def test_input_reaches_a_background_command_and_is_echoed(api, http, shell):
    command = await shell.start("read a; read b; echo got $a-$b")
    await api("POST", f"{command}/input", status=204, json={"data": "one"})
    await api("POST", f"{command}/input", status=204, json={"data": "two\n"})
    data, code = await follow(http, command)
    assert data.decode() == f"{OUT}one\n{OUT}two\n{OUT}got one-two\n"
    assert code == 1000
    error = await api.error("POST", f"{command}/input", 410, json={"data": "late"})
    assert error["code"] == "COMMAND_ALREADY_COMPLETED"


async def test_the_echo_of_input_can_be_suppressed(api, http, shell):
    command = await shell.start("read a; echo got $a", suppressInputEcho=True)
    await api("POST", f"{command}/input", status=204, json={"data": "secret"})
    assert (await follow(http, command))[0].decode() == f"{OUT}got secret\n"


async def test_input_of_any_size_arrives(api, http, shell):
    line = "x" * 300_000
    command = await shell.start("head -c 300001 | wc -c", suppressInputEcho=True)
    await api("POST", f"{command}/input", status=204, json={"data": line})
    assert (await follow(http, command))[0].decode().split() == [f"{OUT}300001"]


@pytest.mark.parametrize("body", [{}, {"data": 1}, {"data": None}])
async def test_input_must_be_text(api, shell, body):
    command = await shell.start("read a")
    await api.error("POST", f"{command}/input", 400, json=body)


async def test_a_follower_gets_lines_as_they_are_printed(http, shell, home):
    os.mkfifo(home / "gate")
    command = await shell.start(f"echo one; echo two >&2; read x < {home}/gate; echo three")
    async with http.ws_connect(f"{command}/logs?follow=true") as socket:
        seen = b""
        while seen.count(b"\n") < 2:
            seen += await socket.receive_bytes(timeout=10)
        assert sorted(seen.decode().splitlines()) == [f"{OUT}one", f"{ERR}two"]
        with open(home / "gate", "w") as gate:
            gate.write("\n")
        assert await socket.receive_bytes(timeout=10) == f"{OUT}three\n".encode()
        assert (await socket.receive(timeout=10)).type == aiohttp.WSMsgType.CLOSE
        assert socket.close_code == 1000


async def test_a_follower_that_leaves_harms_nobody(http, shell):
    command = await shell.start("read x; echo $x")
    async with http.ws_connect(f"{command}/logs?follow=true"):
        pass
    await shell.api("POST", f"{command}/input", status=204, json={"data": "on"})
    assert (await follow(http, command))[0].decode() == f"{OUT}on\n{OUT}on\n"


async def test_a_long_log_arrives_whole_at_a_follower_that_starts_late(http, shell):
    command = await shell.start("seq 200000")
    await shell.run("true")
    data, _ = await follow(http, command)
    assert data.decode() == "".join(f"{OUT}{n}\n" for n in range(1, 200_001))


async def test_without_follow_the_socket_gives_what_is_there(http, shell):
    command = await shell.start("echo a")
    await shell.run("true")
    async with http.ws_connect(f"{command}/logs") as socket:
        assert await socket.receive_bytes() == f"{OUT}a\n".encode()
        assert (await socket.receive()).type == aiohttp.WSMsgType.CLOSE


async def test_plain_http_can_follow_too(http, shell):
    command = await shell.start("read x; echo $x", suppressInputEcho=True)
    async with http.get(f"{command}/logs?follow=true") as answer:
        await shell.api("POST", f"{command}/input", status=204, json={"data": "on"})
        assert await answer.read() == f"{OUT}on\n".encode()


async def test_a_child_left_in_the_background_does_not_hold_the_answer(shell, home):
    os.mkfifo(home / "gate")
    answer = await shell.run(f"(read x < {home}/gate; echo late) & echo now")
    assert (answer["stdout"], answer["exitCode"]) == ("now\n", 0)
    with open(home / "gate", "w") as gate:
        gate.write("\n")
    command = f"{shell.url}/command/{answer['cmdId']}"
    while (await shell.logs(command))["stdout"] != "now\nlate\n":
        await asyncio.sleep(0.01)


async def test_a_command_that_ends_the_shell_ends_and_so_does_the_session(api, shell):
    assert (await shell.run("echo bye; exit 3"))["exitCode"] == 3
    error = await shell.api.error("POST", f"{shell.url}/exec", 410, json={"command": "true"})
    assert error["code"] == "SESSION_ENDED"
    assert len((await api("GET", shell.url))["commands"]) == 1


async def test_commands_behind_one_that_ends_the_shell_end_too(api, shell):
    await shell.start("read x; exit 5")
    second = await shell.start("echo never")
    commands = (await api("GET", shell.url))["commands"]
    first = f"{shell.url}/command/{commands[0]['id']}"
    await api("POST", f"{first}/input", status=204, json={"data": ""})
    while "exitCode" not in await api("GET", second):
        await asyncio.sleep(0.01)
    assert (await api("GET", first))["exitCode"] == 5


async def test_deleting_a_session_ends_its_processes_and_its_followers(api, http, home):
    shell = Shell(api, f"s-{uuid.uuid4()}")
    await api("POST", "/process/session", status=201, json={"sessionId": shell.name})
    os.mkfifo(home / "pid")
    command = await shell.start(f"trap '' HUP; sleep 60 & echo $! > {home}/pid; wait")
    pid = int((home / "pid").read_text())
    following = asyncio.create_task(follow(http, command))
    waiting = asyncio.create_task(shell.run("echo never"))
    while len((await api("GET", shell.url))["commands"]) < 2:
        await asyncio.sleep(0.01)
    await api("DELETE", shell.url, status=204)
    assert (await following)[1] == 1000
    assert (await waiting)["stdout"] == ""
    await api.error("GET", shell.url, 404)
    while (await api.run(f"kill -0 {pid}"))["exitCode"] == 0:  # until it has been reaped
        await asyncio.sleep(0.01)


async def test_the_entrypoint_runs_from_the_start_and_is_not_listed(tmp_path):
    daemon = start_daemon(tmp_path / "home", entrypoint="echo up; echo $0 >&2; exec sleep 60")
    async with aiohttp.ClientSession(daemon.url) as session:
        api = Api(session)
        assert await api("GET", "/process/session") == []
        entry = await api("GET", "/process/session/entrypoint")
        assert entry["sessionId"] == "entrypoint"
        assert [c["command"] for c in entry["commands"]] == ["echo up; echo $0 >&2; exec sleep 60"]
        while (await api("GET", "/process/session/entrypoint/logs", headers=SDK))["stdout"] != "up\n":
            await asyncio.sleep(0.01)
        await api.error("DELETE", "/process/session/entrypoint", 400)
    assert daemon.stop() == 0
