"""Terminals with a shell (``/process/pty``): the endpoints."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os

from aiohttp import WSMsgType, web

from .children import CHILDREN
from .errors import ToolboxError
from .fields import Fields, body_fields, check_environment, query_fields
from .settings import SETTINGS, SPAWN_ENV
from .terminals import CLOSE_SECONDS, DEFAULT_COLS, DEFAULT_ROWS, MAX_SIZE, Client, Terminal
from .websockets import offered_protocols, upgrade, wants_upgrade

EXIT_PROTOCOL = "X-Daytona-Pty-Exit-Control"
ENVS_PROTOCOL = "X-Daytona-Pty-Envs~"
MAX_MESSAGE_BYTES = 64 * 1024
"""Keystrokes per message (v0.190.0)."""

TERMINALS = web.AppKey("terminals", dict[str, Terminal])


def find_terminal(request: web.Request, *, status: int = 404) -> Terminal:
    """Find the session that the path names.

    :raises ToolboxError: with ``status`` if there is none.
    """
    name = request.match_info["terminal"]
    terminal = request.app[TERMINALS].get(name)
    if terminal is None:
        raise ToolboxError(status, f"PTY session not found: {name}")
    return terminal


def new_terminal(app: web.Application, fields: Fields, envs: dict[str, str]) -> Terminal:
    """Make a session from a request; started unless it is lazy.

    :raises ToolboxError: 400 for bad sizes or a bad directory, 409 if the id is taken.
    """
    name = fields.text("id")
    if name in app[TERMINALS]:
        raise ToolboxError(409, f"PTY session already exists: {name}")
    cols = fields.integer("cols", 0, low=0, high=MAX_SIZE) or DEFAULT_COLS
    rows = fields.integer("rows", 0, low=0, high=MAX_SIZE) or DEFAULT_ROWS
    cwd = os.path.join(app[SETTINGS].work_dir, fields.text("cwd", ""))
    terminal = Terminal(name, os.path.normpath(cwd), envs, cols, rows, lazy=fields.flag("lazyStart"))
    if not fields.flag("lazyStart"):
        start(app, terminal)
    app[TERMINALS][name] = terminal
    terminal.ended.add_done_callback(lambda _: app[TERMINALS].pop(name, None))
    return terminal


def start(app: web.Application, terminal: Terminal) -> None:
    """Start a session's shell.

    :raises ToolboxError: 400 if that fails.
    """
    try:
        terminal.start(app[CHILDREN], app[SPAWN_ENV])
    except OSError as exc:
        raise ToolboxError(400, f"cannot start a shell: {exc}") from exc


async def create(request: web.Request) -> web.Response:
    """Start a session to which clients connect later."""
    fields = await body_fields(request)
    terminal = new_terminal(request.app, fields, fields.environment("envs"))
    if terminal.started:
        terminal.read()
    return web.json_response({"sessionId": terminal.id}, status=201)


async def list_all(request: web.Request) -> web.Response:
    """List the sessions."""
    return web.json_response({"sessions": [one.describe() for one in request.app[TERMINALS].values()]})


async def get(request: web.Request) -> web.Response:
    """Show one session."""
    return web.json_response(find_terminal(request).describe())


async def delete(request: web.Request) -> web.Response:
    """End a session and everything that runs in it."""
    terminal = find_terminal(request)
    await terminal.kill()
    return web.json_response({"message": f"PTY session {terminal.id} ended"})


async def resize(request: web.Request) -> web.Response:
    """Change a terminal's size."""
    fields = await body_fields(request)
    terminal = find_terminal(request, status=410)
    cols = fields.integer("cols", low=1, high=MAX_SIZE)
    rows = fields.integer("rows", low=1, high=MAX_SIZE)
    terminal.resize(cols, rows)
    return web.json_response(terminal.describe())


def envs_from_protocol(request: web.Request) -> dict[str, str]:
    """Read the environment that SDK 0.226 sends as a subprotocol token (base64url of a JSON object).

    :raises ToolboxError: 400 if it cannot be read.
    """
    for token in offered_protocols(request):
        if token.startswith(ENVS_PROTOCOL):
            text = token[len(ENVS_PROTOCOL) :]
            try:
                data = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            except (binascii.Error, ValueError) as exc:
                raise ToolboxError(400, "the environment in the subprotocol cannot be read") from exc
            return check_environment(data)
    return {}


async def create_connect(request: web.Request) -> web.StreamResponse:
    """Start a session and attach to it in one step. Problems are HTTP answers, before the upgrade."""
    if not wants_upgrade(request):
        raise ToolboxError(400, "a WebSocket upgrade is required")
    terminal = new_terminal(request.app, query_fields(request), envs_from_protocol(request))
    return await _attach(request, terminal)


async def connect(request: web.Request) -> web.StreamResponse:
    """Attach to a session. A session that is not there is reported *on* the WebSocket (v0.190.0)."""
    if not wants_upgrade(request):
        raise ToolboxError(400, "a WebSocket upgrade is required")
    try:
        terminal = find_terminal(request)
        if not terminal.started:
            start(request.app, terminal)
    except ToolboxError as exc:
        socket = await upgrade(request, accept=frozenset({EXIT_PROTOCOL}))
        await socket.send_str(json.dumps({"type": "control", "status": "error", "error": exc.message}))
        if request.transport is not None:
            request.transport.close()
        return socket
    return await _attach(request, terminal)


async def _attach(request: web.Request, terminal: Terminal) -> web.StreamResponse:
    accept = frozenset({EXIT_PROTOCOL})
    socket = await upgrade(request, accept=accept, max_message_bytes=MAX_MESSAGE_BYTES)
    # At once: the sync SDK gives up when this takes longer than 0.1 s, and loses output that comes before.
    await socket.send_str(json.dumps({"type": "control", "status": "connected"}))
    wants_exit_message = EXIT_PROTOCOL in offered_protocols(request)
    client = Client(terminal, socket, wants_exit_message=wants_exit_message, abort=lambda: _abort(request))
    terminal.attach(client)
    terminal.read()
    sending = asyncio.ensure_future(client.send())
    receiving = asyncio.ensure_future(_type(socket, terminal))
    try:
        await asyncio.wait([sending, receiving], return_when=asyncio.FIRST_COMPLETED)
        terminal.detach(client)
        if sending.done() and sending.exception() is None:
            await _stop(receiving)
            await asyncio.wait_for(client.close(), CLOSE_SECONDS)
    except (ConnectionError, asyncio.TimeoutError):
        _abort(request)
    finally:
        terminal.detach(client)
        await _stop(sending)
        await _stop(receiving)
    return socket


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


async def _stop(task: asyncio.Future[None]) -> None:
    """Cancel a task and wait for its end; how it ends does not matter any more."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()


async def _type(socket: web.WebSocketResponse, terminal: Terminal) -> None:
    """Type what the client sends, until it leaves."""
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            await terminal.write(message.data)
        elif message.type is WSMsgType.TEXT:
            await terminal.write(message.data.encode("utf-8", "replace"))


def setup(app: web.Application) -> None:
    """Add the routes."""
    app[TERMINALS] = {}
    root = "/process/pty"
    one = f"{root}/{{terminal}}"
    app.router.add_post(root, create)
    app.router.add_get(root, list_all)
    app.router.add_get(f"{root}/create-connect", create_connect)
    app.router.add_get(one, get)
    app.router.add_delete(one, delete)
    app.router.add_post(f"{one}/resize", resize)
    app.router.add_get(f"{one}/connect", connect)
