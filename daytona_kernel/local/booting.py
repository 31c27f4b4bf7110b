"""From a sandbox's record to running processes."""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .clock import Clock
from .daemon import MARKER, Daemon, SocketDir
from .isolation import (
    HOME,
    Isolation,
    LaunchSpec,
    Mount,
    PlainProcesses,
    passed_environment,
    prepare_files,
    program_path,
)
from .limits import Limiter
from .options import ServerOptions
from .python_env import PythonInfo, probe_python, write_environment
from .records import DAEMON_VERSION, SandboxRecord
from .secrets_store import SecretStore
from .upstream import Upstream
from .volumes import VolumeStore


class Sandbox:
    """One sandbox: its record, its files, and its daemon while it runs."""

    def __init__(self, record: SandboxRecord, directory: Path) -> None:
        self.record = record
        self.directory = directory
        self.daemon: Daemon | None = None
        self.upstream: Upstream | None = None
        """Connections to the daemon."""
        self.connections = 0
        """Requests and WebSockets under way that count as activity."""
        self.move: asyncio.Task[None] | None = None
        """The transition under way."""
        self.deleted = False

    @property
    def files(self) -> Path:
        """The sandbox's own file system on the host."""
        return self.directory / "fs"

    @property
    def log_file(self) -> Path:
        """Where the log of the sandbox's build is."""
        return self.directory / "build.log"

    @property
    def running(self) -> bool:
        """Whether requests can be forwarded to the daemon."""
        return self.upstream is not None and self.daemon is not None and self.daemon.alive


@dataclass(frozen=True)
class Booter:
    """Makes a sandbox's files, starts its daemon, and connects to it."""

    options: ServerOptions
    isolation: Isolation
    clock: Clock
    volumes: VolumeStore
    secrets: SecretStore
    limiter: Limiter
    sockets: SocketDir

    async def launch(
        self,
        sandbox_id: str,
        directory: Path,
        python: PythonInfo,
        *,
        bare: bool = False,
        block_network: bool = False,
        mounts: tuple[Mount, ...] = (),
    ) -> Daemon:
        """Start a daemon that waits for its settings. ``OSError``: its files can not be made."""
        files = directory / "fs"
        prepare_files(files, self.isolation.home(files))
        write_environment(files / "venv", self.isolation.venv(files), python, bare=bare)
        spec = LaunchSpec(sandbox_id, files, python, block_network, mounts)
        return await Daemon.launch(spec, self.isolation, self.sockets, directory / "daemon.log")

    async def bring_up(self, sandbox: Sandbox, python: PythonInfo | None = None) -> Daemon:
        """Start the sandbox's daemon, or take the spare one that it has, set it up and connect.

        ``DaemonError``, ``PythonUnusableError``, ``OSError``: it does not start.
        """
        record = sandbox.record
        if python is None:
            python = await probe_python(record.python or self.options.python)
        if sandbox.daemon is None or not sandbox.daemon.alive:
            sandbox.daemon = await self.launch(
                record.id,
                sandbox.directory,
                python,
                bare=record.bare,
                block_network=record.network_block_all,
                mounts=self._mounts(sandbox),
            )
        daemon = sandbox.daemon
        await daemon.configure(self._settings(sandbox, python))
        if self.isolation.own_network and not record.network_block_all:
            # Only now: bwrap fails if somebody else sets the loopback device up while it does.
            await daemon.set_network(on=True)
        self.limiter.apply(record, daemon)
        sandbox.upstream = Upstream(self.sockets.name(record.id))
        return daemon

    def _mounts(self, sandbox: Sandbox) -> tuple[Mount, ...]:
        mounts = self.volumes.mounts(sandbox.record.volumes, self.clock.now())
        if isinstance(self.isolation, PlainProcesses):
            link_volumes(mounts, sandbox.files / "home")
            return ()
        return tuple(mounts)

    def _settings(self, sandbox: Sandbox, python: PythonInfo) -> dict[str, Any]:
        record, files = sandbox.record, sandbox.files
        home, venv = self.isolation.home(files), self.isolation.venv(files)
        env = {
            "LANG": "C.UTF-8",
            **passed_environment(),
            "PATH": program_path(venv, python),
            "HOME": home,
            "USER": "daytona",
            "LOGNAME": "daytona",
            "SHELL": "/bin/bash",
            "VIRTUAL_ENV": venv,
            MARKER: record.id,
        }
        if isinstance(self.isolation, PlainProcesses):
            env["TMPDIR"] = self.isolation.temporary(files)
        env |= {**self.secrets.environment(record.secrets), **record.env}
        return {
            "sandbox_id": record.id,
            "home_dir": home,
            "work_dir": record.work_dir or home,
            "entrypoint": shlex.join(record.entrypoint),
            "python": f"{venv}/bin/python",
            "env": env,
            "version": DAEMON_VERSION,
        }


async def copy_tree(source: Path, target: Path) -> None:
    """Copy a sandbox's files with links, modes and times; shares blocks where the file system can.

    ``OSError``: if something could not be copied, with cp's words.
    """
    target.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - one directory of our own
    arguments = ["cp", "-a", "--reflink=auto", "--sparse=auto", "-T", str(source), str(target)]
    process = await asyncio.create_subprocess_exec(
        *arguments, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    if process.returncode != 0:
        raise OSError(f"files could not be copied: {err.decode(errors='replace').strip()[-300:]}")


def link_volumes(mounts: list[Mount], home: Path) -> None:
    """Show volumes in a sandbox that has no mount namespace: links in its home."""
    for mount in mounts:
        path = home / Path(mount.inside).relative_to(HOME)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            raise OSError(f"{mount.inside} exists already and can not be a mount point")
        path.symlink_to(mount.source)
