"""What a run shows, and how durations are written."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daytona_kernel import progress
from daytona_kernel.config import parse_duration_s
from daytona_kernel.progress import format_duration


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0s"), (9.94, "9.9s"), (9.96, "10s"), (59.6, "1m00s"), (7625, "2h07m"), (273600, "3d04h")],
)
def test_durations_for_the_eye(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(min_value=10, max_value=10**7))
def test_what_is_formatted_can_be_parsed_again_to_within_its_precision(seconds: int) -> None:
    assert parse_duration_s(format_duration(seconds)) == pytest.approx(seconds, rel=0.05)


def test_a_log_gets_a_line_per_cell() -> None:
    out = io.StringIO()
    shown = progress.make_progress(True, out)
    shown.run_started(12)
    shown.cell_started(1, "\n\nimport os\nprint(1)")
    shown.cell_ended(1, 0.26, ok=True)
    shown.cell_started(2, "x" * 100)
    shown.cell_ended(2, 75, ok=False)
    shown.run_ended()
    assert out.getvalue() == ("[ 1/12] ok       0.3s  import os\n[ 2/12] FAILED  1m15s  " + "x" * 47 + "…\n")


def test_a_terminal_gets_a_bar_that_names_the_cell_and_stops_at_the_one_that_failed() -> None:
    out = Terminal()
    shown = progress.make_progress(True, out)
    shown.run_started(2)
    shown.cell_started(1, "load()")
    shown.cell_ended(1, 0.2, ok=True)
    shown.cell_started(2, "fit()")
    shown.cell_ended(2, 0.2, ok=False)
    shown.run_ended()
    last = out.getvalue().rstrip().rpartition("\r")[2]
    assert "load()" in out.getvalue()
    assert "1/2" in last


def test_no_progress_shows_nothing() -> None:
    out = Terminal()
    shown = progress.make_progress(False, out)
    shown.run_started(1)
    shown.cell_started(1, "1")
    shown.cell_ended(1, 1, ok=True)
    shown.run_ended()
    assert out.getvalue() == ""


def test_tracebacks_keep_colours_only_on_a_terminal_that_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    lines = ["\x1b[31mValueError\x1b[39m: no", "\x1b]8;;file:///x\x1b\\x.py\x1b]8;;\x1b\\"]
    assert progress.readable_traceback(lines, io.StringIO()) == "ValueError: no\nx.py"
    assert progress.readable_traceback(lines, Terminal()) == "\x1b[31mValueError\x1b[39m: no\nx.py"
    monkeypatch.setenv("NO_COLOR", "1")
    assert progress.readable_traceback(lines, Terminal()) == "ValueError: no\nx.py"
