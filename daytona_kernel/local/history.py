"""How busy sandboxes were: samples of the last hours, kept in memory, for ``telemetry/metrics``."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import aiohttp

from .clock import to_iso

if TYPE_CHECKING:
    from .booting import Sandbox
    from .sandboxes import SandboxManager

log = logging.getLogger(__name__)

SAMPLE_SECONDS = 30.0
KEPT_SAMPLES = 720
"""Six hours of one sandbox."""
ANSWER_SECONDS = 5.0

FIELDS = {
    "daytona.sandbox.cpu.utilization": "cpuUsedPct",
    "daytona.sandbox.cpu.limit": "cpuCount",
    "daytona.sandbox.memory.usage": "memUsed",
    "daytona.sandbox.memory.limit": "memTotal",
    "daytona.sandbox.memory.cache": "memCache",
    "daytona.sandbox.filesystem.usage": "diskUsed",
    "daytona.sandbox.filesystem.total": "diskTotal",
}
"""The names by which clients ask (those of the SDK) -> fields of the daemon's ``/system/metrics``."""

Sample = tuple[float, dict[str, Any]]


def series(samples: Iterable[Sample], names: Iterable[str], start: float, end: float) -> list[dict[str, Any]]:
    """The ``MetricSeries`` of the API for the samples within a time range. Pure."""
    chosen = [(to_iso(moment), values) for moment, values in samples if start <= moment <= end]
    return [
        {
            "metricName": name,
            "dataPoints": [
                {"timestamp": moment, "value": values[FIELDS[name]]}
                for moment, values in chosen
                if FIELDS.get(name) in values
            ],
        }
        for name in names
    ]


class MetricsHistory:
    """Samples of all sandboxes; forgotten with the sandbox, and with the server."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[Sample]] = {}
        self._due: dict[str, float] = {}

    def of(self, sandbox_id: str) -> list[Sample]:
        """All samples of a sandbox, oldest first."""
        return list(self._samples.get(sandbox_id, ()))

    async def tick(self, manager: SandboxManager, now: float) -> None:
        """Sample running sandboxes that are due (`now` is the loop's time); forget those that are gone."""
        known = {sandbox.record.id for sandbox in manager}
        for gone in set(self._due) - known:
            self._due.pop(gone)
            self._samples.pop(gone, None)
        due = [
            one for one in manager if one.record.state == "started" and self._due.get(one.record.id, 0) <= now
        ]
        for sandbox in due:
            self._due[sandbox.record.id] = now + SAMPLE_SECONDS
        await asyncio.gather(*(self._sample(manager, sandbox) for sandbox in due))

    async def _sample(self, manager: SandboxManager, sandbox: Sandbox) -> None:
        upstream = sandbox.upstream
        if upstream is None:
            return
        connector = aiohttp.UnixConnector(upstream.path)
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.get("http://daemon/system/metrics", params={"for": "history"}) as answer,
            ):
                values = await answer.json()
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as exc:
            log.info("sandbox %s: no sample of its metrics: %r", sandbox.record.id, exc)
            return
        kept = self._samples.setdefault(sandbox.record.id, deque(maxlen=KEPT_SAMPLES))
        kept.append((manager.clock.now(), values))
