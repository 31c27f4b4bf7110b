"""Search files for marks: their content, that of archives in them, and their names. Standard library only."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import IO, Any

from .marks import KIND_AFTER, LONGEST, hits, masked

CHUNK = 4 << 20
ZEROS = bytes(CHUNK)
OVERLAP = LONGEST + KIND_AFTER
UNPACKED_LIMIT = 256 << 20
"""Bytes of one packed stream that are looked at."""
DEEPEST = 3
"""Archives in archives."""
CLOSE = 3
"""Directories above a file that can make it private; ``state/sandboxes/ID`` are three."""


@dataclass(frozen=True)
class Finding:
    """A mark in a file."""

    path: str
    member: str
    """Where in an archive; empty: in the file itself."""
    offset: int
    form: str
    kind: str
    around: str
    mode: int
    """The file's permissions."""
    private: bool
    """Only its owner can come to it: by its own permissions, or those of a directory on the way."""

    def as_json(self) -> dict[str, Any]:
        """For the file of findings."""
        return asdict(self)


def search_tree(root: str) -> Iterator[Finding]:
    """All findings below `root`. What goes away meanwhile, and what nobody may read, is passed over."""
    if not os.path.isdir(root) or os.path.islink(root):
        yield from search_file(root)
        return
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            if name in files or os.path.islink(path):
                yield from search_file(path)
            else:
                yield from _in_words(path, name, "its name", 0)


def search_file(path: str) -> Iterator[Finding]:
    """The findings in one file; for a link, in where it leads to."""
    try:
        facts = os.lstat(path)
        yield from _in_words(path, os.path.basename(path), "its name", facts.st_mode)
        if stat.S_ISLNK(facts.st_mode):
            yield from _in_words(path, os.readlink(path), "where it leads to", facts.st_mode)
        if not stat.S_ISREG(facts.st_mode):
            return
        with open(path, "rb") as file:
            yield from _in_file(path, file, facts.st_mode)
    except OSError:
        return


def _in_words(path: str, words: str, what: str, mode: int) -> Iterator[Finding]:
    data = os.fsencode(words)
    for hit in hits(data):
        yield Finding(
            _shown(path), what, hit.offset, hit.form, hit.kind, masked(data, hit), mode & 0o777, False
        )


def _shown(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "replace")


def _in_file(path: str, file: IO[bytes], mode: int) -> Iterator[Finding]:
    allowed = stat.S_IMODE(mode)
    private: list[bool] = []

    def found(member: str, offset: int, data: bytes) -> Iterator[Finding]:
        for hit in hits(data):
            if not private:
                private.append(is_private(path, allowed))
            around = masked(data, hit)
            yield Finding(
                _shown(path), member, offset + hit.offset, hit.form, hit.kind, around, allowed, private[0]
            )

    head = b""
    for offset, data in _pieces(file):
        head = head or (data[:8] if offset == 0 else b"")
        yield from found("", offset, data)
    yield from _in_archive(head, file, "", found, 0)


def _pieces(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """A file's content in pieces that overlap, without its holes."""
    end, at = os.fstat(file.fileno()).st_size, 0
    while at < end:
        try:
            at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            stop = os.lseek(file.fileno(), at, os.SEEK_HOLE)
        except OSError:
            return  # only a hole is left
        while at < stop:
            data = os.pread(file.fileno(), min(CHUNK, stop - at), at)
            if not data:
                return
            if data != ZEROS[: len(data)]:  # they are common in the files of tests, and slow to search
                yield at, data
            at = at + len(data) if at + len(data) >= stop else at + max(1, len(data) - OVERLAP)


Found = Callable[[str, int, bytes], Iterator[Finding]]


def _in_archive(head: bytes, file: IO[bytes], member: str, found: Found, depth: int) -> Iterator[Finding]:
    """What is packed in a file, if it is an archive."""
    if depth >= DEEPEST:
        return
    try:
        if head.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(file) as archive:
                for info in archive.infolist():
                    with archive.open(info) as stream:
                        yield from _in_stream(stream, f"{member}!{info.filename}", found, depth)
        elif head.startswith(b"\x1f\x8b"):
            file.seek(0)
            with gzip.GzipFile(fileobj=file) as stream:
                yield from _in_stream(stream, f"{member}!gzip", found, depth)
        elif head.startswith(b"BZh"):
            file.seek(0)
            with bz2.BZ2File(file) as stream:
                yield from _in_stream(stream, f"{member}!bzip2", found, depth)
        elif head.startswith(b"\xfd7zXZ"):
            file.seek(0)
            with lzma.LZMAFile(file) as stream:
                yield from _in_stream(stream, f"{member}!xz", found, depth)
    except (
        OSError,
        EOFError,
        ValueError,
        RuntimeError,
        zlib.error,
        zipfile.BadZipFile,
        lzma.LZMAError,
    ):
        return  # not an archive after all, or a broken one, such as tests make


def _in_stream(stream: Any, member: str, found: Found, depth: int) -> Iterator[Finding]:
    data = stream.read(UNPACKED_LIMIT)
    yield from found(member, 0, data)
    yield from _in_archive(data[:8], io.BytesIO(data), member, found, depth + 1)


def is_private(path: str, mode: int) -> bool:
    """Whether only its owner can read a file: by its own permissions, or those of a directory close above it.

    Close, since what all of a test run is in is private anyway.
    """
    folder = os.path.dirname(os.path.abspath(path))
    for _ in range(CLOSE):
        if mode & 0o077 == 0:
            return True
        mode, folder = stat.S_IMODE(os.stat(folder).st_mode), os.path.dirname(folder)
    return mode & 0o077 == 0
