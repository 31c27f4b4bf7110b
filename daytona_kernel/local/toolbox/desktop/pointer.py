"""The mouse, through xdotool: one process per action, so that an action is never half done by two callers."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ToolboxError
from .keyboard import x_modifier
from .session import Desktop

BUTTONS = {"left": 1, "middle": 2, "right": 3}
WHEEL = {"up": 4, "down": 5, "left": 6, "right": 7}
CLICK_DELAY_MS = 40
"""Between the clicks of a double click; toolkits take up to some hundred milliseconds for one."""
DRAG_STEPS = 10
"""Programs recognise a drag by the motion, so it must not jump."""

Position = dict[str, int]


def button_number(name: str) -> int:
    """Translate a button; empty is the left one.

    :raises ToolboxError: 400 for any other name.
    """
    number = BUTTONS.get(name.strip().lower() or "left")
    if number is None:
        raise ToolboxError(400, f"unknown button: {name!r} ({', '.join(BUTTONS)})")
    return number


def parse_position(output: str) -> Position:
    """Parse what ``xdotool getmouselocation --shell`` prints."""
    fields = dict(line.split("=", 1) for line in output.split() if "=" in line)
    return {"x": int(fields["X"]), "y": int(fields["Y"])}


async def _act(desktop: Desktop, *actions: str, modifiers: Sequence[str] = ()) -> Position:
    """Carry out xdotool actions with modifiers held, and tell where the pointer is then."""
    names = [x_modifier(name) for name in modifiers]
    held = [word for name in names for word in ("keydown", name)]
    released = [word for name in reversed(names) for word in ("keyup", name)]
    output = await desktop.tool("xdotool", *held, *actions, *released, "getmouselocation", "--shell")
    return parse_position(output.decode())


async def position(desktop: Desktop) -> Position:
    """Tell where the pointer is."""
    return await _act(desktop)


async def move(desktop: Desktop, x: int, y: int) -> Position:
    """Move the pointer."""
    return await _act(desktop, "mousemove", str(x), str(y))


async def click(
    desktop: Desktop, x: int, y: int, button: str, *, clicks: int, modifiers: Sequence[str]
) -> Position:
    """Click at a place."""
    repeat = ["--repeat", str(clicks), "--delay", str(CLICK_DELAY_MS), str(button_number(button))]
    return await _act(desktop, "mousemove", str(x), str(y), "click", *repeat, modifiers=modifiers)


async def hold(desktop: Desktop, place: tuple[int, int] | None, button: str, *, down: bool) -> Position:
    """Press a button without releasing it, or release it; at a place or where the pointer is."""
    there = ["mousemove", str(place[0]), str(place[1])] if place else []
    verb = "mousedown" if down else "mouseup"
    return await _act(desktop, *there, verb, str(button_number(button)))


def path(start: tuple[int, int], end: tuple[int, int], steps: int = DRAG_STEPS) -> list[tuple[int, int]]:
    """Give the places on the way from ``start`` (not included) to ``end``."""
    (x1, y1), (x2, y2) = start, end
    return [(x1 + (x2 - x1) * n // steps, y1 + (y2 - y1) * n // steps) for n in range(1, steps + 1)]


async def drag(desktop: Desktop, start: tuple[int, int], end: tuple[int, int], button: str) -> Position:
    """Press at one place, move, release at another."""
    number = str(button_number(button))
    actions = ["mousemove", str(start[0]), str(start[1]), "mousedown", number]
    for x, y in path(start, end):
        actions += ["mousemove", str(x), str(y), "sleep", "0.01"]
    return await _act(desktop, *actions, "mouseup", number)


async def scroll(
    desktop: Desktop, x: int, y: int, direction: str, *, amount: int, modifiers: Sequence[str]
) -> None:
    """Turn the wheel at a place.

    :raises ToolboxError: 400 for an unknown direction.
    """
    button = WHEEL.get(direction.strip().lower())
    if button is None:
        raise ToolboxError(400, f"unknown direction: {direction!r} (up or down)")
    turns = ["--repeat", str(amount), "--delay", "10", str(button)]
    await _act(desktop, "mousemove", str(x), str(y), "click", *turns, modifiers=modifiers)
