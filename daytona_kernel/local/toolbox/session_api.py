"""Shells that live as long as their client wants (``/process/session``): the endpoints."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from .children import CHILDREN
from .errors import ToolboxError
from .fields import body_fields, query_fields
from .logs import split, without_labels
from .sessions import Command, Session
from .settings import SETTINGS, SPAWN_ENV
from .websockets import VERSION_PROTOCOL, offered_protocols, upgrade, wants_upgrade

ENTRYPOINT = "entrypoint"
"""The id of the session that runs the sandbox's entrypoint; it is listed nowhere."""
LABELS_SINCE = (0, 167)
"""The SDK version from which on ``output`` keeps its labels (v0.190.0)."""

SESSIONS = web.AppKey("sessions", dict[str, Session])


def find_session(request: web.Request) -> Session:
    """Find the session that the path names.

    :raises ToolboxError: 404 if there is none.
    """
    name = request.match_info.get("session", ENTRYPOINT)
    session = request.app[SESSIONS].get(name)
    if session is None:
        raise ToolboxError(404, f"session not found: {name}")
    return session


def find_command(request: web.Request) -> Command:
    """Find the command that the path names.

    :raises ToolboxError: 404 if there is none.
    """
    command = find_session(request).commands.get(request.match_info["command"])
    if command is None:
        raise ToolboxError(404, f"command not found: {request.match_info['command']}")
    return command


def understands_labels(request: web.Request) -> bool:
    """Tell whether the client is an SDK new enough to take labelled output."""
    version = request.headers.get("X-Daytona-SDK-Version", "")
    for token in offered_protocols(request):
        if token.startswith(VERSION_PROTOCOL):
            version = token[len(VERSION_PROTOCOL) :]
    match = re.match(r"v?(\d+)\.(\d+)", version)
    return bool(match) and (int(match[1]), int(match[2])) >= LABELS_SINCE  # type: ignore[index]


def output_fields(request: web.Request, command: Command) -> dict[str, Any]:
    """Give what a command has written so far, in the client's form."""
    raw = command.log.content()
    out, err = split(raw)
    output = raw.decode("utf-8", "replace") if understands_labels(request) else without_labels(raw)
    return {"output": output, "stdout": out, "stderr": err}


async def create(request: web.Request) -> web.Response:
    """Start a session."""
    name = (await body_fields(request)).text("sessionId")
    if name == ENTRYPOINT:
        raise ToolboxError(400, f"{ENTRYPOINT} is a reserved session id")
    sessions = request.app[SESSIONS]
    if name in sessions:
        raise ToolboxError(409, f"session already exists: {name}")
    sessions[name] = start_session(request.app, name)
    return web.Response(status=201)


def start_session(app: web.Application, name: str) -> Session:
    """Start a shell in the working directory."""
    try:
        return Session(app[CHILDREN], name, app[SPAWN_ENV], app[SETTINGS].work_dir)
    except OSError as exc:
        raise ToolboxError(500, f"cannot start a shell: {exc}") from exc


async def list_all(request: web.Request) -> web.Response:
    """List the sessions and their commands."""
    sessions = request.app[SESSIONS]
    return web.json_response([one.describe() for name, one in sessions.items() if name != ENTRYPOINT])


async def get(request: web.Request) -> web.Response:
    """Show one session."""
    return web.json_response(find_session(request).describe())


async def delete(request: web.Request) -> web.Response:
    """End a session and everything that runs in it."""
    session = find_session(request)
    if session.id == ENTRYPOINT:
        raise ToolboxError(400, "the entrypoint session cannot be deleted")
    del request.app[SESSIONS][session.id]
    await session.delete()
    return web.Response(status=204)


