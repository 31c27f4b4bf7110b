"""Writing into directories that a sandbox can write to as well.

A sandbox may leave symbolic links anywhere in its files. When the server writes there later (an environment
for another Python, a mount point), following one would write to the host. So every step goes through a
directory descriptor that was opened without following links, and files are made anew instead of being opened.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class SafeDir:
    """A directory held open; everything is done relative to it, one name at a time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path) -> Iterator[SafeDir]:
        """Open a directory of the server's own."""
        descriptor = os.open(path, DIRECTORY)
        try:
            yield cls(descriptor)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def below(self, name: str, mode: int = 0o755) -> Iterator[SafeDir]:
        """The directory `name` in this one, made if missing. Anything else of that name is replaced."""
        try:
            descriptor = os.open(name, DIRECTORY, dir_fd=self._descriptor)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._descriptor)
            os.mkdir(name, mode, dir_fd=self._descriptor)
            descriptor = os.open(name, DIRECTORY, dir_fd=self._descriptor)
        try:
            yield SafeDir(descriptor)
        finally:
            os.close(descriptor)

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        """Make a file anew, in place of whatever had the name."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, mode, dir_fd=self._descriptor)
        with os.fdopen(descriptor, "w") as stream:
            os.fchmod(descriptor, mode)
            stream.write(text)

    def link(self, name: str, target: str) -> None:
        """Make a symbolic link, in place of whatever file or link had the name."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)
        os.symlink(target, name, dir_fd=self._descriptor)

    def has(self, name: str) -> bool:
        """Whether there is something of that name, be it a broken link."""
        try:
            os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True


def has_link(base: Path, relative: str) -> bool:
    """Whether a component of `relative` below `base` is something other than a directory."""
    path = base
    for part in [part for part in relative.split("/") if part]:
        path = path / part
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(mode):
            return True
    return False


def remove_tree(path: Path) -> None:
    """Remove a directory even where its sandbox took permissions away. Follows no link."""

    def mend(function: Callable[[str], object], name: str, _info: object) -> None:
        for each in (os.path.dirname(name), name):
            with contextlib.suppress(OSError):
                if stat.S_ISDIR(os.lstat(each).st_mode):
                    os.chmod(each, 0o700)
        with contextlib.suppress(OSError):
            function(name)

    for _ in range(3):  # what was mended on the way may have left directories that were not empty then
        shutil.rmtree(path, onerror=mend)
        if not path.exists():
            return
