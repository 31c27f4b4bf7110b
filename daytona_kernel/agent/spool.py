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


class Spool:
    """The files of this context's executions. Failing disks end the spooling, never the cell."""

    def __init__(self, name: str) -> None:
        self.directory = ""
        self._id = ""
        self._fd = -1
        self._size = 0
        self._segments: list[tuple[int, int, int]] = []  # index, first line number, bytes
        self._make_directory(name)

    def _make_directory(self, name: str) -> None:
        for parent in (tempfile.gettempdir(), os.path.expanduser("~/.cache"), "/dev/shm"):  # noqa: S108
            path = os.path.join(parent, f".daytona-kernel-{os.getuid()}", name)
            try:
                os.makedirs(path, mode=0o700, exist_ok=True)
                with open(os.path.join(path, "probe"), "w"):
                    pass
                os.unlink(os.path.join(path, "probe"))
            except OSError:
                continue
            self.directory = path
            return

    def begin(self, execution_id: str) -> None:
        """Start the files of an execution; those of earlier ones are removed, for the kernel has them."""
        self.close()
        self._remove_all()
        self._id, self._segments = execution_id, []
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

    def acknowledged(self) -> int:
        """Number of the first line that the kernel does not have yet, as it last said; 0 if it said
        nothing.
        """
        try:
            with open(os.path.join(self.directory, "ack"), encoding="ascii") as file:
                execution_id, number, end = file.read(200).split(" ")
        except (OSError, ValueError):
            return 0
        return int(number) if execution_id == self._id and end == "\n" and number.isdigit() else 0

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

    def _open_segment(self, index: int, first_number: int) -> None:
        self.close()
        if not self.directory:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            self._fd = os.open(self._path(index), flags, 0o600)
        except OSError:
            try:  # user code may have removed the temporary directory
                os.makedirs(self.directory, mode=0o700, exist_ok=True)
                self._fd = os.open(self._path(index), flags, 0o600)
            except OSError:
                return
        self._size = 0
        self._segments.append((index, first_number, 0))

    def _path(self, index: int) -> str:
        return os.path.join(self.directory, f"{self._id}.{index}")

    def _remove(self, index: int) -> None:
        try:
            os.unlink(self._path(index))
        except OSError:
            pass

    def _remove_all(self) -> None:
        for index, *_ in self._segments:
            self._remove(index)
