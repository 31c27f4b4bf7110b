"""Control groups for sandboxes: memory, processes, CPU. Both hierarchies, where we may write."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
PREFIX = "daytona-kernel-"
"""How the names of servers' groups begin; the server's process id comes next."""
MAX_PROCESSES = 2048
"""Processes and threads of one sandbox: enough for a browser, too few for a fork bomb to do harm."""
PERIOD_MICROSECONDS = 100_000


class Cgroups:
    """The groups of one server, one below it for each sandbox. `controllers` says what can be limited."""

    def __init__(self, name: str) -> None:
        self._bases = find_bases(name)
        self._made: set[Path] = set()

    @property
    def controllers(self) -> frozenset[str]:
        """Which of ``memory``, ``pids``, ``cpu`` work here."""
        return frozenset(self._bases)

    def limit(self, sandbox_id: str, pids: list[int], *, memory: int, cpus: int) -> None:
        """Put processes into the sandbox's group and set its limits (bytes, CPUs), as far as that works."""
        for controller, (base, unified) in self._bases.items():
            group = base / sandbox_id
            with contextlib.suppress(OSError):
                group.mkdir(parents=True, exist_ok=True)
                self._made.add(group)
            for name, value in settings(controller, unified=unified, memory=memory, cpus=cpus):
                _write(group / name, value)
            for pid in pids:
                _write(group / "cgroup.procs", str(pid))

    def pids(self, sandbox_id: str) -> list[int] | None:
        """All processes of the sandbox; ``None`` where groups do not work."""
        for base, _ in self._bases.values():
            with contextlib.suppress(OSError, ValueError):
                return [int(word) for word in (base / sandbox_id / "cgroup.procs").read_text().split()]
        return None

    def remove(self, sandbox_id: str) -> None:
        """Remove the empty groups of a sandbox whose processes are gone."""
        for base, _ in self._bases.values():
            with contextlib.suppress(OSError):
                (base / sandbox_id).rmdir()

    def close(self) -> None:
        """Remove the server's own groups."""
        for group in self._made:
            with contextlib.suppress(OSError):
                group.rmdir()
        for base, _ in self._bases.values():
            with contextlib.suppress(OSError):
                base.rmdir()


def settings(controller: str, *, unified: bool, memory: int, cpus: int) -> list[tuple[str, str]]:
    """File names and values that set the limits of one controller. Pure."""
    if controller == "pids":
        return [("pids.max", str(MAX_PROCESSES))]
    if controller == "memory":
        if unified:
            return [("memory.max", str(memory)), ("memory.swap.max", "0"), ("memory.oom.group", "0")]
        return [("memory.limit_in_bytes", str(memory)), ("memory.memsw.limit_in_bytes", str(memory))]
    quota = cpus * PERIOD_MICROSECONDS
    if unified:
        return [("cpu.max", f"{quota} {PERIOD_MICROSECONDS}")]
    return [("cpu.cfs_period_us", str(PERIOD_MICROSECONDS)), ("cpu.cfs_quota_us", str(quota))]


def find_bases(name: str) -> dict[str, tuple[Path, bool]]:
    """For each controller this server's directory, made, and whether it is in the unified hierarchy."""
    try:
        lines = OWN.read_text().splitlines()
    except OSError:
        return {}
    found: dict[str, tuple[Path, bool]] = {}
    for line in lines:
        _, controllers, own = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in ("memory", "pids", "cpu"):
                base = ROOT / controller / own.lstrip("/") / name
                if _make(base):
                    found[controller] = (base, False)
        if not controllers and (ROOT / "cgroup.controllers").exists():
            found.update(_unified_bases(own, name))
    return found


def _unified_bases(own: str, name: str) -> dict[str, tuple[Path, bool]]:
    """Processes may live in leaves only, so the groups go next to our own, below a parent of the user's."""
    parent = (ROOT / own.lstrip("/")).parent
    while parent not in (ROOT, ROOT.parent):
        try:
            enabled = (parent / "cgroup.subtree_control").read_text().split()
        except OSError:
            return {}
        base = parent / name
        if "pids" in enabled and os.access(parent / "cgroup.procs", os.W_OK) and _make(base):
            wanted = [controller for controller in ("memory", "pids", "cpu") if controller in enabled]
            for controller in wanted:
                _write(base / "cgroup.subtree_control", f"+{controller}")
            return dict.fromkeys(wanted, (base, True))
        parent = parent.parent
    return {}


def _make(path: Path) -> bool:
    try:
        path.mkdir(exist_ok=True)
    except OSError:
        return False
    remove_abandoned(path.parent)
    return os.access(path, os.W_OK)


def remove_abandoned(directory: Path) -> None:
    """Remove the groups of servers that were killed; those that still hold processes stay."""
    for base in directory.glob(f"{PREFIX}*"):
        pid = base.name[len(PREFIX) :].partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            for group in (*(entry for entry in base.iterdir() if entry.is_dir()), base):
                with contextlib.suppress(OSError):
                    group.rmdir()


def _write(path: Path, text: str) -> None:
    with contextlib.suppress(OSError):
        path.write_text(text)
