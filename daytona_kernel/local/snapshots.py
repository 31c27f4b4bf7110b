"""Snapshots: what new sandboxes are made from.

Built in and general: ``local-python`` (the host's Python with its packages), ``local-python-bare`` (the same
Python without them), and ``daytona-small``, ``-medium`` and ``-large`` (``local-python`` in the service's
sizes). A name ``python:PATH`` stands for an interpreter of the host. Everything else was made from a sandbox
(a copy of its files), built from an image, or registered under a name by ``POST /snapshots``.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import uuid
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .clock import to_iso
from .errors import ApiError, bad_request, conflict, not_found
from .records import ORGANIZATION_ID

DEFAULT_SNAPSHOT = "local-python"
BARE_SNAPSHOT = "local-python-bare"
PYTHON_PREFIX = "python:"

GENERAL_SNAPSHOTS = {
    DEFAULT_SNAPSHOT: (2, 4, 10),
    BARE_SNAPSHOT: (2, 4, 10),
    "daytona-small": (1, 1, 3),
    "daytona-medium": (2, 4, 8),
    "daytona-large": (4, 8, 10),
}
"""CPUs, memory and disk (GiB) of what is there from the start. The service's own sizes go by its names."""


@dataclass
class SnapshotRecord:
    """One snapshot. Memory and disk in GiB."""

    id: str
    name: str
    created_at: float
    updated_at: float
    general: bool = False
    state: str = "active"
    cpu: int = 2
    gpu: int = 0
    memory: int = 4
    disk: int = 10
    image_name: str = ""
    entrypoint: list[str] | None = None
    error_reason: str | None = None
    last_used_at: float | None = None
    source_sandbox_id: str | None = None
    python: str = ""
    bare: bool = False
    has_files: bool = False
    size: float | None = None
    build_info: dict[str, Any] | None = None
    env: dict[str, str] = field(default_factory=dict)
    """Environment that sandboxes made from it get, below what their own creation says."""
    work_dir: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> SnapshotRecord:
        """Read a record; fields of a newer version are dropped.

        ``ValueError``, ``TypeError``: if the file is damaged. ``OSError``: if it can not be read.
        """
        data = json.loads(path.read_text())
        known = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})

    def dto(self) -> dict[str, Any]:
        """The ``SnapshotDto`` of the API."""
        body: dict[str, Any] = {
            "id": self.id,
            "organizationId": ORGANIZATION_ID,
            "general": self.general,
            "name": self.name,
            "imageName": self.image_name,
            "state": self.state,
            "size": self.size,
            "entrypoint": self.entrypoint,
            "cpu": self.cpu,
            "gpu": self.gpu,
            "mem": self.memory,
            "disk": self.disk,
            "errorReason": self.error_reason,
            "createdAt": to_iso(self.created_at),
            "updatedAt": to_iso(self.updated_at),
            "lastUsedAt": None if self.last_used_at is None else to_iso(self.last_used_at),
            "sourceSandboxId": self.source_sandbox_id,
            "regionIds": ["local"],
            "sandboxClass": "container",
        }
        if self.build_info is not None:
            body["buildInfo"] = self.build_info
        return body


