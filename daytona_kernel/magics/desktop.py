"""The sandbox's desktop: ``vnc``, ``screenshot``, mouse and keyboard, recordings."""

from __future__ import annotations

import argparse
import asyncio
import base64
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DaytonaKernelError
from . import preview
from .host import CommandFailed, Host, Result, UsageError
from .registry import Parser, command
from .sdk import explain, state_text
from .words import duration, printable, size, table_html, table_text

if TYPE_CHECKING:
    from daytona import AsyncSandbox

NOVNC_PORT = 6080
PROCESSES = ("xvfb", "xfce4", "x11vnc", "novnc")
FORMATS = ("png", "jpeg", "webp")
BUTTONS = ("left", "right", "middle")
SHOWN_VIDEO_BYTES = 32 << 20
PACKAGES = "xvfb xfce4 xfce4-terminal x11vnc novnc dbus-x11"
"""What Daytona's documentation asks of an image for the desktop."""


async def _started(host: Host) -> AsyncSandbox:
    """The sandbox with its desktop running. It is started if need be: it does not survive a stop."""
    sandbox = await host.sandbox()
    try:
        status = await sandbox.computer_use.get_status()
        if state_text(status.status) == "active":
            return sandbox
        host.write("[daytona] Starting the desktop …\n", error=True)
        await sandbox.computer_use.start()
    except DaytonaKernelError:
        raise
    except Exception as exc:
        raise _explained(exc) from exc
    return sandbox


def _explained(exc: Exception) -> DaytonaKernelError:
    """What is the matter with the desktop, and what to install where programs are missing."""
    status = getattr(exc, "status_code", None)
    text = " ".join(str(getattr(exc, "message", "") or exc).split())[:500]
    if status in (500, 502, 503) or status == 404:
        hint = "" if "install" in text.lower() else f"The image needs: {PACKAGES}."
        return CommandFailed(f"The desktop is not available in this sandbox: {text}", hint=hint)
    return explain(exc, "desktop")


