"""Text of the sandbox on its way to a terminal or a log: it must not steer either. Pure.

Control sequences can set a terminal's title and clipboard, move what was printed, or forge lines of a log.
Colours are harmless. Sequences: ECMA-48, section 5.4; operating system commands as xterm has them.
"""

from __future__ import annotations

import logging
import re

_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # with parameters, colours among them
    r"|\x1b[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c|$)"  # commands and strings: titles, clipboard, links
    r"|\x1b[ -/]*[0-~]?"
)
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m\Z")
_PAINTING = re.compile(r"\x1b\[(?:[0-9;:]*m|[0-9;]*[A-GK]|\?25[hl])\Z")
"""What progress bars are made of: colours, steps of the cursor, erasing in a line, hiding the cursor."""
_OPEN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b\x9c]*|[ -/]*)\Z")
"""A sequence whose end has not come yet."""
_OPEN_CHARS = 4096
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""All but tab and newline; and the characters that turn the direction of writing round."""
_NO_PAINT = re.compile("[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""The same, without those that go back in a line."""


def without_sequences(text: str) -> str:
    """``text`` without control sequences, and with control characters spelled out."""
    return spelled(_SEQUENCE.sub("", text))


def coloured(text: str) -> str:
    """``text`` with its colours, and nothing else that a terminal would obey."""
    return _kept(text, _COLOUR, _CONTROL)


def painted(text: str) -> str:
    """``text`` with what progress bars need, and nothing else that a terminal would obey.

    No titles, clipboards, links, other screens, or questions, which terminals answer as if somebody typed.
    """
    return _kept(text, _PAINTING, _NO_PAINT)


class Painter:
    """:func:`painted` for a text that comes in pieces, cut anywhere."""

    def __init__(self) -> None:
        self._open = ""

    def feed(self, text: str) -> str:
        """Take the next piece; what may be shown by now."""
        text, self._open = self._open + text, ""
        place = text.rfind("\x1b")
        if place >= 0 and len(text) - place < _OPEN_CHARS and _OPEN.match(text, place):
            text, self._open = text[:place], text[place:]
        return painted(text)


def _kept(text: str, allowed: re.Pattern[str], control: re.Pattern[str]) -> str:
    parts = []
    place = 0
    for match in _SEQUENCE.finditer(text):
        parts.append(_spelled(text[place : match.start()], control))
        if allowed.match(match[0]):
            parts.append(match[0])
        place = match.end()
    return "".join([*parts, _spelled(text[place:], control)])


def spelled(text: str) -> str:
    r"""``text`` with control characters as ``\x1b``; tabs and newlines stay."""
    if text.isascii() and text.isprintable():
        return text
    return _spelled(text, _CONTROL)


def _spelled(text: str, control: re.Pattern[str]) -> str:
    return control.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


class PlainFormatter(logging.Formatter):
    """Formats records so that nothing in them is a control sequence."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's line or lines."""
        return spelled(super().format(record))
