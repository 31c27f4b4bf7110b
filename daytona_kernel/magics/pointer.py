"""Mouse, keyboard and windows of the sandbox's desktop."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from .desktop import desktop, started
from .host import Host, Result, UsageError
from .registry import Parser, command
from .screenshots import picture, shown
from .words import printable, table_text

if TYPE_CHECKING:
    from daytona import AsyncSandbox

BUTTONS = ("left", "right", "middle")


def pixels(text: str) -> int:
    """A place on the screen; for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no place on the screen: write pixels, from 0 up")
    return int(text)


def _shot_argument(parser: Parser) -> None:
    parser.add_argument("--shot", action="store_true", help="show the screen afterwards")


def _point_arguments(parser: Parser) -> None:
    parser.add_argument("x", type=pixels, help="pixels from the left")
    parser.add_argument("y", type=pixels, help="pixels from the top")
    _shot_argument(parser)


async def _after(sandbox: AsyncSandbox, args: argparse.Namespace, value: Any, text: str) -> Result:
    """The result of an action, with a picture of the screen if one is wanted."""
    if not args.shot:
        return Result(value, text)
    shot = argparse.Namespace(region=None, format="png", quality=None, scale=None, cursor=True)
    result = shown(await picture(sandbox, shot))
    result.value = value
    return result


def _click_arguments(parser: Parser) -> None:
    _point_arguments(parser)
    parser.add_argument("--button", choices=BUTTONS, default="left", help="mouse button")
    parser.add_argument("--double", action="store_true", help="a double click")


@command("click", "Desktop", _click_arguments, examples=("%daytona click 100 200 --shot",))
async def click(host: Host, args: argparse.Namespace) -> Result:
    """Click with the mouse."""
    sandbox = await started(host)
    with desktop():
        at = await sandbox.computer_use.mouse.click(args.x, args.y, args.button, args.double)
    return await _after(sandbox, args, {"x": at.x, "y": at.y}, f"Clicked at {at.x},{at.y}")


@command("move", "Desktop", _point_arguments, examples=("%daytona move 100 200",))
async def move(host: Host, args: argparse.Namespace) -> Result:
    """Move the mouse."""
    sandbox = await started(host)
    with desktop():
        at = await sandbox.computer_use.mouse.move(args.x, args.y)
    return await _after(sandbox, args, {"x": at.x, "y": at.y}, f"The mouse is at {at.x},{at.y}")


def _drag_arguments(parser: Parser) -> None:
    for name in ("x1", "y1", "x2", "y2"):
        parser.add_argument(
            name, type=pixels, help="pixels from the " + ("left" if name[0] == "x" else "top")
        )
    parser.add_argument("--button", choices=BUTTONS, default="left", help="mouse button")
    _shot_argument(parser)


@command("drag", "Desktop", _drag_arguments, examples=("%daytona drag 10 10 200 200",))
async def drag(host: Host, args: argparse.Namespace) -> Result:
    """Drag with the mouse from one point to another."""
    sandbox = await started(host)
    with desktop():
        await sandbox.computer_use.mouse.drag(args.x1, args.y1, args.x2, args.y2, args.button)
    return await _after(sandbox, args, {"x": args.x2, "y": args.y2}, f"Dragged to {args.x2},{args.y2}")


def _scroll_arguments(parser: Parser) -> None:
    parser.add_argument("x", type=pixels, help="pixels from the left")
    parser.add_argument("y", type=pixels, help="pixels from the top")
    parser.add_argument("direction", choices=("up", "down"), help="up or down")
    parser.add_argument("--amount", type=int, default=3, metavar="N", help="steps (default 3)")
    _shot_argument(parser)


@command("scroll", "Desktop", _scroll_arguments, examples=("%daytona scroll 400 300 down --amount 5",))
async def scroll(host: Host, args: argparse.Namespace) -> Result:
    """Turn the mouse wheel."""
    if args.amount < 1:
        raise UsageError(f"--amount is from 1 up, not {args.amount}.")
    sandbox = await started(host)
    with desktop():
        await sandbox.computer_use.mouse.scroll(args.x, args.y, args.direction, args.amount)
    value = {"x": args.x, "y": args.y, "direction": args.direction, "amount": args.amount}
    return await _after(sandbox, args, value, f"Scrolled {args.direction}")


def _type_arguments(parser: Parser) -> None:
    parser.add_argument("text", nargs="+", help="what to type")
    parser.add_argument("--delay", type=int, metavar="MS", help="milliseconds between keys")
    _shot_argument(parser)


@command("type", "Desktop", _type_arguments, examples=("%daytona type 'ls -l' --shot",))
async def type_text(host: Host, args: argparse.Namespace) -> Result:
    """Type a text with the keyboard."""
    text = " ".join(args.text)
    if any(ord(char) < 32 and char != "\n" for char in text):
        raise UsageError("Tabs and other control characters can not be typed.", hint="Use %daytona key tab.")
    if args.delay is not None and args.delay < 0:
        raise UsageError(f"--delay is from 0 up, not {args.delay}.")
    sandbox = await started(host)
    with desktop():
        await sandbox.computer_use.keyboard.type(text, args.delay)
    return await _after(sandbox, args, len(text), f"Typed {len(text)} characters")


def _key_arguments(parser: Parser) -> None:
    parser.add_argument("key", help="key, like enter, or keys together, like ctrl+c")
    _shot_argument(parser)


@command("key", "Desktop", _key_arguments, examples=("%daytona key enter", "%daytona key ctrl+alt+t"))
async def key(host: Host, args: argparse.Namespace) -> Result:
    """Press a key, or several together."""
    sandbox = await started(host)
    with desktop():
        if "+" in args.key.strip("+"):
            await sandbox.computer_use.keyboard.hotkey(args.key)
        else:
            await sandbox.computer_use.keyboard.press(args.key)
    return await _after(sandbox, args, args.key, f"Pressed {args.key}")


@command("windows", "Desktop", _shot_argument, examples=("%daytona windows",))
async def windows(host: Host, args: argparse.Namespace) -> Result:
    """List the windows on the screen."""
    sandbox = await started(host)
    with desktop():
        found = (await sandbox.computer_use.display.get_windows()).windows or []
    value = [
        {"id": one.id, "title": one.title, "x": one.x, "y": one.y, "width": one.width, "height": one.height}
        for one in found
    ]
    rows = [(printable(str(one.title)), f"{one.x},{one.y}", f"{one.width}x{one.height}") for one in found]
    text = table_text(("title", "at", "size"), rows) if rows else "There are no windows."
    return await _after(sandbox, args, value, text)
