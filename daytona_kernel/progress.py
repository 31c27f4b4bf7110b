"""What a headless run shows while it works: a bar on a terminal, one line per cell elsewhere, or nothing.

Everything goes to stderr, so that stdout stays free for whoever pipes it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from .terminal import coloured, spelled, without_sequences

if TYPE_CHECKING:
    from collections.abc import Sequence

_TITLE_LENGTH = 48


class Progress:
    """Shows nothing, and is the base of those that do. One call per event, in the order of the methods."""

    def run_started(self, cells: int) -> None:
        """*cells* is how many code cells will run."""

    def cell_started(self, number: int, source: str) -> None:
        """The code cell *number* (from 1) is about to run."""

    def cell_ended(self, number: int, seconds: float, *, ok: bool) -> None:
        """The code cell *number* ran for *seconds*; *ok* tells whether it raised nothing."""

    def run_ended(self) -> None:
        """No cell will follow. Called once, also after a failure."""


class LineProgress(Progress):
    """One line per cell when it ends: for logs."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._total = 0
        self._title = ""

    def run_started(self, cells: int) -> None:
        """Note how many cells there are."""
        self._total = cells

    def cell_started(self, number: int, source: str) -> None:
        """Note the cell that runs."""
        self._title = cell_title(source)

    def cell_ended(self, number: int, seconds: float, *, ok: bool) -> None:
        """Show the cell that ran."""
        width = len(str(self._total))
        mark = "ok    " if ok else "FAILED"
        line = f"[{number:>{width}}/{self._total}] {mark} {format_duration(seconds):>6}  {self._title}"
        print(line, file=self._out, flush=True)


class BarProgress(Progress):
    """A bar that moves with each cell and names the one that runs."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._bar: Any = None

    def run_started(self, cells: int) -> None:
        """Note how many cells there are."""
        from tqdm import tqdm

        self._bar = tqdm(
            total=cells,
            unit="cell",
            file=self._out,
            dynamic_ncols=True,
            bar_format="{l_bar}{bar}| {n}/{total} {elapsed}{postfix}",
        )

    def cell_started(self, number: int, source: str) -> None:
        """Note the cell that runs."""
        self._bar.set_postfix_str(cell_title(source))

    def cell_ended(self, number: int, seconds: float, *, ok: bool) -> None:
        """Show the cell that ran."""
        if ok:
            self._bar.update(1)

    def run_ended(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str("")
            self._bar.close()


def make_progress(enabled: bool, out: TextIO | None = None) -> Progress:
    """Return what suits *out* (default: stderr)."""
    out = sys.stderr if out is None else out
    if not enabled:
        return Progress()
    return BarProgress(out) if out.isatty() else LineProgress(out)


def format_duration(seconds: float) -> str:
    """Return *seconds* for a human eye: ``0.4s``, ``12s``, ``3m05s``, ``2h07m``, ``3d04h``."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f}s"
    total = round(seconds)
    if total < 60:
        return f"{total}s"
    if total < 3600:
        return f"{total // 60}m{total % 60:02d}s"
    if total < 86400:
        return f"{total // 3600}h{total % 3600 // 60:02d}m"
    return f"{total // 86400}d{total % 86400 // 3600:02d}h"


def cell_title(source: str) -> str:
    """Return the first line of *source* that says something, cut to fit a line."""
    lines = [line.strip() for line in source.splitlines()]
    title = spelled(next((line for line in lines if line), ""))
    return title if len(title) <= _TITLE_LENGTH else title[: _TITLE_LENGTH - 1] + "…"


def readable_traceback(traceback: Sequence[str], out: TextIO) -> str:
    """Join the lines of an ``error`` message; keep their colours only where *out* shows them."""
    text = "\n".join(traceback)
    keep_colours = out.isatty() and not os.environ.get("NO_COLOR")
    return coloured(text) if keep_colours else strip_ansi(text)


def strip_ansi(text: str) -> str:
    """Return *text* without terminal control sequences."""
    return without_sequences(text)
