"""The desktop's endpoints (``/computeruse``)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

from ..children import CHILDREN
from ..downloads import send_file
from ..errors import ToolboxError
from ..fields import Fields, body_fields, query_fields
from ..ports import ALIASES
from ..settings import SETTINGS, SPAWN_ENV
from . import keyboard, pointer, screen
from .recordings import Recordings
from .session import Desktop

DESKTOP = web.AppKey("desktop", Desktop)
RECORDINGS = web.AppKey("recordings", Recordings)
MAX_CLICKS, MAX_TURNS, MAX_DELAY_MS = 10, 1000, 10_000
MAX_COORDINATE = 32767


# --- life -------------------------------------------------------------------------------------------------


async def start(request: web.Request) -> web.Response:
    """Start the desktop; answers when it can be used. ``display`` is an extra of this server."""
    desktop = request.app[DESKTOP]
    await desktop.start()
    answer = {"message": "Computer use started", "status": desktop.describe(), "display": desktop.display}
    return web.json_response(answer)


async def stop(request: web.Request) -> web.Response:
    """Stop the desktop, after completing the recordings that run."""
    await request.app[RECORDINGS].stop_all()
    await request.app[DESKTOP].stop()
    answer = {"message": "Computer use stopped", "status": request.app[DESKTOP].describe()}
    return web.json_response(answer)


async def status(request: web.Request) -> web.Response:
    """Tell in one word how the desktop is."""
    return web.json_response({"status": request.app[DESKTOP].summary})


async def process_status(request: web.Request) -> web.Response:
    """Tell whether one process runs."""
    name = request.match_info["name"]
    running = request.app[DESKTOP].process(name).running
    return web.json_response({"processName": name, "running": running})


async def process_logs(request: web.Request) -> web.Response:
    """Give the output of one process."""
    name = request.match_info["name"]
    return web.json_response({"processName": name, "logs": request.app[DESKTOP].process(name).log("out")})


async def process_errors(request: web.Request) -> web.Response:
    """Give the error output of one process."""
    name = request.match_info["name"]
    return web.json_response({"processName": name, "errors": request.app[DESKTOP].process(name).log("err")})


async def process_restart(request: web.Request) -> web.Response:
    """Restart one process."""
    name = request.match_info["name"]
    request.app[DESKTOP].process(name)
    await request.app[DESKTOP].restart(name)
    return web.json_response({"message": f"{name} restarted", "processName": name})


# --- pictures and windows ---------------------------------------------------------------------------------


def _show_cursor(fields: Fields) -> bool:
    return fields.flag("showCursor") or fields.flag("show_cursor")


def _region(fields: Fields) -> screen.Region:
    return screen.Region(*(fields.integer(name) for name in ("x", "y", "width", "height")))


def _encoding(fields: Fields) -> screen.Encoding:
    quality = fields.integer("quality", screen.DEFAULT_QUALITY)
    return screen.Encoding.parse(fields.text("format", ""), quality, fields.number("scale", 1.0))


def screenshot(*, region: bool, compressed: bool) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Make one of the four handlers that take pictures."""

    async def handler(request: web.Request) -> web.Response:
        fields = query_fields(request)
        answer = await screen.screenshot(
            request.app[DESKTOP],
            region=_region(fields) if region else None,
            show_cursor=_show_cursor(fields),
            encoding=_encoding(fields) if compressed else None,
        )
        return web.json_response(answer)

    return handler


async def display_info(request: web.Request) -> web.Response:
    """Describe the display."""
    request.app[DESKTOP].need_running()
    return web.json_response(screen.display_info(request.app[DESKTOP]))


async def display_windows(request: web.Request) -> web.Response:
    """List the open windows."""
    return web.json_response(await screen.windows(request.app[DESKTOP]))


# --- mouse ------------------------------------------------------------------------------------------------


def _place(fields: Fields, x: str = "x", y: str = "y") -> tuple[int, int]:
    left = fields.integer(x, low=0, high=MAX_COORDINATE)
    return left, fields.integer(y, low=0, high=MAX_COORDINATE)


async def mouse_position(request: web.Request) -> web.Response:
    """Tell where the pointer is."""
    return web.json_response(await pointer.position(request.app[DESKTOP]))


async def mouse_move(request: web.Request) -> web.Response:
    """Move the pointer."""
    place = _place(await body_fields(request))
    return web.json_response(await pointer.move(request.app[DESKTOP], *place))


async def mouse_click(request: web.Request) -> web.Response:
    """Click."""
    fields = await body_fields(request)
    clicks = fields.integer("clicks", 2 if fields.flag("double") else 1, low=1, high=MAX_CLICKS)
    where = await pointer.click(
        request.app[DESKTOP],
        *_place(fields),
        fields.text("button", ""),
        clicks=clicks,
        modifiers=fields.texts("modifiers"),
    )
    return web.json_response(where)


async def mouse_drag(request: web.Request) -> web.Response:
    """Drag."""
    fields = await body_fields(request)
    begin, end = _place(fields, "startX", "startY"), _place(fields, "endX", "endY")
    return web.json_response(await pointer.drag(request.app[DESKTOP], begin, end, fields.text("button", "")))


async def mouse_scroll(request: web.Request) -> web.Response:
    """Turn the wheel."""
    fields = await body_fields(request)
    amount = fields.integer("amount", 1, low=1, high=MAX_TURNS)
    direction, modifiers = fields.text("direction"), fields.texts("modifiers")
    place = _place(fields)
    await pointer.scroll(request.app[DESKTOP], *place, direction, amount=amount, modifiers=modifiers)
    return web.json_response({"success": True})


