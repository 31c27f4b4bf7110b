"""Keys: the names of the API, the names of X, and pressing them. Everything but the pressing is pure."""

from __future__ import annotations

import asyncio
import difflib
import unicodedata

from ..errors import ToolboxError
from .keymap import batches
from .session import Desktop

MODIFIERS = {"ctrl": "ctrl", "alt": "alt", "shift": "shift", "cmd": "super"}

_NAMED = {
    "enter": "Return",
    "escape": "Escape",
    "tab": "Tab",
    "backspace": "BackSpace",
    "delete": "Delete",
    "space": "space",
    "home": "Home",
    "end": "End",
    "pageup": "Prior",
    "pagedown": "Next",
    "insert": "Insert",
    "up": "Up",
    "down": "Down",
    "left": "Left",
    "right": "Right",
    "num_plus": "KP_Add",
    "num_minus": "KP_Subtract",
    "num_asterisk": "KP_Multiply",
    "num_slash": "KP_Divide",
    "num_decimal": "KP_Decimal",
    "num_enter": "KP_Enter",
    "num_equal": "KP_Equal",
    "num_lock": "Num_Lock",
    "capslock": "Caps_Lock",
    "menu": "Menu",
    "`": "grave",
    "-": "minus",
    "=": "equal",
    "[": "bracketleft",
    "]": "bracketright",
    "\\": "backslash",
    ";": "semicolon",
    "'": "apostrophe",
    ",": "comma",
    ".": "period",
    "/": "slash",
    "+": "plus",
}
_ALIASES = {
    "return": "enter",
    "esc": "escape",
    "del": "delete",
    "control": "ctrl",
    "command": "cmd",
    "meta": "cmd",
    "win": "cmd",
    "windows": "cmd",
    "super": "cmd",
    "option": "alt",
    "page_up": "pageup",
    "pgup": "pageup",
    "page_down": "pagedown",
    "pgdn": "pagedown",
    "caps_lock": "capslock",
    "arrowup": "up",
    "arrowdown": "down",
    "arrowleft": "left",
    "arrowright": "right",
    " ": "space",
    "plus": "+",
    "minus": "-",
}

KEYS = {
    **_NAMED,
    **MODIFIERS,
    **{f"f{number}": f"F{number}" for number in range(1, 25)},
    **{f"num{digit}": f"KP_{digit}" for digit in range(10)},
    **{character: character for character in "abcdefghijklmnopqrstuvwxyz0123456789"},
}
"""The API's key names -> names that xdotool knows."""


def x_key(name: str) -> str:
    """Translate a key's name; upper and lower case are the same.

    :raises ToolboxError: 400 for a name that is not known, with a similar one if there is.
    """
    plain = name.strip().lower() or name.lower()
    plain = _ALIASES.get(plain, plain)
    if plain in KEYS:
        return KEYS[plain]
    similar = difflib.get_close_matches(plain, [*KEYS, *_ALIASES], 1)
    hint = f"; did you mean {similar[0]!r}?" if similar else ""
    raise ToolboxError(400, f"unknown key: {name!r}{hint}")


def x_modifier(name: str) -> str:
    """Translate a modifier's name.

    :raises ToolboxError: 400 if it is none.
    """
    plain = name.strip().lower()
    plain = _ALIASES.get(plain, plain)
    if plain not in MODIFIERS:
        raise ToolboxError(400, f"unknown modifier: {name!r} ({', '.join(MODIFIERS)})")
    return MODIFIERS[plain]


def hotkey(keys: str) -> str:
    """Translate a combination such as ``ctrl+shift+t``; a last ``+`` is the key itself.

    :raises ToolboxError: 400 if it cannot be understood.
    """
    text = keys.strip()
    parts = [*text[:-2].split("+"), "+"] if text.endswith("++") else text.split("+") if text != "+" else ["+"]
    if not all(part.strip() for part in parts):
        raise ToolboxError(400, f"malformed hotkey: {keys!r} (for example ctrl+c)")
    return "+".join([*(x_modifier(part) for part in parts[:-1]), x_key(parts[-1])])


def typable(text: str) -> str:
    """Check a text that is to be typed; line ends become those of xdotool.

    :raises ToolboxError: 400 if it holds control characters, tabs included.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    for character in text:
        if character != "\n" and unicodedata.category(character) in {"Cc", "Cs"}:
            raise ToolboxError(
                400, f"control characters cannot be typed: {character!r} (press the key instead)"
            )
    return text


KEYS_AT_ONCE = 8
"""Different characters that need a lent key in one piece of text. Every keyboard has so many to spare."""
SETTLE_SECONDS = 0.3
"""Between pieces: programs must have read the one before its keys may be lent to others."""


async def type_text(desktop: Desktop, text: str, delay_ms: int) -> None:
    """Type a text into the focused window."""
    pieces = batches(typable(text), KEYS_AT_ONCE)
    desktop.need_running()
    for number, piece in enumerate(pieces):
        strange = [character for character in dict.fromkeys(piece) if not character.isascii()]
        if strange:
            if number:
                await asyncio.sleep(SETTLE_SECONDS)
            await asyncio.to_thread(desktop.lent_keys.lend, strange)
        data = piece.encode("utf-8")
        await desktop.tool("xdotool", "type", "--delay", str(delay_ms), "--file", "-", stdin=data)


async def press(desktop: Desktop, combination: str) -> None:
    """Press and release keys (xdotool's names joined by ``+``)."""
    await desktop.tool("xdotool", "key", combination)


async def hold(desktop: Desktop, name: str, *, down: bool) -> None:
    """Press a key without releasing it, or release it."""
    await desktop.tool("xdotool", "keydown" if down else "keyup", x_key(name))