async def execute(request: web.Request) -> web.Response:
    """Run a command: answer when it has ended, or at once (202) if asked to run it in the background."""
    fields = await body_fields(request)
    session = find_session(request)
    text = fields.text("command")
    if not text.strip():
        raise ToolboxError(400, "command must not be blank", "INVALID_REQUEST_BODY")
    in_background = fields.flag("runAsync") or fields.flag("async")
    echo = not fields.flag("suppressInputEcho")
    command = session.run(text, with_input=in_background, echo_input=echo)
    if in_background:
        empty = dict.fromkeys(("output", "stdout", "stderr", "exitCode"))
        return web.json_response({"cmdId": command.id, **empty}, status=202)
    await asyncio.shield(command.ended)
    answer = {"cmdId": command.id, **output_fields(request, command), "exitCode": command.exit_code}
    return web.json_response(answer)


async def get_command(request: web.Request) -> web.Response:
    """Show one command."""
    return web.json_response(find_command(request).describe())


async def send_input(request: web.Request) -> web.Response:
    """Give a background command a line of input."""
    command = find_command(request)
    data = (await body_fields(request)).get("data")
    if not isinstance(data, str):
        raise ToolboxError(400, "data is required", "INVALID_REQUEST_BODY")
    await command.send(data)
    return web.Response(status=204)


async def logs(request: web.Request) -> web.StreamResponse:
    """Give a command's output: as JSON, or with ``follow`` as it comes (WebSocket or plain HTTP stream)."""
    return await _logs_of(request, find_command(request))


async def entrypoint_logs(request: web.Request) -> web.StreamResponse:
    """Give the output of the sandbox's entrypoint."""
    return await _logs_of(request, next(iter(find_session(request).commands.values())))


async def _logs_of(request: web.Request, command: Command) -> web.StreamResponse:
    follow = query_fields(request).flag("follow")
    if wants_upgrade(request):
        return await _stream_to_socket(request, command, follow=follow)
    if not follow:
        return web.json_response(output_fields(request, command))
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    await response.prepare(request)
    async for piece in command.log.follow():
        await response.write(piece)
    return response


async def _stream_to_socket(request: web.Request, command: Command, *, follow: bool) -> web.WebSocketResponse:
    socket = await upgrade(request)

    async def send() -> None:
        if follow:
            async for piece in command.log.follow():
                await socket.send_bytes(piece)
        elif content := command.log.content():
            await socket.send_bytes(content)

    async def receive() -> None:  # answers pings, and notices when the client leaves
        async for _ in socket:
            pass

    sending, receiving = asyncio.ensure_future(send()), asyncio.ensure_future(receive())
    try:
        await asyncio.wait([sending, receiving], return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and not isinstance(sending.exception(), ConnectionError):
            sending.result()
        receiving.cancel()  # close() itself reads the answer to its close frame
        await asyncio.wait([receiving])
        await socket.close()
    finally:
        sending.cancel()
        receiving.cancel()
    return socket


async def _lifetime(app: web.Application) -> AsyncIterator[None]:
    if app[SETTINGS].entrypoint:
        session = app[SESSIONS][ENTRYPOINT] = start_session(app, ENTRYPOINT)
        session.run(app[SETTINGS].entrypoint, with_input=True, echo_input=False)
    yield
    for session in app[SESSIONS].values():
        await session.delete()


def setup(app: web.Application) -> None:
    """Add the routes, the entrypoint and the clean-up."""
    app[SESSIONS] = {}
    app.cleanup_ctx.append(_lifetime)
    root = "/process/session"
    one, command = f"{root}/{{session}}", f"{root}/{{session}}/command/{{command}}"
    app.router.add_post(root, create)
    app.router.add_get(root, list_all)
    app.router.add_get(f"{root}/{ENTRYPOINT}", get)
    app.router.add_get(f"{root}/{ENTRYPOINT}/logs", entrypoint_logs)
    app.router.add_get(one, get)
    app.router.add_delete(one, delete)
    app.router.add_post(f"{one}/exec", execute)
    app.router.add_get(command, get_command)
    app.router.add_post(f"{command}/input", send_input)
    app.router.add_get(f"{command}/logs", logs)
