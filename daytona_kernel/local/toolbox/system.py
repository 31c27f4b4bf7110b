"""The sandbox as a machine: ``/system/metrics`` and the environment of what starts from now on (``/env``)."""

from __future__ import annotations

import math
import time
from datetime import datetime, timezone

from aiohttp import web

from .fields import body_fields, check_environment
from .metrics import CpuSampler, cpu_limit, disk, memory
from .settings import SETTINGS, SPAWN_ENV

SAMPLERS = web.AppKey("cpu_samplers", dict[str, CpuSampler])
"""One for each who asks regularly: each has a last time of its own."""


async def metrics(request: web.Request) -> web.Response:
    """Show CPU, memory and disk; the CPU's share is that since the same one (``for=``) last asked."""
    asker = "history" if request.query.get("for") == "history" else ""
    memory_total, memory_used, memory_cache = memory()
    disk_total, disk_used, disk_free = disk(request.app[SETTINGS].home_dir)
    now = time.time()
    return web.json_response(
        {
            "cpuCount": max(1, math.ceil(cpu_limit())),
            "cpuUsedPct": request.app[SAMPLERS].setdefault(asker, CpuSampler()).percent(),
            "memTotal": memory_total,
            "memUsed": memory_used,
            "memCache": memory_cache,
            "diskTotal": disk_total,
            "diskUsed": disk_used,
            "diskFree": disk_free,
            "timestamp": datetime.fromtimestamp(now, timezone.utc).isoformat().replace("+00:00", "Z"),
            "timestampUnix": int(now),
        }
    )


def changed_environment(
    env: dict[str, str], new: dict[str, str], unset: list[str], unset_value_prefix: str
) -> dict[str, str]:
    """Apply an update: removals by name and by prefix of the value, then what is set. Pure.

    A name that is set is kept from the removal by prefix: so clients can replace all placeholders at once.
    """
    kept = {
        name: value
        for name, value in env.items()
        if name not in unset
        and not (unset_value_prefix and value.startswith(unset_value_prefix) and name not in new)
    }
    return kept | new


async def update_env(request: web.Request) -> web.Response:
    """Change the environment of processes that start from now on; answers with what has been set."""
    fields = await body_fields(request)
    new = check_environment(fields.get("set") or {})
    env = request.app[SPAWN_ENV]
    changed = changed_environment(env, new, fields.texts("unset"), fields.text("unsetValuePrefix", ""))
    env.clear()  # in place: others hold this very object
    env.update(changed)
    return web.json_response(changed)


def setup(app: web.Application) -> None:
    """Add the routes."""
    app[SAMPLERS] = {}
    app.router.add_get("/system/metrics", metrics)
    app.router.add_post("/env", update_env)
