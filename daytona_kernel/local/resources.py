"""Control plane endpoints for what is no sandbox: snapshots, volumes, secrets, SSH records, config."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from aiohttp import web

from . import creation
from .access import DEFAULT_MINUTES
from .builds import NO_FILES
from .clock import from_iso
from .control import answer, found, json_body
from .errors import ApiError, bad_request
from .history import FIELDS, series
from .records import DAEMON_VERSION
from .snapshots import DEFAULT_SNAPSHOT, PYTHON_PREFIX
from .state import STATE


def _page_number(request: web.Request, name: str, default: int) -> int:
    try:
        number = int(float(request.query.get(name) or default))
    except (ValueError, OverflowError):
        raise bad_request(f"{name} must be a number") from None
    if number < 1:
        raise bad_request(f"{name} must not be less than 1")
    return number


# -- snapshots
# ---------------------------------------------------------------------------------------------------


async def list_snapshots(request: web.Request) -> web.Response:
    """``GET /snapshots?page=&limit=``."""
    snapshots = request.app[STATE].snapshots
    page, limit = _page_number(request, "page", 1), min(_page_number(request, "limit", 100), 200)
    records = snapshots.all()
    name, source = request.query.get("name", "").lower(), request.query.get("sourceSandboxId")
    records = [record for record in records if name in record.name.lower()]
    if source:
        records = [record for record in records if record.source_sandbox_id == source]
    records.sort(key=lambda record: (record.last_used_at or 0, record.created_at), reverse=True)
    items = [record.dto() for record in records[(page - 1) * limit : page * limit]]
    pages = -(-len(records) // limit)
    return web.json_response({"items": items, "total": len(records), "page": page, "totalPages": pages})


async def get_snapshot(request: web.Request) -> web.Response:
    """``GET /snapshots/{idOrName}``."""
    return web.json_response(request.app[STATE].snapshots.find(request.match_info["id"]).dto())


async def create_snapshot(request: web.Request) -> web.Response:
    """``POST /snapshots``: built from an image, or another name and other resources for a snapshot."""
    state = request.app[STATE]
    body = await json_body(request)
    name = creation.optional_text(body, "name") or ""
    image = creation.optional_text(body, "imageName") or ""
    if body.get("buildInfo") is None and not image:
        raise bad_request("imageName or buildInfo is required")
    known = image.startswith(f"{PYTHON_PREFIX}/") or state.snapshots.get(image) is not None
    base = state.snapshots.for_creation(image, state.manager.clock.now()) if known else None
    if body.get("buildInfo") is not None or base is None or base.has_files:
        return web.json_response(state.builds.create_snapshot(body, image).dto())
    record = state.snapshots.add(
        name,
        state.manager.clock.now(),
        image_name=image,
        python=base.python,
        bare=base.bare,
        entrypoint=creation.words(body, "entrypoint"),
        cpu=creation.integer(body, "cpu", 1, base.cpu),
        memory=creation.integer(body, "memory", 1, base.memory),
        disk=creation.integer(body, "disk", 1, base.disk),
    )
    return web.json_response(record.dto())


async def delete_snapshot(request: web.Request) -> web.Response:
    """``DELETE /snapshots/{id}``."""
    state = request.app[STATE]
    record = state.snapshots.find(request.match_info["id"])
    await state.builds.cancel_snapshot(record.id)
    await state.snapshots.remove(record.id)
    return web.Response(status=200)


async def activate_snapshot(request: web.Request) -> web.Response:
    """``POST /snapshots/{id}/activate`` and ``…/deactivate``."""
    state = request.app[STATE]
    active = request.match_info["what"] == "activate"
    record = state.snapshots.activate(request.match_info["id"], state.manager.clock.now(), active=active)
    return web.json_response(record.dto()) if active else web.Response(status=204)


async def snapshot_log_url(request: web.Request) -> web.Response:
    """``GET /snapshots/{id}/build-logs-url``."""
    state = request.app[STATE]
    record = state.snapshots.find(request.match_info["id"])
    return web.json_response({"url": f"{state.base_url()}/snapshots/{record.id}/build-logs"})


async def snapshot_log(request: web.Request) -> web.StreamResponse:
    """``GET /snapshots/{id}/build-logs?follow=``: streams until the build ends."""
    state = request.app[STATE]
    record = state.snapshots.find(request.match_info["id"])
    return await stream_log(request, record.id, state.snapshots.log_file(record))


# -- build logs of sandboxes
# -------------------------------------------------------------------------------------


async def build_log_url(request: web.Request) -> web.Response:
    """``GET /sandbox/{idOrName}/build-logs-url``."""
    state, sandbox = found(request)
    return web.json_response({"url": f"{state.base_url()}/sandboxes/{sandbox.record.id}/build-logs"})


async def build_log(request: web.Request) -> web.StreamResponse:
    """``GET /sandboxes/{id}/build-logs?follow=``: streams until the build ends."""
    _, sandbox = found(request)
    return await stream_log(request, sandbox.record.id, sandbox.log_file)


async def stream_log(request: web.Request, identity: str, path: Path) -> web.StreamResponse:
    """Answer with a build's log, as it grows if the request says ``follow``."""
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    await response.prepare(request)
    follow = request.query.get("follow") == "true"
    async for chunk in request.app[STATE].builds.follow(identity, path, follow=follow):
        await response.write(chunk)
    await response.write_eof()
    return response


