"""``screenshot``: the sandbox's screen as a picture in the notebook."""

from __future__ import annotations

import argparse
import asyncio
import base64
import re
from typing import TYPE_CHECKING

from .desktop import desktop, free_target, started
from .host import CommandFailed, Host, Result, UsageError
from .registry import Parser, command
from .words import size

if TYPE_CHECKING:
    from daytona import AsyncSandbox

FORMATS = ("png", "jpeg", "webp")


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
    target = await asyncio.to_thread(free_target, args.save, args.force) if args.save else None
    data = await picture(await started(host), args)
    if target is not None:
        await asyncio.to_thread(target.write_bytes, data)
    return shown(data, args.save)


async def picture(sandbox: AsyncSandbox, args: argparse.Namespace) -> bytes:
    """A picture of the screen, as the options of ``screenshot`` say."""
    from daytona import ScreenshotOptions, ScreenshotRegion

    region = None
    if args.region:
        x, y, width, height = args.region
        region = ScreenshotRegion(x=x, y=y, width=width, height=height)
    camera = sandbox.computer_use.screenshot
    with desktop():
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


def shown(data: bytes, saved: str | None = None) -> Result:
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
        return "image/webp", *_webp_size(data)
    if data.startswith(b"\xff\xd8"):
        position = 2
        while position + 9 < len(data) and data[position] == 0xFF:
            if data[position + 1] in (0xC0, 0xC1, 0xC2):
                height = int.from_bytes(data[position + 5 : position + 7], "big")
                return "image/jpeg", int.from_bytes(data[position + 7 : position + 9], "big"), height
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        return "image/jpeg", 0, 0
    return "", 0, 0


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height by the first chunk: lossy, lossless or extended (RFC 9649)."""
    kind = data[12:16]
    if kind == b"VP8 ":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    return 0, 0
