"""Find this user's local sandbox server, or start it. Standard library only, and quick to import.

One server per user: its runtime file (0600, in a 0700 directory) has the address and the key. Whoever wants
to start one takes a lock first, so two kernels that start at once get the same server. A runtime file whose
server is gone, or whose port belongs to somebody else by now, is replaced.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .paths import LocalPaths, local_paths

PROBE_SECONDS = 5.0
START_SECONDS = 60.0
STOP_SECONDS = 20.0
LINGER_SECONDS = 3.0


class LauncherError(Exception):
    """The local sandbox server could not be started or stopped; the text says why and what to look at."""


@dataclass(frozen=True)
class LocalServer:
    """A running local sandbox server."""

    api_url: str
    api_key: str
    pid: int
    isolation: str
    """``bubblewrap`` or ``none``."""
    advertise: str = ""
    started: bool = False
    """Whether this call started it."""

    def __repr__(self) -> str:
        return f"LocalServer(api_url={self.api_url!r}, pid={self.pid}, isolation={self.isolation!r})"

    def environment(self) -> dict[str, str]:
        """The variables with which any Daytona SDK uses this server."""
        return {
            "DAYTONA_API_URL": self.api_url,
            "DAYTONA_API_KEY": self.api_key,
            "NO_PROXY": no_proxy(os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""),
        }


def no_proxy(current: str) -> str:
    """`current` with the loopback names added."""
    names = [name.strip() for name in current.split(",") if name.strip()]
    return ",".join(dict.fromkeys([*names, "127.0.0.1", "localhost", ".localhost"]))


def find_running(paths: LocalPaths | None = None) -> LocalServer | None:
    """The running server, asked whether it is really there; ``None`` if there is none."""
    paths = paths or local_paths()
    facts = _read_runtime_file(paths)
    if facts is None:
        return None
    try:
        status = _call(facts, "GET", "/api/local/status")
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return None
    if status.get("instance") != facts.get("instance"):
        return None
    return LocalServer(
        api_url=str(facts["api_url"]),
        api_key=str(facts["api_key"]),
        pid=int(facts["pid"]),
        isolation=str(facts.get("isolation", "none")),
        advertise=str(facts.get("advertise", "")),
    )


def status(paths: LocalPaths | None = None) -> dict[str, Any] | None:
    """What the running server says about itself and its sandboxes; ``None`` if there is none."""
    facts = _read_runtime_file(paths or local_paths())
    if facts is None:
        return None
    try:
        return _call(facts, "GET", "/api/local/status")
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return None


def environment(server: LocalServer) -> dict[str, str]:
    """The variables with which any Daytona SDK uses `server`."""
    return server.environment()


def ensure_running(paths: LocalPaths | None = None, arguments: Sequence[str] = ()) -> LocalServer:
    """The running server; started first if there is none.

    Waits up to a minute for another process that is just starting one, and as long for its own. `arguments`
    are options of ``serve`` for a server that has to be started.

    ``LauncherError``: if it does not start.
    """
    paths = paths or local_paths()
    found = find_running(paths)
    if found is not None:
        return found
    paths.create()
    with _locked(paths.lock_file):
        found = find_running(paths)  # somebody else may have been faster
        if found is not None:
            return found
        if _is_held(paths):
            # A server that is just ending, or one that lost its runtime file or does not answer any more.
            log_line = "a local sandbox server that does not answer is replaced\n"
            if not _wait_gone(paths, LINGER_SECONDS):
                with paths.log_file.open("a") as log:
                    log.write(log_line)
                _signal_holder(paths, signal.SIGTERM)
                _end_holder(paths, ask_first=False)
        _start(paths, arguments)
        found = find_running(paths)
        if found is None:
            raise LauncherError(f"the local sandbox server started and is gone again; see {paths.log_file}")
        return LocalServer(
            found.api_url, found.api_key, found.pid, found.isolation, found.advertise, started=True
        )


def stop(paths: LocalPaths | None = None) -> bool:
    """End the running server and all its sandboxes; returns when its process is gone.

    ``False``: there was none. ``LauncherError``: it did not end within 20 seconds, not even killed.
    """
    paths = paths or local_paths()
    facts = _read_runtime_file(paths)
    if facts is not None and find_running(paths) is not None:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            _call(facts, "POST", "/api/local/stop")
    elif not _is_held(paths):
        paths.server_file.unlink(missing_ok=True)
        return False
    _end_holder(paths, ask_first=facts is None)
    return True


def _end_holder(paths: LocalPaths, *, ask_first: bool) -> None:
    """Wait for the end of the process that holds the server's lock; ask and kill it if that takes long."""
    if ask_first:
        _signal_holder(paths, signal.SIGTERM)
    if not _wait_gone(paths, STOP_SECONDS):
        _signal_holder(paths, signal.SIGKILL)
        if not _wait_gone(paths, 5.0):
            raise LauncherError(f"the local sandbox server does not end; see {paths.log_file}")
    paths.server_file.unlink(missing_ok=True)