# -- volumes
# -----------------------------------------------------------------------------------------------------


async def list_volumes(request: web.Request) -> web.Response:
    """``GET /volumes``. Deleted ones are forgotten at once, so ``includeDeleted`` adds none."""
    return web.json_response([record.dto() for record in request.app[STATE].volumes.all()])


async def create_volume(request: web.Request) -> web.Response:
    """``POST /volumes``."""
    state = request.app[STATE]
    name = (await json_body(request)).get("name")
    return web.json_response(state.volumes.create(name, state.manager.clock.now()).dto())


async def get_volume(request: web.Request) -> web.Response:
    """``GET /volumes/{id}``."""
    return web.json_response(request.app[STATE].volumes.find(request.match_info["id"]).dto())


async def volume_by_name(request: web.Request) -> web.Response:
    """``GET /volumes/by-name/{name}``."""
    return web.json_response(request.app[STATE].volumes.by_name(request.match_info["name"]).dto())


async def delete_volume(request: web.Request) -> web.Response:
    """``DELETE /volumes/{id}``."""
    await request.app[STATE].volumes.delete(request.match_info["id"])
    return web.Response(status=200)


# -- secrets
# -----------------------------------------------------------------------------------------------------


async def list_secrets(request: web.Request) -> web.Response:
    """``GET /secret`` (a plain list) and ``GET /secret/paginated``."""
    records = request.app[STATE].secrets.all()
    name = request.query.get("name", "").lower()
    items = [record.dto() for record in records if name in record.name.lower()]
    if request.path.endswith("/paginated"):
        return web.json_response({"items": items, "total": len(items), "nextCursor": None})
    return web.json_response(items)


async def create_secret(request: web.Request) -> web.Response:
    """``POST /secret``."""
    state = request.app[STATE]
    record = state.secrets.create(await json_body(request), state.manager.clock.now())
    return web.json_response(record.dto(), status=201)


async def one_secret(request: web.Request) -> web.Response:
    """``GET``, ``PATCH`` and ``DELETE /secret/{id}``."""
    state = request.app[STATE]
    record = state.secrets.find(request.match_info["id"])
    if request.method == "DELETE":
        state.secrets.delete(record.id)
        return web.Response(status=204)
    if request.method == "PATCH":
        state.secrets.update(record, await json_body(request), state.manager.clock.now())
    return web.json_response(record.dto())


# -- SSH access
# --------------------------------------------------------------------------------------------------


async def ssh_access(request: web.Request) -> web.Response:
    """``POST`` and ``DELETE /sandbox/{idOrName}/ssh-access``."""
    state, sandbox = found(request)
    if request.method == "DELETE":
        state.ssh.revoke(sandbox.record.id, request.query.get("token"))
        return answer(state, sandbox)
    try:
        minutes = float(request.query.get("expiresInMinutes") or DEFAULT_MINUTES)
    except ValueError:
        raise bad_request("expiresInMinutes must be a number") from None
    return web.json_response(state.ssh.create(sandbox.record.id, minutes).dto())