def mouse_hold(*, down: bool) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Make the handler that presses or releases a button."""

    async def handler(request: web.Request) -> web.Response:
        fields = await body_fields(request)
        placed = fields.get("x") is not None or fields.get("y") is not None
        where = await pointer.hold(
            request.app[DESKTOP], _place(fields) if placed else None, fields.text("button", ""), down=down
        )
        return web.json_response(where)

    return handler


# --- keyboard ---------------------------------------------------------------------------------------------


async def keyboard_type(request: web.Request) -> web.Response:
    """Type a text."""
    fields = await body_fields(request)
    delay_ms = fields.integer("delay", 0, low=0, high=MAX_DELAY_MS)
    await keyboard.type_text(request.app[DESKTOP], fields.text("text", ""), delay_ms)
    return web.json_response({})


async def keyboard_key(request: web.Request) -> web.Response:
    """Press a key with modifiers."""
    fields = await body_fields(request)
    names = [keyboard.x_modifier(name) for name in fields.texts("modifiers")]
    await keyboard.press(request.app[DESKTOP], "+".join([*names, keyboard.x_key(fields.text("key"))]))
    return web.json_response({})


async def keyboard_hotkey(request: web.Request) -> web.Response:
    """Press a combination such as ``ctrl+c``."""
    fields = await body_fields(request)
    await keyboard.press(request.app[DESKTOP], keyboard.hotkey(fields.text("keys")))
    return web.json_response({})


def keyboard_hold(*, down: bool) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Make the handler that presses or releases a key."""

    async def handler(request: web.Request) -> web.Response:
        await keyboard.hold(request.app[DESKTOP], (await body_fields(request)).text("key"), down=down)
        return web.json_response({})

    return handler


# --- recordings -------------------------------------------------------------------------------------------


async def recording_start(request: web.Request) -> web.Response:
    """Begin to record."""
    label = (await body_fields(request)).text("label", "")
    recording = await request.app[RECORDINGS].start(label)
    return web.json_response(recording.describe(), status=201)


async def recording_stop(request: web.Request) -> web.Response:
    """Complete a recording."""
    number = (await body_fields(request)).text("id")
    return web.json_response((await request.app[RECORDINGS].stop(number)).describe())


async def recording_list(request: web.Request) -> web.Response:
    """List the recordings."""
    return web.json_response({"recordings": [one.describe() for one in request.app[RECORDINGS].all()]})


async def recording_get(request: web.Request) -> web.Response:
    """Describe a recording."""
    return web.json_response(request.app[RECORDINGS].find(request.match_info["id"]).describe())


async def recording_delete(request: web.Request) -> web.Response:
    """Delete a recording."""
    request.app[RECORDINGS].delete(request.match_info["id"])
    return web.Response(status=204)


async def recording_download(request: web.Request) -> web.StreamResponse:
    """Send a recording's file."""
    path = request.app[RECORDINGS].find(request.match_info["id"]).path
    return await send_file(request, path, path, "video/mp4")


# --- accessibility ----------------------------------------------------------------------------------------


async def accessibility(request: web.Request) -> web.Response:
    """Say that the accessibility tree cannot be read here."""
    raise ToolboxError(
        503, "the local sandbox does not offer the accessibility tree (AT-SPI)", "A11Y_UNAVAILABLE"
    )


async def _abandon(app: web.Application) -> None:
    app[DESKTOP].abandon()


async def _lifetime(app: web.Application) -> AsyncIterator[None]:
    yield
    await app[DESKTOP].stop()


def setup(app: web.Application) -> None:
    """Add the routes and the clean-up."""
    home = app[SETTINGS].home_dir
    app[DESKTOP] = Desktop(app[CHILDREN], app[SPAWN_ENV], home, app[ALIASES])
    app[RECORDINGS] = Recordings(app[CHILDREN], app[DESKTOP], home)
    app.cleanup_ctx.append(_lifetime)
    app.on_shutdown.insert(0, _abandon)  # before all processes are ended
    gets: dict[str, Any] = {
        "status": status,
        "process-status": status,
        "process/{name}/status": process_status,
        "process/{name}/logs": process_logs,
        "process/{name}/errors": process_errors,
        "screenshot": screenshot(region=False, compressed=False),
        "screenshot/region": screenshot(region=True, compressed=False),
        "screenshot/compressed": screenshot(region=False, compressed=True),
        "screenshot/region/compressed": screenshot(region=True, compressed=True),
        "display/info": display_info,
        "display/windows": display_windows,
        "mouse/position": mouse_position,
        "recordings": recording_list,
        "recordings/{id}": recording_get,
        "recordings/{id}/download": recording_download,
        "a11y/tree": accessibility,
    }
    posts: dict[str, Any] = {
        "start": start,
        "stop": stop,
        "process/{name}/restart": process_restart,
        "mouse/move": mouse_move,
        "mouse/click": mouse_click,
        "mouse/drag": mouse_drag,
        "mouse/scroll": mouse_scroll,
        "mouse/down": mouse_hold(down=True),
        "mouse/up": mouse_hold(down=False),
        "keyboard/type": keyboard_type,
        "keyboard/key": keyboard_key,
        "keyboard/hotkey": keyboard_hotkey,
        "keyboard/down": keyboard_hold(down=True),
        "keyboard/up": keyboard_hold(down=False),
        "recordings/start": recording_start,
        "recordings/stop": recording_stop,
        "a11y/find": accessibility,
        "a11y/node/focus": accessibility,
        "a11y/node/invoke": accessibility,
        "a11y/node/value": accessibility,
    }
    for name, handler in gets.items():
        app.router.add_get(f"/computeruse/{name}", handler)
    for name, handler in posts.items():
        app.router.add_post(f"/computeruse/{name}", handler)
    app.router.add_delete("/computeruse/recordings/{id}", recording_delete)