class _desktop:  # noqa: N801 - used like a function
    """Turns the SDK's errors into ours."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, _type: Any, exc: BaseException | None, _traceback: Any) -> None:
        if isinstance(exc, Exception) and not isinstance(exc, DaytonaKernelError):
            raise _explained(exc) from exc


# -- vnc -------------------------------------------------------------------------------------------


@command("vnc start", "Desktop", examples=("%daytona vnc start",))
async def vnc_start(host: Host, args: argparse.Namespace) -> Result:
    """Start the desktop: X server, window manager, VNC and its page."""
    await _started(host)
    return Result("active", "The desktop runs. %daytona vnc view shows it.")


@command("vnc stop", "Desktop", examples=("%daytona vnc stop",))
async def vnc_stop(host: Host, args: argparse.Namespace) -> Result:
    """Stop the desktop and what runs on it."""
    sandbox = await host.sandbox()
    with _desktop():
        await sandbox.computer_use.stop()
    return Result("inactive", "The desktop is stopped")


@command("vnc status", "Desktop", examples=("%daytona vnc status",))
async def vnc_status(host: Host, args: argparse.Namespace) -> Result:
    """Show which parts of the desktop run."""
    sandbox = await host.sandbox()
    rows: list[tuple[str, str]] = []
    with _desktop():
        status = state_text((await sandbox.computer_use.get_status()).status)
        for name in PROCESSES:
            one = await sandbox.computer_use.get_process_status(name)
            rows.append((name, "running" if one.running else "stopped"))
    value = {"status": status, **dict(rows)}
    return Result(
        value, f"The desktop is {status}\n{table_text((), rows)}", table_html((), rows, f"Desktop: {status}")
    )


def _view_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--expires", default="1h", metavar="TIME", help="how long the link works (default 1h)"
    )
    parser.add_argument("--iframe", action="store_true", help="show the desktop in the notebook")
    parser.add_argument(
        "--height", type=int, default=600, metavar="PX", help="height of the iframe (default 600)"
    )
    parser.add_argument("--open", action="store_true", help="open it in the browser of this machine")


@command("vnc view", "Desktop", _view_arguments, examples=("%daytona vnc view --iframe",))
async def vnc_view(host: Host, args: argparse.Namespace) -> Result:
    """Link to the interactive desktop. Whoever has the link can use it until it expires."""
    expires_s = preview.checked_expiry(args.expires)
    preview._check_height(args.height)
    sandbox = await _started(host)
    made = await preview.signed_link(host, sandbox, NOVNC_PORT, expires_s)
    page = preview.Link(
        made.port,
        f"{made.url.rstrip('/')}/vnc.html?autoconnect=true&resize=scale",
        made.token,
        made.expires,
        made.sandbox_id,
    )
    return await preview.show_link(page, args)


def _process_arguments(parser: Parser) -> None:
    parser.add_argument("process", choices=PROCESSES, help="part of the desktop")


def _process_log_arguments(parser: Parser) -> None:
    _process_arguments(parser)
    parser.add_argument("--errors", action="store_true", help="its error output")


@command("vnc logs", "Desktop", _process_log_arguments, examples=("%daytona vnc logs x11vnc --errors",))
async def vnc_logs(host: Host, args: argparse.Namespace) -> Result:
    """Show what a part of the desktop has written."""
    sandbox = await host.sandbox()
    with _desktop():
        if args.errors:
            text = (await sandbox.computer_use.get_process_errors(args.process)).errors
        else:
            text = (await sandbox.computer_use.get_process_logs(args.process)).logs
    return Result(text, text or f"{args.process} has written nothing.")


@command("vnc restart", "Desktop", _process_arguments, examples=("%daytona vnc restart novnc",))
async def vnc_restart(host: Host, args: argparse.Namespace) -> Result:
    """Restart a part of the desktop."""
    sandbox = await host.sandbox()
    with _desktop():
        await sandbox.computer_use.restart_process(args.process)
    return Result(args.process, f"Restarted {args.process}")


# -- pictures --------------------------------------------------------------------------------------


def _region(text: str) -> tuple[int, int, int, int]:
    match = re.fullmatch(r"(\d+),(\d+),(\d+),(\d+)", text)
    if match is None or not int(match[3]) or not int(match[4]):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no region: write it like 0,0,800,600 (x,y,width,height)"
        )
    return int(match[1]), int(match[2]), int(match[3]), int(match[4])


def _screenshot_arguments(parser: Parser) -> None:
    parser.add_argument("--region", type=_region, metavar="X,Y,W,H", help="only this part of the screen")
    parser.add_argument("--format", choices=FORMATS, default="png", help="png (default), jpeg or webp")
    parser.add_argument("--quality", type=int, metavar="N", help="of jpeg and webp, 1 to 100")
    parser.add_argument("--scale", type=float, metavar="F", help="0.1 to 1.0")
    parser.add_argument("--cursor", action="store_true", help="with the mouse pointer")
    parser.add_argument("--save", metavar="FILE", help="also as a file of this machine").completer = "local"  # type: ignore[attr-defined]
    parser.add_argument("--force", action="store_true", help="with --save: overwrite the file")


@command(
    "screenshot",
    "Desktop",
    _screenshot_arguments,
    examples=("%daytona screenshot", "%daytona screenshot --region 0,0,800,600 --format jpeg --quality 70"),
)
async def screenshot(host: Host, args: argparse.Namespace) -> Result:
    """Show the sandbox's screen. The desktop is started if need be."""
    if args.quality is not None and not 1 <= args.quality <= 100:
        raise UsageError(f"--quality is from 1 to 100, not {args.quality}.")
    if args.scale is not None and not 0.1 <= args.scale <= 1.0:
        raise UsageError(f"--scale is from 0.1 to 1.0, not {args.scale}.")
    target = await asyncio.to_thread(_free, args.save, args.force) if args.save else None
    data = await _picture(await _started(host), args)
    if target is not None:
        await asyncio.to_thread(target.write_bytes, data)
    return _shown(data, args.save)


