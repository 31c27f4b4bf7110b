"""Limits on what a sandbox may use, and freezing one."""

from __future__ import annotations

import contextlib
import logging
import os
import signal

from .daemon import Daemon, child_pids, marked_pids
from .isolation import Isolation, PlainProcesses
from .records import SandboxRecord

log = logging.getLogger(__name__)

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class Limiter:
    """Applies the resources of a sandbox to its processes."""

    def __init__(self, isolation: Isolation) -> None:
        self._isolation = isolation

    def apply(self, record: SandboxRecord, daemon: Daemon) -> None:
        """Set the limits of a daemon that was just configured."""

    def release(self, sandbox_id: str) -> None:
        """Forget a sandbox whose processes are gone."""

    def close(self) -> None:
        """Remove what was made for limits."""

    def freeze(self, sandbox_id: str, daemon: Daemon) -> None:
        """Stop all processes of a sandbox where they are."""
        self._signal(sandbox_id, daemon, signal.SIGSTOP)

    def thaw(self, sandbox_id: str, daemon: Daemon) -> None:
        """Let frozen processes go on."""
        self._signal(sandbox_id, daemon, signal.SIGCONT)

    def _signal(self, sandbox_id: str, daemon: Daemon, number: int) -> None:
        if isinstance(self._isolation, PlainProcesses):
            pids = marked_pids(sandbox_id)
        else:
            inner = daemon.inner_pid()
            pids = [] if inner is None else descendants(inner)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def descendants(pid: int) -> list[int]:
    """A process and everything below it."""
    found, todo = [], [pid]
    while todo:
        current = todo.pop()
        found.append(current)
        todo += child_pids(current)
    return found


def resource_use(pid: int) -> dict[str, float | int]:
    """Processes, resident bytes and CPU seconds of a process tree (Linux; elsewhere zeros)."""
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
