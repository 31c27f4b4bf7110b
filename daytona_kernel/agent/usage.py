"""How much CPU and memory the sandbox uses, for Jupyter's ``usage_request``."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

CGROUP = "/sys/fs/cgroup"
_last = {"time": 0.0, "cpu": 0.0}


def usage() -> dict[str, Any]:
    """The content of a ``usage_reply``: of this worker and its children, and of the sandbox around them.

    Memory is in bytes and CPU in percent of one core since the last call. The limits come from the cgroup
    where there is one: ``nproc`` and ``free`` show the host's (Daytona's documentation says so).
    """
    reply: dict[str, Any] = {"hostname": socket.gethostname(), "pid": os.getpid()}
    now, used = time.monotonic(), sum(os.times()[:4])
    elapsed = now - _last["time"] if _last["time"] else 0.0
    reply["kernel_cpu"] = 100.0 * (used - _last["cpu"]) / elapsed if elapsed > 0 else 0.0
    _last.update(time=now, cpu=used)
    reply["kernel_memory"] = _resident_bytes()
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


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:
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
