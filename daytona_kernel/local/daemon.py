"""One sandbox's daemon as a process: start it, tell it its settings, end it and everything below it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from pathlib import Path
from typing import Any

from .isolation import Isolation, LaunchSpec, PlainProcesses, daemon_environment
from .network import NetworkError, NetworkLink, connect_namespace, find_slirp, read_child_pid

log = logging.getLogger(__name__)

MARKER = "DAYTONA_SANDBOX_ID"
"""Environment variable of every process of a sandbox."""

READY_SECONDS = 30.0
STOP_SECONDS = 1.5
COMPLAINT_BYTES = 16 * 1024
"""The end of a daemon's log that is looked at: the sandbox can make it as long as it likes."""


class DaemonError(Exception):
    """The daemon did not start; the text has the last lines of its log."""


class SocketDir:
    """The directory of the daemons' sockets, with names short enough for a socket address (108 bytes)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._base = str(path)
        self._descriptor: int | None = None
        if len(os.fsencode(path)) > 60 and os.path.isdir("/proc/self/fd"):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            self._base = f"/proc/self/fd/{self._descriptor}"

    def name(self, sandbox_id: str) -> str:
        """The address of a sandbox's socket, for this process alone."""
        return f"{self._base}/{sandbox_id}.sock"

    def listen(self, sandbox_id: str) -> socket.socket:
        """A listening socket that only this user can reach."""
        self.remove(sandbox_id)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(self.name(sandbox_id))
            os.chmod(self.name(sandbox_id), 0o600)
            sock.listen(1024)
        except OSError:
            sock.close()
            raise
        return sock

    def remove(self, sandbox_id: str) -> None:
        """Remove a socket that nobody listens on any more."""
        (self.path / f"{sandbox_id}.sock").unlink(missing_ok=True)

    def close(self) -> None:
        """Remove all sockets and let go of the directory."""
        for path in self.path.glob("*.sock"):
            path.unlink(missing_ok=True)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Daemon:
    """A daemon process. Made by :meth:`launch`, usable after :meth:`configure`, gone after :meth:`stop`."""

    def __init__(
        self,
        *,
        spec: LaunchSpec,
        isolation: Isolation,
        process: asyncio.subprocess.Process,
        sockets: SocketDir,
        log_file: Path,
        first_pid: int | None = None,
    ) -> None:
        self.spec = spec
        self.exited = asyncio.get_running_loop().create_future()
        """Done with the exit code when the process is gone."""
        self._isolation = isolation
        self._process = process
        self._sockets = sockets
        self._log_file = log_file
        self._first_pid = first_pid
        """With bubblewrap: process 1 of the sandbox, as the host counts."""
        self._link: NetworkLink | None = None
        self._watcher = asyncio.create_task(self._watch())

    @classmethod
    async def launch(
        cls, spec: LaunchSpec, isolation: Isolation, sockets: SocketDir, log_file: Path
    ) -> Daemon:
        """Start the process. It waits for its settings before it does anything.

        ``OSError``: if the program can not be started.
        """
        env = {**daemon_environment(), MARKER: spec.sandbox_id}
        if isinstance(isolation, PlainProcesses):
            env |= {"HOME": isolation.home(spec.files), "TMPDIR": isolation.temporary(spec.files)}
        plain = isinstance(isolation, PlainProcesses)
        info_read, info_write = os.pipe()
        try:
            with (
                sockets.listen(spec.sandbox_id) as listener,
                log_file.open("ab") as stderr,
                isolation.command(spec, listener.fileno(), info_write) as (command, descriptors),
            ):
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=stderr,
                    env=env,
                    cwd=isolation.home(spec.files) if plain else "/",
                    pass_fds=(listener.fileno(), *descriptors),
                    start_new_session=True,
                )
            os.close(info_write)
            info_write = -1
            first_pid = None if plain else await read_child_pid(info_read, READY_SECONDS)
        finally:
            os.close(info_read)
            if info_write >= 0:
                os.close(info_write)
        return cls(
            spec=spec,
            isolation=isolation,
            process=process,
            sockets=sockets,
            log_file=log_file,
            first_pid=first_pid,
        )

    @property
    def pid(self) -> int:
        """Process id on the host (with bubblewrap: of the outer bwrap)."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return not self.exited.done()

    async def configure(self, settings: dict[str, Any]) -> None:
        """Tell the daemon its settings and wait until it listens.

        ``DaemonError``: if it ends or stays silent for 30 s instead.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            first = await asyncio.wait_for(stdout.readline(), READY_SECONDS)
            if first.split() != [b"here"]:  # with which all is mounted, and no program of the sandbox has run
                raise DaemonError(self._complaint())
            self._check_mounts()
            stdin.write(json.dumps(settings).encode() + b"\n")
            await stdin.drain()
            stdin.close()
            line = await asyncio.wait_for(stdout.readline(), READY_SECONDS)
        except (OSError, asyncio.TimeoutError) as exc:
            raise DaemonError(self._complaint()) from exc
        if line.split()[:1] != [b"ready"]:
            raise DaemonError(self._complaint())

    def _check_mounts(self) -> None:
        """See that what was mounted is what was meant. ``DaemonError``: it is not."""
        for mount in self.spec.mounts:
            if mount.identity is None or self._first_pid is None:
                continue
            facts = os.stat(f"/proc/{self._first_pid}/root{mount.inside}")
            if (facts.st_dev, facts.st_ino) != mount.identity:
                raise DaemonError(f"{mount.inside} is not the volume: a link was put in its place")

    def _complaint(self) -> str:
        try:
            with self._log_file.open("rb") as log_file:
                log_file.seek(max(0, log_file.seek(0, os.SEEK_END) - COMPLAINT_BYTES))
                lines = log_file.read().decode(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        detail = "; ".join(lines[-3:])[-400:] or "it said nothing"
        return f"the sandbox's daemon did not start: {detail}"

    async def _watch(self) -> None:
        code = await self._process.wait()
        self._sockets.remove(self.spec.sandbox_id)
        if not self.exited.done():
            self.exited.set_result(code)

    async def set_network(self, *, on: bool) -> None:
        """Give a sandbox with a network namespace of its own a way out, or take it away.

        ``DaemonError``: it can not be given.
        """
        if not on and self._link is not None:
            link, self._link = self._link, None
            await link.close()
        elif on and self._link is None and self._first_pid is not None:
            program = find_slirp()
            if program is None:
                raise DaemonError("slirp4netns is not installed any more")
            try:
                self._link = await connect_namespace(program, self._first_pid)
            except NetworkError as exc:
                raise DaemonError(str(exc)) from exc

    def inner_pid(self) -> int | None:
        """Process id of the Python daemon itself as the host sees it; ``None`` when it is gone."""
        if not self.alive:
            return None
        if self._first_pid is None:
            return self.pid
        children = child_pids(self._first_pid)
        return children[0] if children else None

    def pids(self) -> list[int]:
        """All processes of the sandbox that descend from its first one."""
        return descendants(self._first_pid or self.pid) if self.alive else []

    async def stop(self, grace: float = STOP_SECONDS) -> None:
        """End the sandbox's processes: ask, wait up to `grace` seconds, kill. Returns when all are gone."""
        if self.alive and grace > 0:
            inner = self.inner_pid()
            if inner is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(inner, signal.SIGTERM)
                await asyncio.wait([self.exited], timeout=grace)
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            await asyncio.wait([self.exited])
        if self._first_pid is not None:
            # The outer bwrap is gone; its death kills process 1 of the sandbox, and so all others there.
            await wait_for_exit(self._first_pid, STOP_SECONDS)
        await self.set_network(on=False)
        if isinstance(self._isolation, PlainProcesses):
            kill_marked(self.spec.sandbox_id)
        self._sockets.remove(self.spec.sandbox_id)
        await self._watcher


async def wait_for_exit(pid: int, seconds: float) -> None:
    """Wait for the end of a process that is no child of ours, or for `seconds`."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, gone.set)
    try:
        await asyncio.wait_for(gone.wait(), seconds)
    except asyncio.TimeoutError:
        log.warning("process %d of a sandbox does not end", pid)
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def descendants(pid: int) -> list[int]:
    """A process and everything below it (Linux; elsewhere the process alone)."""
    found, todo = [], [pid]
    while todo:
        current = todo.pop()
        found.append(current)
        todo += child_pids(current)
    return found


def child_pids(pid: int) -> list[int]:
    """Children of a process (Linux; elsewhere empty)."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def marked_pids(sandbox_id: str) -> list[int]:
    """Processes whose environment says that they belong to this sandbox (Linux; elsewhere empty)."""
    needle = f"{MARKER}={sandbox_id}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if needle in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def kill_marked(sandbox_id: str) -> None:
    """Kill what a plain sandbox left behind in sessions of its own."""
    for _ in range(3):  # a process may fork while we look
        pids = [pid for pid in marked_pids(sandbox_id) if pid != os.getpid()]
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
