"""The control plane's endpoints for sandboxes (``/api/sandbox...``): requests in, records out."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from multidict import MultiDict

from . import creation
from .booting import Sandbox
from .errors import bad_request
from .isolation import PlainProcesses
from .listing import list_sandboxes
from .operations import archive, fork, pause, recover, resize, snapshot_of
from .records import new_token
from .state import STATE, ServerState

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def json_body(request: web.Request) -> dict[str, Any]:
    """The request's JSON object; an empty body counts as ``{}``. ``ApiError`` 400: anything else."""
    data = await request.read()
    if not data.strip():
        return {}
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise bad_request("the request's body is no valid JSON") from None
    if not isinstance(body, dict):
        raise bad_request("the request's body must be a JSON object")
    return body


def path_integer(request: web.Request, name: str) -> int:
    """A whole number of the path. ``ApiError`` 400: it is none."""
    try:
        return int(request.match_info[name])
    except ValueError:
        raise bad_request(f"{name} must be a number") from None


def found(request: web.Request) -> tuple[ServerState, Sandbox]:
    """The server's state and the sandbox that the path names."""
    state = request.app[STATE]
    return state, state.manager.find(request.match_info["sandbox"])


def answer(state: ServerState, sandbox: Sandbox) -> web.Response:
    """200 with the sandbox."""
    return web.json_response(state.manager.dto(sandbox))


async def create(request: web.Request) -> web.Response:
    """``POST /sandbox``."""
    state = request.app[STATE]
    body = await json_body(request)
    if body.get("buildInfo") is not None:
        return answer(state, await state.builds.create(body))
    return answer(state, await state.manager.create(body))


async def get(request: web.Request) -> web.Response:
    """``GET /sandbox/{idOrName}``."""
    return answer(*found(request))


async def list_all(request: web.Request) -> web.Response:
    """``GET /sandbox``: filtered, sorted, in pages."""
    manager = request.app[STATE].manager
    records = [sandbox.record for sandbox in manager if sandbox.record.state != "destroyed"]
    page, cursor = list_sandboxes(records, request.query)
    items = [record.list_item(request.app[STATE].toolbox_url()) for record in page]
    return web.json_response({"items": items, "nextCursor": cursor})


