"""Stateful Python contexts over WebSocket (``/process/interpreter``).

What it does, its limits and its close codes are those of Daytona's daemon v0.190.0 (observed and read there),
because a client of the real service has to live with them; `quirks` lists the ones that can be switched off.

========  =============================================  =====================================================
Code      Reason                                         When
========  =============================================  =====================================================
1000      (none)                                         finished, or the command could not be delivered
1001      ``worker process ended``                       the worker died
1001      ``context shutdown``                           context deleted while the execution was queued
1002      ``invalid JSON payload``                       the first message is not a request
1002      ``failed to read first message``               the first message cannot be read
1008      ``code is required``, ``timeout must be …``,   refused requests
          ``context not found: ID``,
          ``context is not active``
1008      ``slow consumer``                              1024 frames waited and nothing moved
1011      ``failed to get default context: …``           no worker can be started
4008      (none)                                         timeout, or a KeyboardInterrupt in the worker
========  =============================================  =====================================================
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus

from aiohttp import WSMsgType, web

from . import quirks
from .children import CHILDREN
from .chunks import BadRequestError, ExecuteRequest, parse_request
from .clients import Client
from .contexts import Context, Contexts, Job
from .settings import SETTINGS, SPAWN_ENV
from .worker_process import Host

PREFIX = "/process/interpreter"
CONTEXTS = web.AppKey("contexts", Contexts)
QUIRKS = web.AppKey("quirks", frozenset[str])
"""Set before the application starts to override ``DAYTONA_LOCAL_QUIRKS``."""
CLOSE_HANDSHAKE = 5.0
"""Seconds that the client is given to answer a close frame."""
VERSION_PROTOCOL = "X-Daytona-SDK-Version~"


def setup(app: web.Application) -> None:
    """Add the interpreter's routes and clean-up."""
    app[QUIRKS] = quirks.from_environment()
    app.on_startup.append(_start)
    # First of all: a client is to see its connection cut, not the end of code that somebody's SIGTERM
    # interrupted.
    app.on_shutdown.insert(0, _stop)
    app.router.add_post(f"{PREFIX}/context", _create_context)
    app.router.add_get(f"{PREFIX}/context", _list_contexts)
    app.router.add_delete(PREFIX + "/context/{id}", _delete_context)
    app.router.add_get(f"{PREFIX}/execute", _execute)


async def _start(app: web.Application) -> None:
    settings = app[SETTINGS]
    env = app[SPAWN_ENV]
    host = Host(app[CHILDREN], settings.python, env)
    app[CONTEXTS] = Contexts(host, settings.work_dir, app[QUIRKS])


async def _stop(app: web.Application) -> None:
    await app[CONTEXTS].kill_all()


def _refuse(request: web.Request, status: HTTPStatus, message: str) -> web.Response:
    """An error answer; v0.190.0 sends no body with it, newer daemons do."""
    if quirks.EMPTY_ERRORS in request.app[QUIRKS]:
        return web.Response(status=status)
    body = {"statusCode": status.value, "message": message, "source": "DAYTONA_DAEMON", "path": request.path}
    return web.json_response(body, status=status)


async def _create_context(request: web.Request) -> web.Response:
    try:
        body = json.loads(await request.read() or b"{}")
        cwd, language = body.get("cwd"), body.get("language")
        if not isinstance(cwd, str | None) or not isinstance(language, str | None):
            raise TypeError("cwd and language are strings")
    except (ValueError, TypeError, AttributeError) as error:
        return _refuse(request, HTTPStatus.BAD_REQUEST, f"invalid request: {error}")
    if language not in (None, "", "python"):
        return _refuse(request, HTTPStatus.BAD_REQUEST, f"unsupported language: {language}")
    try:
        context = await request.app[CONTEXTS].create(cwd)
    except (OSError, ValueError) as error:
        return _refuse(request, HTTPStatus.INTERNAL_SERVER_ERROR, f"cannot start the interpreter: {error}")
    return web.json_response(context.describe())


async def _list_contexts(request: web.Request) -> web.Response:
    contexts = await request.app[CONTEXTS].created()
    return web.json_response({"contexts": [context.describe() for context in contexts]})


async def _delete_context(request: web.Request) -> web.Response:
    context_id = request.match_info["id"]
    if context_id == "default":
        return _refuse(request, HTTPStatus.BAD_REQUEST, "the default context cannot be deleted")
    # Shielded: a client that hangs up must not leave the context half deleted.
    if not await asyncio.shield(request.app[CONTEXTS].delete(context_id)):
        return _refuse(request, HTTPStatus.NOT_FOUND, f"context not found: {context_id}")
    return web.json_response({"message": f"context {context_id} deleted"})


async def _execute(request: web.Request) -> web.WebSocketResponse:
    offered = [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    ws = web.WebSocketResponse(
        timeout=CLOSE_HANDSHAKE,
        max_msg_size=0,
        compress=False,
        protocols=[name for name in offered if name.startswith(VERSION_PROTOCOL)],
    )
    await ws.prepare(request)
    first = (
        await ws.receive()
    )  # no deadline: clients open sockets ahead of time; pings are answered meanwhile
    if first.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
        await ws.close(code=1002, message=b"failed to read first message")
        return ws
    traits = request.app[QUIRKS]
    client = Client(ws, request, strict=quirks.STRICT_QUEUE in traits)
    try:
        message = parse_request(first.data)
        context = await _find_context(request.app[CONTEXTS], message)
    except BadRequestError as refusal:
        client.finish(refusal.code, refusal.reason)
        await client.closed()
        return ws
    await _serve(client, context, Job(message, client), deaf=quirks.DEAF_QUEUE in traits)
    return ws


async def _find_context(contexts: Contexts, message: ExecuteRequest) -> Context:
    """The context that *message* names. Raises `BadRequestError` with what the client is to be told."""
    name = message.context_id
    try:
        context = await contexts.get(name)
    except (OSError, ValueError) as error:
        if name in ("", "default"):
            text = (
                getattr(error, "strerror", None) or error
            )  # without the path, which may not fit into a frame
            raise BadRequestError(1011, f"failed to get default context: {text}") from error
        raise BadRequestError(1008, "context is not active") from error
    if context is None:
        raise BadRequestError(1008, f"context not found: {name}")
    if context.closing:
        raise BadRequestError(1008, "context is not active")
    return context


async def _serve(client: Client, context: Context, job: Job, *, deaf: bool) -> None:
    """Queue the job and look after its socket. The job runs on if the client leaves."""
    await context.submit(job)
    if deaf:
        await job.started.wait()
    client.listen()
    await client.closed()
