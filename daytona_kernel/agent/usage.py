"""How much CPU and memory the sandbox uses, for Jupyter's ``usage_request``.

The agent answers between cells. While one runs, the kernel runs this file as a program there: it uses
the standard library alone.
"""

from __future__ import annotations

import os
import socket
import time
from typing import Any

CGROUP = "/sys/fs/cgroup"


def usage(pid: int) -> dict[str, Any]:
    """The content of a ``usage_reply``: of a process and its descendants, and of the sandbox around them.

    Memory is in bytes. ``cpu_seconds`` and ``at`` (of the clock that processes share) are for the kernel,
    which makes ``kernel_cpu`` of two answers: percent of one core. The limits come from the cgroup where
    there is one: ``nproc`` and ``free`` show the host's (Daytona's documentation says so).
    """
    reply: dict[str, Any] = {"hostname": socket.gethostname(), "pid": pid}
    family = _family(pid)
    reply["at"] = time.monotonic()
    reply["cpu_seconds"] = sum(_cpu_seconds(one) for one in family)
    reply["kernel_memory"] = sum(_resident_bytes(one) for one in family)
    reply["cpu_count"] = _cpu_count()
    total, available = _memory()
    if total:
        in_use = total - available
        percent = round(100.0 * in_use / total, 1)
        reply["host_virtual_memory"] = {
            "total": total,
            "available": available,
            "used": in_use,
            "free": available,
            "percent": percent,
        }
    return reply


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` from the third on; empty if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def _family(pid: int) -> list[int]:
    """The process and all below it."""
    children: dict[int, list[int]] = {}
    try:
        for name in os.listdir("/proc"):
            if name.isdigit() and (fields := _stat(int(name))):
                children.setdefault(int(fields[1]), []).append(int(name))
    except OSError:
        pass
    family = [pid]
    for one in family:  # it grows meanwhile
        family += children.get(one, [])
    return family


def _cpu_seconds(pid: int) -> float:
    fields = _stat(pid)
    ticks = sum(map(int, fields[11:15]))  # own and waited-for children's, in user and system mode
    return ticks / os.sysconf("SC_CLK_TCK")


def _resident_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _cpu_count() -> float:
    try:
        with open(f"{CGROUP}/cpu.max") as file:
            quota, period = file.read().split()
        if quota != "max":
            return max(1, round(int(quota) / int(period)))
    except (OSError, ValueError):
        pass
    return os.cpu_count() or 1


def _memory() -> tuple[int, int]:
    """Total and available bytes: the cgroup's limit if it is lower than the machine's memory."""
    values: dict[str, int] = {}
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                key, _, rest = line.partition(":")
                values[key] = int(rest.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return 0, 0
    total, available = values.get("MemTotal", 0), values.get("MemAvailable", 0)
    try:
        with open(f"{CGROUP}/memory.max") as file:
            limit = int(file.read())
        with open(f"{CGROUP}/memory.current") as file:
            current = int(file.read())
    except (OSError, ValueError):
        return total, available
    return (limit, max(0, limit - current)) if limit < total else (total, available)