async def list_plain(request: web.Request) -> web.Response:
    """``GET /sandbox/paginated``: the older list with page numbers."""
    state = request.app[STATE]
    records = [sandbox.record for sandbox in state.manager if sandbox.record.state != "destroyed"]
    query = MultiDict(request.query)
    try:
        page, limit = max(1, int(query.pop("page", "1"))), max(1, int(query.pop("limit", "100")))
    except ValueError:
        raise bad_request("page and limit must be numbers") from None
    matching, _ = list_sandboxes(records, query, limit=max(len(records), 1))
    part = matching[(page - 1) * limit : page * limit]
    items = [record.dto(state.toolbox_url()) for record in part]
    pages = -(-len(matching) // limit)
    return web.json_response({"items": items, "total": len(matching), "page": page, "totalPages": pages})


async def delete(request: web.Request) -> web.Response:
    """``DELETE /sandbox/{idOrName}``."""
    state, sandbox = found(request)
    await state.manager.delete(sandbox)
    return answer(state, sandbox)


async def start(request: web.Request) -> web.Response:
    """``POST …/start``."""
    state, sandbox = found(request)
    await state.manager.start(sandbox)
    return answer(state, sandbox)


async def stop(request: web.Request) -> web.Response:
    """``POST …/stop?force=``."""
    state, sandbox = found(request)
    await state.manager.stop(sandbox, force=request.query.get("force") == "true")
    return answer(state, sandbox)


def operation(work: Callable[[ServerState, Sandbox, dict[str, Any]], Awaitable[Sandbox | None]]) -> Handler:
    """A handler for an operation that takes the body and answers with the sandbox, or with a new one."""

    async def handler(request: web.Request) -> web.Response:
        state, sandbox = found(request)
        other = await work(state, sandbox, await json_body(request))
        return answer(state, other or sandbox)

    return handler


async def set_labels(request: web.Request) -> web.Response:
    """``PUT …/labels``: replaces all labels."""
    state, sandbox = found(request)
    labels = creation.text_map((await json_body(request)).get("labels"), "labels")
    sandbox.record.labels = creation.check_labels(labels)
    state.manager.save(sandbox)
    return answer(state, sandbox)


async def set_public(request: web.Request) -> web.Response:
    """``POST …/public/{isPublic}``."""
    state, sandbox = found(request)
    sandbox.record.public = request.match_info["value"] == "true"
    state.manager.save(sandbox)
    return answer(state, sandbox)


def interval(field: str, check: Callable[[int], int]) -> Handler:
    """A handler for ``POST …/{what}/{minutes}``: sets one field of the record to what `check` makes of it."""

    async def handler(request: web.Request) -> web.Response:
        state, sandbox = found(request)
        setattr(sandbox.record, field, check(path_integer(request, "value")))
        state.manager.save(sandbox)
        return answer(state, sandbox)

    return handler


def not_negative(what: str) -> Callable[[int], int]:
    """A check for minutes of which 0 switches something off. It raises ``ApiError`` 400."""

    def check(minutes: int) -> int:
        if minutes < 0:
            raise bad_request(f"{what} must be non-negative")
        return minutes

    return check


def never_below_minus_one(minutes: int) -> int:
    """Auto-delete: 0 deletes at the stop, negative never."""
    return max(minutes, -1)


async def set_ttl(request: web.Request) -> web.Response:
    """``POST …/ttl/{minutes}``: destroy so many minutes from now; 0 never."""
    state, sandbox = found(request)
    minutes = not_negative("TTL")(path_integer(request, "value"))
    clock = state.manager.clock
    sandbox.record.ttl_minutes = minutes or None
    sandbox.record.auto_destroy_at = clock.now() + clock.minutes(minutes) if minutes else None
    state.manager.save(sandbox)
    return answer(state, sandbox)


async def last_activity(request: web.Request) -> web.Response:
    """``POST …/last-activity``."""
    state, sandbox = found(request)
    state.manager.touch(sandbox)
    return web.Response(status=201)


async def network_settings(request: web.Request) -> web.Response:
    """``POST …/network-settings``."""
    state, sandbox = found(request)
    body = await json_body(request)
    allow_list = creation.optional_text(body, "networkAllowList")
    domains = creation.optional_text(body, "domainAllowList")
    creation.check_network(allow_list, domains)
    record = sandbox.record
    block = creation.flag(body, "networkBlockAll") if "networkBlockAll" in body else record.network_block_all
    if block and not record.network_block_all and isinstance(state.manager.isolation, PlainProcesses):
        raise bad_request("networkBlockAll needs bubblewrap, which is missing or does not work here")
    live = sandbox.daemon if record.state == "started" else None
    if block != record.network_block_all and live is not None and state.manager.isolation.own_network:
        await live.set_network(on=not block)
    elif block != record.network_block_all and record.state != "stopped":
        raise bad_request(
            "the local sandbox server can switch a sandbox's network on and off while it is stopped only"
        )
    record.network_block_all, record.network_allow_list, record.domain_allow_list = block, None, None
    state.manager.save(sandbox)
    return answer(state, sandbox)


async def update_secrets(request: web.Request) -> web.Response:
    """``PUT …/secrets``: takes effect at the next start."""
    state, sandbox = found(request)
    wishes = creation.check_secrets((await json_body(request)).get("secrets"))
    state.secrets.check(wishes)
    sandbox.record.secrets = wishes
    state.manager.save(sandbox)
    return answer(state, sandbox)


async def sandbox_secrets(request: web.Request) -> web.Response:
    """``GET …/secrets``."""
    _, sandbox = found(request)
    return web.json_response(sandbox.record.secrets)


async def toolbox_proxy_url(request: web.Request) -> web.Response:
    """``GET …/toolbox-proxy-url``."""
    state, _ = found(request)
    return web.json_response({"url": state.toolbox_url()})


async def signing_key(request: web.Request) -> web.Response:
    """``GET …/signing-key`` and ``POST …/signing-key/rotate``."""
    state, sandbox = found(request)
    if request.method == "POST":
        sandbox.record.signing_key = new_token()
        state.manager.save(sandbox)
    return web.json_response(sandbox.record.signing_key)


async def organization(request: web.Request) -> web.Response:
    """``GET …/organization``: the one that owns everything here."""
    found(request)
    return web.json_response({"id": "local", "name": "local"})


async def family(request: web.Request) -> web.Response:
    """``GET …/forks``, ``…/parent``, ``…/ancestors``."""
    state, sandbox = found(request)
    manager = state.manager
    what = request.match_info["what"]
    if what == "forks":
        children = [other for other in manager if other.record.parent_id == sandbox.record.id]
        return web.json_response([manager.dto(child) for child in children])
    parents: list[Sandbox] = []
    current: Sandbox | None = sandbox
    while current is not None and current.record.parent_id:
        current = manager.get(current.record.parent_id)
        if current is not None:
            parents.append(current)
    if what == "parent":
        return answer(state, parents[0]) if parents else web.json_response(None)
    return web.json_response([manager.dto(parent) for parent in parents])


def routes() -> list[web.RouteDef]:
    """All routes of this module."""
    one = "/api/sandbox/{sandbox}"
    return [
        web.post("/api/sandbox", create),
        web.get("/api/sandbox", list_all),
        web.get("/api/sandbox/paginated", list_plain),
        web.get(one, get),
        web.delete(one, delete),
        web.post(f"{one}/start", start),
        web.post(f"{one}/stop", stop),
        web.post(f"{one}/pause", operation(pause)),
        web.post(f"{one}/archive", operation(archive)),
        web.post(f"{one}/recover", operation(recover)),
        web.post(f"{one}/resize", operation(resize)),
        web.post(f"{one}/fork", operation(fork)),
        web.post(f"{one}/snapshot", operation(snapshot_of)),
        web.put(f"{one}/labels", set_labels),
        web.post(f"{one}/public/{{value:true|false}}", set_public),
        web.post(
            f"{one}/autostop/{{value}}", interval("auto_stop_interval", not_negative("Auto-stop interval"))
        ),
        web.post(
            f"{one}/autopause/{{value}}", interval("auto_pause_interval", not_negative("Auto-pause interval"))
        ),
        web.post(
            f"{one}/autoarchive/{{value}}", interval("auto_archive_interval", creation.check_archive_interval)
        ),
        web.post(f"{one}/autodelete/{{value}}", interval("auto_delete_interval", never_below_minus_one)),
        web.post(f"{one}/ttl/{{value}}", set_ttl),
        web.post(f"{one}/last-activity", last_activity),
        web.post(f"{one}/network-settings", network_settings),
        web.put(f"{one}/secrets", update_secrets),
        web.get(f"{one}/secrets", sandbox_secrets),
        web.get(f"{one}/toolbox-proxy-url", toolbox_proxy_url),
        web.get(f"{one}/signing-key", signing_key),
        web.post(f"{one}/signing-key/rotate", signing_key),
        web.get(f"{one}/organization", organization),
        web.get(f"{one}/{{what:forks|parent|ancestors}}", family),
    ]
