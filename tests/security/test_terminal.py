"""Terminals and logs obey nothing that the sandbox has written."""

from __future__ import annotations

import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daytona_kernel.controlplane import _reason
from daytona_kernel.errors import SandboxError
from daytona_kernel.inventory import Entry, table
from daytona_kernel.progress import cell_title
from daytona_kernel.terminal import Painter, PlainFormatter, coloured, painted, spelled, without_sequences

ATTACKS = [
    "\x1b]0;title\x07",
    "\x1b]52;c;cm0gLXJmIC8=\x07",
    "\x1b]8;;file:///etc/passwd\x1b\\click\x1b]8;;\x1b\\",
    "\x1b[2J\x1b[H",
    "\x1b[?1049h",
    "\x1bP+q544e\x1b\\",
    "\x9b31m",
    "\x9d0;x\x9c",
    "\x1b]0;without an end",
    "\x1b",
    "\x1b[",
    "a\rb",
    "\x08\x08\x08",
    "\u202egnp.exe",
    "\x1b(0",
    "\x1bc",
    "\x1b[6n",
]
COLOUR = re.compile(r"\x1b\[[0-9;:]*m")


def steers(text: str) -> bool:
    return any(not char.isprintable() and char not in "\n\t" for char in text if char not in "\xa0\u3000")


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_sequence_gets_through(attack: str) -> None:
    text = f"before{attack}after"
    for shown in (without_sequences(text), spelled(text), COLOUR.sub("", coloured(text)), cell_title(text)):
        assert not steers(shown)
        assert shown.startswith("before")


@given(st.text("\x1b\x07\x9b\x9c[]PX^_;0123m\\?ABC \n\x00\x7f", max_size=40))
def test_whatever_it_is_made_of(text: str) -> None:
    assert not steers(without_sequences(text))
    assert not steers(COLOUR.sub("", coloured(text)))


PAINT = re.compile(r"\x1b\[(?:[0-9;:]*m|[0-9;]*[A-GK]|\?25[hl])|[\r\x08]")


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_cell_s_output_paints_and_does_nothing_else(attack: str) -> None:
    """Wherever it is cut: a terminal that is asked something answers as if its person typed."""
    bar = "\x1b[?25l\x1b[1;32m#\x1b[0m\r\x1b[2K\x1b[1A50%\x08\x1b[?25h"
    text = f"before{attack}{bar}after"
    whole = Painter().feed(text)
    for place in range(len(text)):
        painter = Painter()
        shown = painter.feed(text[:place]) + painter.feed(text[place:])
        assert not steers(PAINT.sub("", shown)), repr(shown)
        assert shown.startswith("before")
    assert whole.endswith("after")
    assert painted(bar) == bar


def test_a_sequence_without_end_is_not_waited_for_for_ever() -> None:
    painter = Painter()
    assert painter.feed("a\x1b]0;") == "a"
    assert painter.feed("x" * 10_000) == ""
    assert painter.feed("b") == "b"


@given(st.lists(st.text("\x1b\x07\x9b[]PX;01m\\? A\n\r\x00", max_size=6), max_size=6))
def test_whatever_the_pieces_are(pieces: list[str]) -> None:
    painter = Painter()
    assert not steers(PAINT.sub("", "".join(map(painter.feed, pieces))))


@pytest.mark.parametrize("attack", [*ATTACKS, "\n"])
def test_a_list_of_sandboxes_is_a_line_each_whatever_they_are_called(attack: str) -> None:
    name = f"box{attack}"
    shown = table([Entry(f"id{attack}", name, f"started{attack}", "-", f"2026{attack}", False, False)])
    assert not steers(shown)
    assert len(shown.splitlines()) == 2


def test_colours_and_lines_stay() -> None:
    text = "\x1b[1;31mValueError\x1b[39m: no\n\tat line 3 · é"
    assert coloured(text) == text
    assert without_sequences(text) == "ValueError: no\n\tat line 3 · é"


@pytest.mark.parametrize("attack", ATTACKS)
def test_logs_and_errors_that_quote_the_sandbox_are_plain(attack: str) -> None:
    record = logging.LogRecord("n", logging.WARNING, "", 0, "it said: %s", (f"x{attack}",), None)
    assert not steers(PlainFormatter("%(message)s").format(record))
    assert not steers(str(SandboxError(f"it said {attack}")))
    reason = _reason({"message": f"a{attack}"}, type("Answer", (), {"status": 400, "reason": "x"}))
    assert not steers(str(SandboxError(reason)))
