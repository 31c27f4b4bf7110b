"""Every line of an execution, kept in files until the kernel has it.

The interpreter drops output while nobody listens, and no client can attach again (observed on v0.190.0). So
each line is also appended to a file that the kernel can fetch through the toolbox. The files of one execution
are ``{directory}/{execution id}.{index}``; a new one begins every SEGMENT_BYTES so that what the kernel has
acknowledged can be removed while the cell still runs. The kernel acknowledges by writing ``{directory}/ack``:
``{execution id} {next number}``, a space and a newline at the end (an upload is not atomic).
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator

SEGMENT_BYTES = 8 * 1024 * 1024
LIMIT_BYTES = 1024 * 1024 * 1024
"""Most that is kept for a kernel that is gone; beyond it the oldest segments go, and the kernel is told."""


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
            return

    def acknowledged(self, execution_id: str) -> int:
        """Number of the first line of the execution that the kernel does not have yet, as it last said."""
        try:
            with open(os.path.join(self.path, "ack"), encoding="ascii") as file:
                acknowledged_id, number, end = file.read(200).split(" ")
        except (OSError, ValueError):
            return 0
        return int(number) if acknowledged_id == execution_id and end == "\n" and number.isdigit() else 0


class Recording:
    """The files of one execution. Failing disks end the recording, never the cell."""

    def __init__(self, directory: SpoolDirectory, execution_id: str) -> None:
        self._directory = directory
        self._id = execution_id
        self._fd = -1
        self._size = 0
        self._segments: list[tuple[int, int, int]] = []  # index, first line number, bytes
        self._open_segment(0, 0)

    def append(self, first_number: int, data: bytes) -> None:
        """Keep some whole lines, the first of which has ``first_number``."""
        if self._fd < 0:
            return
        if self._size >= SEGMENT_BYTES:
            index, first, _ = self._segments[-1]
            self._segments[-1] = (index, first, self._size)
            self._open_segment(index + 1, first_number)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            self.close()
            return
        self._size += len(data)

    def read(self, number: int) -> Iterator[str]:
        """The lines from ``number`` on that are still kept."""
        for index, first, _ in self._segments:
            try:
                with open(self._path(index), encoding="ascii", newline="\n") as file:
                    yield from itertools.islice(file, max(0, number - first), None)
            except OSError:
                return

    def position(self) -> tuple[int, int]:
        """Segment and byte at which the recording ends."""
        return (self._segments[-1][0] if self._segments else 0, self._size)

    def acknowledged(self) -> int:
        """Number of the first line that the kernel does not have yet."""
        return self._directory.acknowledged(self._id)

    def trim(self, number: int) -> None:
        """Remove the segments all of whose lines come before ``number``."""
        while len(self._segments) > 1 and self._segments[1][1] <= number:
            self._remove(self._segments.pop(0)[0])

    def shrink(self) -> None:
        """Hold the limit for a kernel that is gone: remove the oldest segments."""
        while len(self._segments) > 1 and sum(size for *_, size in self._segments) > LIMIT_BYTES:
            self._remove(self._segments.pop(0)[0])

    def close(self) -> None:
        """Close the open segment; its file stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def discard(self) -> None:
        """Remove the files: the kernel has what is in them."""
        self.close()
        for index, *_ in self._segments:
            self._remove(index)
        self._segments.clear()

    def _open_segment(self, index: int, first_number: int) -> None:
        self.close()
        if not self._directory.path:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            self._fd = os.open(self._path(index), flags, 0o600)
        except OSError:
            try:  # user code may have removed the temporary directory
                os.makedirs(self._directory.path, mode=0o700, exist_ok=True)
                self._fd = os.open(self._path(index), flags, 0o600)
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