async def _picture(sandbox: AsyncSandbox, args: argparse.Namespace) -> bytes:
    from daytona import ScreenshotOptions, ScreenshotRegion

    region = None
    if args.region:
        x, y, width, height = args.region
        region = ScreenshotRegion(x=x, y=y, width=width, height=height)
    camera = sandbox.computer_use.screenshot
    with _desktop():
        if args.format == "png" and args.scale is None and args.quality is None:
            answer = await (
                camera.take_region(region, args.cursor) if region else camera.take_full_screen(args.cursor)
            )
        else:
            options = ScreenshotOptions(
                show_cursor=args.cursor,
                fmt=args.format,
                quality=args.quality or 85,
                scale=1.0 if args.scale is None else args.scale,
            )
            answer = await (
                camera.take_compressed_region(region, options) if region else camera.take_compressed(options)
            )
    return base64.b64decode(answer.screenshot or "")


def _shown(data: bytes, saved: str | None = None) -> Result:
    """A picture with its size, by its own first bytes: a daemon may send another format than asked for."""
    kind, width, height = _facts(data)
    if not kind:
        raise CommandFailed("The sandbox sent no picture.")
    encoded = base64.b64encode(data).decode("ascii")
    place = f", saved as {saved}" if saved else ""
    metadata = {kind: {"width": width, "height": height}} if width else {}
    value = {"format": kind.partition("/")[2], "width": width, "height": height, "bytes": len(data)}
    text = f"<{kind}, {width}x{height}, {size(len(data))}{place}>"
    return Result(value, text, data={kind: encoded}, metadata=metadata)


