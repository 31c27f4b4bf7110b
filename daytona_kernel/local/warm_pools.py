"""Warm pools: how many spare sandboxes a person wants ready (``/warm-pools``).

The server has one pool, of spare daemons without files of their own, which suit every snapshot that has none
either. So the pools that can be asked for are those of such snapshots; together they set the pool's size.
"""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from . import creation
from .clock import to_iso
from .control import json_body
from .errors import ApiError, bad_request, not_found
from .pool import WarmPool
from .records import ORGANIZATION_ID, TARGET, USER
from .snapshots import SnapshotRecord, SnapshotStore
from .state import STATE

MOST_SPARES = 10
"""Over all pools; each spare is a process of some 40 MB."""


@dataclass
class WarmPoolRecord:
    """One wish for spare sandboxes of a snapshot."""

    id: str
    snapshot: str
    pool: int
    created_at: float
    updated_at: float

    def dto(self, snapshot: SnapshotRecord, ready: int) -> dict[str, Any]:
        """The ``WarmPool`` of the API."""
        return {
            "id": self.id,
            "organizationId": ORGANIZATION_ID,
            "snapshot": self.snapshot,
            "target": TARGET,
            "pool": self.pool,
            "currentSize": min(self.pool, ready),
            "cpu": snapshot.cpu,
            "mem": snapshot.memory,
            "disk": snapshot.disk,
            "osUser": USER,
            "env": {},
            "errorReason": None,
            "createdAt": to_iso(self.created_at),
            "updatedAt": to_iso(self.updated_at),
        }


class WarmPoolStore:
    """All wishes, in one file; the pool follows them."""

    def __init__(self, path: Path, snapshots: SnapshotStore, pool: WarmPool, default_bare: bool) -> None:
        self._path = path
        self._snapshots = snapshots
        self._pool = pool
        self._default_bare = default_bare
        self._records: dict[str, WarmPoolRecord] = {}

    def load(self) -> None:
        """Read what earlier servers left; a damaged file counts as none."""
        try:
            records = [WarmPoolRecord(**item) for item in json.loads(self._path.read_text())]
        except (OSError, ValueError, TypeError):
            return
        self._records = {record.id: record for record in records}
        self._apply()

    def _apply(self) -> None:
        self._pool.want(sum(record.pool for record in self._records.values()))

    def _save(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps([asdict(record) for record in self._records.values()]))
        os.replace(temporary, self._path)
        self._apply()

    def all(self) -> list[dict[str, Any]]:
        """All pools whose snapshots still exist, as the API shows them."""
        shown = []
        for record in self._records.values():
            snapshot = self._snapshots.get(record.snapshot)
            if snapshot is not None:
                shown.append(record.dto(snapshot, len(self._pool.ids)))
        return shown

    def _check_size(self, size: int, without: str = "") -> int:
        others = sum(record.pool for record in self._records.values() if record.id != without)
        if others + size > MOST_SPARES:
            raise bad_request(f"the local sandbox server keeps {MOST_SPARES} spare sandboxes at the most")
        return size

    def create(self, body: dict[str, Any], now: float) -> dict[str, Any]:
        """``POST /warm-pools``. ``ApiError`` 400, 404, 409, 422: the wish can not be met."""
        name = creation.optional_text(body, "snapshot")
        if name is None:
            raise bad_request("snapshot is required")
        size = self._check_size(creation.integer(body, "pool", 1, 0))
        if not size:
            raise bad_request("pool is required")
        snapshot = self._snapshots.find(name)
        if snapshot.has_files or snapshot.python or snapshot.bare != self._default_bare:
            raise ApiError(
                422, f"snapshot {name} has files or a Python of its own, for which no spares are kept"
            )
        if any(record.snapshot == snapshot.name for record in self._records.values()):
            raise ApiError(409, f"there is a warm pool for {snapshot.name} already")
        record = WarmPoolRecord(str(uuid.uuid4()), snapshot.name, size, now, now)
        self._records[record.id] = record
        self._save()
        return record.dto(snapshot, len(self._pool.ids))

    def update(self, identity: str, body: dict[str, Any], now: float) -> dict[str, Any]:
        """``PATCH /warm-pools/{id}``; 0 keeps the pool without spares."""
        record = self._find(identity)
        if body.get("pool") is None:
            raise bad_request("pool is required")
        record.pool = self._check_size(creation.integer(body, "pool", 0, 0), record.id)
        record.updated_at = now
        self._save()
        return record.dto(self._snapshots.find(record.snapshot), len(self._pool.ids))

    def delete(self, identity: str) -> None:
        """``DELETE /warm-pools/{id}``."""
        del self._records[self._find(identity).id]
        self._save()

    def _find(self, identity: str) -> WarmPoolRecord:
        if identity not in self._records:
            raise not_found("Warm pool", identity)
        return self._records[identity]


async def warm_pools(request: web.Request) -> web.Response:
    """``GET`` and ``POST /warm-pools``."""
    state = request.app[STATE]
    if request.method == "GET":
        return web.json_response(state.warm_pools.all())
    made = state.warm_pools.create(await json_body(request), state.manager.clock.now())
    return web.json_response(made, status=201)


async def one_warm_pool(request: web.Request) -> web.Response:
    """``PATCH`` and ``DELETE /warm-pools/{id}``."""
    state, identity = request.app[STATE], request.match_info["id"]
    if request.method == "DELETE":
        state.warm_pools.delete(identity)
        return web.Response(status=204)
    body = await json_body(request)
    return web.json_response(state.warm_pools.update(identity, body, state.manager.clock.now()))


def routes() -> list[web.RouteDef]:
    """All routes of this module."""
    return [
        web.get("/api/warm-pools", warm_pools),
        web.post("/api/warm-pools", warm_pools),
        web.patch("/api/warm-pools/{id}", one_warm_pool),
        web.delete("/api/warm-pools/{id}", one_warm_pool),
    ]
