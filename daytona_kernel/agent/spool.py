"""Every line of an execution, kept in files until the kernel has it.

The interpreter drops output while nobody listens, and no client can attach again (observed on v0.190.0). So
each line is also appended to a file that the kernel can fetch through the toolbox. The files of one execution
are ``{directory}/{execution id}.{index}``; a new one begins every SEGMENT_BYTES so that what the kernel has
acknowledged can be removed while the cell still runs. The kernel acknowledges by writing ``{directory}/ack``:
``{execution id} {next number}``, a space and a newline at the end (an upload is not atomic).
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from .. import wire
from .descriptors import move_high

SEGMENT_BYTES = 8 * 1024 * 1024
LIMIT_BYTES = 1024 * 1024 * 1024
"""Most that is kept for a kernel that is gone, if it is no more than a quarter of what is free (a sandbox's
disk may have 3 GiB); beyond it the oldest segments go, and the kernel is told."""

MEMORY_BYTES = 8 * 1024 * 1024
"""Most that is kept in memory where no file can be written."""
COPY_BYTES = 1024 * 1024
OPEN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC

KEEP_OLD = 3


class SpoolDirectory:
    """Where this context's recordings are: the first of a few places that can be written to, or none."""

    def __init__(self, name: str) -> None:
        self.path = ""
        for parent in (tempfile.gettempdir(), os.path.expanduser("~/.cache"), "/dev/shm"):  # noqa: S108
            path = os.path.join(parent, f".daytona-kernel-{os.getuid()}", name)
            try:
                os.makedirs(path, mode=0o700, exist_ok=True)
                with open(os.path.join(path, "probe"), "w"):
                    pass
                os.unlink(os.path.join(path, "probe"))
            except OSError:
                continue
            self.path = path
            self._remove_old(os.path.dirname(path))
            return

    def write(self, name: str, value: Any) -> None:
        """Write a small file beside the recordings: what a later kernel should know of this process."""
        if self.path:
            try:
                with open(os.path.join(self.path, name), "w", encoding="utf-8") as file:
                    file.write(wire.dumps(value))
            except OSError:
                pass

    def limit(self, kept: int) -> int:
        """Bytes that may be kept here, of which there are ``kept`` already."""
        try:
            found = os.statvfs(self.path)
        except OSError:
            return LIMIT_BYTES
        return min(LIMIT_BYTES, (found.f_bavail * found.f_frsize + kept) // 4)

    def _remove_old(self, parent: str) -> None:
        """Remove the directories of processes that are gone, but for the newest few: for who looks back."""
        try:
            others = [entry for entry in os.scandir(parent) if entry.is_dir() and entry.path != self.path]
            others.sort(key=lambda entry: entry.stat().st_mtime)
            for entry in [entry for entry in others if not _is_alive(entry.path)][:-KEEP_OLD]:
                shutil.rmtree(entry.path, ignore_errors=True)
        except OSError:
            pass

    def acknowledged(self, execution_id: str) -> int:
        """Number of the first line of the execution that the kernel does not have yet, as it last said."""
        try:
            with open(os.path.join(self.path, "ack"), encoding="ascii") as file:
                acknowledged_id, number, end = file.read(200).split(" ")
        except (OSError, ValueError):
            return 0
        return int(number) if acknowledged_id == execution_id and end == "\n" and number.isdigit() else 0


class Recording:
    """The files of one execution. A failing disk ends them, never the cell: then memory holds the last lines.

    What is in memory only, the kernel gets by sending its request again, not by reading files.
    """

    def __init__(self, directory: SpoolDirectory, execution_id: str) -> None:
        self._directory = directory
        self._id = execution_id
        self._fd = -1
        self._size = 0
        self._segments: list[tuple[int, int, int]] = []  # index, first line number, bytes
        self._memory: deque[tuple[int, bytes]] = deque()  # first line number, lines
        self._memory_bytes = 0
        self._files_end: int | None = None
        """Number of the first line that is not in the files any more."""
        self._open_segment(0, 0)

    def append(self, first_number: int, data: bytes) -> None:
        """Keep some whole lines, the first of which has ``first_number``."""
        if self._files_end is None:
            try:
                self._append_to_file(first_number, data)
                return
            except OSError:
                self._files_end = first_number
                self.close()
        self._memory.append((first_number, data))
        self._memory_bytes += len(data)
        while self._memory_bytes > MEMORY_BYTES and len(self._memory) > 1:
            self._memory_bytes -= len(self._memory.popleft()[1])

    def _append_to_file(self, first_number: int, data: bytes) -> None:
        if self._size >= SEGMENT_BYTES:
            index, first, _ = self._segments[-1]
            self._segments[-1] = (index, first, self._size)
            self._open_segment(index + 1, first_number)
        if self._fd < 0:
            raise OSError("there is no file")
        if os.fstat(self._fd).st_nlink == 0:
            self._write_anew()
        _write_all(self._fd, data)
        self._size += len(data)

    def _write_anew(self) -> None:
        """User code has deleted the open segment: put what it held into a new file of that name."""
        old, path = self._fd, self._path(self._segments[-1][0])
        os.makedirs(self._directory.path, mode=0o700, exist_ok=True)
        new = move_high(os.open(path, OPEN_FLAGS, 0o600))
        try:
            for offset in range(0, self._size, COPY_BYTES):
                _write_all(new, os.pread(old, min(COPY_BYTES, self._size - offset), offset))
        except BaseException:
            os.close(new)
            raise
        self._fd = new
        os.close(old)

    def read(self, number: int) -> Iterator[str]:
        """The lines from ``number`` on that are still kept."""
        for index, first, _ in self._segments:
            end = None if self._files_end is None else max(0, self._files_end - first)
            try:
                with open(self._path(index), encoding="ascii", newline="\n") as file:
                    yield from itertools.islice(file, min(max(0, number - first), end or sys.maxsize), end)
            except OSError:
                continue
        for first, data in self._memory:
            yield from data.decode("ascii").splitlines(keepends=True)[max(0, number - first) :]

    def position(self) -> tuple[int, int]:
        """Segment and byte at which the recording ends."""
        return (self._segments[-1][0] if self._segments else 0, self._size)

    def acknowledged(self) -> int:
        """Number of the first line that the kernel does not have yet."""
        return self._directory.acknowledged(self._id)

    def trim(self, number: int) -> None:
        """Remove the segments all of whose lines come before ``number``."""
        while len(self._memory) > 1 and self._memory[1][0] <= number:
            self._memory_bytes -= len(self._memory.popleft()[1])
        while len(self._segments) > 1 and self._segments[1][1] <= number:
            self._remove(self._segments.pop(0)[0])

    def shrink(self) -> None:
        """Hold the limit for a kernel that is gone: remove the oldest segments."""
        kept = sum(size for *_, size in self._segments)
        while len(self._segments) > 1 and kept > self._directory.limit(kept):
            kept -= self._segments[0][2]
            self._remove(self._segments.pop(0)[0])

    def close(self) -> None:
        """Close the open segment; its file stays."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            try:
                os.close(fd)
            except OSError:  # user code has closed it
                pass

    def discard(self) -> None:
        """Remove the files: the kernel has what is in them."""
        self.close()
        for index, *_ in self._segments:
            self._remove(index)
        self._segments.clear()
        self._memory.clear()

    def _open_segment(self, index: int, first_number: int) -> None:
        self.close()
        if not self._directory.path:
            return
        try:
            self._fd = move_high(os.open(self._path(index), OPEN_FLAGS, 0o600))
        except OSError:
            try:  # user code may have removed the temporary directory
                os.makedirs(self._directory.path, mode=0o700, exist_ok=True)
                self._fd = move_high(os.open(self._path(index), OPEN_FLAGS, 0o600))
            except OSError:
                return
        self._size = 0
        self._segments.append((index, first_number, 0))

    def _path(self, index: int) -> str:
        return os.path.join(self._directory.path, f"{self._id}.{index}")

    def _remove(self, index: int) -> None:
        try:
            os.unlink(self._path(index))
        except OSError:
            pass


def _is_alive(path: str) -> bool:
    """Whether the process whose directory this is still exists; one that has not said yet may."""
    try:
        with open(os.path.join(path, "agent.json"), encoding="utf-8") as file:
            os.kill(int(json.load(file)["pid"]), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        return os.path.exists(path) and os.stat(path).st_mtime > time.time() - 3600
    return True


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