def _facts(data: bytes) -> tuple[str, int, int]:
    """Mime type, width and height of a picture; an empty type if it is none we know."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png", int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp", 0, 0
    if data.startswith(b"\xff\xd8"):
        position = 2
        while position + 9 < len(data) and data[position] == 0xFF:
            if data[position + 1] in (0xC0, 0xC1, 0xC2):
                height = int.from_bytes(data[position + 5 : position + 7], "big")
                return "image/jpeg", int.from_bytes(data[position + 7 : position + 9], "big"), height
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        return "image/jpeg", 0, 0
    return "", 0, 0


# -- mouse and keyboard ----------------------------------------------------------------------------


def _shot_argument(parser: Parser) -> None:
    parser.add_argument("--shot", action="store_true", help="show the screen afterwards")


def _point_arguments(parser: Parser) -> None:
    parser.add_argument("x", type=int, help="pixels from the left")
    parser.add_argument("y", type=int, help="pixels from the top")
    _shot_argument(parser)


async def _after(sandbox: AsyncSandbox, args: argparse.Namespace, value: Any, text: str) -> Result:
    """The result of an action, with a picture of the screen if one is wanted."""
    if not args.shot:
        return Result(value, text)
    shot = argparse.Namespace(region=None, format="png", quality=None, scale=None, cursor=True)
    result = _shown(await _picture(sandbox, shot))
    result.value = value
    return result


def _click_arguments(parser: Parser) -> None:
    _point_arguments(parser)
    parser.add_argument("--button", choices=BUTTONS, default="left", help="mouse button")
    parser.add_argument("--double", action="store_true", help="a double click")


@command("click", "Desktop", _click_arguments, examples=("%daytona click 100 200 --shot",))
async def click(host: Host, args: argparse.Namespace) -> Result:
    """Click with the mouse."""
    sandbox = await _started(host)
    with _desktop():
        at = await sandbox.computer_use.mouse.click(args.x, args.y, args.button, args.double)
    return await _after(sandbox, args, {"x": at.x, "y": at.y}, f"Clicked at {at.x},{at.y}")


@command("move", "Desktop", _point_arguments, examples=("%daytona move 100 200",))
async def move(host: Host, args: argparse.Namespace) -> Result:
    """Move the mouse."""
    sandbox = await _started(host)
    with _desktop():
        at = await sandbox.computer_use.mouse.move(args.x, args.y)
    return await _after(sandbox, args, {"x": at.x, "y": at.y}, f"The mouse is at {at.x},{at.y}")


def _drag_arguments(parser: Parser) -> None:
    for name in ("x1", "y1", "x2", "y2"):
        parser.add_argument(name, type=int, help="pixels from the " + ("left" if name[0] == "x" else "top"))
    parser.add_argument("--button", choices=BUTTONS, default="left", help="mouse button")
    _shot_argument(parser)


@command("drag", "Desktop", _drag_arguments, examples=("%daytona drag 10 10 200 200",))
async def drag(host: Host, args: argparse.Namespace) -> Result:
    """Drag with the mouse from one point to another."""
    sandbox = await _started(host)
    with _desktop():
        await sandbox.computer_use.mouse.drag(args.x1, args.y1, args.x2, args.y2, args.button)
    return await _after(sandbox, args, {"x": args.x2, "y": args.y2}, f"Dragged to {args.x2},{args.y2}")


def _scroll_arguments(parser: Parser) -> None:
    parser.add_argument("x", type=int, help="pixels from the left")
    parser.add_argument("y", type=int, help="pixels from the top")
    parser.add_argument("direction", choices=("up", "down"), help="up or down")
    parser.add_argument("--amount", type=int, default=3, metavar="N", help="steps (default 3)")
    _shot_argument(parser)


@command("scroll", "Desktop", _scroll_arguments, examples=("%daytona scroll 400 300 down --amount 5",))
async def scroll(host: Host, args: argparse.Namespace) -> Result:
    """Turn the mouse wheel."""
    if args.amount < 1:
        raise UsageError(f"--amount is from 1 up, not {args.amount}.")
    sandbox = await _started(host)
    with _desktop():
        await sandbox.computer_use.mouse.scroll(args.x, args.y, args.direction, args.amount)
    return await _after(sandbox, args, None, f"Scrolled {args.direction}")


def _type_arguments(parser: Parser) -> None:
    parser.add_argument("text", nargs="+", help="what to type")
    parser.add_argument("--delay", type=int, metavar="MS", help="milliseconds between keys")
    _shot_argument(parser)


@command("type", "Desktop", _type_arguments, examples=("%daytona type 'ls -l' --shot",))
async def type_text(host: Host, args: argparse.Namespace) -> Result:
    """Type a text with the keyboard."""
    sandbox = await _started(host)
    text = " ".join(args.text)
    with _desktop():
        await sandbox.computer_use.keyboard.type(text, args.delay)
    return await _after(sandbox, args, None, f"Typed {len(text)} characters")


def _key_arguments(parser: Parser) -> None:
    parser.add_argument("key", help="key, like enter, or keys together, like ctrl+c")
    _shot_argument(parser)


@command("key", "Desktop", _key_arguments, examples=("%daytona key enter", "%daytona key ctrl+alt+t"))
async def key(host: Host, args: argparse.Namespace) -> Result:
    """Press a key, or several together."""
    sandbox = await _started(host)
    with _desktop():
        if "+" in args.key.strip("+"):
            await sandbox.computer_use.keyboard.hotkey(args.key)
        else:
            await sandbox.computer_use.keyboard.press(args.key)
    return await _after(sandbox, args, None, f"Pressed {args.key}")


@command("windows", "Desktop", _shot_argument, examples=("%daytona windows",))
async def windows(host: Host, args: argparse.Namespace) -> Result:
    """List the windows on the screen."""
    sandbox = await _started(host)
    with _desktop():
        found = (await sandbox.computer_use.display.get_windows()).windows or []
    value = [
        {"id": one.id, "title": one.title, "x": one.x, "y": one.y, "width": one.width, "height": one.height}
        for one in found
    ]
    rows = [(printable(str(one.title)), f"{one.x},{one.y}", f"{one.width}x{one.height}") for one in found]
    text = table_text(("title", "at", "size"), rows) if rows else "There are no windows."
    return await _after(sandbox, args, value, text)


# -- recordings ------------------------------------------------------------------------------------


def _record_start_arguments(parser: Parser) -> None:
    parser.add_argument("--label", help="words for the recording")


@command("record start", "Desktop", _record_start_arguments, examples=("%daytona record start --label demo",))
async def record_start(host: Host, args: argparse.Namespace) -> Result:
    """Begin to record the screen. The value is the recording's id."""
    sandbox = await _started(host)
    with _desktop():
        recording = await sandbox.computer_use.recording.start(args.label)
    return Result(recording.id, f"Recording {recording.id}; %daytona record stop ends it")


