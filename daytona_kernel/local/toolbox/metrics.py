"""How busy the sandbox is: numbers from ``/proc``, the control group and the file system.

Inside a control group with limits (a container) its numbers count, otherwise those of the whole machine.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def cpu_limit() -> float:
    """Give the number of CPUs that the sandbox may use at once."""
    quota, _, period = _read(CGROUP / "cpu.max").partition(" ")
    if quota.isdigit() and period.strip().isdigit():
        return int(quota) / int(period)
    try:
        return float(len(os.sched_getaffinity(0)))
    except AttributeError:  # not Linux
        return float(os.cpu_count() or 1)


def cpu_seconds() -> float:
    """Give the CPU time used so far, in seconds."""
    for line in _read(CGROUP / "cpu.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == "usage_usec":
            return int(value) / 1e6
    fields = _read(Path("/proc/stat")).split("\n", 1)[0].split()[1:]
    busy = [int(value) for index, value in enumerate(fields) if index not in (3, 4)]  # not idle, iowait
    return sum(busy) / os.sysconf("SC_CLK_TCK")


def memory() -> tuple[int, int, int]:
    """Give the memory in bytes: (total, used without cache, cache)."""
    info = {}
    for line in _read(Path("/proc/meminfo")).splitlines():
        name, _, value = line.partition(":")
        info[name] = int(value.split()[0]) * 1024
    total, cache = info.get("MemTotal", 0), info.get("Cached", 0) + info.get("Buffers", 0)
    used = total - info.get("MemFree", 0) - cache
    current, limit = _read(CGROUP / "memory.current").strip(), _read(CGROUP / "memory.max").strip()
    if current.isdigit() and limit.isdigit():
        for line in _read(CGROUP / "memory.stat").splitlines():
            if line.startswith("file "):
                cache = int(line.split()[1])
        total, used = int(limit), int(current) - cache
    return total, max(used, 0), cache


def disk(path: str) -> tuple[int, int, int]:
    """Give the size of the file system that holds ``path`` in bytes: (total, used, free for users)."""
    status = os.statvfs(path)
    total, free = status.f_blocks * status.f_frsize, status.f_bfree * status.f_frsize
    return total, total - free, status.f_bavail * status.f_frsize


@dataclass
class CpuSampler:
    """Turns two readings of CPU time into a percentage of the limit."""

    taken_at: float = 0.0
    used: float = 0.0

    def percent(self) -> float:
        """Give the load since the last call; 0 at the first."""
        now, used = time.monotonic(), cpu_seconds()
        elapsed, spent = now - self.taken_at, used - self.used
        first = self.taken_at == 0.0
        self.taken_at, self.used = now, used
        if first or elapsed <= 0:
            return 0.0
        return round(max(0.0, min(100.0, 100.0 * spent / elapsed / cpu_limit())), 2)