async def validate_ssh(request: web.Request) -> web.Response:
    """``GET /sandbox/ssh-access/validate?token=``."""
    sandbox_id = request.app[STATE].ssh.validate(request.query.get("token", ""))
    # The service answers null for the id of an invalid token, on which the SDK fails; an empty text it can
    # read.
    return web.json_response({"valid": sandbox_id is not None, "sandboxId": sandbox_id or ""})


# -- the rest
# ----------------------------------------------------------------------------------------------------


async def config(request: web.Request) -> web.Response:
    """``GET /config``."""
    state = request.app[STATE]
    body: dict[str, Any] = {
        "version": DAEMON_VERSION,
        "oidc": {"issuer": "", "clientId": "", "audience": "", "provider": "none"},
        "linkedAccountsEnabled": False,
        "announcements": {},
        "proxyTemplateUrl": f"http://{{{{PORT}}}}-{{{{sandboxId}}}}.localhost:{state.port}",
        "proxyToolboxUrl": state.toolbox_url(),
        "defaultSnapshot": DEFAULT_SNAPSHOT,
        "dashboardUrl": state.base_url(),
        "maxAutoArchiveInterval": creation.MAX_AUTO_ARCHIVE_MINUTES,
        "maintananceMode": False,
        "environment": "local",
        "rateLimit": state.rates.config(),
        "localIsolation": state.manager.isolation.name,
        "localIsolationReason": state.manager.isolation.reason,
    }
    return web.json_response(body)


async def metrics(request: web.Request) -> web.Response:
    """``GET /sandbox/{id}/telemetry/metrics``: samples of the last hours, while the sandbox was started."""
    state, sandbox = found(request)
    times = []
    for name, default in (("from", 0.0), ("to", math.inf)):
        try:
            times.append(from_iso(request.query[name]) if request.query.get(name) else default)
        except ValueError:
            raise bad_request(f"{name} must be a time") from None
    names = request.query.getall("metricNames", None) or list(FIELDS)
    samples = state.history.of(sandbox.record.id)
    return web.json_response({"series": series(samples, names, *times)})


async def push_access(request: web.Request) -> web.Response:
    """``GET /object-storage/push-access``."""
    raise ApiError(503, NO_FILES)


async def api_health(request: web.Request) -> web.Response:
    """``GET /api/health``."""
    return web.json_response({"status": "ok"})


def routes() -> list[web.RouteDef]:
    """All routes of this module."""
    sandbox = "/api/sandbox/{sandbox}"
    return [
        web.get("/api/snapshots", list_snapshots),
        web.post("/api/snapshots", create_snapshot),
        web.get("/api/snapshots/{id}", get_snapshot),
        web.delete("/api/snapshots/{id}", delete_snapshot),
        web.post("/api/snapshots/{id}/{what:activate|deactivate}", activate_snapshot),
        web.get("/api/snapshots/{id}/build-logs-url", snapshot_log_url),
        web.get("/api/snapshots/{id}/build-logs", snapshot_log),
        web.get("/snapshots/{id}/build-logs", snapshot_log),
        web.get(f"{sandbox}/build-logs-url", build_log_url),
        web.get(f"{sandbox}/build-logs", build_log),
        web.get("/sandboxes/{sandbox}/build-logs", build_log),
        web.get("/api/volumes", list_volumes),
        web.post("/api/volumes", create_volume),
        web.get("/api/volumes/by-name/{name}", volume_by_name),
        web.get("/api/volumes/{id}", get_volume),
        web.delete("/api/volumes/{id}", delete_volume),
        web.get("/api/secret", list_secrets),
        web.get("/api/secret/paginated", list_secrets),
        web.post("/api/secret", create_secret),
        web.get("/api/secret/{id}", one_secret),
        web.patch("/api/secret/{id}", one_secret),
        web.delete("/api/secret/{id}", one_secret),
        web.get("/api/sandbox/ssh-access/validate", validate_ssh),
        web.post(f"{sandbox}/ssh-access", ssh_access),
        web.delete(f"{sandbox}/ssh-access", ssh_access),
        web.get(f"{sandbox}/telemetry/metrics", metrics),
        web.get("/api/config", config),
        web.get("/api/health", api_health),
        web.get("/api/object-storage/push-access", push_access),
    ]