@command("record list", "Desktop", examples=("%daytona record list",))
async def record_list(host: Host, args: argparse.Namespace) -> Result:
    """List the recordings."""
    sandbox = await host.sandbox()
    with _desktop():
        found = (await sandbox.computer_use.recording.list()).recordings or []
    value = [{"id": one.id, "file": one.file_name, "status": one.status} for one in found]
    rows = [
        (one.id, one.status, duration(round(one.duration_seconds or 0)), size(one.size_bytes or 0))
        for one in found
    ]
    return Result(value, table_text(("recording", "state", "length", "size"), rows) if rows else "None yet.")


def _record_arguments(parser: Parser) -> None:
    parser.add_argument("id", nargs="?", help="id of the recording (default: the newest)")


@command("record stop", "Desktop", _record_arguments, examples=("%daytona record stop",))
async def record_stop(host: Host, args: argparse.Namespace) -> Result:
    """End a recording."""
    sandbox = await host.sandbox()
    recording_id = args.id or await _newest(sandbox, "recording")
    with _desktop():
        recording = await sandbox.computer_use.recording.stop(recording_id)
    return Result(recording.id, f"Recorded {recording.id}; %daytona record download shows it")


async def _newest(sandbox: AsyncSandbox, status: str) -> str:
    with _desktop():
        found = (await sandbox.computer_use.recording.list()).recordings or []
    found = [one for one in found if one.status == status]
    if not found:
        raise UsageError(
            "Nothing is being recorded." if status == "recording" else "There are no recordings."
        )
    return str(max(found, key=lambda one: str(one.start_time)).id)


def _record_download_arguments(parser: Parser) -> None:
    _record_arguments(parser)
    parser.add_argument("--save", metavar="FILE", help="name on this machine (default: the recording's)")
    parser.add_argument("--force", action="store_true", help="overwrite the file")


@command("record download", "Desktop", _record_download_arguments, examples=("%daytona record download",))
async def record_download(host: Host, args: argparse.Namespace) -> Result:
    """Copy a recording to this machine and show it."""
    sandbox = await host.sandbox()
    recording_id = args.id or await _newest(sandbox, "completed")
    with _desktop():
        recording = await sandbox.computer_use.recording.get(recording_id)
    name = re.sub(r"[^\w.-]", "_", Path(str(recording.file_name)).name).lstrip(".") or "recording.mp4"
    target = await asyncio.to_thread(_free, args.save or name, args.force)
    with _desktop():
        await sandbox.computer_use.recording.download(recording_id, str(target))
    data = await asyncio.to_thread(target.read_bytes)
    html = ""
    if len(data) <= SHOWN_VIDEO_BYTES:
        source = base64.b64encode(data).decode("ascii")
        html = f'<video controls width="640" src="data:video/mp4;base64,{source}"></video>'
    return Result(str(target), f"Saved {target} ({size(len(data))})", html)


def _free(name: str, force: bool) -> Path:
    target = Path(name).expanduser().absolute()
    if target.exists() and not force:
        raise UsageError(f"{target} is there already.", hint="--force overwrites it.")
    return target