class SnapshotStore:
    """All snapshots, each with a directory ``<id>`` holding ``snapshot.json`` and maybe ``files``."""

    def __init__(self, directory: Path, started: float, default_bare: bool) -> None:
        self._directory = directory
        self._records: dict[str, SnapshotRecord] = {}
        for name, (cpu, memory, disk) in GENERAL_SNAPSHOTS.items():
            self._records[name] = SnapshotRecord(
                id=name,
                name=name,
                created_at=started,
                updated_at=started,
                general=True,
                cpu=cpu,
                memory=memory,
                disk=disk,
                image_name=name,
                bare=default_bare or name == BARE_SNAPSHOT,
            )

    def load(self) -> None:
        """Read what earlier servers left; directories without a whole record are removed."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for entry in self._directory.iterdir():
            try:
                record = SnapshotRecord.load(entry / "snapshot.json")
            except (OSError, ValueError, TypeError):
                shutil.rmtree(entry, ignore_errors=True)
                continue
            if record.state in ("building", "snapshotting"):
                record.state, record.error_reason = "build_failed", "the server ended during the build"
                self.save(record)
            self._records[record.id] = record

    def all(self) -> list[SnapshotRecord]:
        """All snapshots."""
        return list(self._records.values())

    def files(self, record: SnapshotRecord) -> Path:
        """Where a snapshot's copy of a file system is."""
        return self._directory / record.id / "files"

    def log_file(self, record: SnapshotRecord) -> Path:
        """Where the log of a snapshot's build is."""
        return self._directory / record.id / "build.log"

    def take_files(self, record: SnapshotRecord, source: Path) -> None:
        """Make a directory tree of the same file system the snapshot's files. ``OSError``: it can not be."""
        os.replace(source, self.files(record))

    def get(self, id_or_name: str) -> SnapshotRecord | None:
        """Look up by id, then by name."""
        if id_or_name in self._records:
            return self._records[id_or_name]
        return next((record for record in self._records.values() if record.name == id_or_name), None)

    def find(self, id_or_name: str) -> SnapshotRecord:
        """Look up by id, then by name. ``ApiError`` 404."""
        record = self.get(id_or_name)
        if record is None:
            raise not_found("Snapshot", id_or_name)
        return record

    def for_creation(self, name: str | None, now: float) -> SnapshotRecord:
        """The snapshot of a new sandbox. ``ApiError`` 400: unknown or not active."""
        if name is not None and name.startswith(PYTHON_PREFIX):
            python = name[len(PYTHON_PREFIX) :]
            return SnapshotRecord(id=name, name=name, created_at=now, updated_at=now, python=python)
        try:
            record = self.find(name or DEFAULT_SNAPSHOT)
        except ApiError:
            known = ", ".join(sorted(item.name for item in self._records.values()))
            raise bad_request(
                f"Snapshot {name} not found. Known here: {known}, or {PYTHON_PREFIX}PATH"
            ) from None
        if record.state != "active":
            raise bad_request(f"Snapshot {record.name} is {record.state}")
        record.last_used_at = now
        return record

    def check_name(self, name: str) -> None:
        """Refuse a name that is taken (409) or empty (400)."""
        if not name or len(name) > 253:
            raise bad_request("name must have between 1 and 253 characters")
        if name.startswith(PYTHON_PREFIX):
            raise bad_request(f"names that start with {PYTHON_PREFIX} are reserved")
        if any(record.name == name for record in self._records.values()):
            raise conflict(f"Snapshot with name {name} already exists")

    def add(self, name: str, now: float, **values: Any) -> SnapshotRecord:
        """Register a snapshot under a free name."""
        self.check_name(name)
        record = SnapshotRecord(id=str(uuid.uuid4()), name=name, created_at=now, updated_at=now, **values)
        self._records[record.id] = record
        self.save(record)
        return record

    def save(self, record: SnapshotRecord) -> None:
        """Write a record, whole or not at all."""
        directory = self._directory / record.id
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = directory / "snapshot.tmp"
        temporary.write_text(json.dumps(asdict(record)))
        os.replace(temporary, directory / "snapshot.json")

    async def remove(self, id_or_name: str) -> SnapshotRecord:
        """Delete a snapshot. ``ApiError`` 403: it is general."""
        record = self.find(id_or_name)
        if record.general:
            raise ApiError(403, "You cannot delete general snapshots")
        record.state = "removing"
        del self._records[record.id]
        await asyncio.to_thread(shutil.rmtree, self._directory / record.id, True)
        return record

    def activate(self, id_or_name: str, now: float, *, active: bool) -> SnapshotRecord:
        """Switch a snapshot on or off. ``ApiError`` 400: it is so already."""
        record = self.find(id_or_name)
        wanted = "active" if active else "inactive"
        if record.state == wanted:
            raise bad_request(f"Snapshot {record.name} is already {wanted}")
        record.state = wanted
        record.updated_at = now
        if not record.general:
            self.save(record)
        return record
