"""Volumes: directories that sandboxes share, mounted at a path of their own choice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import posixpath
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .clock import to_iso
from .errors import ApiError, bad_request, conflict, not_found
from .isolation import Mount
from .records import ORGANIZATION_ID
from .safe_files import DIRECTORY

SYSTEM_TOPS = (
    *("proc", "sys", "dev", "usr", "bin", "sbin", "lib", "lib64", "lib32", "libx32", "etc", "boot", "root"),
    *("run", "tmp"),
)
"""Places that belong to the system; a volume there would break the sandbox. (/tmp itself, not below.)"""


@dataclass
class VolumeRecord:
    """One volume."""

    id: str
    name: str
    created_at: float
    updated_at: float
    state: str = "ready"
    last_used_at: float | None = None
    error_reason: str | None = None

    def dto(self) -> dict[str, Any]:
        """The ``VolumeDto`` of the API."""
        return {
            "id": self.id,
            "name": self.name,
            "organizationId": ORGANIZATION_ID,
            "state": self.state,
            "createdAt": to_iso(self.created_at),
            "updatedAt": to_iso(self.updated_at),
            "lastUsedAt": None if self.last_used_at is None else to_iso(self.last_used_at),
            "errorReason": self.error_reason,
        }


class VolumeStore:
    """All volumes, each with a directory ``<id>`` holding ``volume.json`` and ``data``."""

    def __init__(self, directory: Path, used_ids: Callable[[], set[str]]) -> None:
        self._directory = directory
        self._used_ids = used_ids
        self._records: dict[str, VolumeRecord] = {}

    def load(self) -> None:
        """Read what earlier servers left; half-deleted volumes are removed."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for entry in self._directory.iterdir():
            try:
                record = VolumeRecord(**json.loads((entry / "volume.json").read_text()))
            except (OSError, ValueError, TypeError):
                shutil.rmtree(entry, ignore_errors=True)
                continue
            self._records[record.id] = record

    def all(self) -> list[VolumeRecord]:
        """All volumes, oldest first."""
        return sorted(self._records.values(), key=lambda record: record.created_at)

    def find(self, volume_id: str) -> VolumeRecord:
        """Look up by id. ``ApiError`` 404."""
        if volume_id not in self._records:
            raise not_found("Volume", volume_id)
        return self._records[volume_id]

    def by_name(self, name: str) -> VolumeRecord:
        """Look up by name. ``ApiError`` 404."""
        for record in self._records.values():
            if record.name == name:
                return record
        raise ApiError(404, f"Volume with name {name} not found")

    def create(self, name: Any, now: float) -> VolumeRecord:
        """Make an empty volume. ``ApiError`` 400: the name is taken or no name."""
        volume_id = str(uuid.uuid4())
        if name is not None and not isinstance(name, str):
            raise bad_request("name must be a string")
        name = name or volume_id
        if any(record.name == name for record in self._records.values()):
            raise bad_request(f"Volume with name {name} already exists")
        record = VolumeRecord(volume_id, name, now, now)
        (self._directory / volume_id / "data").mkdir(parents=True, mode=0o755)
        self._records[volume_id] = record
        self._save(record)
        return record

    async def delete(self, volume_id: str) -> None:
        """Delete a volume and its files. ``ApiError`` 409: a sandbox uses it."""
        record = self.find(volume_id)
        if volume_id in self._used_ids():
            raise conflict("Volume cannot be deleted because it is in use by one or more sandboxes")
        del self._records[record.id]
        directory = self._directory / volume_id
        (directory / "volume.json").unlink(missing_ok=True)
        await asyncio.to_thread(shutil.rmtree, directory, True)

    def checked(self, wishes: Any) -> list[dict[str, str]]:
        """The ``volumes`` of a creation request, looked up and with ids. ``ApiError`` 400 or 404."""
        if wishes is None:
            return []
        if not isinstance(wishes, list):
            raise bad_request("volumes must be an array")
        checked = [self._checked_one(wish) for wish in wishes]
        paths = [wish["mountPath"] for wish in checked]
        if len(set(paths)) != len(paths):
            raise bad_request("two volumes have the same mount path")
        return checked

    def _checked_one(self, wish: Any) -> dict[str, str]:
        if not isinstance(wish, dict) or not all(isinstance(value, str | None) for value in wish.values()):
            raise bad_request("each volume must be an object with volumeId and mountPath")
        named = wish.get("volumeId") or ""
        record = self._records.get(named) or self.by_name(named)
        if record.state != "ready":
            raise bad_request(f"Volume {record.name} is not ready")
        path = wish.get("mountPath") or ""
        parts = path.split("/")
        clean = posixpath.normpath(path)
        if not path.startswith("/") or ".." in parts or "\0" in path or clean in ("/", "//", "/home", "/opt"):
            raise bad_request(f"invalid mount path {path!r}: it must be absolute and no system directory")
        top = clean.split("/")[1]
        if (top in SYSTEM_TOPS and clean != f"/tmp/{clean[5:]}") or clean.startswith("/opt/"):  # noqa: S108
            raise bad_request(f"invalid mount path {path!r}: it is inside a system directory")
        found = {"volumeId": record.id, "mountPath": clean}
        if subpath := wish.get("subpath"):
            if subpath.startswith("/") or ".." in subpath.split("/") or "\0" in subpath:
                raise bad_request(
                    f"invalid subpath {subpath!r}: it must be relative and stay inside the volume"
                )
            found["subpath"] = posixpath.normpath(subpath)
        return found

    def mounts(self, volumes: list[dict[str, str]], now: float) -> list[Mount]:
        """Host directories and where the sandbox sees them; missing subpaths are made."""
        found = []
        for wish in volumes:
            record = self.find(wish["volumeId"])
            record.last_used_at = now
            self._save(record)
            data, subpath = self._directory / record.id / "data", wish.get("subpath", "")
            identity = make_subpath(data, subpath)
            found.append(Mount(str(data / subpath), wish["mountPath"], identity=identity))
        return found

    def _save(self, record: VolumeRecord) -> None:
        directory = self._directory / record.id
        temporary = directory / "volume.tmp"
        temporary.write_text(json.dumps(asdict(record)))
        os.replace(temporary, directory / "volume.json")


def make_subpath(data: Path, subpath: str) -> tuple[int, int]:
    """Device and inode of the directory `subpath` below `data`, made if missing.

    A sandbox can put links into its volume: a subpath that goes through one is refused with ``ApiError`` 400,
    or the next mount would show a directory of the host. Since one can come there at any time, whoever mounts
    it compares what was mounted.
    """
    current = os.open(data, DIRECTORY)
    try:
        for part in [part for part in subpath.split("/") if part not in ("", ".")]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=current)
            try:
                below = os.open(part, DIRECTORY, dir_fd=current)
            except OSError:
                raise bad_request(f"subpath {subpath!r} goes through a symbolic link or a file") from None
            os.close(current)
            current = below
        facts = os.fstat(current)
    finally:
        os.close(current)
    return facts.st_dev, facts.st_ino