def _signal_holder(paths: LocalPaths, number: int) -> None:
    """Send a signal to the process that wrote its name into the lock, if it is still the same one."""
    try:
        facts = json.loads(paths.held_file.read_text())
        pid = int(facts["pid"])
        stat = Path(f"/proc/{pid}/stat").read_text()
        same = stat.rpartition(")")[2].split()[19] == str(facts["start_time"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return
    if same:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _is_held(paths: LocalPaths) -> bool:
    """Whether a server process exists, be it one that does not answer."""
    try:
        with paths.held_file.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _wait_gone(paths: LocalPaths, seconds: float) -> bool:
    """Wait until nobody holds the server's lock any more: it is held until the very end of the process."""
    deadline = time.monotonic() + seconds
    while _is_held(paths):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _read_runtime_file(paths: LocalPaths) -> dict[str, Any] | None:
    try:
        facts = json.loads(paths.server_file.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(facts, dict) or facts.get("version") != 1:
        return None
    return facts


def _call(facts: dict[str, Any], method: str, path: str) -> dict[str, Any]:
    """One request to the server; never through a proxy."""
    connection = http.client.HTTPConnection("127.0.0.1", int(facts["port"]), timeout=PROBE_SECONDS)
    try:
        connection.request(method, path, headers={"Authorization": f"Bearer {facts['api_key']}"})
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise ValueError(f"status {answer.status}")
    found = json.loads(body)
    if not isinstance(found, dict):
        raise ValueError("not the local sandbox server")
    return found


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    deadline = time.monotonic() + START_SECONDS
    with path.open("ab") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise LauncherError(
                        f"another process has been starting the server for long ({path})"
                    ) from None
                time.sleep(0.02)
        yield


def _start(paths: LocalPaths, arguments: Sequence[str]) -> None:
    """Start a detached server and wait until it listens."""
    package_parent = str(Path(__file__).resolve().parents[2])
    env = dict(os.environ)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [package_parent, env.get("PYTHONPATH", "")]))
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    command = [
        sys.executable,
        "-m",
        "daytona_kernel.local",
        "serve",
        "--ready-fd",
        str(write_end),
        *arguments,
    ]
    try:
        with paths.log_file.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(write_end,),
                start_new_session=True,
                cwd="/",
                env=env,
            )
    finally:
        os.close(write_end)
    try:
        message = _read_ready(read_end)
    finally:
        os.close(read_end)
    process.wait()  # it has forked, and ended at once
    if message != "ready":
        _signal_holder(paths, signal.SIGKILL)
        why = message or f"it said nothing; see {paths.log_file}"
        raise LauncherError(f"the local sandbox server did not start: {why}")


def _read_ready(descriptor: int) -> str:
    """What the starting server writes: ``ready``, a reason, or nothing if it dies or a minute passes."""
    deadline = time.monotonic() + START_SECONDS
    received = b""
    while not received.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            return "it did not get ready within a minute"
        chunk = os.read(descriptor, 4096)
        if not chunk:
            break
        received += chunk
    return received.decode(errors="replace").strip()
