"""Pictures of the screen, and the windows on it."""

from __future__ import annotations

import asyncio
import base64
import re
from dataclasses import dataclass
from typing import Any

from ..errors import ToolboxError
from . import pointer
from .session import Desktop

FORMATS = {"png": "png", "jpeg": "jpeg", "jpg": "jpeg", "webp": "webp"}
DEFAULT_QUALITY = 85
SCALES = (0.1, 1.0)
QUALITIES = (1, 100)


@dataclass(frozen=True)
class Region:
    """A part of the screen, in pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Encoding:
    """How a picture is sent. ``quality`` means nothing for png."""

    kind: str = "png"
    quality: int = DEFAULT_QUALITY
    scale: float = 1.0

    @classmethod
    def parse(cls, kind: str, quality: int, scale: float) -> Encoding:
        """Read what a client wants. An unknown format is an unscaled png (v0.190.0).

        :raises ToolboxError: 400 if a number is out of range.
        """
        if not QUALITIES[0] <= quality <= QUALITIES[1]:
            raise ToolboxError(400, f"quality must be between {QUALITIES[0]} and {QUALITIES[1]}")
        if not SCALES[0] <= scale <= SCALES[1]:
            raise ToolboxError(400, f"scale must be between {SCALES[0]} and {SCALES[1]}")
        known = FORMATS.get(kind.strip().lower() or "png")
        return cls(known, quality, scale) if known else cls()

    @property
    def is_plain(self) -> bool:
        """Whether it is what the screen grabber writes anyway."""
        return self.kind == "png" and self.scale == 1.0


async def screenshot(
    desktop: Desktop,
    *,
    region: Region | None = None,
    show_cursor: bool = False,
    encoding: Encoding | None = None,
) -> dict[str, Any]:
    """Take a picture of the screen or a region of it.

    :raises ToolboxError: 400 if the region does not lie on the screen.
    """
    options = ["-o"]
    if region is not None:
        check_region(region, desktop.size)
        options += ["-a", f"{region.x},{region.y},{region.width},{region.height}"]
    place = {"x": 0, "y": 0}
    if show_cursor:
        options.append("-p")
        place = await pointer.position(desktop)
    image = await desktop.tool("scrot", *options, "-")
    if encoding is not None and not encoding.is_plain:
        image = await convert(desktop, image, encoding)
    return {
        "screenshot": base64.b64encode(image).decode(),
        "cursorPosition": place,
        "sizeBytes": len(image),
    }


def check_region(region: Region, size: tuple[int, int]) -> None:
    """Insist that a region lies on the screen.

    :raises ToolboxError: 400 if it does not.
    """
    fits = (
        region.width > 0
        and region.height > 0
        and region.x >= 0
        and region.y >= 0
        and region.x + region.width <= size[0]
        and region.y + region.height <= size[1]
    )
    if not fits:
        raise ToolboxError(400, f"the region does not lie on the screen of {size[0]}x{size[1]} pixels")


async def convert(desktop: Desktop, image: bytes, encoding: Encoding) -> bytes:
    """Scale and compress a png."""
    options = ["-resize", f"{encoding.scale * 100:g}%"] if encoding.scale != 1.0 else []
    if encoding.kind != "png":
        options += ["-quality", str(encoding.quality)]
    return await desktop.tool("convert", "png:-", *options, f"{encoding.kind}:-", stdin=image)


def display_info(desktop: Desktop) -> dict[str, Any]:
    """Describe the one display."""
    width, height = desktop.size
    only = {"id": 0, "x": 0, "y": 0, "width": width, "height": height, "isActive": True}
    return {"displays": [only]}


async def windows(desktop: Desktop) -> dict[str, Any]:
    """List the windows that the window manager manages, in the order they were opened."""
    root = await desktop.tool("xprop", "-root", "_NET_CLIENT_LIST", "_NET_ACTIVE_WINDOW")
    listed, active = "", ""
    for line in root.decode("utf-8", "replace").splitlines():
        if line.startswith("_NET_CLIENT_LIST("):
            listed = line
        elif line.startswith("_NET_ACTIVE_WINDOW("):
            active = line
    ids = re.findall(r"0x[0-9a-f]+", listed)
    found = await asyncio.gather(*(_window(desktop, one, active) for one in ids))
    return {"windows": [window for window in found if window is not None]}


async def _window(desktop: Desktop, window_id: str, active: str) -> dict[str, Any] | None:
    """Describe a window; ``None`` if it has been closed meanwhile.

    The place is asked of xwininfo: that of ``xdotool getwindowgeometry`` (3.20160805) counts the frame twice.
    """
    title, place = await asyncio.gather(
        desktop.attempt("xdotool", "getwindowname", str(int(window_id, 16))),
        desktop.attempt("xwininfo", "-id", window_id),
    )
    if title.exit_code != 0 or place.exit_code != 0:
        return None
    return {
        "id": int(window_id, 16),
        "title": title.text.removesuffix("\n"),
        **parse_geometry(place.text),
        "isActive": re.findall(r"0x[0-9a-f]+", active) == [window_id],
    }


_GEOMETRY = {"x": "Absolute upper-left X", "y": "Absolute upper-left Y", "width": "Width", "height": "Height"}


def parse_geometry(output: str) -> dict[str, int]:
    """Parse what xwininfo prints: the place and size of a window without its frame."""
    found = {}
    for name, label in _GEOMETRY.items():
        match = re.search(rf"^\s*{label}:\s*(-?\d+)", output, re.MULTILINE)
        found[name] = int(match[1]) if match else 0
    return found
