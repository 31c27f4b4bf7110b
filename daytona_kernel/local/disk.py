"""How much disk sandboxes use. A quota that needs no privileges: measured now and then, enforced by ending.

The kernel refuses single files over a sandbox's disk size (see ``limits``); this catches many smaller ones.
It is not exact: between two looks a sandbox can go over its size.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

from .booting import Sandbox

LOOK_SECONDS = 10.0
GROWTH_BYTES = 64 * 2**20
"""Sandboxes are measured again only after the file system has lost this much space since the last look."""
GIB = 2**30


class DiskWatch:
    """Finds sandboxes that use more disk than they have."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._last_look = 0.0
        self._last_free: int | None = None

    async def find_oversized(self, sandboxes: Iterable[Sandbox], now: float) -> list[tuple[Sandbox, int]]:
        """Sandboxes over their size with the bytes that they use. `now` is monotonic time, in seconds.

        Cheap: it looks every 10 s, and measures only when something has grown.
        """
        if now - self._last_look < LOOK_SECONDS:
            return []
        self._last_look = now
        facts = os.statvfs(self._directory)
        free = facts.f_bavail * facts.f_frsize
        if self._last_free is not None and self._last_free - free < GROWTH_BYTES:
            self._last_free = max(self._last_free, free)
            return []
        self._last_free = free
        found = []
        for sandbox in sandboxes:
            if sandbox.record.state == "started":
                # With its log, into which its programs can write by the descriptor of their daemon.
                used = await asyncio.to_thread(disk_use, sandbox.directory)
                if used > sandbox.record.disk * GIB:
                    found.append((sandbox, used))
        return found


def disk_use(directory: Path) -> int:
    """Bytes on disk of everything below a directory. Follows no link, counts hard links once."""
    total, seen = 0, set()
    todo = [str(directory)]
    while todo:
        try:
            entries = list(os.scandir(todo.pop()))
        except OSError:
            continue
        for entry in entries:
            try:
                facts = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if entry.is_dir(follow_symlinks=False):
                todo.append(entry.path)
            elif facts.st_nlink > 1:
                if (facts.st_dev, facts.st_ino) in seen:
                    continue
                seen.add((facts.st_dev, facts.st_ino))
            total += facts.st_blocks * 512
    return total
