"""One server per user: started on demand, found again, healed, ended without a trace. Real processes."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daytona_kernel.local import cli, launcher
from daytona_kernel.local.paths import LocalPaths, local_paths

ENSURE = "from daytona_kernel.local import launcher; print(launcher.ensure_running().pid)"


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPaths]:
    """A private directory for the server, which is ended after the test."""
    monkeypatch.setenv("DAYTONA_LOCAL_DIR", str(tmp_path / "local"))
    monkeypatch.setenv("DAYTONA_LOCAL_POOL", "1")
    found = local_paths()
    yield found
    launcher.stop(found)


def call(server: launcher.LocalServer, method: str, path: str, body: Any = None) -> Any:
    """One control plane call."""
    port = int(server.api_url.rpartition(":")[2].partition("/")[0])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Authorization": f"Bearer {server.api_key}"}
    connection.request(method, f"/api{path}", None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if text else None


def processes_of(directory: Path) -> list[int]:
    """Processes of the server or of its sandboxes: their environment or open files name the directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            text = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            links = [os.readlink(link) for link in (entry / "fd").iterdir()]
        except OSError:
            continue
        if int(entry.name) == os.getpid():
            continue
        server = b"daytona_kernel.local" in text and f"DAYTONA_LOCAL_DIR={directory}".encode() in text
        if server or any(link.startswith(str(directory)) for link in links):
            found.append(int(entry.name))
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Poll for something that other processes bring about and nobody announces."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_server_starts_once_and_is_found_again(paths: LocalPaths) -> None:
    """The second call finds the first one's server; files are the user's alone."""
    first = launcher.ensure_running()
    second = launcher.ensure_running()
    assert (first.started, second.started, first.pid) == (True, False, second.pid)
    assert stat.S_IMODE(paths.server_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(paths.runtime_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(paths.state_dir.stat().st_mode) == 0o700
    assert first.api_key not in repr(first)
    assert first.api_key not in paths.log_file.read_text()


def test_kernels_that_start_at_once_get_one_server(paths: LocalPaths) -> None:
    """Four processes, one server."""

    def ensure(_: int) -> str:
        return subprocess.check_output([sys.executable, "-c", ENSURE], text=True).strip()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        pids = set(pool.map(ensure, range(4)))
    assert len(pids) == 1


def test_stop_leaves_nothing(paths: LocalPaths, tmp_path: Path) -> None:
    """No process, runtime file, socket, or sandbox directory; a second stop says there was none."""
    server = launcher.ensure_running()
    _, sandbox = call(server, "POST", "/sandbox", {"autoDeleteInterval": 0})
    assert sandbox["state"] == "started"
    assert len(processes_of(tmp_path / "local")) >= 2
    assert launcher.stop() is True
    assert processes_of(tmp_path / "local") == []
    assert not paths.server_file.exists()
    assert list(paths.socket_dir.iterdir()) == []
    assert list((paths.state_dir / "sandboxes").iterdir()) == []
    assert launcher.stop() is False
    assert launcher.status() is None


@pytest.mark.parametrize("isolation", ["auto", "none"])
def test_killed_server_leaves_no_process_and_is_replaced(
    paths: LocalPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolation: str
) -> None:
    """After kill -9 everything dies; the next server finds kept sandboxes stopped, with their files."""
    monkeypatch.setenv("DAYTONA_LOCAL_ISOLATION", isolation)
    server = launcher.ensure_running()
    _, kept = call(server, "POST", "/sandbox", {"name": "kept"})
    _, lost = call(server, "POST", "/sandbox", {"autoDeleteInterval": 0})
    files = paths.state_dir / "sandboxes" / kept["id"] / "fs" / "home"
    (files / "note").write_text("still here")
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: processes_of(tmp_path / "local") == [])
    again = launcher.ensure_running()
    assert again.started is True
    assert again.pid != server.pid
    assert again.api_key != server.api_key
    assert again.api_url == server.api_url
    _, found = call(again, "GET", "/sandbox/kept")
    assert found["state"] == "stopped"
    assert call(again, "GET", f"/sandbox/{lost['id']}")[0] == 404
    assert call(again, "POST", "/sandbox/kept/start")[1]["state"] == "started"
    assert (files / "note").read_text() == "still here"


@pytest.mark.parametrize("damage", ["dead pid", "garbage", "wrong key", "foreign port", "silent port"])
def test_stale_runtime_files_are_healed(
    paths: LocalPaths, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """Whatever the runtime file says, the caller gets a server that works."""
    monkeypatch.setattr(launcher, "PROBE_SECONDS", 0.5)
    monkeypatch.setattr(launcher, "LINGER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        paths.create()
        facts = {
            "version": 1,
            "pid": 2**22 - 1,
            "port": listener.getsockname()[1],
            "api_key": "k",
            "api_url": "x",
        }
        if damage == "dead pid":
            facts["port"] = 1
        if damage == "wrong key":
            facts = {**facts, "port": _port_of(launcher.ensure_running())}
        if damage == "foreign port":
            listener.close()
            other = subprocess.Popen(
                [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(facts["port"])],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        paths.server_file.write_text("{" if damage == "garbage" else json.dumps(facts))
        try:
            server = launcher.ensure_running()
            assert call(server, "GET", "/sandbox")[0] == 200
        finally:
            if damage == "foreign port":
                other.kill()
                other.wait()


def _port_of(server: launcher.LocalServer) -> int:
    return int(server.api_url.rpartition(":")[2].partition("/")[0])


def test_server_that_hangs_is_replaced(paths: LocalPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped process answers nothing: it is killed and a new one takes its place."""
    for name, value in (("PROBE_SECONDS", 0.3), ("LINGER_SECONDS", 0.1), ("STOP_SECONDS", 0.3)):
        monkeypatch.setattr(launcher, name, value)
    server = launcher.ensure_running()
    os.kill(server.pid, signal.SIGSTOP)
    again = launcher.ensure_running()
    assert again.pid != server.pid
    assert call(again, "GET", "/sandbox")[0] == 200


def test_server_leaves_when_nobody_needs_it(paths: LocalPaths, tmp_path: Path) -> None:
    """Idle: gone by itself, with everything. A started sandbox keeps it."""
    server = launcher.ensure_running(arguments=["--idle-minutes", "0.02"])
    _, sandbox = call(server, "POST", "/sandbox", {})
    time.sleep(1.5)  # longer than the idle time; nothing can announce that something does not happen
    assert launcher.find_running() is not None
    call(server, "DELETE", f"/sandbox/{sandbox['id']}")
    wait_until(lambda: processes_of(tmp_path / "local") == [])
    assert not paths.server_file.exists()
    assert "idle for 0.02 minutes" in paths.log_file.read_text()


def test_sigterm_ends_everything_gracefully(paths: LocalPaths, tmp_path: Path) -> None:
    """SIGTERM: sandboxes are stopped, kept ones stay on disk as stopped."""
    server = launcher.ensure_running()
    _, sandbox = call(server, "POST", "/sandbox", {})
    os.kill(server.pid, signal.SIGTERM)
    wait_until(lambda: processes_of(tmp_path / "local") == [])
    record = json.loads((paths.state_dir / "sandboxes" / sandbox["id"] / "sandbox.json").read_text())
    assert record["state"] == "stopped"


def test_sandbox_of_a_dead_owner_disappears(paths: LocalPaths) -> None:
    """The label with the owner's pid: when that process is gone, so is the sandbox, soon."""
    server = launcher.ensure_running()
    owner = subprocess.Popen(["sleep", "1000"])
    start = Path(f"/proc/{owner.pid}/stat").read_text().rpartition(")")[2].split()[19]
    label = {"daytona-kernel.owner-pid": f"{owner.pid}:{start}"}
    _, sandbox = call(server, "POST", "/sandbox", {"labels": label})
    assert call(server, "GET", f"/sandbox/{sandbox['id']}")[1]["state"] == "started"
    owner.kill()
    owner.wait()
    wait_until(lambda: call(server, "GET", f"/sandbox/{sandbox['id']}")[0] == 404)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--isolation", "bubblewrap"], "bubblewrap"),
        (["--advertise", "nonsense"], "--advertise"),
        (["--port", "1"], "port"),
    ],
)
def test_start_that_fails_says_why(
    paths: LocalPaths, monkeypatch: pytest.MonkeyPatch, arguments: list[str], word: str
) -> None:
    """The reason reaches the caller in one sentence."""
    if "bubblewrap" in arguments:
        monkeypatch.setenv("PATH", "/nonexistent")
    if "1" in arguments:
        listener = socket.create_server(("127.0.0.1", 0))
        arguments = ["--port", str(listener.getsockname()[1])]
    with pytest.raises(launcher.LauncherError, match=word):
        launcher.ensure_running(arguments=arguments)
    if word == "port":
        listener.close()
    assert launcher.find_running() is None


def test_newer_state_is_refused(paths: LocalPaths) -> None:
    """A state directory of a later version is not touched."""
    paths.create()
    (paths.state_dir / "VERSION").write_text("99\n")
    with pytest.raises(launcher.LauncherError, match="newer"):
        launcher.ensure_running()


def test_damaged_records_are_cleaned_up(paths: LocalPaths) -> None:
    """Half-written sandboxes, snapshots and volumes of a crash do not stop the server."""
    paths.create()
    for kind, name in (("sandboxes", "sandbox"), ("snapshots", "snapshot"), ("volumes", "volume")):
        for text in ("{", '{"id": 1}', None):
            directory = paths.state_dir / kind / f"broken-{text}".replace("/", "").replace("{", "")
            directory.mkdir(parents=True, exist_ok=True)
            if text is not None:
                (directory / f"{name}.json").write_text(text)
    server = launcher.ensure_running()
    assert call(server, "GET", "/sandbox")[1]["items"] == []
    assert list((paths.state_dir / "volumes").iterdir()) == []


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "daytona_kernel.local", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_line(paths: LocalPaths) -> None:
    """start, status, env, logs, stop as a person uses them."""
    assert run_cli("status").returncode == 3
    assert json.loads(run_cli("status", "--json").stdout) == {"running": False}
    started = run_cli("start")
    assert (started.returncode, "runs (process" in started.stdout) == (0, True)
    assert "runs already" in run_cli("start").stdout
    env = subprocess.check_output(
        [
            "sh",
            "-c",
            f'eval "$({sys.executable} -m daytona_kernel.local env)"; echo $DAYTONA_API_URL; echo $NO_PROXY',
        ],
        text=True,
        env={**os.environ, "NO_PROXY": "example.com"},
    ).split()
    server = launcher.ensure_running()
    assert env == [server.api_url, "example.com,127.0.0.1,localhost,.localhost"]
    call(server, "POST", "/sandbox", {"name": "seen"})
    shown = run_cli("status")
    assert (shown.returncode, "seen" in shown.stdout, "started" in shown.stdout) == (0, True, True)
    facts = json.loads(run_cli("status", "--json").stdout)
    assert facts["sandboxes"][0]["processes"] >= 1
    assert server.api_key not in json.dumps(facts)
    assert "listening" in run_cli("logs").stdout
    assert len(run_cli("logs", "-n", "1").stdout.splitlines()) == 1
    assert "has stopped" in run_cli("stop").stdout
    assert "No local sandbox server" in run_cli("stop").stdout


def test_foreground_server_ends_with_ctrl_c(paths: LocalPaths) -> None:
    """It logs to stderr, and SIGINT ends it with code 0."""
    process = subprocess.Popen(
        [sys.executable, "-m", "daytona_kernel.local", "start", "--foreground"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "Ctrl-C ends it" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, "stopping: signal SIGINT" in err) == (0, True)


def test_advertised_url_is_what_clients_are_told(paths: LocalPaths) -> None:
    """Behind a proxy, toolbox and preview addresses are the proxy's."""
    server = launcher.ensure_running(arguments=["--advertise", "https://box.example:8443"])
    _, sandbox = call(server, "POST", "/sandbox", {})
    assert sandbox["toolboxProxyUrl"] == "https://box.example:8443/toolbox"
    _, link = call(server, "GET", f"/sandbox/{sandbox['id']}/ports/80/preview-url")
    assert link["url"] == f"https://80-{sandbox['id']}.box.example:8443"


@pytest.mark.parametrize("shell", ["sh", "fish", "powershell", "json"])
def test_environment_is_quoted_for_each_shell(shell: str) -> None:
    """A value with a quote and a space stays one value."""
    text = cli.format_environment({"A": "it's b"}, shell)
    assert "A" in text
    assert "b" in text
    if shell == "sh":
        assert subprocess.check_output(["sh", "-c", f'{text}\nprintf %s "$A"'], text=True) == "it's b"
    if shell == "json":
        assert json.loads(text) == {"A": "it's b"}
