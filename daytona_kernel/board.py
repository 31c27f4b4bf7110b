"""What a run of many notebooks shows while it works: all that run, on a terminal; else a line for each.

Everything goes to stderr.
"""

from __future__ import annotations

import shutil
import time
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from .progress import Progress, cell_title, format_duration, make_progress
from .terminal import spelled

if TYPE_CHECKING:
    from .reports import Report
    from .selection import Job

_MARKS = {"ok": "ok     ", "failed": "FAILED ", "error": "ERROR  ", "stopped": "stopped"}
_BAR_WIDTH = 12
_UP_AND_CLEAR = "\x1b[{}A\x1b[J"


class Board:
    """Shows nothing, and is the base of those that do."""

    def begun(self, job: Job) -> Progress:
        """An attempt at *job* begins; the progress of its cells goes to the answer."""
        return Progress()

    def retried(self, job: Job, reason: str) -> None:
        """The attempt failed with the sandbox; another one follows."""

    def ended(self, report: Report) -> None:
        """A notebook is done, whatever came of it."""

    def refresh(self) -> None:
        """Time has gone by. Called now and then."""

    def close(self) -> None:
        """All are done."""


class SingleBoard(Board):
    """One notebook only: its cells are what there is to show."""

    def __init__(self, enabled: bool, out: TextIO) -> None:
        self._enabled = enabled
        self._out = out

    def begun(self, job: Job) -> Progress:
        """Show each cell."""
        return make_progress(self._enabled, self._out)

    def retried(self, job: Job, reason: str) -> None:
        """Say so."""
        print(f"{reason}; trying again in a new sandbox", file=self._out, flush=True)


class LineBoard(Board):
    """One line for each notebook when it ends: for logs."""

    def __init__(self, total: int, out: TextIO) -> None:
        self._total = total
        self._done = 0
        self._out = out

    def retried(self, job: Job, reason: str) -> None:
        """Say so."""
        self._print(f"{job.name}: {reason}; trying again in a new sandbox")

    def ended(self, report: Report) -> None:
        """Show how it went."""
        self._done += 1
        self._print(self._line(report))

    def _line(self, report: Report) -> str:
        width = len(str(self._total))
        mark = _MARKS.get(report.status, report.status)
        cells = f"{report.facts.done}/{report.facts.cells} cells"
        line = f"[{self._done:>{width}}/{self._total}] {mark} {format_duration(report.seconds):>6}  "
        line += f"{report.job.name} ({cells}"
        line += f", {report.attempts} attempts)" if report.attempts > 1 else ")"
        if report.outcome is not None and report.outcome.message:
            line += f": {report.outcome.message}"
        return line

    def _print(self, line: str) -> None:
        print(_flat(line), file=self._out, flush=True)


class LiveBoard(LineBoard):
    """Lines as in a log, and below them a block that moves: the notebooks that run, and the whole."""

    def __init__(
        self,
        total: int,
        out: TextIO,
        clock: Callable[[], float] = time.monotonic,
        columns: int = 0,
        rows: int = 0,
    ) -> None:
        """*columns* and *rows*: of the terminal; 0 asks it."""
        super().__init__(total, out)
        self._clock = clock
        self._columns, self._rows = columns, rows
        self._began = clock()
        self._running: dict[str, _Row] = {}
        self._height = 0

    def begun(self, job: Job) -> Progress:
        """Add a row."""
        row = self._running[job.name] = _Row(job.name, self._clock, self.refresh)
        self.refresh()
        return row

    def ended(self, report: Report) -> None:
        """Turn the row into a line that stays."""
        self._running.pop(report.job.name, None)
        super().ended(report)

    def refresh(self) -> None:
        """Draw the block anew."""
        self._clear()
        self._draw()

    def close(self) -> None:
        """Take the block away."""
        self._running.clear()
        self._clear()
        self._out.flush()

    def _print(self, line: str) -> None:
        self._clear()
        print(_flat(line), file=self._out)
        self._draw()

    def _clear(self) -> None:
        if self._height:
            self._out.write(_UP_AND_CLEAR.format(self._height))
            self._height = 0

    def _draw(self) -> None:
        size = shutil.get_terminal_size()
        width, height = (self._columns or size.columns) - 1, (self._rows or size.lines) - 2
        share = self._done / self._total
        done = f"{self._done} of {self._total} notebooks, {format_duration(self._clock() - self._began)}"
        rows = [row.line() for row in self._running.values()]
        if len(rows) > height:  # what has left the screen at its top can not be drawn anew
            hidden = len(rows) - height + 1
            rows = [*rows[: len(rows) - hidden], f"and {hidden} more"] if height > 0 else []
        lines = [*rows, f"{_bar(share)} {done}"]
        self._out.write("".join(_cut(_flat(line), width) + "\n" for line in lines))
        self._height = len(lines)
        self._out.flush()


class _Row(Progress):
    """A notebook that runs: how far it is, and the cell it is at."""

    def __init__(self, name: str, clock: Callable[[], float], changed: Callable[[], None]) -> None:
        self._name = name
        self._clock = clock
        self._changed = changed
        self._began = clock()
        self._total = 0
        self._done = 0
        self._title = "starting"

    def run_started(self, cells: int) -> None:
        """Note how many cells there are."""
        self._total = cells
        self._changed()

    def cell_started(self, number: int, source: str) -> None:
        """Note the cell that runs."""
        self._title = cell_title(source)
        self._changed()

    def cell_ended(self, number: int, seconds: float, *, ok: bool) -> None:
        """Count it."""
        self._done = number
        self._changed()

    def run_ended(self) -> None:
        """Show that the kernel and its sandbox are ending."""
        self._title = "ending"
        self._changed()

    def line(self) -> str:
        """The row as text."""
        share = self._done / self._total if self._total else 0.0
        cells = f"{self._done}/{self._total or '?'}"
        took = format_duration(self._clock() - self._began)
        return f"{_bar(share)} {cells:>7} {took:>6}  {self._name}  {self._title}"


def _flat(line: str) -> str:
    """*line* as one line, without control characters: names and messages may have some."""
    return spelled(line.replace("\n", " ").replace("\t", " "))


def _cut(line: str, width: int) -> str:
    """The beginning of *line* that a terminal shows in *width* columns."""
    for index, character in enumerate(line):
        if not unicodedata.combining(character):
            width -= 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if width < 0:
            return line[:index]
    return line


def _bar(share: float) -> str:
    full = round(share * _BAR_WIDTH)
    return "█" * full + "·" * (_BAR_WIDTH - full)


def make_board(enabled: bool, total: int, out: TextIO) -> Board:
    """Return what suits *out* and the number of notebooks."""
    if total == 1:
        return SingleBoard(enabled, out)
    if not enabled:
        return Board()
    return LiveBoard(total, out) if out.isatty() else LineBoard(total, out)
