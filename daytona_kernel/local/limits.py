"""Limits on what a sandbox may use, and freezing one."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal

from .cgroups import MAX_PROCESSES, PREFIX, Cgroups
from .daemon import Daemon, descendants, marked_pids
from .isolation import Isolation, PlainProcesses
from .records import SandboxRecord

log = logging.getLogger(__name__)

GIB = 2**30
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class Limiter:
    """Applies the resources of a sandbox to its processes.

    Memory, CPU and the number of processes through control groups where we may write there, else as far
    as the limits of single processes go; sizes of files always.
    """

    def __init__(self, isolation: Isolation) -> None:
        self._isolation = isolation
        self._cgroups = Cgroups(f"{PREFIX}{os.getpid()}-{os.urandom(3).hex()}")

    @property
    def enforced(self) -> list[str]:
        """What is limited for a whole sandbox here, of ``memory``, ``pids`` and ``cpu``."""
        return sorted(self._cgroups.controllers)

    def apply(self, record: SandboxRecord, daemon: Daemon) -> None:
        """Set the limits of a daemon that was just configured, or changed by a resize."""
        pids = daemon.pids()
        self._cgroups.limit(record.id, pids, memory=record.memory * GIB, cpus=record.cpu)
        for pid in pids:
            self._limit_process(pid, record)

    def _limit_process(self, pid: int, record: SandboxRecord) -> None:
        """Limits of one process, inherited by what it starts; for processes of the sandbox that exist."""
        limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: record.disk * GIB}
        if "pids" not in self._cgroups.controllers and self._isolation.name != "none":
            # Counted per user namespace (Linux 5.14), so within the sandbox; not at all for root's processes.
            limits[resource.RLIMIT_NPROC] = MAX_PROCESSES
        if "memory" not in self._cgroups.controllers:
            limits[resource.RLIMIT_DATA] = record.memory * GIB
        for which, value in limits.items():
            with contextlib.suppress(OSError, ValueError, AttributeError):
                resource.prlimit(pid, which, (value, value))

    def release(self, sandbox_id: str) -> None:
        """Forget a sandbox whose processes are gone."""
        self._cgroups.remove(sandbox_id)

    def close(self) -> None:
        """Remove what was made for limits."""
        self._cgroups.close()

    def freeze(self, sandbox_id: str, daemon: Daemon) -> None:
        """Stop all processes of a sandbox where they are."""
        self._signal(sandbox_id, daemon, signal.SIGSTOP)

    def thaw(self, sandbox_id: str, daemon: Daemon) -> None:
        """Let frozen processes go on."""
        self._signal(sandbox_id, daemon, signal.SIGCONT)

    def _signal(self, sandbox_id: str, daemon: Daemon, number: int) -> None:
        pids = self._cgroups.pids(sandbox_id)
        if pids is None:
            plain = isinstance(self._isolation, PlainProcesses)
            pids = marked_pids(sandbox_id) if plain else daemon.pids()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def resource_use(pid: int) -> dict[str, float | int]:
    """Processes, resident bytes, CPU seconds of a process tree (Linux; elsewhere zeros)."""
    pids = descendants(pid)
    memory, ticks = 0, 0
    for each in pids:
        try:
            with open(f"/proc/{each}/statm") as stream:
                memory += int(stream.read().split()[1]) * PAGE_SIZE
            with open(f"/proc/{each}/stat") as stream:
                fields = stream.read().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        except (OSError, IndexError, ValueError):
            continue
    return {"processes": len(pids), "memory_bytes": memory, "cpu_seconds": round(ticks / CLOCK_TICKS, 2)}
