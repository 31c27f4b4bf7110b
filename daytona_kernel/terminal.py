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
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""All but tab and newline; and the characters that turn the direction of writing round."""


def without_sequences(text: str) -> str:
    """``text`` without control sequences, and with control characters spelled out."""
    return spelled(_SEQUENCE.sub("", text))


def coloured(text: str) -> str:
    """``text`` with its colours, and nothing else that a terminal would obey."""
    parts = []
    place = 0
    for match in _SEQUENCE.finditer(text):
        parts.append(spelled(text[place : match.start()]))
        if _COLOUR.match(match[0]):
            parts.append(match[0])
        place = match.end()
    return "".join([*parts, spelled(text[place:])])


def spelled(text: str) -> str:
    r"""``text`` with control characters as ``\x1b``; tabs and newlines stay."""
    if text.isascii() and text.isprintable():
        return text
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


class PlainFormatter(logging.Formatter):
    """Formats records so that nothing in them is a control sequence."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's line or lines."""
        return spelled(super().format(record))
