"""Keys: the names of the API, the names of X, and pressing them. Everything but the pressing is pure."""

from __future__ import annotations

import difflib
import re
import unicodedata

from ..errors import ToolboxError
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


REMAPPED_DELAY_MS = 200
"""For characters that are on no key. xdotool lends them one for half this time; a program that looks at the
keyboard's map later than that misses the character (seen with xterm on a busy machine: 2 of 90 at 100 ms)."""


def runs(text: str) -> list[str]:
    """Cut a text into runs of ASCII and of other characters."""
    return re.findall(r"[\x00-\x7f]+|[^\x00-\x7f]+", text)


async def type_text(desktop: Desktop, text: str, delay_ms: int) -> None:
    """Type a text into the focused window."""
    for part in runs(typable(text)):
        delay = delay_ms if part.isascii() else max(delay_ms, REMAPPED_DELAY_MS)
        data = part.encode("utf-8")
        await desktop.tool("xdotool", "type", "--delay", str(delay), "--file", "-", stdin=data)


async def press(desktop: Desktop, combination: str) -> None:
    """Press and release keys (xdotool's names joined by ``+``)."""
    await desktop.tool("xdotool", "key", combination)


async def hold(desktop: Desktop, name: str, *, down: bool) -> None:
    """Press a key without releasing it, or release it."""
    await desktop.tool("xdotool", "keydown" if down else "keyup", x_key(name))
