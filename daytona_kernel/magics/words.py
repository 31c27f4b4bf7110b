"""PURE: sizes, times, tables and "did you mean" as text and as small HTML."""

from __future__ import annotations

import difflib
import html
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_CELL = "text-align:left;padding:1px 10px 1px 0;white-space:pre"


def size(count: float) -> str:
    """Bytes for people: ``512 B``, ``1.5 MiB``."""
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """Seconds for people: ``0.4 s``, ``3m20s``, ``2h``, ``7d``."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds == int(seconds) else f"{seconds:.1f} s"
    rest, parts = int(seconds), []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2])


def moment(when: datetime) -> str:
    """A point in time in the person's own zone, to the second."""
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def now() -> datetime:
    """This moment, with its zone."""
    return datetime.now(timezone.utc)


def escape(value: Any) -> str:
    """Text that is safe in HTML, attributes included."""
    return html.escape(str(value), quote=True)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``Did you mean …?`` with the nearest of the known words; empty if none is near."""
    close = difflib.get_close_matches(word, list(known), 1, 0.55)
    return f"Did you mean {close[0]}?" if close else ""


def table_text(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows in columns of equal width."""
    cells = [[str(cell) for cell in row] for row in rows]
    lines = [list(header), *cells] if header else cells
    if not lines:
        return ""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def table_html(header: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "") -> str:
    """The same as an HTML table; every cell is escaped unless it is a :class:`Markup`."""
    head = "".join(f'<th style="{_CELL}">{escape(name)}</th>' for name in header)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{_markup(cell)}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    title = f'<caption style="text-align:left"><b>{escape(caption)}</b></caption>' if caption else ""
    top = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f"<table>{title}{top}<tbody>{body}</tbody></table>"


class Markup(str):
    """Text that is HTML already."""


def _markup(cell: Any) -> str:
    return str(cell) if isinstance(cell, Markup) else escape(cell)


def link(url: str, text: str = "") -> Markup:
    """A link that opens in a new tab, for ``http`` and ``https`` only; else its text."""
    if not url.startswith(("http://", "https://")):
        return Markup(escape(text or url))
    return Markup(
        f'<a href="{escape(url)}" target="_blank" rel="noopener noreferrer">{escape(text or url)}</a>'
    )


def printable(text: str) -> str:
    """A name from the sandbox without control characters, which a terminal would obey."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
