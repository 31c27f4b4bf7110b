"""The shelf: a directory of this machine where notebooks leave values for each other.

The files may have been made by a sandbox: nothing here looks further into one than its head, and what the
head says is only shown. Where a file is follows from its key, which a person has typed.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

from .values import MAGIC

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z")
_MOST_PARTS = 8
_ENDING = ".value"
_HEAD_LIMIT = 1 << 20
"""Bytes of a file that are read to describe it."""


@dataclass(frozen=True)
class Entry:
    """A value on the shelf. ``about`` and ``pickled`` are what its maker says; ``size`` is in bytes."""

    key: str
    path: Path
    size: int
    about: str
    pickled: bool
    source: str
    saved: str


class Shelf:
    """Values by their keys: names, or paths of names such as ``team/prices``."""

    def __init__(self, folder: str = "") -> None:
        """``folder``: where it is; by default in Jupyter's data directory."""
        if not folder:
            from jupyter_core.paths import jupyter_data_dir

            folder = os.path.join(jupyter_data_dir(), "daytona-kernel", "shelf")
        self.folder = Path(folder).expanduser()

    def path(self, key: str) -> Path:
        """The file of a key. Raises :class:`ValueError` for what can be none."""
        parts = key.split("/")
        if len(parts) > _MOST_PARTS or not all(_PART.match(part) for part in parts):
            raise ValueError(f"{key!r} is no name for a value on the shelf.")
        return self.folder.joinpath(*parts[:-1], parts[-1] + _ENDING)

    def entry(self, key: str) -> Entry | None:
        """What is there under a key. Raises :class:`ValueError` for what can be none."""
        path = self.path(key)
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                note, head = _heads(file)
        except OSError:
            return None
        source, saved, about = (
            str(note.get("from", "")),
            str(note.get("saved", "")),
            str(head.get("about", "")),
        )
        return Entry(key, path, size, about[:80], bool(head.get("pickled")), source, saved)

    def keys(self) -> list[str]:
        """All keys, in order."""
        found = []
        for path in self.folder.rglob(f"*{_ENDING}"):
            key = path.relative_to(self.folder).as_posix().removesuffix(_ENDING)
            with suppress(ValueError):
                self.path(key)
                found.append(key)
        return sorted(found)

    @contextmanager
    def put(self, key: str, source: str) -> Iterator[IO[bytes]]:
        """A file to write a value to, which is there under its key once it is complete.

        ``source`` says for people where it is from. The file is for this user only.
        """
        path = self.path(key)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(".part", ".", path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                moment = datetime.now(timezone.utc).isoformat(timespec="seconds")
                file.write(json.dumps({"from": source, "saved": moment}).encode() + b"\n")
                yield file
            os.replace(name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise

    def remove(self, key: str) -> bool:
        """Take a value away; whether it was there. Raises :class:`ValueError` for what can be no key."""
        path = self.path(key)
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        for folder in path.parents:
            if folder == self.folder:
                break
            with suppress(OSError):  # it is not empty
                folder.rmdir()
        return True


def _heads(file: IO[bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The note and the head of a file; empty where they make no sense."""
    note = _json(file.readline(_HEAD_LIMIT))
    if file.read(len(MAGIC)) != MAGIC:
        return note, {}
    length = int.from_bytes(file.read(8), "big")
    return note, _json(file.read(length)) if length <= _HEAD_LIMIT else {}


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
