"""The daemon as a process: how it starts and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from .conftest import Api, start_daemon

ARGV = [sys.executable, "-m", "daytona_kernel.local.toolbox"]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def test_sigterm_ends_every_process_that_came_out_of_it(tmp_path):
    daemon = start_daemon(tmp_path / "home")
    async with aiohttp.ClientSession(daemon.url) as session:
        api = Api(session)
        script = "trap '' TERM HUP; echo $$ > {0}; while :; do sleep 60; done"
        (tmp_path / "stubborn.sh").write_text(script.format(tmp_path / "stubborn.pid"))
        (tmp_path / "detached.sh").write_text(script.format(tmp_path / "detached.pid"))
        for name in ("stubborn", "detached"):
            os.mkfifo(tmp_path / f"{name}.pid")
        await api.run(f"sh {tmp_path}/stubborn.sh > /dev/null 2>&1 &")
        stubborn = int((tmp_path / "stubborn.pid").read_text())
        await api.run(f"setsid -f sh {tmp_path}/detached.sh > /dev/null 2>&1")
        detached = int((tmp_path / "detached.pid").read_text())
    assert alive(stubborn)
    assert alive(detached)
    assert daemon.stop() == 0
    assert not alive(stubborn)
    assert not alive(detached)


async def test_sigterm_ends_it_while_a_command_runs(tmp_path):
    daemon = start_daemon(tmp_path / "home")
    os.mkfifo(tmp_path / "started")
    async with aiohttp.ClientSession(daemon.url) as session:
        command = {"command": f"echo > {tmp_path}/started; sleep 60"}
        call = session.post("/process/execute", json=command)
        task = asyncio.ensure_future(call)
        await asyncio.to_thread((tmp_path / "started").read_text)
        assert await asyncio.to_thread(daemon.stop) == 0
        try:
            answer = await task
        except aiohttp.ClientError:
            return  # cut off: the sandbox is gone
        assert (await answer.json())["exitCode"] == -1


def test_an_inherited_listening_socket_is_served_and_not_passed_on(tmp_path):
    path = tmp_path / "sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    settings = {"sandbox_id": "s", "home_dir": "/tmp", "work_dir": str(tmp_path), "python": sys.executable}
    settings["env"] = {"PATH": os.defpath}
    with (
        listener,
        subprocess.Popen(
            [*ARGV, "--fd", str(listener.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[listener.fileno()],
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({**settings, "something_new": 1}).encode() + b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ready\n"
        body = json.dumps({"command": "ls -l /proc/$$/fd | grep -c socket"})
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(
                f"POST /process/execute HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
                f"Connection: close\r\n\r\n{body}".encode()
            )
            answer = b""
            while data := client.recv(4096):
                answer += data
        assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["result"] == "0\n"
        process.terminate()
        assert process.wait(10) == 0


@pytest.mark.parametrize("line", ["", "{", "[]", "{}", '{"sandbox_id": 1}'])
def test_settings_that_cannot_be_read_are_one_line_on_stderr(line):
    done = subprocess.run([*ARGV, "--port", "0"], input=line, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert done.stderr.startswith("daytona-toolbox: bad settings:")
    assert done.stderr.count("\n") == 1


def test_a_daemon_whose_process_is_asked_to_stop_at_once_stops(tmp_path):
    daemon = start_daemon(tmp_path / "home")
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.process.wait(10) == 0
