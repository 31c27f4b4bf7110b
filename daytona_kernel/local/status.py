"""What ``jupyter daytona local status`` shows."""

from __future__ import annotations

import os
import time
from typing import Any

from .booting import Sandbox
from .clock import to_iso
from .limits import resource_use
from .state import ServerState


async def server_status(state: ServerState) -> dict[str, Any]:
    """Facts about the server and its sandboxes; no secrets."""
    isolation = state.manager.isolation
    return {
        "pid": os.getpid(),
        "instance": state.instance,
        "api_url": f"http://127.0.0.1:{state.port}/api",
        "base_url": state.base_url(),
        "started_at": to_iso(state.started_at),
        "uptime_seconds": round(time.time() - state.started_at, 1),
        "isolation": isolation.name,
        "isolation_reason": isolation.reason,
        "network": "own" if isolation.own_network else "shared",
        "limits": state.manager.limiter.enforced,
        "idle_minutes": state.options.idle_minutes,
        "python": state.options.python,
        "spare_sandboxes": len(state.manager.pool.ids),
        "listeners": state.events.listeners,
        "log_file": str(state.options.paths.log_file),
        "state_dir": str(state.options.paths.state_dir),
        "sandboxes": [_sandbox(sandbox) for sandbox in state.manager],
    }


def _sandbox(sandbox: Sandbox) -> dict[str, Any]:
    record = sandbox.record
    facts: dict[str, Any] = {
        "id": record.id,
        "name": record.name,
        "state": record.state,
        "isolation": record.isolation,
        "labels": record.labels,
        "last_activity_at": to_iso(record.last_activity_at),
        "auto_stop_minutes": record.auto_stop_interval,
        "ephemeral": record.ephemeral,
        "connections": sandbox.connections,
        "limits": {"cpu": record.cpu, "memory_gib": record.memory, "disk_gib": record.disk},
    }
    if record.error_reason:
        facts["error"] = record.error_reason
    if sandbox.daemon is not None and sandbox.daemon.alive:
        facts |= resource_use(sandbox.daemon.pid)
    return facts
